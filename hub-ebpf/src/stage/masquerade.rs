//! Masquerading: connections that members open leave an uplink with the hub's address there and a port that
//! nobody else has towards the same other end.
//!
//! A connection has two entries, one for each way, made with its first packet. They go with its flow.

use hub_common::address::Address;
use hub_common::event::Reason;
use hub_common::flow::FlowKey;
use hub_common::outcome::Scratch;
use hub_common::packet::{
    PACKET_FRAGMENT_FIRST, PACKET_FRAGMENT_LATER, PACKET_ICMP_ERROR, PACKET_V4, TCP_RST, protocol,
};
use hub_common::translation::{PORT_ATTEMPTS, Uplink, ZONE_OUTSIDE, candidate, spread};

use crate::addresses::is_local;
use crate::maps::{self, FLOWS, FLOWS_NEW, MASQUERADES, UPLINKS};
use crate::stage::fragment;

/// `BPF_NOEXIST`.
const NO_EXIST: u64 = 1;

/// The hub's address of the packet's family on an uplink.
#[inline(always)]
fn own<'a>(uplink: &'a Uplink, scratch: &Scratch) -> &'a Address {
    if scratch.packet.has(PACKET_V4) { &uplink.v4 } else { &uplink.v6 }
}

/// Whether the transport header has something that may be rewritten: SCTP's checksum covers the whole
/// packet, others have no ports.
#[inline(always)]
const fn has_free_port(number: u8) -> bool {
    matches!(number, protocol::TCP | protocol::UDP | protocol::ICMP | protocol::ICMPV6)
}

/// What [`hub_masquerade`] answers for a connection that has no port yet.
const UNKNOWN: u32 = u32::MAX;

/// What leaves by an uplink. Sets what is wanted; returns a reason number, 0 when all is well.
///
/// VERIFIER(6.1): two calls side by side, because frames of nested ones, rounded up to 32 bytes, add up.
#[inline(always)]
pub(crate) fn masquerade(scratch: &mut Scratch, ifindex: u32) -> u32 {
    match hub_masquerade(scratch, ifindex) {
        UNKNOWN => hub_allocate(scratch, ifindex),
        reason => reason,
    }
}

/// As [`masquerade`] for connections that have a port; [`UNKNOWN`] for others.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_masquerade(scratch: *mut Scratch, ifindex: u32) -> u32 {
    let Some(scratch) = maps::own(scratch) else { return Reason::Internal as u32 };
    let error = scratch.packet.has(PACKET_ICMP_ERROR);
    let (key, from_high) =
        if error { FlowKey::of_inner(&scratch.packet) } else { FlowKey::of(&scratch.packet) };
    scratch.key = key;
    // SAFETY: entries are replaced whole, never edited in place.
    let Some(uplink) = (unsafe { UPLINKS.get(ifindex) }) else { return Reason::NoTranslation as u32 };
    scratch.masquerade.address = *own(uplink, scratch);
    // SAFETY: as above.
    let entry = unsafe { MASQUERADES.get(scratch.key) };
    if let Some(entry) = entry.filter(|entry| entry.address == scratch.masquerade.address) {
        scratch.masquerade.port = entry.port;
        if error {
            quote_as(scratch);
        } else {
            leave_as(scratch);
        }
        return 0;
    }
    if error || is_answer(scratch, from_high) {
        // Somebody outside opened it towards the member's own address.
        return 0;
    }
    let packet = &scratch.packet;
    if packet.tcp_flags & TCP_RST != 0 || is_local(&packet.source) {
        // No member opens a connection so: the hub refuses one from outside, or answers at its own address.
        return 0;
    }
    if scratch.masquerade.address == [0; 16] {
        return Reason::NoTranslation as u32;
    }
    UNKNOWN
}

/// ICMP queries have one identifier for both ends.
#[inline(always)]
const fn has_one_port(number: u8) -> bool {
    matches!(number, protocol::ICMP | protocol::ICMPV6)
}

/// Gives the packet the address and port of its connection.
#[inline(always)]
fn leave_as(scratch: &mut Scratch) {
    scratch.wanted.source = scratch.masquerade.address;
    scratch.wanted.source_port = scratch.masquerade.port;
    if has_one_port(scratch.packet.protocol) {
        scratch.wanted.target_port = scratch.masquerade.port;
    }
}

/// Gives the packet that an ICMP error quotes, one towards the member, the address it came to.
#[inline(always)]
fn quote_as(scratch: &mut Scratch) {
    let address = scratch.masquerade.address;
    if scratch.wanted.source == scratch.wanted.inner_target {
        scratch.wanted.source = address;
    }
    scratch.wanted.inner_target = address;
    scratch.wanted.inner_target_port = scratch.masquerade.port;
    if has_one_port(scratch.packet.inner.protocol) {
        scratch.wanted.inner_source_port = scratch.masquerade.port;
    }
}

