//! Writes a decision down: the flow, its next hop, the counters. Nothing before this stage changes a map.

#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "what is lent needs no copy on the stack, which all callers share"
)]

use core::ptr::write_volatile;

use hub_common::event::{DUE_LOG, Hook, Reason};
use hub_common::flow::{Flow, FlowKey, Hop, first_state, is_confirmed, is_opening, next_state};
use hub_common::outcome::{
    OUTCOME_AGED, OUTCOME_CLAMPED, OUTCOME_HALF_OPEN, OUTCOME_LOG, OUTCOME_NEW, OUTCOME_RELATED,
    OUTCOME_REOPEN, OUTCOME_RESTAMP, OUTCOME_SHAPED, OUTCOME_TRANSLATED, OUTCOME_UNTRACKED,
    SCRATCH_REDIRECTABLE, SCRATCH_UNDECIDED, Scratch, VERDICT_DEFER, VERDICT_DROP, VERDICT_REDIRECT,
    VERDICT_STACK,
};
use hub_common::packet::protocol;
use hub_common::segment::PORT_XDP_TARGET;

use crate::maps::{FLOWS, FLOWS_NEW, SETTINGS, own};
use crate::report;
use crate::stage::connections::hub_begun;
use crate::stage::limit::hub_take;
use crate::stage::shape::hub_shape;
use crate::stage::{flow, fragment, handshake, hear, open, route};

/// What XDP leaves to TC.
const XDP_CANNOT: u32 =
    OUTCOME_AGED | OUTCOME_RELATED | OUTCOME_TRANSLATED | OUTCOME_CLAMPED | OUTCOME_SHAPED;

