//! `cargo xtask demo`: the hub on real packets, between network namespaces.
//!
//! Every step prints the commands that an operator would type, what they answer, and whether that is what
//! was promised. Everything lies in one folder and in namespaces of its own, which go when the demo ends:
//! also by Ctrl-C, and by a failure.

mod lab;
mod shell;
mod steps;
mod tour;

use std::{
    io::{IsTerminal as _, stdin},
    path::PathBuf,
    process::{Command, ExitCode},
    sync::{Arc, atomic::AtomicBool},
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use self::{lab::Lab, tour::Tour};
use crate::{
    build,
    clock::timed,
    command::{exit_code, find, status},
    places::Places,
    say::show,
    setup,
};

#[derive(Args)]
pub(crate) struct Options {
    /// What to show
    #[arg(value_enum, default_value_t = Name::Personas)]
    name: Name,
    /// Shows what was built before, as it is
    #[arg(long)]
    no_build: bool,
}

/// What there is to show.
#[derive(Clone, Copy, ValueEnum)]
enum Name {
    /// Personas filter and route
    Personas,
    /// An interface's personality is switched and put back
    Personality,
}

pub(crate) fn run(places: &Places, options: &Options) -> Result<ExitCode> {
    if !options.no_build {
        setup::programs()?;
        let built = build::build(places, false)?;
        if !built.success() {
            return Ok(exit_code(built));
        }
    }
    if !setup::is_root() {
        return again_as_root(options);
    }
    let (steps, config): (&[tour::Step], _) = match options.name {
        Name::Personas => (&steps::PERSONAS, "config/demo/personas"),
        Name::Personality => (&steps::PERSONALITY, "config/demo/personality"),
    };
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted)).context("watch for signals")?;
    }
    let binaries: PathBuf = build::binaries(places, false);
    let (outcome, took) = timed(|| {
        let lab = Lab::new(&places.root().join(config), &binaries, interrupted)?;
        let mut tour = Tour::new(lab);
        tour.walk(steps);
        Ok::<_, anyhow::Error>(tour.end())
    });
    let outcome = outcome?;
    show("");
    let seconds = took.as_secs_f64();
    if outcome.failed.is_empty() {
        show(&format!("{} checks passed in {seconds:.1} s; nothing is left behind", outcome.passed));
        return Ok(ExitCode::SUCCESS);
    }
    for failure in &outcome.failed {
        show(&format!("  ✗ {failure}"));
    }
    show(&format!("{} checks passed, {} failed in {seconds:.1} s", outcome.passed, outcome.failed.len()));
    Ok(ExitCode::FAILURE)
}

/// Cargo built as the user; only the demo itself needs root.
fn again_as_root(options: &Options) -> Result<ExitCode> {
    let Some(sudo) = find("sudo") else { bail!("the demo makes network namespaces: run it as root") };
    let program = std::env::current_exe().context("find this program")?;
    let name = options.name.to_possible_value().context("every demo has a name")?;
    let mut command = Command::new(sudo);
    if !stdin().is_terminal() {
        command.arg("--non-interactive");
    }
    command.arg("--preserve-env=PATH,CARGO_TARGET_DIR,TMPDIR").arg(program);
    Ok(exit_code(status(command.args(["demo", "--no-build", name.get_name()]))?))
}
