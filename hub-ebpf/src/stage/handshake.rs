//! How long TCP handshakes take: from the first SYN to the ACK that ends the handshake, as the hub sees it.
//!
//! Only for segments with `SEGMENT_TIMED`, and once for each connection. A repeated SYN makes the time
//! meaningless (Karn's algorithm, RFC 6298 section 3): it is not counted.

#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "what is lent needs no copy on the stack, which all callers share"
)]

use aya_ebpf::helpers::bpf_ktime_get_ns;
use hub_common::outcome::{OUTCOME_TIMED, Scratch};
use hub_common::packet::{TCP_ACK, protocol};
use hub_common::segment::SEGMENT_TIMED;
use hub_common::shape::{Histogram, RTT_BUCKETS, bucket};

use crate::maps::{HANDSHAKES, RTTS, SEGMENTS, own};

/// What a segment's histogram begins as; too large for the stack.
static EMPTY: Histogram = Histogram::ZERO;

/// Notes the first SYN of a connection.
#[inline(always)]
pub(crate) fn begin(scratch: &Scratch) {
    if scratch.outcome.flags & OUTCOME_TIMED != 0 && scratch.packet.protocol == protocol::TCP {
        // SAFETY: a helper without arguments.
        let now = unsafe { bpf_ktime_get_ns() };
        // An old entry under the key was of a connection that ended: it is replaced.
        HANDSHAKES.insert(&scratch.key, now, 0).ok();
    }
}

/// Forgets a connection whose SYN came again.
#[inline(always)]
pub(crate) fn forget(scratch: &Scratch) {
    if scratch.outcome.flags & OUTCOME_TIMED != 0 {
        HANDSHAKES.remove(&scratch.key).ok();
    }
}

/// Counts the handshake if this packet ends it: the first ACK of the end that opened the connection.
#[inline(always)]
pub(crate) fn end(scratch: &Scratch, segments: [u32; 2], direction: usize, seen: u8) {
    let packet = &scratch.packet;
    let ends = direction == 0 && packet.protocol == protocol::TCP && packet.tcp_flags & !seen & TCP_ACK != 0;
    if ends && (is_timed(segments[0]) || is_timed(segments[1])) {
        hub_handshake(scratch, segments[0], segments[1]);
    }
}

#[inline(always)]
fn is_timed(id: u32) -> bool {
    id != 0 && SEGMENTS.get(id).is_some_and(|segment| segment.flags & SEGMENT_TIMED != 0)
}

/// Takes the time of the handshake of the scratch's key into the histograms of both segments.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_handshake(scratch: *const Scratch, first: u32, second: u32) -> u32 {
    let Some(scratch) = own(scratch.cast_mut()) else { return 0 };
    // SAFETY: the value is one word, read once.
    let Some(began) = (unsafe { HANDSHAKES.get(scratch.key) }).copied() else { return 0 };
    HANDSHAKES.remove(scratch.key).ok();
    // SAFETY: a helper without arguments.
    let time_us = unsafe { bpf_ktime_get_ns() }.wrapping_sub(began) / 1_000;
    count(first, time_us);
    if second != first {
        count(second, time_us);
    }
    0
}

#[inline(always)]
fn count(id: u32, time_us: u64) {
    if !is_timed(id) {
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
