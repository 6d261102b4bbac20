//! `cargo xtask build`: the kernel programs, then the daemon that embeds them.

use std::process::ExitCode;

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
    object::build(places)?;
    let mut build = cargo(places);
    build.args(["build", "--package", "hub-daemon"]);
    if options.release {
        build.arg("--release");
    }
    let ended = status(&mut build)?;
    if ended.success() {
        let profile = if options.release { "release" } else { "debug" };
        say("build", &format!("hubd and hubctl are in {}", places.target().join(profile).display()));
    }
    Ok(exit_code(ended))
}
