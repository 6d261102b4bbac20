//! `cargo xtask setup`: from a fresh machine to one that builds and tests the hub.
//!
//! Every step looks whether its result is there before it does anything, by
//! trying it and not by remembering: tools that came from elsewhere count.

mod compiler;
mod debian;
mod deny;
mod libraries;
mod linker;
mod packages;

use std::{fs::File, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::Args;

pub(crate) use self::{compiler::Compiler, packages::is_root};
use crate::{places::Places, say::say};

#[derive(Args)]
pub(crate) struct Options {}

/// What builds the kernel programs.
pub(crate) struct Toolchain {
    pub(crate) compiler: Compiler,
    pub(crate) linker: PathBuf,
}

pub(crate) fn run(places: &Places, _: &Options) -> Result<ExitCode> {
    toolchain(places)?;
    programs()?;
    licence_checker(places)?;
    say("setup", "complete");
    Ok(ExitCode::SUCCESS)
}

/// The compiler and the linker for the kernel programs; gets what is missing.
pub(crate) fn toolchain(places: &Places) -> Result<Toolchain> {
    let _turn = wait_for_turn(places)?;
    let compiler = compiler::ready(places)?;
    let linker = linker::ready(places, &compiler)?;
    Ok(Toolchain { compiler, linker })
}

/// The programs that tests and demonstrations run; installs what is missing.
pub(crate) fn programs() -> Result<()> {
    packages::ready()
}

/// The programs that boot other kernels; installs what is missing.
pub(crate) fn machines() -> Result<()> {
    packages::ready_for_machines()
}

/// `cargo-deny`; builds it when it is missing.
pub(crate) fn licence_checker(places: &Places) -> Result<PathBuf> {
    let _turn = wait_for_turn(places)?;
    deny::ready(places)
}

/// Lets one set-up at a time change the tools; the turn ends when the file is closed.
fn wait_for_turn(places: &Places) -> Result<File> {
    let folder = places.tools();
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let path = folder.join("lock");
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    file.lock().with_context(|| format!("lock {}", path.display()))?;
    Ok(file)
}
