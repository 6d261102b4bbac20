//! The flow table: established connections pass without asking rules.

use core::ptr::{read_volatile, write_volatile};

use hub_common::event::Reason;
use hub_common::flow::{FLOW_TCP_CLOSED, Flow, FlowKey, is_impossible, is_opening, next_state, reopens};
use hub_common::outcome::{
    OUTCOME_AGED, OUTCOME_ESTABLISHED, OUTCOME_HALF_OPEN, OUTCOME_NEW, OUTCOME_REJECT, OUTCOME_REOPEN,
    OUTCOME_RESET_ON, OUTCOME_RESTAMP, OUTCOME_UNTRACKED, Outcome, SCRATCH_NO_FLOW, SCRATCH_READ_ONLY,
    SCRATCH_REDIRECTABLE, Scratch, VERDICT_DEFER, VERDICT_DROP, VERDICT_REDIRECT, VERDICT_STACK,
};
use hub_common::packet::{
    PACKET_FRAGMENT_FIRST, PACKET_FRAGMENT_LATER, PACKET_ICMP_ERROR, PACKET_ICMP_REQUEST, PACKET_NEIGHBOUR,
    PACKET_VLAN, Packet, TCP_ACK, TCP_SYN, protocol,
};
use hub_common::segment::{
    POLICY_AUDIT, POLICY_PRESERVE, PORT_XDP_TARGET, SEGMENT_QUARANTINE, SEGMENT_SHAPED, SEGMENT_TRANSLATED,
    SEGMENT_WATCHED, STATE_BLOCK, STATE_EMPTY, Settings, policy_slot,
};

use crate::atomic;
use crate::maps::{FLOWS, FLOWS_NEW, POLICIES, SEGMENTS};
use crate::pipeline::begin;
use crate::report::{self, refuse};
use crate::stage::admit::{admit_new, tells};
use crate::stage::connections::{hub_cut, hub_ended};
use crate::stage::filter::{addressee, filter, may_talk};
use crate::stage::limit::hub_limited;
use crate::stage::quarantine::hub_isolated;
use crate::stage::related::related;
use crate::stage::shape::hub_shape;
use crate::stage::{candidate, detect, gate, handshake, hear, open, route};

/// The live entry of a key, and whether it is half-open. A stale entry hides nothing: the connection that
/// follows on the same ports begins half-open, and takes its place when it is confirmed.
#[inline(always)]
pub(crate) fn find(key: &FlowKey, tick: u64, settings: &Settings) -> Option<(*mut Flow, bool)> {
    // SAFETY: map values stay readable while the program runs; a reused slot shows another flow's values,
    // which the checks on policy, classification and port refuse.
    let live = |flow: &*mut Flow| !unsafe { (**flow).is_stale(tick, &settings.timeout_ticks) };
    if let Some(flow) = FLOWS.get_ptr_mut(key).filter(live) {
        return Some((flow, false));
    }
    FLOWS_NEW.get_ptr_mut(key).filter(live).map(|flow| (flow, true))
}

