//! What all personas counted together: it only grows, also when one of them goes and takes its counters along.

use std::collections::BTreeMap;

use crate::datapath_view::{Count, DropCount, RuleCount, SegmentCounts};
use crate::model::SegmentId;

/// The counters of everybody at one moment, by segment.
#[derive(Debug, Default)]
pub(super) struct Everybody {
    /// All counters but those of handshakes.
    pub(super) counts: BTreeMap<SegmentId, SegmentCounts>,
    /// Handshakes by time, where they were read.
    pub(super) handshakes: Option<BTreeMap<SegmentId, Vec<u64>>>,
}

/// Sums over those that are there, and those that were.
#[derive(Debug, Default)]
pub(super) struct Total {
    last: Everybody,
    gone: SegmentCounts,
    gone_handshakes: Vec<u64>,
}

impl Total {
    /// Takes a look, and answers with the sums.
    pub(super) fn add(&mut self, now: Everybody) -> (SegmentCounts, Option<Vec<u64>>) {
        for (segment, before) in &self.last.counts {
            if now.counts.get(segment).is_none_or(|counts| is_anew(before, counts)) {
                put(&mut self.gone, before);
            }
        }
        let mut sum = self.gone.clone();
        for counts in now.counts.values() {
            join(&mut sum, counts);
        }
        let handshakes = now.handshakes.as_ref().map(|now| {
            for (segment, before) in self.last.handshakes.iter().flatten() {
                let fell = |now: &Vec<u64>| now.iter().sum::<u64>() < before.iter().sum();
                if now.get(segment).is_none_or(fell) {
                    add_buckets(&mut self.gone_handshakes, before);
                }
            }
            let mut sum = self.gone_handshakes.clone();
            for buckets in now.values() {
                add_buckets(&mut sum, buckets);
            }
            sum
        });
        self.last = now;
        (sum, handshakes)
    }
}

/// Whether the later counters are those of a persona that came after.
fn is_anew(before: &SegmentCounts, now: &SegmentCounts) -> bool {
    now.ingress.packets < before.ingress.packets || now.egress.packets < before.egress.packets
}

fn add_buckets(sum: &mut Vec<u64>, buckets: &[u64]) {
    sum.resize(sum.len().max(buckets.len()), 0);
    sum.iter_mut().zip(buckets).for_each(|(sum, count)| *sum += count);
}

fn add(sum: &mut Count, count: Count) {
    sum.packets += count.packets;
    sum.bytes += count.bytes;
}

/// Adds the counters of one persona to a sum. Lists become longer: readers add up what fits.
fn join(sum: &mut SegmentCounts, counts: &SegmentCounts) {
    add_totals(sum, counts);
    sum.drops.extend(counts.drops.iter().cloned());
    sum.rules.extend(counts.rules.iter().cloned());
    sum.detections.extend(counts.detections.iter().cloned());
}

fn add_totals(sum: &mut SegmentCounts, counts: &SegmentCounts) {
    add(&mut sum.ingress, counts.ingress);
    add(&mut sum.egress, counts.egress);
    sum.flows.ingress += counts.flows.ingress;
    sum.flows.egress += counts.flows.egress;
}

/// As [`join`], for a sum that stays: its lists do not become longer with each persona that goes.
fn put(sum: &mut SegmentCounts, counts: &SegmentCounts) {
    add_totals(sum, counts);
    for drop in &counts.drops {
        match sum.drops.iter_mut().find(|known| same(known, drop)) {
            Some(known) => add(&mut known.count, drop.count),
            None => sum.drops.push(drop.clone()),
        }
    }
    for rule in &counts.rules {
        // A persona's own rules are known by their places alone: alerts on all of them name no other.
        let identity = if rule.baseline { rule.identity } else { 0 };
        let known = sum.rules.iter_mut().find(|known| {
            (known.rule, known.baseline, known.identity) == (rule.rule, rule.baseline, identity)
        });
        match known {
            Some(known) => add(&mut known.count, rule.count),
            None => sum.rules.push(RuleCount { identity, ..rule.clone() }),
        }
    }
    for fired in &counts.detections {
        match sum.detections.iter_mut().find(|known| known.detector == fired.detector) {
            Some(known) => known.times += fired.times,
            None => sum.detections.push(fired.clone()),
        }
    }
}

fn same(one: &DropCount, other: &DropCount) -> bool {
    (&one.reason, &one.direction) == (&other.reason, &other.direction)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath_view::{DetectionCount, FlowsBegun};

    fn counts(packets: u64) -> SegmentCounts {
        let count = Count { packets, bytes: packets * 100 };
        SegmentCounts {
            ingress: count,
            flows: FlowsBegun { ingress: packets, egress: 0 },
            drops: vec![DropCount { reason: "spoof".into(), direction: "egress".into(), count }],
            rules: vec![RuleCount {
                rule: 3,
                identity: packets,
                baseline: false,
                direction: "ingress".into(),
                count,
                would_drop: 0,
            }],
            detections: vec![DetectionCount { detector: "land".into(), times: packets }],
            ..SegmentCounts::default()
        }
    }

    fn look(of: &[(u32, u64)]) -> Everybody {
        Everybody {
            counts: of.iter().map(|(segment, packets)| (SegmentId(*segment), counts(*packets))).collect(),
            handshakes: Some(
                of.iter().map(|(segment, packets)| (SegmentId(*segment), vec![0, *packets])).collect(),
            ),
        }
    }

    /// Every sum of a look.
    fn sums((sum, handshakes): (SegmentCounts, Option<Vec<u64>>)) -> [u64; 6] {
        [
            sum.ingress.packets,
            sum.flows.ingress,
            sum.drops.iter().map(|drop| drop.count.packets).sum(),
            sum.rules.iter().map(|rule| rule.count.packets).sum(),
            sum.detections.iter().map(|fired| fired.times).sum(),
            handshakes.unwrap().iter().sum(),
        ]
    }

    #[test]
    fn sums_do_not_fall_when_somebody_goes() {
        let mut total = Total::default();
        assert_eq!(sums(total.add(look(&[(1, 5), (2, 1_000)]))), [1_005; 6]);
        assert_eq!(sums(total.add(look(&[(1, 6)]))), [1_006; 6], "the second went");
        assert_eq!(sums(total.add(look(&[(1, 7), (2, 3)]))), [1_010; 6], "another one has its place");
        assert_eq!(
            sums(total.add(look(&[(1, 2), (2, 3)]))),
            [1_012; 6],
            "the first was exchanged between two looks"
        );
        for _ in 0..10 {
            total.add(look(&[(3, 1)]));
            total.add(look(&[]));
        }
        let (sum, _) = total.add(look(&[]));
        assert_eq!((sum.ingress.packets, sum.rules.len(), sum.drops.len()), (1_022, 1, 1));
    }
}
