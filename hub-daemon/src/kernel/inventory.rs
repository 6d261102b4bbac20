//! What the hub needs to know of the kernel's links, addresses and foreign routes to decide.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteType};
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};

use super::netlink::{Netlink, NetlinkError};
use crate::command::{Inventory, Link};
use crate::desired::PROTOCOL;
use crate::tables::family;

impl Netlink {
    /// Reads links, their addresses, and the prefixes that others route.
    pub fn inventory(&mut self) -> Result<Inventory, NetlinkError> {
        let mut links = BTreeMap::new();
        for link in self.links()? {
            let found = Link {
                ifindex: link.index,
                up: link.running,
                kind: link.kind,
                vlan: link.vlan,
                mtu: link.mtu,
                l3_only: link.l3_only,
                mac: link.mac,
                other_names: link.other_names,
                addresses: Vec::new(),
                queue: None,
            };
            links.insert(link.name, found);
        }
        let mut addresses = self.addresses_by_index()?;
        let queues = self.queues()?;
        for link in links.values_mut() {
            let foreign = queues.iter().find(|queue| queue.index == link.ifindex && queue.is_foreign_root());
            link.queue = foreign.map(|queue| format!("{} {:x}:", queue.kind, queue.handle.major));
            link.addresses = addresses.remove(&link.ifindex).unwrap_or_default();
        }
        let foreign_routes = self.foreign_routes()?.into_iter().collect();
        let has_queues = queues.iter().any(|queue| queue.is_root() && queue.is_ours());
        Ok(Inventory { links, foreign_routes, foreign_rules: self.has_foreign_rules()?, has_queues })
    }

    fn addresses_by_index(&mut self) -> Result<BTreeMap<u32, Vec<IpNet>>, NetlinkError> {
        let mut addresses: BTreeMap<u32, Vec<IpNet>> = BTreeMap::new();
        let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        for message in self.dump(&question, "list addresses")? {
            let RouteNetlinkMessage::NewAddress(message) = message else { continue };
            let (mut own, mut local) = (None, None);
            for attribute in &message.attributes {
                if let AddressAttribute::Local(address) = attribute {
                    local = Some(*address);
                } else if let AddressAttribute::Address(address) = attribute {
                    own = Some(*address);
                }
            }
            // On a point-to-point address IFA_ADDRESS is the other end.
            let net = local.or(own).and_then(|own| IpNet::new(own, message.header.prefix_len).ok());
            addresses.entry(message.header.index).or_default().extend(net);
        }
        Ok(addresses)
    }

    fn has_foreign_rules(&mut self) -> Result<bool, NetlinkError> {
        for family in family::FAMILIES {
            let mut question = RuleMessage::default();
            question.header.family = family;
            for message in self.dump(&RouteNetlinkMessage::GetRule(question), "list rules")? {
                if let RouteNetlinkMessage::NewRule(message) = message
                    && is_foreign(&message)
                {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn foreign_routes(&mut self) -> Result<BTreeSet<IpNet>, NetlinkError> {
        let mut routes = BTreeSet::new();
        for family in family::FAMILIES {
            let mut question = RouteMessage::default();
            question.header.address_family = family;
            for message in self.dump(&RouteNetlinkMessage::GetRoute(question), "list routes")? {
                if let RouteNetlinkMessage::NewRoute(message) = message {
                    routes.extend(foreign(&message));
                }
            }
        }
        Ok(routes)
    }
}

/// Whether a rule is neither ours nor one of those that the kernel begins with (local, main, default).
fn is_foreign(message: &RuleMessage) -> bool {
    let ours = RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL));
    let initial = [32_766, 32_767].map(RuleAttribute::Priority);
    // The first has priority 0, which is left out.
    let has_priority =
        message.attributes.iter().any(|attribute| matches!(attribute, RuleAttribute::Priority(1..)));
    has_priority
        && !message.attributes.iter().any(|attribute| *attribute == ours || initial.contains(attribute))
}

/// The target of a route that is not ours and that a persona's range could collide with.
fn foreign(message: &RouteMessage) -> Option<IpNet> {
    let header = &message.header;
    let ours = header.protocol == RouteProtocol::Other(PROTOCOL) || header.flags.contains(RouteFlags::Cloned);
    // Routes to the host's own addresses and to multicast groups are of other types.
    if ours || header.kind != RouteType::Unicast || header.destination_prefix_length == 0 {
        return None;
    }
    let target = message.attributes.iter().find_map(|attribute| {
        if let RouteAttribute::Destination(address) = attribute { family::ip(address) } else { None }
    })?;
    // Every link has these.
    if matches!(target, IpAddr::V6(address) if Ipv6Addr::is_unicast_link_local(&address) || address.is_loopback())
    {
        return None;
    }
    IpNet::new(target, header.destination_prefix_length).ok()
}
