//! Completions and man pages, made from the arguments themselves.

use std::path::Path;

use clap::CommandFactory as _;

use super::arguments::Arguments;
use super::exit::Failure;
use super::output::Output;

pub(super) fn completions(output: Output, shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "hubctl", &mut script);
    output.bytes(&script)
}

/// One page for hubctl and one for each command; the exit codes are in the first.
pub(super) fn man(directory: &Path) -> Result<(), Failure> {
    clap_mangen::generate_to(Arguments::command(), directory)
        .map_err(|source| Failure::local("write man pages to", directory.display(), source))
}
