//! Everything that talks to the kernel.

pub mod attach;
pub mod batch;
pub mod boot;
mod candidates;
pub mod clock;
pub mod clsact;
pub mod collect;
mod counts;
pub mod down;
pub mod ethtool;
pub mod events;
pub mod explain;
mod flow_list;
pub mod impacted;
pub mod inventory;
pub mod links;
pub mod load;
pub(crate) mod maps;
pub mod masquerades;
pub mod member;
pub mod monitor;
pub(crate) mod names;
pub mod namespace;
pub mod neighbours;
pub mod netlink;
mod one_sided;
pub(crate) mod paced;
pub mod probe;
mod qos;
mod quarantined;
mod question;
pub mod queues;
pub mod reader;
mod recount;
pub mod resolver;
mod rule_counts;
mod rule_text;
pub mod sent_again;
pub mod step;
mod sums;
pub mod sysctl;
mod traced;
mod ways;
mod why;
pub mod wireguard;

/// Maps need root; `cargo xtask test` says which tests it leaves out.
#[cfg(test)]
pub(crate) fn may_make_maps() -> bool {
    nix::unistd::Uid::effective().is_root() && std::env::var("HUB_TEST_ROOT").is_ok_and(|value| value == "1")
}

/// Maps that programs may write and the daemon may not, by which tests have the kernel refuse.
#[cfg(test)]
pub(crate) const BPF_F_RDONLY: u32 = 1 << 3;
