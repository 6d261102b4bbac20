//! TC entry points: the reference data path.

use core::ffi::c_void;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{
    bpf_clone_redirect, bpf_jiffies64, bpf_redirect, bpf_skb_load_bytes, bpf_skb_store_bytes,
};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use hub_common::event::{HEADER_BYTES, Hook, Reason};
use hub_common::limits;
use hub_common::outcome::{
    FROM_HOST, OUTCOME_CLAMPED, OUTCOME_REJECT, OUTCOME_RESET_ON, SCRATCH_REDIRECTABLE, Scratch,
    VERDICT_DROP, VERDICT_HEAR, VERDICT_REDIRECT, VERDICT_ROUTE, VERDICT_SKIP, VERDICT_STACK,
};
use hub_common::packet::{PACKET_OPTIONS, PACKET_V4, PACKET_VLAN};
use hub_common::parse::{Bytes as _, ETHERNET_BYTES};
use hub_common::reply::ANSWER_MARK;
use hub_common::segment::{
    PORT_FAILSAFE, PORT_L3_ONLY, PORT_TRANSLATED, PORT_TUNNEL, Port, ROLE_UPLINK, TUNNEL_INDEX,
};

use crate::express::{Arrival, Lane, NO_EXPRESS, express};
use crate::headers::{frame, read};
use crate::maps::{PORTS, SCRATCH, SETTINGS, TUNNELS, own};
use crate::packet::Frame;
use crate::report::{self, hub_count_drop};
use crate::rewrite::Exit;
use crate::stage::commit::hub_commit;
use crate::stage::route::route;
use crate::stage::{detect, hear};
use crate::{clamp, edge, mark, pipeline, reject, rewrite};

/// Let the next program or the kernel go on (`TCX_NEXT`, `TC_ACT_UNSPEC`).
pub(crate) const NEXT: i32 = -1;
/// Drop (`TC_ACT_SHOT`).
pub(crate) const SHOT: i32 = 2;
/// Frames addressed to another host: seen in promiscuous mode only.
const PACKET_OTHERHOST: u32 = 3;
/// `BPF_F_RECOMPUTE_CSUM`.
pub(crate) const RECOMPUTE_CSUM: u64 = 1;
/// `BPF_F_INGRESS`: the packet comes in by the interface instead of leaving by it.
const INTO_HOST: u64 = 1;

/// Judges what comes in on a port.
#[classifier]
pub(crate) fn hub_tc_in(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: fields of the context.
    let (ifindex, pkt_type) = unsafe { ((*skb).ifindex, (*skb).pkt_type) };
    if pkt_type == PACKET_OTHERHOST {
        report::total(Hook::TcIn as u32, |totals| totals.skipped += 1);
        return NEXT;
    }
    let Some(port) = port(ifindex) else {
        report::bare_drop(Hook::TcIn as u32, Reason::NoPort);
        return SHOT;
    };
    if port.flags & PORT_L3_ONLY != 0 && is_answer(skb) {
        report::total(Hook::TcIn as u32, |totals| totals.skipped += 1);
        return NEXT;
    }
    // SAFETY: a field of the context.
    if pkt_type == 0 && unsafe { (*skb).vlan_present } == 0 {
        let verdict = hub_express_tc(skb, port);
        if verdict != NO_EXPRESS {
            return verdict.cast_signed();
        }
    }
    let Some(scratch) = SCRATCH.get_ptr_mut(Hook::TcIn as u32) else { return SHOT };
    // SAFETY: a per-CPU element of this hook; the hook does not nest.
    let scratch = unsafe { &mut *scratch };
    start(scratch, Hook::TcIn as u32, ifindex);
    scratch.port = *port;
    read(skb, scratch);
    if scratch.port.flags & PORT_TRANSLATED != 0 && scratch.parse_reason == 0 {
        scratch.parse_reason = edge::hub_enter(skb, scratch);
    }
    weigh(skb, scratch);
    if pkt_type == 0 {
        allow_redirect(skb, scratch);
    }
    let mut verdict = pipeline::judge(scratch);
    if verdict == VERDICT_HEAR {
        hear::hear(skb, scratch);
        verdict = pipeline::hub_judge_slowly(scratch);
    }
    if verdict == VERDICT_ROUTE {
        hub_route_tc(skb, scratch);
        verdict = hub_commit(scratch);
        if scratch.outcome.flags & OUTCOME_CLAMPED != 0 {
            clamp::hub_clamp(skb, scratch);
        }
        detect::passed(scratch, verdict);
    }
    pipeline::look_on(scratch, verdict);
    if verdict != VERDICT_DROP {
        tell(skb, scratch);
    }
    match verdict {
        VERDICT_REDIRECT => {
            mark::into(skb, scratch);
            let packet = &scratch.packet;
            let exit = Exit::from(&scratch.outcome.hop);
            send(skb, rewrite::l3(packet), packet.has(PACKET_V4), &exit)
        }
        VERDICT_SKIP => {
            report::total(Hook::TcIn as u32, |totals| totals.skipped += 1);
            NEXT
        }
        VERDICT_STACK => {
            mark::into(skb, scratch);
            report::total(Hook::TcIn as u32, |totals| totals.passed += 1);
            NEXT
        }
        _ => refuse(skb, scratch, Hook::TcIn, ifindex),
    }
}

