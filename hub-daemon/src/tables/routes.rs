//! Routes of all tables of the kernel that carry our protocol number.
//!
//! A route of ours never displaces a foreign one: what we do not own yet is put with `NLM_F_EXCL`, and only
//! our own is replaced, in one step, so that packets always find the old route or the new one. A gateway
//! whose interface is named is reached on that link whatever addresses the interface has (`onlink`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use nix::errno::Errno;

use super::family;
use crate::desired::interfaces::INTERFACE_TABLE_BASE;
use crate::desired::shared_map::SharedMap;
use crate::desired::{Desired, PROTOCOL, Route, RouteKey, Via};
use crate::kernel::links::LinkNames;
use crate::kernel::netlink::{Netlink, NetlinkError};
use crate::reconcile::Table;

/// What the kernel makes of metric 0 in IPv6 (`IP6_RT_PRIO_USER`).
const IPV6_DEFAULT_METRIC: u32 = 1024;

/// The routing tables.
pub struct Routes {
    netlink: Netlink,
    names: LinkNames,
    ours: BTreeSet<RouteKey>,
}

impl Routes {
    /// The tables of the namespace that the socket belongs to.
    pub fn new(netlink: Netlink) -> Self {
        Self { netlink, names: LinkNames::default(), ours: BTreeSet::new() }
    }

    fn index(&mut self, key: &RouteKey, interface: &str) -> Result<u32, NetlinkError> {
        match self.names.index(interface) {
            Some(index) => Ok(index),
            None => self.netlink.index(interface, format_args!("put {}", Self::describe(key))),
        }
    }

    /// Attributes of a next hop, and the type of a route that leads there.
    fn hop(&mut self, key: &RouteKey, via: &Via, message: &mut RouteMessage) -> Result<(), NetlinkError> {
        message.header.kind = RouteType::Unicast;
        match via {
            Via::Interface(interface) => {
                message.header.scope = RouteScope::Link;
                message.attributes.push(RouteAttribute::Oif(self.index(key, interface)?));
            }
            Via::Gateway { gateway, interface } => {
                message.attributes.push(RouteAttribute::Gateway(RouteAddress::from(*gateway)));
                if let Some(interface) = interface {
                    message.header.flags |= RouteFlags::Onlink;
                    message.attributes.push(RouteAttribute::Oif(self.index(key, interface)?));
                }
            }
            Via::Unreachable => message.header.kind = RouteType::Unreachable,
            Via::Blackhole => message.header.kind = RouteType::BlackHole,
            Via::Prohibit => message.header.kind = RouteType::Prohibit,
        }
        Ok(())
    }

    /// Makes a route lead somewhere.
    pub fn lead(&mut self, key: &RouteKey, via: &Via) -> Result<(), NetlinkError> {
        self.put_way(key, &Way { via: via.clone(), source: None })
    }

    fn found(&self, message: &RouteMessage) -> Option<(RouteKey, Option<Way>)> {
        let header = &message.header;
        // Exceptions that the kernel learned (path MTU, redirects) come with the route they belong to.
        if header.protocol != RouteProtocol::Other(PROTOCOL) || header.flags.contains(RouteFlags::Cloned) {
            return None;
        }
        let mut table = u32::from(header.table);
        let mut metric = 0;
        let mut target = family::unspecified(header.address_family)?;
        let (mut gateway, mut interface, mut source) = (None, None, None);
        let mut strange = header.tos != 0;
        for attribute in &message.attributes {
            if let RouteAttribute::Table(number) = attribute {
                table = *number;
            } else if let RouteAttribute::Priority(number) = attribute {
                metric = *number;
            } else if let RouteAttribute::Destination(address) = attribute {
                target = family::ip(address)?;
            } else if let RouteAttribute::Gateway(address) = attribute {
                gateway = family::ip(address);
            } else if let RouteAttribute::Oif(index) = attribute {
                interface = Some(self.names.name(*index).map_or_else(|| format!("#{index}"), str::to_owned));
            } else if let RouteAttribute::PrefSource(address) = attribute {
                source = family::ip(address);
            } else if matches!(
                attribute,
                RouteAttribute::MultiPath(_)
                    | RouteAttribute::Encap(_)
                    | RouteAttribute::Via(_)
                    | RouteAttribute::Source(_)
                    | RouteAttribute::NhId(_)
            ) {
                strange = true;
            }
        }
        let via = via(header.kind, gateway, interface).filter(|_| !strange);
        let target = IpNet::new(target, header.destination_prefix_length).ok()?;
        Some((RouteKey { table, target, metric }, via.map(|via| Way { via, source })))
    }

