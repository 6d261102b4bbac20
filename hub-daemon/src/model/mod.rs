//! Values that cannot be invalid: what documents become once every check has passed.

pub mod alert;
pub mod application;
pub mod bandwidth;
mod baseline;
pub mod check;
pub mod config;
mod connections;
pub mod detector;
pub mod dscp;
pub mod egress;
pub mod endpoint;
pub mod experiment;
pub mod expiry;
pub mod icmp;
pub mod id;
pub mod interface;
pub mod key;
pub mod life;
pub mod names;
pub mod node;
pub mod nodes;
pub mod page;
pub mod persona;
pub mod personality;
pub mod policy;
pub mod pool;
pub mod port;
pub mod prefix;
pub mod problems;
pub mod protocol;
pub mod qos;
pub mod range;
pub mod rate;
pub mod reconfigure;
pub mod rule;
pub mod service;
pub mod set;
pub mod signature;
pub mod span;
pub mod subnet;
pub mod tcp_flags;
pub mod translation;
pub mod url;
pub mod webhook;

pub use id::{PersonaId, SegmentId};

/// Whether a field is as it would be read if it were left out: serde asks this before it writes.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
