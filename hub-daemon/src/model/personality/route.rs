//! Routes of a personality.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::desired::interfaces::AddressScope;
use crate::document::personality::{PersonalityDocument, RouteDocument, RouteKindDocument};
use crate::model::problems::Problems;
use crate::model::{names, prefix};

/// Most routes of one personality.
const ROUTES: usize = 256;

/// What tells routes of one personality apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteKey {
    /// Destination.
    pub target: IpNet,
    /// Priority; smaller wins.
    pub metric: u32,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The way.
    pub way: Way,
    /// Source address of packets of the host itself.
    pub source: Option<IpAddr>,
}

/// Where packets of a route go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// Out of a device, to a router or to the target itself.
    Device {
        /// The router.
        via: Option<IpAddr>,
        /// The device.
        device: Device,
    },
    /// Nowhere, in silence.
    Blackhole,
    /// Nowhere; the sender is told.
    Unreachable,
    /// Nowhere; the sender is told that it is forbidden.
    Prohibit,
}

/// The device of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The interface that has the personality.
    #[default]
    Interface,
    /// Its tunnel.
    Tunnel,
    /// Another one, by name.
    Name(String),
}

/// Checks `routing_table`; problems point below it.
pub(super) fn routes(
    problems: &mut Problems,
    document: &PersonalityDocument,
    addresses: &BTreeMap<IpNet, AddressScope>,
) -> BTreeMap<RouteKey, Route> {
    let written = document.routing_table.as_deref().unwrap_or_default();
    if written.len() > ROUTES {
        problems.add("/routing_table", format!("{} routes: use at most {ROUTES}", written.len()));
        return BTreeMap::new();
    }
    let mut routes = BTreeMap::new();
    for (index, written) in written.iter().enumerate() {
        let base = format!("/routing_table/{index}");
        let via =
            written.via.as_ref().and_then(|text| problems.take(&format!("{base}/via"), super::address(text)));
        let Some(target) = destination(problems, &base, written, via) else { continue };
        let route = Route {
            way: way(problems, &base, written, (target, via), document.vpn_tunnel_config.is_some()),
            source: source(problems, &base, written, target, addresses),
        };
        let key = RouteKey { target, metric: written.metric.unwrap_or_default() };
        if routes.insert(key, route).is_some() {
            let detail = format!("another route to {target} has this metric");
            problems.add(format!("{base}/destination"), detail);
        }
    }
    routes
}

/// `default` is of the family of the router.
fn destination(
    problems: &mut Problems,
    base: &str,
    written: &RouteDocument,
    via: Option<IpAddr>,
) -> Option<IpNet> {
    let text = written.destination.as_str();
    if text != "default" {
        return problems.take(&format!("{base}/destination"), prefix::matched(text));
    }
    Some(match via {
        Some(IpAddr::V6(_)) => IpNet::V6(Ipv6Net::default()),
        Some(IpAddr::V4(_)) | None => IpNet::V4(Ipv4Net::default()),
    })
}

fn way(
    problems: &mut Problems,
    base: &str,
    written: &RouteDocument,
    (target, via): (IpNet, Option<IpAddr>),
    has_tunnel: bool,
) -> Way {
    let kind = written.kind.unwrap_or_default();
    if kind != RouteKindDocument::Unicast {
        for (name, given) in [("via", written.via.is_some()), ("device", written.device.is_some())] {
            if given {
                problems.add(format!("{base}/{name}"), "a route that leads nowhere has none: leave it out");
            }
        }
    }
    if via.is_some_and(|via| via.is_ipv4() != target.addr().is_ipv4()) {
        problems.add(format!("{base}/via"), "via is of another address family than destination");
    }
    let device = match written.device.as_deref() {
        None | Some("interface") => Device::Interface,
        Some("tunnel") if has_tunnel => Device::Tunnel,
        Some("tunnel") => {
            problems.add(format!("{base}/device"), "there is no tunnel: add `vpn_tunnel_config`");
            Device::Tunnel
        }
        Some(name) => {
            problems.take(&format!("{base}/device"), names::interface(name));
            Device::Name(name.to_owned())
        }
    };
    match kind {
        RouteKindDocument::Unicast => Way::Device { via, device },
        RouteKindDocument::Blackhole => Way::Blackhole,
        RouteKindDocument::Unreachable => Way::Unreachable,
        RouteKindDocument::Prohibit => Way::Prohibit,
    }
}

fn source(
    problems: &mut Problems,
    base: &str,
    written: &RouteDocument,
    target: IpNet,
    addresses: &BTreeMap<IpNet, AddressScope>,
) -> Option<IpAddr> {
    let pointer = format!("{base}/source");
    let source = written.source.as_ref().and_then(|text| problems.take(&pointer, super::address(text)))?;
    if source.is_ipv4() != target.addr().is_ipv4() {
        problems.add(pointer, "source is of another address family than destination");
    } else if written.device.as_deref() != Some("tunnel")
        && !addresses.keys().any(|address| address.addr() == source)
    {
        problems.add(pointer, format!("address {source} is not in `ip_addresses`"));
    }
    Some(source)
}
