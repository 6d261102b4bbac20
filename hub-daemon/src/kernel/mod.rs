//! Everything that talks to the kernel.

pub mod ethtool;
pub mod inventory;
pub mod links;
pub mod member;
pub mod monitor;
pub mod namespace;
pub mod neighbours;
pub mod netlink;
pub mod reader;
pub mod sysctl;