/// Finishes a packet of an established flow whose next hop is known and whose policies did not change.
/// Anything else is `None` and changes nothing.
#[inline(always)]
pub(crate) fn fast(scratch: &mut Scratch, settings: &Settings) -> Option<u32> {
    const SLOW: u16 =
        PACKET_FRAGMENT_FIRST | PACKET_FRAGMENT_LATER | PACKET_ICMP_ERROR | PACKET_VLAN | PACKET_NEIGHBOUR;
    let packet = &scratch.packet;
    if scratch.parse_reason != 0 || packet.has_any(SLOW) || scratch.flags & SCRATCH_READ_ONLY != 0 {
        return None;
    }
    let tcp = packet.protocol == protocol::TCP;
    if tcp && (is_impossible(packet.tcp_flags) || packet.tcp_flags & TCP_SYN != 0) {
        return None;
    }
    let (key, from_high) = FlowKey::of(packet);
    // VERIFIER(6.1): a key that lies in an argument's memory is refused; this one is on the stack.
    let Some((flow, half_open)) = find(&key, scratch.tick, settings) else {
        scratch.flags |= SCRATCH_NO_FLOW;
        return None;
    };
    // SAFETY: a live map value; fields that other CPUs write are single words, the hop is checked below.
    let flow = unsafe { &mut *flow };
    let direction = flow.direction(from_high);
    // What confirms a half-open flow must move it to the other table: only the slow way does that.
    if (half_open && (direction == 1 || flow.tcp_seen[1] & TCP_ACK != 0))
        || flow.class_generation != settings.class_generation
        || scratch.tick >= flow.deadline_tick
        || (direction == 0 && flow.limit != [0; 2])
        || hear::waits(flow)
    {
        return None;
    }
    let features = unchanged(flow, packet, &key, scratch.tick)?;
    if features & slow_features(scratch) != 0 {
        return None;
    }
    // VERIFIER(6.18): an index that was only compared is not bounded; two constants are.
    let hop = if direction == 0 { &raw const flow.hop[0] } else { &raw const flow.hop[1] };
    // SAFETY: the generation is written last and zeroed first; reading it before and after the copy
    // finds a copy that was overtaken by a writer.
    let (before, copy, after) = unsafe {
        let generation = &raw const (*hop).generation;
        (read_volatile(generation), *hop, read_volatile(generation))
    };
    if before != settings.route_generation
        || after != before
        || copy.ingress_ifindex != scratch.ingress_ifindex
        || copy.is_old(scratch.tick, settings)
    {
        return None;
    }
    if features & SEGMENT_SHAPED != 0 && route::is_xdp(scratch) {
        return Some(VERDICT_DEFER);
    }
    if features & SEGMENT_SHAPED != 0 {
        begin(scratch);
        scratch.outcome.segment = flow.segment;
        scratch.outcome.policy = flow.policy;
        scratch.outcome.rule = flow.rule;
        scratch.outcome.direction = direction as u32;
        if hub_shape(scratch) != 0 {
            return Some(VERDICT_DROP);
        }
    }
    let leaves = copy.ifindex != 0;
    if leaves
        && (scratch.flags & SCRATCH_REDIRECTABLE == 0 || scratch.wire_bytes > copy.mtu_bytes)
        && !route::is_xdp(scratch)
    {
        scratch.outcome.hop = copy;
        return Some(finish(scratch, flow, direction, VERDICT_STACK));
    }
    if route::is_xdp(scratch) && !route::xdp_may_send(scratch, &copy, PORT_XDP_TARGET) {
        return None;
    }
    scratch.outcome.hop = copy;
    let verdict = if leaves { VERDICT_REDIRECT } else { VERDICT_STACK };
    Some(finish(scratch, flow, direction, verdict))
}

/// Notes that both ends of a TCP connection that a deadline cut are to be told.
#[inline(always)]
pub(crate) fn reset_cut(scratch: &mut Scratch, settings: &Settings) {
    let packet = &scratch.packet;
    if packet.protocol != protocol::TCP || packet.has(PACKET_FRAGMENT_LATER) {
        return;
    }
    let (key, _) = FlowKey::of(packet);
    scratch.key = key;
    if find(&scratch.key, scratch.tick, settings).is_some() {
        scratch.outcome.flags |= OUTCOME_REJECT;
    }
}

/// Features of segments that keep this packet off the fast way: XDP does not translate, and detectors count
/// pings.
#[inline(always)]
fn slow_features(scratch: &Scratch) -> u32 {
    (if route::is_xdp(scratch) { SEGMENT_TRANSLATED } else { 0 })
        | (if scratch.packet.has(PACKET_ICMP_REQUEST) { SEGMENT_WATCHED } else { 0 })
}

/// Features of both segments, if they are alive and still point at the policies that admitted the flow, and no
/// candidate has yet to judge it.
#[inline(always)]
fn unchanged(flow: &Flow, packet: &Packet, key: &FlowKey, tick: u64) -> Option<u32> {
    let mut features = 0;
    let mut side = 0;
    while side < 2 {
        let id = flow.segment[side];
        if id != 0 {
            let segment = SEGMENTS.get(id)?;
            let passes = segment.state != STATE_EMPTY && segment.state != STATE_BLOCK;
            if segment.word(tick) != flow.policy[side]
                || segment.set_generation as u16 != flow.set_generation[side]
                || !passes
                || tick >= segment.expires_tick
            {
                return None;
            }
            if segment.flags & SEGMENT_QUARANTINE != 0 && hub_isolated(packet, id, tick) != 0 {
                return None;
            }
            let judged = segment.judged();
            if judged != 0 && !candidate::seen(key, side, judged) {
                return None;
            }
            features |= segment.flags;
        }
        side += 1;
    }
    Some(features)
}

