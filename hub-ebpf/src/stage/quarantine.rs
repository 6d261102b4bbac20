//! Quarantine: addresses that a persona does not talk to for a while.

use hub_common::address::Address;
use hub_common::event::Reason;
use hub_common::outcome::Scratch;
use hub_common::packet::Packet;
use hub_common::segment::SEGMENT_QUARANTINE;
use hub_common::set::QuarantineKey;

use crate::maps::{QUARANTINE, SEGMENTS};
use crate::report::refuse;

/// Refuses a packet of which one end is in quarantine for the persona of either.
#[inline(always)]
pub(crate) fn admit(scratch: &mut Scratch) -> Result<(), Reason> {
    let mut side = 0;
    while side < 2 {
        let id = scratch.outcome.segment[side];
        let asks = id != 0 && SEGMENTS.get(id).is_some_and(|segment| segment.flags & SEGMENT_QUARANTINE != 0);
        if asks && hub_isolated(&raw const scratch.packet, id, scratch.tick) != 0 {
            refuse(&mut scratch.outcome, Reason::Quarantine, id, side == 0);
            return Err(Reason::Quarantine);
        }
        side += 1;
    }
    Ok(())
}

/// Whether an end of the packet is in quarantine for the segment, or for all of them.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_isolated(packet: *const Packet, segment: u32, tick: u64) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(packet) = (unsafe { packet.as_ref() }) else { return 1 };
    let mut key = QuarantineKey { segment, pad: 0, address: packet.source };
    if until(&key) > tick {
        return 1;
    }
    key.segment = 0;
    if until(&key) > tick {
        return 1;
    }
    key.address = packet.target;
    if until(&key) > tick {
        return 1;
    }
    key.segment = segment;
    u32::from(until(&key) > tick)
}

#[inline(always)]
fn until(key: &QuarantineKey) -> u64 {
    // SAFETY: one word, which writers replace whole.
    unsafe { QUARANTINE.get(key) }.copied().unwrap_or(0)
}

/// Puts the source of the flow of a dropped packet into quarantine, if the rule that dropped it says so: its address
/// in the main view, by which packets are kept out.
#[inline(always)]
pub(crate) fn isolate(scratch: &Scratch) {
    let outcome = &scratch.outcome;
    if outcome.quarantine_ticks == 0 {
        return;
    }
    let until_tick = scratch.tick + u64::from(outcome.quarantine_ticks);
    let packet = &scratch.packet;
    let source = if outcome.direction == 0 { &packet.source } else { &packet.target };
    put(outcome.blame, source, until_tick);
}

/// Puts an address into a segment's quarantine. One that is there for longer stays as long: who was put there by
/// somebody else, or by something worse, does not get out by doing more.
#[inline(always)]
pub(crate) fn put(segment: u32, address: &Address, until_tick: u64) {
    let key = QuarantineKey { segment, pad: 0, address: *address };
    if until(&key) >= until_tick {
        return;
    }
    // A full table keeps nobody out; a rule still drops each packet that it matches.
    QUARANTINE.insert(key, until_tick, 0).ok();
}
