//! Counters and events.

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use hub_common::event::{
    EVENT_DETECT, EVENT_DROP, EVENT_LOG, EVENT_TRACE, EVENT_WOULD_DROP, Event, REASON_SLOTS, Reason,
};
use hub_common::outcome::{OUTCOME_LOG, Outcome, Scratch};
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
                scratch.outcome.reason = reason;
                event(scratch, EVENT_WOULD_DROP, 0, 0);
                scratch.outcome.reason = 0;
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
        event(scratch, EVENT_DROP, 0, 0);
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

/// Reports a passed packet that a rule with `log` matched.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_log_pass(scratch: *mut Scratch) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return 0 };
    event(scratch, EVENT_LOG, 0, 0);
    0
}

/// Reports the packet at which a detector fired.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_detected(scratch: *mut Scratch, detector: u32, response: u32) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return 0 };
    event(scratch, EVENT_DETECT, detector as u8, response as u8);
    0
}

#[inline(always)]
fn event(scratch: &Scratch, kind: u8, detector: u8, response: u8) {
    let mut record = record(scratch, kind, kind != EVENT_LOG);
    record.detector = detector;
    record.response = response;
    if EVENTS.output(record, BPF_RB_NO_WAKEUP).is_err() {
        event_lost(scratch.hook);
    }
}

/// Reports a packet to traces. Returns whether the ring had room.
#[inline(always)]
pub(crate) fn traced(scratch: &Scratch, dropped: bool, traced: u32) -> bool {
    let mut record = record(scratch, EVENT_TRACE, dropped);
    record.traced = traced;
    EVENTS.output(record, BPF_RB_NO_WAKEUP).is_ok()
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

#[inline(always)]
fn record(scratch: &Scratch, kind: u8, dropped: bool) -> Event {
    let (packet, outcome) = (&scratch.packet, &scratch.outcome);
    let side = deciding_side(outcome);
    let icmp = packet.protocol == protocol::ICMP || packet.protocol == protocol::ICMPV6;
    Event {
        // SAFETY: a helper without arguments.
        time_ns: unsafe { bpf_ktime_get_boot_ns() },
        source: packet.source,
        target: packet.target,
        source_port: packet.source_port,
        target_port: packet.target_port,
        ifindex: scratch.ingress_ifindex,
        length_bytes: packet.length_bytes,
        reason: if dropped { outcome.reason } else { 0 },
        rule: outcome.rule[side],
        source_segment: if outcome.direction == 0 { outcome.segment[0] } else { outcome.segment[1] },
        target_segment: if outcome.direction == 0 { outcome.segment[1] } else { outcome.segment[0] },
        policy: outcome.policy[side],
        hook: scratch.hook as u8,
        protocol: packet.protocol,
        kind,
        detail: if icmp { packet.icmp_type } else { packet.tcp_flags },
        detector: 0,
        response: 0,
        pad: [0; 3],
        traced: 0,
    }
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