    /// Every route of ours, those of interfaces with a personality too.
    pub(crate) fn every(&mut self) -> Result<BTreeMap<RouteKey, Option<Way>>, NetlinkError> {
        self.names = self.netlink.link_names()?;
        let mut found = BTreeMap::new();
        for family in family::FAMILIES {
            let mut question = RouteMessage::default();
            question.header.address_family = family;
            question.header.protocol = RouteProtocol::Other(PROTOCOL);
            for message in self.netlink.dump(&RouteNetlinkMessage::GetRoute(question), "list routes")? {
                if let RouteNetlinkMessage::NewRoute(message) = message {
                    found.extend(self.found(&message));
                }
            }
        }
        self.ours = found.keys().cloned().collect();
        Ok(found)
    }

    /// Makes a route be as given.
    pub(crate) fn put_way(&mut self, key: &RouteKey, way: &Way) -> Result<(), NetlinkError> {
        let mut message = message(key);
        self.hop(key, &way.via, &mut message)?;
        message.attributes.extend(way.source.map(|source| RouteAttribute::PrefSource(source.into())));
        // Without EXCL or REPLACE, IPv6 makes a multipath route of the old next hop and the new one.
        let flag = if self.ours.contains(key) { NLM_F_REPLACE } else { NLM_F_EXCL };
        let intent = format!("put {}", Self::describe(key));
        self.netlink.change(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | flag, intent)?;
        self.ours.insert(key.clone());
        Ok(())
    }
}

/// A way, and the address that packets of the namespace itself get as their source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) via: Via,
    pub(crate) source: Option<IpAddr>,
}

impl Table for Routes {
    type Key = RouteKey;
    type Value = Route;
    /// `None`: a route of ours in a shape that the hub never puts.
    type Found = Option<Via>;
    type Error = NetlinkError;
    const NAME: &'static str = "routes";

    fn list(&mut self) -> Result<BTreeMap<RouteKey, Option<Via>>, NetlinkError> {
        // Those of interfaces are another table's. No other one says a source.
        let via = |way: Option<Way>| way.filter(|way| way.source.is_none()).map(|way| way.via);
        let every = self.every()?.into_iter().filter(|(key, _)| key.table < INTERFACE_TABLE_BASE);
        Ok(every.map(|(key, way)| (key, via(way))).collect())
    }

    fn put(&mut self, key: &RouteKey, route: &Route) -> Result<(), NetlinkError> {
        self.lead(key, &route.via)
    }

    fn delete(&mut self, key: &RouteKey) -> Result<(), NetlinkError> {
        let mut message = message(key);
        message.header.scope = RouteScope::NoWhere;
        let intent = format_args!("delete {}", Self::describe(key));
        match self.netlink.change(RouteNetlinkMessage::DelRoute(message), 0, intent) {
            Err(error) if !error.is(Errno::ESRCH) => Err(error),
            Ok(()) | Err(_) => {
                self.ours.remove(key);
                Ok(())
            }
        }
    }

    fn holds(wanted: &Route, found: &Option<Via>) -> bool {
        leads(&wanted.via, found)
    }

    fn describe(key: &RouteKey) -> String {
        format!("route {} metric {} table {}", key.target, key.metric, key.table)
    }
}

