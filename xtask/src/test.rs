//! `cargo xtask test`: all tests, those that need root included.
//!
//! Tests read two variables: `HUB_TEST_ROOT` (1: root tests run; 0: they are
//! left out) and `HUB_BIN_DIR` (the folder with `hubd` and `hubctl`). Without
//! root, cargo builds as the user and sudo runs the test programs, so that no
//! file below `target` belongs to root.

use std::{
    io::{IsTerminal as _, stdin},
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{
    build,
    command::{cargo, exit_code, find, text},
    places::Places,
    say::say,
    setup,
};

mod again;

#[derive(Args)]
pub(crate) struct Options {
    /// Leaves out the tests that need root
    #[arg(long)]
    no_root: bool,
    /// Runs only tests whose names contain one of these
    filters: Vec<String>,
}

/// How the tests get their rights.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rights {
    Root,
    Sudo,
    LeftOut,
}

pub(crate) fn run(places: &Places, options: &Options) -> Result<ExitCode> {
    let rights = rights(options.no_root, setup::is_root(), find("sudo").is_some());
    let Some(rights) = rights else {
        bail!("the tests need root: run this as root, or with --no-root to leave out those that do");
    };
    if rights != Rights::LeftOut {
        setup::programs()?;
    }
    build::with_tests(places, &[])?;
    let binaries = build::binaries(places, false);

    let runner = if rights == Rights::Sudo { Some(runner_variable()?) } else { None };
    let tests = |words: &[&str]| {
        let mut tests = cargo(places);
        tests.args(["test", "--no-fail-fast"]).args(words).env("HUB_BIN_DIR", &binaries);
        tests.env("HUB_TEST_ROOT", if rights == Rights::LeftOut { "0" } else { "1" });
        if let Some(runner) = &runner {
            tests.env(runner, sudo(&binaries));
        }
        tests
    };
    match rights {
        Rights::Root => say("test", "running all tests"),
        Rights::Sudo => say("test", "running all tests, through sudo"),
        Rights::LeftOut => say("test", "leaving out the tests that need root"),
    }
    let (status, failures) = again::watch(tests(&["--"]).args(&options.filters))?;
    if status.success() || !failures.are_few() {
        return Ok(exit_code(status));
    }
    for target in failures.programs() {
        say("test", &format!("once more, alone: {} of {target}", failures.tests.join(", ")));
        let words = ["--test", target, "--", "--exact", "--test-threads=1"];
        let (status, _) = again::watch(tests(&words).args(&failures.tests))?;
        if !status.success() {
            return Ok(exit_code(status));
        }
    }
    say("test", &format!("passed alone and failed beside others: {}", failures.tests.join(", ")));
    Ok(ExitCode::SUCCESS)
}

fn rights(no_root: bool, is_root: bool, has_sudo: bool) -> Option<Rights> {
    match (no_root, is_root, has_sudo) {
        (true, _, _) => Some(Rights::LeftOut),
        (false, true, _) => Some(Rights::Root),
        (false, false, true) => Some(Rights::Sudo),
        (false, false, false) => None,
    }
}

/// How cargo starts a test program with root's rights.
fn sudo(binaries: &Path) -> String {
    let ask = if stdin().is_terminal() { "" } else { "--non-interactive " };
    let folder = binaries.display();
    format!("sudo {ask}--preserve-env=PATH,CARGO_MANIFEST_DIR env HUB_TEST_ROOT=1 HUB_BIN_DIR={folder}")
}

/// The variable that names cargo's runner for this machine.
fn runner_variable() -> Result<String> {
    let version = text(Command::new("rustc").arg("-vV"))?;
    let host =
        version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names its host")?;
    Ok(runner_variable_of(host))
}

fn runner_variable_of(host: &str) -> String {
    format!("CARGO_TARGET_{}_RUNNER", host.to_uppercase().replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_tests_are_left_out_only_on_request() {
        assert_eq!(rights(true, true, true), Some(Rights::LeftOut));
        assert_eq!(rights(false, true, false), Some(Rights::Root));
        assert_eq!(rights(false, false, true), Some(Rights::Sudo));
        assert_eq!(rights(false, false, false), None);
    }

    #[test]
    fn runner_is_named_after_the_host() {
        let name = "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER";
        assert_eq!(runner_variable_of("x86_64-unknown-linux-gnu"), name);
    }
}
