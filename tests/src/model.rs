//! What the hub should do with a packet, written to be obviously right and in no hurry.
//!
//! It follows the description of the data path step by step and shares no decision with `hub-common`:
//! it has its own parser over slices, compares prefixes bit by bit in lists, and asks rules in a loop.
//! From `hub-common` it takes names and records only ([`Reason`], [`Rule`], `POLICY_*`, `RULE_*`).
//!
//! The model says whether a packet passes, never by which way: a redirect and a packet that is left to
//! the kernel are both [`Verdict::Pass`].

mod changes;
mod connections;
mod flows;
mod headers;
mod icmp;
mod judge;
mod kinds;
mod lists;
mod neighbours;
mod open;
mod related;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use hub_common::event::Reason;
use hub_common::rule::Rule;

pub use changes::{Change, Decision};
pub use flows::{Flow, Stamp, State, Timeouts, Tuple};
pub use headers::{Headers, Parsed, Piece, parse};
pub use lists::{Element, Enforcement, Limit, contains};
pub use open::open_ports;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Judged and allowed.
    Pass,
    /// Not the hub's to judge.
    Skip,
    /// Dropped in silence.
    Drop(Reason),
    /// Dropped, and the sender is told as far as the rate limit allows.
    Reject(Reason),
}

impl Verdict {
    /// Why the packet does not pass.
    pub const fn reason(self) -> Option<Reason> {
        match self {
            Self::Pass | Self::Skip => None,
            Self::Drop(reason) | Self::Reject(reason) => Some(reason),
        }
    }
}

/// Where a packet meets the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It came in by this interface.
    In(u32),
    /// It is about to leave by one interface and came in by another, 0 when the host itself sends it.
    Out {
        /// Interface it leaves by.
        port: u32,
        /// Interface it came in by.
        came_by: u32,
    },
}

/// Which side of the hub a port is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Towards the rest of the network.
    Uplink,
    /// Towards members of one segment.
    Segment(u32),
    /// Towards members of any segment.
    Shared,
}

/// State of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Judged by its policy.
    Active,
    /// Refuses flows that are not established.
    Drain,
    /// Refuses everything.
    Block,
}

/// What one segment allows.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Permitted IP protocols.
    pub protocols: BTreeSet<u8>,
    /// Protocols towards members that pass when no rule matches.
    pub ingress_default: BTreeSet<u8>,
    /// Protocols from members that pass when no rule matches.
    pub egress_default: BTreeSet<u8>,
    /// Rules towards members, in order.
    pub ingress: Vec<Rule>,
    /// Rules from members, in order.
    pub egress: Vec<Rule>,
    /// Flows that an older policy admitted stay.
    pub preserve: bool,
    /// The default action tells the sender.
    pub default_reject: bool,
    /// Connections that ports alone allow both ways are not remembered.
    pub untracked: bool,
    /// Whether its rules decide.
    pub enforcement: Enforcement,
}

/// One persona.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Its policy, if it has one yet.
    pub policy: Option<Policy>,
    /// Differs between any two policies that this segment ever had.
    pub version: u32,
    /// Its state.
    pub life: Life,
    /// No packet passes at or after this tick.
    pub expires_tick: u64,
    /// No flow begins at or after this tick.
    pub drains_tick: u64,
    /// Its hard cap of bandwidth is used up, in both directions and for good.
    pub capped: bool,
    /// Differs from before when one of its sets changed.
    pub set_generation: u32,
    /// Connections that a source may have with its members at once.
    pub connections: Option<i64>,
}

/// An address range with the segment it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// First address.
    pub address: IpAddr,
    /// Leading bits that count.
    pub bits: u8,
    /// Whose it is.
    pub segment: u32,
}

/// The hub: what it was told, and what it remembers.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Segments by number, from 1.
    pub segments: BTreeMap<u32, Segment>,
    /// Ranges of the segments; no two are equal.
    pub prefixes: Vec<Prefix>,
    /// Pairs of segments that may talk, each with the smaller number first.
    pub peers: BTreeSet<(u32, u32)>,
    /// Ports by interface.
    pub ports: BTreeMap<u32, Role>,
    /// Sets by segment and number.
    pub sets: BTreeMap<(u32, u32), Vec<Element>>,
    /// Addresses kept out of a segment, or of all for 0, until a tick.
    pub quarantine: BTreeMap<(u32, IpAddr), u64>,
    /// Limits by slot; their buckets never fill again.
    pub limits: BTreeMap<u16, Limit>,
    /// What was taken from each limit, by source where it holds them apart.
    taken: BTreeMap<(u16, Option<IpAddr>), u64>,
    /// Connections that sources have, by segment and limit; without a limit all to the segment's members.
    connections: BTreeMap<(u32, Option<u16>, IpAddr), i64>,
    /// The hub's own addresses.
    pub locals: BTreeSet<IpAddr>,
    /// Those that lie beside the ranges of the segment whose members may ask for them.
    pub gateways: BTreeSet<(u32, IpAddr)>,
    /// Protocols and ports of the host that stay reachable over uplinks.
    pub failsafe: BTreeSet<(u8, u16)>,
    /// TCP without SYN may open flows before this tick.
    pub loose_tcp_until_tick: u64,
    /// How long flows and fragments are remembered.
    pub timeouts: Timeouts,
    flows: Vec<Flow>,
    fragments: Vec<flows::FirstFragment>,
}

impl Model {
    /// The flows that are remembered, also those idle for too long.
    pub fn flows(&self) -> &[Flow] {
        &self.flows
    }

    /// The segment with the longest prefix that holds the address.
    pub fn segment_of(&self, address: IpAddr) -> Option<u32> {
        let mut best: Option<Prefix> = None;
        for prefix in &self.prefixes {
            if holds(*prefix, address) && best.is_none_or(|other| prefix.bits > other.bits) {
                best = Some(*prefix);
            }
        }
        best.map(|prefix| prefix.segment)
    }

    /// Judges a packet and remembers what follows from it.
    pub fn judge(&mut self, entry: Entry, frame: &[u8], now_tick: u64) -> Verdict {
        let decision = self.decide(entry, frame, now_tick);
        self.apply(decision.changes);
        decision.verdict
    }
}

/// Whether the prefix holds the address: same family, and no leading bit differs.
fn holds(prefix: Prefix, address: IpAddr) -> bool {
    let (ours, theirs) = (octets(prefix.address), octets(address));
    ours.len() == theirs.len() && (0..prefix.bits).all(|bit| bit_of(&ours, bit) == bit_of(&theirs, bit))
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn bit_of(bytes: &[u8], bit: u8) -> bool {
    bytes[usize::from(bit / 8)] & (128 >> (bit % 8)) != 0
}
