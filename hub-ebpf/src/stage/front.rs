//! Before classification: what is not the hub's to judge, and what no port lets in.

use hub_common::address::{is_link_local, is_multicast};
use hub_common::event::Reason;
use hub_common::outcome::{FROM_HOST, Scratch};
use hub_common::packet::{
    PACKET_ARP, PACKET_NEIGHBOUR, PACKET_OTHER, PACKET_ROUTER, PACKET_V4, PACKET_V6, PACKET_VLAN,
};
use hub_common::segment::ROLE_SEGMENT;

use crate::addresses::is_local;

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
        return Ok(Front::Skip);
    }
    if packet.has(PACKET_VLAN) {
        // A VLAN device of the kernel takes tagged frames; whatever it forwards meets `hub_tc_out`.
        return if on_segment { Err(Reason::Vlan) } else { Ok(Front::Skip) };
    }
    if let Some(reason) = Reason::from_number(scratch.parse_reason) {
        return Err(reason);
    }
    if packet.has(PACKET_OTHER) || !packet.has_any(PACKET_V4 | PACKET_V6) {
        return if on_segment { Err(Reason::Ethertype) } else { Ok(Front::Skip) };
    }
    if packet.has(PACKET_ROUTER) && on_segment {
        return Err(Reason::RouterAdvertisement);
    }
    if packet.has(PACKET_NEIGHBOUR) && stays_on_link(scratch) {
        return Ok(Front::Skip);
    }
    Ok(Front::Judge)
}

/// Whether neighbour discovery is between the host and its link. The kernel would forward any other like a
/// packet of data, so it is judged as one.
#[inline(always)]
fn stays_on_link(scratch: &Scratch) -> bool {
    let target = &scratch.packet.target;
    scratch.ingress_ifindex == FROM_HOST || is_multicast(target) || is_link_local(target) || is_local(target)
}
