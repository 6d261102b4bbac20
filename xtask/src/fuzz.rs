//! `cargo xtask fuzz`: bytes of others, bent at random, for as long as wanted.
//!
//! The targets, their seeds and the bending are the test `fuzz` of `hub-tests`; everyday runs give each of
//! them a moment. No root is needed.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::{
    command::{cargo, exit_code, status},
    places::Places,
};

#[derive(Args)]
pub(crate) struct Options {
    /// `documents`, `configurations`, `bodies`, `requests`, `states`, `journals`, `frames` or `netlink`; all when none is named
    target: Option<String>,
    /// Each target runs for this long
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Number of the first case, to see a failure again
    #[arg(long, default_value_t = 0)]
    first: u64,
}

pub(crate) fn run(places: &Places, options: &Options) -> Result<ExitCode> {
    let mut test = cargo(places);
    test.args(["test", "--quiet", "--test", "fuzz", "--", "--nocapture"]);
    test.args(&options.target);
    test.env("HUB_FUZZ_SECONDS", options.seconds.to_string());
    test.env("HUB_FUZZ_FIRST", options.first.to_string());
    Ok(exit_code(status(&mut test)?))
}
