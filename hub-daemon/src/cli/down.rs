//! `hubctl down`: takes the hub out of the kernel, also when the daemon is dead.

use std::path::Path;

use super::exit::Failure;
use super::output::Output;

/// The one place to change when the kernel side can take itself down.
pub(super) fn run(_output: Output, _bpffs: &Path) -> Result<(), Failure> {
    Err(Failure::Unsupported("this build cannot take the hub out of the kernel"))
}
