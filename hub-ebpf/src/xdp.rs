//! XDP entry point: the same decisions on raw frames, or none at all.

use core::ffi::c_void;

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_redirect, bpf_xdp_get_buff_len, bpf_xdp_load_bytes};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use hub_common::event::{HEADER_BYTES, Hook, Reason};
use hub_common::limits::{self, EXTENSION_HEADERS};
use hub_common::outcome::{SCRATCH_REDIRECTABLE, Scratch, VERDICT_DROP, VERDICT_REDIRECT, VERDICT_ROUTE};
use hub_common::packet::{PACKET_OPTIONS, PACKET_V4, PACKET_V6, PACKET_VLAN, Packet};
use hub_common::parse::{self, ETHERNET_BYTES};
use hub_common::segment::{PORT_TRANSLATED, Port, ROLE_SEGMENT, SETTINGS_ONE_BUFFER};

use crate::express::{Arrival, Lane, NO_EXPRESS, express};
use crate::headers::{REASON_BASE, number};
use crate::maps::{PORTS, SCRATCH, SETTINGS, own};
use crate::packet::Frame;
use crate::report::{self, hub_count_drop};
use crate::rewrite::Exit;
use crate::stage::commit::hub_commit;
use crate::stage::detect;
use crate::stage::route::route;
use crate::{pipeline, rewrite};

/// Judges what comes in on a port before the kernel makes an skb of it.
#[xdp(frags)]
pub(crate) fn hub_xdp_in(ctx: XdpContext) -> u32 {
    let ifindex = ctx.ingress_ifindex() as u32;
    // A port that is not in the table is being set up: TC decides.
    let Some(port) = PORTS.get(ifindex % limits::PORTS) else { return xdp_action::XDP_PASS };
    // Beyond a port of a translated persona addresses mean something else: TC knows what.
    let translated = port.role == ROLE_SEGMENT && port.flags & PORT_TRANSLATED != 0;
    if port.ifindex != ifindex || translated {
        return xdp_action::XDP_PASS;
    }
    if !frame(ctx.ctx, 0).is_to(&port.mac) {
        // Broadcast, multicast, or another host's: the kernel's business.
        return xdp_action::XDP_PASS;
    }
    let action = hub_express_xdp(ctx.ctx, port);
    if action != NO_EXPRESS {
        return action;
    }
    let Some(scratch) = SCRATCH.get_ptr_mut(Hook::XdpIn as u32) else { return xdp_action::XDP_PASS };
    // SAFETY: a per-CPU element of this hook; the hook does not nest.
    let scratch = unsafe { &mut *scratch };
    // SAFETY: a helper without arguments.
    scratch.tick = unsafe { bpf_jiffies64() };
    scratch.hook = Hook::XdpIn as u32;
    scratch.ingress_ifindex = ifindex;
    scratch.flags = 0;
    scratch.due = 0;
    scratch.responses = 0;
    scratch.class = 0;
    scratch.dscp = 0;
    scratch.port = *port;
    if !read(ctx.ctx, scratch) {
        return xdp_action::XDP_PASS;
    }
    let packet = &scratch.packet;
    scratch.wire_bytes = packet.length_bytes;
    scratch.packets = 1;
    scratch.bytes = packet.length_bytes;
    if packet.ttl > 1 && !packet.has_any(PACKET_OPTIONS | PACKET_VLAN) {
        scratch.flags |= SCRATCH_REDIRECTABLE;
    }
    let mut verdict = pipeline::judge(scratch);
    if verdict == VERDICT_ROUTE {
        hub_route_xdp(ctx.ctx, scratch);
        verdict = hub_commit(scratch);
        detect::passed(scratch, verdict);
    }
    // Whatever else it is, TC decides and is looked on there.
    if verdict == VERDICT_REDIRECT || verdict == VERDICT_DROP {
        pipeline::look_on(scratch, verdict);
    }
    if verdict == VERDICT_DROP {
        hub_count_drop(scratch);
        detect::hub_detect(scratch);
    }
    if scratch.due != 0 {
        hub_tell_xdp(ctx.ctx, scratch);
    }
    match verdict {
        VERDICT_REDIRECT => {
            let packet = &scratch.packet;
            let exit = Exit::from(&scratch.outcome.hop);
            send(frame(ctx.ctx, 0), rewrite::l3(packet), packet.has(PACKET_V4), &exit)
        }
        VERDICT_DROP => {
            report::total(Hook::XdpIn as u32, |totals| totals.dropped += 1);
            xdp_action::XDP_DROP
        }
        _ => xdp_action::XDP_PASS,
    }
}

/// The express lane with XDP's context: what XDP is to do, or [`NO_EXPRESS`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_express_xdp(ctx: *mut xdp_md, port: *const Port) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(port) = (unsafe { port.as_ref() }) else { return NO_EXPRESS };
    let Some(settings) = SETTINGS.get(0) else { return NO_EXPRESS };
    // SAFETY: a field of the context.
    let ifindex = unsafe { (*ctx).ingress_ifindex };
    // SAFETY: a helper without arguments.
    let tick = unsafe { bpf_jiffies64() };
    let frame = frame(ctx, 0);
    let arrival = Arrival { frame, port, ifindex, gso_bytes: 0, packets: 1, hook: Hook::XdpIn, tick };
    match express(&arrival, settings) {
        Lane::Stages => NO_EXPRESS,
        Lane::Leaves(exit, v4) => send(frame, ETHERNET_BYTES, v4, &exit),
        Lane::Drop(reason) => {
            report::bare_drop(Hook::XdpIn as u32, reason);
            xdp_action::XDP_DROP
        }
    }
}

