//! Everything that talks to the kernel.

pub mod ethtool;
pub mod links;
pub mod member;
pub mod namespace;
pub mod netlink;
pub mod reader;
pub mod sysctl;
