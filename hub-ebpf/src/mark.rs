//! What a packet of TC carries to the queues and to the network: class, time of departure and code point.
//!
//! The class travels from `hub_tc_in` to `hub_tc_out` as `tc_index`, because forwarding by the kernel
//! overwrites the priority (`ip_forward`), and becomes the priority there: HTB takes it for the number of a
//! leaf. It ends there, so that no other hub behind a veth takes it for its own. The time of departure is a
//! delivery time of the packet from the start: forwarding keeps those, and `fq` holds the packet until then.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_l3_csum_replace, bpf_skb_set_tstamp, bpf_skb_store_bytes};
use hub_common::outcome::Scratch;
use hub_common::packet::PACKET_V4;
use hub_common::parse::Bytes as _;
use hub_common::shape::QUEUE_MAJOR;

use crate::headers::frame;
use crate::rewrite;
use crate::tc::RECOMPUTE_CSUM;

/// `BPF_SKB_TSTAMP_DELIVERY_MONO`: a time to leave at, by the clock of `bpf_ktime_get_ns`.
const DELIVERY_MONO: u32 = 1;
/// Offset of the checksum in the IPv4 header.
const V4_CHECKSUM: u32 = 10;

/// Gives a judged packet its class and code point.
#[inline(always)]
pub(crate) fn into(skb: *mut __sk_buff, scratch: &Scratch) {
    // SAFETY: a field of the context. Stored in any case: what came with the packet is not the hub's.
    unsafe { (*skb).tc_index = scratch.class };
    if scratch.dscp != 0 || scratch.departure_ns != 0 {
        hub_mark_tc(skb, scratch);
    }
}

/// Takes away what came with a packet that has no class.
#[inline(always)]
pub(crate) fn none(skb: *mut __sk_buff) {
    // SAFETY: a field of the context.
    unsafe { (*skb).tc_index = 0 };
}

/// Turns the class of a packet that leaves into its priority.
#[inline(always)]
pub(crate) fn out(skb: *mut __sk_buff) {
    // SAFETY: a field of the context.
    let class = unsafe { (*skb).tc_index };
    if class != 0 {
        // SAFETY: as above.
        unsafe { (*skb).priority = QUEUE_MAJOR | class };
        // SAFETY: as above.
        unsafe { (*skb).tc_index = 0 };
    }
}

/// Writes time of departure and code point. A packet that cannot be written to leaves as it came.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_mark_tc(skb: *mut __sk_buff, scratch: *const Scratch) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_ref() }) else { return 0 };
    if scratch.departure_ns != 0 {
        // SAFETY: the context is the hook's own.
        unsafe { bpf_skb_set_tstamp(skb, scratch.departure_ns, DELIVERY_MONO) };
        // SAFETY: a field of the context. `fq` lets what has the priority of control packets go at once.
        unsafe { (*skb).priority = 0 };
    }
    if scratch.dscp == 0 {
        return 0;
    }
    let offset = u32::from(scratch.packet.l3_offset) & 0xff;
    let is_v4 = scratch.packet.has(PACKET_V4);
    let Some(old) = frame(skb).read::<2>(offset as usize) else { return 0 };
    let new = rewrite::code_point(old, is_v4, (scratch.dscp as u8).wrapping_sub(1));
    if new == old {
        return 0;
    }
    if is_v4 {
        let (from, to) = (u64::from(u16::from_ne_bytes(old)), u64::from(u16::from_ne_bytes(new)));
        // SAFETY: the context is the hook's own. Two bytes of the header sum change with two bytes of the sum.
        if unsafe { bpf_l3_csum_replace(skb, offset + V4_CHECKSUM, from, to, 2) } != 0 {
            return 0;
        }
    }
    let recompute = if is_v4 { 0 } else { RECOMPUTE_CSUM };
    // SAFETY: the context is the hook's own; two bytes are read from the array.
    u32::from(unsafe { bpf_skb_store_bytes(skb, offset, new.as_ptr().cast(), 2, recompute) } != 0)
}
