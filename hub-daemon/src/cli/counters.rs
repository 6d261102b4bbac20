//! `hubctl counters`.

use super::client::Client;
use super::exit::Failure;
use super::output::Output;
use super::table::{section, table};
use crate::datapath_view::{Count, HookCounts, SegmentCounts};
use crate::inputs::rest::HubCounters;

pub(super) async fn run(client: &Client, output: Output, persona: Option<&str>) -> Result<(), Failure> {
    if let Some(persona) = persona {
        let answer = client.get(&format!("{}/counters", super::persona::path(persona))).await?;
        return output.show(&answer.body, of_persona);
    }
    let answer = client.get("/v1/counters").await?;
    output.show(&answer.body, |counters: &HubCounters| of_hooks(&counters.hooks))
}

fn of_persona(counts: &SegmentCounts) -> String {
    let row = |direction: &str, verdict: &str, count: &Count| {
        [direction.to_owned(), verdict.to_owned(), count.packets.to_string(), count.bytes.to_string()]
    };
    let totals = [
        row("ingress", "passed", &counts.ingress),
        row("ingress", "dropped", &counts.ingress_dropped),
        row("egress", "passed", &counts.egress),
        row("egress", "dropped", &counts.egress_dropped),
    ];
    let mut text = table(["DIRECTION", "VERDICT", "PACKETS", "BYTES"], totals);
    if !counts.drops.is_empty() {
        let rows = counts.drops.iter().map(|drop| row(&drop.direction, &drop.reason, &drop.count));
        text.push_str(&section("drops", &table(["DIRECTION", "REASON", "PACKETS", "BYTES"], rows)));
    }
    if !counts.would_drop.is_empty() {
        let rows = counts.would_drop.iter().map(|drop| row(&drop.direction, &drop.reason, &drop.count));
        let audited = table(["DIRECTION", "REASON", "PACKETS", "BYTES"], rows);
        text.push_str(&section("would drop (audit)", &audited));
    }
    if !counts.rules.is_empty() {
        let rows = counts.rules.iter().map(|hit| {
            let rule = if hit.baseline { format!("baseline {}", hit.rule) } else { hit.rule.to_string() };
            let [direction, rule, packets, bytes] = row(&hit.direction, &rule, &hit.count);
            [direction, rule, packets, bytes, hit.would_drop.to_string()]
        });
        let columns = ["DIRECTION", "RULE", "PACKETS", "BYTES", "WOULD DROP"];
        text.push_str(&section("rules", &table(columns, rows)));
    }
    let begun = [("ingress", counts.flows.ingress), ("egress", counts.flows.egress)];
    let begun = begun.map(|(direction, flows)| [direction.to_owned(), flows.to_string()]);
    text.push_str(&section("connections begun", &table(["DIRECTION", "CONNECTIONS"], begun)));
    if !counts.detections.is_empty() {
        let rows = counts.detections.iter().map(|fired| [fired.detector.clone(), fired.times.to_string()]);
        text.push_str(&section("detections", &table(["DETECTOR", "TIMES"], rows)));
    }
    if let Some(times) = &counts.handshakes {
        let times = [times.p50_us, times.p95_us, times.p99_us].map(milliseconds);
        text.push_str(&section("handshakes", &table(["P50 MS", "P95 MS", "P99 MS"], [times])));
    }
    if !counts.queues.is_empty() {
        let columns =
            ["INTERFACE", "DIRECTION", "CLASS", "PACKETS", "BYTES", "DROPS", "BACKLOG BYTES", "DELAY MS"];
        let rows = counts.queues.iter().map(|queue| {
            [
                queue.interface.clone(),
                queue.direction.clone(),
                queue.priority.clone(),
                queue.packets.to_string(),
                queue.bytes.to_string(),
                queue.drops.to_string(),
                queue.backlog_bytes.to_string(),
                milliseconds(queue.delay_us),
            ]
        });
        text.push_str(&section("queues", &table(columns, rows)));
    }
    text
}

fn milliseconds(microseconds: u64) -> String {
    format!("{}.{:03}", microseconds / 1_000, microseconds % 1_000)
}

fn of_hooks(hooks: &[HookCounts]) -> String {
    let columns =
        ["HOOK", "RECEIVED", "REDIRECTED", "PASSED", "SKIPPED", "REPLIED", "DROPPED", "EVENTS LOST"];
    let rows = hooks.iter().map(|hook| {
        let number = |value: u64| value.to_string();
        [
            hook.hook.clone(),
            number(hook.received),
            number(hook.redirected),
            number(hook.passed),
            number(hook.skipped),
            number(hook.replied),
            number(hook.dropped),
            number(hook.events_lost),
        ]
    });
    let mut text = table(columns, rows);
    let reasons: Vec<[String; 3]> = hooks
        .iter()
        .flat_map(|hook| {
            hook.reasons
                .iter()
                .map(|(reason, packets)| [hook.hook.clone(), reason.clone(), packets.to_string()])
        })
        .collect();
    if !reasons.is_empty() {
        text.push_str(&section("drops", &table(["HOOK", "REASON", "PACKETS"], reasons)));
    }
    text
}