/// Parses; a frame in several buffers is measured whole only when its headers ask for it. False if it is one that
/// the kernel could not redirect: TC decides.
#[inline(always)]
fn read(ctx: *mut xdp_md, scratch: &mut Scratch) -> bool {
    let mut reason = parse_first_buffer(ctx, scratch, 0);
    if reason == Reason::Truncated as u32 {
        // SAFETY: the context is the hook's own.
        let whole = unsafe { bpf_xdp_get_buff_len(ctx) } as u32;
        // SAFETY: fields of the context.
        let linear = unsafe { (*ctx).data_end.wrapping_sub((*ctx).data) };
        if whole > linear {
            if SETTINGS.get(0).is_none_or(|settings| settings.flags & SETTINGS_ONE_BUFFER != 0) {
                return false;
            }
            reason = parse_first_buffer(ctx, scratch, whole);
            if reason == Reason::Truncated as u32 {
                reason = Reason::Nonlinear as u32;
            }
        }
    }
    scratch.parse_reason = reason;
    true
}

/// Parses the first buffer of a frame of `whole` bytes, or of one that is all there when `whole` is 0.
#[inline(always)]
fn parse_first_buffer(ctx: *mut xdp_md, scratch: &mut Scratch, whole: u32) -> u32 {
    let reason = hub_network_xdp(ctx, scratch, whole);
    if reason != 0 || !scratch.packet.has_any(PACKET_V4 | PACKET_V6) {
        return reason;
    }
    if scratch.packet.has(PACKET_V4 | PACKET_OPTIONS) {
        let (mut at, mut options) = (0, 0);
        // Forty bytes hold at most forty options.
        while options < 40 && at < parse::v4_options_bytes(&scratch.packet) {
            at = hub_option_xdp(ctx, scratch, at);
            if at >= REASON_BASE {
                return at - REASON_BASE;
            }
            options += 1;
        }
    }
    let mut step = 0;
    while step <= EXTENSION_HEADERS && parse::has_extensions(&scratch.packet) {
        let reason = hub_extension_xdp(ctx, scratch, step);
        if reason != 0 {
            return reason;
        }
        step += 1;
    }
    hub_transport_xdp(ctx, scratch)
}

#[inline(always)]
fn frame(ctx: *mut xdp_md, whole: u32) -> Frame {
    let ctx = XdpContext::new(ctx);
    let (start, end) = (ctx.data(), ctx.data_end());
    let bytes = if whole == 0 { end.wrapping_sub(start) } else { whole as usize };
    Frame { start, end, bytes }
}

/// Parses link and network header. Returns a reason number, 0 when all is well.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_network_xdp(ctx: *mut xdp_md, scratch: *mut Scratch, whole: u32) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return Reason::Internal as u32 };
    scratch.packet = Packet::ZERO;
    number(parse::ethernet(&frame(ctx, whole), &mut scratch.packet))
}

/// Looks at the IPv4 option at an offset into the options. Returns where the next begins, or
/// [`REASON_BASE`] and a reason number.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_option_xdp(ctx: *mut xdp_md, scratch: *mut Scratch, at: u32) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return REASON_BASE + Reason::Internal as u32 };
    match parse::v4_option(&frame(ctx, 0), at, &scratch.packet) {
        Ok(next) => next,
        Err(reason) => REASON_BASE + reason as u32,
    }
}

/// Walks one IPv6 extension header. Returns a reason number, 0 when all is well.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_extension_xdp(ctx: *mut xdp_md, scratch: *mut Scratch, step: u32) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return Reason::Internal as u32 };
    number(parse::extension(&frame(ctx, 0), step, &mut scratch.packet))
}

/// Parses the transport header. Returns a reason number, 0 when all is well.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_transport_xdp(ctx: *mut xdp_md, scratch: *mut Scratch) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return Reason::Internal as u32 };
    number(parse::transport(&frame(ctx, 0), &mut scratch.packet))
}

/// Looks up the next hop with XDP's context.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_route_xdp(ctx: *mut xdp_md, scratch: *mut Scratch) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return 0 };
    let Some(settings) = SETTINGS.get(0) else { return 0 };
    route(ctx.cast::<c_void>(), scratch, settings);
    0
}

/// Makes the events that are due, with the packet's headers as the frame has them.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_tell_xdp(ctx: *mut xdp_md, scratch: *mut Scratch) -> u32 {
    let Some(scratch) = own(scratch) else { return 0 };
    // SAFETY: the context is the hook's own.
    let bytes = unsafe { bpf_xdp_get_buff_len(ctx) } as u32;
    let (at, length) = report::headers(scratch, bytes);
    let headers = &mut scratch.event.headers;
    *headers = [0; HEADER_BYTES];
    // SAFETY: as above; the array has room for the most bytes of headers.
    let read = (1..=HEADER_BYTES as u32).contains(&length)
        && unsafe { bpf_xdp_load_bytes(ctx, at, headers.as_mut_ptr().cast(), report::bounded(length)) } == 0;
    report::hub_events(scratch, if read { length } else { 0 });
    0
}

#[inline(always)]
fn send(frame: Frame, l3: usize, v4: bool, exit: &Exit) -> u32 {
    if !rewrite::forward(&frame, l3, v4, exit) || !(v4 || rewrite::hop_limit(&frame, l3)) {
        report::bare_drop(Hook::XdpIn as u32, Reason::Internal);
        return xdp_action::XDP_DROP;
    }
    report::total(Hook::XdpIn as u32, |totals| totals.redirected += 1);
    // SAFETY: a helper with plain arguments.
    let action = unsafe { bpf_redirect(exit.ifindex, 0) };
    u32::try_from(action).unwrap_or(xdp_action::XDP_ABORTED)
}
