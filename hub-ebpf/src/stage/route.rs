//! The next hop: the kernel's FIB is asked once per flow and direction, and again when it changed.

use core::ffi::c_void;

use aya_ebpf::bindings::bpf_fib_lookup as FibParams;
use aya_ebpf::helpers::generated::bpf_fib_lookup;
use hub_common::event::Hook;
use hub_common::flow::Hop;
use hub_common::limits;
use hub_common::outcome::{FROM_HOST, SCRATCH_REDIRECTABLE, Scratch};
use hub_common::packet::PACKET_V4;
use hub_common::segment::{PORT_L3_ONLY, PORT_TUNNEL, Settings};

use crate::maps::PORTS;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const FIB_SUCCESS: i64 = 0;
/// The target is the hub itself, or broadcast, or multicast.
const FIB_NOT_FORWARDED: i64 = 4;

/// Size of the helper's argument.
const FIB_PARAMS_BYTES: i32 = 64;
const _: () = assert!(size_of::<FibParams>() == FIB_PARAMS_BYTES as usize);

/// Whether XDP is asking.
#[inline(always)]
pub(crate) fn is_xdp(scratch: &Scratch) -> bool {
    scratch.hook == Hook::XdpIn as u32
}

/// Whether XDP may finish this packet by sending it to `hop`.
#[inline(always)]
pub(crate) fn xdp_may_send(scratch: &Scratch, hop: &Hop, target_flag: u32) -> bool {
    hop.ifindex != 0
        && scratch.flags & SCRATCH_REDIRECTABLE != 0
        && scratch.wire_bytes <= hop.mtu_bytes
        && PORTS
            .get(hop.ifindex % limits::PORTS)
            .is_some_and(|port| port.ifindex == hop.ifindex && port.flags & target_flag != 0)
}

/// Asks the FIB where the packet goes and sets `outcome.hop`. A generation of 0 means: ask again next time.
///
/// `ctx` is the hook's context.
#[inline(always)]
pub(crate) fn route(ctx: *mut c_void, scratch: &mut Scratch, settings: &Settings) {
    scratch.outcome.neighbour = 0;
    let hop = &mut scratch.outcome.hop;
    *hop = Hop::ZERO;
    hop.ingress_ifindex = scratch.ingress_ifindex;
    hop.checked_tick = scratch.tick as u32;
    if scratch.ingress_ifindex == FROM_HOST {
        return;
    }
    // Its namespace routes it: interfaces there have numbers of their own.
    if scratch.port.flags & PORT_TUNNEL != 0 {
        hop.generation = settings.route_generation;
        return;
    }
    let packet = &scratch.packet;
    // SAFETY: integers and unions of integers; all zero bytes are a value.
    let mut params: FibParams = unsafe { core::mem::zeroed() };
    params.l4_protocol = packet.protocol;
    params.sport = packet.source_port.to_be();
    params.dport = packet.target_port.to_be();
    params.ifindex = scratch.ingress_ifindex;
    // Not 0, so that the kernel answers with the route's MTU; the packet's own length is compared by us.
    params.__bindgen_anon_1.tot_len = 1;
    if packet.has(PACKET_V4) {
        params.family = AF_INET;
        let (s, t) = (&packet.source, &packet.target);
        params.__bindgen_anon_3.ipv4_src = u32::from_ne_bytes([s[12], s[13], s[14], s[15]]);
        params.__bindgen_anon_4.ipv4_dst = u32::from_ne_bytes([t[12], t[13], t[14], t[15]]);
    } else {
        params.family = AF_INET6;
        params.__bindgen_anon_3.ipv6_src = words(&packet.source);
        params.__bindgen_anon_4.ipv6_dst = words(&packet.target);
    }
    // SAFETY: the context is the hook's own; the size is the struct's.
    let answer = unsafe { bpf_fib_lookup(ctx, &raw mut params, FIB_PARAMS_BYTES, 0) };
    if answer == FIB_NOT_FORWARDED {
        hop.generation = settings.route_generation;
        return;
    }
    if answer != FIB_SUCCESS {
        return;
    }
    hop.generation = settings.route_generation;
    let leaves_by = PORTS.get(params.ifindex % limits::PORTS);
    let ethernet =
        leaves_by.is_some_and(|port| port.ifindex == params.ifindex && port.flags & PORT_L3_ONLY == 0);
    if ethernet && params.ifindex != scratch.ingress_ifindex {
        hop.ifindex = params.ifindex;
        // SAFETY: both variants are u16; the kernel wrote the MTU on success.
        hop.mtu_bytes = u32::from(unsafe { params.__bindgen_anon_1.mtu_result });
        hop.target_mac = params.dmac;
        hop.source_mac = params.smac;
        // An IPv4 route may lead to an IPv6 neighbour: then the kernel says so.
        if packet.has(PACKET_V4) && params.family == AF_INET {
            // SAFETY: both variants are integers; the kernel wrote the address on success.
            scratch.outcome.neighbour = unsafe { params.__bindgen_anon_4.ipv4_dst };
        }
    }
}

#[inline(always)]
fn words(address: &[u8; 16]) -> [u32; 4] {
    let a = address;
    [
        u32::from_ne_bytes([a[0], a[1], a[2], a[3]]),
        u32::from_ne_bytes([a[4], a[5], a[6], a[7]]),
        u32::from_ne_bytes([a[8], a[9], a[10], a[11]]),
        u32::from_ne_bytes([a[12], a[13], a[14], a[15]]),
    ]
}