/// The routes wanted, under the keys that the kernel reads back.
pub fn wanted(desired: &Desired) -> SharedMap<RouteKey, Route> {
    if desired.routes.keys().all(|key| read_back(key) == *key) {
        return desired.routes.clone();
    }
    desired.routes.iter().map(|(key, route)| (read_back(key), route.clone())).collect()
}

/// Whether a route that was found leads where it should.
pub fn leads(wanted: &Via, found: &Option<Via>) -> bool {
    match (wanted, found) {
        // The kernel tells the interface that it chose.
        (
            Via::Gateway { gateway: wanted, interface: None },
            Some(Via::Gateway { gateway: found, interface: _ }),
        ) => wanted == found,
        (wanted, found) => found.as_ref() == Some(wanted),
    }
}

/// Whether packets of a route that goes are to take one that is still to come: one to the same target, or to
/// a part or the whole of it.
pub fn takes_over(coming: &BTreeSet<&RouteKey>, gone: &RouteKey) -> bool {
    let table = gone.table;
    let mut wider = (0..=gone.target.prefix_len()).filter_map(|length| {
        let target = IpNet::new(gone.target.addr(), length).ok()?.trunc();
        Some(RouteKey { table, target, metric: 0 })
    });
    let next = |key: RouteKey| coming.range::<RouteKey, _>(key..).next().filter(|found| found.table == table);
    wider.any(|key| next(key.clone()).is_some_and(|found| found.target == key.target))
        || next(RouteKey { metric: 0, ..gone.clone() })
            .is_some_and(|found| gone.target.contains(&found.target))
}

/// A key as the kernel reads it back: no host bits, and IPv6 without metric 0.
pub fn read_back(key: &RouteKey) -> RouteKey {
    let metric =
        if key.target.addr().is_ipv6() && key.metric == 0 { IPV6_DEFAULT_METRIC } else { key.metric };
    RouteKey { table: key.table, target: key.target.trunc(), metric }
}

fn via(kind: RouteType, gateway: Option<IpAddr>, interface: Option<String>) -> Option<Via> {
    if kind == RouteType::Unreachable {
        Some(Via::Unreachable)
    } else if kind == RouteType::BlackHole {
        Some(Via::Blackhole)
    } else if kind == RouteType::Prohibit {
        Some(Via::Prohibit)
    } else if kind != RouteType::Unicast {
        None
    } else if let Some(gateway) = gateway {
        Some(Via::Gateway { gateway, interface })
    } else {
        interface.map(Via::Interface)
    }
}

/// The parts of a route that identify it.
fn message(key: &RouteKey) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family::of(key.target.addr());
    message.header.destination_prefix_length = key.target.prefix_len();
    message.header.protocol = RouteProtocol::Other(PROTOCOL);
    // Tables above 255 do not fit the header; the attribute counts in any case.
    message.attributes = vec![
        RouteAttribute::Destination(RouteAddress::from(key.target.network())),
        RouteAttribute::Table(key.table),
        RouteAttribute::Priority(key.metric),
    ];
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_stays_for_one_that_takes_its_packets() {
        let key = |target: &str, metric, table| RouteKey { table, target: target.parse().unwrap(), metric };
        let gone = key("10.1.0.0/24", 1010, 254);
        let takes_over = |coming: &[RouteKey]| takes_over(&coming.iter().collect(), &gone);
        for coming in ["10.1.0.0/24", "10.1.0.0/16", "0.0.0.0/0", "10.1.0.0/25", "10.1.0.7/32"] {
            assert!(takes_over(&[key("10.0.9.0/24", 1, 254), key(coming, 1000, 254)]), "{coming}");
            assert!(!takes_over(&[key(coming, 1000, 17_700_001)]), "{coming} in another table");
        }
        let others = ["10.0.0.0/16", "10.1.1.0/24", "10.2.0.0/16", "fd00::/8", "::/0"];
        assert!(!takes_over(&others.map(|target| key(target, 1000, 254))));
        assert!(!takes_over(&[]));
    }
}
