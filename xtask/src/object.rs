//! Builds the object with the kernel programs: `target/ebpf/hub.bpf.o`; and the
//! one that `bench` measures with.
//!
//! Stable cargo with an eBPF compiler and its own sources of `core`. The
//! object replaces the previous one atomically and only when it differs, so
//! that the daemon is not rebuilt without need.

use std::{ffi::OsString, fs, path::Path};

use anyhow::{Context as _, Result};

use crate::{
    clock::timed,
    command::{cargo, run},
    places::Places,
    say::say,
    setup::{self, Toolchain},
    strip::without_dwarf,
};

const TARGET: &str = "bpfel-unknown-none";

/// Settings that override the workspace's release profile.
const PROFILE: [(&str, &str); 8] = [
    ("CODEGEN_UNITS", "1"),
    ("DEBUG", "2"),
    ("INCREMENTAL", "false"),
    ("LTO", "fat"),
    ("OPT_LEVEL", "3"),
    ("OVERFLOW_CHECKS", "false"),
    ("PANIC", "abort"),
    ("STRIP", "none"),
];

/// Sets the machine up, builds the object and puts it where the daemon looks for it.
pub(crate) fn build(places: &Places) -> Result<()> {
    build_one(places, None, "hub", &places.object())
}

/// As [`build`], for the programs that `bench` measures with.
pub(crate) fn build_bench(places: &Places) -> Result<()> {
    build_one(places, None, "hub-bench", &places.bench_object())
}

/// As [`build`], from a changed copy of the workspace, to another place. Lints are the original's business.
pub(crate) fn build_copy(places: &Places, copy: &Path, path: &Path) -> Result<()> {
    build_one(places, Some(copy), "hub", path)
}

fn build_one(places: &Places, copy: Option<&Path>, name: &str, path: &Path) -> Result<()> {
    let toolchain = setup::toolchain(places)?;
    let (outcome, duration) = timed(|| compile(places, copy, &toolchain, name));
    outcome?;
    let built = places.ebpf_build().join(TARGET).join("release").join(name);
    let unstripped = fs::read(&built).with_context(|| format!("read {}", built.display()))?;
    let object = without_dwarf(&unstripped).with_context(|| format!("strip {}", built.display()))?;
    replace(path, &object).with_context(|| format!("write {}", path.display()))?;
    let sizes = format!("{} bytes, {} with DWARF", object.len(), unstripped.len());
    say("object", &format!("{} ({sizes}, {:.1} s)", path.display(), duration.as_secs_f64()));
    Ok(())
}

fn compile(places: &Places, copy: Option<&Path>, toolchain: &Toolchain, name: &str) -> Result<()> {
    let mut build = cargo(places);
    build
        .current_dir(copy.unwrap_or(places.root()))
        .args(["build", "--package", "hub-ebpf", "--bin", name, "--release"])
        .args(["-Zbuild-std=core", "--target", TARGET])
        .env("CARGO_TARGET_DIR", places.ebpf_build())
        .env("CARGO_ENCODED_RUSTFLAGS", flags(&toolchain.linker, copy.is_some()))
        .env("RUSTC", &toolchain.compiler.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER");
    if let Some(folders) = toolchain.compiler.library_path() {
        build.env("LD_LIBRARY_PATH", folders);
    }
    for (name, value) in PROFILE {
        build.env(format!("CARGO_PROFILE_RELEASE_{name}"), value);
    }
    run(&mut build).context("build the kernel programs")
}

/// The compiler's flags, separated as cargo wants them.
fn flags(linker: &Path, silent: bool) -> OsString {
    let mut flags = OsString::from(if silent { "--cap-lints=allow\x1f" } else { "" });
    for flag in [
        "-Ctarget-cpu=v3",
        // Otherwise copies of 12 bytes become loops over bytes: 265 instead of 160 ns per packet.
        "-Clink-arg=--disable-expand-memcpy-in-order",
        "-Clink-arg=--btf",
        // BTF is made from it; DWARF is stripped afterwards.
        "-Cdebuginfo=2",
    ] {
        flags.push(flag);
        flags.push("\x1f");
    }
    flags.push("-Clinker=");
    flags.push(linker);
    flags
}

fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let folder = path.parent().expect("the object lies in a folder");
    fs::create_dir_all(folder)?;
    let temporary = path.with_extension(format!("o.{}", std::process::id()));
    fs::write(&temporary, bytes)?;
    fs::rename(&temporary, path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_end_with_the_linker() {
        let flags = flags(Path::new("/a folder/bpf-linker"), false).into_string().unwrap();
        let flags: Vec<&str> = flags.split('\x1f').collect();
        assert_eq!(flags.first(), Some(&"-Ctarget-cpu=v3"));
        assert_eq!(flags.last(), Some(&"-Clinker=/a folder/bpf-linker"));
    }
}
