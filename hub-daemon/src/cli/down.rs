//! `hubctl down`: takes the hub out of the kernel, also when the daemon is dead.

use std::path::Path;

use serde_json::json;

use super::arguments::Format;
use super::exit::Failure;
use super::output::Output;
use crate::kernel::down::down;

pub(super) fn run(output: Output, bpffs: &Path, runtime_dir: &Path) -> Result<(), Failure> {
    let teardown = down(bpffs, runtime_dir);
    if output.format() == Format::Table {
        for object in &teardown.removed {
            output.line(&format!("removed {object}"))?;
        }
        if teardown.removed.is_empty() && teardown.failures.is_empty() {
            output.line("nothing of the hub is in the kernel")?;
        }
    } else {
        let failures: Vec<String> = teardown.failures.iter().map(|failure| failure.error.clone()).collect();
        let answer = json!({ "removed": teardown.removed, "failures": failures });
        output.show(&answer, |_: &serde_json::Value| String::new())?;
    }
    match teardown.failures.first() {
        None => Ok(()),
        Some(first) => {
            let source = std::io::Error::other(first.error.clone());
            Err(Failure::local("remove", &first.object, source))
        }
    }
}
