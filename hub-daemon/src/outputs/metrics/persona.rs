//! Metrics of each persona that is in the data path.

use super::page::Family;
use super::roster::Row;
use super::rows::Rows;
use super::text::{Kind, Text};
use crate::datapath_view::{Count, DropCount};
use crate::model::SegmentId;

pub(super) const FAMILIES: [Family; 10] = [
    Family {
        name: "hub_persona_packets",
        kind: Kind::Counter,
        help: "Packets of a persona; ingress is towards its members",
        write: |rows, row, text| {
            verdicts(rows, row, text, "hub_persona_packets_total", |count| count.packets);
        },
    },
    Family {
        name: "hub_persona_bytes",
        kind: Kind::Counter,
        help: "Bytes of a persona, from the IP header on",
        write: |rows, row, text| {
            verdicts(rows, row, text, "hub_persona_bytes_total", |count| count.bytes);
        },
    },
    Family {
        name: "hub_persona_drops",
        kind: Kind::Counter,
        help: "Packets of a persona that were dropped, by reason",
        write: |rows, row, text| {
            drops(rows, row, text, "hub_persona_drops_total", rows.sweep.drops(row.segment));
        },
    },
    Family {
        name: "hub_persona_would_drop",
        kind: Kind::Counter,
        help: "Packets of a persona that passed only because its rules are audited, by reason",
        write: |rows, row, text| {
            drops(rows, row, text, "hub_persona_would_drop_total", rows.sweep.would_drop(row.segment));
        },
    },
    Family {
        name: "hub_persona_rule_hits",
        kind: Kind::Counter,
        help: "Packets that a rule judged: the first of each flow it admitted, every one it refused",
        write: rule_hits,
    },
    Family {
        name: "hub_persona_flows",
        kind: Kind::Gauge,
        help: "Connections of a persona in the flow table",
        write: |rows, row, text| {
            if rows.totals(row).is_some() {
                let flows = rows.flows.get(&row.segment).copied().unwrap_or_default();
                text.line(["hub_persona_flows{persona=\"", rows.name(row), "\"} "], flows);
            }
        },
    },
    Family {
        name: "hub_persona_asymmetric_flows",
        kind: Kind::Gauge,
        help: "TCP connections of a persona whose answers do not come through the hub, if there are any",
        write: |rows, row, text| {
            if row.one_sided > 0 {
                text.line(["hub_persona_asymmetric_flows{persona=\"", rows.name(row), "\"} "], row.one_sided);
            }
        },
    },
    Family {
        name: "hub_persona_flows_begun",
        kind: Kind::Counter,
        help: "Connections of a persona that began; ingress is towards its members",
        write: |rows, row, text| {
            let (start, name) = ("hub_persona_flows_begun_total{persona=\"", rows.name(row));
            let Some(totals) = rows.totals(row) else { return };
            text.line([start, name, "\",direction=\"ingress\"} "], totals.flows.ingress);
            text.line([start, name, "\",direction=\"egress\"} "], totals.flows.egress);
        },
    },
    Family {
        name: "hub_persona_detections",
        kind: Kind::Counter,
        help: "Times that a detector fired, once a source and window",
        write: |rows, row, text| {
            let (start, name) = ("hub_persona_detections_total{persona=\"", rows.name(row));
            for (_, fired) in rows.sweep.detections(row.segment) {
                text.line([start, name, "\",detector=\"", &fired.detector, "\"} "], fired.times);
            }
        },
    },
    Family {
        name: "hub_persona_expires_timestamp_seconds",
        kind: Kind::Gauge,
        help: "When a persona ends, seconds since 1970",
        write: |rows, row, text| {
            if let (Some(_), Some(seconds)) = (rows.totals(row), row.expires) {
                let start = "hub_persona_expires_timestamp_seconds{persona=\"";
                text.line([start, rows.name(row), "\"} "], seconds);
            }
        },
    },
];

/// One copy for each family, in which all but the persona's name and the number is constant.
#[inline(always)]
fn verdicts(rows: &Rows, row: &Row, text: &mut Text, series: &str, value: fn(Count) -> u64) {
    let (middle, name) = ("{persona=\"", rows.name(row));
    let Some(totals) = rows.totals(row) else { return };
    let [ingress, egress, ingress_dropped, egress_dropped] = totals.packets.map(value);
    text.line([series, middle, name, "\",direction=\"ingress\",verdict=\"passed\"} "], ingress);
    text.line([series, middle, name, "\",direction=\"egress\",verdict=\"passed\"} "], egress);
    text.line([series, middle, name, "\",direction=\"ingress\",verdict=\"dropped\"} "], ingress_dropped);
    text.line([series, middle, name, "\",direction=\"egress\",verdict=\"dropped\"} "], egress_dropped);
}

fn drops(rows: &Rows, row: &Row, text: &mut Text, series: &str, drops: &[(SegmentId, DropCount)]) {
    let name = rows.name(row);
    for (_, drop) in drops {
        let (direction, reason) = (&*drop.direction, &*drop.reason);
        let parts =
            [series, "{persona=\"", name, "\",direction=\"", direction, "\",reason=\"", reason, "\"} "];
        text.line(parts, drop.count.packets);
    }
}

fn rule_hits(rows: &Rows, row: &Row, text: &mut Text) {
    let (start, name) = ("hub_persona_rule_hits_total{persona=\"", rows.name(row));
    let Some(totals) = rows.totals(row) else { return };
    for hit in rows.sweep.rules(totals) {
        let whose = if hit.baseline { "baseline " } else { "" };
        text.parts([start, name, "\",direction=\"", &hit.direction, "\",rule=\"", whose]);
        text.number(hit.rule.into());
        text.line(["\"} "], hit.count.packets);
    }
}
