//! Three namespaces in a row: a peer, the middle that forwards, and the members behind it.
//!
//! ```text
//! peer 192.0.2.10 ─ wan0 192.0.2.1 · middle · 10.255.1.1 lan0 ─ 10.255.1.2 members, a router in front of them
//! ```
//! Neighbours are permanent and MACs fixed, so that nothing but the measured packets is on the wires.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use super::bound::{inside, run_inside, sysctl};
use crate::command::{feed, run, text};

/// Name of every namespace begins so.
const PREFIX: &str = "hubbench-";
/// MAC of the peer, of the middle's two ports, and of the members' router.
pub(super) const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
pub(super) const WAN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(super) const LAN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub(super) const MEMBERS_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xb];
/// The peer's address.
pub(super) const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// First address of the members' range, a /13: most flows have a member each.
pub(super) const MEMBERS: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 0);
/// Offset of the first member in its persona's range: the first address is the gateway's, the
/// last one broadcast.
pub(super) const FIRST_MEMBER: u32 = 16;
/// UDP port that the policies allow.
pub(super) const MEMBER_PORT: u16 = 443;
/// First TCP port that the policies allow.
pub(super) const TCP_PORT: u16 = 2_001;
/// Addresses of a persona where there are many.
pub(super) const STRIDE: u32 = 64;

/// Whether a lab has IPv6 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Families {
    V4,
    Both,
}

/// Which connections the hub enters into its flow table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tracking {
    All,
    Needed,
}

/// How many personas there are, with how many rules each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Personas {
    pub(super) count: u32,
    pub(super) rules: u32,
    pub(super) families: Families,
    pub(super) tracking: Tracking,
}

impl Personas {
    /// Range of one persona.
    pub(super) fn range(self, index: u32) -> String {
        if self.count == 1 {
            return format!("{MEMBERS}/13");
        }
        format!("{}/26", member_address(index * STRIDE))
    }

    /// Prefixes that hold the members; routes lead to them through the members' router.
    fn targets(self) -> Vec<String> {
        if self.count == 1 {
            return (0..8).map(|part| format!("{}/16", member_address(part << 16))).collect();
        }
        (0..self.count).map(|index| format!("{}/28", member_address(index * STRIDE + FIRST_MEMBER))).collect()
    }
}

/// The address at an offset into the members' range.
pub(super) fn member_address(offset: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(MEMBERS.to_bits() + offset)
}

/// A namespace that goes with the value.
#[derive(Debug)]
pub(super) struct Namespace {
    name: String,
    path: PathBuf,
}

impl Namespace {
    fn new(name: &str) -> Result<Self> {
        run(Command::new("ip").args(["netns", "add", name]))?;
        let made = Self { name: name.to_owned(), path: Path::new("/run/netns").join(name) };
        Ok(made)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn ip(&self, lines: &str) -> Result<()> {
        feed(Command::new("ip").args(["-n", &self.name, "-batch", "-"]), lines)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Nothing can be done about a failure here; the next run removes what is left.
        drop(text(Command::new("ip").args(["netns", "delete", &self.name])));
    }
}

/// The three namespaces. Without a middle, the ends are connected directly.
#[derive(Debug)]
pub(super) struct Lab {
    pub(super) peer: Namespace,
    pub(super) middle: Option<Namespace>,
    pub(super) members: Namespace,
}

impl Lab {
    /// Two ends and one wire.
    pub(super) fn direct(name: &str) -> Result<Self> {
        let (peer, members) = Self::ends(name, Families::V4)?;
        let lines = format!(
            "link add peer0 type veth peer name members0 netns {}\nlink set peer0 address {}\n",
            members.name,
            mac(PEER_MAC)
        );
        peer.ip(&lines)?;
        peer.ip("link set peer0 up\n")?;
        members.ip(&format!("link set members0 address {}\nlink set members0 up\n", mac(MEMBERS_MAC)))?;
        Ok(Self { peer, middle: None, members })
    }

