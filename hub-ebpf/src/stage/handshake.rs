//! How long TCP handshakes take: from the first SYN to the ACK that ends the handshake, as the hub sees it.
//!
//! Of every connection that has a flow, and once for each. A repeated SYN makes the time meaningless: it is not
//! counted. The time of the SYN lies in the flow, so that a connection costs two looks at the clock and no map.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use hub_common::flow::{Flow, is_opening};
use hub_common::packet::{Packet, TCP_ACK, protocol};
use hub_common::shape::{Histogram, RTT_BUCKETS, bucket};

use crate::maps::RTTS;

/// What a segment's histogram begins as; too large for the stack.
static EMPTY: Histogram = Histogram::ZERO;

/// What a flow that begins with this packet has as its `syn_us`.
#[inline(always)]
pub(crate) fn begin(packet: &Packet) -> u32 {
    if packet.protocol != protocol::TCP || !is_opening(packet.tcp_flags) {
        return 0;
    }
    // SAFETY: a helper without arguments.
    Flow::syn_at(unsafe { bpf_ktime_get_ns() })
}

/// Counts the handshake if this packet ends it: the first ACK of the end that opened the connection. The flow does
/// not have the packet's flags yet.
#[inline(always)]
pub(crate) fn end(packet: &Packet, flow: &mut Flow, direction: usize) {
    let began = flow.syn_us;
    if began == 0 || direction != 0 || packet.tcp_flags & !flow.tcp_seen[0] & TCP_ACK == 0 {
        return;
    }
    flow.syn_us = 0;
    hub_handshake(began, flow.segment[0], flow.segment[1]);
}

/// Takes the time since a SYN into the histograms of both segments.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_handshake(began: u32, first: u32, second: u32) -> u32 {
    // SAFETY: a helper without arguments.
    let time_us = Flow::since_syn_us(began, unsafe { bpf_ktime_get_ns() });
    count(first, time_us);
    if second != first {
        count(second, time_us);
    }
    0
}

#[inline(always)]
fn count(id: u32, time_us: u64) {
    if id == 0 {
        return;
    }
    if RTTS.get_ptr_mut(id).is_none() {
        #[expect(clippy::needless_borrows_for_generic_args, reason = "a copy would not fit on the stack")]
        RTTS.insert(id, &EMPTY, 0).ok();
    }
    let Some(histogram) = RTTS.get_ptr_mut(id) else { return };
    // SAFETY: a per-CPU element; only this CPU writes it.
    let histogram = unsafe { &mut *histogram };
    let index = bucket(time_us);
    if index < RTT_BUCKETS {
        histogram.buckets[index] += 1;
    }
    histogram.sum_us += time_us;
}