#[inline(always)]
fn finish(scratch: &mut Scratch, flow: &mut Flow, direction: usize, verdict: u32) -> u32 {
    touch(scratch, flow, direction);
    let [a, b] = flow.segment;
    let (sender, receiver) = if direction == 0 { (a, b) } else { (b, a) };
    report::passed((scratch.packets, scratch.bytes), sender, receiver);
    if scratch.traces != 0 {
        let outcome = &mut scratch.outcome;
        outcome.segment = flow.segment;
        outcome.policy = flow.policy;
        outcome.rule = flow.rule;
        outcome.direction = direction as u32;
        outcome.flags = OUTCOME_ESTABLISHED;
        outcome.blame = 0;
    }
    verdict
}

/// Enters one packet into its flow: time, counts, TCP state.
#[inline(always)]
pub(crate) fn touch(scratch: &Scratch, flow: &mut Flow, direction: usize) {
    let packet = &scratch.packet;
    if flow.last_tick != scratch.tick {
        // SAFETY: a field of a live map value; one word.
        unsafe { write_volatile(&raw mut flow.last_tick, scratch.tick) };
    }
    let direction = direction & 1;
    atomic::add(&mut flow.packets[direction], u64::from(scratch.packets));
    atomic::add(&mut flow.bytes[direction], u64::from(scratch.bytes));
    let seen = flow.tcp_seen[direction] | packet.tcp_flags;
    handshake::end(&scratch.packet, flow, direction);
    let state_may_change = packet.protocol != protocol::TCP || seen != flow.tcp_seen[direction];
    if state_may_change {
        flow.tcp_seen[direction] = seen;
        let state = next_state(flow.state, packet.protocol, direction, flow.tcp_seen);
        if state == FLOW_TCP_CLOSED && flow.state != FLOW_TCP_CLOSED {
            hub_ended(scratch, flow, direction as u32);
        }
        flow.state = state;
    }
}

/// Decides on a packet whose segments are known and alive: by its flow, or by the rules as a new flow.
#[inline(always)]
pub(crate) fn settle(scratch: &mut Scratch, settings: &Settings) -> Result<(), Reason> {
    if scratch.packet.has(PACKET_ICMP_ERROR) {
        return related(scratch, settings);
    }
    if open::is_untracked(scratch) {
        let packet = &scratch.packet;
        // TCP in mid-stream may be older than the gate; what else comes may be the first of its kind.
        if packet.protocol != protocol::TCP || is_opening(packet.tcp_flags) {
            gate::pass(scratch)?;
        }
        scratch.outcome.flags |= OUTCOME_UNTRACKED;
        let hop = open::next_hop(scratch, settings);
        if hop.is_some_and(|hop| hop.is_old(scratch.tick, settings)) {
            scratch.outcome.flags |= OUTCOME_AGED;
        }
        // Who asks why wants to know the rule.
        return if scratch.flags & SCRATCH_READ_ONLY == 0 { Ok(()) } else { filter(scratch, false) };
    }
    let (key, from_high) = FlowKey::of(&scratch.packet);
    scratch.key = key;
    if scratch.packet.has(PACKET_ICMP_REQUEST) {
        detect::admit(scratch)?;
    }
    if scratch.flags & SCRATCH_NO_FLOW == 0
        && let Some((flow, half_open)) = find(&scratch.key, scratch.tick, settings)
    {
        // SAFETY: as in `fast`.
        let flow = unsafe { &*flow };
        let opening = scratch.packet.protocol == protocol::TCP && is_opening(scratch.packet.tcp_flags);
        if opening && reopens(flow.state, scratch.packet.tcp_flags) {
            scratch.outcome.flags |= OUTCOME_REOPEN;
        } else {
            if half_open {
                scratch.outcome.flags |= OUTCOME_HALF_OPEN;
            }
            let direction = flow.direction(from_high);
            let hop = if direction == 0 { &flow.hop[0] } else { &flow.hop[1] };
            if hop.generation == settings.route_generation
                && hop.ingress_ifindex == scratch.ingress_ifindex
                && hop.ifindex != 0
                && hop.is_old(scratch.tick, settings)
            {
                scratch.outcome.flags |= OUTCOME_AGED;
            }
            if hear::asks_known(scratch, flow) {
                return Ok(());
            }
            return known(scratch, flow, direction);
        }
    }
    scratch.outcome.flags |= OUTCOME_NEW;
    detect::admit(scratch)?;
    admit_new(scratch, settings)?;
    if hear::asks_new(scratch) {
        return Ok(());
    }
    filter(scratch, false)?;
    gate::pass(scratch)
}