/// Judges what the host itself sends, and what it forwards from interfaces that are not ports.
#[classifier]
pub(crate) fn hub_tc_out(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: fields of the context.
    let (out, came_by) = unsafe { ((*skb).ifindex, (*skb).ingress_ifindex) };
    let leaves_by = port(out);
    // In the namespace of a tunnel the number of another interface may be that of a port of the hub.
    let judged = came_by != 0 && port(came_by).is_some_and(|_| is_tunnel(came_by) == is_tunnel(out));
    if judged && leaves_by.is_none_or(|port| port.flags & PORT_TRANSLATED == 0) {
        mark::out(skb);
        report::total(Hook::TcOut as u32, |totals| totals.skipped += 1);
        return NEXT;
    }
    let Some(leaves_by) = leaves_by else {
        report::bare_drop(Hook::TcOut as u32, Reason::NoPort);
        return SHOT;
    };
    let Some(scratch) = SCRATCH.get_ptr_mut(Hook::TcOut as u32) else { return SHOT };
    // SAFETY: a per-CPU element of this hook; the hook does not nest.
    let scratch = unsafe { &mut *scratch };
    start(scratch, Hook::TcOut as u32, if came_by == 0 { FROM_HOST } else { came_by });
    scratch.port = outward(*leaves_by);
    read(skb, scratch);
    weigh(skb, scratch);
    let mut verdict = if judged {
        // What follows counts and reports this packet, not the one before.
        pipeline::begin(scratch);
        scratch.traces = 0;
        VERDICT_SKIP
    } else {
        pipeline::judge(scratch)
    };
    if verdict == VERDICT_HEAR {
        hear::hear(skb, scratch);
        verdict = pipeline::hub_judge_slowly(scratch);
    }
    if verdict == VERDICT_ROUTE {
        scratch.outcome.hop.ingress_ifindex = scratch.ingress_ifindex;
        verdict = hub_commit(scratch);
        if scratch.outcome.flags & OUTCOME_CLAMPED != 0 {
            clamp::hub_clamp(skb, scratch);
        }
        detect::passed(scratch, verdict);
        // As it was judged, before it is rewritten.
        tell(skb, scratch);
    }
    if verdict != VERDICT_DROP && leaves_by.flags & PORT_TRANSLATED != 0 && scratch.parse_reason == 0 {
        scratch.port = *leaves_by;
        if edge::hub_leave(skb, scratch) != 0 {
            verdict = VERDICT_DROP;
        }
    }
    pipeline::look_on(scratch, verdict);
    match verdict {
        VERDICT_DROP => refuse(skb, scratch, Hook::TcOut, out),
        VERDICT_SKIP => {
            if judged {
                mark::out(skb);
            }
            report::total(Hook::TcOut as u32, |totals| totals.skipped += 1);
            NEXT
        }
        _ => {
            mark::into(skb, scratch);
            mark::out(skb);
            report::total(Hook::TcOut as u32, |totals| totals.passed += 1);
            NEXT
        }
    }
}

/// What leaves a port is judged like what comes from the rest of the network.
#[inline(always)]
pub(crate) fn outward(mut port: Port) -> Port {
    port.role = ROLE_UPLINK;
    if port.flags & PORT_TUNNEL == 0 {
        port.flags |= PORT_FAILSAFE;
    }
    port
}

