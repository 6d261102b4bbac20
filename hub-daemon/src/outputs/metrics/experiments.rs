//! Metrics of experiments, by side.

use std::fmt;
use std::sync::Arc;

use super::series::{Distribution, Sample, Series};
use crate::systems::experiment::compare::compare;
use crate::systems::experiment::totals::Totals;
use crate::systems::experiment::{Arm, Experiment};
use crate::view::Snapshot;

/// A side of an experiment, with what was counted there.
struct Side<'a> {
    experiment: &'a str,
    arm: &'static str,
    interfaces: u64,
    left: u64,
    totals: Totals,
}

impl<'a> Side<'a> {
    fn new(experiment: &'a Experiment, arm: Arm) -> Self {
        Self {
            experiment: &experiment.name,
            arm: arm.name(),
            interfaces: experiment.of(arm).count() as u64,
            left: experiment.of(arm).filter(|(_, member)| member.left).count() as u64,
            totals: experiment.sum(arm),
        }
    }

    fn sample(&self, value: u64) -> Sample<&str, 2> {
        ([("experiment", self.experiment), ("arm", self.arm)], value)
    }

    fn told(&self, name: &'static str, word: &'static str, value: u64) -> Sample<&str, 3> {
        ([("experiment", self.experiment), ("arm", self.arm), (name, word)], value)
    }
}

/// Writes them.
pub(super) fn encode(series: &mut Series<'_>, snapshot: &Snapshot) -> fmt::Result {
    let experiments = snapshot.experiments.values();
    let sides: Vec<Side<'_>> =
        experiments.flat_map(|experiment| Arm::ALL.map(|arm| Side::new(experiment, arm))).collect();
    let interfaces = sides.iter().map(|side| side.sample(side.interfaces));
    series.gauges("hub_experiment_interfaces", "Interfaces on a side of an experiment", interfaces)?;
    let left = sides.iter().map(|side| side.sample(side.left));
    let help = "Interfaces that do not have the personality of their side, and are not counted";
    series.gauges("hub_experiment_interfaces_left", help, left)?;
    let observed = sides.iter().map(|side| side.sample(side.totals.observed_ms / 1_000));
    let help = "For how long interfaces of a side were observed, all of them together";
    series.counters("hub_experiment_observed_seconds", help, observed)?;
    let packets = sides.iter().flat_map(|side| {
        [
            side.told("verdict", "passed", side.totals.packets),
            side.told("verdict", "dropped", side.totals.dropped),
        ]
    });
    series.counters("hub_experiment_packets", "Packets of a side, both directions together", packets)?;
    let bytes = sides.iter().map(|side| side.sample(side.totals.bytes));
    series.counters("hub_experiment_bytes", "Bytes of a side that passed, from the IP header on", bytes)?;
    let flows = sides.iter().map(|side| side.sample(side.totals.flows));
    series.counters("hub_experiment_flows_begun", "Connections of a side that began", flows)?;
    let refused = sides.iter().map(|side| side.sample(side.totals.refused));
    let help = "Packets of a side that would have begun a connection, and were refused by rules or limits";
    series.counters("hub_experiment_flows_refused", help, refused)?;
    let segments = sides.iter().flat_map(|side| {
        [
            side.told("sent", "first", side.totals.segments),
            side.told("sent", "again", side.totals.segments_again),
        ]
    });
    let help = "TCP segments that hosts of a side sent, where they have a namespace to themselves";
    series.counters("hub_experiment_segments", help, segments)?;
    let rounds = sides.iter().flat_map(|side| {
        let failed = side.totals.rounds_failed;
        [
            side.told("result", "failed", failed),
            side.told("result", "passed", side.totals.rounds.saturating_sub(failed)),
        ]
    });
    series.counters("hub_experiment_check_rounds", "Looks at the checks of a side", rounds)?;
    let times = sides.iter().map(|side| {
        ([("experiment", side.experiment), ("arm", side.arm)], Distribution::of_micros(&side.totals))
    });
    series.distributions("hub_experiment_handshake_seconds", "Time of TCP handshakes of a side", times)?;
    let differences = snapshot.experiments.values().flat_map(differences);
    let help = "How much more an interface of side B has than one of A, with the bounds of 99 in 100";
    series.measures("hub_experiment_difference", help, differences)
}

/// How far sides are apart, by number and bound.
fn differences(experiment: &Arc<Experiment>) -> Vec<([(&'static str, String); 3], f64)> {
    let mut samples = Vec::new();
    for compared in compare(experiment) {
        let Some((estimate, [low, high])) = compared.difference.zip(compared.interval) else { continue };
        for (bound, value) in [("low", low), ("estimate", estimate), ("high", high)] {
            let labels = [
                ("experiment", experiment.name.clone()),
                ("number", compared.metric.clone()),
                ("bound", bound.to_owned()),
            ];
            samples.push((labels, value));
        }
    }
    samples
}
