//! `cargo xtask check`: everything that can be said without running the hub.
//!
//! All checks run even when one fails; the last line names those that failed.

mod lines;
mod rows;
mod unit;

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{
    clock::timed,
    command::{cargo, run as run_command},
    places::Places,
    say::{complain, say},
    setup,
};

#[derive(Args)]
pub(crate) struct Options {}

/// A check's name and what it does.
type Check = (&'static str, fn(&Places) -> Result<()>);

const CHECKS: [Check; 8] = [
    ("format", format),
    ("file lengths", lines::check),
    ("rows of requirements", rows::check),
    ("lints", lints),
    ("lints of the kernel programs", kernel_lints),
    ("documentation", documentation),
    ("licences", licences),
    ("systemd unit", unit::check),
];

pub(crate) fn run(places: &Places, _: &Options) -> ExitCode {
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        say("check", name);
        let (outcome, duration) = timed(|| check(places));
        match outcome {
            Ok(()) => say("check", &format!("{name}: passed ({:.1} s)", duration.as_secs_f64())),
            Err(error) => {
                complain(&format!("{name}: {error:#}"));
                failed.push(name);
            }
        }
    }
    if failed.is_empty() {
        say("check", "all checks passed");
        return ExitCode::SUCCESS;
    }
    complain(&format!("failed checks: {}", failed.join(", ")));
    ExitCode::FAILURE
}

fn format(places: &Places) -> Result<()> {
    run_command(cargo(places).args(["fmt", "--all", "--check"])).context("run `cargo fmt --all`")
}

fn lints(places: &Places) -> Result<()> {
    run_command(cargo(places).args(["clippy", "--all-targets", "--", "--deny", "warnings"]))
}

/// The kernel programs on the host, where they compile for the lints' sake alone.
fn kernel_lints(places: &Places) -> Result<()> {
    run_command(cargo(places).args([
        "clippy",
        "--package",
        "hub-ebpf",
        "--all-targets",
        "--",
        "--deny",
        "warnings",
    ]))
}

fn documentation(places: &Places) -> Result<()> {
    let mut document = cargo(places);
    document.args(["doc", "--no-deps", "--document-private-items"]).env("RUSTDOCFLAGS", "-D warnings");
    run_command(&mut document)
}

/// Licences, duplicates and origins. Known vulnerabilities need a download and are left to a scheduled job.
fn licences(places: &Places) -> Result<()> {
    let deny = setup::licence_checker(places)?;
    let mut check = Command::new(deny);
    check.current_dir(places.root()).args(["--workspace", "check", "--hide-inclusion-graph"]);
    run_command(check.args(["licenses", "bans", "sources"]))
}
