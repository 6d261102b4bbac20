//! Tells TCP how long its segments may be (RFC 4459 section 3.2): the MSS option of SYN and SYN-ACK is
//! lowered to what fits into the MTU of both personas.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_l4_csum_replace, bpf_skb_store_bytes};
use hub_common::outcome::Scratch;
use hub_common::packet::{PACKET_FRAGMENT_FIRST, PACKET_FRAGMENT_LATER, PACKET_V4, TCP_SYN, protocol};
use hub_common::parse::Bytes as _;

use crate::headers::frame;
use crate::maps::MTUS;

/// Options looked at; MSS comes first where stacks are honest.
const OPTIONS: u32 = 10;
/// Kind of the option with the maximum segment size, and its length (RFC 9293 section 3.2).
const MSS: [u8; 2] = [2, 4];

/// The smaller MTU of the segments involved, 0 for none.
#[inline(always)]
fn mtu(scratch: &Scratch) -> u32 {
    let mut least = u32::MAX;
    let mut side = 0;
    while side < 2 {
        let id = scratch.outcome.segment[side];
        // SAFETY: one word, read once.
        let mtu = unsafe { MTUS.get(id) };
        if let Some(mtu) = mtu {
            least = least.min(*mtu);
        }
        side += 1;
    }
    least
}

/// Lowers the option where it is there and larger. Returns 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_clamp(skb: *mut __sk_buff, scratch: *mut Scratch) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return 0 };
    let packet = &scratch.packet;
    if packet.protocol != protocol::TCP
        || packet.tcp_flags & TCP_SYN == 0
        || packet.has_any(PACKET_FRAGMENT_FIRST | PACKET_FRAGMENT_LATER)
    {
        return 0;
    }
    let headers = if packet.has(PACKET_V4) { 40 } else { 60 };
    let most = mtu(scratch).saturating_sub(headers).min(0xffff) as u16;
    let l4 = usize::from(packet.l4_offset) & 0x1fff;
    let end = usize::from(packet.l4_bytes) & 0x3f;
    let frame = frame(skb);
    let mut at = 20;
    let mut seen = 0;
    while seen < OPTIONS && at + 4 <= end {
        seen += 1;
        let Some([kind, length]) = frame.read::<2>(l4 + (at & 0x3f)) else { return 0 };
        if kind == 0 {
            return 0;
        }
        if kind == 1 {
            at += 1;
            continue;
        }
        if [kind, length] != MSS {
            if length < 2 {
                return 0;
            }
            at += usize::from(length);
            continue;
        }
        let offset = l4 + (at & 0x3f) + 2;
        let Some(old) = frame.read::<2>(offset) else { return 0 };
        if u16::from_be_bytes(old) > most {
            lower(skb, l4 as u32, offset as u32, old, most.to_be_bytes());
        }
        return 0;
    }
    0
}

#[inline(always)]
fn lower(skb: *mut __sk_buff, l4: u32, offset: u32, old: [u8; 2], new: [u8; 2]) {
    let word = |bytes: [u8; 2]| {
        let word = u16::from_ne_bytes(bytes);
        // Checksums count in pairs of bytes from the header's start.
        u64::from(if (offset - l4) & 1 == 1 { word.swap_bytes() } else { word })
    };
    // SAFETY: the context is the hook's own; two bytes are read. If the first fails the packet is as it was.
    unsafe {
        if bpf_l4_csum_replace(skb, l4 + 16, word(old), word(new), 2) == 0 {
            bpf_skb_store_bytes(skb, offset, new.as_ptr().cast(), 2, 0);
        }
    }
}
