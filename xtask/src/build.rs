//! `cargo xtask build`: the kernel programs, then the daemon that embeds them.

use std::{
    path::{Path, PathBuf},
    process::{ExitCode, ExitStatus},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{
    command::{cargo, exit_code, run as run_command, status, text},
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

/// Builds the kernel programs, then hubd and hubctl with optimisations.
pub(crate) fn optimised(places: &Places) -> Result<()> {
    if build(places, true)?.success() { Ok(()) } else { bail!("hubd cannot be built with optimisations") }
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

/// A program with tests that cargo built.
pub(crate) struct TestProgram {
    /// Name of its target: that of the file for tests of a package, else of the library or program.
    pub(crate) name: String,
    /// Whether it is a file of tests, and not a library or program with tests inside.
    pub(crate) is_test: bool,
    pub(crate) program: PathBuf,
    /// Where its package lies.
    pub(crate) folder: PathBuf,
}

impl TestProgram {
    /// Its name among all.
    pub(crate) fn full_name(&self) -> String {
        let folder = self.folder.file_name().unwrap_or_default().display();
        if self.is_test { self.name.clone() } else { format!("{} ({folder})", self.name) }
    }
}

/// Programs with these tests, or with all, which cargo builds if need be.
pub(crate) fn test_programs(places: &Places, tests: &[&str]) -> Result<Vec<TestProgram>> {
    let mut test = cargo(places);
    test.args(["test", "--no-run", "--message-format=json-render-diagnostics"]);
    test.args(tests.iter().flat_map(|test| ["--test", test]));
    Ok(text(&mut test)?.lines().filter_map(test_program).collect())
}

/// A test program out of one of cargo's messages.
fn test_program(message: &str) -> Option<TestProgram> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    if message.pointer("/profile/test")? != true {
        return None;
    }
    let folder = Path::new(message.get("manifest_path")?.as_str()?).parent()?;
    let kinds = message.pointer("/target/kind")?.as_array()?;
    Some(TestProgram {
        name: message.pointer("/target/name")?.as_str()?.to_owned(),
        is_test: kinds.iter().any(|kind| kind == "test"),
        program: message.get("executable")?.as_str()?.into(),
        folder: folder.to_path_buf(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_programs_are_found_among_messages() {
        let message = |kind: &str, test: bool| {
            let target =
                format!(r#""target":{{"kind":["{kind}"],"name":"e2e"}},"profile":{{"test":{test}}}"#);
            format!(r#"{{{target},"manifest_path":"/x/tests/Cargo.toml","executable":"/x/e2e-1"}}"#)
        };
        let found = test_program(&message("test", true)).unwrap();
        assert_eq!((found.full_name().as_str(), found.is_test), ("e2e", true));
        assert_eq!((found.program, found.folder), ("/x/e2e-1".into(), "/x/tests".into()));
        let found = test_program(&message("lib", true)).unwrap();
        assert_eq!((found.full_name().as_str(), found.is_test), ("e2e (tests)", false));
        assert!(test_program(&message("bin", false)).is_none());
        assert!(test_program("not json").is_none());
    }
}
