//! Facts and decisions that the kernel programs and the daemon share.
//!
//! No IO, no allocation, no clock: everything here is a value or a function of its arguments, so that
//! the host can test, run and explain what the kernel decides.
//!
//! Rules of the boundary:
//! - Addresses are 16 bytes in network order; IPv4 is mapped (`::ffff:a.b.c.d`).
//! - Ports and lengths are integers in host order, so that a map dump reads as people write them.
//! - Times are ticks of the kernel's clock (`bpf_jiffies64`), named `*_tick`: reading it costs nothing.
//! - Units are part of the name.
#![cfg_attr(not(test), no_std)]
#![expect(clippy::cast_lossless, reason = "`From` is not const, and most functions here are")]

pub mod address;
pub mod adjacency;
pub mod application;
pub mod bench;
pub mod candidate;
pub mod checksum;
pub mod detect;
pub mod event;
pub mod flow;
pub mod limit;
pub mod limits;
pub mod nets;
pub mod open;
pub mod outcome;
pub mod packet;
pub mod parse;
pub mod reply;
pub mod rule;
pub mod segment;
pub mod set;
pub mod shape;
pub mod shared;
pub mod stats;
pub mod trace;
pub mod translation;
