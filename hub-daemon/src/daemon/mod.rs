//! `hubd run`: starts the parts, wires them, and waits for a signal.
//!
//! ```text
//! REST ─┐                    ┌─ Job ─▶ applier thread: netlink, maps, programs ─▶ kernel
//! files ┼─ commands ─▶ owner ┤
//! timer ┘   (one task, owns  └◀ Done ─┘
//! monitor ─ changes ─▶  Hub)  ─ snapshots, events ─▶ REST, metrics, log
//! ```

pub mod announce;
pub mod applier;
pub mod documents;
pub mod log;
pub mod measurer;
pub mod observer;
pub mod owner;
pub mod start;

pub use start::{StartError, run};
