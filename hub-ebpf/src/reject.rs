//! Answers a rejected packet out of the port it came in on, or into the port that it was to leave by (TC).

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_skb_change_tail, bpf_skb_store_bytes};
use hub_common::address::is_multicast;
use hub_common::checksum::fold;
use hub_common::outcome::{OUTCOME_RESET_ON, Scratch};
use hub_common::packet::{PACKET_FRAGMENT_LATER, PACKET_V4, PACKET_V6, TCP_ACK, TCP_RST, protocol};
use hub_common::parse::{Bytes as _, ETHERNET_BYTES};
use hub_common::reply::{
    self, ERROR_V4_BYTES, ERROR_V6_BYTES, QUOTE_V4_BYTES, QUOTE_V4_OFFSET, QUOTE_V6_BYTES, QUOTE_V6_OFFSET,
    RESET_V4_BYTES, RESET_V6_BYTES,
};
use hub_common::segment::PORT_L3_ONLY;

use crate::maps::REPLY_GATE;

/// Answers per tick and CPU; more rejected packets than that drop in silence (RFC 1812 section 4.3.2.8).
const REPLIES_PER_TICK: u64 = 4;
/// `BPF_F_RECOMPUTE_CSUM | BPF_F_INVALIDATE_HASH`.
const STORE_FLAGS: u64 = 3;

/// Turns the packet into the answer to it. Returns 0 where there is none.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_reject(skb: *mut __sk_buff, scratch: *mut Scratch) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return 0 };
    let packet = &scratch.packet;
    let answerable = packet.has_any(PACKET_V4 | PACKET_V6)
        && !packet.has(PACKET_FRAGMENT_LATER)
        && !is_multicast(&packet.source)
        && packet.tcp_flags & TCP_RST == 0;
    // There are no more of those that both ends are told of than flows.
    let once = scratch.outcome.flags & OUTCOME_RESET_ON != 0;
    if !answerable || (!once && !gate(scratch.tick)) {
        return 0;
    }
    let bare = scratch.port.flags & PORT_L3_ONLY != 0;
    scratch.ethernet = [0; ETHERNET_BYTES + 2];
    if !bare {
        let Some(ethernet) = crate::headers::frame(skb).read::<ETHERNET_BYTES>(0) else { return 0 };
        scratch.ethernet[..ETHERNET_BYTES].copy_from_slice(&ethernet);
    }
    let length = if scratch.packet.protocol == protocol::TCP {
        hub_build_reset(skb, scratch)
    } else {
        hub_build_error(skb, scratch)
    };
    if length == 0 { 0 } else { send(skb, scratch, length as usize, bare) }
}

#[inline(always)]
fn gate(tick: u64) -> bool {
    let Some(state) = REPLY_GATE.get_ptr_mut(0) else { return false };
    // SAFETY: a per-CPU element; only this CPU writes it.
    let state = unsafe { &mut *state };
    if state[0] != tick {
        *state = [tick, 0];
    }
    state[1] += 1;
    state[1] <= REPLIES_PER_TICK
}

/// Builds a TCP reset into the scratch space. Returns its frame length, 0 where it cannot be built.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_build_reset(skb: *mut __sk_buff, scratch: *mut Scratch) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return 0 };
    let frame = crate::headers::frame(skb);
    let offset = usize::from(scratch.packet.l4_offset) & 0xfff;
    let Some(header) = frame.read::<20>(offset) else { return 0 };
    let packet = &scratch.packet;
    let segment_bytes =
        packet.length_bytes.wrapping_sub(u32::from(packet.l4_offset.wrapping_sub(packet.l3_offset)));
    // A checksum field that holds just the pseudo header's sum is one that hardware is to complete.
    let pseudo = reply::pseudo_header(packet, protocol::TCP, segment_bytes);
    let partial = u16::from_be_bytes([header[16], header[17]]) == fold(pseudo);
    let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    scratch.reset = [sequence, u32::from(partial)];
    reply::reset(packet, &scratch.ethernet, &header, partial, &mut scratch.reply);
    if packet.has(PACKET_V4) { RESET_V4_BYTES as u32 } else { RESET_V6_BYTES as u32 }
}

