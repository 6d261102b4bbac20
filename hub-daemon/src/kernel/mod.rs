//! Everything that talks to the kernel.

pub mod attach;
pub mod batch;
pub mod clock;
pub mod collect;
mod counts;
pub mod down;
pub mod ethtool;
pub mod events;
pub mod explain;
mod flow_list;
pub mod inventory;
pub mod links;
pub mod load;
mod maps;
pub mod member;
pub mod monitor;
mod names;
pub mod namespace;
pub mod neighbours;
pub mod netlink;
mod quarantined;
mod question;
pub mod reader;
mod rule_text;
pub mod sysctl;
mod ways;
mod why;
