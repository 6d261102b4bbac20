//! Programs of the system that tell what no file does. One that is not installed is no failure.

use std::process::{Command, Stdio};

/// What a program says; `None` if it is not there or fails.
pub(in crate::cli) fn says(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// As [`says`], read as JSON.
pub(super) fn tells(program: &str, arguments: &[&str]) -> Option<serde_json::Value> {
    serde_json::from_str(&says(program, arguments)?).ok()
}
