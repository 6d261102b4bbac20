//! Counters and events.

#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "what is lent needs no copy on the stack, which all callers share"
)]

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use hub_common::detect::Detector;
use hub_common::event::{
    DUE_DETECTED, DUE_DROP, DUE_LOG, DUE_WOULD_DROP, EVENT_DETECT, EVENT_DROP, EVENT_LOG, EVENT_TRACE,
    EVENT_WOULD_DROP, HEADER_BYTES, REASON_SLOTS, Reason,
};
use hub_common::outcome::{LOGGED, OUTCOME_LOG, Outcome, Scratch};
use hub_common::packet::protocol;
use hub_common::rule::RULE_NONE;
use hub_common::stats::{DropKey, Hits, HookTotals, WOULD_DROP};

use crate::maps::{COUNTERS, DROPS, EVENT_GATE, EVENTS, FLOWS_BEGUN, REASONS, RULE_HITS, RULES, TOTALS};
use crate::stage::quarantine;

/// Wake-ups are the reader's business: it polls.
const BPF_RB_NO_WAKEUP: u64 = 1;

/// Counts one packet in a hook's totals.
#[inline(always)]
pub(crate) fn total(hook: u32, count: impl FnOnce(&mut HookTotals)) {
    if let Some(totals) = TOTALS.get_ptr_mut(hook) {
        // SAFETY: a per-CPU element; only this CPU writes it, and the hook does not nest.
        let totals = unsafe { &mut *totals };
        totals.received += 1;
        count(totals);
    }
}

#[inline(always)]
fn hit(hits: &mut Hits, scratch: &Scratch) {
    hits.packets += u64::from(scratch.packets);
    hits.bytes += u64::from(scratch.bytes);
}

/// Counts a passed packet, `packets` of them on a wire, for the segments of its sender and receiver.
#[inline(always)]
pub(crate) fn passed((packets, bytes): (u32, u32), sender: u32, receiver: u32) {
    let add = |hits: &mut Hits| {
        hits.packets += u64::from(packets);
        hits.bytes += u64::from(bytes);
    };
    if sender != 0
        && let Some(counters) = COUNTERS.get_ptr_mut(sender)
    {
        // SAFETY: a per-CPU element; only this CPU writes it.
        add(unsafe { &mut (*counters).egress });
    }
    if receiver != 0
        && let Some(counters) = COUNTERS.get_ptr_mut(receiver)
    {
        // SAFETY: a per-CPU element; only this CPU writes it.
        add(unsafe { &mut (*counters).ingress });
    }
}

/// Counts a flow for the segments of its first sender and receiver.
#[inline(always)]
pub(crate) fn begun(sender: u32, receiver: u32) {
    if sender != 0
        && let Some(flows) = FLOWS_BEGUN.get_ptr_mut(sender)
    {
        // SAFETY: a per-CPU element; only this CPU writes it.
        unsafe { (*flows)[1] += 1 };
    }
    if receiver != 0
        && let Some(flows) = FLOWS_BEGUN.get_ptr_mut(receiver)
    {
        // SAFETY: a per-CPU element; only this CPU writes it.
        unsafe { (*flows)[0] += 1 };
    }
}

/// Counts the end of a connection for its segments.
#[inline(always)]
pub(crate) fn ended([a, b]: [u32; 2]) {
    let mut side = 0;
    while side < 2 {
        let id = if side == 0 { a } else { b };
        if id != 0
            && let Some(flows) = FLOWS_BEGUN.get_ptr_mut(id)
        {
            // SAFETY: a per-CPU element; only this CPU writes it.
            unsafe { (*flows)[2] += 1 };
        }
        side += 1;
    }
}

/// Counts a packet that the matcher judged by the rule in `slot`, and that would be dropped for a reason.
#[inline(always)]
pub(crate) fn rule_hit(scratch: &Scratch, slot: u32, would: u32) {
    if slot != RULE_NONE
        && let Some(rule) = RULES.get(slot)
        && let Some(hits) = RULE_HITS.get_ptr_mut(rule.counter)
    {
        // SAFETY: a per-CPU element; only this CPU writes it.
        let hits = unsafe { &mut *hits };
        hit(&mut hits.judged, scratch);
        if would != 0 {
            hits.would_drop += 1;
        }
    }
}

/// Counts a packet for the rules that reported it and went on.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_log_hits(scratch: *mut Scratch) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return 0 };
    let mut at = 0;
    while at < LOGGED {
        let counter = scratch.outcome.logged[at];
        if counter != RULE_NONE
            && let Some(hits) = RULE_HITS.get_ptr_mut(counter)
        {
            // SAFETY: a per-CPU element; only this CPU writes it.
            hit(unsafe { &mut (*hits).judged }, scratch);
        }
        at += 1;
    }
    0
}

