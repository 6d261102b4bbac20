//! `cargo xtask bench`: the hub beside what it could be replaced by, in one run on one machine.
//!
//! All contenders exist at once in network namespaces of their own and are visited in turn. A number
//! means little by itself; what counts are ratios between contenders within a round. Goals that are
//! missed are results, not failures: the verb fails when it could not measure.

mod alone;
mod bound;
mod bulk;
mod forward;
mod frames;
mod goals;
mod hub;
mod kit;
mod lab;
mod latency;
mod lookup;
mod nft;
mod place;
mod report;
mod sample;
mod scale;
mod stacks;
mod stop;
mod wait;

use std::{env, fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use self::{
    place::Files,
    report::{Results, Setting},
    stacks::Stacks,
};
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
    /// Measures the daemon with very many personas, and no packets
    #[arg(long)]
    scale: bool,
    /// Measures the XDP program alone beside variants of it: other tables, fewer features
    #[arg(long)]
    lookup: bool,
    /// Measures this daemon instead of building one
    #[arg(long, value_name = "PROGRAM")]
    hubd: Option<PathBuf>,
}

pub(crate) fn run(places: &Places, options: &Options) -> Result<ExitCode> {
    if !setup::is_root() {
        bail!("namespaces and kernel programs need root: run this as root");
    }
    setup::programs()?;
    object::build_bench(places)?;
    if options.lookup {
        stop::watch()?;
        show(&lookup::measure(places, options.quick)?);
        return Ok(ExitCode::SUCCESS);
    }
    let hubd = match &options.hubd {
        Some(program) => program.canonicalize().with_context(|| format!("find {}", program.display()))?,
        None => build_daemon(places)?,
    };
    stop::watch()?;
    lab::sweep()?;
    let folder = env::temp_dir().join(format!("hubbench-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let files = Files { hubd, object: places.bench_object(), folder };
    let setting = Setting::of_this_run(places)?;
    if options.scale {
        let measured = scale::measure(&files, options.quick)?;
        show(&measured.table(&setting));
        if let Some(path) = &options.json {
            measured.write(path, &setting)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let results = measure(&files, options.quick)?;
    let goals = goals::goals(&results);
    show(&results.table(&setting, &goals));
    if let Some(path) = &options.json {
        results.write(path, &setting, &goals)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn build_daemon(places: &Places) -> Result<PathBuf> {
    object::build(places)?;
    run_command(cargo(places).args(["build", "--package", "hub-daemon", "--bin", "hubd", "--release"]))
        .context("build hubd")?;
    Ok(places.target().join("release").join("hubd"))
}

fn measure(files: &Files, quick: bool) -> Result<Results> {
    let forwarding = forward::measure(files, if quick { 3 } else { 12 })?;
    let alone = alone::measure(files, if quick { 3 } else { 10 })?;
    let stacks = Stacks::all(files)?;
    let latency = latency::measure(&stacks, if quick { 3 } else { 15 })?;
    let bulk = bulk::measure(&stacks, if quick { 3 } else { 10 })?;
    Ok(Results { forwarding, alone, bulk, latency })
}
