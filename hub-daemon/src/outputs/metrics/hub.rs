//! Metrics of the hub as a whole.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use super::roster::{Roster, by_reason};
use super::series::Series;
use super::{experiments, switches};
use crate::datapath_view::{FlowTable, HookCounts};
use crate::inputs::HubHandle;
use crate::kernel::reader::ReadError;
use crate::outputs::stats::TableView;
use crate::view::Snapshot;

/// How full the flow table is, unless it cannot be read.
pub(super) type Flows = Result<FlowTable, ReadError>;

pub(super) fn encode(
    series: &mut Series<'_>,
    hub: &HubHandle,
    snapshot: &Snapshot,
    roster: &Roster,
    flows: &Flows,
) -> fmt::Result {
    series.gauges(
        "hub_build",
        "Always 1; the version of hubd is the label",
        [([("version", env!("CARGO_PKG_VERSION"))], 1)],
    )?;
    series.gauge(
        "hub_start_timestamp_seconds",
        "When hubd started, seconds since 1970",
        seconds(hub.started),
    )?;
    series.gauge("hub_ready", "1 once the kernel held what the documents say", u64::from(snapshot.ready))?;
    let engine = [([("engine", snapshot.qos.name())], 1)];
    series.gauges("hub_qos_engine", "Always 1; what keeps bandwidths is the label", engine)?;
    let states = roster.states.iter().map(|(state, count)| ([("state", *state)], *count));
    series.gauges("hub_personas", "Personas by state", states)?;
    conditions(series, snapshot, roster)?;
    pools(series, snapshot)?;
    switches::encode(series, &hub.switches, snapshot)?;
    experiments::encode(series, snapshot)?;
    documents(series, snapshot)?;
    reconcile(series, hub)?;
    alerts(series, hub)?;
    datapath(series, hub, flows)
}

fn conditions(series: &mut Series<'_>, snapshot: &Snapshot, roster: &Roster) -> fmt::Result {
    let hub = by_reason(&mut snapshot.conditions.iter());
    let hub = hub.iter().map(|(reason, count)| ([("reason", reason.as_str())], *count));
    series.gauges("hub_condition", "Fall-backs and faults of the hub itself", hub)?;
    let personas = roster.conditions.iter().map(|(reason, count)| ([("reason", reason.as_str())], *count));
    series.gauges("hub_personas_with_condition", "Conditions of personas, by reason", personas)
}

fn pools(series: &mut Series<'_>, snapshot: &Snapshot) -> fmt::Result {
    let counts = snapshot.pools.iter().flat_map(|pool| {
        let counts = [("allotted", pool.allotted.len()), ("resting", pool.resting.len())];
        counts.map(|(state, count)| ([("pool", pool.name.as_str()), ("state", state)], count as u64))
    });
    series.gauges("hub_pool_ranges", "Ranges out of a pool that personas have, or that rest", counts)?;
    let used = snapshot.pools.iter().flat_map(|pool| {
        let used = [("ipv4", pool.used_ipv4), ("ipv6", pool.used_ipv6)];
        used.map(|(family, used)| ([("pool", pool.name.as_str()), ("family", family)], parts(used)))
    });
    series.gauges("hub_pool_used_permille", "Part of a pool that personas have or that rests", used)
}

/// Thousandths of a share, rounded up: a pool with anything taken is not empty.
#[expect(clippy::cast_sign_loss, reason = "a share is between 0 and 1")]
fn parts(share: f64) -> u64 {
    (share * 1_000.0).ceil() as u64
}

fn documents(series: &mut Series<'_>, snapshot: &Snapshot) -> fmt::Result {
    series.gauge(
        "hub_documents_last_success_timestamp_seconds",
        "When the documents were last read without error, seconds since 1970",
        snapshot.documents_read.map(seconds),
    )?;
    series.gauge(
        "hub_documents_last_reload_successful",
        "1 if the last read of the documents had no error",
        u64::from(snapshot.documents_error.is_none()),
    )
}

