//! Values that cannot be invalid: what documents become once every check has passed.

pub mod bandwidth;
pub mod config;
pub mod dscp;
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
pub mod qos;
pub mod rule;
pub mod span;
pub mod tcp_flags;

pub use id::{PersonaId, SegmentId};
