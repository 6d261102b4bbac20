//! `hubctl top`: what personas do right now, busiest first, drawn anew until it is told to end.

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;
use tokio::signal;

use super::arguments::Format;
use super::client::Client;
use super::exit::Failure;
use super::output::{self, Output};
use super::table::{section, table};
use crate::inputs::rest::{TopPersona, TopView};
use crate::model::span;

/// Where the cursor goes, and what is below it, before each drawing (ECMA-48: CUP, ED).
const HOME: &str = "\x1b[H\x1b[J";
/// A screen of its own, given back at the end (xterm's private mode 1049).
const SCREEN: (&str, &str) = ("\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l");

/// How to show it.
#[derive(Debug, Args)]
pub(super) struct TopAsked {
    /// Show one interval and end
    #[arg(long)]
    once: bool,
    /// Time between two readings
    #[arg(short, long, default_value = "2s", value_name = "TIME")]
    interval: String,
    /// What comes first
    #[arg(long, value_enum, default_value_t = Order::Rate)]
    sort: Order,
    /// Most personas to show
    #[arg(long, default_value_t = 30)]
    limit: usize,
}

/// What comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Order {
    /// Bits in and out
    Rate,
    /// Drops
    Drops,
    /// Connections
    Flows,
    /// The name
    Name,
}

/// Rates between two readings.
#[derive(Debug, PartialEq, Serialize)]
struct Rates {
    seconds: f64,
    personas: Vec<Row>,
    hub: Total,
}

/// Rates of one persona. Ingress is towards its members.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Row {
    name: String,
    state: &'static str,
    ingress_bits_per_second: f64,
    egress_bits_per_second: f64,
    ingress_packets_per_second: f64,
    egress_packets_per_second: f64,
    drops_per_second: f64,
    flows: u64,
    /// Reasons of drops since the reading before, most first.
    reasons: Vec<(String, u64)>,
}

/// Rates of the hub as a whole.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Total {
    packets_per_second: f64,
    drops_per_second: f64,
    events_lost: u64,
}

pub(super) async fn run(client: &Client, output: Output, asked: TopAsked) -> Result<(), Failure> {
    let interval = span::parse(&asked.interval).map_err(|error| Failure::Usage(error.to_string()))?;
    let draws = !asked.once && output.format() == Format::Table && std::io::stdout().is_terminal();
    if draws {
        output.bytes(SCREEN.0.as_bytes())?;
    }
    let shown = tokio::select! {
        shown = show(client, output, &asked, interval, draws) => shown,
        _interrupted = signal::ctrl_c() => Ok(()),
    };
    if draws {
        output.bytes(SCREEN.1.as_bytes())?;
    }
    shown
}

async fn show(
    client: &Client,
    output: Output,
    asked: &TopAsked,
    interval: Duration,
    draws: bool,
) -> Result<(), Failure> {
    let mut before = read(client).await?;
    loop {
        tokio::time::sleep(interval).await;
        let after = read(client).await?;
        let rates = rates(&before, &after, asked);
        match output.format() {
            Format::Json if asked.once => output.line(&output::pretty(&rates)?)?,
            Format::Json => output.line(&serde_json::to_string(&rates).map_err(Failure::answer)?)?,
            Format::Yaml => output.line(&format!("---\n{}", output::yaml(&rates)?))?,
            Format::Table => {
                let home = if draws { HOME } else { "" };
                output.line(&format!("{home}{}", describe(&rates)))?;
            }
        }
        if asked.once {
            return Ok(());
        }
        before = after;
    }
}

async fn read(client: &Client) -> Result<TopView, Failure> {
    serde_json::from_value(client.get("/v1/top").await?.body).map_err(Failure::answer)
}

#[expect(clippy::cast_precision_loss, reason = "rates are for reading; 2^53 packets take longer than that")]
fn rates(before: &TopView, after: &TopView, asked: &TopAsked) -> Rates {
    let seconds = after.time.duration_since(before.time).as_secs_f64().max(0.001);
    // A persona that is new since then began at zero.
    let rate = |old: u64, new: u64| new.saturating_sub(old) as f64 / seconds;
    let row = |persona: &TopPersona| {
        let old = before.personas.iter().find(|old| old.id == persona.id).map(|old| old.usage.clone());
        let old = old.unwrap_or_default().counts;
        let new = &persona.usage.counts;
        let dropped = |counts: &crate::datapath_view::SegmentCounts| {
            counts.ingress_dropped.packets + counts.egress_dropped.packets
        };
        let mut reasons: Vec<(String, u64)> = Vec::new();
        for drop in &new.drops {
            let same = |old: &&crate::datapath_view::DropCount| {
                (&old.reason, &old.direction) == (&drop.reason, &drop.direction)
            };
            let was = old.drops.iter().find(same).map_or(0, |old| old.count.packets);
            let more = drop.count.packets.saturating_sub(was);
            match reasons.iter_mut().find(|(reason, _)| *reason == drop.reason) {
                Some((_, count)) => *count += more,
                None => reasons.push((drop.reason.to_string(), more)),
            }
        }
        reasons.retain(|(_, count)| *count > 0);
        reasons.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        Row {
            name: persona.name.clone(),
            state: crate::outputs::status::state_name(persona.state),
            ingress_bits_per_second: rate(old.ingress.bytes, new.ingress.bytes) * 8.0,
            egress_bits_per_second: rate(old.egress.bytes, new.egress.bytes) * 8.0,
            ingress_packets_per_second: rate(old.ingress.packets, new.ingress.packets),
            egress_packets_per_second: rate(old.egress.packets, new.egress.packets),
            drops_per_second: rate(dropped(&old), dropped(new)),
            flows: persona.usage.flows,
            reasons,
        }
    };
    let mut personas: Vec<Row> = after.personas.iter().map(row).collect();
    let key = |row: &Row| match asked.sort {
        Order::Rate => row.ingress_bits_per_second + row.egress_bits_per_second,
        Order::Drops => row.drops_per_second,
        Order::Flows => row.flows as f64,
        Order::Name => 0.0,
    };
    personas.sort_by(|a, b| key(b).total_cmp(&key(a)).then_with(|| a.name.cmp(&b.name)));
    personas.truncate(asked.limit);
    let sum = |view: &TopView, pick: fn(&crate::datapath_view::HookCounts) -> u64| {
        view.hooks.iter().map(pick).sum::<u64>()
    };
    let total = |pick| rate(sum(before, pick), sum(after, pick));
    let hub = Total {
        packets_per_second: total(|hook| hook.received),
        drops_per_second: total(|hook| hook.dropped),
        events_lost: sum(after, |hook| hook.events_lost).saturating_sub(sum(before, |hook| hook.events_lost)),
    };
    Rates { seconds, personas, hub }
}

