//! The member's end of an endpoint: everything that happens inside a member's namespace.
//!
//! The member gets its addresses alone on the link, a route to the gateway, and the gateway as default
//! route. So it asks nobody's MAC but the gateway's, and packets to its neighbours in the same range go
//! through the hub too. What the member itself adds or changes is its own business: the hub looks again only
//! when the endpoint changes.

use std::collections::BTreeMap;

use ipnet::IpNet;
use netlink_packet_route::link::LinkAttribute;

use super::ethtool::{self, EthtoolError};
use super::netlink::{Netlink, NetlinkError};
use super::sysctl;
use crate::desired::interfaces::through_gateway;
use crate::desired::{Address, Endpoint, RouteKey, Via};
use crate::reconcile::Table as _;
use crate::tables::addresses::Addresses;
use crate::tables::routes::{Routes, leads, read_back};

/// Kernel number of the main routing table.
const MAIN_TABLE: u32 = 254;

/// Why a member's end could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// Link, address or route.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// Offloads.
    #[error(transparent)]
    Ethtool(#[from] EthtoolError),
    /// Another endpoint in the same namespace leads there already.
    #[error("{route} through `{interface}`: the namespace has it through `{other}` already")]
    Taken {
        /// The route.
        route: String,
        /// Interface of this endpoint.
        interface: String,
        /// Interface that has it.
        other: String,
    },
}

/// Makes the member's end be as the endpoint says; runs inside the member's namespace.
pub fn configure(endpoint: &Endpoint) -> Result<(), MemberError> {
    let name = endpoint.interface.as_str();
    let mut netlink = Netlink::open()?;
    let intent = format_args!("set up interface `{name}` in the member's namespace");
    let index = netlink.index(name, intent)?;
    skip_duplicate_detection(name);
    ethtool::set_gro(name, true)?;
    netlink.set_up(index, vec![LinkAttribute::Mtu(endpoint.mtu)], intent)?;
    put_addresses(endpoint)?;
    put_routes(endpoint)?;
    // Last, so that an endpoint that failed leaves no trace in the namespace.
    let loopback = netlink.index("lo", "set up the loopback in the member's namespace")?;
    Ok(netlink.set_up(loopback, Vec::new(), "set up the loopback in the member's namespace")?)
}

/// Lets an interface that is about to come up speak IPv6 at once rather than after a second.
pub fn skip_duplicate_detection(interface: &str) {
    // Without IPv6 there is no such switch, and nothing to wait for.
    if let Err(error) = sysctl::write(&format!("net/ipv6/conf/{interface}/accept_dad"), "0") {
        tracing::debug!(interface, %error, "IPv6 duplicate detection stays on");
    }
}

fn put_addresses(endpoint: &Endpoint) -> Result<(), MemberError> {
    let mut table = Addresses::new(Netlink::open()?);
    let wanted: BTreeMap<_, _> = endpoint
        .addresses
        .iter()
        .map(|net| {
            ((endpoint.interface.clone(), IpNet::from(net.addr())), Address { expires: endpoint.expires })
        })
        .collect();
    let found = table.list()?;
    for (key, value) in &wanted {
        if !found.get(key).is_some_and(|found| Addresses::holds(value, found)) {
            table.put(key, value)?;
        }
    }
    for key in found.keys().filter(|key| key.0 == endpoint.interface && !wanted.contains_key(*key)) {
        table.delete(key)?;
    }
    Ok(())
}

fn put_routes(endpoint: &Endpoint) -> Result<(), MemberError> {
    let mut table = Routes::new(Netlink::open()?);
    let wanted = routes(endpoint);
    let found = table.list()?;
    for (key, via) in &wanted {
        let Some(found) = found.get(key) else {
            table.lead(key, via)?;
            continue;
        };
        if let Some(other) = found.as_ref().and_then(interface).filter(|other| *other != endpoint.interface) {
            return Err(MemberError::Taken {
                route: Routes::describe(key),
                interface: endpoint.interface.clone(),
                other: other.to_owned(),
            });
        }
        if !leads(via, found) {
            table.lead(key, via)?;
        }
    }
    let ours = |via: &Option<Via>| via.as_ref().and_then(interface) == Some(endpoint.interface.as_str());
    for (key, _) in found.iter().filter(|(key, via)| ours(via) && !wanted.contains_key(key)) {
        table.delete(key)?;
    }
    Ok(())
}

/// Per family the gateway alone on the link, then everything else through it.
fn routes(endpoint: &Endpoint) -> BTreeMap<RouteKey, Via> {
    let ways = endpoint.gateways.iter().flat_map(|gateway| through_gateway(*gateway, None));
    ways.map(|(key, route)| {
        let key = RouteKey { table: MAIN_TABLE, target: key.target, metric: key.metric };
        (read_back(&key), route.via.on(&endpoint.interface))
    })
    .collect()
}

/// The interface that a route leaves by.
fn interface(via: &Via) -> Option<&str> {
    match via {
        Via::Interface(interface) | Via::Gateway { interface: Some(interface), .. } => Some(interface),
        Via::Gateway { interface: None, .. } | Via::Unreachable | Via::Blackhole | Via::Prohibit => None,
    }
}
