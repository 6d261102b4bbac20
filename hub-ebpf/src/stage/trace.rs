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
    let mut slots = 0;
    let mut slot = 0;
    while slot < TRACE_SLOTS {
        if scratch.traces >> slot & 1 == 1 && hub_trace_slot(scratch, slot, u32::from(dropped)) != 0 {
            slots |= 1 << slot;
        }
        slot += 1;
    }
    if slots == 0 {
        return 0;
    }
    let outcome = &scratch.outcome;
    let mut traced = slots | verdict << TRACED_VERDICT_SHIFT;
    if !dropped && outcome.flags & OUTCOME_ESTABLISHED != 0 {
        traced |= TRACED_ESTABLISHED;
    }
    if !dropped && outcome.flags & OUTCOME_NEW != 0 {
        traced |= TRACED_NEW;
    }
    if outcome.flags & OUTCOME_REJECT != 0 {
        traced |= TRACED_REJECT;
    }
    if outcome.direction != 0 {
        traced |= TRACED_REPLY;
    }
    if report::deciding_side(outcome) == 0 {
        traced |= TRACED_SENDER_RULE;
    }
    if !report::traced(scratch, dropped, traced) {
        let mut slot = 0;
        while slot < TRACE_SLOTS {
            if slots >> slot & 1 == 1
                && let Some(gate) = TRACE_GATES.get_ptr_mut(slot)
            {
                // SAFETY: a per-CPU element; only this CPU writes it.
                unsafe { (*gate).lost += 1 };
            }
            slot += 1;
        }
    }
    0
}

/// Whether the packet matches the filter in a slot and may be reported in this tick: 1, else 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_trace_slot(scratch: *mut Scratch, slot: u32, dropped: u32) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return 0 };
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
    1
}
