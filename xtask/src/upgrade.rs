//! `cargo xtask upgrade`: real connections through upgrades from another version of the hub to this one, and back.
//!
//! The other version is built by its own xtask from what git has of it.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{
    build,
    command::{cargo, exit_code, run as run_command, status, text},
    places::Places,
    say::say,
    setup,
};

#[derive(Args)]
pub(crate) struct Options {
    /// The other version, as git names it: a tag, a branch or a commit
    revision: String,
    /// Only to this version: the other one need not take over what this one leaves
    #[arg(long)]
    one_way: bool,
    /// Ends after this long for each hook, also before 50 upgrades
    #[arg(long, default_value_t = 20)]
    minutes: u64,
}

/// The test program, and the test in it.
const TEST: [&str; 2] = ["e2e_carry", "upgrade::connections_outlive_upgrades_from_another_version_and_back"];

pub(crate) fn run(places: &Places, options: &Options) -> Result<ExitCode> {
    if !setup::is_root() {
        bail!("upgrades are about the kernel: run this as root");
    }
    setup::programs()?;
    let other = programs_of(places, &options.revision)?;
    let [binary, test] = TEST;
    build::with_tests(places, &[binary])?;
    let mut command = cargo(places);
    command.args(["test", "--quiet", "--test", binary, "--", test, "--exact", "--nocapture"]);
    command.env("HUB_TEST_ROOT", "1").env("HUB_BIN_DIR", build::binaries(places, false));
    command.env("HUB_OTHER_BIN_DIR", other).env("HUB_SOAK_MINUTES", options.minutes.to_string());
    if options.one_way {
        command.env("HUB_UPGRADE_ONE_WAY", "1");
    }
    Ok(exit_code(status(&mut command)?))
}

/// Builds a version, and returns the folder with its programs.
fn programs_of(places: &Places, revision: &str) -> Result<PathBuf> {
    let folder = places.target().join("upgrade");
    let (source, target) = (folder.join("source"), folder.join("target"));
    let mut git = Command::new("git");
    git.current_dir(places.root()).args(["rev-parse", "--verify", &format!("{revision}^{{commit}}")]);
    let commit = text(&mut git).with_context(|| format!("{revision} is no version that git has"))?;
    say("upgrade", &format!("builds {}", commit.trim()));
    if source.exists() {
        fs::remove_dir_all(&source)?;
    }
    fs::create_dir_all(&source)?;
    fs::create_dir_all(&target)?;
    unpack(places, commit.trim(), &source)?;
    let tools = target.join("tools");
    if places.tools().exists() && !tools.exists() {
        symlink(places.tools(), &tools)?;
    }
    let mut build = cargo(places);
    build.current_dir(&source).env("CARGO_TARGET_DIR", &target).args(["xtask", "build"]);
    run_command(&mut build)?;
    Ok(target.join("debug"))
}

/// Puts the files of a commit into a folder, as new as they are there: an older version is built anew as well.
fn unpack(places: &Places, commit: &str, folder: &Path) -> Result<()> {
    let archive = folder.with_extension("tar");
    let mut git = Command::new("git");
    git.current_dir(places.root()).args(["archive", "--output"]).arg(&archive).arg(commit);
    run_command(&mut git)?;
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--touch", "--file"]).arg(&archive).arg("--directory").arg(folder);
    run_command(&mut tar)?;
    Ok(fs::remove_file(archive)?)
}
