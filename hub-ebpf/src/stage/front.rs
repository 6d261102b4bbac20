//! Before classification: what is not the hub's to judge, and what no port lets in.

use hub_common::address::{is_link_local, is_multicast, mapped};
use hub_common::event::Reason;
use hub_common::outcome::{FROM_HOST, Scratch};
use hub_common::packet::{
    PACKET_ARP, PACKET_ASKS, PACKET_NEIGHBOUR, PACKET_OTHER, PACKET_ROUTER, PACKET_V4, PACKET_V6,
    PACKET_VLAN, Packet, protocol,
};
use hub_common::segment::{Gateway, PORT_TUNNEL, ROLE_SEGMENT};

use crate::addresses::{is_local, segment_of};
use crate::maps::GATEWAYS;

/// ICMPv6 redirect (RFC 4861 section 4.5).
const REDIRECT: u8 = 137;

/// Whether to go on judging.
pub(crate) enum Front {
    /// An IP packet to be judged.
    Judge,
    /// Left to the kernel untouched.
    Skip,
}

/// Sorts out ARP, neighbour discovery, foreign ethertypes, tags and parse errors.
#[inline(always)]
pub(crate) fn front(scratch: &Scratch) -> Result<Front, Reason> {
    let packet = &scratch.packet;
    let on_segment = scratch.port.role == ROLE_SEGMENT;
    if packet.has(PACKET_ARP) && !packet.has(PACKET_VLAN) {
        return match Reason::from_number(scratch.parse_reason) {
            Some(reason) if on_segment => Err(reason),
            _ => Ok(Front::Skip),
        };
    }
    if packet.has(PACKET_VLAN) {
        // A VLAN device of the kernel takes tagged frames; whatever it forwards meets `hub_tc_out`.
        return if on_segment { Err(Reason::Vlan) } else { Ok(Front::Skip) };
    }
    if let Some(reason) = Reason::from_number(scratch.parse_reason) {
        return if !on_segment && has_no_address_yet(packet) { Ok(Front::Skip) } else { Err(reason) };
    }
    if packet.has(PACKET_OTHER) || !packet.has_any(PACKET_V4 | PACKET_V6) {
        return if on_segment { Err(Reason::Ethertype) } else { Ok(Front::Skip) };
    }
    if packet.has(PACKET_ROUTER) && on_segment {
        return Err(Reason::RouterAdvertisement);
    }
    if packet.has(PACKET_ROUTER) && packet.icmp_type == REDIRECT && scratch.ingress_ifindex == FROM_HOST {
        // IPv6 has no switch for it, as IPv4 has: a member that goes the short way is judged by nobody.
        return Err(Reason::RouterAdvertisement);
    }
    if packet.has(PACKET_NEIGHBOUR) && stays_on_link(scratch) {
        return Ok(Front::Skip);
    }
    Ok(Front::Judge)
}

/// Whether the sender asks everybody on its link for an address (RFC 2131 section 4.1): the host itself, on an
/// uplink, or whom it serves there. No router forwards it.
#[inline(always)]
fn has_no_address_yet(packet: &Packet) -> bool {
    packet.has(PACKET_V4)
        && packet.protocol == protocol::UDP
        && packet.source == mapped([0; 4])
        && packet.target == mapped([255; 4])
}

/// Whether a member asks for an address of the hub that is not its persona's: the kernel answers for all of its
/// addresses on every link.
#[inline(always)]
pub(crate) fn asks_in_vain(scratch: &Scratch) -> bool {
    let packet = &scratch.packet;
    scratch.port.role == ROLE_SEGMENT
        && packet.has(PACKET_ASKS)
        && !packet.has(PACKET_VLAN)
        && scratch.parse_reason == 0
        && hub_foreign_gateway(scratch) != 0
}

/// Whether the hub's address that a member asks for is not its persona's: 1, or 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_foreign_gateway(scratch: *const Scratch) -> u32 {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let Some(scratch) = (unsafe { scratch.as_ref() }) else { return 0 };
    let asked = &scratch.packet.inner.target;
    // Addresses of a link are nobody else's, and those in a tunnel mean nothing here.
    if scratch.port.flags & PORT_TUNNEL != 0 || is_link_local(asked) || !is_local(asked) {
        return 0;
    }
    let owner = segment_of(asked);
    let bound = scratch.port.segment;
    let asks = if bound == 0 { segment_of(&scratch.packet.source) } else { bound };
    if asks == 0 {
        // On a port that several share: a probe for duplicates, or a host that names itself by its link alone.
        return u32::from(owner == 0);
    }
    if owner == asks {
        return 0;
    }
    let key = Gateway { segment: asks, pad: 0, address: *asked };
    // SAFETY: the value is not looked at.
    u32::from(unsafe { GATEWAYS.get(key) }.is_none())
}

/// Whether neighbour discovery is between the host and its link. The kernel would forward any other like a
/// packet of data, so it is judged as one.
#[inline(always)]
fn stays_on_link(scratch: &Scratch) -> bool {
    let target = &scratch.packet.target;
    scratch.ingress_ifindex == FROM_HOST || is_multicast(target) || is_link_local(target) || is_local(target)
}
