//! `cargo xtask build`: the kernel programs, then the daemon that embeds them.

use std::{
    path::PathBuf,
    process::{ExitCode, ExitStatus},
};

use anyhow::Result;
use clap::Args;

use crate::{
    command::{cargo, exit_code, status},
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
    build.args(["build", "--package", "hub-daemon", "--package", "hub-wg"]);
    if release {
        build.arg("--release");
    }
    status(&mut build)
}

/// The folder with hubd and hubctl.
pub(crate) fn binaries(places: &Places, release: bool) -> PathBuf {
    places.target().join(if release { "release" } else { "debug" })
}
