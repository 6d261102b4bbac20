//! Metrics of quality of service.

use super::page::Family;
use super::roster::Row;
use super::rows::Rows;
use super::text::{Kind, Text};
use crate::qos_view::QueueCounts;

pub(super) const FAMILIES: [Family; 5] = [
    Family {
        name: "hub_persona_handshake_seconds",
        kind: Kind::Histogram,
        help: "Time of TCP handshakes as the hub sees them, from the first SYN to the ACK that ends it",
        write: handshakes,
    },
    Family {
        name: "hub_persona_latency_exceeded",
        kind: Kind::Gauge,
        help: "1 if more than 5 of a hundred handshakes took longer than the persona's latency",
        write: |rows, row, text| {
            if let Some(is_late) = rows.is_late(row) {
                let start = "hub_persona_latency_exceeded{persona=\"";
                text.line([start, rows.name(row), "\"} "], is_late.into());
            }
        },
    },
    Family {
        name: "hub_persona_queue_backlog_bytes",
        kind: Kind::Gauge,
        help: "Bytes that wait",
        write: |rows, row, text| {
            queues(rows, row, text, "hub_persona_queue_backlog_bytes", |queue| queue.backlog_bytes);
        },
    },
    Family {
        name: "hub_persona_queue_delay_seconds",
        kind: Kind::Gauge,
        help: "How long packets wait for the persona's bandwidth, where they wait longest",
        write: |rows, row, text| {
            let (start, name) = ("hub_persona_queue_delay_seconds{persona=\"", rows.name(row));
            let Some([ingress, egress]) = rows.delays.get(&row.segment) else { return };
            text.time([start, name, "\",direction=\"ingress\"} "], *ingress);
            text.time([start, name, "\",direction=\"egress\"} "], *egress);
        },
    },
    Family {
        name: "hub_persona_queue_drops",
        kind: Kind::Counter,
        help: "Packets for which a queue had no room",
        write: |rows, row, text| {
            queues(rows, row, text, "hub_persona_queue_drops_total", |queue| queue.drops);
        },
    },
];

fn handshakes(rows: &Rows, row: &Row, text: &mut Text) {
    let Some(times) = rows.sweep.handshakes(row.segment) else { return };
    let (series, name) = ("hub_persona_handshake_seconds", rows.name(row));
    text.time([series, "_sum{persona=\"", name, "\"} "], times.sum_us);
    text.line([series, "_count{persona=\"", name, "\"} "], times.count);
    let (mut sum, last) = (0, times.buckets.len().saturating_sub(1));
    for (power, count) in (0_u32..).zip(&times.buckets) {
        sum += count;
        text.parts([series, "_bucket{le=\""]);
        if power as usize == last {
            text.parts(["+Inf"]);
        } else {
            text.seconds(1_u64.checked_shl(power).unwrap_or(u64::MAX));
        }
        text.line(["\",persona=\"", name, "\"} "], sum);
    }
}

fn queues(rows: &Rows, row: &Row, text: &mut Text, series: &str, value: fn(&QueueCounts) -> u64) {
    for queue in rows.queues.get(&row.segment).into_iter().flatten() {
        let (name, direction) = (rows.name(row), queue.direction.as_str());
        text.parts([series, "{persona=\"", name, "\",direction=\"", direction, "\",interface=\""]);
        text.label(&queue.interface);
        text.line(["\",priority=\"", &queue.priority, "\"} "], value(queue));
    }
}
