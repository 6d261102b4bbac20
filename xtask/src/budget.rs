//! `cargo xtask budget`: what each kernel program costs the verifier.
//!
//! Every program of the object is loaded with all its maps and attached to
//! nothing. A program above its limit fails the verb: growth is seen in the
//! change that causes it, long before the kernel refuses the program.

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail};
use aya::{Ebpf, EbpfLoader, programs::Program};
use clap::Args;

use crate::{
    clock::timed,
    object,
    places::Places,
    say::{complain, show},
    setup,
};

#[derive(Args)]
pub(crate) struct Options {
    /// Asks about this object instead of one that is built first
    #[arg(long, value_name = "FILE")]
    object: Option<PathBuf>,
}

/// Limits of verified instructions by program, for the kernel that counts most of them: 7.2 looks at a sixth more
/// than 6.18 does. The kernel's own limit is 1,000,000.
const BUDGETS: [(&str, u32); 4] =
    [("hub_tc_in", 150_000), ("hub_tc_out", 150_000), ("hub_xdp_in", 100_000), ("hub_why", 80_000)];

/// The limit of a program that the table does not name.
const OTHERS: u32 = 50_000;

/// What the kernel says about a loaded program.
struct Cost {
    name: String,
    verified: u32,
    translated_bytes: u32,
    jitted_bytes: u32,
    load: Duration,
}

pub(crate) fn run(places: &Places, options: &Options) -> Result<ExitCode> {
    if !setup::is_root() {
        bail!("loading programs needs root: run this as root");
    }
    let path = if let Some(path) = &options.object {
        path.clone()
    } else {
        object::build(places)?;
        places.object()
    };
    let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    let mut programs = EbpfLoader::new().load(&bytes).with_context(|| format!("load {}", path.display()))?;
    let costs = costs(&mut programs)?;
    if costs.is_empty() {
        bail!("{} holds no program", path.display());
    }
    show(&table(&costs));
    let above: Vec<&str> = costs
        .iter()
        .filter(|cost| cost.verified > limit(&cost.name))
        .map(|cost| cost.name.as_str())
        .collect();
    if above.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    complain(&format!("above the limit of verified instructions: {}", above.join(", ")));
    Ok(ExitCode::FAILURE)
}

fn costs(programs: &mut Ebpf) -> Result<Vec<Cost>> {
    let mut costs = Vec::new();
    for (name, program) in programs.programs_mut() {
        let (loaded, load) = timed(|| load(program));
        loaded.with_context(|| format!("load program {name}"))?;
        let info = program.info().with_context(|| format!("ask about program {name}"))?;
        costs.push(Cost {
            name: name.to_owned(),
            verified: info
                .verified_instruction_count()
                .context("the kernel counts verified instructions since 5.16")?,
            translated_bytes: info.size_translated().unwrap_or_default(),
            jitted_bytes: info.size_jitted(),
            load,
        });
    }
    costs.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(costs)
}

fn load(program: &mut Program) -> Result<()> {
    if let Program::Xdp(program) = program {
        return Ok(program.load()?);
    }
    if let Program::SchedClassifier(program) = program {
        return Ok(program.load()?);
    }
    bail!("budget knows XDP and TC programs: add {:?} to it", program.prog_type())
}

fn limit(name: &str) -> u32 {
    BUDGETS.iter().find(|(program, _)| *program == name).map_or(OTHERS, |(_, limit)| *limit)
}

fn table(costs: &[Cost]) -> String {
    let head = format!(
        "{:<20} {:>10} {:>10} {:>14} {:>12} {:>10}",
        "program", "verified", "limit", "xlated bytes", "JIT bytes", "load ms"
    );
    let row = |cost: &Cost| {
        let (name, limit, load) = (&cost.name, limit(&cost.name), cost.load.as_secs_f64() * 1e3);
        let Cost { verified, translated_bytes, jitted_bytes, .. } = cost;
        format!(
            "{name:<20} {verified:>10} {limit:>10} {translated_bytes:>14} {jitted_bytes:>12} {load:>10.1}"
        )
    };
    std::iter::once(head).chain(costs.iter().map(row)).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_programs_have_their_own_limit() {
        assert_eq!(limit("hub_xdp_in"), 100_000);
        assert_eq!(limit("another"), OTHERS);
    }

    #[test]
    fn columns_line_up() {
        let cost = |name: &str, verified| Cost {
            name: name.into(),
            verified,
            translated_bytes: 1,
            jitted_bytes: 2,
            load: Duration::from_micros(1500),
        };
        let table = table(&[cost("hub_tc_in", 7), cost("hub_xdp_in", 123_456)]);
        let widths: Vec<usize> = table.lines().map(str::len).collect();
        assert_eq!(widths, [81, 81, 81], "{table}");
    }
}
