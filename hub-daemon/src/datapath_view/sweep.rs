//! Counters of all personas at one moment, as sweeps over the maps find them.
//!
//! They lie by segment number, one kind behind the other: who has very many personas reads them in order,
//! and neither searches nor allocates for each. [`Sweep::get`] puts those of one persona together.

use std::collections::BTreeMap;

use super::{Count, DetectionCount, DropCount, FlowTable, FlowsBegun, RuleCount, SegmentCounts};
use crate::model::SegmentId;
use crate::qos_view::HandshakeTimes;

/// What is in the flow table at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowCounts {
    /// How full it is.
    pub table: FlowTable,
    /// Connections by persona; one between two personas counts for each.
    pub personas: BTreeMap<SegmentId, u64>,
}

/// Counters of every persona.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    /// By segment number; segments that no persona has are not `known`.
    totals: Vec<Totals>,
    rules: Vec<RuleCount>,
    drops: Vec<(SegmentId, DropCount)>,
    would_drop: Vec<(SegmentId, DropCount)>,
    detections: Vec<(SegmentId, DetectionCount)>,
    handshakes: Vec<(SegmentId, HandshakeTimes)>,
}

/// What every segment has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    known: bool,
    /// Passed towards members and from them, dropped on the way to members and from them.
    pub(crate) packets: [Count; 4],
    pub(crate) flows: FlowsBegun,
    /// Its part of all rules: from here on, so many.
    rules: (u32, u32),
}

impl Sweep {
    /// Nothing of these segments yet.
    pub(crate) fn new(segments: impl IntoIterator<Item = SegmentId>) -> Self {
        let mut sweep = Self::default();
        for segment in segments {
            sweep.admit(segment).known = true;
        }
        sweep
    }

    fn admit(&mut self, segment: SegmentId) -> &mut Totals {
        let index = segment.0 as usize;
        if self.totals.len() <= index {
            self.totals.resize(index + 1, Totals::default());
        }
        self.totals.get_mut(index).expect("the list was made long enough")
    }

    /// How many numbers have to be read to see all segments.
    pub(crate) fn span(&self) -> u32 {
        u32::try_from(self.totals.len()).unwrap_or(u32::MAX)
    }

    /// What every segment has, of this one.
    pub(crate) fn totals(&self, segment: SegmentId) -> Option<&Totals> {
        self.totals.get(segment.0 as usize).filter(|totals| totals.known)
    }

    pub(crate) fn totals_mut(&mut self, segment: SegmentId) -> Option<&mut Totals> {
        self.totals.get_mut(segment.0 as usize).filter(|totals| totals.known)
    }

    pub(crate) fn drop_of(&mut self, segment: SegmentId, count: DropCount) {
        self.drops.push((segment, count));
    }

    pub(crate) fn would_drop_of(&mut self, segment: SegmentId, count: DropCount) {
        self.would_drop.push((segment, count));
    }

    pub(crate) fn detection_of(&mut self, segment: SegmentId, count: DetectionCount) {
        self.detections.push((segment, count));
    }

    pub(crate) fn handshakes_of(&mut self, segment: SegmentId, times: HandshakeTimes) {
        self.handshakes.push((segment, times));
    }

    /// Lets `fill` add the rules of a segment.
    pub(crate) fn rules_of(&mut self, segment: SegmentId, fill: impl FnOnce(&mut Vec<RuleCount>)) {
        let first = self.rules.len();
        fill(&mut self.rules);
        let length = self.rules.len() - first;
        if let (Some(totals), Ok(first), Ok(length)) =
            (self.totals_mut(segment), u32::try_from(first), u32::try_from(length))
        {
            totals.rules = (first, length);
        }
    }

    /// Puts everything in order; to be called once all was added.
    pub(crate) fn sort(&mut self) {
        for drops in [&mut self.drops, &mut self.would_drop] {
            drops.sort_by(|(one, a), (other, b)| {
                (one, &a.reason, &a.direction).cmp(&(other, &b.reason, &b.direction))
            });
        }
        self.detections.sort_by(|(one, a), (other, b)| (one, &a.detector).cmp(&(other, &b.detector)));
        self.handshakes.sort_by_key(|(segment, _)| *segment);
    }

    /// Its rules.
    pub(crate) fn rules(&self, totals: &Totals) -> &[RuleCount] {
        let (first, length) = totals.rules;
        self.rules.get(first as usize..(first as usize + length as usize)).unwrap_or_default()
    }

