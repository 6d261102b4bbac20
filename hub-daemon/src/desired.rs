//! The tables that the kernel should hold: what the hub's documents mean, without IO.
//!
//! `Hub::desired(now)` builds one [`Desired`]; `reconcile` makes the kernel equal to it. Names, not
//! numbers: an interface is known by name here, and its index is the kernel side's business.

pub mod interfaces;
pub mod queues;
pub mod shared_map;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;

use crate::model::detector::Detectors;
use crate::model::policy::Policy;
use crate::model::set::Elements;
use crate::model::{PersonaId, SegmentId};
use interfaces::{Interface, Resolver, Tunnel};
use queues::{Queue, QueueKey, Shape};
use shared_map::SharedMap;

/// Everything the hub wants the kernel to hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// Personas in the data path.
    pub segments: SharedMap<SegmentId, Segment>,
    /// Which segment an address belongs to, longest prefix first.
    pub prefixes: SharedMap<IpNet, SegmentId>,
    /// Elements of sets by segment and number, with the end of each.
    pub sets: SharedMap<(SegmentId, u32), Arc<Elements>>,
    /// Addresses that operators keep out of segments, with the end of each.
    pub quarantine: SharedMap<(SegmentId, IpAddr), Timestamp>,
    /// Segments that may talk to each other; the smaller id first.
    pub peers: BTreeSet<(SegmentId, SegmentId)>,
    /// Interfaces with our programs on them, by name.
    pub ports: SharedMap<String, Port>,
    /// Veth pairs that the hub makes, by the name of the hub's end.
    pub endpoints: SharedMap<String, Endpoint>,
    /// Addresses that the hub puts on interfaces.
    pub addresses: SharedMap<(String, IpNet), Address>,
    /// Addresses of the hub that members of a segment may ask for, though they are in none of its ranges.
    pub gateways: SharedMap<(SegmentId, IpAddr), ()>,
    /// Routes with protocol 177.
    pub routes: SharedMap<RouteKey, Route>,
    /// Policy rules (`ip rule`) with protocol 177.
    pub rules: BTreeSet<Rule>,
    /// Ports towards members that others make, by name, there or not: nothing is forwarded from one that has
    /// no programs.
    pub gates: BTreeSet<String>,
    /// Switches of the kernel (`/proc/sys/net/…`), by path below `/proc/sys`, with the value wanted.
    pub sysctls: SharedMap<String, String>,
    /// Ranges that are known by another one in the hub, with that one; both are equally long.
    pub translations: SharedMap<Translation, IpNet>,
    /// Largest packet of segments whose TCP is to know it, in bytes.
    pub mtus: SharedMap<SegmentId, u32>,
    /// Connections that a source may have with members of segments, where that is limited.
    pub connections: SharedMap<SegmentId, u32>,
    /// Whether connections leave uplinks with the hub's address.
    pub masquerade: bool,
    /// What the data path watches for, by segment.
    pub detectors: SharedMap<SegmentId, Detectors>,
    /// What packets of personas get beside a verdict. A shape comes and goes with the policy.
    pub shapes: SharedMap<SegmentId, Shape>,
    /// What they would get with the policies on trial.
    pub trial_shapes: SharedMap<SegmentId, Shape>,
    /// Queues that packets wait in.
    pub queues: SharedMap<QueueKey, Queue>,
    /// What personalities want of interfaces, by name of the record.
    pub interfaces: BTreeMap<String, Interface>,
    /// Tunnels of personalities, by name of the link.
    pub tunnels: SharedMap<String, Tunnel>,
    /// Resolvers of personalities, by name of the interface record.
    pub resolvers: SharedMap<String, Resolver>,
    /// Numbers of the data path.
    pub settings: Settings,
}

/// A range as it is known on one side of the hub.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Translation {
    /// Whose it is.
    pub segment: SegmentId,
    /// Who knows it so.
    pub view: View,
    /// The range there.
    pub other: IpNet,
}

/// Who knows a range by another one than the hub does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum View {
    /// Members.
    Member,
    /// Hosts beyond uplinks.
    Outside,
}

/// One persona in the data path.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    /// Whose it is.
    pub persona: PersonaId,
    /// What packets are judged by. Two equal policies may share nothing: a policy belongs to one segment.
    pub policy: Arc<Policy>,
    /// When the data path stops passing its packets.
    pub expires: Option<Timestamp>,
    /// When it stops taking new flows, if that is earlier.
    pub drains: Option<Timestamp>,
    /// Whether it passes packets.
    pub state: SegmentState,
    /// `hub_common::segment::SEGMENT_*` bits: what else the data path looks up for its packets.
    pub flags: u32,
    /// A policy that is judged beside the live one and decides nothing.
    pub candidate: Option<Trial>,
    /// Differs from before when elements of its sets changed.
    pub set_generation: u32,
    /// Whether its members' packets have routes of their own.
    pub routed: bool,
    /// How flows begin while it is about to change over; `None` if it is not.
    pub transition: Option<Transition>,
    /// Until when its policy holds; `None` is until another comes.
    pub lease: Option<Lease>,
}

