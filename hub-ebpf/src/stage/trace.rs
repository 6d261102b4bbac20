//! Traces: shows a packet with its verdict to whoever asked. Runs last and changes no decision.

use hub_common::outcome::{OUTCOME_ESTABLISHED, OUTCOME_NEW, OUTCOME_REJECT, Scratch, VERDICT_DROP};
use hub_common::trace::{
    TRACE_EVENTS_PER_TICK, TRACE_SLOTS, TRACED_ESTABLISHED, TRACED_NEW, TRACED_REJECT, TRACED_REPLY,
    TRACED_SENDER_RULE, TRACED_VERDICT_SHIFT,
};

use crate::maps::{TRACE_GATES, TRACES};
use crate::report;

/// Reports the packet to the traces that it matches.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_trace(scratch: *mut Scratch, verdict: u32) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return 0 };
    let dropped = verdict == VERDICT_DROP;
    let (mut slots, mut slot) = (0, 0);
    while slot < TRACE_SLOTS {
        slots |= hub_trace_slot(scratch, slot, u32::from(dropped));
        slot += 1;
    }
    if slots == 0 {
        return 0;
    }
    let outcome = &scratch.outcome;
    let passed = u32::from(!dropped);
    let bit = |flag: u32| u32::from(outcome.flags & flag != 0);
    let traced = slots
        | (verdict << TRACED_VERDICT_SHIFT)
        | ((bit(OUTCOME_ESTABLISHED) & passed) * TRACED_ESTABLISHED)
        | ((bit(OUTCOME_NEW) & passed) * TRACED_NEW)
        | (bit(OUTCOME_REJECT) * TRACED_REJECT)
        | ((outcome.direction & 1) * TRACED_REPLY)
        | (u32::from(report::deciding_side(outcome) == 0) * TRACED_SENDER_RULE);
    if !report::traced(scratch, dropped, traced) {
        let mut slot = 0;
        while slot < TRACE_SLOTS {
            hub_trace_lost(slots, slot);
            slot += 1;
        }
    }
    0
}

/// Counts an event that the ring had no room for, if it was one of this slot's.
///
/// VERIFIER(6.18): as in [`hub_trace_slot`]; here the bits of `slots` would become known one by one.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_trace_lost(slots: u32, slot: u32) -> u32 {
    if slots >> (slot & 31) & 1 == 1
        && let Some(gate) = TRACE_GATES.get_ptr_mut(slot)
    {
        // SAFETY: a per-CPU element; only this CPU writes it.
        unsafe { (*gate).lost += 1 };
    }
    0
}

/// The slot's bit if the packet matches its filter and may be reported in this tick, else 0.
///
/// VERIFIER(6.18): a function of its own, whose answer may be any number. A branch in the loop would be
/// walked for every set of slots: 340,000 instructions.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_trace_slot(scratch: *mut Scratch, slot: u32, dropped: u32) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return 0 };
    if scratch.traces >> (slot & 31) & 1 == 0 {
        return 0;
    }
    let Some(filter) = TRACES.get(slot) else { return 0 };
    let [a, b] = scratch.outcome.segment;
    if !filter.matches(&scratch.packet, [a, b, scratch.outcome.blame], dropped != 0, scratch.tick) {
        return 0;
    }
    let Some(gate) = TRACE_GATES.get_ptr_mut(slot) else { return 0 };
    // SAFETY: a per-CPU element; only this CPU writes it.
    let gate = unsafe { &mut *gate };
    gate.matched += 1;
    if gate.tick != scratch.tick {
        gate.tick = scratch.tick;
        gate.events = 0;
    }
    if gate.events >= TRACE_EVENTS_PER_TICK {
        gate.lost += 1;
        return 0;
    }
    gate.events += 1;
    1 << (slot & 31)
}
