//! What is there in the kernel beside the hub's own: links, and routes and rules of others.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::desired::LINK_PREFIX;
use crate::desired::interfaces::{Known, Selector};

/// What the hub needs to know of the kernel's state to decide.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Links by name.
    pub links: BTreeMap<String, Link>,
    /// Prefixes routed by others (not protocol 177, not the default route), for overlap checks.
    pub foreign_routes: Vec<IpNet>,
    /// Whether others have policy rules (`ip rule`) beside the kernel's own three.
    pub foreign_rules: bool,
    /// Whether an interface has a queue of the hub at its root.
    pub has_queues: bool,
}

impl Inventory {
    /// Whether what personas contribute is the same on another state of the network: addresses and foreign
    /// routes do not matter to it.
    pub fn is_ground_of(&self, other: &Self) -> bool {
        let same = |one: &Link, other: &Link| {
            let Link { ifindex, up, kind, vlan: _, mtu, l3_only, mac, other_names: _, addresses: _, queue } =
                one;
            (ifindex, up, kind, mtu, l3_only, mac, queue)
                == (
                    &other.ifindex,
                    &other.up,
                    &other.kind,
                    &other.mtu,
                    &other.l3_only,
                    &other.mac,
                    &other.queue,
                )
        };
        self.links.len() == other.links.len()
            && self.links.iter().zip(&other.links).all(|(one, two)| one.0 == two.0 && same(one.1, two.1))
    }

    /// Name of the one link that is meant, if there is one.
    pub fn name_of(&self, selector: &Selector) -> Option<&String> {
        let found = selector.among(self.links.iter(), |(name, link)| Known {
            name,
            mac: link.mac,
            other_names: &link.other_names,
            kind: &link.kind,
        });
        if let [(name, _)] = found.as_slice() { Some(name) } else { None }
    }

    /// Links that are not the hub's endpoints.
    pub fn others(&self) -> impl Iterator<Item = (&String, &Link)> {
        self.links.iter().filter(|(name, _)| !name.starts_with(LINK_PREFIX))
    }
}

/// One link in the hub's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub ifindex: u32,
    /// Whether it is up and has a carrier.
    pub up: bool,
    /// Kind (`veth`, `bridge`, …), empty for physical devices.
    pub kind: String,
    /// Its number, if it is a device of one VLAN (802.1Q).
    pub vlan: Option<u16>,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Whether frames have no Ethernet header.
    pub l3_only: bool,
    /// Its MAC address, zeros where it has none.
    pub mac: [u8; 6],
    /// Other names that it was given.
    pub other_names: Vec<String>,
    /// Addresses on it, with the lengths of their networks.
    pub addresses: Vec<IpNet>,
    /// The queue that somebody else put on it, as `tc` names it.
    pub queue: Option<String>,
}
