//! Debian's second set of Rust packages, unpacked and not installed: they
//! conflict with Debian's own `rustc` and `rustup`. No root, nothing outside of
//! `target/tools`.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{libraries, packages};
use crate::{
    command::{find, run, text},
    places::Places,
    say::say,
};

/// Finds the compiler beside itself, so that the folder may be moved.
const WRAPPER: &str = r#"#!/bin/sh
tools=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
for folder in "$tools"/ebpf-rust/usr/lib/*-linux-gnu; do LD_LIBRARY_PATH=$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}; done
export LD_LIBRARY_PATH
exec "$tools/ebpf-rust/usr/bin/rustc" "$@"
"#;

/// Packages of the compiler; those with a version in their names are found as dependencies.
const PACKAGES: [&str; 3] = ["rustc-web", "libstd-rust-web-dev", "rust-web-src"];
const DEPENDENCIES: [&str; 2] = ["libstd-rust-web-", "libllvm"];

/// Rounds of looking for libraries that the unpacked libraries need in turn.
const ROUNDS: usize = 4;

/// Runs the unpacked compiler with its own libraries.
pub(super) fn wrapper(places: &Places) -> PathBuf {
    places.tools().join("rustc-ebpf")
}

/// Downloads and unpacks the packages.
pub(super) fn unpack(places: &Places) -> Result<PathBuf> {
    if find("apt-get").is_none() || find("dpkg-deb").is_none() {
        bail!("this is neither Debian nor Ubuntu");
    }
    let folder = places.tools().join("ebpf-rust");
    if !folder.join("usr/bin/rustc").exists() {
        say(
            "setup",
            "unpacking Debian's rustc-web into target/tools (130 MB to download, about 850 MB on disk)",
        );
        get(places, &folder, &names()?)?;
    }
    get_missing_libraries(places, &folder)?;
    let wrapper = wrapper(places);
    fs::write(&wrapper, WRAPPER)?;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
    Ok(wrapper)
}

/// The packages with those dependencies that belong to the compiler.
fn names() -> Result<Vec<String>> {
    if dependencies().is_err() {
        packages::update()?;
    }
    let mut names: Vec<String> = PACKAGES.map(str::to_owned).into();
    names.extend(dependencies()?);
    Ok(names)
}

fn dependencies() -> Result<Vec<String>> {
    let listing = text(Command::new("apt-cache").args([
        "depends",
        "--recurse",
        "--no-recommends",
        "--no-suggests",
        "--no-conflicts",
        "--no-breaks",
        "--no-replaces",
        "--no-enhances",
        "rustc-web",
    ]))?;
    let found = versioned(&listing);
    if found.len() < DEPENDENCIES.len() {
        bail!("this release of Debian has no package rustc-web");
    }
    Ok(found)
}

/// Packages among `apt-cache depends` whose names start like a dependency and end with a version.
fn versioned(listing: &str) -> Vec<String> {
    let named = |prefix: &str| {
        listing.lines().find(|line| {
            line.strip_prefix(prefix)
                .is_some_and(|version| version.starts_with(|first: char| first.is_ascii_digit()))
        })
    };
    DEPENDENCIES.into_iter().filter_map(named).map(str::to_owned).collect()
}

/// Unpacks the libraries of Debian that LLVM needs and that are not installed.
fn get_missing_libraries(places: &Places, folder: &Path) -> Result<()> {
    let sysroot = folder.join("usr");
    let folders = libraries::folders(&sysroot);
    for _ in 0..ROUNDS {
        let missing = libraries::missing(&sysroot.join("bin/rustc"), &folders)?;
        if missing.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = missing.iter().map(|library| package_of(library)).collect();
        say("setup", &format!("unpacking libraries for it: {}", names.join(" ")));
        get(places, folder, &names)?;
    }
    bail!("{}: its libraries are incomplete", folder.display())
}

/// The package of a library by Debian's rule: name, then version, with a dash after a digit.
fn package_of(library: &str) -> String {
    let (name, version) = library.split_once(".so.").unwrap_or((library, ""));
    let version = version.split('.').next().unwrap_or_default();
    match name {
        "libicuuc" | "libicudata" | "libicui18n" => format!("libicu{version}"),
        "libxml2" => name.to_owned(),
        _ if name.ends_with(|last: char| last.is_ascii_digit()) => format!("{name}-{version}"),
        _ => format!("{name}{version}"),
    }
}

fn get(places: &Places, folder: &Path, names: &[String]) -> Result<()> {
    let downloads = places.tools().join("debs");
    fs::create_dir_all(&downloads)?;
    // Unpacked beside and renamed at the end: an interrupted set-up leaves no half of a compiler.
    let partial = places.tools().join("ebpf-rust.partial");
    if folder.exists() {
        fs::rename(folder, &partial)?;
    } else if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    for name in names {
        download(&downloads, name)?;
        let file = newest(&downloads, name)?;
        run(Command::new("dpkg-deb").arg("-x").arg(&file).arg(&partial))?;
        fs::remove_file(&file)?;
    }
    fs::rename(&partial, folder).with_context(|| format!("create {}", folder.display()))
}

fn download(folder: &Path, name: &str) -> Result<()> {
    let mut download = Command::new("apt-get");
    download.args(["download", "--quiet", name]).current_dir(folder);
    if packages::is_root() {
        // The folder is not readable for apt's own user; there is nothing to protect from here.
        download.args(["-o", "APT::Sandbox::User=root"]);
    }
    text(&mut download).map(drop)
}

fn newest(folder: &Path, name: &str) -> Result<PathBuf> {
    let prefix = format!("{name}_");
    let files = fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut files: Vec<PathBuf> = files
        .filter(|path| {
            path.file_name().and_then(|file| file.to_str()).is_some_and(|file| file.starts_with(&prefix))
        })
        .collect();
    files.sort();
    files.pop().with_context(|| format!("apt-get downloaded no {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_lead_to_their_packages() {
        for (library, package) in [
            ("libz3.so.4", "libz3-4"),
            ("libedit.so.2", "libedit2"),
            ("libffi.so.8", "libffi8"),
            ("libxml2.so.2", "libxml2"),
            ("libicuuc.so.72", "libicu72"),
            ("libLLVM.so.22.1", "libLLVM22"),
        ] {
            assert_eq!(package_of(library), package);
        }
    }

    #[test]
    fn versions_come_from_the_dependencies() {
        let listing = "rustc-web\n  Depends: libstd-rust-web-dev\nlibstd-rust-web-dev\n\
                       libstd-rust-web-1.96\n  Depends: libllvm22\nlibllvm22\n";
        assert_eq!(versioned(listing), ["libstd-rust-web-1.96", "libllvm22"]);
        assert!(versioned("rustc\nlibstd-rust-web-dev\n").is_empty());
    }
}