fn alerts(series: &mut Series<'_>, hub: &HubHandle) -> fmt::Result {
    let views = Arc::clone(&hub.alerts.views.borrow());
    let firing = views.iter().map(|view| {
        let labels = [("persona", view.persona.as_deref().unwrap_or_default()), ("alert", &*view.alert)];
        (labels, u64::from(view.state == "firing"))
    });
    series.gauges("hub_alert_firing", "1 while an alert fires; no persona means the hub", firing)?;
    let deliveries = &hub.alerts.deliveries;
    let results = [
        ("delivered", deliveries.delivered.get()),
        ("failed", deliveries.failed.get()),
        ("dropped", deliveries.dropped.get()),
    ];
    let results = results.map(|(result, count)| ([("result", result)], count));
    series.counters("hub_webhook_deliveries", "Alerts sent to webhooks, by what became of them", results)
}

fn reconcile(series: &mut Series<'_>, hub: &HubHandle) -> fmt::Result {
    let stats = &hub.reconcile;
    let tables = stats.tables();
    let of = |value: fn(&TableView) -> u64| {
        tables.iter().map(move |view| ([("table", view.table.as_str())], value(view)))
    };
    series.counters("hub_reconcile_puts", "Entries put into a kernel table", of(|view| view.puts))?;
    series.counters(
        "hub_reconcile_deletes",
        "Entries deleted from a kernel table",
        of(|view| view.deletes),
    )?;
    series.counters("hub_reconcile_failures", "Changes that the kernel refused", of(|view| view.failures))?;
    series.counters(
        "hub_reconcile_drift",
        "Entries that somebody else had changed",
        of(|view| view.drift),
    )?;
    series.counter("hub_reconcile_passes", "Passes over all tables", stats.passes.get())?;
    series.counter("hub_reconcile_resyncs", "Passes forced by lost netlink messages", stats.resyncs.get())?;
    series.gauge(
        "hub_reconcile_last_success_timestamp_seconds",
        "When the kernel last equalled what is wanted, seconds since 1970",
        stats.last_success().map(seconds),
    )
}

fn datapath(series: &mut Series<'_>, hub: &HubHandle, flows: &Flows) -> fmt::Result {
    let (hooks, flows) = match (hub.datapath.hooks(), flows) {
        (Ok(hooks), Ok(flows)) => (hooks, flows),
        (Err(error), _) => return unreadable(series, &error),
        (_, Err(error)) => return unreadable(series, error),
    };
    series.gauge("hub_datapath_readable", "1 if the kernel's maps could be read", 1)?;
    let received = hooks.iter().map(|hook| ([("hook", hook.hook.as_str())], hook.received));
    series.counters("hub_hook_received_packets", "Packets that entered a hook", received)?;
    let outcomes = hooks.iter().flat_map(|hook| {
        outcomes(hook)
            .map(|(outcome, packets)| ([("hook", hook.hook.as_str()), ("outcome", outcome)], packets))
    });
    series.counters("hub_hook_packets", "Packets by what a hook did; the sum is what entered", outcomes)?;
    let drops = hooks.iter().flat_map(|hook| {
        hook.reasons
            .iter()
            .map(|(reason, packets)| ([("hook", hook.hook.as_str()), ("reason", reason.as_str())], *packets))
    });
    series.counters("hub_hook_drops", "Packets dropped or rejected, by reason", drops)?;
    let sum = |value: fn(&HookCounts) -> u64| hooks.iter().map(value).sum::<u64>();
    series.counter("hub_events_lost", "Events that had no room", sum(|hook| hook.events_lost))?;
    series.counter(
        "hub_drops_unattributed",
        "Drops that had no room in the table of personas and reasons",
        sum(|hook| hook.drops_unattributed),
    )?;
    let tiers = [("established", flows.established), ("opening", flows.opening)];
    series.gauges(
        "hub_flows",
        "Connections in the flow table",
        tiers.map(|(tier, n)| ([("tier", tier)], n)),
    )?;
    let room = [("established", flows.established_max), ("opening", flows.opening_max)];
    series.gauges("hub_flows_max", "Room in the flow table", room.map(|(tier, n)| ([("tier", tier)], n)))
}

fn unreadable(series: &mut Series<'_>, error: &ReadError) -> fmt::Result {
    tracing::warn!(%error, "metrics without the data path");
    series.gauge("hub_datapath_readable", "1 if the kernel's maps could be read", 0)
}

fn outcomes(hook: &HookCounts) -> [(&'static str, u64); 5] {
    [
        ("redirected", hook.redirected),
        ("passed", hook.passed),
        ("skipped", hook.skipped),
        ("replied", hook.replied),
        ("dropped", hook.dropped),
    ]
}

fn seconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_second()).unwrap_or_default()
}
