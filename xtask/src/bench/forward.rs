//! Cost of a forwarded packet, end to end: all contenders interleaved, ratios within rounds.

use std::{thread, time::Duration};

use anyhow::{Result, bail};

use super::{
    bound::{Meter, Priority, bound},
    hub::Hook,
    lab::{Families, Personas, Tracking},
    place::{Files, Kind, Place, Way},
    sample::{lower_quartile, number, ratio, whole},
    stop,
};
use crate::say::say;

/// CPU time of a slice.
const SLICE_NS: f64 = 25e6;
/// Slices of a visit; the best counts.
const SLICES: u32 = 3;

/// One contender under one number of flows.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) place: String,
    pub(super) kind: Kind,
    pub(super) personas: Personas,
    pub(super) flows: u32,
    /// CPU nanoseconds per delivered packet, by round.
    pub(super) rounds: Vec<f64>,
    pub(super) sent: u64,
    pub(super) lost: u64,
}

/// What came out.
#[derive(Debug)]
pub(super) struct Forwarding {
    pub(super) runs: Vec<Run>,
    pub(super) priority: Priority,
}

const ONE: Personas = Personas { count: 1, rules: 10, families: Families::V4, tracking: Tracking::All };
const MANY: Personas = Personas { count: 4_096, ..ONE };
const LONG: Personas = Personas { rules: 1_024, ..ONE };

/// The same personas, with flows only where rules need them.
const fn open(personas: Personas) -> Personas {
    Personas { tracking: Tracking::Needed, ..personas }
}

/// Numbers of flows.
pub(super) const FLOWS: [u32; 3] = [1, 1_000, 65_536];

/// Contenders, and the numbers of flows that each is measured with.
fn contenders() -> Vec<(&'static str, Kind, Personas, &'static [u32])> {
    let (tc, xdp) = (Kind::Hub(Hook::Tc), Kind::Hub(Hook::Xdp));
    vec![
        ("harness", Kind::Harness, ONE, &FLOWS),
        ("xdp", Kind::Redirect(Hook::Xdp), ONE, &FLOWS),
        ("tc", Kind::Redirect(Hook::Tc), ONE, &FLOWS),
        ("kernel", Kind::Kernel, ONE, &FLOWS),
        ("nft", Kind::Nft, ONE, &FLOWS),
        ("nft-4096", Kind::Nft, MANY, &[65_536]),
        ("hubtc", tc, ONE, &FLOWS),
        ("hubtc-4096", tc, MANY, &[65_536]),
        ("hubtc-1024", tc, LONG, &[1, 65_536]),
        ("hubxdp", xdp, ONE, &FLOWS),
        ("hubxdp-4096", xdp, MANY, &[65_536]),
        ("hubxdp-1024", xdp, LONG, &[1, 65_536]),
        ("opentc", tc, open(ONE), &FLOWS),
        ("openxdp", xdp, open(ONE), &FLOWS),
        ("openxdp-4096", xdp, open(MANY), &[65_536]),
        ("openxdp-1024", xdp, open(LONG), &[1, 65_536]),
    ]
}

/// Measures.
pub(super) fn measure(files: &Files, rounds: u32) -> Result<Forwarding> {
    let mut places = Vec::new();
    let mut runs = Vec::new();
    for (name, kind, personas, flows) in contenders() {
        stop::check()?;
        say("bench", &format!("setting up {name}"));
        for &flows in flows {
            let place = name.to_owned();
            runs.push(Run { place, kind, personas, flows, rounds: Vec::new(), sent: 0, lost: 0 });
        }
        places.push(Place::new(files, name, kind, personas)?);
    }
    let priority = bound(|priority| {
        let meter = Meter::new()?;
        for place in &mut places {
            say("bench", &format!("establishing the flows of {}", place.name));
            place.establish(65_536)?;
        }
        for round in 1..=rounds {
            say("bench", &format!("forwarding, round {round} of {rounds}"));
            for run in &mut runs {
                stop::check()?;
                let Some(place) = places.iter_mut().find(|place| place.name == run.place) else { continue };
                visit(place, run, &meter)?;
            }
        }
        Ok(priority)
    })?;
    for run in &runs {
        // A packet may be lost to the machine's other work; more than that is a broken contender.
        if run.lost * 1_000 > run.sent {
            bail!("{} with {} flows lost {} of {} packets", run.place, run.flows, run.lost, run.sent);
        }
    }
    Ok(Forwarding { runs, priority })
}