    /// A middle that forwards.
    pub(super) fn new(name: &str, families: Families) -> Result<Self> {
        let (peer, members) = Self::ends(name, families)?;
        let middle = Namespace::new(&format!("{PREFIX}{name}-m"))?;
        inside(&middle.path, || quiet(families))?;
        let v6 = families == Families::Both;
        middle.ip(&format!(
            "link add wan0 address {} type veth peer name peer0 address {} netns {}\n\
             link add lan0 address {} type veth peer name members0 address {} netns {}\n\
             link set lo up\nlink set wan0 up\nlink set lan0 up\n\
             addr add 192.0.2.1/24 dev wan0\naddr add 10.255.1.1/30 dev lan0\n\
             neigh replace {PEER} lladdr {} nud permanent dev wan0\n\
             neigh replace 10.255.1.2 lladdr {} nud permanent dev lan0\n",
            mac(WAN_MAC),
            mac(PEER_MAC),
            peer.name,
            mac(LAN_MAC),
            mac(MEMBERS_MAC),
            members.name,
            mac(PEER_MAC),
            mac(MEMBERS_MAC),
        ))?;
        peer.ip(&format!(
            "link set lo up\nlink set peer0 up\naddr add {PEER}/24 dev peer0\n\
             neigh replace 192.0.2.1 lladdr {} nud permanent dev peer0\nroute add default via 192.0.2.1\n",
            mac(WAN_MAC)
        ))?;
        members.ip(&format!(
            "link set lo up\nlink set members0 up\naddr add 10.255.1.2/30 dev members0\n\
             addr add {}/32 dev lo\nneigh replace 10.255.1.1 lladdr {} nud permanent dev members0\n\
             route add default via 10.255.1.1\n",
            member_address(FIRST_MEMBER),
            mac(LAN_MAC)
        ))?;
        if v6 {
            middle.ip(&format!(
                "addr add 2001:db8:2::1/64 dev wan0 nodad\naddr add 2001:db8:ff::1/64 dev lan0 nodad\n\
                 neigh replace 2001:db8:2::c000:20a lladdr {} nud permanent dev wan0\n\
                 neigh replace 2001:db8:ff::2 lladdr {} nud permanent dev lan0\n",
                mac(PEER_MAC),
                mac(MEMBERS_MAC)
            ))?;
        }
        inside(middle.path(), || sysctl("net/ipv4/ip_forward", "1"))?;
        Ok(Self { peer, middle: Some(middle), members })
    }

    /// Adds routes to the members of these personas. After the hub has taken its personas: it refuses ranges
    /// that the kernel routes already.
    pub(super) fn route(&self, personas: Personas) -> Result<()> {
        let line = |target: &String| format!("route add {target} via 10.255.1.2\n");
        let mut lines: String = personas.targets().iter().map(line).collect();
        if personas.families == Families::Both {
            lines.push_str("route add 2001:db8:64::a40:0/109 via 2001:db8:ff::2\n");
        }
        self.middle()?.ip(&lines)
    }

    fn ends(name: &str, families: Families) -> Result<(Namespace, Namespace)> {
        let peer = Namespace::new(&format!("{PREFIX}{name}-p"))?;
        let members = Namespace::new(&format!("{PREFIX}{name}-e"))?;
        for end in [&peer, &members] {
            inside(end.path(), || quiet(families))?;
        }
        Ok((peer, members))
    }

    /// The namespace that forwards.
    pub(super) fn middle(&self) -> Result<&Namespace> {
        self.middle.as_ref().ok_or_else(|| anyhow::anyhow!("this lab has no middle"))
    }

    /// Switches GRO on: frames that XDP redirects vanish at a veth whose end has no NAPI.
    pub(super) fn receive_frames(&self) -> Result<()> {
        for port in ["wan0", "lan0"] {
            run_inside(self.middle()?.path(), "ethtool", &["-K", port, "gro", "on"])?;
        }
        Ok(())
    }
}

/// Keeps neighbour chatter of IPv6 off the wires, before there are any.
fn quiet(families: Families) -> Result<()> {
    let value = if families == Families::V4 { "1" } else { "0" };
    sysctl("net/ipv6/conf/default/disable_ipv6", value)?;
    sysctl("net/ipv6/conf/all/disable_ipv6", value)
}

/// Removes namespaces that an earlier run left, because it was killed.
pub(super) fn sweep() -> Result<()> {
    for name in left_behind(&text(Command::new("ip").args(["netns", "list"]))?) {
        run(Command::new("ip").args(["netns", "delete", name]))?;
    }
    Ok(())
}

fn left_behind(list: &str) -> Vec<&str> {
    list.lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| name.starts_with(PREFIX))
        .collect()
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_lie_in_their_personas_and_not_on_gateways() {
        let personas = Personas { count: 4_096, rules: 10, families: Families::V4, tracking: Tracking::All };
        assert_eq!(personas.range(1), "10.64.0.64/26");
        assert_eq!(personas.targets().get(1).map(String::as_str), Some("10.64.0.80/28"));
        assert_eq!(personas.range(4_095), "10.67.255.192/26");
    }

    #[test]
    fn only_our_namespaces_are_swept() {
        assert_eq!(left_behind("hubbench-x-p (id: 3)\nother\nhubbench-y\n"), ["hubbench-x-p", "hubbench-y"]);
    }
}
