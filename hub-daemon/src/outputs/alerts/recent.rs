//! Handshakes of the last minute, out of counters that only grow.

use std::collections::VecDeque;
use std::time::Duration;

use hub_common::shape::Histogram;
use jiff::Timestamp;

/// Handshakes count for so long.
const RECENT: Duration = Duration::from_mins(1);

/// The last looks at the times of one persona's handshakes, or of all.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent {
    looks: VecDeque<(Timestamp, Vec<u64>)>,
}

impl Recent {
    /// Adds a look: handshakes by time so far. Looks of a later time are forgotten: the clock was set back.
    pub(super) fn add(&mut self, time: Timestamp, buckets: &[u64]) {
        self.looks.retain(|(since, _)| *since <= time);
        self.looks.push_back((time, buckets.to_vec()));
        let is_over =
            |since: Timestamp| Duration::try_from(time.duration_since(since)).is_ok_and(|past| past > RECENT);
        while self.looks.front().is_some_and(|(since, _)| is_over(*since)) {
            self.looks.pop_front();
        }
    }

    /// Time within which this many of a thousand recent handshakes were done, in microseconds; nothing
    /// without any.
    pub(super) fn quantile_us(&self, per_mille: u64) -> Option<u64> {
        let ((_, first), (_, last)) = (self.looks.front()?, self.looks.back()?);
        let mut recent = Histogram::ZERO;
        for (at, slot) in recent.buckets.iter_mut().enumerate() {
            let of = |buckets: &[u64]| buckets.get(at).copied().unwrap_or_default();
            // A number that fell belongs to a persona that came later.
            *slot = of(last).saturating_sub(of(first));
        }
        (recent.count() != 0).then(|| recent.quantile_us(per_mille))
    }
}
