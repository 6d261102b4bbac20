//! Fragments: the first decides and leaves its ports, later ones follow it.

use hub_common::outcome::Scratch;
use hub_common::packet::{PACKET_FRAGMENT_FIRST, PACKET_FRAGMENT_LATER};

use crate::maps::FRAGMENTS;

/// Ticks that a first fragment is remembered: 30 s at 250 ticks a second, at least 7 s at any rate.
const REMEMBER_TICKS: u64 = 7_500;

/// Gives a later fragment its ports; false where its first fragment is unknown.
#[inline(always)]
pub(crate) fn complete(scratch: &mut Scratch) -> bool {
    if !scratch.packet.has(PACKET_FRAGMENT_LATER) {
        return true;
    }
    // SAFETY: the value is copied field by field; entries are replaced whole, never edited in place.
    let Some(first) = (unsafe { FRAGMENTS.get(scratch.packet.fragment_key()) }) else { return false };
    if scratch.tick > first.until_tick {
        return false;
    }
    scratch.packet.take_ports(first);
    true
}

/// Remembers the ports of a first fragment, for those that follow.
#[inline(always)]
pub(crate) fn remember(scratch: &Scratch) {
    if scratch.packet.has(PACKET_FRAGMENT_FIRST) {
        let ports = scratch.packet.fragment_ports(scratch.tick + REMEMBER_TICKS);
        // A full table forgets the oldest; a lost entry drops later fragments, which is counted there.
        FRAGMENTS.insert(scratch.packet.fragment_key(), ports, 0).ok();
    }
}