/// Whether the packet goes the way back on a connection that the other end opened.
#[inline(always)]
fn is_answer(scratch: &Scratch, from_high: bool) -> bool {
    let flow = FLOWS.get_ptr_mut(scratch.key).or_else(|| FLOWS_NEW.get_ptr_mut(scratch.key));
    // SAFETY: a live map value; the field is written once, when the flow is made.
    flow.is_some_and(|flow| unsafe { (*flow).direction(from_high) } == 1)
}

/// Finds a port for a connection and enters it. Returns a reason number, 0 when all is well.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_allocate(scratch: *mut Scratch, ifindex: u32) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return Reason::Internal as u32 };
    // SAFETY: entries are replaced whole, never edited in place.
    let Some(uplink) = (unsafe { UPLINKS.get(ifindex) }) else { return Reason::NoTranslation as u32 };
    let free = has_free_port(scratch.packet.protocol);
    let hash = spread(&scratch.packet.source, scratch.packet.source_port);
    let most = if free { uplink.ports } else { 1 };
    let mut attempt = 0;
    while attempt < PORT_ATTEMPTS {
        if attempt >= most {
            break;
        }
        let port = if free { candidate(uplink, hash, attempt) } else { scratch.packet.source_port };
        attempt += 1;
        if hub_claim(scratch, u32::from(port)) == 0 {
            leave_as(scratch);
            return 0;
        }
    }
    Reason::NoTranslation as u32
}

/// Enters both ways of a connection. Not 0 where another one has this port towards the same other end.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_claim(scratch: *mut Scratch, port: u32) -> u32 {
    let Some(scratch) = maps::own(scratch) else { return 1 };
    let port = port as u16;
    let packet = &scratch.packet;
    let own = scratch.masquerade.address;
    let target_port = if has_one_port(packet.protocol) { port } else { packet.target_port };
    let (outside, _) =
        FlowKey::between(&own, port, &packet.target, target_port, packet.protocol, packet.kind);
    scratch.outside = outside;
    scratch.outside.zone = ZONE_OUTSIDE;
    scratch.masquerade.address = packet.source;
    scratch.masquerade.port = packet.source_port;
    scratch.masquerade.pair = scratch.key;
    let claimed = MASQUERADES.insert(scratch.outside, scratch.masquerade, NO_EXIST).is_ok();
    scratch.masquerade.address = own;
    scratch.masquerade.port = port;
    if !claimed {
        return 1;
    }
    scratch.masquerade.pair = scratch.outside;
    if MASQUERADES.insert(scratch.key, scratch.masquerade, 0).is_err() {
        MASQUERADES.remove(scratch.outside).ok();
        return 1;
    }
    0
}

/// What came in by an uplink for the hub's address: the way back of a connection, or an error about one.
/// Sets what is wanted, if anything.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_unmasquerade(scratch: *mut Scratch) -> u32 {
    let Some(scratch) = maps::own(scratch) else { return 0 };
    // SAFETY: entries are replaced whole, never edited in place.
    let Some(uplink) = (unsafe { UPLINKS.get(scratch.ingress_ifindex) }) else { return 0 };
    if *own(uplink, scratch) != scratch.packet.target {
        return 0;
    }
    if scratch.packet.has(PACKET_FRAGMENT_LATER) && !fragment::complete(scratch) {
        return 0;
    }
    let error = scratch.packet.has(PACKET_ICMP_ERROR);
    let (mut key, _) = if error { FlowKey::of_inner(&scratch.packet) } else { FlowKey::of(&scratch.packet) };
    key.zone = ZONE_OUTSIDE;
    scratch.key = key;
    // SAFETY: as above.
    let Some(entry) = (unsafe { MASQUERADES.get(scratch.key) }) else { return 0 };
    if scratch.packet.has(PACKET_FRAGMENT_FIRST) && !error {
        fragment::remember(scratch);
    }
    let wanted = &mut scratch.wanted;
    wanted.target = entry.address;
    if error {
        wanted.inner_source = entry.address;
        wanted.inner_source_port = entry.port;
        if has_one_port(scratch.packet.inner.protocol) {
            wanted.inner_target_port = entry.port;
        }
        return 0;
    }
    wanted.source_port = scratch.packet.source_port;
    wanted.target_port = entry.port;
    if has_one_port(scratch.packet.protocol) {
        wanted.source_port = entry.port;
    }
    0
}