#[inline(always)]
fn is_tunnel(ifindex: u32) -> bool {
    ifindex >= TUNNEL_INDEX
}

#[inline(always)]
pub(crate) fn port(ifindex: u32) -> Option<&'static Port> {
    if is_tunnel(ifindex) {
        // SAFETY: entries are replaced whole, never edited in place.
        return unsafe { TUNNELS.get(ifindex) };
    }
    PORTS.get(ifindex % limits::PORTS).filter(|port| port.ifindex == ifindex && ifindex != 0)
}

#[inline(always)]
pub(crate) fn start(scratch: &mut Scratch, hook: u32, ingress_ifindex: u32) {
    // SAFETY: a helper without arguments.
    scratch.tick = unsafe { bpf_jiffies64() };
    scratch.hook = hook;
    scratch.ingress_ifindex = ingress_ifindex;
    scratch.flags = 0;
    scratch.due = 0;
    scratch.responses = 0;
    scratch.class = 0;
    scratch.dscp = 0;
    scratch.departure_ns = 0;
}

/// Notes how many packets the frame is on a wire, and their bytes.
#[inline(always)]
fn weigh(skb: *mut __sk_buff, scratch: &mut Scratch) {
    let packet = &scratch.packet;
    // SAFETY: a field of the context.
    let segments = unsafe { (*skb).gso_segs };
    // Super-packets of virtual machines may not say how many they are: they count as one.
    scratch.packets = if segments == 0 { 1 } else { segments };
    let headers = u32::from(packet.l4_offset.wrapping_sub(packet.l3_offset).wrapping_add(packet.l4_bytes));
    scratch.bytes = packet.length_bytes.wrapping_add((scratch.packets - 1).wrapping_mul(headers));
}

/// Notes whether the packet may leave by a redirect, and how long its wire packets are.
#[inline(always)]
fn allow_redirect(skb: *mut __sk_buff, scratch: &mut Scratch) {
    let packet = &scratch.packet;
    // SAFETY: a field of the context.
    let gso_size = unsafe { (*skb).gso_size };
    scratch.wire_bytes = if gso_size == 0 {
        packet.length_bytes
    } else {
        let headers = packet.l4_offset.wrapping_sub(packet.l3_offset).wrapping_add(packet.l4_bytes);
        gso_size.wrapping_add(u32::from(headers))
    };
    let plain = packet.ttl > 1 && !packet.has_any(PACKET_OPTIONS | PACKET_VLAN);
    if plain && scratch.port.flags & PORT_L3_ONLY == 0 {
        scratch.flags |= SCRATCH_REDIRECTABLE;
    }
}

/// Looks up the next hop with TC's context.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_route_tc(skb: *mut __sk_buff, scratch: *mut Scratch) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_mut() }) else { return 0 };
    let Some(settings) = SETTINGS.get(0) else { return 0 };
    route(skb.cast::<c_void>(), scratch, settings);
    0
}

/// The express lane with TC's context: a verdict of TC, or [`NO_EXPRESS`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_express_tc(skb: *mut __sk_buff, port: *const Port) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(port) = (unsafe { port.as_ref() }) else { return NO_EXPRESS };
    let Some(settings) = SETTINGS.get(0) else { return NO_EXPRESS };
    // SAFETY: fields of the context.
    let (ifindex, gso_bytes, segments) = unsafe { ((*skb).ifindex, (*skb).gso_size, (*skb).gso_segs) };
    let packets = segments.max(1);
    // SAFETY: a helper without arguments.
    let tick = unsafe { bpf_jiffies64() };
    let arrival = Arrival { frame: frame(skb), port, ifindex, gso_bytes, packets, hook: Hook::TcIn, tick };
    match express(&arrival, settings) {
        Lane::Stages => NO_EXPRESS,
        Lane::Leaves(exit, v4) => {
            mark::none(skb);
            send(skb, ETHERNET_BYTES, v4, &exit).cast_unsigned()
        }
        Lane::Drop(reason) => {
            report::bare_drop(Hook::TcIn as u32, reason);
            SHOT.cast_unsigned()
        }
    }
}

