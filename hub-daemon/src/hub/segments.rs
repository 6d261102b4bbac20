//! Numbers of segments: the lowest free one, and none again before it has rested.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::model::SegmentId;

/// Allocates the numbers from 1 to below the size of the segment table.
#[derive(Clone, Debug)]
pub(super) struct Segments {
    size: u32,
    /// Every number from here on was never given out.
    next: u32,
    free: BTreeSet<SegmentId>,
    resting: BTreeMap<SegmentId, Timestamp>,
}

impl Segments {
    pub(super) fn new(size: u32) -> Self {
        Self { size, next: 1, free: BTreeSet::new(), resting: BTreeMap::new() }
    }

    /// Takes the lowest free number.
    pub(super) fn take(&mut self) -> Option<SegmentId> {
        if let Some(lowest) = self.free.pop_first() {
            return Some(lowest);
        }
        let fresh = (self.next < self.size).then_some(SegmentId(self.next))?;
        self.next += 1;
        Some(fresh)
    }

    /// Takes a number that was given out in an earlier run.
    pub(super) fn take_again(&mut self, segment: SegmentId) -> bool {
        if segment.0 == 0 || segment.0 >= self.size {
            return false;
        }
        while self.next <= segment.0 {
            self.free.insert(SegmentId(self.next));
            self.next += 1;
        }
        self.free.remove(&segment)
    }

    /// Gives a number back; it is free again at `until`.
    pub(super) fn rest(&mut self, segment: SegmentId, until: Timestamp) {
        self.resting.insert(segment, until);
    }

    /// Frees the numbers that have rested.
    pub(super) fn wake(&mut self, now: Timestamp) {
        let rested = self.resting.extract_if(.., |_, until| *until <= now);
        self.free.extend(rested.map(|(segment, _)| segment));
    }

    /// The clock was set: rests last as long as before.
    pub(super) fn shift(&mut self, by: jiff::SignedDuration) {
        for until in self.resting.values_mut() {
            *until = super::after(*until, by);
        }
    }

    /// Whether less than a quarter of the numbers can be given out.
    pub(super) fn are_scarce(&self) -> bool {
        let left = self.free.len() + self.size.saturating_sub(self.next) as usize;
        left < self.size as usize / 4
    }

    /// Numbers that rest, with their end.
    pub(super) fn resting(&self) -> &BTreeMap<SegmentId, Timestamp> {
        &self.resting
    }

    /// When the next number has rested.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.resting.values().min().copied()
    }
}
