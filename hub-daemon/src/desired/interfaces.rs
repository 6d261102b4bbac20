//! What personalities want of interfaces: addresses, routing tables, tunnels, resolvers.
//!
//! An interface has two slots for routing tables. Both are filled while a switch is prepared; which one packets
//! use is one rule, so that a switch changes routes in one step. Addresses of both personalities are there
//! meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use hub_common::segment::TUNNEL_INDEX;
use ipnet::IpNet;
use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::{Namespace, Via};
use crate::model::{PersonaId, SegmentId, names};

/// First of the routing tables of interfaces: slot S of the interface of segment N is this plus 2 × N + S.
pub const INTERFACE_TABLE_BASE: u32 = 17_800_000;
/// Priorities of the rules that choose a slot: see `tables::interfaces::rules`.
pub const SLOT_PRIORITIES: RangeInclusive<u32> = 17_709..=17_714;

/// Kinds of links that take the hardware address of a device below.
const STACKED: [&str; 6] = ["vlan", "bridge", "bond", "team", "macvlan", "ipvlan"];

/// Which interface is meant, and in which network namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Where it is; `None` is the hub's own namespace.
    pub namespace: Option<Namespace>,
    /// Which one there.
    pub selector: Selector,
}

/// What an interface is known by. A name may change, the others say which interface it is all the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Selector {
    /// Its name.
    Name(String),
    /// Its hardware address.
    Mac([u8; 6]),
    /// Another name that it was given (`ip link property add altname`).
    AltName(String),
}

impl fmt::Display for Selector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(formatter, "`{name}`"),
            Self::Mac(mac) => write!(formatter, "with the MAC {}", mac_text(*mac)),
            Self::AltName(name) => write!(formatter, "with the other name `{name}`"),
        }
    }
}

/// Links on top of a device (VLANs, bridges) take its hardware address: it is the device that is meant by it.
fn is_stacked(kind: &str) -> bool {
    STACKED.contains(&kind)
}

impl Selector {
    /// What an interface is called that is not there: by no name that another one could have.
    pub fn stand_in(&self) -> String {
        match self {
            Self::Name(name) => name.clone(),
            Self::Mac(mac) => mac.map(|byte| format!("{byte:02x}")).concat(),
            // The kernel gives no link a name that is another one's other name.
            Self::AltName(name) if names::interface(name).is_ok() => name.clone(),
            Self::AltName(name) => format!("alt-{:08x}", tunnel_index(name)),
        }
    }
}

/// A hardware address as people write it.
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Which of the two slots of an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// The first.
    #[default]
    A,
    /// The second.
    B,
}

impl Slot {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// Its place in a pair.
    pub fn index(self) -> usize {
        match self {
            Self::A => 0,
            Self::B => 1,
        }
    }
}

/// What a link is known by.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Other names that it was given.
    pub other_names: &'a [String],
    /// Its kind, empty for physical devices.
    pub kind: &'a str,
}

impl Selector {
    /// The links that may be meant; of several with one MAC the one device that the others are made on.
    pub fn among<'a, T>(&self, links: impl Iterator<Item = T>, known: impl Fn(&T) -> Known<'a>) -> Vec<T> {
        let fits = |link: &T| match self {
            Self::Name(name) => known(link).name == name,
            Self::Mac(mac) => known(link).mac == *mac,
            Self::AltName(name) => known(link).other_names.contains(name),
        };
        let mut found: Vec<T> = links.filter(fits).collect();
        let is_lower = |link: &T| !is_stacked(known(link).kind);
        if found.len() > 1 && found.iter().filter(|link| is_lower(link)).count() == 1 {
            found.retain(is_lower);
        }
        found
    }
}

/// Kernel number of the routing table of a slot.
pub fn slot_table(segment: SegmentId, slot: Slot) -> u32 {
    INTERFACE_TABLE_BASE + 2 * segment.0 + u32::from(slot == Slot::B)
}

/// What an interface has from its personality, and from the one that is being prepared.
#[derive(Clone, Debug, PartialEq)]
pub struct Interface {
    /// Which interface.
    pub place: Place,
    /// When its record was made: of several that turn out to be one interface, the first has it.
    pub made_at: Timestamp,
    /// The persona that carries its policy; faults are told to it.
    pub persona: PersonaId,
    /// Its addresses.
    pub addresses: BTreeMap<IpNet, InterfaceAddress>,
    /// Largest packet in bytes; `None` leaves it as it is.
    pub mtu: Option<u32>,
    /// Kernel numbers of the routing tables of both slots.
    pub tables: [u32; 2],
    /// Routes in those tables.
    pub routes: [BTreeMap<InterfaceRouteKey, InterfaceRoute>; 2],
    /// The slot that packets use.
    pub live: Slot,
    /// Whose packets use it.
    pub scope: RuleScope,
    /// Whether packets that bear the number of one of the tables as their mark use that one, live or not.
    pub probed: bool,
}

/// One address of an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// Whether nothing chooses it as a source yet, or any more.
    pub deprecated: bool,
    /// Whether it is only to stay for a while where it is there.
    pub leaves: bool,
    /// How far it is known.
    pub scope: AddressScope,
}

/// How far an address is known.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum AddressScope {
    /// Everywhere.
    #[default]
    Global,
    /// On its link.
    Link,
    /// On its host.
    Host,
}