/// Enters an allowed packet and says what becomes of it: one of `VERDICT_STACK`, `VERDICT_REDIRECT`,
/// `VERDICT_DROP` (the flow table is full) or `VERDICT_DEFER` (XDP cannot finish it, nothing was written).
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_commit(scratch: *mut Scratch) -> u32 {
    let Some(scratch) = own(scratch) else { return VERDICT_DROP };
    let flags = scratch.outcome.flags;
    let hop = scratch.outcome.hop;
    if route::is_xdp(scratch)
        && (flags & XDP_CANNOT != 0 || !route::xdp_may_send(scratch, &hop, PORT_XDP_TARGET))
    {
        return VERDICT_DEFER;
    }
    if flags & OUTCOME_SHAPED != 0 {
        let reason = hub_shape(scratch);
        if reason != 0 {
            return VERDICT_DROP;
        }
    }
    if flags & OUTCOME_UNTRACKED != 0 {
        hub_share(scratch);
    } else if flags & OUTCOME_RELATED == 0
        && let Some(reason) = Reason::from_number(hub_enter_flow(scratch))
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
    let [a, b] = scratch.outcome.segment;
    if scratch.outcome.direction == 0 {
        report::passed((scratch.packets, scratch.bytes), a, b);
    } else {
        report::passed((scratch.packets, scratch.bytes), b, a);
    }
    if flags & OUTCOME_NEW != 0 {
        report::begun(a, b);
    }
    let [ours, theirs] = scratch.outcome.take;
    if ours != 0 {
        hub_take(scratch, u32::from(ours));
    }
    if theirs != 0 {
        hub_take(scratch, u32::from(theirs));
    }
    // Rules that wait for first bytes have not decided yet.
    if flags & (OUTCOME_NEW | OUTCOME_RESTAMP) != 0 && scratch.flags & SCRATCH_UNDECIDED == 0 {
        report::rule_hit(scratch, scratch.outcome.rule[0], scratch.outcome.would[0]);
        report::rule_hit(scratch, scratch.outcome.rule[1], scratch.outcome.would[1]);
        if flags & OUTCOME_LOG != 0 {
            report::hub_log_hits(scratch);
        }
    }
    if scratch.outcome.would != [0; 2] {
        report::hub_would_drop(scratch);
    }
    if flags & OUTCOME_LOG != 0 {
        scratch.due |= DUE_LOG;
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
pub(crate) extern "C" fn hub_enter_flow(scratch: *mut Scratch) -> u32 {
    let Some(scratch) = own(scratch) else { return Reason::Internal as u32 };
    enter(scratch).err().map_or(0, |reason| reason as u32)
}

/// Shares the next hop that was found for a packet without a flow.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_share(scratch: *mut Scratch) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_ref() }) else { return 0 };
    if scratch.hook != Hook::TcOut as u32
        && let Some(settings) = SETTINGS.get(0)
    {
        open::share_hop(scratch, settings);
    }
    0
}

#[inline(always)]
fn enter(scratch: &mut Scratch) -> Result<(), Reason> {
    if scratch.outcome.flags & OUTCOME_NEW != 0 {
        return begin(scratch);
    }
    let half_open = scratch.outcome.flags & OUTCOME_HALF_OPEN != 0;
    let entry = if half_open { FLOWS_NEW.get_ptr_mut(&scratch.key) } else { FLOWS.get_ptr_mut(&scratch.key) };
    // Evicted or collected since it was found: this packet passes, the next one opens the flow again.
    let Some(entry) = entry else { return Ok(()) };
    // SAFETY: a live map value; words that other CPUs read are written one at a time.
    let entry = unsafe { &mut *entry };
    let direction = (scratch.outcome.direction & 1) as usize;
    if scratch.packet.protocol == protocol::TCP && is_opening(scratch.packet.tcp_flags) {
        // What is sent again makes the time meaningless (Karn's algorithm, RFC 6298 section 3).
        entry.syn_us = 0;
    }
    flow::touch(scratch, entry, direction);
    entry.segment = scratch.outcome.segment;
    entry.rule = scratch.outcome.rule;
    let class_generation = class_generation();
    if entry.class_generation != class_generation {
        // The other direction's port was right for the segments as they were.
        let other = if direction == 0 { &raw mut entry.hop[1] } else { &raw mut entry.hop[0] };
        // SAFETY: a field of a live map value.
        unsafe { write_volatile(&raw mut (*other).generation, 0) };
    }
    entry.class_generation = class_generation;
    let hop = if direction == 0 { &mut entry.hop[0] } else { &mut entry.hop[1] };
    store_hop(hop, &scratch.outcome.hop);
    entry.deadline_tick = scratch.outcome.deadline_tick;
    entry.limit = scratch.outcome.limit;
    entry.set_generation = scratch.outcome.set_generation;
    entry.policy = scratch.outcome.policy;
    if scratch.outcome.flags & OUTCOME_RESTAMP != 0 {
        // Where it counts by now; the daemon moves it from one count to the other.
        entry.counted = scratch.outcome.counted;
        entry.heard = hear::remembered(scratch);
    }
    if half_open && is_confirmed(entry, scratch.packet.protocol, direction) {
        scratch.flow = *entry;
        if FLOWS.insert(&scratch.key, &scratch.flow, 0).is_err() {
            return Err(Reason::FlowTableFull);
        }
        // Gone already if it was evicted meanwhile.
        FLOWS_NEW.remove(&scratch.key).ok();
    }
    Ok(())
}

/// Makes the flow of a first packet.
#[inline(always)]
fn begin(scratch: &mut Scratch) -> Result<(), Reason> {
    if scratch.outcome.flags & OUTCOME_REOPEN != 0 {
        // The closed connection may be in either table.
        FLOWS.remove(&scratch.key).ok();
        FLOWS_NEW.remove(&scratch.key).ok();
    }
    let packet = &scratch.packet;
    let (_, from_high) = FlowKey::of(packet);
    let heard = hear::remembered(scratch);
    let new = &mut scratch.flow;
    *new = Flow::ZERO;
    new.last_tick = scratch.tick;
    new.first_tick = scratch.tick;
    new.packets[0] = u64::from(scratch.packets);
    new.bytes[0] = u64::from(scratch.bytes);
    new.segment = scratch.outcome.segment;
    new.policy = scratch.outcome.policy;
    new.rule = scratch.outcome.rule;
    new.deadline_tick = scratch.outcome.deadline_tick;
    new.limit = scratch.outcome.limit;
    new.set_generation = scratch.outcome.set_generation;
    new.counted = scratch.outcome.counted;
    new.heard = heard;
    new.hop[0] = scratch.outcome.hop;
    new.class_generation = class_generation();
    new.syn_us = handshake::begin(packet);
    new.from_high = u8::from(from_high);
    new.tcp_seen[0] = packet.tcp_flags;
    // While stray TCP may open flows, one may begin with its end.
    new.state = next_state(first_state(packet.protocol), packet.protocol, 0, new.tcp_seen);
    FLOWS_NEW.insert(&scratch.key, &scratch.flow, 0).map_err(|_full| Reason::FlowTableFull)?;
    hub_begun(scratch);
    Ok(())
}

#[inline(always)]
fn class_generation() -> u32 {
    SETTINGS.get(0).map_or(0, |settings| settings.class_generation)
}

/// Replaces a next hop so that a reader on another CPU never uses a mix: generation to zero first, to its
/// new value last.
#[inline(always)]
pub(crate) fn store_hop(hop: &mut Hop, new: &Hop) {
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
