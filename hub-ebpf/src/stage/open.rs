//! Connections that need no flow: the rules of both sides allow them, and their answers, by ports alone.

use core::ptr::{read_volatile, write_volatile};

use hub_common::address::{Address, is_v4};
use hub_common::flow::SharedHop;
use hub_common::open::{
    OPEN_ALL, OPEN_FIRST, OPEN_NONE, OPEN_TCP_EGRESS, OPEN_TCP_INGRESS, OPEN_UDP_EGRESS, OPEN_UDP_INGRESS,
    has_open_ports,
};
use hub_common::outcome::{FROM_HOST, OUTCOME_LOCAL, OUTCOME_PLAIN, Scratch};
use hub_common::packet::protocol;
use hub_common::segment::{SETTINGS_NO_SHARED_HOPS, Segment, Settings, policy_slot};

use super::adjacency;
use super::filter::may_talk;
use crate::addresses::is_local;
use crate::atomic;
use crate::maps::{HOPS, POLICIES, PORT_SETS, SEGMENTS};
use crate::rewrite::Exit;

/// Whether a set of a policy holds the port.
#[inline(always)]
fn is_open(set: u8, port: u16) -> bool {
    match set {
        OPEN_NONE => false,
        OPEN_ALL => true,
        slot => PORT_SETS.get(u32::from(slot.wrapping_sub(OPEN_FIRST))).is_some_and(|set| set.holds(port)),
    }
}

/// Whether one side lets packets pass to `away` ports from its members and to `home` ports towards them.
#[inline(always)]
fn lets(open: [u8; 4], tcp: bool, away: u16, home: u16) -> bool {
    let (egress, ingress) = if tcp {
        (open[OPEN_TCP_EGRESS], open[OPEN_TCP_INGRESS])
    } else {
        (open[OPEN_UDP_EGRESS], open[OPEN_UDP_INGRESS])
    };
    is_open(egress, away) && is_open(ingress, home)
}

/// Whether the packet's connection needs no flow; segments and policies of the outcome are known. With the hub
/// itself it does: members may begin none there, and ports alone do not tell who began.
#[inline(always)]
pub(crate) fn is_untracked(scratch: &Scratch) -> bool {
    let packet = &scratch.packet;
    has_open_ports(packet.protocol)
        && scratch.outcome.flags & (OUTCOME_PLAIN | OUTCOME_LOCAL) == OUTCOME_PLAIN
        && scratch.ingress_ifindex != FROM_HOST
        && may_talk(scratch.outcome.segment[0], scratch.outcome.segment[1])
        && both_let(
            scratch.outcome.policy,
            packet.protocol == protocol::TCP,
            packet.source_port,
            packet.target_port,
        )
}

/// Whether the connection that an ICMP error quotes needs no flow. `policy` is that of the error's sender
/// and receiver, who are the receiver and the sender of the quoted packet.
#[inline(always)]
pub(crate) fn is_untracked_inner(scratch: &Scratch) -> bool {
    let inner = &scratch.packet.inner;
    let [sender, receiver] = scratch.outcome.policy;
    has_open_ports(inner.protocol)
        && !is_local(&inner.source)
        && !is_local(&inner.target)
        && scratch.outcome.flags & OUTCOME_PLAIN != 0
        && may_talk(scratch.outcome.segment[0], scratch.outcome.segment[1])
        && both_let([receiver, sender], inner.protocol == protocol::TCP, inner.source_port, inner.target_port)
}

#[inline(always)]
fn both_let([sender, receiver]: [u32; 2], tcp: bool, source_port: u16, target_port: u16) -> bool {
    let at_sender = sender == 0
        || POLICIES
            .get(policy_slot(sender))
            .is_some_and(|policy| lets(policy.open, tcp, target_port, source_port));
    at_sender
        && (receiver == 0
            || POLICIES
                .get(policy_slot(receiver))
                .is_some_and(|policy| lets(policy.open, tcp, source_port, target_port)))
}

