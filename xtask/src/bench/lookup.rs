//! `cargo xtask bench --lookup`: what other tables, or fewer features, would make of `hub_xdp_in` alone.
//!
//! The programs are built as they are and in variants, each is loaded several times, since some nanoseconds hang on
//! which memory the maps got, and all take the same packets in turn. No daemon and no interface takes part.

mod maps;
mod variant;

use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail};
use aya::programs::{ProgramFd, TestRun as _, TestRunOptions};
use hub_common::bench::{FRAME_BYTES, PLAN_V6, Plan};

use self::maps::Loaded;
use super::{
    bound::{Meter, apart, bind},
    kit::Kit,
    lab::{Families, MEMBERS, Personas, Tracking},
    place::{Way, plan},
    sample::{lower_quartile, number},
    stop,
};
use crate::{object, places::Places, say::say};

/// Packets of one measurement.
const PACKETS: u32 = 100_000;
/// How often each object is loaded.
const COPIES: usize = 3;
const XDP_REDIRECT: u32 = 4;

/// Packets to one kind of hub.
struct Case {
    name: &'static str,
    personas: u32,
    /// Addresses of a persona.
    stride: u32,
    flows: u32,
    v6: bool,
    /// Whether each connection has an entry.
    tracked: bool,
}

impl Case {
    const fn new(name: &'static str, personas: u32, stride: u32, flows: u32) -> Self {
        Self { name, personas, stride, flows, v6: false, tracked: false }
    }

    fn all() -> [Self; 9] {
        let one = |name, flows| Self::new(name, 1, 1 << 18, flows);
        [
            one("open ports", 1_000),
            one("open ports", 65_536),
            Self::new("open ports", 1_024, 256, 65_536),
            Self::new("open ports", 4_096, 64, 65_536),
            Self { v6: true, ..one("open ports, IPv6", 1_000) },
            Self { v6: true, ..one("open ports, IPv6", 16_384) },
            Self { v6: true, ..one("open ports, IPv6", 65_536) },
            Self { tracked: true, ..one("an entry each", 1_000) },
            Self { tracked: true, ..one("an entry each", 65_536) },
        ]
    }

    fn plan(&self) -> Plan {
        let (families, tracking) = (Families::Both, Tracking::Needed);
        let personas = Personas { count: self.personas, rules: 1, families, tracking };
        let mut plan = plan(Way::ToMembers, self.flows, personas);
        plan.stride = self.stride;
        plan.flags |= if self.v6 { PLAN_V6 } else { 0 };
        plan
    }

    /// The persona of a member.
    fn persona_of(&self, member: u32) -> u32 {
        (member - MEMBERS.to_bits()) / self.stride + 1
    }
}

/// What is measured: a program, loaded as often as it is.
struct Contender {
    name: String,
    loaded: Vec<Loaded>,
}

/// Measures everything and returns the table.
pub(super) fn measure(places: &Places, quick: bool) -> Result<String> {
    let variants = variant::all()?;
    let mut objects = vec![("as it is".to_owned(), places.object())];
    object::build(places)?;
    for variant in &variants {
        stop::check()?;
        objects.push((variant.name.clone(), variant.build(places)?));
    }
    let mut contenders: Vec<Contender> =
        objects.iter().map(|(name, _)| Contender { name: name.clone(), loaded: Vec::new() }).collect();
    for copy in 0..COPIES {
        let mut pairs: Vec<_> = objects.iter().zip(&mut contenders).collect();
        // Another one gets its memory first each time.
        pairs.rotate_left(copy);
        for ((_, path), contender) in pairs {
            contender.loaded.push(Loaded::new(path)?);
        }
    }
    apart(|| {
        bind()?;
        let mut kit = Kit::load(&places.bench_object())?;
        let mut table = head(&contenders);
        for case in Case::all() {
            say("bench", &format!("{}, {} personas, {} flows", case.name, case.personas, case.flows));
            for loaded in contenders.iter_mut().flat_map(|contender| &mut contender.loaded) {
                stop::check()?;
                loaded.fill(&case)?;
            }
            kit.plan(&case.plan())?;
            let costs = costs(&mut kit, &contenders, (case.flows, if quick { 4 } else { 16 }))
                .with_context(|| format!("{}, {} flows", case.name, case.flows))?;
            row(&mut table, &case, &costs);
        }
        Ok(table)
    })
}

/// Nanoseconds above a bare redirect of each contender's copies.
fn costs(kit: &mut Kit, contenders: &[Contender], (flows, rounds): (u32, u32)) -> Result<Vec<Vec<f64>>> {
    let meter = Meter::new()?;
    let redirect = kit.xdp("bench_redirect_xdp")?.fd()?.try_clone()?;
    let mut bare = Vec::new();
    let mut samples: Vec<Vec<Vec<f64>>> =
        contenders.iter().map(|contender| vec![Vec::new(); contender.loaded.len()]).collect();
    for round in 0..=rounds {
        stop::check()?;
        let (ns, _refused) = cost(kit, &meter, &redirect, flows)?;
        bare.extend((round > 0).then_some(ns));
        for copy in 0..COPIES {
            let mut pairs: Vec<_> = contenders.iter().zip(&mut samples).collect();
            // Another one comes first in each round.
            pairs.rotate_left((round as usize + copy) % contenders.len());
            for (contender, samples) in pairs {
                let (Some(loaded), Some(samples)) = (contender.loaded.get(copy), samples.get_mut(copy))
                else {
                    continue;
                };
                let (ns, verdict) = cost(kit, &meter, &loaded.program, flows)?;
                if verdict != XDP_REDIRECT {
                    bail!("{}: verdict {verdict} instead of {XDP_REDIRECT}", contender.name);
                }
                samples.extend((round > 0).then_some(ns));
            }
        }
    }
    let bare = lower_quartile(&bare);
    let above = |copies: Vec<Vec<f64>>| copies.iter().map(|copy| lower_quartile(copy) - bare).collect();
    Ok(samples.into_iter().map(above).collect())
}

/// Nanoseconds of one packet, and what the program said of the last one. Each flow has a packet before, so that
/// caches hold what this program reads and not what the one before did.
fn cost(kit: &mut Kit, meter: &Meter, program: &ProgramFd, flows: u32) -> Result<(f64, u32)> {
    kit.test(program)?;
    let frame = [0; FRAME_BYTES];
    let options =
        |packets| TestRunOptions { data_in: Some(&frame), repeat: packets, ..TestRunOptions::new() };
    let mutator = kit.xdp("bench_mutate_xdp")?;
    mutator.test_run(options(flows))?;
    let before = meter.read()?;
    let verdict = mutator.test_run(options(PACKETS))?.return_value;
    Ok((number(meter.read()? - before) / f64::from(PACKETS), verdict))
}

fn head(contenders: &[Contender]) -> String {
    let mut line = format!("{:<20} {:>8} {:>8}", "ns above a redirect", "personas", "flows");
    for contender in contenders {
        _ = write!(line, " {:>28}", contender.name);
    }
    line
}

/// A line of the table: mean over the copies, and the least and the most of them.
fn row(table: &mut String, case: &Case, costs: &[Vec<f64>]) {
    _ = write!(table, "\n{:<20} {:>8} {:>8}", case.name, case.personas, case.flows);
    for copies in costs {
        let mean = copies.iter().sum::<f64>() / number(copies.len() as u64);
        let least = copies.iter().copied().fold(f64::INFINITY, f64::min);
        let most = copies.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        _ = write!(table, " {:>28}", format!("{mean:.1} ({least:.1}–{most:.1})"));
    }
}
