//! Writes a decision down: the flow, its next hop, the counters. Nothing before this stage changes a map.

use core::ptr::write_volatile;

use hub_common::event::{Hook, Reason};
use hub_common::flow::{Flow, FlowKey, Hop, first_state};
use hub_common::outcome::{
    OUTCOME_AGED, OUTCOME_HALF_OPEN, OUTCOME_LOG, OUTCOME_NEW, OUTCOME_RELATED, OUTCOME_REOPEN,
    OUTCOME_RESTAMP, SCRATCH_REDIRECTABLE, Scratch, VERDICT_DEFER, VERDICT_DROP, VERDICT_REDIRECT,
    VERDICT_STACK,
};
use hub_common::segment::PORT_XDP_TARGET;

use crate::maps::{FLOWS, FLOWS_NEW, SETTINGS};
use crate::report;
use crate::stage::limit::hub_take;
use crate::stage::{flow, fragment, route};

/// Enters an allowed packet and says what becomes of it: one of `VERDICT_STACK`, `VERDICT_REDIRECT`,
/// `VERDICT_DROP` (the flow table is full) or `VERDICT_DEFER` (XDP cannot finish it, nothing was written).
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_commit(scratch: *mut Scratch) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return VERDICT_DROP };
    let flags = scratch.outcome.flags;
    let hop = scratch.outcome.hop;
    if route::is_xdp(scratch)
        && (flags & (OUTCOME_AGED | OUTCOME_RELATED) != 0
            || !route::xdp_may_send(scratch, &hop, PORT_XDP_TARGET))
    {
        return VERDICT_DEFER;
    }
    if flags & OUTCOME_RELATED == 0
        && let Some(reason) = Reason::from_number(hub_enter(scratch))
    {
        let [sender, receiver] = scratch.outcome.segment;
        let blame = if sender != 0 { sender } else { receiver };
        report::refuse(&mut scratch.outcome, reason, blame, sender != 0);
        return VERDICT_DROP;
    }
    // ICMP errors are too short to be cut up (RFC 1812 section 4.3.2.3, RFC 4443 section 2.4).
    if flags & OUTCOME_RELATED == 0 {
        fragment::remember(scratch);
    }
    let bytes = scratch.packet.length_bytes;
    let [a, b] = scratch.outcome.segment;
    if scratch.outcome.direction == 0 {
        report::passed(a, b, bytes);
    } else {
        report::passed(b, a, bytes);
    }
    let [ours, theirs] = scratch.outcome.take;
    if ours != 0 {
        hub_take(scratch, u32::from(ours));
    }
    if theirs != 0 {
        hub_take(scratch, u32::from(theirs));
    }
    if flags & (OUTCOME_NEW | OUTCOME_RESTAMP) != 0 {
        report::rule_hit(scratch.outcome.rule[0], scratch.outcome.would[0], bytes);
        report::rule_hit(scratch.outcome.rule[1], scratch.outcome.would[1], bytes);
        report::rule_hit(scratch.outcome.log_rule[0], 0, bytes);
        report::rule_hit(scratch.outcome.log_rule[1], 0, bytes);
    }
    if scratch.outcome.would != [0; 2] {
        report::hub_would_drop(scratch);
    }
    if flags & OUTCOME_LOG != 0 {
        report::hub_log_pass(scratch);
    }
    let leaves = hop.ifindex != 0
        && flags & (OUTCOME_AGED | OUTCOME_RELATED) == 0
        && scratch.hook != Hook::TcOut as u32
        && scratch.flags & SCRATCH_REDIRECTABLE != 0
        && scratch.wire_bytes <= hop.mtu_bytes;
    if leaves { VERDICT_REDIRECT } else { VERDICT_STACK }
}

/// Enters the packet into its flow. Returns a reason number, 0 to go on.
///
/// VERIFIER(6.18): the stack of all callers counts; here a flow's copies are on nobody else's way.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_enter(scratch: *mut Scratch) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return Reason::Internal as u32 };
    enter(scratch).err().map_or(0, |reason| reason as u32)
}