/// A segment whose packets are judged by ports alone, if it lets them pass; ports as [`lets`] has them.
#[inline(always)]
pub(crate) fn open_segment(id: u32, tick: u64, tcp: bool, away: u16, home: u16) -> Option<&'static Segment> {
    let segment = SEGMENTS.get(id)?;
    // SAFETY: fields of a map value. The four names are one word, so that they are of one policy.
    let (until, open) = unsafe {
        (read_volatile(&raw const segment.open_until_tick), read_volatile(&raw const segment.open))
    };
    (tick < until && lets(open.to_le_bytes(), tcp, away, home)).then_some(segment)
}

/// Whether packets of a segment's members take the same routes as all others'.
#[inline(always)]
fn is_routed_alike(sender: u32) -> bool {
    sender == 0 || SEGMENTS.get(sender).is_some_and(|segment| segment.routed == 0)
}

/// The last four bytes of an address as a number.
#[inline(always)]
fn v4(address: &Address) -> u32 {
    u32::from_be_bytes([address[12], address[13], address[14], address[15]])
}

/// The next hop of the packet's connection, if it is of this generation; it may be old.
#[inline(always)]
pub(crate) fn next_hop(scratch: &Scratch, settings: &Settings) -> Option<Exit> {
    let (target, ingress) = (&scratch.packet.target, scratch.ingress_ifindex);
    let sender = scratch.outcome.segment[0];
    let found = if !is_routed_alike(sender) {
        None
    } else if is_v4(target) {
        adjacency::find(v4(target), ingress, settings)
    } else {
        adjacency::find_v6(target, ingress, settings)
    };
    found.or_else(|| shared_hop(target, ingress, sender, settings))
}

/// An address in words, as they lie in a map.
#[inline(always)]
fn words(address: &Address) -> [u64; 2] {
    let whole = u128::from_le_bytes(*address);
    [(whole as u64).to_le(), ((whole >> 64) as u64).to_le()]
}

/// The shared next hop towards an address, if it is of this generation; it may be old.
#[inline(always)]
pub(crate) fn shared_hop(target: &Address, ingress: u32, sender: u32, settings: &Settings) -> Option<Exit> {
    let entry = HOPS.get_ptr(SharedHop::place(target, ingress, sender))?;
    // SAFETY: a map value. The generation is zeroed before and written after the rest: reading it first
    // and last finds a copy that was overtaken by a writer.
    let (exit, copy, after) = unsafe {
        let exit = Exit::read(&raw const (*entry).hop);
        let sender = read_volatile(&raw const (*entry).sender);
        // The target is what an entry begins with.
        let target = read_volatile(entry.cast::<[u64; 2]>());
        (exit, (sender, target), read_volatile(&raw const (*entry).hop.generation))
    };
    let fits = exit.generation == settings.route_generation
        && after == exit.generation
        && copy == (sender, words(target))
        && exit.ingress_ifindex == ingress;
    fits.then_some(exit)
}

/// Shares the next hop that was found for the packet.
#[inline(always)]
pub(crate) fn share_hop(scratch: &Scratch, settings: &Settings) {
    let hop = &scratch.outcome.hop;
    if hop.ifindex == 0 || hop.generation == 0 || settings.flags & SETTINGS_NO_SHARED_HOPS != 0 {
        return;
    }
    let sender = scratch.outcome.segment[0];
    let target = &scratch.packet.target;
    if is_routed_alike(sender) && adjacency::share(scratch) {
        return;
    }
    let at = SharedHop::place(target, hop.ingress_ifindex, sender);
    let Some(entry) = HOPS.get_ptr_mut(at) else { return };
    // SAFETY: a live map value; one program at a time has it for writing.
    let entry: &mut SharedHop = unsafe { &mut *entry };
    if !atomic::claim(&mut entry.writer) {
        return;
    }
    // SAFETY: a field of the entry.
    unsafe { write_volatile(&raw mut entry.hop.generation, 0) };
    entry.target = scratch.packet.target;
    entry.sender = sender;
    super::commit::store_hop(&mut entry.hop, hop);
    // SAFETY: as above.
    unsafe { write_volatile(&raw mut entry.writer, 0) };
}
