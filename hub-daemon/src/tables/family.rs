//! Addresses of both families, as netlink messages spell them.

use std::net::IpAddr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::RouteAddress;

/// Both families that the hub knows.
pub(crate) const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

/// The family of an address.
pub(crate) fn of(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// What a message means that carries no address: all of the family.
pub(crate) fn unspecified(family: AddressFamily) -> Option<IpAddr> {
    if family == AddressFamily::Inet {
        Some(IpAddr::from([0; 4]))
    } else if family == AddressFamily::Inet6 {
        Some(IpAddr::from([0; 16]))
    } else {
        None
    }
}

/// The address in a route, if it is one of ours.
pub(crate) fn ip(address: &RouteAddress) -> Option<IpAddr> {
    if let RouteAddress::Inet(address) = address {
        Some(IpAddr::V4(*address))
    } else if let RouteAddress::Inet6(address) = address {
        Some(IpAddr::V6(*address))
    } else {
        None
    }
}