#[inline(always)]
fn enter(scratch: &mut Scratch) -> Result<(), Reason> {
    if scratch.outcome.flags & OUTCOME_NEW != 0 {
        return open(scratch);
    }
    let half_open = scratch.outcome.flags & OUTCOME_HALF_OPEN != 0;
    let entry = if half_open { FLOWS_NEW.get_ptr_mut(scratch.key) } else { FLOWS.get_ptr_mut(scratch.key) };
    // Evicted or collected since it was found: this packet passes, the next one opens the flow again.
    let Some(entry) = entry else { return Ok(()) };
    // SAFETY: a live map value; words that other CPUs read are written one at a time.
    let entry = unsafe { &mut *entry };
    let direction = (scratch.outcome.direction & 1) as usize;
    flow::touch(scratch, entry, direction);
    entry.segment = scratch.outcome.segment;
    entry.rule = scratch.outcome.rule;
    entry.class_generation = class_generation();
    let hop = if direction == 0 { &mut entry.hop[0] } else { &mut entry.hop[1] };
    store_hop(hop, &scratch.outcome.hop);
    entry.deadline_tick = scratch.outcome.deadline_tick;
    entry.limit = scratch.outcome.limit;
    entry.set_generation = scratch.outcome.set_generation;
    entry.policy = scratch.outcome.policy;
    if half_open && direction == 1 {
        scratch.flow = *entry;
        if FLOWS.insert(scratch.key, scratch.flow, 0).is_err() {
            return Err(Reason::FlowTableFull);
        }
        // Gone already if it was evicted meanwhile.
        FLOWS_NEW.remove(scratch.key).ok();
    }
    Ok(())
}

/// Makes the flow of a first packet.
#[inline(always)]
fn open(scratch: &mut Scratch) -> Result<(), Reason> {
    if scratch.outcome.flags & OUTCOME_REOPEN != 0 {
        // The closed connection may be in either table.
        FLOWS.remove(scratch.key).ok();
        FLOWS_NEW.remove(scratch.key).ok();
    }
    let packet = &scratch.packet;
    let (_, from_high) = FlowKey::of(packet);
    let new = &mut scratch.flow;
    *new = Flow::ZERO;
    new.last_tick = scratch.tick;
    new.first_tick = scratch.tick;
    new.packets[0] = 1;
    new.bytes[0] = u64::from(packet.length_bytes);
    new.segment = scratch.outcome.segment;
    new.policy = scratch.outcome.policy;
    new.rule = scratch.outcome.rule;
    new.deadline_tick = scratch.outcome.deadline_tick;
    new.limit = scratch.outcome.limit;
    new.set_generation = scratch.outcome.set_generation;
    new.hop[0] = scratch.outcome.hop;
    new.class_generation = class_generation();
    new.state = first_state(packet.protocol);
    new.from_high = u8::from(from_high);
    new.tcp_seen[0] = packet.tcp_flags;
    FLOWS_NEW.insert(scratch.key, scratch.flow, 0).map_err(|_full| Reason::FlowTableFull)
}

#[inline(always)]
fn class_generation() -> u32 {
    SETTINGS.get(0).map_or(0, |settings| settings.class_generation)
}

/// Replaces a next hop so that a reader on another CPU never uses a mix: generation to zero first, to its
/// new value last.
#[inline(always)]
fn store_hop(hop: &mut Hop, new: &Hop) {
    let generation = &raw mut hop.generation;
    // SAFETY: a field of a live map value.
    unsafe { write_volatile(generation, 0) };
    hop.ifindex = new.ifindex;
    hop.checked_tick = new.checked_tick;
    hop.mtu_bytes = new.mtu_bytes;
    hop.target_mac = new.target_mac;
    hop.source_mac = new.source_mac;
    hop.ingress_ifindex = new.ingress_ifindex;
    // SAFETY: as above.
    unsafe { write_volatile(generation, new.generation) };
}
