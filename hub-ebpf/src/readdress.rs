//! Writes other addresses and ports into a packet (TC), with every checksum that covers them.
//!
//! The kernel's helpers know about checksums that the hardware completes later, or has summed up already.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_store_bytes};
use hub_common::checksum::fold;
use hub_common::event::Reason;
use hub_common::outcome::Scratch;
use hub_common::packet::{PACKET_FRAGMENT_LATER, PACKET_V4, Packet, protocol};
use hub_common::parse::{Bytes as _, FRAGMENT, FRAGMENT_BYTES};
use hub_common::translation::{adjust, difference, word_difference};

use crate::headers::frame;
use crate::stage::translate::inner_differs;

/// `BPF_F_PSEUDO_HDR`: the checksum covers addresses.
const PSEUDO_HEADER: u64 = 1 << 4;
/// `BPF_F_MARK_MANGLED_0`: 0 means that there is no checksum.
const ZERO_IS_NONE: u64 = 1 << 5;
/// `BPF_F_IPV6`: no checksum of the IP header makes up for the addresses (Linux 6.16).
const NO_HEADER_SUM: u64 = 1 << 7;
/// `BPF_F_INVALIDATE_HASH`.
const FORGET_HASH: u64 = 2;
/// Bounds offsets that were read from memory.
const OFFSET_MASK: u32 = 0x1fff;

/// DCCP (RFC 4340).
const DCCP: u8 = 33;
/// UDP-Lite (RFC 3828).
const UDP_LITE: u8 = 136;

/// Makes the packet carry what is wanted, the quoted packet of an ICMP error too. Returns a reason number,
/// 0 when all is well.
#[inline(always)]
pub(crate) fn readdress(skb: *mut __sk_buff, scratch: &mut Scratch) -> u32 {
    if inner_differs(scratch) && hub_readdress_inner(skb, scratch) != 0 {
        return Reason::Internal as u32;
    }
    hub_readdress(skb, scratch)
}

/// Offset of the checksum in a transport header that covers addresses, and how to treat it.
#[inline(always)]
const fn covered(packet: &Packet) -> Option<(u32, u64)> {
    match packet.protocol {
        protocol::TCP => Some((16, PSEUDO_HEADER)),
        protocol::UDP => Some((6, PSEUDO_HEADER | ZERO_IS_NONE)),
        DCCP | UDP_LITE => Some((6, PSEUDO_HEADER)),
        protocol::ICMPV6 if !packet.has(PACKET_V4) => Some((2, PSEUDO_HEADER)),
        _ => None,
    }
}

/// The kernel's form of a running sum: words as they lie in memory.
#[inline(always)]
const fn sum_word(sum: u32) -> u64 {
    fold(sum).to_be() as u64
}

/// Rewrites addresses and ports of the packet itself.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_readdress(skb: *mut __sk_buff, scratch: *mut Scratch) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return Reason::Internal as u32 };
    let (packet, wanted) = (&mut scratch.packet, &scratch.wanted);
    let l3 = u32::from(packet.l3_offset) & 0xff;
    let l4 = u32::from(packet.l4_offset) & OFFSET_MASK;
    let v4 = packet.has(PACKET_V4);
    let sum = difference(0, &packet.source, &wanted.source);
    let sum = sum_word(difference(sum, &packet.target, &wanted.target));
    let mut failed = 0;
    if !packet.has(PACKET_FRAGMENT_LATER) {
        if let Some((at, flags)) = covered(packet) {
            // SAFETY: the context is the hook's own; the kernel checks the offset.
            failed |= unsafe { sum_addresses(skb, l4 + at, sum, flags, v4) };
        }
        if packet.source_port != wanted.source_port || packet.target_port != wanted.target_port {
            failed |= hub_ports(skb, scratch);
        }
    }
    let (packet, wanted) = (&mut scratch.packet, &scratch.wanted);
    // SAFETY: the context is the hook's own; each store reads as many bytes as the address has from there.
    unsafe {
        let (source, target) = (wanted.source.as_ptr(), wanted.target.as_ptr());
        if v4 {
            failed |= bpf_l3_csum_replace(skb, l3 + 10, 0, sum, 0);
            failed |= bpf_skb_store_bytes(skb, l3 + 12, source.wrapping_add(12).cast(), 4, FORGET_HASH);
            failed |= bpf_skb_store_bytes(skb, l3 + 16, target.wrapping_add(12).cast(), 4, FORGET_HASH);
        } else {
            failed |= bpf_skb_store_bytes(skb, l3 + 8, source.cast(), 16, FORGET_HASH);
            failed |= bpf_skb_store_bytes(skb, l3 + 24, target.cast(), 16, FORGET_HASH);
        }
    }
    packet.source = wanted.source;
    packet.target = wanted.target;
    if failed == 0 { 0 } else { Reason::Internal as u32 }
}

/// Tells a transport checksum about replaced addresses.
#[inline(always)]
unsafe fn sum_addresses(skb: *mut __sk_buff, at: u32, sum: u64, flags: u64, v4: bool) -> i64 {
    // SAFETY: the caller's context.
    unsafe {
        if !v4 && bpf_l4_csum_replace(skb, at, 0, sum, flags | NO_HEADER_SUM) == 0 {
            return 0;
        }
        // Kernels that do not know the flag refuse it and change nothing.
        bpf_l4_csum_replace(skb, at, 0, sum, flags)
    }
}

