//! Health checks: what is asked of an interface before and after its personality is switched, and what came of it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::page::Page;

/// Time between two tries of a check.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// How long one try may take.
pub const TIMEOUT: Duration = Duration::from_secs(2);
/// Tries in a row that must succeed.
pub const PASSES: u32 = 2;
/// Tries in a row that fail before a check is given up that nobody depends on.
pub const PATIENCE: u32 = 2;
/// When a phase of checks is given up.
pub const PHASE: Duration = Duration::from_secs(20);

/// One question to the network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// The interface is up and has a carrier.
    Carrier,
    /// These addresses are on it, and duplicate detection is over.
    Addresses(Vec<IpNet>),
    /// The hub's passes leave nothing undone for it. Answered by the hub itself.
    Applied,
    /// The loaded programs judge packets to and from it as its rules say. Answered by the data path.
    Rules,
    /// Packets are not dropped for want of a connection or of rules much more than before. Answered by the data path.
    Drops {
        /// Packets a second that were before; `None` counts them.
        before: Option<u64>,
    },
    /// The MAC of a router on the link is found.
    Neighbour(IpAddr),
    /// A host answers pings.
    Ping(IpAddr),
    /// Packets to a target leave by a device.
    Route {
        /// The target.
        target: IpAddr,
        /// The device expected; `None` is the interface itself.
        device: Option<String>,
    },
    /// A server answers a question for a name.
    Dns {
        /// The server.
        server: IpAddr,
        /// The name; `.` asks for its NS records.
        name: String,
    },
    /// The last handshake of a tunnel is recent enough; who has been silent for longer is called.
    Handshake {
        /// Name of the tunnel's link.
        link: String,
        /// Public keys of those that can be called, each of which must have answered; without any somebody must have
        /// called.
        peers: Vec<String>,
        /// Oldest handshake that counts.
        within: Duration,
    },
    /// A TCP port accepts a connection.
    Tcp(SocketAddr),
    /// A page comes with a status below 400.
    Http(Page),
}

impl fmt::Display for Check {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Carrier => formatter.write_str("carrier"),
            Self::Addresses(nets) => {
                let nets: Vec<String> = nets.iter().map(ToString::to_string).collect();
                write!(formatter, "addresses {}", nets.join(", "))
            }
            Self::Applied => formatter.write_str("applied"),
            Self::Rules => formatter.write_str("rules"),
            Self::Drops { .. } => formatter.write_str("drops"),
            Self::Neighbour(address) => write!(formatter, "neighbour {address}"),
            Self::Ping(address) => write!(formatter, "ping {address}"),
            Self::Route { target, device: None } => write!(formatter, "route {target}"),
            Self::Route { target, device: Some(device) } => write!(formatter, "route {target} by {device}"),
            Self::Dns { server, name } => write!(formatter, "dns {name} at {server}"),
            Self::Handshake { link, peers: _, within } => {
                write!(formatter, "handshake of {link} within {} s", within.as_secs())
            }
            Self::Tcp(to) => write!(formatter, "tcp {to}"),
            Self::Http(page) => write!(formatter, "http {page}"),
        }
    }
}

/// A check with whether it must pass.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CheckAsked {
    /// The question.
    pub check: Check,
    /// Whether the personality's document names it: then it must pass whatever was before.
    pub named: bool,
    /// Whether it is tried until the phase is over; if not, it is given up when [`PATIENCE`] tries have failed.
    pub waits: bool,
    /// Mark of the packets that ask, by which they find the routes of a personality that does not decide.
    pub mark: Option<u32>,
    /// Devices that packets which ask may leave by beside the interface itself; `None` is any.
    pub devices: Option<Vec<String>>,
}

impl CheckAsked {
    /// A check of the hub's own, or one that the document names, which is waited for. Its packets have no mark and
    /// leave by any device.
    pub fn new(check: Check, named: bool) -> Self {
        Self { check, named, waits: named, mark: None, devices: None }
    }
}

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CheckResult {
    /// The check in words, like `ping 10.0.0.1`.
    pub check: String,
    /// Whether it passed.
    pub passed: bool,
    /// What was seen: a time, or why not.
    pub detail: String,
    /// Tries; none if it could not be asked, as where the network namespace cannot be entered.
    pub tries: u32,
    /// What a check counts that compares with before: packets a second, the most of its tries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted: Option<u64>,
}
