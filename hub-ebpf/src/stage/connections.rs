//! How many connections each source has at once, with a persona and by a rule.
//!
//! Counts go up with the first packet of a flow, and down when TCP closes or rules cut it. Flows that end otherwise
//! are idle ones, and those that a full table of half-open connections forgot: the daemon counts the tables over
//! and over, and corrects. Two CPUs may let one connection more pass between them. A source that is not counted,
//! because the table of counts forgot it, passes.

use core::ptr::read_volatile;

use hub_common::address::Address;
use hub_common::event::Reason;
use hub_common::flow::{FLOW_TCP_CLOSED, Flow};
use hub_common::limit::LimitSource;
use hub_common::outcome::{OUTCOME_HALF_OPEN, OUTCOME_NEW, OUTCOME_REJECT, Scratch};
use hub_common::segment::{POLICY_DEFAULT_REJECT, Policy, SEGMENT_CONNECTIONS, policy_slot};

use crate::atomic;
use crate::maps::{CONNECTION_MAX, CONNECTIONS, FLOWS, FLOWS_NEW, LIMITS, POLICIES, SEGMENTS, own};
use crate::report;

/// Whether all connections to members of a segment are counted.
#[inline(always)]
fn is_counted(segment: u32) -> bool {
    segment != 0 && SEGMENTS.get(segment).is_some_and(|segment| segment.flags & SEGMENT_CONNECTIONS != 0)
}

/// Whether the first packet of a connection comes from a source that has as many of them with the receiver's
/// persona as it may: a reason number, 0 to pass.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_crowded(scratch: *mut Scratch) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return Reason::Internal as u32 };
    let (receiver, word) = (scratch.outcome.segment[1], scratch.outcome.policy[1]);
    let Some(segment) = SEGMENTS.get(receiver) else { return Reason::Internal as u32 };
    // A candidate has no say in it.
    if scratch.outcome.flags & OUTCOME_NEW == 0
        || segment.flags & SEGMENT_CONNECTIONS == 0
        || segment.word(scratch.tick) != word
    {
        return 0;
    }
    let Some(policy) = POLICIES.get(policy_slot(word)) else { return Reason::NoPolicy as u32 };
    // SAFETY: one word.
    let most = unsafe { CONNECTION_MAX.get(receiver) }.copied().unwrap_or(0);
    if most != 0 && is_full(scratch, 1, 0, most, policy) { Reason::ConnectionLimit as u32 } else { 0 }
}

/// Whether the first packet of a connection comes from a source that has as many of them as the limit in `slot` lets
/// it have: a reason number, 0 to pass. Notes that the limit counts the flow.
// VERIFIER(6.1): not part of `hub_limited`, whose stack is the last on the longest chain of calls.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_full(scratch: *mut Scratch, side: u32, slot: u32) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return Reason::Internal as u32 };
    let Some(limit) = LIMITS.get(slot) else { return Reason::Internal as u32 };
    let side = (side & 1) as usize;
    if limit.connections == 0 {
        return 0;
    }
    scratch.outcome.counted[side] = slot as u16;
    if scratch.outcome.flags & OUTCOME_NEW == 0 {
        return 0;
    }
    let Some(policy) = POLICIES.get(policy_slot(scratch.outcome.policy[side])) else {
        return Reason::NoPolicy as u32;
    };
    let full = is_full(scratch, side, slot, limit.connections, policy);
    if full { Reason::ConnectionLimit as u32 } else { 0 }
}

/// Whether the packet's source has so many connections. Notes that the sender is told, where the policy's default
/// action does.
#[inline(always)]
fn is_full(scratch: &mut Scratch, side: usize, limit: u32, most: u32, policy: &Policy) -> bool {
    let key =
        LimitSource { limit, segment: scratch.outcome.segment[side & 1], address: scratch.packet.source };
    // SAFETY: one word.
    let count = unsafe { CONNECTIONS.get(key) }.copied().unwrap_or(0);
    // Below zero when more ended than were counted to begin.
    if count.cast_signed() < i64::from(most) {
        return false;
    }
    if policy.flags & POLICY_DEFAULT_REJECT != 0 {
        scratch.outcome.flags |= OUTCOME_REJECT;
    }
    true
}

/// Counts the flow that was made for the packet.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_begun(scratch: *const Scratch) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_ref() }) else { return 0 };
    if scratch.flow.state != FLOW_TCP_CLOSED {
        count(&scratch.flow, &scratch.packet.source, 1);
    }
    0
}

/// Counts a flow no more, whose packet in `direction` is at hand.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_ended(scratch: *const Scratch, flow: *const Flow, direction: u32) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_ref() }) else { return 0 };
    // SAFETY: as above.
    let Some(flow) = (unsafe { flow.as_ref() }) else { return 0 };
    let packet = &scratch.packet;
    let source = if direction == 0 { &packet.source } else { &packet.target };
    count(flow, source, u64::MAX);
    report::ended(flow.segment);
    0
}

/// Removes the flow that the packet belongs to: its rules let it go on no longer.
// VERIFIER(6.18): a flow that came from either table would be two states of all that follows in the caller; here
// it is looked up anew.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_cut(scratch: *mut Scratch) -> u32 {
    let Some(scratch) = own(scratch) else { return 0 };
    let half_open = scratch.outcome.flags & OUTCOME_HALF_OPEN != 0;
    let flow = if half_open { FLOWS_NEW.get_ptr(scratch.key) } else { FLOWS.get_ptr(scratch.key) };
    if let Some(flow) = flow {
        // SAFETY: one byte of a live map value.
        if unsafe { (*flow).state } != FLOW_TCP_CLOSED {
            hub_ended(scratch, flow, scratch.outcome.direction);
        }
    }
    // Either table may hold an entry.
    FLOWS.remove(scratch.key).ok();
    FLOWS_NEW.remove(scratch.key).ok();
    0
}

/// Adds to the counts that a flow is part of.
#[inline(always)]
fn count(flow: &Flow, source: &Address, by: u64) {
    let [sender, receiver] = flow.segment;
    let [ours, theirs] = flow.counted;
    if is_counted(receiver) {
        add(LimitSource { limit: 0, segment: receiver, address: *source }, by);
    }
    if ours != 0 {
        add(LimitSource { limit: u32::from(ours), segment: sender, address: *source }, by);
    }
    if theirs != 0 {
        add(LimitSource { limit: u32::from(theirs), segment: receiver, address: *source }, by);
    }
}

#[inline(always)]
fn add(key: LimitSource, by: u64) {
    if let Some(count) = CONNECTIONS.get_ptr_mut(key) {
        // SAFETY: a live map value; one word.
        let count = unsafe { &mut *count };
        // SAFETY: as above.
        let before = unsafe { read_volatile(&raw const *count) };
        if by == 1 || before.cast_signed() > 0 {
            atomic::add(count, by);
        }
    } else if by == 1 {
        // Two CPUs that make it at once count one, until the daemon corrects.
        CONNECTIONS.insert(key, 1u64, 0).ok();
    }
}
