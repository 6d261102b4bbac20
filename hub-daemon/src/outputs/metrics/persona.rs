//! Metrics of each persona that is in the data path.

use std::fmt;

use super::series::{Sample, Series};
use crate::datapath_view::{Count, RuleCount, SegmentCounts};
use crate::inputs::datapath::Datapath;
use crate::view::{PersonaState, PersonaView, Snapshot};

/// Names of rule positions, written once: a label is borrowed text.
pub(super) struct Row<'a> {
    pub(super) persona: &'a PersonaView,
    pub(super) counts: SegmentCounts,
    rules: Vec<String>,
    flows: u64,
}

impl Row<'_> {
    fn name(&self) -> &str {
        &self.persona.definition.name
    }

    fn verdicts(&self) -> [(&'static str, &'static str, Count); 4] {
        [
            ("ingress", "passed", self.counts.ingress),
            ("egress", "passed", self.counts.egress),
            ("ingress", "dropped", self.counts.ingress_dropped),
            ("egress", "dropped", self.counts.egress_dropped),
        ]
    }
}

pub(super) fn encode(series: &mut Series<'_>, rows: &[Row<'_>]) -> fmt::Result {
    let verdicts = |value: fn(Count) -> u64| rows.iter().flat_map(move |row| verdict_samples(row, value));
    series.counters(
        "hub_persona_packets",
        "Packets of a persona; ingress is towards its members",
        verdicts(|count| count.packets),
    )?;
    series.counters(
        "hub_persona_bytes",
        "Bytes of a persona, from the IP header on",
        verdicts(|count| count.bytes),
    )?;
    let drops = rows.iter().flat_map(|row| {
        row.counts.drops.iter().map(|drop| {
            let labels = [
                ("persona", row.name()),
                ("direction", drop.direction.as_str()),
                ("reason", drop.reason.as_str()),
            ];
            (labels, drop.count.packets)
        })
    });
    series.counters("hub_persona_drops", "Packets of a persona that were dropped, by reason", drops)?;
    let would = rows.iter().flat_map(|row| {
        row.counts.would_drop.iter().map(|drop| {
            let labels = [
                ("persona", row.name()),
                ("direction", drop.direction.as_str()),
                ("reason", drop.reason.as_str()),
            ];
            (labels, drop.count.packets)
        })
    });
    series.counters(
        "hub_persona_would_drop",
        "Packets of a persona that passed only because its rules are audited, by reason",
        would,
    )?;
    let hits = rows.iter().flat_map(|row| {
        row.counts.rules.iter().zip(&row.rules).map(|(hit, rule)| {
            let labels =
                [("persona", row.name()), ("direction", hit.direction.as_str()), ("rule", rule.as_str())];
            (labels, hit.count.packets)
        })
    });
    series.counters(
        "hub_persona_rule_hits",
        "Packets that a rule judged: the first of each flow it admitted, every one it refused",
        hits,
    )?;
    let flows = rows.iter().map(|row| ([("persona", row.name())], row.flows));
    series.gauges("hub_persona_flows", "Connections of a persona in the flow table", flows)?;
    let begun = rows.iter().flat_map(|row| {
        [("ingress", row.counts.flows.ingress), ("egress", row.counts.flows.egress)]
            .map(|(direction, flows)| ([("persona", row.name()), ("direction", direction)], flows))
    });
    series.counters(
        "hub_persona_flows_begun",
        "Connections of a persona that began; ingress is towards its members",
        begun,
    )?;
    let fired = rows.iter().flat_map(|row| {
        row.counts.detections.iter().map(|detection| {
            ([("persona", row.name()), ("detector", detection.detector.as_str())], detection.times)
        })
    });
    series.counters(
        "hub_persona_detections",
        "Times that a detector fired, once a source and window",
        fired,
    )?;
    let ends = rows.iter().filter_map(|row| {
        let seconds = u64::try_from(row.persona.expires_at?.as_second()).ok()?;
        Some(([("persona", row.name())], seconds))
    });
    series.gauges("hub_persona_expires_timestamp_seconds", "When a persona ends, seconds since 1970", ends)
}

fn rule_name(hit: &RuleCount) -> String {
    if hit.baseline { format!("baseline {}", hit.rule) } else { hit.rule.to_string() }
}

fn verdict_samples<'a>(
    row: &'a Row<'a>,
    value: fn(Count) -> u64,
) -> impl Iterator<Item = Sample<&'a str, 3>> {
    row.verdicts().into_iter().map(move |(direction, verdict, count)| {
        ([("persona", row.name()), ("direction", direction), ("verdict", verdict)], value(count))
    })
}

/// Personas that are not in the data path, or cannot be read, are left out.
pub(super) fn rows<'a>(datapath: &dyn Datapath, snapshot: &'a Snapshot) -> Vec<Row<'a>> {
    let read = datapath.segments().and_then(|counts| Ok((counts, datapath.flow_counts()?)));
    let (mut counts, flows) = match read {
        Ok(read) => read,
        Err(error) => {
            tracing::warn!(%error, "metrics without personas");
            return Vec::new();
        }
    };
    let live = snapshot.personas.values().filter(|persona| persona.state != PersonaState::Expired);
    live.filter_map(|persona| {
        let counts = counts.remove(&persona.segment)?;
        let rules = counts.rules.iter().map(rule_name).collect();
        let flows = flows.get(&persona.segment).copied().unwrap_or_default();
        Some(Row { persona, counts, rules, flows })
    })
    .collect()
}
