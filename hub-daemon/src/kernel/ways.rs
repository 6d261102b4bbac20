//! Where the kernel routes an address: asked of the kernel itself, so that policy rules count too.

use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};

use super::netlink::{Netlink, NetlinkError};
use crate::tables::family;

/// Where packets to an address go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Out of the interface of this index.
    Out(u32),
    /// To the machine itself.
    Local,
    /// Nowhere.
    Nowhere,
}

/// Where the kernel sends packets to an address that come in on an interface; `None` for its own.
pub(crate) fn way(netlink: &mut Netlink, from: Option<(u32, IpAddr)>, to: IpAddr) -> Way {
    let found = from.map(|from| ask(netlink, Some(from), to));
    match found {
        Some(Ok(way)) => way,
        // The kernel refuses to judge some sources, foreign ones for example: the target alone says enough.
        Some(Err(_)) | None => ask(netlink, None, to).unwrap_or(Way::Nowhere),
    }
}

fn ask(netlink: &mut Netlink, from: Option<(u32, IpAddr)>, to: IpAddr) -> Result<Way, NetlinkError> {
    let bits = |address: IpAddr| if address.is_ipv4() { 32 } else { 128 };
    let mut message = RouteMessage::default();
    message.header.address_family = family::of(to);
    message.header.destination_prefix_length = bits(to);
    message.attributes.push(RouteAttribute::Destination(RouteAddress::from(to)));
    if let Some((ifindex, source)) = from {
        message.header.source_prefix_length = bits(source);
        message.attributes.push(RouteAttribute::Source(RouteAddress::from(source)));
        message.attributes.push(RouteAttribute::Iif(ifindex));
    }
    let found =
        netlink.get(RouteNetlinkMessage::GetRoute(message), format_args!("look up the route to {to}"))?;
    Ok(found.into_iter().find_map(|message| read(&message)).unwrap_or(Way::Nowhere))
}

fn read(message: &RouteNetlinkMessage) -> Option<Way> {
    let RouteNetlinkMessage::NewRoute(route) = message else { return None };
    if matches!(route.header.kind, RouteType::Local | RouteType::Broadcast | RouteType::Anycast) {
        return Some(Way::Local);
    }
    if route.header.kind != RouteType::Unicast {
        return Some(Way::Nowhere);
    }
    let interface = |attribute: &RouteAttribute| {
        if let RouteAttribute::Oif(ifindex) = attribute { Some(Way::Out(*ifindex)) } else { None }
    };
    route.attributes.iter().find_map(interface)
}