#[inline(always)]
fn send(skb: *mut __sk_buff, l3: usize, v4: bool, exit: &Exit) -> i32 {
    let frame = frame(skb);
    if !rewrite::forward(&frame, l3, v4, exit) {
        report::bare_drop(Hook::TcIn as u32, Reason::Internal);
        return SHOT;
    }
    if !v4 && !lower_hop_limit(skb, &frame, l3) {
        report::bare_drop(Hook::TcIn as u32, Reason::Internal);
        return SHOT;
    }
    report::total(Hook::TcIn as u32, |totals| totals.redirected += 1);
    // SAFETY: a helper with plain arguments.
    (unsafe { bpf_redirect(exit.ifindex, 0) }) as i32
}

/// Lowers the hop limit so that a checksum over the packet stays right.
#[inline(always)]
fn lower_hop_limit(skb: *mut __sk_buff, frame: &Frame, l3: usize) -> bool {
    let at = l3 + rewrite::HOP_LIMIT;
    let Some([_, limit]) = frame.read::<2>(at - 1) else { return false };
    let limit = [limit.wrapping_sub(1)];
    // SAFETY: the context is the hook's own; one byte is read from the array.
    (unsafe { bpf_skb_store_bytes(skb, at as u32, limit.as_ptr().cast(), 1, RECOMPUTE_CSUM) }) == 0
}

/// Counts a packet that is dropped, and answers it if it is to be answered. What leaves by an interface is answered
/// where there is no Ethernet header: the answer comes in by the interface, as if the other end had sent it.
#[inline(always)]
fn refuse(skb: *mut __sk_buff, scratch: &mut Scratch, hook: Hook, ifindex: u32) -> i32 {
    hub_count_drop(scratch);
    detect::hub_detect(scratch);
    tell(skb, scratch);
    let leaves = matches!(hook, Hook::TcOut);
    let has_way_back = !leaves || scratch.port.flags & PORT_L3_ONLY != 0;
    let answers = has_way_back && scratch.outcome.flags & OUTCOME_REJECT != 0;
    if answers && reject::hub_reject(skb, scratch) != 0 {
        report::total(hook as u32, |totals| totals.replied += 1);
        let way = if leaves { INTO_HOST } else { 0 };
        // SAFETY: a field of the context.
        let mark = unsafe { (*skb).mark };
        if leaves {
            // SAFETY: as above.
            unsafe { (*skb).mark = ANSWER_MARK };
        }
        if scratch.outcome.flags & OUTCOME_RESET_ON != 0 {
            // SAFETY: the context is the hook's own.
            unsafe { bpf_clone_redirect(skb, ifindex, way) };
            // SAFETY: a field of the context.
            unsafe { (*skb).mark = mark };
            // The kernel knows the way to the other end.
            return if reject::hub_reset_on(skb, scratch) == 0 { SHOT } else { NEXT };
        }
        // SAFETY: a helper with plain arguments.
        return (unsafe { bpf_redirect(ifindex, way) }) as i32;
    }
    report::total(hook as u32, |totals| totals.dropped += 1);
    SHOT
}

/// Whether the packet is an answer of the hub to what was to leave by this interface. Its mark is for nobody else.
#[inline(always)]
fn is_answer(skb: *mut __sk_buff) -> bool {
    // SAFETY: a field of the context.
    let marked = unsafe { (*skb).mark } == ANSWER_MARK;
    if marked {
        // SAFETY: as above.
        unsafe { (*skb).mark = 0 };
    }
    marked
}

/// Makes the events that are due of a packet.
#[inline(always)]
fn tell(skb: *mut __sk_buff, scratch: &mut Scratch) {
    if scratch.due != 0 {
        hub_tell_tc(skb, scratch);
    }
}

/// Makes the events that are due, with the packet's headers as the skb has them.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_tell_tc(skb: *mut __sk_buff, scratch: *mut Scratch) -> u32 {
    let Some(scratch) = own(scratch) else { return 0 };
    // SAFETY: a field of the context.
    let (at, length) = report::headers(scratch, unsafe { (*skb).len });
    let headers = &mut scratch.event.headers;
    *headers = [0; HEADER_BYTES];
    // SAFETY: the context is the hook's own; the array has room for the most bytes of headers.
    let read = (1..=HEADER_BYTES as u32).contains(&length)
        && unsafe {
            bpf_skb_load_bytes(skb.cast(), at, headers.as_mut_ptr().cast(), report::bounded(length))
        } == 0;
    report::hub_events(scratch, if read { length } else { 0 });
    0
}
