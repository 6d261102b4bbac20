//! What is counted of an interface while it is on one side of an experiment.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use hub_common::event::Reason;

use crate::datapath_view::SegmentCounts;

/// Reasons for which packets are refused that would begin a flow.
const REFUSING: [Reason; 6] = [
    Reason::Protocol,
    Reason::RuleDeny,
    Reason::RuleReject,
    Reason::DefaultDeny,
    Reason::ConnectionLimit,
    Reason::FlowRate,
];

/// The counters of an interface at a moment, both directions together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reading {
    /// Packets that passed.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets that were dropped.
    pub dropped: u64,
    /// Those of them that would have begun a flow.
    pub refused: u64,
    /// Flows that began.
    pub flows: u64,
    /// Handshakes of TCP that were timed.
    pub handshakes: u64,
    /// Sum of their times in microseconds.
    pub handshake_us: u64,
    /// Handshakes by time: element N took less than 2^N microseconds and no less than those before.
    pub handshake_buckets: Vec<u64>,
    /// TCP segments that its host sent, and sent again, where that can be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segments: Option<[u64; 2]>,
}

impl From<&SegmentCounts> for Reading {
    fn from(counts: &SegmentCounts) -> Self {
        let refusing = REFUSING.map(Reason::name);
        let refused = counts.drops.iter().filter(|drop| refusing.contains(&&*drop.reason));
        let times = counts.handshakes.clone().unwrap_or_default();
        Self {
            packets: counts.ingress.packets + counts.egress.packets,
            bytes: counts.ingress.bytes + counts.egress.bytes,
            dropped: counts.ingress_dropped.packets + counts.egress_dropped.packets,
            refused: refused.map(|drop| drop.count.packets).sum(),
            flows: counts.flows.ingress + counts.flows.egress,
            handshakes: times.count,
            handshake_us: times.sum_us,
            handshake_buckets: times.buckets,
            segments: None,
        }
    }
}

/// What was counted of one interface, or of all of a side.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Totals {
    /// For how long, in milliseconds; of a side the sum over its interfaces.
    pub observed_ms: u64,
    /// Packets that passed, both directions together.
    pub packets: u64,
    /// Their bytes, from the IP header on.
    pub bytes: u64,
    /// Packets that were dropped.
    pub dropped: u64,
    /// Those of them that would have begun a flow, and were refused by rules or limits.
    pub refused: u64,
    /// Flows that began.
    pub flows: u64,
    /// Handshakes of TCP that were timed: those of connections that are tracked.
    pub handshakes: u64,
    /// Sum of their times in microseconds.
    pub handshake_us: u64,
    /// Handshakes by time: element N took less than 2^N microseconds and no less than those before.
    pub handshake_buckets: Vec<u64>,
    /// TCP segments that hosts sent for the first time: of interfaces with a namespace to themselves.
    pub segments: u64,
    /// Those that they sent again.
    pub segments_again: u64,
    /// Looks at the interface's checks.
    pub rounds: u64,
    /// Those of them at which one had failed.
    pub rounds_failed: u64,
}

impl Totals {
    /// Adds the difference of two readings. A counter that went back began anew at nothing.
    pub(super) fn add(&mut self, now: &Reading, before: &Reading, time: SignedDuration, fails: bool) {
        let anew = now.packets < before.packets || now.bytes < before.bytes || now.flows < before.flows;
        let nothing = Reading::default();
        let earlier_segments = before.segments;
        let before = if anew { &nothing } else { before };
        let grown = |of: fn(&Reading) -> u64| of(now).saturating_sub(of(before));
        // Whether they can be told may change; their counters go with the host, not with the data path's.
        let told = now.segments.zip(earlier_segments);
        let [segments, segments_again] =
            told.map_or([0; 2], |([sent, again], [sent_before, again_before])| {
                [sent.saturating_sub(sent_before), again.saturating_sub(again_before)]
            });
        let earlier = before.handshake_buckets.iter().copied().chain(std::iter::repeat(0));
        let buckets = now.handshake_buckets.iter().zip(earlier);
        self.join(&Self {
            observed_ms: u64::try_from(time.as_millis()).unwrap_or_default(),
            packets: grown(|it| it.packets),
            bytes: grown(|it| it.bytes),
            dropped: grown(|it| it.dropped),
            refused: grown(|it| it.refused),
            flows: grown(|it| it.flows),
            handshakes: grown(|it| it.handshakes),
            handshake_us: grown(|it| it.handshake_us),
            handshake_buckets: buckets.map(|(now, before)| now.saturating_sub(before)).collect(),
            segments,
            segments_again,
            rounds: 1,
            rounds_failed: u64::from(fails),
        });
    }