/// Warms up with every flow once, then takes the best slice.
fn visit(place: &mut Place, run: &mut Run, meter: &Meter) -> Result<()> {
    place.aim(Way::ToMembers, run.flows, false)?;
    let warm = run.flows.max(16_384);
    let estimate = slice(place, run, meter, warm)?;
    // Whole batches.
    let packets = whole(SLICE_NS / estimate).clamp(1_024, 1_000_000) / 64 * 64;
    let mut best = f64::INFINITY;
    for _ in 0..SLICES {
        // Lets the CPU's other threads have their turn.
        thread::sleep(Duration::from_millis(1));
        best = best.min(slice(place, run, meter, packets)?);
    }
    run.rounds.push(best);
    Ok(())
}

fn slice(place: &mut Place, run: &mut Run, meter: &Meter, packets: u32) -> Result<f64> {
    let before = meter.read()?;
    let arrived = place.send(Way::ToMembers, packets)?;
    let spent = meter.read()? - before;
    run.sent += u64::from(packets);
    run.lost += u64::from(packets).saturating_sub(arrived);
    if arrived == 0 {
        bail!("{}: nothing arrived with {} flows", place.name, run.flows);
    }
    Ok(number(spent) / number(arrived))
}

impl Forwarding {
    /// The run of a place under a number of flows.
    pub(super) fn run(&self, place: &str, flows: u32) -> Option<&Run> {
        self.runs.iter().find(|run| run.place == place && run.flows == flows)
    }

    /// How many times as much this run costs as another place's under as many flows.
    pub(super) fn against(&self, run: &Run, place: &str) -> Option<f64> {
        Some(ratio(&run.rounds, &self.run(place, run.flows)?.rounds))
    }

    /// As [`Self::against`], of what is left when the harness is subtracted.
    pub(super) fn share(&self, run: &Run, place: &str) -> Option<f64> {
        let harness = self.run("harness", run.flows)?;
        let other = self.run(place, run.flows)?;
        let net = |rounds: &[f64]| -> Vec<f64> {
            rounds.iter().zip(&harness.rounds).map(|(ns, harness)| ns - harness).collect()
        };
        Some(ratio(&net(&run.rounds), &net(&other.rounds)))
    }
}

impl Run {
    /// Nanoseconds per packet when nobody disturbs.
    pub(super) fn ns(&self) -> f64 {
        lower_quartile(&self.rounds)
    }

    /// For people.
    pub(super) fn title(&self) -> String {
        let Personas { count, rules, .. } = self.personas;
        let policy = format!("{count} persona{}, {rules} rules", if count == 1 { "" } else { "s" });
        match self.kind {
            Kind::Harness => "harness alone".to_owned(),
            Kind::Redirect(Hook::Xdp) => "bare XDP redirect".to_owned(),
            Kind::Redirect(Hook::Tc) => "bare TC redirect".to_owned(),
            Kind::Kernel => "kernel forwarding, no policy".to_owned(),
            Kind::Nft => format!("nftables ct, {policy}"),
            Kind::Hub(hook) => {
                let tracking = match self.personas.tracking {
                    Tracking::All => "",
                    Tracking::Needed => ", open",
                };
                format!("hub {}{tracking}, {policy}", if hook == Hook::Xdp { "XDP" } else { "TC" })
            }
        }
    }
}