fn describe(rates: &Rates) -> String {
    let rows = rates.personas.iter().map(|row| {
        let reasons: Vec<String> =
            row.reasons.iter().take(3).map(|(reason, count)| format!("{reason} {count}")).collect();
        [
            row.name.clone(),
            row.state.to_owned(),
            scaled(row.ingress_bits_per_second, "bit/s"),
            scaled(row.egress_bits_per_second, "bit/s"),
            scaled(row.ingress_packets_per_second + row.egress_packets_per_second, "/s"),
            scaled(row.drops_per_second, "/s"),
            row.flows.to_string(),
            reasons.join(", "),
        ]
    });
    let columns = ["PERSONA", "STATE", "IN", "OUT", "PACKETS", "DROPS", "FLOWS", "REASONS"];
    let hub = format!(
        "hub: {} packets, {} drops, {} events lost in {:.1} s",
        scaled(rates.hub.packets_per_second, "/s"),
        scaled(rates.hub.drops_per_second, "/s"),
        rates.hub.events_lost,
        rates.seconds
    );
    if rates.personas.is_empty() {
        return format!("{hub}{}", section("personas", "none"));
    }
    format!("{hub}\n\n{}", table(columns, rows))
}

/// A rate with a unit that keeps it short.
pub(super) fn scaled(value: f64, unit: &str) -> String {
    let steps = [(1e9, "G"), (1e6, "M"), (1e3, "k")];
    let step = steps.into_iter().find(|(size, _)| value >= *size);
    match step {
        Some((size, letter)) => format!("{:.1} {letter}{unit}", value / size),
        None => format!("{value:.0} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath_view::{Count, DropCount, SegmentCounts, Usage};
    use crate::view::PersonaState;

    fn view(second: i64, personas: &[(&str, u64, u64)]) -> TopView {
        let persona = |(name, packets, drops): &(&str, u64, u64)| TopPersona {
            name: (*name).to_owned(),
            id: (*name).to_owned(),
            state: PersonaState::Active,
            usage: Usage {
                flows: 2,
                counts: SegmentCounts {
                    ingress: Count { packets: *packets, bytes: packets * 1_000 },
                    ingress_dropped: Count { packets: *drops, bytes: *drops },
                    drops: vec![DropCount {
                        reason: "rule_deny".into(),
                        direction: "ingress".into(),
                        count: Count { packets: *drops, bytes: *drops },
                    }],
                    ..SegmentCounts::default()
                },
            },
        };
        let time = jiff::Timestamp::from_second(second).unwrap();
        TopView { time, personas: personas.iter().map(persona).collect(), hooks: Vec::new() }
    }

    #[test]
    fn rates_are_differences_over_time_and_sorted() {
        let asked = TopAsked { once: true, interval: "2s".into(), sort: Order::Drops, limit: 2 };
        let before = view(10, &[("a", 100, 5), ("b", 0, 0)]);
        let after = view(12, &[("a", 300, 5), ("b", 0, 40), ("c", 10, 2)]);
        let rates = rates(&before, &after, &asked);
        let names: Vec<&str> = rates.personas.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["b", "c"], "limited to two");
        assert!((rates.personas[0].drops_per_second - 20.0).abs() < 1e-9);
        assert_eq!(rates.personas[0].reasons, [("rule_deny".to_owned(), 40)]);
        assert!((rates.personas[1].ingress_bits_per_second - 40_000.0).abs() < 1e-9);
        let asked = TopAsked { sort: Order::Rate, ..asked };
        let first = &super::rates(&before, &after, &asked).personas[0];
        assert_eq!(first.name, "a");
        assert!((first.ingress_packets_per_second - 100.0).abs() < 1e-9);
        assert!(first.reasons.is_empty());
    }

    #[test]
    fn rates_are_short() {
        let shown = [0.4, 999.0, 1_500.0, 2.5e9].map(|value| scaled(value, "bit/s"));
        assert_eq!(shown, ["0 bit/s", "999 bit/s", "1.5 kbit/s", "2.5 Gbit/s"]);
    }
}