/// Counts a passing packet that would be dropped if its personas' rules were enforced, and reports it if
/// nothing of the kind was reported in this tick.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_would_drop(scratch: *mut Scratch) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return 0 };
    let mut side = 0;
    while side < 2 {
        let reason = scratch.outcome.would[side];
        if reason != 0 {
            let direction = WOULD_DROP + u16::from(side == 0);
            let segment = scratch.outcome.segment[side];
            blame(DropKey { segment, reason: reason as u16, direction }, scratch);
            if gate(reason % REASON_SLOTS, scratch.tick) {
                scratch.due |= DUE_WOULD_DROP << side;
            }
        }
        side += 1;
    }
    0
}

/// Counts a drop everywhere it belongs, and reports it if asked or if nothing of the kind was reported
/// in this tick.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_count_drop(scratch: *mut Scratch) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return 0 };
    let outcome = &scratch.outcome;
    let reason = outcome.reason % REASON_SLOTS;
    if let Some(count) = REASONS.get_ptr_mut(scratch.hook * REASON_SLOTS + reason) {
        // SAFETY: a per-CPU element; only this CPU writes it.
        unsafe { *count += 1 };
    }
    rule_hit(scratch, outcome.rule[0], outcome.would[0]);
    rule_hit(scratch, outcome.rule[1], outcome.would[1]);
    if outcome.flags & OUTCOME_LOG != 0 {
        hub_log_hits(scratch);
    }
    let outcome = &scratch.outcome;
    if outcome.blame != 0 {
        dropped(scratch);
        let key = DropKey {
            segment: outcome.blame,
            reason: outcome.reason as u16,
            direction: outcome.blame_direction as u16,
        };
        blame(key, scratch);
        quarantine::isolate(scratch);
    }
    if outcome.flags & OUTCOME_LOG != 0 || gate(reason, scratch.tick) {
        scratch.due |= DUE_DROP;
    }
    0
}

#[inline(always)]
fn dropped(scratch: &Scratch) {
    let outcome = &scratch.outcome;
    if let Some(counters) = COUNTERS.get_ptr_mut(outcome.blame) {
        // SAFETY: a per-CPU element; only this CPU writes it.
        let counters = unsafe { &mut *counters };
        let side = if outcome.blame_direction == 0 {
            &mut counters.ingress_dropped
        } else {
            &mut counters.egress_dropped
        };
        hit(side, scratch);
    }
}

#[inline(always)]
fn blame(key: DropKey, scratch: &Scratch) {
    if let Some(hits) = DROPS.get_ptr_mut(key) {
        // SAFETY: a per-CPU element; only this CPU writes it.
        hit(unsafe { &mut *hits }, scratch);
        return;
    }
    let first = Hits { packets: u64::from(scratch.packets), bytes: u64::from(scratch.bytes) };
    if DROPS.insert(key, first, 0).is_err()
        && let Some(totals) = TOTALS.get_ptr_mut(scratch.hook)
    {
        // SAFETY: a per-CPU element; only this CPU writes it.
        unsafe { (*totals).drops_unattributed += 1 };
    }
}

/// Whether an event of this reason may be sampled in this tick.
#[inline(always)]
fn gate(reason: u32, tick: u64) -> bool {
    let Some(last) = EVENT_GATE.get_ptr_mut(reason) else { return false };
    // SAFETY: a per-CPU element; only this CPU writes it.
    let last = unsafe { &mut *last };
    let open = *last != tick;
    *last = tick;
    open
}

/// Whether a drop for this reason was reported in this tick, so that another would not be.
#[inline(always)]
pub(crate) fn is_told(reason: Reason, tick: u64) -> bool {
    // SAFETY: a per-CPU element; only this CPU writes it.
    EVENT_GATE.get_ptr(reason as u32).is_some_and(|last| unsafe { *last } == tick)
}

/// Where a packet's headers begin in its frame of so many bytes, and how many bytes of them an event has.
#[inline(always)]
pub(crate) fn headers(scratch: &Scratch, frame_bytes: u32) -> (u32, u32) {
    let packet = &scratch.packet;
    let at = u32::from(packet.l3_offset);
    let there = frame_bytes.saturating_sub(at);
    let end = u32::from(packet.l4_offset).wrapping_add(u32::from(packet.l4_bytes));
    // Payload is nobody's business, unless it is not known where it begins.
    let length = if scratch.parse_reason == 0 && end > at { there.min(end - at) } else { there };
    (at, length.min(HEADER_BYTES as u32))
}

/// The same length, if it is one that [`headers`] gives and not 0.
// VERIFIER(6.1): that a number is not 0 is forgotten; that it is a mask and one more is not.
#[inline(always)]
pub(crate) fn bounded(length: u32) -> u32 {
    const { assert!(HEADER_BYTES.is_power_of_two()) };
    (core::hint::black_box(length).wrapping_sub(1) & (HEADER_BYTES as u32 - 1)) + 1
}