/// How flows begin in a segment that is about to change over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transition {
    /// What begins must pass the policy on trial as well.
    pub gate: bool,
    /// Nothing begins.
    pub refuse_all: bool,
    /// TCP that is refused is told so.
    pub reject: bool,
}

/// The end of a policy that the data path sees to itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Lease {
    /// When it ends.
    pub until: Timestamp,
    /// What packets are judged by from then on.
    pub policy: Arc<Policy>,
}

/// What a segment does with packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentState {
    /// Judges them by its policy.
    Active,
    /// Refuses flows that are not established.
    Drain,
    /// Refuses everything.
    Block,
}

/// One interface with our programs on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Which side of the hub it is on.
    pub role: Role,
    /// The one segment behind it; `None` for uplinks and for ports that several personas share.
    pub segment: Option<SegmentId>,
    /// Whether XDP runs there too.
    pub xdp: Xdp,
}

/// Which side of the hub a port is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Towards the rest of the network.
    Uplink,
    /// Towards members of personas.
    Segment,
}

/// How the TC programs get onto ports.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum TcHook {
    /// By TCX links where the kernel has them (Linux 6.6), else by filters of `clsact`.
    #[default]
    Auto,
    /// By TCX links only.
    Tcx,
    /// By filters of the qdisc `clsact`, as on older kernels.
    Clsact,
}

/// Whether XDP runs on a port beside TC.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Xdp {
    /// Where it pays: frames from outside, not local stacks that send super-packets.
    #[default]
    Auto,
    /// Always; a condition reports where the kernel refuses.
    On,
    /// Never.
    Off,
}

/// A policy on trial. Another trial of the same policy counts anew.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// What packets are judged by as well.
    pub policy: Arc<Policy>,
    /// When it began.
    pub began: Timestamp,
    /// It only waits, compiled, to become the live one: packets are not judged by it, and cost nothing.
    pub held: bool,
}

/// A veth pair: one end on the hub, the other in a member's network namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// Where the member's end goes.
    pub namespace: Namespace,
    /// Name of the member's end there.
    pub interface: String,
    /// Addresses of the member, as /32 or /128: everything goes through the hub.
    pub addresses: Vec<IpNet>,
    /// Addresses of the hub towards the member, one per family: its default gateways.
    pub gateways: Vec<IpAddr>,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Kernel-side lifetime of the member's addresses.
    pub expires: Option<Timestamp>,
}

/// A network namespace that somebody else made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Namespace {
    /// `/run/netns/NAME`, or an absolute path.
    Name(String),
    /// The namespace of a process.
    Pid(u32),
}

/// An address that the hub puts on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The kernel removes the address then, also when the daemon is dead.
    pub expires: Option<Timestamp>,
}

/// What identifies a route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteKey {
    /// Kernel table number; 254 is main.
    pub table: u32,
    /// Destination.
    pub target: IpNet,
    /// Priority; smaller wins.
    pub metric: u32,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Next hop or interface.
    pub via: Via,
    /// Whose it is, for reports.
    pub persona: PersonaId,
}

/// Where packets of a route go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// Out of an interface, the target on its link.
    Interface(String),
    /// To a router; the interface is found by the kernel when absent.
    Gateway {
        /// The router.
        gateway: IpAddr,
        /// The interface towards it.
        interface: Option<String>,
    },
    /// Nowhere; the sender is told.
    Unreachable,
    /// Nowhere, in silence.
    Blackhole,
    /// Nowhere; the sender is told that it is forbidden.
    Prohibit,
}

/// A policy rule: packets that come in by an interface use a table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Priority; ours are in [`RULE_PRIORITIES`].
    pub priority: u32,
    /// Source prefix.
    pub source: IpNet,
    /// Table to look up.
    pub table: u32,
}

/// Numbers of the data path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Idle timeouts in seconds by flow state (`hub_common::flow::FLOW_STATES`).
    pub timeout_seconds: [u32; 8],
    /// TCP and UDP ports of the host that stay reachable: (protocol, port).
    pub failsafe: BTreeSet<(u8, u16)>,
    /// Services of the host that members may use: (protocol, port).
    pub services: BTreeSet<(u8, u16)>,
    /// First and last port for masqueraded connections.
    pub masquerade_ports: (u16, u16),
}

/// Routing protocol number that marks routes and rules as the hub's.
pub const PROTOCOL: u8 = 177;
/// Address protocol number that marks addresses of interfaces with a personality: an interface may have addresses
/// of a persona or of an endpoint as well, and those are another table's.
pub const INTERFACE_PROTOCOL: u8 = 178;
/// Priorities of the hub's policy rules.
pub const RULE_PRIORITIES: std::ops::Range<u32> = 17_700..17_800;
/// Priority of the rules that close a gate: before all other rules of the hub.
pub const GATE_PRIORITY: u32 = 17_699;
/// First of the hub's routing tables: the table of segment N is this plus N.
pub const TABLE_BASE: u32 = 17_700_000;
/// Prefix of the names of interfaces that the hub makes.
pub const LINK_PREFIX: &str = "hub";
