//! Counters: sums over all CPUs of what the programs added.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use aya::maps::IterableMap as _;
use hub_common::detect::{DetectionKey, Detector};
use hub_common::event::{Hook, REASON_SLOTS, Reason};
use hub_common::shape::Histogram;
use hub_common::stats::{DropKey, Hits, HookTotals, SegmentCounters, WOULD_DROP};

use super::batch;
use super::maps::{Maps, present};
use super::qos;
use super::reader::ReadError;
use super::rule_counts;
use crate::datapath_view::{Count, DetectionCount, DropCount, FlowsBegun, HookCounts, SegmentCounts};
use crate::model::SegmentId;
use crate::view::Snapshot;

/// Position of rules that no document holds: the hub made them.
pub(crate) const SYNTHETIC: u16 = 0xffff;

pub(crate) const DIRECTIONS: [&str; 2] = ["ingress", "egress"];

/// Counters of one persona.
pub(crate) fn segment(maps: &Maps, segment: u32) -> Result<SegmentCounts, ReadError> {
    let Some(values) = present(maps.counters.get(&segment, 0), "COUNTERS")? else {
        return Ok(SegmentCounts::default());
    };
    let mut counts = passed(&values);
    for reason in Reason::ALL {
        for direction in 0..2 * WOULD_DROP {
            let key = DropKey { segment, reason: *reason as u16, direction };
            if let Some(hits) = present(maps.drops.get(&key, 0), "DROPS")? {
                enter(&mut counts, key, &hits);
            }
        }
    }
    if let Some(values) = present(maps.flows_begun.get(&segment, 0), "FLOWS_BEGUN")? {
        counts.flows = begun(&values);
    }
    for detector in Detector::ALL {
        let key = DetectionKey { segment, detector: detector as u32 };
        let times = present(maps.detections.get(&key, 0), "DETECTIONS")?;
        counts.detections.extend(times.map(|times| detection(key, times)));
    }
    if let Some(policy) = maps.slots.policy_of(segment)? {
        counts.rules = rule_counts::of_policy(maps, &policy)?;
    }
    counts.handshakes = qos::handshakes(maps, segment)?;
    Ok(counts)
}

/// Counters of all personas.
pub(crate) fn segments(
    maps: &Maps,
    snapshot: &Snapshot,
) -> Result<BTreeMap<SegmentId, SegmentCounts>, ReadError> {
    let mut all: BTreeMap<SegmentId, SegmentCounts> =
        snapshot.personas.values().map(|persona| (persona.segment, SegmentCounts::default())).collect();
    let last = all.keys().next_back().map_or(0, |segment| segment.0);
    let note = |index: u32, values: &[SegmentCounters]| {
        if let Some(counts) = all.get_mut(&SegmentId(index)) {
            *counts = passed(values);
        }
    };
    batch::range(maps.counters.map(), 0, last + 1, note)
        .map_err(|source| ReadError::Map { map: "COUNTERS", source })?;
    let note = |key: &DropKey, hits: &[Hits]| {
        if let Some(counts) = all.get_mut(&SegmentId(key.segment)) {
            enter(counts, *key, hits);
        }
        ControlFlow::Continue(())
    };
    batch::entries(maps.drops.map(), note).map_err(|source| ReadError::Map { map: "DROPS", source })?;
    let note = |index: u32, values: &[[u64; 2]]| {
        if let Some(counts) = all.get_mut(&SegmentId(index)) {
            counts.flows = begun(values);
        }
    };
    batch::range(maps.flows_begun.map(), 0, last + 1, note)
        .map_err(|source| ReadError::Map { map: "FLOWS_BEGUN", source })?;
    let note = |key: &DetectionKey, times: &[u64]| {
        if let (Some(counts), Some(times)) = (all.get_mut(&SegmentId(key.segment)), times.first()) {
            counts.detections.push(detection(*key, *times));
        }
        ControlFlow::Continue(())
    };
    batch::entries(maps.detections.map(), note)
        .map_err(|source| ReadError::Map { map: "DETECTIONS", source })?;
    for (segment, rules) in rule_counts::of_segments(maps, last)? {
        if let Some(counts) = all.get_mut(&segment) {
            counts.rules = rules;
        }
    }
    let note = |segment: &u32, times: &[Histogram]| {
        if let Some(counts) = all.get_mut(&SegmentId(*segment)) {
            counts.handshakes = Some(qos::sum(times));
        }
        ControlFlow::Continue(())
    };
    batch::entries(maps.times.map(), note).map_err(|source| ReadError::Map { map: "RTTS", source })?;
    for counts in all.values_mut() {
        counts.detections.sort_by(|a, b| a.detector.cmp(&b.detector));
        for drops in [&mut counts.drops, &mut counts.would_drop] {
            drops.sort_by(|a, b| (&a.reason, &a.direction).cmp(&(&b.reason, &b.direction)));
        }
    }
    Ok(all)
}

