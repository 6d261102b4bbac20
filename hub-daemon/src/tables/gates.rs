//! Gates: policy rules by which nothing that comes in by an interface is forwarded.
//!
//! An interface may be deleted and made anew under its name at any time. Its programs went with the old one,
//! and until they are on the new one its packets would be forwarded unjudged. A rule by the *name* of an
//! interface stays when the interface goes, and the kernel applies it to the next of that name from the
//! moment it exists. So a gate is closed while programs are missing on a port towards members, and opened
//! when they run. Ours carry protocol 177, and a priority before that of all other rules of the hub.

use std::collections::{BTreeMap, BTreeSet};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use nix::errno::Errno;

use super::family;
use crate::desired::shared_map::SharedMap;
use crate::desired::{GATE_PRIORITY, PROTOCOL};
use crate::kernel::netlink::{Netlink, NetlinkError};
use crate::reconcile::Table;

/// The gates of both families.
pub struct Gates {
    netlink: Netlink,
}

/// The name of an interface, and whether the gate is that of IPv4.
pub type Gate = (String, bool);

impl Gates {
    /// The gates of the namespace that the socket belongs to.
    pub fn new(netlink: Netlink) -> Self {
        Self { netlink }
    }
}

impl Table for Gates {
    type Key = Gate;
    type Value = ();
    type Found = ();
    type Error = NetlinkError;
    const NAME: &'static str = "gates";

    fn list(&mut self) -> Result<BTreeMap<Gate, ()>, NetlinkError> {
        let mut found = BTreeMap::new();
        for family in family::FAMILIES {
            let mut question = RuleMessage::default();
            question.header.family = family;
            for message in self.netlink.dump(&RouteNetlinkMessage::GetRule(question), "list gates")? {
                if let RouteNetlinkMessage::NewRule(message) = message {
                    found.extend(gate(&message).map(|gate| (gate, ())));
                }
            }
        }
        Ok(found)
    }

    fn put(&mut self, gate: &Gate, (): &()) -> Result<(), NetlinkError> {
        let intent = format_args!("close {}", Self::describe(gate));
        self.netlink.change(RouteNetlinkMessage::NewRule(message(gate)), NLM_F_CREATE | NLM_F_EXCL, intent)
    }

    fn delete(&mut self, gate: &Gate) -> Result<(), NetlinkError> {
        let intent = format_args!("open {}", Self::describe(gate));
        match self.netlink.change(RouteNetlinkMessage::DelRule(message(gate)), 0, intent) {
            Err(error) if !error.is(Errno::ENOENT) => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn holds((): &(), (): &()) -> bool {
        true
    }

    fn describe((name, v4): &Gate) -> String {
        format!("gate of {name} for {}", if *v4 { "IPv4" } else { "IPv6" })
    }
}

/// The gates of these interfaces.
pub fn wanted(closed: &BTreeSet<String>) -> SharedMap<Gate, ()> {
    closed.iter().flat_map(|name| [true, false].map(|v4| ((name.clone(), v4), ()))).collect()
}

fn message((name, v4): &Gate) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = if *v4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.action = RuleAction::Blackhole;
    message.attributes = vec![
        RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)),
        RuleAttribute::Priority(GATE_PRIORITY),
        RuleAttribute::Iifname(name.clone()),
    ];
    message
}

fn gate(message: &RuleMessage) -> Option<Gate> {
    let (mut name, mut ours, mut priority) = (None, false, 0);
    for attribute in &message.attributes {
        if let RuleAttribute::Protocol(protocol) = attribute {
            ours = *protocol == RouteProtocol::Other(PROTOCOL);
        } else if let RuleAttribute::Priority(number) = attribute {
            priority = *number;
        } else if let RuleAttribute::Iifname(text) = attribute {
            name = Some(text.clone());
        }
    }
    let closed = message.header.action == RuleAction::Blackhole && priority == GATE_PRIORITY;
    let v4 = message.header.family == AddressFamily::Inet;
    name.filter(|_| ours && closed).map(|name| (name, v4))
}
