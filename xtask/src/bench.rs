//! `cargo xtask bench`: the hub beside what it could be replaced by, in one run on one machine.
//!
//! All contenders exist at once in network namespaces of their own and are visited in turn. A number
//! means little by itself; what counts are ratios between contenders within a round. Goals that are
//! missed are results, not failures: the verb fails when it could not measure.

mod bound;
mod forward;
mod hub;
mod kit;
mod lab;
mod nft;
mod place;
mod sample;
mod stop;
mod wait;

use std::{env, fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use self::place::Files;
use crate::{
    command::{cargo, run as run_command},
    object,
    places::Places,
    say::show,
    setup,
};

#[derive(Args)]
pub(crate) struct Options {
    /// Measures fewer rounds: under 90 s, and good for a first look only
    #[arg(long)]
    quick: bool,
    /// Writes all numbers to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) fn run(places: &Places, options: &Options) -> Result<ExitCode> {
    if !setup::is_root() {
        bail!("namespaces and kernel programs need root: run this as root");
    }
    setup::programs()?;
    object::build(places)?;
    object::build_bench(places)?;
    run_command(cargo(places).args(["build", "--package", "hub-daemon", "--bin", "hubd", "--release"]))
        .context("build hubd")?;
    stop::watch()?;
    lab::sweep()?;
    let folder = env::temp_dir().join(format!("hubbench-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let files =
        Files { hubd: places.target().join("release").join("hubd"), object: places.bench_object(), folder };
    let rounds = if options.quick { 3 } else { 12 };
    let forwarding = forward::measure(&files, rounds)?;
    for run in &forwarding.runs {
        show(&format!("{:<45} {:>6} {:>8.1}", run.title(), run.flows, run.ns()));
    }
    Ok(ExitCode::SUCCESS)
}