/// A packet of a known flow: passes if nothing changed, else the rules are asked about its first packet.
#[inline(always)]
fn known(scratch: &mut Scratch, flow: &Flow, direction: usize) -> Result<(), Reason> {
    let decides = hear::decides(scratch, flow);
    let outcome = &mut scratch.outcome;
    outcome.direction = direction as u32;
    if direction == 1 {
        outcome.segment = [outcome.segment[1], outcome.segment[0]];
        outcome.policy = [outcome.policy[1], outcome.policy[0]];
        outcome.set_generation = [outcome.set_generation[1], outcome.set_generation[0]];
    }
    let same_segments = outcome.segment[0] == flow.segment[0] && outcome.segment[1] == flow.segment[1];
    if same_segments && !decides && scratch.tick < flow.deadline_tick {
        let unlimited = flow.limit == [0; 2];
        let kept = preserved(outcome, flow, 0, unlimited) && preserved(outcome, flow, 1, unlimited);
        let sender = outcome.segment[0];
        // Peers part company without a change of their policies.
        if kept && may_talk(sender, addressee(scratch, direction == 1)) {
            let outcome = &mut scratch.outcome;
            outcome.rule = flow.rule;
            outcome.deadline_tick = flow.deadline_tick;
            outcome.limit = flow.limit;
            outcome.flags |= OUTCOME_ESTABLISHED;
            return held(scratch, flow);
        }
    }
    scratch.outcome.flags |= OUTCOME_RESTAMP;
    let verdict = filter(scratch, direction == 1);
    let cut = verdict.is_err() && verdict != Err(Reason::RateLimit);
    // Who was let begin is told of its end, and so is the other one.
    if cut && scratch.packet.protocol == protocol::TCP && (decides || tells(&scratch.outcome)) {
        scratch.outcome.flags |= OUTCOME_REJECT | OUTCOME_RESET_ON;
    }
    // XDP leaves a reject to TC, which must find the flow as it was.
    let deferred = scratch.outcome.flags & OUTCOME_REJECT != 0 && route::is_xdp(scratch);
    if cut && scratch.flags & SCRATCH_READ_ONLY == 0 && !deferred {
        hub_cut(scratch);
    }
    verdict
}

/// Whether what admitted the flow on one side still stands, or, if `may_differ`, need not stand.
#[inline(always)]
fn preserved(outcome: &Outcome, flow: &Flow, side: usize, may_differ: bool) -> bool {
    let (word, then) = (outcome.policy[side], flow.policy[side]);
    let same = word == then && outcome.set_generation[side] == flow.set_generation[side];
    same || (may_differ
        && POLICIES.get(policy_slot(word)).is_some_and(|policy| policy.flags & POLICY_PRESERVE != 0))
}

/// Holds a packet of an established flow to the limits of the rules that admitted it.
#[inline(always)]
fn held(scratch: &mut Scratch, flow: &Flow) -> Result<(), Reason> {
    let mut side = 0;
    while side < 2 {
        let slot = flow.limit[side];
        if slot != 0 && hub_limited(scratch, side as u32, u32::from(slot)) != 0 {
            let blame = scratch.outcome.segment[side];
            if is_watched(scratch.outcome.policy[side]) {
                scratch.outcome.would[side] = Reason::RateLimit as u32;
            } else {
                refuse(&mut scratch.outcome, Reason::RateLimit, blame, side == 0);
                return Err(Reason::RateLimit);
            }
        }
        side += 1;
    }
    Ok(())
}

/// Whether the policy of this word only watches.
#[inline(always)]
fn is_watched(word: u32) -> bool {
    POLICIES.get(policy_slot(word)).is_some_and(|policy| policy.flags & POLICY_AUDIT != 0)
}
