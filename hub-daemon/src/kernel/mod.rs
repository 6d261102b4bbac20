//! Everything that talks to the kernel.

pub mod attach;
mod batch;
pub mod clock;
pub mod collect;
pub mod down;
pub mod ethtool;
pub mod events;
pub mod inventory;
pub mod links;
pub mod load;
mod maps;
pub mod member;
pub mod monitor;
pub mod namespace;
pub mod neighbours;
pub mod netlink;
pub mod reader;
pub mod sysctl;
