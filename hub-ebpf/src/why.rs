//! Programs that the daemon runs with `BPF_PROG_TEST_RUN`: they judge no traffic.

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_boot_ns};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use hub_common::event::Hook;
use hub_common::outcome::{FROM_HOST, OUTCOME_UNHEARD, SCRATCH_READ_ONLY, SCRATCH_UNDECIDED};
use hub_common::segment::{PORT_L3_ONLY, Port};

use crate::headers::read;
use crate::maps::{ANSWER, CLOCK, SCRATCH, SCRATCH_WHY};
use crate::pipeline;
use crate::tc::{NEXT, SHOT, outward, port, start};

/// Decides as `hub_tc_in` would, or `hub_tc_out` for interfaces that are no ports, and changes nothing but
/// the answer. Run with `BPF_PROG_TEST_RUN`.
#[classifier]
pub(crate) fn hub_why(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    let Some(scratch) = SCRATCH.get_ptr_mut(SCRATCH_WHY) else { return SHOT };
    // SAFETY: a per-CPU element of this program; the daemon runs it once at a time.
    let scratch = unsafe { &mut *scratch };
    // SAFETY: fields of the context.
    let (ifindex, tunnel, leaves) = unsafe { ((*skb).ifindex, (*skb).mark, (*skb).priority != 0) };
    // The device of a tunnel is in another namespace than the one that asks.
    let ifindex = if tunnel == 0 { ifindex } else { tunnel };
    if leaves && let Some(port) = port(ifindex) {
        start(scratch, Hook::TcOut as u32, FROM_HOST);
        scratch.port = outward(*port);
        scratch.port.flags &= !PORT_L3_ONLY;
    } else if let Some(port) = port(ifindex) {
        start(scratch, Hook::TcIn as u32, ifindex);
        scratch.port = *port;
        // The kernel wants test packets with an Ethernet header, whatever the port has.
        scratch.port.flags &= !PORT_L3_ONLY;
    } else {
        start(scratch, Hook::TcOut as u32, if ifindex <= 1 { FROM_HOST } else { ifindex });
        scratch.port = outward(Port::ZERO);
    }
    read(skb, scratch);
    scratch.flags = SCRATCH_READ_ONLY;
    pipeline::judge(scratch);
    if scratch.flags & SCRATCH_UNDECIDED != 0 {
        scratch.outcome.flags |= OUTCOME_UNHEARD;
    }
    if let Some(answer) = ANSWER.get_ptr_mut(0) {
        // SAFETY: a map value; the daemon reads it after the run.
        unsafe { *answer = scratch.outcome };
    }
    NEXT
}

/// Tells which tick it is: user space has no way of its own to know. Run with `BPF_PROG_TEST_RUN`.
#[classifier]
pub(crate) fn hub_clock(_ctx: TcContext) -> i32 {
    if let Some(clock) = CLOCK.get_ptr_mut(0) {
        // SAFETY: a helper without arguments.
        let tick = unsafe { bpf_jiffies64() };
        // SAFETY: as above.
        let boot_ns = unsafe { bpf_ktime_get_boot_ns() };
        // SAFETY: a map value; a mix of two runs at once is still right to a few microseconds.
        unsafe { *clock = [tick, boot_ns] };
    }
    NEXT
}
