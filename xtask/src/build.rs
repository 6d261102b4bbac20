//! `cargo xtask build`: the kernel programs, then the daemon that embeds them.

use std::{
    path::PathBuf,
    process::{ExitCode, ExitStatus},
};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{
    command::{cargo, exit_code, run as run_command, status},
    object,
    places::Places,
    say::say,
};

#[derive(Args)]
pub(crate) struct Options {
    /// Builds hubd and hubctl with optimisations
    #[arg(long)]
    release: bool,
}

pub(crate) fn run(places: &Places, options: &Options) -> Result<ExitCode> {
    let ended = build(places, options.release)?;
    if ended.success() {
        say("build", &format!("hubd and hubctl are in {}", binaries(places, options.release).display()));
    }
    Ok(exit_code(ended))
}

/// Builds the kernel programs, then hubd and hubctl.
pub(crate) fn build(places: &Places, release: bool) -> Result<ExitStatus> {
    object::build(places)?;
    let mut build = cargo(places);
    if release {
        build.args(["build", "--release", "--package", "hub-daemon", "--package", "hub-wg"]);
    } else {
        build.args(["build", "--bins", "--test", SMALLEST_TEST]);
    }
    status(&mut build)
}

/// Builds the kernel programs, all programs, and these tests or all.
///
/// All packages and a test at least in one call: else features of dependencies differ from those of the tests, and
/// cargo builds the daemon once more.
pub(crate) fn with_tests(places: &Places, tests: &[&str]) -> Result<()> {
    object::build(places)?;
    let mut build = cargo(places);
    build.args(["build", "--bins"]);
    if tests.is_empty() {
        build.arg("--tests");
    }
    build.args(tests.iter().flat_map(|test| ["--test", test]));
    run_command(&mut build).context("build hubd, hubctl, hub-wg and the tests")
}

/// A test program that is built in no time, for the features of all others.
const SMALLEST_TEST: &str = "lab";

/// The folder with hubd and hubctl.
pub(crate) fn binaries(places: &Places, release: bool) -> PathBuf {
    places.target().join(if release { "release" } else { "debug" })
}
