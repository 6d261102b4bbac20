//! The last minute of counters that only grow.

use std::collections::VecDeque;
use std::time::Duration;

use hub_common::shape::Histogram;
use jiff::Timestamp;

/// What was counted is recent for so long.
const RECENT: Duration = Duration::from_mins(1);

/// The last looks at counters of one persona, or of all.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent<T> {
    looks: VecDeque<(Timestamp, T)>,
}

impl<T> Recent<T> {
    /// Adds a look. Looks of a later time are forgotten: the clock was set back.
    pub(super) fn add(&mut self, time: Timestamp, seen: T) {
        self.looks.retain(|(since, _)| *since <= time);
        self.looks.push_back((time, seen));
        let is_over =
            |since: Timestamp| Duration::try_from(time.duration_since(since)).is_ok_and(|past| past > RECENT);
        while self.looks.front().is_some_and(|(since, _)| is_over(*since)) {
            self.looks.pop_front();
        }
    }

    /// The first look and the last.
    pub(super) fn ends(&self) -> Option<(&T, &T)> {
        let ((_, first), (_, last)) = (self.looks.front()?, self.looks.back()?);
        Some((first, last))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.looks.len()
    }
}

/// Handshakes by time so far.
impl Recent<Vec<u64>> {
    /// Time within which this many of a thousand recent handshakes were done, in microseconds; nothing
    /// without any.
    pub(super) fn quantile_us(&self, per_mille: u64) -> Option<u64> {
        let (first, last) = self.ends()?;
        let mut recent = Histogram::ZERO;
        for (at, slot) in recent.buckets.iter_mut().enumerate() {
            let of = |buckets: &[u64]| buckets.get(at).copied().unwrap_or_default();
            // A number that fell belongs to a persona that came later.
            *slot = of(last).saturating_sub(of(first));
        }
        (recent.count() != 0).then(|| recent.quantile_us(per_mille))
    }
}
