//! The parser's steps on an skb, each a function that is verified once.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_skb_pull_data;
use aya_ebpf::programs::TcContext;
use hub_common::event::Reason;
use hub_common::limits::EXTENSION_HEADERS;
use hub_common::outcome::Scratch;
use hub_common::packet::{PACKET_OPTIONS, PACKET_V4, PACKET_V6, PACKET_VLAN, Packet};
use hub_common::parse;
use hub_common::segment::PORT_L3_ONLY;

use crate::packet::Frame;

/// Header bytes pulled into the linear part when the parser needs more than is there.
const PULL_BYTES: u32 = 2_304;

/// Added to a reason number where small numbers mean something else.
pub(crate) const REASON_BASE: u32 = 1_024;

/// The readable part of an skb.
#[inline(always)]
pub(crate) fn frame(skb: *mut __sk_buff) -> Frame {
    let ctx = TcContext::new(skb);
    Frame { start: ctx.data(), end: ctx.data_end(), bytes: ctx.len() as usize }
}

/// Parses, pulling headers into the linear part where they are not.
#[inline(always)]
pub(crate) fn read(skb: *mut __sk_buff, scratch: &mut Scratch) {
    let mut reason = parse_linear(skb, scratch);
    if reason == Reason::Truncated as u32 {
        let frame = frame(skb);
        if frame.end.wrapping_sub(frame.start) < frame.bytes {
            // SAFETY: the context is the hook's own. A failure leaves the packet as it was.
            let failed = unsafe { bpf_skb_pull_data(skb, PULL_BYTES.min((*skb).len)) } != 0;
            reason = if failed { Reason::Nonlinear as u32 } else { parse_linear(skb, scratch) };
        }
    }
    scratch.parse_reason = reason;
}

/// Parses the linear part of an skb. Returns a reason number, 0 when all is well.
#[inline(always)]
fn parse_linear(skb: *mut __sk_buff, scratch: &mut Scratch) -> u32 {
    let reason = hub_network_tc(skb, scratch);
    if reason != 0 || !scratch.packet.has_any(PACKET_V4 | PACKET_V6) {
        return reason;
    }
    if scratch.packet.has(PACKET_V4 | PACKET_OPTIONS) {
        let (mut at, mut options) = (0, 0);
        // Forty bytes hold at most forty options.
        while options < 40 && at < parse::v4_options_bytes(&scratch.packet) {
            at = hub_option_tc(skb, scratch, at);
            if at >= REASON_BASE {
                return at - REASON_BASE;
            }
            options += 1;
        }
    }
    let mut step = 0;
    while step <= EXTENSION_HEADERS && parse::has_extensions(&scratch.packet) {
        let reason = hub_extension_tc(skb, scratch, step);
        if reason != 0 {
            return reason;
        }
        step += 1;
    }
    hub_transport_tc(skb, scratch)
}

/// Looks at the IPv4 option at an offset into the options. Returns where the next begins, or
/// [`REASON_BASE`] and a reason number.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_option_tc(skb: *mut __sk_buff, scratch: *mut Scratch, at: u32) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return REASON_BASE + Reason::Internal as u32 };
    match parse::v4_option(&frame(skb), at, &scratch.packet) {
        Ok(next) => next,
        Err(reason) => REASON_BASE + reason as u32,
    }
}

/// Walks one IPv6 extension header. Returns a reason number, 0 when all is well.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_extension_tc(skb: *mut __sk_buff, scratch: *mut Scratch, step: u32) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return Reason::Internal as u32 };
    number(parse::extension(&frame(skb), step, &mut scratch.packet))
}

/// Parses the transport header. Returns a reason number, 0 when all is well.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_transport_tc(skb: *mut __sk_buff, scratch: *mut Scratch) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return Reason::Internal as u32 };
    number(parse::transport(&frame(skb), &mut scratch.packet))
}

/// The number of a parser's reason, 0 for none.
#[inline(always)]
pub(crate) fn number(parsed: Result<(), Reason>) -> u32 {
    match parsed {
        Ok(()) => 0,
        Err(reason) => reason as u32,
    }
}

/// Parses link and network header. Returns a reason number, 0 when all is well.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_network_tc(skb: *mut __sk_buff, scratch: *mut Scratch) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return Reason::Internal as u32 };
    let frame = frame(skb);
    let packet = &mut scratch.packet;
    *packet = Packet::ZERO;
    packet.zone = scratch.port.zone();
    // SAFETY: fields of the context.
    let (vlan, ethertype) = unsafe { ((*skb).vlan_present, (*skb).protocol as u16) };
    if vlan != 0 {
        packet.flags |= PACKET_VLAN;
    }
    let parsed = if scratch.port.flags & PORT_L3_ONLY != 0 {
        parse::network(&frame, u16::from_be(ethertype), 0, packet)
    } else {
        parse::ethernet(&frame, packet)
    };
    number(parsed)
}
