//! Policy rules (`ip rule`) that carry our protocol number.
//!
//! A rule has no content beside its key. Rules with our number and conditions that the hub never writes
//! are not listed.

use std::collections::BTreeMap;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use nix::errno::Errno;

use super::family;
use crate::desired::interfaces::SLOT_PRIORITIES;
use crate::desired::shared_map::SharedMap;
use crate::desired::{Desired, PROTOCOL, Rule};
use crate::kernel::netlink::{Netlink, NetlinkError};
use crate::reconcile::Table;

/// The policy rules of both families.
pub struct Rules {
    netlink: Netlink,
}

impl Rules {
    /// The rules of the namespace that the socket belongs to.
    pub fn new(netlink: Netlink) -> Self {
        Self { netlink }
    }
}

impl Table for Rules {
    type Key = Rule;
    type Value = ();
    type Found = ();
    type Error = NetlinkError;
    const NAME: &'static str = "rules";

    fn list(&mut self) -> Result<BTreeMap<Rule, ()>, NetlinkError> {
        let mut found = BTreeMap::new();
        for family in family::FAMILIES {
            let mut question = RuleMessage::default();
            question.header.family = family;
            for message in self.netlink.dump(&RouteNetlinkMessage::GetRule(question), "list rules")? {
                if let RouteNetlinkMessage::NewRule(message) = message {
                    found.extend(rule(&message).map(|rule| (rule, ())));
                }
            }
        }
        Ok(found)
    }

    fn put(&mut self, rule: &Rule, (): &()) -> Result<(), NetlinkError> {
        let intent = format_args!("put {}", Self::describe(rule));
        self.netlink.change(RouteNetlinkMessage::NewRule(message(rule)), NLM_F_CREATE | NLM_F_EXCL, intent)
    }

    fn delete(&mut self, rule: &Rule) -> Result<(), NetlinkError> {
        let intent = format_args!("delete {}", Self::describe(rule));
        match self.netlink.change(RouteNetlinkMessage::DelRule(message(rule)), 0, intent) {
            Err(error) if !error.is(Errno::ENOENT) => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn holds((): &(), (): &()) -> bool {
        true
    }

    fn describe(rule: &Rule) -> String {
        format!("rule {}: from {} lookup {}", rule.priority, rule.source, rule.table)
    }
}

/// The rules wanted, under the keys that the kernel reads back.
pub fn wanted(desired: &Desired) -> SharedMap<Rule, ()> {
    desired.rules.iter().map(|rule| (Rule { source: rule.source.trunc(), ..rule.clone() }, ())).collect()
}

fn message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family::of(rule.source.addr());
    message.header.action = RuleAction::ToTable;
    message.header.src_len = rule.source.prefix_len();
    message.attributes = vec![
        RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)),
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::Table(rule.table),
    ];
    if rule.source.prefix_len() > 0 {
        message.attributes.push(RuleAttribute::Source(rule.source.network()));
    }
    message
}

fn rule(message: &RuleMessage) -> Option<Rule> {
    let header = &message.header;
    let mut source = family::unspecified(header.family)?;
    let (mut priority, mut table, mut ours) = (0, u32::from(header.table), false);
    let mut plain = header.action == RuleAction::ToTable
        && header.dst_len == 0
        && header.tos == 0
        && !header.flags.contains(RuleFlags::Invert);
    for attribute in &message.attributes {
        if let RuleAttribute::Protocol(protocol) = attribute {
            ours = *protocol == RouteProtocol::Other(PROTOCOL);
        } else if let RuleAttribute::Priority(number) = attribute {
            priority = *number;
        } else if let RuleAttribute::Table(number) = attribute {
            table = *number;
        } else if let RuleAttribute::Source(address) = attribute {
            source = *address;
        } else if !matches!(
            attribute,
            RuleAttribute::SuppressPrefixLen(u32::MAX)
                | RuleAttribute::Other(_)
                | RuleAttribute::L3MDev(false)
        ) {
            plain = false;
        }
    }
    let source = IpNet::new(source, header.src_len).ok()?;
    // Those of interfaces are another table's.
    ours &= !SLOT_PRIORITIES.contains(&priority);
    (ours && plain).then_some(Rule { priority, source, table })
}
