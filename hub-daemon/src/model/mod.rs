//! Values that cannot be invalid: what documents become once every check has passed.

pub mod bandwidth;
mod baseline;
pub mod config;
pub mod endpoint;
pub mod expiry;
pub mod icmp;
pub mod id;
pub mod names;
pub mod persona;
pub mod policy;
pub mod port;
pub mod prefix;
pub mod problems;
pub mod protocol;
pub mod rate;
pub mod rule;
pub mod set;
pub mod span;
pub mod tcp_flags;

pub use id::{PersonaId, SegmentId};