/// Totals of every hook.
pub(crate) fn hooks(maps: &Maps) -> Result<Vec<HookCounts>, ReadError> {
    let mut hooks: Vec<HookCounts> = Hook::ALL
        .into_iter()
        .map(|hook| HookCounts { hook: hook.name().to_owned(), ..HookCounts::default() })
        .collect();
    for (number, hook) in (0..).zip(&mut hooks) {
        let totals = present(maps.totals.get(&number, 0), "TOTALS")?;
        totals.iter().flat_map(|values| values.iter()).for_each(|values| add(hook, values));
        let reasons = |index: u32, values: &[u64]| {
            let count = values.iter().sum();
            if let Some(reason) = Reason::from_number(index % REASON_SLOTS)
                && count != 0
            {
                hook.reasons.push((reason.name().to_owned(), count));
            }
        };
        batch::range(maps.reasons.map(), number * REASON_SLOTS, REASON_SLOTS, reasons)
            .map_err(|source| ReadError::Map { map: "REASONS", source })?;
    }
    Ok(hooks)
}

fn add(hook: &mut HookCounts, totals: &HookTotals) {
    hook.received += totals.received;
    hook.redirected += totals.redirected;
    hook.passed += totals.passed;
    hook.skipped += totals.skipped;
    hook.replied += totals.replied;
    hook.dropped += totals.dropped;
    hook.events_lost += totals.events_lost;
    hook.drops_unattributed += totals.drops_unattributed;
}

fn passed(values: &[SegmentCounters]) -> SegmentCounts {
    let count = |pick: fn(&SegmentCounters) -> Hits| sum(values.iter().map(pick));
    SegmentCounts {
        ingress: count(|counters| counters.ingress),
        egress: count(|counters| counters.egress),
        ingress_dropped: count(|counters| counters.ingress_dropped),
        egress_dropped: count(|counters| counters.egress_dropped),
        ..SegmentCounts::default()
    }
}

fn begun(values: &[[u64; 2]]) -> FlowsBegun {
    values.iter().fold(FlowsBegun::default(), |sum, [ingress, egress]| FlowsBegun {
        ingress: sum.ingress + ingress,
        egress: sum.egress + egress,
    })
}

fn detection(key: DetectionKey, times: u64) -> DetectionCount {
    let detector = Detector::ALL.into_iter().find(|detector| *detector as u32 == key.detector);
    let name = detector.map_or_else(|| key.detector.to_string(), |detector| detector.name().to_owned());
    DetectionCount { detector: name, times }
}

fn enter(counts: &mut SegmentCounts, key: DropKey, hits: &[Hits]) {
    let reason = Reason::from_number(u32::from(key.reason));
    let count = DropCount {
        reason: reason.map_or_else(|| key.reason.to_string(), |reason| reason.name().to_owned()),
        direction: direction(!key.direction.is_multiple_of(WOULD_DROP)).to_owned(),
        count: sum(hits.iter().copied()),
    };
    let list = if key.direction < WOULD_DROP { &mut counts.drops } else { &mut counts.would_drop };
    list.push(count);
}

/// The name of a direction.
pub(crate) const fn direction(from_members: bool) -> &'static str {
    let [ingress, egress] = DIRECTIONS;
    if from_members { egress } else { ingress }
}

pub(crate) fn sum(hits: impl Iterator<Item = Hits>) -> Count {
    hits.fold(Count::default(), |sum, hits| Count {
        packets: sum.packets + hits.packets,
        bytes: sum.bytes + hits.bytes,
    })
}