/// Rewrites ports, or the identifier of an ICMP query.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_ports(skb: *mut __sk_buff, scratch: *mut Scratch) -> i64 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return 1 };
    let (packet, wanted) = (&mut scratch.packet, &scratch.wanted);
    let l4 = u32::from(packet.l4_offset) & OFFSET_MASK;
    let icmp = packet.protocol == protocol::ICMP || packet.protocol == protocol::ICMPV6;
    let (at, flags) = match packet.protocol {
        protocol::TCP => (16, 0),
        protocol::UDP => (6, ZERO_IS_NONE),
        _ if icmp => (2, 0),
        _ => return 1,
    };
    let mut sum = word_difference(0, packet.source_port, wanted.source_port);
    if !icmp {
        sum = word_difference(sum, packet.target_port, wanted.target_port);
    }
    let ports = [wanted.source_port.to_be(), wanted.target_port.to_be()];
    let (place, bytes) = if icmp { (4, 2) } else { (0, 4) };
    // SAFETY: the context is the hook's own; two or four bytes are read from the array.
    let failed = unsafe {
        bpf_l4_csum_replace(skb, l4 + at, 0, sum_word(sum), flags)
            | bpf_skb_store_bytes(skb, l4 + place, ports.as_ptr().cast(), bytes, FORGET_HASH)
    };
    packet.source_port = wanted.source_port;
    packet.target_port = wanted.target_port;
    failed
}

/// Rewrites the packet that an ICMP error quotes: addresses, ports and the checksums that are quoted too.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_readdress_inner(skb: *mut __sk_buff, scratch: *mut Scratch) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return 1 };
    let (packet, wanted) = (&mut scratch.packet, &scratch.wanted);
    let (inner, v4) = (&mut packet.inner, packet.flags & PACKET_V4 != 0);
    let outer_l4 = usize::from(packet.l4_offset) & OFFSET_MASK as usize;
    let l3 = outer_l4 + 8;
    let frame = frame(skb);
    let addresses = difference(0, &inner.source, &wanted.inner_source);
    let addresses = difference(addresses, &inner.target, &wanted.inner_target);
    let ports = word_difference(0, inner.source_port, wanted.inner_source_port);
    let same_ports =
        inner.source_port == wanted.inner_source_port && inner.target_port == wanted.inner_target_port;
    let icmp = inner.protocol == protocol::ICMP || inner.protocol == protocol::ICMPV6;
    let ports =
        if icmp { ports } else { word_difference(ports, inner.target_port, wanted.inner_target_port) };
    let mut total = u32::from(fold(addresses));
    let mut l4 = l3 + 40;
    let mut header_sum = [0; 2];
    if !v4 {
        let Some([next, _]) = frame.read::<2>(l3 + 6) else { return 1 };
        if next == FRAGMENT {
            l4 += FRAGMENT_BYTES;
        }
    }
    if v4 {
        let Some([version, _]) = frame.read::<2>(l3) else { return 1 };
        l4 = l3 + usize::from(version & 0xf) * 4;
        let Some(old) = frame.read::<2>(l3 + 10) else { return 1 };
        header_sum = adjust(u16::from_be_bytes(old), addresses).to_be_bytes();
        total = word_difference(total, u16::from_be_bytes(old), u16::from_be_bytes(header_sum));
    }
    if !same_ports {
        total = word_difference(total, 0, fold(ports));
    }
    // Its own checksum, where it is quoted: the sender compares nothing, but what it sees is what it sent.
    let (at, both) = match inner.protocol {
        protocol::TCP => (16, true),
        protocol::UDP => (6, true),
        protocol::ICMPV6 => (2, true),
        protocol::ICMP => (2, false),
        _ => (0, false),
    };
    let quoted = (packet.length_bytes as usize).wrapping_add(usize::from(packet.l3_offset));
    let mut inner_sum = None;
    if at != 0
        && l4 + at + 2 <= quoted
        && let Some(old) = frame.read::<2>(l4 + at)
        && (inner.protocol != protocol::UDP || old != [0; 2])
    {
        let change = if both { u32::from(fold(addresses)) } else { 0 };
        let change = if same_ports { change } else { change + u32::from(fold(ports)) };
        let new = adjust(u16::from_be_bytes(old), change);
        total = word_difference(total, u16::from_be_bytes(old), new);
        inner_sum = Some(new.to_be_bytes());
    }
    let (source, target) = (wanted.inner_source.as_ptr(), wanted.inner_target.as_ptr());
    let l3 = l3 as u32;
    let l4 = l4 as u32;
    // SAFETY: the context is the hook's own; each store reads as many bytes as it says from what it points at.
    let failed = unsafe {
        let mut failed = 0;
        if v4 {
            failed |= bpf_skb_store_bytes(skb, l3 + 10, header_sum.as_ptr().cast(), 2, 0);
            failed |= bpf_skb_store_bytes(skb, l3 + 12, source.wrapping_add(12).cast(), 4, 0);
            failed |= bpf_skb_store_bytes(skb, l3 + 16, target.wrapping_add(12).cast(), 4, 0);
        } else {
            failed |= bpf_skb_store_bytes(skb, l3 + 8, source.cast(), 16, 0);
            failed |= bpf_skb_store_bytes(skb, l3 + 24, target.cast(), 16, 0);
        }
        if !same_ports {
            let ports = [wanted.inner_source_port.to_be(), wanted.inner_target_port.to_be()];
            let (place, bytes) = if icmp { (4, 2) } else { (0, 4) };
            failed |= bpf_skb_store_bytes(skb, l4 + place, ports.as_ptr().cast(), bytes, 0);
        }
        if let Some(sum) = inner_sum {
            failed |= bpf_skb_store_bytes(skb, l4 + at as u32, sum.as_ptr().cast(), 2, 0);
        }
        failed | bpf_l4_csum_replace(skb, outer_l4 as u32 + 2, 0, sum_word(total), 0)
    };
    inner.source = wanted.inner_source;
    inner.target = wanted.inner_target;
    inner.source_port = wanted.inner_source_port;
    inner.target_port = wanted.inner_target_port;
    u32::from(failed != 0)
}
