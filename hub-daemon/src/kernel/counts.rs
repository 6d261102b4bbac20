//! Counters: sums over all CPUs of what the programs added.

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
use crate::datapath_view::{Count, DetectionCount, DropCount, FlowsBegun, HookCounts, SegmentCounts, Sweep};
use crate::model::SegmentId;

/// Position of rules that no document holds: the hub made them.
pub(crate) const SYNTHETIC: u16 = 0xffff;

pub(crate) const DIRECTIONS: [&str; 2] = ["ingress", "egress"];

/// Counters of one persona.
pub(crate) fn segment(maps: &Maps, segment: u32) -> Result<SegmentCounts, ReadError> {
    let Some(values) = present(maps.counters.get(&segment, 0), "COUNTERS")? else {
        return Ok(SegmentCounts::default());
    };
    let [ingress, egress, ingress_dropped, egress_dropped] = passed(&values);
    let mut counts =
        SegmentCounts { ingress, egress, ingress_dropped, egress_dropped, ..SegmentCounts::default() };
    for reason in Reason::ALL {
        for direction in 0..2 * WOULD_DROP {
            let key = DropKey { segment, reason: *reason as u16, direction };
            if let Some(hits) = present(maps.drops.get(&key, 0), "DROPS")? {
                let list = if is_real(key) { &mut counts.drops } else { &mut counts.would_drop };
                list.push(dropped(key, &hits));
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

/// Counters of very many personas.
pub(crate) fn segments(maps: &Maps, of: &[SegmentId]) -> Result<Sweep, ReadError> {
    let mut sweep = Sweep::new(of.iter().copied());
    let span = sweep.span();
    let note = |index: u32, values: &[SegmentCounters]| {
        if let Some(totals) = sweep.totals_mut(SegmentId(index)) {
            totals.packets = passed(values);
        }
    };
    maps.sums
        .range(&maps.counters, 0, span, note)
        .map_err(|source| ReadError::Map { map: "COUNTERS", source })?;
    let note = |key: &DropKey, hits: &[Hits]| {
        let segment = SegmentId(key.segment);
        if sweep.totals(segment).is_some() {
            let add = if is_real(*key) { Sweep::drop_of } else { Sweep::would_drop_of };
            add(&mut sweep, segment, dropped(*key, hits));
        }
        ControlFlow::Continue(())
    };
    batch::entries(maps.drops.map(), note).map_err(|source| ReadError::Map { map: "DROPS", source })?;
    let note = |index: u32, values: &[[u64; 3]]| {
        if let Some(totals) = sweep.totals_mut(SegmentId(index)) {
            totals.flows = begun(values);
        }
    };
    maps.sums
        .range(&maps.flows_begun, 0, span, note)
        .map_err(|source| ReadError::Map { map: "FLOWS_BEGUN", source })?;
    let note = |key: &DetectionKey, times: &[u64]| {
        let segment = SegmentId(key.segment);
        if let (Some(_), Some(times)) = (sweep.totals(segment), times.first()) {
            sweep.detection_of(segment, detection(*key, *times));
        }
        ControlFlow::Continue(())
    };
    batch::entries(maps.detections.map(), note)
        .map_err(|source| ReadError::Map { map: "DETECTIONS", source })?;
    rule_counts::of_segments(maps, &mut sweep)?;
    let note = |segment: &u32, times: &[Histogram]| {
        let segment = SegmentId(*segment);
        if sweep.totals(segment).is_some() {
            sweep.handshakes_of(segment, qos::sum(times));
        }
        ControlFlow::Continue(())
    };
    batch::entries(maps.times.map(), note).map_err(|source| ReadError::Map { map: "RTTS", source })?;
    sweep.sort();
    Ok(sweep)
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

/// Passed towards members and from them, dropped on the way to members and from them.
fn passed(values: &[SegmentCounters]) -> [Count; 4] {
    let picks: [fn(&SegmentCounters) -> Hits; 4] = [
        |counters| counters.ingress,
        |counters| counters.egress,
        |counters| counters.ingress_dropped,
        |counters| counters.egress_dropped,
    ];
    picks.map(|pick| sum(values.iter().map(pick)))
}

fn begun(values: &[[u64; 3]]) -> FlowsBegun {
    values.iter().fold(FlowsBegun::default(), |sum, [ingress, egress, _]| FlowsBegun {
        ingress: sum.ingress + ingress,
        egress: sum.egress + egress,
    })
}

fn detection(key: DetectionKey, times: u64) -> DetectionCount {
    let detector = Detector::ALL.into_iter().find(|detector| *detector as u32 == key.detector);
    let name = detector.map_or_else(|| key.detector.to_string(), |detector| detector.name().to_owned());
    DetectionCount { detector: name, times }
}

/// Whether the packets were dropped, and not only would be.
const fn is_real(key: DropKey) -> bool {
    key.direction < WOULD_DROP
}

fn dropped(key: DropKey, hits: &[Hits]) -> DropCount {
    let reason = Reason::from_number(u32::from(key.reason));
    DropCount {
        reason: reason.map_or_else(|| key.reason.to_string().into(), |reason| reason.name().into()),
        direction: direction(!key.direction.is_multiple_of(WOULD_DROP)).into(),
        count: sum(hits.iter().copied()),
    }
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
