//! The express lane: plain TCP and UDP frames of connections that need no flow, finished before anything is
//! written into the scratch space.
//!
//! It allows nothing that the stages would not: every doubt is `None`, and the stages decide. What it skips
//! is implied by the shared next hop, which the stages made for the same target, port and segment: that the
//! target is no group, not the hub and behind another port.

use hub_common::address::{is_martian_v4, is_martian_v6, mapped};
use hub_common::event::Hook;
use hub_common::flow::{Hop, is_impossible};
use hub_common::limits;
use hub_common::packet::protocol;
use hub_common::parse::{Bytes as _, ETHERNET_BYTES};
use hub_common::segment::{PORT_L3_ONLY, PORT_TRANSLATED, PORT_XDP_TARGET, Port, ROLE_SEGMENT, Settings};

use crate::addresses::{is_local, segment_of, segment_of_v4};
use crate::maps::PORTS;
use crate::packet::Frame;
use crate::report;
use crate::stage::filter::may_talk;
use crate::stage::open::{lets, plain_policy, shared_hop};

/// A packet as it came in.
pub(crate) struct Arrival<'a> {
    /// The frame, with its whole length.
    pub(crate) frame: Frame,
    /// The port it came in by.
    pub(crate) port: &'a Port,
    /// Kernel number of that port.
    pub(crate) ifindex: u32,
    /// Bytes of payload in each packet on the wire, 0 where the frame is one packet.
    pub(crate) gso_bytes: u32,
    /// Packets that the frame is on a wire.
    pub(crate) packets: u32,
    /// Which hook asks.
    pub(crate) hook: Hook,
    /// Tick of its arrival.
    pub(crate) tick: u64,
}

/// What [`express`] answers where the stages must decide.
pub(crate) const NO_EXPRESS: u32 = 0;
/// An IPv4 packet leaves by the hop.
pub(crate) const EXPRESS_V4: u32 = 4;
/// An IPv6 packet leaves by the hop.
pub(crate) const EXPRESS_V6: u32 = 6;

struct Ends {
    protocol: u8,
    source_port: u16,
    target_port: u16,
    length_bytes: u32,
    header_bytes: u32,
}

const V4_BYTES: usize = 20;
const V6_BYTES: usize = 40;

/// Decides on a packet, counts it and sets its next hop if it leaves: one of `EXPRESS_*`.
#[inline(always)]
pub(crate) fn express(arrival: &Arrival<'_>, settings: &Settings, hop: &mut Hop) -> u32 {
    let port = arrival.port;
    // Beyond a port of a translated persona addresses mean something else.
    let translated = port.role == ROLE_SEGMENT && port.flags & PORT_TRANSLATED != 0;
    if translated || settings.traces != 0 || port.flags & PORT_L3_ONLY != 0 {
        return NO_EXPRESS;
    }
    let Some(kind) = arrival.frame.read::<4>(12) else { return NO_EXPRESS };
    let (found, version) = match [kind[0], kind[1], kind[2]] {
        [8, 0, 0x45] => (v4(arrival, settings), EXPRESS_V4),
        [0x86, 0xdd, version] if version >> 4 == 6 => (v6(arrival, settings), EXPRESS_V6),
        _ => return NO_EXPRESS,
    };
    let Some(found) = found else { return NO_EXPRESS };
    *hop = found;
    version
}

#[inline(always)]
fn v4(arrival: &Arrival<'_>, settings: &Settings) -> Option<Hop> {
    let header = arrival.frame.read::<V4_BYTES>(ETHERNET_BYTES)?;
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
    let source = [header[12], header[13], header[14], header[15]];
    if fragment != 0 || header[8] <= 1 || is_martian_v4(source, true) {
        return None;
    }
    let length = u32::from(u16::from_be_bytes([header[2], header[3]]));
    let ends = ends(&arrival.frame, header[9], length, V4_BYTES)?;
    let target = [header[16], header[17], header[18], header[19]];
    let segments = [segment_of_v4(source), segment_of_v4(target)];
    judge(arrival, settings, &ends, segments, &mapped(source), &mapped(target))
}