    fn join(&mut self, more: &Self) {
        self.observed_ms += more.observed_ms;
        self.packets += more.packets;
        self.bytes += more.bytes;
        self.dropped += more.dropped;
        self.refused += more.refused;
        self.flows += more.flows;
        self.handshakes += more.handshakes;
        self.handshake_us += more.handshake_us;
        let length = self.handshake_buckets.len().max(more.handshake_buckets.len());
        self.handshake_buckets.resize(length, 0);
        self.handshake_buckets.iter_mut().zip(&more.handshake_buckets).for_each(|(sum, more)| *sum += more);
        self.segments += more.segments;
        self.segments_again += more.segments_again;
        self.rounds += more.rounds;
        self.rounds_failed += more.rounds_failed;
    }

    /// The sum of several.
    pub fn sum(all: &[&Self]) -> Self {
        let mut sum = Self::default();
        for one in all {
            sum.join(one);
        }
        sum
    }

    /// The bound in microseconds below which so many thousandths of the handshakes took.
    pub fn handshakes_below_us(&self, per_mille: u64) -> Option<u64> {
        let wanted = self.handshakes.saturating_mul(per_mille).div_ceil(1_000);
        let mut sum = 0;
        let bucket = self.handshake_buckets.iter().position(|count| {
            sum += count;
            sum >= wanted
        });
        let bucket = bucket.filter(|_| self.handshakes > 0)?;
        Some(1_u64.checked_shl(u32::try_from(bucket).ok()?).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath_view::{Count, DropCount};
    use crate::qos_view::HandshakeTimes;

    #[test]
    fn only_what_would_begin_a_flow_is_refused() {
        let drop = |reason: &'static str, packets| DropCount {
            reason: reason.into(),
            direction: "ingress".into(),
            count: Count { packets, bytes: 0 },
        };
        let counts = SegmentCounts {
            ingress: Count { packets: 1, bytes: 10 },
            egress: Count { packets: 2, bytes: 20 },
            egress_dropped: Count { packets: 7, bytes: 70 },
            drops: vec![drop("rule_deny", 3), drop("default_deny", 1), drop("spoof", 3)],
            handshakes: Some(HandshakeTimes { count: 2, sum_us: 6, ..HandshakeTimes::default() }),
            ..SegmentCounts::default()
        };
        let reading = Reading::from(&counts);
        assert_eq!((reading.packets, reading.bytes, reading.dropped, reading.refused), (3, 30, 7, 4));
        assert_eq!((reading.handshakes, reading.handshake_us), (2, 6));
    }

    #[test]
    fn what_was_sent_again_counts_from_the_first_time_that_it_is_told() {
        let reading = |segments| Reading { packets: 5, segments, ..Reading::default() };
        let mut totals = Totals::default();
        let second = SignedDuration::from_secs(1);
        let told = [None, Some([1_000, 50]), Some([1_100, 60]), None, Some([1_200, 61]), Some([1_210, 61])];
        for two in told.windows(2) {
            totals.add(&reading(two[1]), &reading(two[0]), second, false);
        }
        assert_eq!((totals.segments, totals.segments_again), (110, 10));
        totals.add(&reading(Some([3, 1])), &reading(Some([1_210, 61])), second, false);
        assert_eq!((totals.segments, totals.segments_again), (110, 10), "the host is another one");
    }

    #[test]
    fn differences_are_summed_and_a_counter_that_began_anew_counts_whole() {
        let reading = |packets, buckets: &[u64]| Reading {
            packets,
            handshakes: buckets.iter().sum(),
            handshake_buckets: buckets.to_vec(),
            ..Reading::default()
        };
        let mut totals = Totals::default();
        let second = SignedDuration::from_secs(1);
        totals.add(&reading(15, &[0, 3, 1]), &reading(10, &[0, 1]), second, false);
        assert_eq!((totals.packets, totals.handshake_buckets.clone()), (5, vec![0, 2, 1]));
        totals.add(&reading(4, &[0, 0, 0, 5]), &reading(15, &[0, 3, 1]), second, true);
        assert_eq!((totals.packets, totals.handshakes, totals.observed_ms), (9, 8, 2_000));
        assert_eq!((totals.rounds, totals.rounds_failed), (2, 1));
        assert_eq!((totals.handshakes_below_us(500), totals.handshakes_below_us(250)), (Some(8), Some(2)));
        assert_eq!(Totals::default().handshakes_below_us(500), None);
        let twice = Totals::sum(&[&totals, &totals]);
        assert_eq!((twice.packets, twice.handshake_buckets), (18, vec![0, 4, 2, 10]));
    }
}