    pub(crate) fn drops(&self, segment: SegmentId) -> &[(SegmentId, DropCount)] {
        of(&self.drops, segment)
    }

    pub(crate) fn would_drop(&self, segment: SegmentId) -> &[(SegmentId, DropCount)] {
        of(&self.would_drop, segment)
    }

    pub(crate) fn detections(&self, segment: SegmentId) -> &[(SegmentId, DetectionCount)] {
        of(&self.detections, segment)
    }

    pub(crate) fn handshakes(&self, segment: SegmentId) -> Option<&HandshakeTimes> {
        of(&self.handshakes, segment).first().map(|(_, times)| times)
    }

    /// Segments of personas, in order.
    pub fn segments(&self) -> impl Iterator<Item = SegmentId> {
        let known = (0..).zip(&self.totals).filter(|(_, totals)| totals.known);
        known.map(|(segment, _)| SegmentId(segment))
    }

    /// All counters of one persona.
    pub fn get(&self, segment: SegmentId) -> Option<SegmentCounts> {
        let totals = self.totals(segment)?;
        let [ingress, egress, ingress_dropped, egress_dropped] = totals.packets;
        Some(SegmentCounts {
            ingress,
            egress,
            ingress_dropped,
            egress_dropped,
            drops: values(self.drops(segment)),
            would_drop: values(self.would_drop(segment)),
            rules: self.rules(totals).to_vec(),
            flows: totals.flows,
            detections: values(self.detections(segment)),
            handshakes: self.handshakes(segment).cloned(),
            queues: Vec::new(),
        })
    }
}

impl FromIterator<(SegmentId, SegmentCounts)> for Sweep {
    fn from_iter<T: IntoIterator<Item = (SegmentId, SegmentCounts)>>(all: T) -> Self {
        let mut sweep = Self::default();
        for (segment, counts) in all {
            let totals = sweep.admit(segment);
            totals.known = true;
            totals.packets = [counts.ingress, counts.egress, counts.ingress_dropped, counts.egress_dropped];
            totals.flows = counts.flows;
            sweep.rules_of(segment, |rules| rules.extend(counts.rules));
            sweep.drops.extend(counts.drops.into_iter().map(|count| (segment, count)));
            sweep.would_drop.extend(counts.would_drop.into_iter().map(|count| (segment, count)));
            sweep.detections.extend(counts.detections.into_iter().map(|count| (segment, count)));
            sweep.handshakes.extend(counts.handshakes.map(|times| (segment, times)));
        }
        sweep.sort();
        sweep
    }
}

/// Those of one segment, of a list in order of segments.
fn of<T>(list: &[(SegmentId, T)], segment: SegmentId) -> &[(SegmentId, T)] {
    let first = list.partition_point(|(other, _)| *other < segment);
    let rest = list.get(first..).unwrap_or_default();
    let length = rest.partition_point(|(other, _)| *other == segment);
    rest.get(..length).unwrap_or_default()
}

/// What lies in such a list, without the segment.
fn values<T: Clone>(list: &[(SegmentId, T)]) -> Vec<T> {
    list.iter().map(|(_, value)| value.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(packets: u64) -> SegmentCounts {
        let count = Count { packets, bytes: 100 * packets };
        let drop =
            |reason: &'static str| DropCount { reason: reason.into(), direction: "egress".into(), count };
        SegmentCounts {
            egress: count,
            drops: vec![drop("a"), drop("b")],
            rules: vec![RuleCount {
                identity: 0,
                rule: 3,
                baseline: false,
                direction: "ingress".into(),
                count,
                would_drop: 0,
            }],
            ..SegmentCounts::default()
        }
    }

    #[test]
    fn what_was_put_in_comes_out_by_segment() {
        let sweep: Sweep = [(SegmentId(9), counts(2)), (SegmentId(4), counts(1))].into_iter().collect();
        assert_eq!(sweep.segments().collect::<Vec<_>>(), [SegmentId(4), SegmentId(9)]);
        assert_eq!((sweep.get(SegmentId(4)), sweep.get(SegmentId(9))), (Some(counts(1)), Some(counts(2))));
        for nobody in [0, 5, 10] {
            assert_eq!(sweep.get(SegmentId(nobody)), None);
        }
    }
}
