//! Kinds of addresses.

use std::net::IpAddr;

/// Multicast, or IPv4 limited broadcast.
pub(super) fn is_group(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_multicast(),
    }
}

/// Whether an address is of one link only.
pub(super) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// Whether no router forwards IPv6 packets from an address (RFC 4291 sections 2.5.2 and 2.5.6).
pub(super) fn stays_on_link(source: IpAddr) -> bool {
    source.is_ipv6() && (source.is_unspecified() || is_link_local(source))
}

/// Whether a frame is from somebody who has no IPv4 address yet and asks everybody on the link for one (RFC 2131
/// section 4.1).
pub(super) fn asks_for_address(frame: &[u8]) -> bool {
    let v4 = frame.get(12..14) == Some(&[8, 0]) && frame.get(23) == Some(&17);
    v4 && frame.get(26..34) == Some(&[0, 0, 0, 0, 255, 255, 255, 255])
}
