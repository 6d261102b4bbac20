//! How many connections sources have: what begins adds, what closes or is cut takes.

use std::net::IpAddr;

use super::{Flow, Model, State};

/// Segment, limit or none for all connections to its members, and source.
type Counted = (u32, Option<u16>, IpAddr);

impl Model {
    /// Whether a source has as many connections as it may.
    pub(super) fn is_crowded(&self, counted: Counted, most: i64) -> bool {
        self.connections.get(&counted).is_some_and(|count| *count >= most)
    }

    /// The counts that a flow is part of.
    fn counts_of(&self, flow: &Flow) -> Vec<Counted> {
        let source = flow.opener.source;
        let mut counts = Vec::new();
        if let Some(receiver) = flow.segments[1]
            && self.segments.get(&receiver).is_some_and(|segment| segment.connections.is_some())
        {
            counts.push((receiver, None, source));
        }
        for (segment, limit) in flow.segments.into_iter().zip(flow.counted) {
            if let (Some(segment), Some(limit)) = (segment, limit) {
                counts.push((segment, Some(limit), source));
            }
        }
        counts
    }

    /// A flow begins.
    pub(super) fn count(&mut self, flow: &Flow) {
        if flow.state != State::Closed {
            for counted in self.counts_of(flow) {
                *self.connections.entry(counted).or_default() += 1;
            }
        }
    }

    /// A flow that was not closed is over.
    pub(super) fn count_no_more(&mut self, flow: &Flow) {
        for counted in self.counts_of(flow) {
            if let Some(count) = self.connections.get_mut(&counted)
                && *count > 0
            {
                *count -= 1;
            }
        }
    }

    /// Counts of flows that are all too old to count.
    pub(super) fn forget_connections(&mut self) {
        self.connections.clear();
    }
}