/// Makes the events that are due; the headers are those that the working space has, as many bytes as given.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_events(scratch: *mut Scratch, header_bytes: u32) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return 0 };
    let (due, responses) = (scratch.due, scratch.responses);
    scratch.due = 0;
    scratch.responses = 0;
    scratch.event.header_bytes = header_bytes as u16;
    if due & DUE_LOG != 0 {
        hub_event(scratch, EVENT_LOG, 0, 0);
    }
    let mut side = 0;
    while side < 2 {
        if due & (DUE_WOULD_DROP << side) != 0 {
            hub_event(scratch, EVENT_WOULD_DROP, scratch.outcome.would[side], 0);
        }
        side += 1;
    }
    let reason = scratch.outcome.reason;
    if due & DUE_DROP != 0 {
        hub_event(scratch, EVENT_DROP, reason, 0);
    }
    let mut detector = 0;
    while detector < Detector::ALL.len() as u32 {
        if due & (DUE_DETECTED << detector) != 0 {
            let fired = detector | (responses >> (2 * detector) & 3) << 8;
            hub_event(scratch, EVENT_DETECT, reason, fired);
        }
        detector += 1;
    }
    0
}

/// Makes one event. `fired` is a detector and, 8 bits up, its response.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_event(scratch: *mut Scratch, kind: u8, reason: u32, fired: u32) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return 0 };
    let header_bytes = scratch.event.header_bytes;
    record(scratch, kind, reason);
    scratch.event.header_bytes = header_bytes;
    scratch.event.detector = fired as u8;
    scratch.event.response = (fired >> 8) as u8;
    if EVENTS.output(&scratch.event, BPF_RB_NO_WAKEUP).is_err() {
        event_lost(scratch.hook);
    }
    0
}

/// Notes that a detector fired at the packet.
#[inline(always)]
pub(crate) fn detected(scratch: &mut Scratch, detector: u32, response: u32) {
    scratch.due |= DUE_DETECTED << detector;
    scratch.responses |= (response & 3) << (2 * detector);
}

/// Reports a packet to traces. Returns whether the ring had room.
#[inline(always)]
pub(crate) fn traced(scratch: &mut Scratch, dropped: bool, traced: u32) -> bool {
    let reason = if dropped { scratch.outcome.reason } else { 0 };
    record(scratch, EVENT_TRACE, reason);
    scratch.event.traced = traced;
    EVENTS.output(&scratch.event, BPF_RB_NO_WAKEUP).is_ok()
}

#[inline(always)]
fn event_lost(hook: u32) {
    if let Some(totals) = TOTALS.get_ptr_mut(hook) {
        // SAFETY: a per-CPU element; only this CPU writes it.
        unsafe { (*totals).events_lost += 1 };
    }
}

/// The side whose rule decided: the receiver's rule is asked last.
#[inline(always)]
pub(crate) fn deciding_side(outcome: &Outcome) -> usize {
    usize::from(outcome.rule[1] != RULE_NONE || outcome.rule[0] == RULE_NONE)
}

/// Writes the working space's event, but for its headers.
#[inline(always)]
fn record(scratch: &mut Scratch, kind: u8, reason: u32) {
    let (packet, outcome, event) = (&scratch.packet, &scratch.outcome, &mut scratch.event);
    let side = deciding_side(outcome);
    let icmp = packet.protocol == protocol::ICMP || packet.protocol == protocol::ICMPV6;
    // SAFETY: a helper without arguments.
    event.time_ns = unsafe { bpf_ktime_get_boot_ns() };
    event.source = packet.source;
    event.target = packet.target;
    event.source_port = packet.source_port;
    event.target_port = packet.target_port;
    event.ifindex = scratch.ingress_ifindex;
    event.length_bytes = packet.length_bytes;
    event.reason = reason;
    event.rule = outcome.rule[side];
    event.source_segment = if outcome.direction == 0 { outcome.segment[0] } else { outcome.segment[1] };
    event.target_segment = if outcome.direction == 0 { outcome.segment[1] } else { outcome.segment[0] };
    event.policy = outcome.policy[side];
    event.hook = scratch.hook as u8;
    event.protocol = packet.protocol;
    event.kind = kind;
    event.detail = if icmp { packet.icmp_type } else { packet.tcp_flags };
    event.detector = 0;
    event.response = 0;
    event.header_bytes = 0;
    event.traced = 0;
}

/// Marks the outcome as a drop and says which side of which segment it is counted for.
#[inline(always)]
pub(crate) fn refuse(outcome: &mut Outcome, reason: Reason, segment: u32, from_members: bool) {
    outcome.reason = reason as u32;
    outcome.blame = segment;
    outcome.blame_direction = u32::from(from_members);
}

/// Counts a drop of a packet that was not parsed: nothing is known but the reason.
#[inline(always)]
pub(crate) fn bare_drop(hook: u32, reason: Reason) {
    if let Some(count) = REASONS.get_ptr_mut(hook * REASON_SLOTS + reason as u32) {
        // SAFETY: a per-CPU element; only this CPU writes it.
        unsafe { *count += 1 };
    }
    total(hook, |totals| totals.dropped += 1);
}
