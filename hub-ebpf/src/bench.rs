//! Programs of `cargo xtask bench`: make packets, count them, and do what the hub is compared with.
//!
//! An object of its own; nothing here is part of the product.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![expect(clippy::indexing_slicing, reason = "an index that can leave its array does not load")]
#![expect(clippy::needless_pass_by_value, reason = "the entry point macros call with a context of their own")]

mod packet;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::btf_maps::{Array, PerCpuArray, ProgramArray};
use aya_ebpf::helpers::generated::bpf_redirect;
use aya_ebpf::macros::{btf_map, classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use hub_common::bench::{
    FRAME_BYTES, MEMBERS_V6, PEER_V6, PLAN_CHECK, PLAN_FROM_MEMBERS, PLAN_V6, Plan, Seen,
};
use hub_common::checksum::{add_bytes, finish, fold};
use hub_common::parse::Bytes as _;

use crate::packet::Frame;

const L3: usize = 14;
const V4_BYTES: usize = 20;
const UDP: u8 = 17;
/// Let the kernel go on (`TCX_NEXT`, `TC_ACT_UNSPEC`).
const NEXT: i32 = -1;
/// Drop (`TC_ACT_SHOT`).
const SHOT: i32 = 2;

/// Element 0: what to do. User space writes.
#[btf_map]
static PLAN: Array<Plan, 1> = Array::new();

/// Flow of the last packet made.
#[btf_map]
static CURSOR: PerCpuArray<u32, 1> = PerCpuArray::new();

/// Packets counted.
#[btf_map]
static SEEN: PerCpuArray<Seen, 1> = PerCpuArray::new();

/// Element 0: the program under test.
#[btf_map]
static TESTED: ProgramArray<1> = ProgramArray::new();

/// Makes a packet of the plan and sends it out by the plan's interface.
#[xdp]
fn bench_generate(ctx: XdpContext) -> u32 {
    let Some(plan) = PLAN.get(0) else { return xdp_action::XDP_ABORTED };
    if !make(&frame(&ctx), plan) {
        return xdp_action::XDP_ABORTED;
    }
    redirect(plan).cast_unsigned()
}

/// Counts the plan's packets and drops them; others pass.
#[xdp]
fn bench_count(ctx: XdpContext) -> u32 {
    let frame = frame(&ctx);
    let Some(plan) = PLAN.get(0) else { return xdp_action::XDP_ABORTED };
    let Some(header) = frame.read::<V4_BYTES>(L3) else { return xdp_action::XDP_PASS };
    let Some([a, b, c, d]) = frame.read::<4>(L3 + V4_BYTES) else { return xdp_action::XDP_PASS };
    let ports = ports(plan);
    if header[0] != 0x45 || header[9] != UDP || [a, b, c, d] != ports {
        return xdp_action::XDP_PASS;
    }
    let Some(seen) = SEEN.get_ptr_mut(0) else { return xdp_action::XDP_ABORTED };
    // SAFETY: a per-CPU element; only this CPU writes it.
    let seen = unsafe { &mut *seen };
    seen.packets += 1;
    if plan.flags & PLAN_CHECK != 0 && !is_right(plan, &header) {
        seen.wrong += 1;
    }
    xdp_action::XDP_DROP
}

/// The least that forwards in XDP. With the attributes of the hub's program: one map of programs holds both.
#[xdp(frags)]
fn bench_redirect_xdp(ctx: XdpContext) -> u32 {
    let Some(plan) = PLAN.get(0) else { return xdp_action::XDP_ABORTED };
    if !put_macs(&frame(&ctx), plan) {
        return xdp_action::XDP_ABORTED;
    }
    redirect(plan).cast_unsigned()
}

/// The least that forwards in TC.
#[classifier]
fn bench_redirect_tc(ctx: TcContext) -> i32 {
    let Some(plan) = PLAN.get(0) else { return SHOT };
    let frame = Frame { start: ctx.data(), end: ctx.data_end(), bytes: 0 };
    if !put_macs(&frame, plan) {
        return SHOT;
    }
    redirect(plan)
}

/// Makes a packet of the plan and hands it to the program under test.
#[xdp(frags)]
fn bench_mutate_xdp(ctx: XdpContext) -> u32 {
    let Some(plan) = PLAN.get(0) else { return xdp_action::XDP_ABORTED };
    if make(&frame(&ctx), plan) {
        // SAFETY: the program under test is of this program's type.
        unsafe { TESTED.tail_call(&ctx, 0) };
    }
    xdp_action::XDP_ABORTED
}

/// Hands a packet as it is to the program under test.
#[xdp(frags)]
fn bench_call_xdp(ctx: XdpContext) -> u32 {
    // SAFETY: as in `bench_mutate_xdp`.
    unsafe { TESTED.tail_call(&ctx, 0) };
    xdp_action::XDP_ABORTED
}

/// As [`bench_mutate_xdp`] for TC.
#[classifier]
fn bench_mutate_tc(ctx: TcContext) -> i32 {
    let Some(plan) = PLAN.get(0) else { return SHOT };
    let frame = Frame { start: ctx.data(), end: ctx.data_end(), bytes: 0 };
    if make(&frame, plan) {
        // SAFETY: as in `bench_mutate_xdp`.
        unsafe { TESTED.tail_call(&ctx, 0) };
    }
    SHOT
}

/// Drops.
#[xdp(frags)]
fn bench_drop_xdp(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

/// Does nothing.
#[xdp(frags)]
fn bench_empty_xdp(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Does nothing.
#[classifier]
fn bench_empty_tc(_ctx: TcContext) -> i32 {
    NEXT
}

#[inline(always)]
fn frame(ctx: &XdpContext) -> Frame {
    Frame { start: ctx.data(), end: ctx.data_end(), bytes: 0 }
}

#[inline(always)]
fn redirect(plan: &Plan) -> i32 {
    // SAFETY: a helper with plain arguments.
    (unsafe { bpf_redirect(plan.ifindex, 0) }) as i32
}

/// Writes the whole header of the next packet: frames come back as the hub left them.
#[inline(always)]
fn make(frame: &Frame, plan: &Plan) -> bool {
    let Some(cursor) = CURSOR.get_ptr_mut(0) else { return false };
    // SAFETY: a per-CPU element; only this CPU writes it.
    let cursor = unsafe { &mut *cursor };
    *cursor = plan.after(*cursor);
    let member = plan.member(*cursor).to_be_bytes();
    if !put_macs(frame, plan) {
        return false;
    }
    if plan.flags & PLAN_V6 != 0 { make_v6(frame, plan, member) } else { make_v4(frame, plan, member) }
}

#[inline(always)]
fn put_macs(frame: &Frame, plan: &Plan) -> bool {
    let (t, s) = (&plan.target_mac, &plan.source_mac);
    frame.write::<12>(0, [t[0], t[1], t[2], t[3], t[4], t[5], s[0], s[1], s[2], s[3], s[4], s[5]])
}

#[inline(always)]
fn make_v4(frame: &Frame, plan: &Plan, member: [u8; 4]) -> bool {
    let length = ((FRAME_BYTES - L3) as u16).to_be_bytes();
    let peer = plan.peer.to_be_bytes();
    let (s, t) = if plan.flags & PLAN_FROM_MEMBERS != 0 { (member, peer) } else { (peer, member) };
    let mut header = [
        0x45, 0, length[0], length[1], 0, 0, 0x40, 0, plan.ttl, UDP, 0, 0, s[0], s[1], s[2], s[3], t[0],
        t[1], t[2], t[3],
    ];
    let sum = finish(add_bytes(0, &header)).to_be_bytes();
    header[10] = sum[0];
    header[11] = sum[1];
    frame.write::<2>(12, [0x08, 0x00])
        && frame.write::<V4_BYTES>(L3, header)
        && make_udp(frame, plan, L3 + V4_BYTES)
}

#[inline(always)]
fn make_v6(frame: &Frame, plan: &Plan, member: [u8; 4]) -> bool {
    const BYTES: usize = 40;
    let length = ((FRAME_BYTES - L3 - BYTES) as u16).to_be_bytes();
    let mut at = [0; 16];
    at[..12].copy_from_slice(&MEMBERS_V6);
    at[12..].copy_from_slice(&member);
    let mut other = [0; 16];
    other[..12].copy_from_slice(&PEER_V6);
    other[12..].copy_from_slice(&plan.peer.to_be_bytes());
    let (source, target) = if plan.flags & PLAN_FROM_MEMBERS != 0 { (at, other) } else { (other, at) };
    frame.write::<2>(12, [0x86, 0xdd])
        && frame.write::<8>(L3, [0x60, 0, 0, 0, length[0], length[1], UDP, plan.ttl])
        && frame.write::<16>(L3 + 8, source)
        && frame.write::<16>(L3 + 24, target)
        && make_udp(frame, plan, L3 + BYTES)
}

/// The checksum is 0: none. IPv6 forbids that, but no program under test looks.
#[inline(always)]
fn make_udp(frame: &Frame, plan: &Plan, at: usize) -> bool {
    let length = ((FRAME_BYTES - at) as u16).to_be_bytes();
    let [a, b, c, d] = ports(plan);
    frame.write::<8>(at, [a, b, c, d, length[0], length[1], 0, 0])
}

#[inline(always)]
fn ports(plan: &Plan) -> [u8; 4] {
    let (member, peer) = (plan.member_port.to_be_bytes(), plan.peer_port.to_be_bytes());
    if plan.flags & PLAN_FROM_MEMBERS != 0 {
        [member[0], member[1], peer[0], peer[1]]
    } else {
        [peer[0], peer[1], member[0], member[1]]
    }
}

/// Whether header checksum, TTL and the peer's address are as they should be.
#[inline(always)]
fn is_right(plan: &Plan, header: &[u8; V4_BYTES]) -> bool {
    let at = if plan.flags & PLAN_FROM_MEMBERS != 0 { 16 } else { 12 };
    let peer = [header[at], header[at + 1], header[at + 2], header[at + 3]];
    fold(add_bytes(0, header)) == 0xffff && header[8] == plan.ttl && peer == plan.peer.to_be_bytes()
}

/// The kernel gives helpers to GPL-compatible programs only.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The programs run in the kernel; on the host this file is only checked.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
