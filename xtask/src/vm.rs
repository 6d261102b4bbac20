//! `cargo xtask vm`: the tests that need root, on Debian's kernels in QEMU.
//!
//! No KVM and nothing installed from elsewhere than Debian: kernels are downloaded and unpacked below
//! `target/vm`, and boot from an archive with this machine's tools and our programs. A test never runs on
//! this machine's kernel here: `cargo xtask test` does that.

mod image;
mod kernel;
mod machine;
mod suite;
mod systemd;

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::Args;

pub(crate) use self::systemd::run as package;
use self::{
    kernel::Kernel,
    machine::{End, Machine, Root, Time},
    suite::Extent,
};
use crate::{
    build,
    clock::timed,
    part::Part,
    places::Places,
    say::{complain, say, show},
    setup,
};

#[derive(Args)]
pub(crate) struct Options {
    /// Kernels like `6.1` or `newest`; more than one is possible [default: 6.1 newest]
    #[arg(long, value_name = "VERSION")]
    kernel: Vec<String>,
    /// Only what a change must pass: loading, single packets, and a few real connections
    #[arg(long)]
    quick: bool,
    /// Names the kernels that can be had, and ends
    #[arg(long)]
    list: bool,
    /// Keeps at most so many minutes for each kernel
    #[arg(long, value_name = "MINUTES", default_value_t = 90)]
    limit: u64,
    /// Of the test files a part alone, like 2/3: the parts add up to all
    #[arg(long)]
    part: Option<Part>,
    /// Runs only test files whose names contain one of these
    filters: Vec<String>,
}

pub(crate) fn run(places: &Places, options: &Options) -> Result<ExitCode> {
    setup::machines()?;
    let offers = kernel::offers(places)?;
    if options.list {
        for offer in &offers {
            show(&offer.to_string());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let extent = if options.quick { Extent::Quick } else { Extent::Full };
    let wanted = if options.kernel.is_empty() {
        vec!["6.1".to_owned(), "newest".to_owned()]
    } else {
        options.kernel.clone()
    };
    let mut kernels = Vec::new();
    for version in &wanted {
        let offer = kernel::choose(&offers, version)?;
        kernels.push(kernel::ready(places, offer)?);
    }
    let mut suite = suite::build(places, extent, &options.filters)?;
    if let Some(part) = options.part {
        suite.sort_by(|one, other| one.name.cmp(&other.name));
        let mut place = 0..;
        suite.retain(|_| place.next().is_some_and(|place| part.has(place)));
    }
    if suite.is_empty() {
        bail!("no test file fits {:?}: `cargo xtask vm` alone runs all", options.filters);
    }
    // Emulation makes everything slow: what all tests start is worth to be optimised, unless little runs.
    let is_fast = extent == Extent::Full;
    if is_fast {
        build::optimised(places)?;
    }
    let base = image::base(places, &suite, is_fast)?;
    let measured = suite.iter().filter(|step| step.is_measured).count();
    let patient = if is_fast { PATIENT } else { "" };
    let boots = [
        Boot { expected: suite.len() - measured, time: Time::Clock, log: "log", more: patient },
        Boot { expected: measured, time: Time::Instructions, log: "measured.log", more: MEASURED },
    ];
    let mut failed = Vec::new();
    for kernel in &kernels {
        let limit = Duration::from_secs(options.limit * 60);
        for each in boots.iter().filter(|boot| boot.expected > 0) {
            let (passed, took) = timed(|| boot(places, kernel, &base, each, limit));
            let verdict = if passed? { "passed" } else { "FAILED" };
            show(&format!("{:<28} {:?} {verdict} in {} s", kernel.release(), each.time, took.as_secs()));
            if verdict != "passed" && failed.last() != Some(&kernel.release()) {
                failed.push(kernel.release());
            }
        }
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    complain(&format!("failed on Linux {}", failed.join(", ")));
    Ok(ExitCode::FAILURE)
}

/// One start of a machine.
struct Boot {
    /// How many test files it is to run.
    expected: usize,
    time: Time,
    /// End of the name of the file that its output goes to.
    log: &'static str,
    /// Words for its first program, which gets them as its environment.
    more: &'static str,
}

/// What the first program is told where everything runs: each of a hundred tests loads the programs anew.
const PATIENT: &str = "HUB_STEP_SECONDS=3600";

/// What the first program is told of files whose figures are judged.
const MEASURED: &str = "HUB_SUITE=/hub/measured HUB_TEST_EVEN=1";

/// Runs a part of the suite on one kernel; whether everything passed.
fn boot(
    places: &Places,
    kernel: &Kernel,
    base: &std::path::Path,
    boot: &Boot,
    limit: Duration,
) -> Result<bool> {
    let expected = boot.expected;
    let initrd = image::with_modules(places, kernel, base)?;
    let log = places.vm().join(format!("{}.{}", kernel.release(), boot.log));
    say("vm", &format!("booting Linux {}; its output goes to {}", kernel.release(), log.display()));
    let machine = Machine {
        kernel: kernel.image(),
        root: Root::Archive(&initrd),
        memory_mib: 3072,
        more: boot.more,
        time: boot.time,
    };
    let report = machine.run(&log, limit, |line| {
        if let Some(progress) = line.strip_prefix("@@ ") {
            say(kernel.release(), progress);
        }
    })?;
    let ends: Vec<(&str, bool)> = report.lines().filter_map(suite::end).collect();
    let failures: Vec<&str> = ends.iter().filter(|(_, passed)| !passed).map(|(name, _)| *name).collect();
    match report.end {
        End::Halted => {}
        End::TimedOut => {
            complain(&format!("Linux {}: stopped after {} s", kernel.release(), limit.as_secs()));
        }
    }
    if !failures.is_empty() {
        complain(&format!("Linux {}: {}", kernel.release(), failures.join(", ")));
        report.failures().for_each(show);
    }
    let idle = suite::idle(report.lines());
    if !idle.is_empty() {
        complain(&format!("Linux {}: no test ran in {}", kernel.release(), idle.join(", ")));
    }
    if ends.len() < expected {
        let last = report.lines().rev().take(20).collect::<Vec<_>>();
        complain(&format!("Linux {}: {} of {expected} test files ended", kernel.release(), ends.len()));
        last.into_iter().rev().for_each(show);
    }
    let rows = report.lines().skip_while(|line| !line.starts_with("program ")).take(6);
    rows.filter(|row| row.starts_with("program ") || row.starts_with("hub_")).for_each(show);
    Ok(failures.is_empty() && idle.is_empty() && ends.len() == expected && matches!(report.end, End::Halted))
}

/// Fails with what to do where this cannot work.
fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        other => Err(anyhow::anyhow!("machines are emulated for x86-64 hosts only, this is {other}"))
            .context("find Debian's kernels"),
    }
}
