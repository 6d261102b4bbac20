//! `cargo xtask package`: a package for Debian and Ubuntu.
//!
//! The tree is staged below `target/package` and packed with `dpkg-deb`; what the package does when it
//! comes and goes is in `config/debian`.

mod tree;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{
    build,
    command::{find, run as run_command, text},
    places::Places,
    say::{say, show},
    vm,
};

#[derive(Args)]
pub(crate) struct Options {
    /// Packs programs without optimisations, hardly compressed and not seen by lintian: to try the package
    #[arg(long)]
    dev: bool,
    /// Then installs it in an emulated Debian with systemd, uses it, breaks it and removes it
    #[arg(long)]
    test: bool,
    /// Which kernel that Debian boots
    #[arg(long, value_name = "VERSION", default_value = "6.1", requires = "test")]
    kernel: String,
}

pub(crate) fn run(places: &Places, options: &Options) -> Result<ExitCode> {
    let package = package(places, !options.dev)?;
    show(&package.display().to_string());
    if !options.dev {
        check(&package)?;
    }
    if options.test {
        return vm::package(places, &package, &options.kernel);
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds everything and packs it; the package's file.
fn package(places: &Places, release: bool) -> Result<PathBuf> {
    if find("dpkg-deb").is_none() {
        bail!("packages are made with dpkg-deb: this is neither Debian nor Ubuntu");
    }
    if !build::build(places, release)?.success() {
        bail!("the build failed");
    }
    let folder = places.target().join("package");
    let root = folder.join("root");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("clear {}", root.display()))?;
    }
    let architecture = text(Command::new("dpkg").arg("--print-architecture"))?.trim().to_owned();
    tree::stage(places, &build::binaries(places, release), &root, &architecture)?;
    let file = folder.join(format!("hub_{}_{architecture}.deb", env!("CARGO_PKG_VERSION")));
    // The same sources make the same package.
    let commit = text(Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(places.root()));
    let time = commit.map_or_else(|_no_repository| "0".to_owned(), |time| time.trim().to_owned());
    let mut pack = Command::new("dpkg-deb");
    pack.args(if release { ["-Zxz", "-z6"] } else { ["-Zgzip", "-z1"] });
    pack.args(["--root-owner-group", "--build"]).arg(&root).arg(&file).env("SOURCE_DATE_EPOCH", time);
    text(&mut pack)?;
    Ok(file)
}

/// Asks lintian where it is installed; its errors fail the verb.
fn check(package: &Path) -> Result<()> {
    let Some(lintian) = find("lintian") else {
        say("package", "lintian is not installed: nobody looked at the package");
        return Ok(());
    };
    let mut look = Command::new(lintian);
    if crate::setup::is_root() {
        look.arg("--allow-root");
    }
    run_command(look.args(["--fail-on", "error", "--tag-display-limit", "0"]).arg(package)).context("lintian")
}