#[inline(always)]
fn v6(arrival: &Arrival<'_>, settings: &Settings) -> Option<Hop> {
    let header = arrival.frame.read::<V6_BYTES>(ETHERNET_BYTES)?;
    let [source, target] = [arrival.frame.read::<16>(22)?, arrival.frame.read::<16>(38)?];
    let payload = u32::from(u16::from_be_bytes([header[4], header[5]]));
    if payload == 0 || header[7] <= 1 || is_martian_v6(&source, true) {
        return None;
    }
    let ends = ends(&arrival.frame, header[6], payload + V6_BYTES as u32, V6_BYTES)?;
    let segments = [segment_of(&source), segment_of(&target)];
    judge(arrival, settings, &ends, segments, &source, &target)
}

/// Reads ports and checks lengths; `None` for what the parser would refuse, or call anything but plain.
#[inline(always)]
fn ends(frame: &Frame, protocol: u8, length_bytes: u32, l3_bytes: usize) -> Option<Ends> {
    let at = ETHERNET_BYTES + l3_bytes;
    let least = l3_bytes as u32;
    if length_bytes > (frame.bytes as u32).wrapping_sub(ETHERNET_BYTES as u32) {
        return None;
    }
    let ports = frame.read::<6>(at)?;
    let header_bytes = match protocol {
        protocol::UDP => {
            let said = u16::from_be_bytes([ports[4], ports[5]]);
            if said != 0 && said < 8 {
                return None;
            }
            8
        }
        protocol::TCP => {
            let rest = frame.read::<2>(at + 12)?;
            if is_impossible(rest[1]) || rest[0] >> 4 < 5 {
                return None;
            }
            u32::from(rest[0] >> 4) * 4
        }
        _ => return None,
    };
    if length_bytes < least + header_bytes {
        return None;
    }
    Some(Ends {
        protocol,
        source_port: u16::from_be_bytes([ports[0], ports[1]]),
        target_port: u16::from_be_bytes([ports[2], ports[3]]),
        length_bytes,
        header_bytes: least + header_bytes,
    })
}

#[inline(always)]
fn judge(
    arrival: &Arrival<'_>,
    settings: &Settings,
    ends: &Ends,
    [source, receiver]: [u32; 2],
    source_address: &[u8; 16],
    target_address: &[u8; 16],
) -> Option<Hop> {
    let port = arrival.port;
    let sender = if port.role == ROLE_SEGMENT {
        if source == 0 || (port.segment != 0 && source != port.segment) {
            return None;
        }
        source
    } else {
        if source != 0 {
            return None;
        }
        0
    };
    if (sender == 0 && receiver == 0) || source_address == target_address {
        return None;
    }
    let tcp = ends.protocol == protocol::TCP;
    if sender != 0 && !lets(plain_policy(sender, arrival.tick)?, tcp, ends.target_port, ends.source_port) {
        return None;
    }
    if receiver != 0 && !lets(plain_policy(receiver, arrival.tick)?, tcp, ends.source_port, ends.target_port)
    {
        return None;
    }
    if !may_talk(sender, receiver) || is_local(source_address) {
        return None;
    }
    let hop = shared_hop(target_address, arrival.ifindex, sender, settings)?;
    let wire_bytes =
        if arrival.gso_bytes == 0 { ends.length_bytes } else { arrival.gso_bytes + ends.header_bytes };
    if hop.is_old(arrival.tick, settings) || wire_bytes > hop.mtu_bytes {
        return None;
    }
    if matches!(arrival.hook, Hook::XdpIn) {
        let leaves_by = PORTS.get(hop.ifindex % limits::PORTS)?;
        if leaves_by.ifindex != hop.ifindex || leaves_by.flags & PORT_XDP_TARGET == 0 {
            return None;
        }
    }
    let bytes = ends.length_bytes.wrapping_add((arrival.packets - 1).wrapping_mul(ends.header_bytes));
    report::passed((arrival.packets, bytes), sender, receiver);
    Some(hop)
}
