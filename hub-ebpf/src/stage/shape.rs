//! Quality of service: the cap, when a packet may leave, and which class and code point it gets.
//!
//! Runs where a packet is allowed and nothing was counted yet, only for segments with `SEGMENT_SHAPED`, and
//! on TC alone: XDP leaves such packets to it, because a redirect by XDP bypasses the queues.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use hub_common::event::Reason;
use hub_common::outcome::Scratch;
use hub_common::rule::RULE_NONE;
use hub_common::segment::{PORT_TUNNEL, SEGMENT_SHAPED, policy_slot};
use hub_common::shape::{EGRESS, INGRESS, Shape, admit, behind_ns, burst_of, cost_ns, leaf};

use crate::atomic;
use crate::maps::{POLICERS, POLICIES, RULES, SEGMENTS, SHAPES};
use crate::report::refuse;

/// Attempts to enter a packet into a cap that other CPUs write as well.
const ATTEMPTS: u32 = 8;

/// Judges a packet by the caps of its sender and its receiver, and sets `class`, `dscp` and `departure_ns`.
/// Returns a reason number, 0 to pass.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_shape(scratch: *mut Scratch) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return Reason::Internal as u32 };
    // What encrypts it makes a packet of the segment from it, which is held to the cap.
    if scratch.port.flags & PORT_TUNNEL != 0 {
        return 0;
    }
    let reply = scratch.outcome.direction != 0;
    // VERIFIER(6.18): an index that was only compared is not bounded; constants are.
    let sent = if reply {
        hub_shape_side(scratch, 1, EGRESS as u32)
    } else {
        hub_shape_side(scratch, 0, EGRESS as u32)
    };
    if sent != 0 {
        return sent;
    }
    if reply {
        hub_shape_side(scratch, 0, INGRESS as u32)
    } else {
        hub_shape_side(scratch, 1, INGRESS as u32)
    }
}

/// As [`hub_shape`], for the segment on one side of the flow, which sends (`EGRESS`) or receives.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_shape_side(scratch: *mut Scratch, side: u32, direction: u32) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return Reason::Internal as u32 };
    let (side, direction) = ((side & 1) as usize, (direction & 1) as usize);
    let id = scratch.outcome.segment[side];
    let Some(shape) = shape_of(id, scratch.outcome.policy[side]) else { return 0 };
    let (dscp, priority) = marks(scratch, shape, side);
    let (cost, class) = (shape.cost[direction], shape.class[direction]);
    if cost != 0 {
        let (cost_ns, burst_ns) = (cost_ns(cost, scratch.bytes), shape.burst_ns[direction]);
        let waits = shape.paced >> direction & 1 != 0;
        let behind_ns = if waits {
            burst_ns
        } else if class != 0 {
            behind_ns(burst_of(burst_ns, priority), cost_ns)
        } else {
            behind_ns(burst_ns, cost_ns)
        };
        let departure = enter(id, direction, cost_ns, behind_ns);
        if departure == NEVER {
            refuse(&mut scratch.outcome, Reason::Policed, id, direction == EGRESS);
            // It is the cap that refuses, no rule.
            scratch.outcome.rule = [RULE_NONE; 2];
            return Reason::Policed as u32;
        }
        // Of the sender's time and the receiver's the later one holds.
        if waits && departure > scratch.departure_ns {
            scratch.departure_ns = departure;
        }
    }
    if dscp != 0 {
        scratch.dscp = u32::from(dscp);
    }
    // The sender's class was set before; the slower of the two holds.
    if class != 0 && (scratch.class == 0 || shape.rate_bps[direction] <= scratch.class_bps) {
        scratch.class = u32::from(leaf(class, priority));
        scratch.class_bps = shape.rate_bps[direction];
    }
    0
}

#[inline(always)]
fn shape_of(id: u32, word: u32) -> Option<&'static Shape> {
    if id == 0 || SEGMENTS.get(id)?.flags & SEGMENT_SHAPED == 0 {
        return None;
    }
    SHAPES.get(policy_slot(word))
}

/// Instead of a time: the packet does not fit.
const NEVER: u64 = 0;

/// Enters a packet into a cap if it fits; the time at which the cap lets it go, or [`NEVER`].
#[inline(always)]
fn enter(id: u32, direction: usize, cost_ns: u64, behind_ns: u64) -> u64 {
    let Some(policer) = POLICERS.get_ptr_mut(id) else { return NEVER };
    // SAFETY: a map value; other CPUs write the word only by exchange.
    let policer = unsafe { &mut *policer };
    let next = if direction == EGRESS { &mut policer.next_ns[1] } else { &mut policer.next_ns[0] };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let mut attempt = 0;
    while attempt < ATTEMPTS {
        let seen = atomic::read(next);
        let Some(after) = admit(seen, now, cost_ns, behind_ns) else { return NEVER };
        if atomic::exchange(next, seen, after) {
            return after.wrapping_sub(cost_ns);
        }
        attempt += 1;
    }
    // Others were faster each time, so the cap is in use: nothing is entered twice, nothing passes free.
    NEVER
}

/// Code point plus 1 and class of traffic: the rule's that admitted the flow, else the persona's.
#[inline(always)]
fn marks(scratch: &Scratch, shape: &Shape, side: usize) -> (u8, u8) {
    let (mut dscp, mut priority) = (shape.dscp, shape.priority);
    let slot = scratch.outcome.rule[side];
    if shape.has_rules == 0 || slot == RULE_NONE {
        return (dscp, priority);
    }
    let Some(policy) = POLICIES.get(policy_slot(scratch.outcome.policy[side])) else {
        return (dscp, priority);
    };
    let (first, count) = if side == 0 {
        (policy.egress_first, policy.egress_count)
    } else {
        (policy.ingress_first, policy.ingress_count)
    };
    // A flow that outlived its policy names a slot that may be another persona's by now.
    if slot.wrapping_sub(first) < count
        && let Some(rule) = RULES.get(slot)
    {
        if rule.dscp != 0 {
            dscp = rule.dscp;
        }
        if rule.priority != 0 {
            priority = rule.priority.wrapping_sub(1);
        }
    }
    (dscp, priority)
}