/// Whose packets use the routing tables of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleScope {
    /// Everything that the namespace sends: the interface is a resource's only one with a personality.
    Everything,
    /// What comes from the interface's addresses.
    FromAddresses,
    /// Nobody's: the personality has no routes.
    Nothing,
}

/// What tells routes of one table apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InterfaceRouteKey {
    /// Destination.
    pub target: IpNet,
    /// Priority; smaller wins.
    pub metric: u32,
}

/// Where a route of an interface leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceRoute {
    /// The way.
    pub via: InterfaceVia,
    /// Address that packets of the namespace itself get as their source.
    pub source: Option<IpAddr>,
}

/// Where packets of a route go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InterfaceVia {
    /// Out of a device, the target on its link; `None` is the interface itself.
    Link(Option<String>),
    /// To a router on the link of a device; `None` is the interface itself.
    Gateway {
        /// The router.
        gateway: IpAddr,
        /// The device towards it.
        device: Option<String>,
    },
    /// Nowhere, in silence.
    Blackhole,
    /// Nowhere; the sender is told.
    Unreachable,
    /// Nowhere; the sender is told that it is forbidden.
    Prohibit,
}

impl InterfaceVia {
    /// The way as the routing tables hold it, for an interface of this name.
    pub fn on(&self, interface: &str) -> Via {
        let device = |device: &Option<String>| device.clone().unwrap_or_else(|| interface.to_owned());
        match self {
            Self::Link(other) => Via::Interface(device(other)),
            Self::Gateway { gateway, device: other } => {
                Via::Gateway { gateway: *gateway, interface: Some(device(other)) }
            }
            Self::Blackhole => Via::Blackhole,
            Self::Unreachable => Via::Unreachable,
            Self::Prohibit => Via::Prohibit,
        }
    }
}

/// The routes of somebody who reaches everything through a gateway: the gateway alone is on the link, all else is
/// behind it, neighbours in the same range too.
pub fn through_gateway(gateway: IpAddr, source: Option<IpAddr>) -> [(InterfaceRouteKey, InterfaceRoute); 2] {
    let key = |target| InterfaceRouteKey { target, metric: 0 };
    let route = |via| InterfaceRoute { via, source };
    [
        (key(IpNet::from(gateway)), route(InterfaceVia::Link(None))),
        (key(everything(gateway)), route(InterfaceVia::Gateway { gateway, device: None })),
    ]
}

/// The default route's target in the family of an address.
pub fn everything(address: IpAddr) -> IpNet {
    match address {
        IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

/// A `WireGuard` tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Where the device is; its outer packets use the same namespace.
    pub namespace: Option<Namespace>,
    /// The persona that carries the policy of its interface.
    pub persona: PersonaId,
    /// The segment that judges what goes through it where it is in a namespace of others. In the hub's own the device
    /// is a port like any other.
    pub segment: Option<SegmentId>,
    /// Who encrypts.
    pub backend: TunnelBackend,
    /// File with the private key, base64 as `wg genkey` writes it. Keys are read when they are used and kept nowhere.
    pub private_key_file: PathBuf,
    /// UDP port that it listens on; `None` leaves the choice to the kernel.
    pub listen_port: Option<u16>,
    /// Firewall mark of its outer packets.
    pub mark: Option<u32>,
    /// Addresses of the device.
    pub addresses: BTreeSet<IpNet>,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// The other ends, by public key (base64).
    pub peers: BTreeMap<String, TunnelPeer>,
}

impl Tunnel {
    /// Interface index of the device, where it is not the kernel's choice: what judges tunnels knows them by it, and
    /// indexes of different namespaces are else the same.
    pub fn index(&self, link: &str) -> Option<u32> {
        self.segment.map(|_| tunnel_index(link))
    }
}

/// Interface index of a tunnel in a namespace of others, made of its name, which is used once.
pub fn tunnel_index(link: &str) -> u32 {
    let digits = digest(&SHA256, link.as_bytes());
    let first = digits.as_ref().first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
    TUNNEL_INDEX | first >> 2
}

/// Who encrypts the packets of a tunnel.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum TunnelBackend {
    /// The kernel where it can, else a process.
    #[default]
    Auto,
    /// The kernel.
    Kernel,
    /// A process of its own, so that a restart of `hubd` keeps the tunnel.
    Userspace,
}

/// The other end of a tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TunnelPeer {
    /// Where it is reached; `None` waits for it to call.
    pub endpoint: Option<SocketAddr>,
    /// What it may send, and what is sent to it. No route follows from it.
    pub allowed: BTreeSet<IpNet>,
    /// Seconds between packets that keep the way open; 0 sends none.
    pub keepalive_seconds: u16,
    /// File with a pre-shared key, base64.
    pub preshared_key_file: Option<PathBuf>,
}

/// Who answers names for an interface's namespace, or link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolver {
    /// Where names are asked.
    pub place: Place,
    /// The persona that carries the policy of its interface.
    pub persona: PersonaId,
    /// Servers in order.
    pub servers: Vec<IpAddr>,
    /// Domains that names without dots are looked for in.
    pub search: Vec<String>,
    /// Whether the host's `/etc/resolv.conf` may be written where nothing better is there.
    pub manage_resolv_conf: bool,
}
