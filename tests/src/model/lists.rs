//! Sets, quarantine and limits, searched from the front.

use std::net::IpAddr;

use hub_common::event::Reason;

use super::{Headers, Model, Prefix, Verdict, holds};

/// Whether the rules of a policy decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enforcement {
    /// They do.
    #[default]
    Enforce,
    /// They are asked, and everything passes.
    Audit,
    /// They are not asked.
    Off,
}

/// A prefix in a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element {
    /// First address.
    pub address: IpAddr,
    /// Leading bits that count.
    pub bits: u8,
    /// It is no longer in the set at this tick.
    pub until_tick: u64,
}

/// How much a rule lets pass in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Packets or flows; `u64::MAX` for any number.
    pub burst: u64,
    /// Every packet counts, not only the first of a flow.
    pub per_packet: bool,
    /// Each source has as much.
    pub per_source: bool,
    /// Connections that each source may have at once.
    pub connections: Option<i64>,
}

/// Whether the element holds the address.
pub fn contains(element: &Element, address: IpAddr) -> bool {
    holds(Prefix { address: element.address, bits: element.bits, segment: 0 }, address)
}

impl Model {
    /// Whether an address is in a set of a segment.
    pub(super) fn is_in(&self, segment: u32, set: u32, address: IpAddr, now: u64) -> bool {
        let elements = self.sets.get(&(segment, set));
        elements.into_iter().flatten().any(|element| contains(element, address) && now < element.until_tick)
    }

    /// Refuses a packet of which one end is in quarantine for the segment or for all.
    pub(super) fn isolated(&self, segment: u32, packet: &Headers, now: u64) -> Result<(), Verdict> {
        for key in [segment, 0].into_iter().flat_map(|of| [(of, packet.source), (of, packet.target)]) {
            if self.quarantine.get(&key).is_some_and(|until| now < *until) {
                return Err(Verdict::Drop(Reason::Quarantine));
            }
        }
        Ok(())
    }

    /// What a packet takes from a limit.
    pub(super) fn bucket(&self, slot: u16, source: IpAddr) -> (u16, Option<IpAddr>) {
        (slot, self.limits[&slot].per_source.then_some(source))
    }

    /// Whether a limit lets a packet from this source pass.
    pub(super) fn has_room(&self, slot: u16, source: IpAddr) -> bool {
        self.taken.get(&self.bucket(slot, source)).is_none_or(|taken| *taken < self.limits[&slot].burst)
    }

    pub(super) fn take(&mut self, bucket: (u16, Option<IpAddr>)) {
        *self.taken.entry(bucket).or_default() += 1;
    }
}
