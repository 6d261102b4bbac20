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

use anyhow::{Result, bail};
use clap::Args;

use self::pool::Ended;
use crate::{
    build::{self, TestProgram},
    command::{cargo, find, status},
    places::Places,
    say::{complain, say},
    setup,
};

mod again;
mod pool;

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
    match rights {
        Rights::Root => say("test", "running all tests"),
        Rights::Sudo => say("test", "running all tests, through sudo"),
        Rights::LeftOut => say("test", "leaving out the tests that need root"),
    }
    let programs = build::test_programs(places, &[])?;
    let command = |program: &TestProgram| {
        let mut command = test(program, rights, &binaries);
        command.args(&options.filters);
        command
    };
    let ended = pool::run(&programs, &command)?;
    let mut examples = cargo(places);
    examples.args(["test", "--doc", "--"]).args(&options.filters);
    let examples = status(&mut examples)?.success();
    if !examples {
        complain("failed: examples in the documentation");
    }
    let failed: Vec<&Ended<'_>> = ended.iter().filter(|ended| !ended.status.success()).collect();
    let names = failed.iter().map(|ended| ended.describe()).collect::<Vec<_>>().join("; ");
    if !again::are_few(&failed) {
        complain(&format!("failed: {names}"));
        return Ok(ExitCode::FAILURE);
    }
    for Ended { program, failed, .. } in &failed {
        say("test", &format!("once more, alone: {} of {}", failed.join(", "), program.full_name()));
        let mut command = test(program, rights, &binaries);
        command.args(["--exact", "--test-threads=1"]).args(failed);
        let again = pool::one(program, command)?;
        if !again.status.success() {
            complain(&format!("failed, also alone: {}", again.describe()));
            return Ok(ExitCode::FAILURE);
        }
    }
    if !failed.is_empty() {
        say("test", &format!("passed alone and failed beside others: {names}"));
    }
    Ok(if examples { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Starts a test program with what tests read.
fn test(program: &TestProgram, rights: Rights, binaries: &Path) -> Command {
    let has_root = if rights == Rights::LeftOut { "0" } else { "1" };
    let mut command = if rights == Rights::Sudo {
        let mut sudo = Command::new("sudo");
        if !stdin().is_terminal() {
            sudo.arg("--non-interactive");
        }
        // Sudo hands on little of the environment.
        sudo.args(["--preserve-env=PATH", "env"]).arg(format!("HUB_TEST_ROOT={has_root}"));
        sudo.arg(format!("HUB_BIN_DIR={}", binaries.display()));
        sudo.arg(format!("CARGO_MANIFEST_DIR={}", program.folder.display())).arg(&program.program);
        sudo
    } else {
        Command::new(&program.program)
    };
    command.current_dir(&program.folder).env("CARGO_MANIFEST_DIR", &program.folder);
    command.env("HUB_TEST_ROOT", has_root).env("HUB_BIN_DIR", binaries);
    command
}

fn rights(no_root: bool, is_root: bool, has_sudo: bool) -> Option<Rights> {
    match (no_root, is_root, has_sudo) {
        (true, _, _) => Some(Rights::LeftOut),
        (false, true, _) => Some(Rights::Root),
        (false, false, true) => Some(Rights::Sudo),
        (false, false, false) => None,
    }
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
}
