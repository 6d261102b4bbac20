//! ARP and neighbour discovery at ports of translated personas: members know native addresses, the kernel
//! of the hub knows the main view.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_l4_csum_replace, bpf_skb_store_bytes};
use hub_common::address::mapped;
use hub_common::checksum::fold;
use hub_common::outcome::Scratch;
use hub_common::parse::{Bytes as _, ETHERNET_BYTES};
use hub_common::translation::difference;

use crate::headers::frame;
use crate::stage::translate::replace;

/// Neighbour solicitation and advertisement (RFC 4861).
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// Where an ARP packet has the addresses of its sender and of whom it asks (RFC 826).
const ARP_ADDRESSES: [u32; 2] = [14, 24];

/// Replaces both addresses of an ARP packet. Returns 0 when all is well.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_arp(skb: *mut __sk_buff, scratch: *mut Scratch, side: u32) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return 1 };
    let l3 = u32::from(scratch.packet.l3_offset) & 0xff;
    let mut at = 0;
    while at < 2 {
        let offset = l3 + if at == 0 { ARP_ADDRESSES[0] } else { ARP_ADDRESSES[1] };
        at += 1;
        // Shorter than ARP for IPv4: the kernel drops it.
        let Some(address) = frame(skb).read::<4>(offset as usize) else { return 0 };
        scratch.wanted.source = mapped(address);
        if replace(scratch.port.segment, side, &mut scratch.wanted.source) {
            let bytes = scratch.wanted.source.as_ptr().wrapping_add(12).cast();
            // SAFETY: the context is the hook's own; the last four bytes of the address are read.
            if unsafe { bpf_skb_store_bytes(skb, offset, bytes, 4, 0) } != 0 {
                return 1;
            }
        }
        let replaced = scratch.wanted.source;
        if at == 1 {
            scratch.packet.source = replaced;
        } else {
            scratch.packet.target = replaced;
            scratch.packet.inner.target = replaced;
        }
    }
    0
}

/// Replaces the address that a neighbour message is about; those of the IP header are in `wanted` already,
/// but for the multicast group that the address stands for. Returns 0 when all is well.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_neighbour(skb: *mut __sk_buff, scratch: *mut Scratch, side: u32) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return 1 };
    let packet = &scratch.packet;
    if packet.icmp_type != SOLICITATION && packet.icmp_type != ADVERTISEMENT {
        return 0;
    }
    let l3 = u32::from(packet.l3_offset) & 0xff;
    let l4 = u32::from(packet.l4_offset) & 0x1fff;
    let Some(about) = frame(skb).read::<16>(l4 as usize + 8) else { return 0 };
    scratch.wanted.inner_target = about;
    if !replace(scratch.port.segment, side, &mut scratch.wanted.inner_target) {
        return 0;
    }
    let new = scratch.wanted.inner_target;
    scratch.packet.inner.target = new;
    let sum = u64::from(fold(difference(0, &about, &new)).to_be());
    // SAFETY: the context is the hook's own; sixteen bytes are read from the address.
    let mut failed = unsafe {
        bpf_skb_store_bytes(skb, l4 + 8, scratch.wanted.inner_target.as_ptr().cast(), 16, 0)
            | bpf_l4_csum_replace(skb, l4 + 2, 0, sum, 0)
    };
    let group = &mut scratch.wanted.target;
    if group[0] == 0xff && group[12] == 0xff {
        group[13] = new[13];
        group[14] = new[14];
        group[15] = new[15];
        if l3 >= ETHERNET_BYTES as u32 {
            let bytes = group.as_ptr().wrapping_add(13).cast();
            // SAFETY: as above; three bytes are read.
            failed |= unsafe { bpf_skb_store_bytes(skb, 3, bytes, 3, 0) };
        }
    }
    u32::from(failed != 0)
}
