//! The second try of tests that failed beside others.
//!
//! Tests with a kernel, a wire and a clock can miss a deadline when a busy machine stops them for longer than it
//! leaves room. Such a test runs once more alone, and the end of the run names it. What fails alone is broken; so
//! is everything when more than a few fail, and a test program that ends without saying which test failed.

use std::{
    io::{BufRead as _, BufReader, Read, Write},
    process::{Command, ExitStatus, Stdio},
    thread,
};

use anyhow::{Context as _, Result};

use crate::command;

/// Most tests that get a second try.
const MOST: usize = 3;

/// Arguments that begin the name of a target whose tests may run again: those against a kernel.
const KERNEL_TESTS: &str = "-p hub-tests --test ";

/// What `cargo test` says about tests that failed.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Failures {
    /// Arguments of cargo for each target.
    pub(super) targets: Vec<String>,
    pub(super) tests: Vec<String>,
}

impl Failures {
    /// Whether these may be tried again.
    pub(super) fn are_few(&self) -> bool {
        (1..=MOST).contains(&self.tests.len())
            && !self.targets.is_empty()
            && self.targets.iter().all(|target| target.starts_with(KERNEL_TESTS))
    }

    /// Names of the test programs. Named by their package they would be built anew, with other features.
    pub(super) fn programs(&self) -> impl Iterator<Item = &str> {
        self.targets.iter().filter_map(|target| target.strip_prefix(KERNEL_TESTS))
    }

    fn read(&mut self, line: &str) {
        let line = line.trim();
        if let Some(target) = line.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')) {
            self.targets.push(target.to_owned());
        }
        let failed = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED"));
        self.tests.extend(failed.map(str::to_owned));
    }
}

/// Runs `cargo test`, shows what it says, and reads what failed.
pub(super) fn watch(cargo: &mut Command) -> Result<(ExitStatus, Failures)> {
    let started = cargo.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = started.with_context(|| format!("start `{}`", command::line(cargo)))?;
    let output = child.stdout.take().context("standard output is a pipe")?;
    let complaints = child.stderr.take().context("standard error is a pipe")?;
    let (tests, targets) = thread::scope(|scope| {
        let tests = scope.spawn(|| show(output, std::io::stdout()));
        let targets = show(complaints, std::io::stderr());
        (tests.join(), targets)
    });
    let tests = tests.map_err(|_panic| anyhow::anyhow!("reading the output of the tests failed"))??;
    let status = child.wait().with_context(|| format!("wait for `{}`", command::line(cargo)))?;
    Ok((status, Failures { targets: targets?.targets, tests: tests.tests }))
}

/// Copies what is said, line by line.
fn show(from: impl Read, mut to: impl Write) -> Result<Failures> {
    let mut found = Failures::default();
    let mut from = BufReader::new(from);
    let mut read = Vec::new();
    while from.read_until(b'\n', &mut read)? > 0 {
        to.write_all(&read)?;
        to.flush()?;
        found.read(&String::from_utf8_lossy(&read));
        read.clear();
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(lines: &str) -> Failures {
        show(lines.as_bytes(), std::io::sink()).unwrap()
    }

    #[test]
    fn failed_tests_and_their_targets_are_read() {
        let found =
            said("running 2 tests\ntest a::slow ... FAILED\ntest fast ... ok\n\nfailures:\n    a::slow\n");
        assert_eq!(found.tests, ["a::slow"]);
        let found = said("error: 1 target failed:\n    `-p hub-tests --test e2e_limits`\n");
        assert_eq!(found.targets, ["-p hub-tests --test e2e_limits"]);
        assert_eq!(found.programs().collect::<Vec<_>>(), ["e2e_limits"]);
    }

    #[test]
    fn only_few_tests_against_a_kernel_are_tried_again() {
        let of = |targets: &[&str], tests: usize| Failures {
            targets: targets.iter().map(|target| (*target).to_owned()).collect(),
            tests: vec!["test".to_owned(); tests],
        };
        assert!(of(&["-p hub-tests --test e2e_limits"], 1).are_few());
        assert!(!of(&["-p hub-tests --test e2e_limits"], 0).are_few(), "it ended in the middle");
        assert!(!of(&["-p hub-tests --test e2e_limits"], MOST + 1).are_few());
        assert!(!of(&[], 1).are_few());
        assert!(!of(&["-p hub-daemon --lib", "-p hub-tests --test e2e_limits"], 2).are_few());
    }
}
