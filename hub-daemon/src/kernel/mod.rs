//! Everything that talks to the kernel.

pub mod links;
pub mod netlink;
pub mod reader;
