//! `hubctl check`: documents judged without a daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use super::arguments::Format;
use super::exit::{Failure, count};
use super::output::Output;
use crate::check::check;
use crate::inputs::reload::FileProblem;

pub(super) fn run(output: Output, paths: &[PathBuf]) -> Result<(), Failure> {
    let (files, warnings) = check(paths)
        .map_err(|problems| Failure::Documents(problems.iter().map(FileProblem::from).collect()))?;
    for warning in &warnings {
        output.done(&format!("warning: {warning}"))?;
    }
    output.done(&format!("{} checked; nothing wrong", count(files, "file")))
}

/// `hubd check`.
pub fn check_paths(paths: &[PathBuf]) -> ExitCode {
    let output = Output::new(Format::Table);
    match run(output, paths) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => output.failed(&failure),
    }
}
