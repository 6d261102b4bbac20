//! The hub's kernel programs: `hub_tc_in`, `hub_tc_out`, `hub_xdp_in`, and `hub_why`, which decides like
//! them and changes nothing.
//!
//! An entry point reads the context, lets `pipeline` decide and turns the verdict into what its hook
//! understands. XDP either decides finally (drop, redirect, reply) or changes nothing.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![expect(clippy::indexing_slicing, reason = "an index that can leave its array does not load")]
#![expect(clippy::needless_pass_by_value, reason = "the entry point macros call with a context of their own")]
#![expect(
    clippy::multiple_unsafe_ops_per_block,
    reason = "fields of one context or map value are read together, under one argument"
)]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics), allow(internal_features, reason = "atomic add"))]

mod addresses;
mod atomic;
mod clamp;
mod edge;
mod express;
mod headers;
mod maps;
mod mark;
mod packet;
mod pipeline;
mod readdress;
mod reject;
mod report;
mod rewrite;
mod stage;
mod sum;
mod tc;
mod why;
mod words;
mod xdp;

/// The kernel gives helpers such as `bpf_fib_lookup` to GPL-compatible programs only.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The programs run in the kernel; on the host this crate is only checked.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
