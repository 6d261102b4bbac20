//! Metrics of quality of service.

use std::fmt;

use super::persona::Row;
use super::series::{Sample, Series};
use crate::inputs::datapath::Datapath;
use crate::model::span;
use crate::qos_view::{self, HandshakeTimes, QueueCounts};
use crate::view::{PersonaState, PersonaView, Snapshot};

pub(super) fn encode(
    series: &mut Series<'_>,
    datapath: &dyn Datapath,
    snapshot: &Snapshot,
    rows: &[Row<'_>],
) -> fmt::Result {
    let live = || snapshot.personas.values().filter(|persona| persona.state != PersonaState::Expired);
    let timed = rows.iter().filter_map(|row| Some((row.persona, row.counts.handshakes.as_ref()?)));
    let timed: Vec<(&PersonaView, &HandshakeTimes)> = timed.collect();
    let histograms = timed
        .iter()
        .map(|(persona, times)| ([("persona", persona.definition.name.as_str())], (*times).clone()));
    series.handshakes(
        "hub_persona_handshake_seconds",
        "Time of TCP handshakes as the hub sees them, from the first SYN to the ACK that ends it",
        histograms,
    )?;
    let late = timed.iter().filter_map(|(persona, times)| {
        let limit = span::parse(persona.definition.qos.as_ref()?.latency.as_ref()?).ok()?;
        let exceeds = u128::from(times.p95_us) > limit.as_micros();
        Some(([("persona", persona.definition.name.as_str())], u64::from(exceeds)))
    });
    series.gauges(
        "hub_persona_latency_exceeded",
        "1 if more than 5 of a hundred handshakes took longer than the persona's latency",
        late,
    )?;
    let queues = datapath.queues().unwrap_or_else(|error| {
        tracing::warn!(%error, "metrics without queues");
        std::collections::BTreeMap::new()
    });
    let rows: Vec<(&str, &QueueCounts)> = live()
        .filter_map(|persona| Some((persona.definition.name.as_str(), queues.get(&persona.segment)?)))
        .flat_map(|(name, queues)| queues.iter().map(move |queue| (name, queue)))
        .collect();
    let of = |value: fn(&QueueCounts) -> u64| rows.iter().map(move |row| sample(row, value(row.1)));
    series.gauges("hub_persona_queue_backlog_bytes", "Bytes that wait", of(|queue| queue.backlog_bytes))?;
    let paced = datapath.paced().unwrap_or_else(|error| {
        tracing::warn!(%error, "metrics without times of departure");
        std::collections::BTreeMap::new()
    });
    let delays = qos_view::delays(&queues, paced);
    let waits = live().filter_map(|persona| {
        let [ingress, egress] = *delays.get(&persona.segment)?;
        let name = persona.definition.name.as_str();
        let row = |direction, wait| ([("persona", name), ("direction", direction)], wait);
        Some([row("ingress", ingress), row("egress", egress)])
    });
    series.times(
        "hub_persona_queue_delay_seconds",
        "How long packets wait for the persona's bandwidth, where they wait longest",
        waits.flatten(),
    )?;
    series.counters(
        "hub_persona_queue_drops",
        "Packets for which a queue had no room",
        of(|queue| queue.drops),
    )
}

fn sample<'a>((persona, queue): &(&'a str, &'a QueueCounts), value: u64) -> Sample<&'a str, 4> {
    let labels = [
        ("persona", *persona),
        ("direction", queue.direction.as_str()),
        ("interface", queue.interface.as_str()),
        ("priority", queue.priority.as_str()),
    ];
    (labels, value)
}
