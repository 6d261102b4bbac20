//! Limits of rules: a packet is looked at when it is judged, and takes its part when it is let pass.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::helpers::bpf_ktime_get_ns;
use hub_common::event::Reason;
use hub_common::limit::{LIMIT_PACKETS, LIMIT_PER_SOURCE, Limit, LimitSource, TIME_PARTS};
use hub_common::outcome::{OUTCOME_NEW, Scratch};

use crate::atomic;
use crate::maps::{LIMIT_SOURCES, LIMITS};

/// Asks the limit in `slot` about the packet, for one side: a reason number, 0 to pass.
///
/// Limits of flows are asked about first packets only. Those of packets are asked about what goes the way of
/// the first one, and remembered with the flow.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_limited(scratch: *mut Scratch, side: u32, slot: u32) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return Reason::RateLimit as u32 };
    let Some(limit) = LIMITS.get_ptr_mut(slot) else { return Reason::RateLimit as u32 };
    // SAFETY: a live map value; only `full_at` is ever changed, and it is read as one word.
    let limit = unsafe { &*limit };
    let side = (side & 1) as usize;
    if !limit.has_rate() {
        return 0;
    }
    let per_packet = limit.flags & LIMIT_PACKETS != 0;
    if per_packet {
        scratch.outcome.limit[side] = slot as u16;
    }
    if scratch.outcome.direction != 0 || !(per_packet || scratch.outcome.flags & OUTCOME_NEW != 0) {
        return 0;
    }
    let full_at = if limit.flags & LIMIT_PER_SOURCE == 0 {
        // SAFETY: as above.
        unsafe { read_volatile(&raw const limit.full_at) }
    } else {
        let key = LimitSource { limit: slot, segment: 0, address: scratch.packet.source };
        // SAFETY: one word.
        unsafe { LIMIT_SOURCES.get(key) }.copied().unwrap_or(0)
    };
    // SAFETY: a helper without arguments.
    if !limit.has_room(full_at, unsafe { bpf_ktime_get_ns() }) {
        return Reason::RateLimit as u32;
    }
    scratch.outcome.take[side] = slot as u16;
    0
}

/// Takes a passing packet's part from the limit in `slot`.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_take(scratch: *const Scratch, slot: u32) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_ref() }) else { return 0 };
    let Some(limit) = LIMITS.get_ptr_mut(slot) else { return 0 };
    // SAFETY: a live map value; `full_at` is written as one word.
    let limit: &mut Limit = unsafe { &mut *limit };
    let cost = limit.cost_of(scratch.packets, scratch.bytes);
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() }.wrapping_mul(TIME_PARTS);
    if limit.flags & LIMIT_PER_SOURCE == 0 {
        advance(&mut limit.full_at, now, cost);
        return 1;
    }
    let key = LimitSource { limit: slot, segment: 0, address: scratch.packet.source };
    match LIMIT_SOURCES.get_ptr_mut(key) {
        // SAFETY: a live map value; one word.
        Some(full_at) => advance(unsafe { &mut *full_at }, now, cost),
        None => {
            // The least recently seen source makes room.
            LIMIT_SOURCES.insert(key, now + cost, 0).ok();
        }
    }
    1
}

/// Moves a bucket on. Two CPUs that find it full at once take one part in place of two.
#[inline(always)]
fn advance(full_at: &mut u64, now: u64, cost: u64) {
    // SAFETY: one word of a live map value.
    if unsafe { read_volatile(&raw const *full_at) } < now {
        // SAFETY: as above.
        unsafe { write_volatile(&raw mut *full_at, now + cost) };
    } else {
        atomic::add(full_at, cost);
    }
}