/// Builds an ICMP error into the scratch space. Returns its frame length, 0 where it cannot be built.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_build_error(skb: *mut __sk_buff, scratch: *mut Scratch) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return 0 };
    let frame = crate::headers::frame(skb);
    let offset = usize::from(scratch.packet.l3_offset) & 0xff;
    if scratch.packet.has(PACKET_V4) {
        let Some(quote) = frame.read::<QUOTE_V4_BYTES>(offset) else { return 0 };
        scratch.reply[QUOTE_V4_OFFSET..QUOTE_V4_OFFSET + QUOTE_V4_BYTES].copy_from_slice(&quote);
        reply::error(&scratch.packet, &scratch.ethernet, &mut scratch.reply);
        ERROR_V4_BYTES as u32
    } else {
        let Some(quote) = frame.read::<QUOTE_V6_BYTES>(offset) else { return 0 };
        scratch.reply[QUOTE_V6_OFFSET..QUOTE_V6_OFFSET + QUOTE_V6_BYTES].copy_from_slice(&quote);
        reply::error(&scratch.packet, &scratch.ethernet, &mut scratch.reply);
        ERROR_V6_BYTES as u32
    }
}

/// Turns an answer that [`hub_reject`] made into the reset for the other end, as its sender would send it: with the
/// sequence number that is expected there. Returns 0 where that cannot be done.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_reset_on(skb: *mut __sk_buff, scratch: *mut Scratch) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return 0 };
    let packet = &mut scratch.packet;
    // The answer to the answer.
    (packet.source, packet.target) = (packet.target, packet.source);
    (packet.source_port, packet.target_port) = (packet.target_port, packet.source_port);
    packet.tcp_flags = TCP_ACK;
    let mut at = 0;
    while at < 6 {
        let (one, other) = (scratch.ethernet[at], scratch.ethernet[at + 6]);
        (scratch.ethernet[at], scratch.ethernet[at + 6]) = (other, one);
        at += 1;
    }
    let [from, to] = [packet.source_port.to_be_bytes(), packet.target_port.to_be_bytes()];
    let sequence = scratch.reset[0].to_be_bytes();
    let mut header = [0; 20];
    header[..2].copy_from_slice(&from);
    header[2..4].copy_from_slice(&to);
    header[8..12].copy_from_slice(&sequence);
    let partial = scratch.reset[1] != 0;
    reply::reset(&scratch.packet, &scratch.ethernet, &header, partial, &mut scratch.reply);
    let length = if scratch.packet.has(PACKET_V4) { RESET_V4_BYTES } else { RESET_V6_BYTES };
    send(skb, scratch, length, scratch.port.flags & PORT_L3_ONLY != 0)
}

#[inline(always)]
fn send(skb: *mut __sk_buff, scratch: &Scratch, length: usize, bare: bool) -> u32 {
    let skip = if bare { ETHERNET_BYTES } else { 0 };
    let bytes = (length - skip) as u32;
    // SAFETY: the context is the hook's own.
    if unsafe { bpf_skb_change_tail(skb, bytes, 0) } != 0 {
        return 0;
    }
    // VERIFIER(6.1): comparing with the four lengths there are bounds nothing once the calls are merged into
    // one; a mask does. No answer is longer than 128 bytes.
    let bounded = (bytes.wrapping_sub(1) & 0x7f) + 1;
    let from = scratch.reply.as_ptr().wrapping_add(skip);
    // SAFETY: the answer lies in the buffer; with `skip` even 128 bytes end within the working space.
    let stored = unsafe { bpf_skb_store_bytes(skb, 0, from.cast(), bounded, STORE_FLAGS) == 0 };
    u32::from(stored)
}
