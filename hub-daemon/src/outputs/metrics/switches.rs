//! Metrics of interfaces with personalities, and of their switches.

use std::fmt;

use super::series::Series;
use crate::outputs::status::{INTERFACE_STATES, interface_state_name};
use crate::outputs::switches::SwitchLog;
use crate::view::Snapshot;

/// Writes them; of interfaces that are gone nothing is told.
pub(super) fn encode(series: &mut Series<'_>, log: &SwitchLog, snapshot: &Snapshot) -> fmt::Result {
    let states = snapshot.interfaces.values().flat_map(|view| {
        let name = view.name.as_str();
        INTERFACE_STATES.map(|state| {
            let labels = [("interface", name), ("state", interface_state_name(state))];
            (labels, u64::from(state == view.state))
        })
    });
    series.gauges("hub_interface_state", "1 for the state that an interface is in", states)?;
    let personalities = snapshot.interfaces.values().map(|view| {
        let labels = [("interface", view.name.clone()), ("personality", view.current.to_string())];
        (labels, 1)
    });
    series.gauges(
        "hub_interface_personality",
        "Always 1; the label is what an interface has",
        personalities,
    )?;
    let healthy = snapshot.interfaces.values().map(|view| {
        let fails = view.conditions.iter().any(|condition| condition.reason == "Unhealthy");
        ([("interface", view.name.as_str())], u64::from(!fails))
    });
    series.gauges(
        "hub_interface_healthy",
        "0 while checks of an interface fail that passed before",
        healthy,
    )?;
    let ended = log.ended();
    let results = ended.results.iter().filter(|((name, _), _)| snapshot.interfaces.contains_key(name));
    let results = results
        .map(|((name, outcome), count)| ([("interface", name.as_str()), ("result", outcome.name())], *count));
    series.counters("hub_switch", "Switches that are over, by how they ended", results)?;
    let help = "How long new connections were refused in a switch that drained";
    series.histogram("hub_switch_block_seconds", help, &ended.blocked)?;
    let help =
        "From the store that has the other personality decide to the rule of its routes, there or back";
    series.histogram("hub_switch_flip_seconds", help, &ended.flips)?;
    let phases = ended.phases.into_iter().map(|(phase, times)| ([("phase", phase.name())], times));
    series.histograms("hub_switch_phase_seconds", "How long phases of switches took", phases)
}
