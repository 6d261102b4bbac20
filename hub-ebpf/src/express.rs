//! The express lane: plain TCP and UDP frames of connections that need no flow, finished before anything is
//! written into the scratch space, and frames whose headers are none.
//!
//! It allows nothing that the stages would not: every doubt is [`Lane::Stages`], and the stages decide. What it
//! skips is implied by the next hop, which the stages found for the same target and port, and for a sender with
//! the same routes: that the target is no group, not the hub and behind another port. It drops what the parser
//! would refuse where nobody is to be told and nobody is to blame.

use hub_common::address::{is_link_local, is_martian_v4, is_martian_v6, mapped};
use hub_common::event::{Hook, Reason};
use hub_common::flow::is_impossible;
use hub_common::limits;
use hub_common::packet::protocol;
use hub_common::parse::{Bytes as _, ETHERNET_BYTES, V6_BYTES};
use hub_common::segment::{PORT_L3_ONLY, PORT_TRANSLATED, PORT_XDP_TARGET, Port, ROLE_SEGMENT, Settings};

use crate::addresses::{is_local, is_local_v4, segment_of, segment_of_v4};
use crate::maps::PORTS;
use crate::packet::Frame;
use crate::report;
use crate::rewrite::Exit;
use crate::stage::adjacency;
use crate::stage::filter::may_talk;
use crate::stage::open::{open_segment, shared_hop};

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

/// What becomes of a packet.
pub(crate) enum Lane {
    /// The stages decide.
    Stages,
    /// It was counted, and leaves this way; IPv4 or not.
    Leaves(Exit, bool),
    /// No header of it can be believed.
    Drop(Reason),
}

/// What `hub_express_*` answers where the stages must decide: no verdict of a hook that the lane gives.
pub(crate) const NO_EXPRESS: u32 = 0;

struct Ends {
    protocol: u8,
    source_port: u16,
    target_port: u16,
    length_bytes: u32,
    header_bytes: u32,
}

/// Segments of both ends, 0 for none.
struct Sides {
    sender: u32,
    receiver: u32,
    /// Whether the sender's packets take the same routes as all others'.
    routed_alike: bool,
}

const V4_BYTES: usize = 20;

/// Decides on a packet, and counts it if it leaves.
#[inline(always)]
pub(crate) fn express(arrival: &Arrival<'_>, settings: &Settings) -> Lane {
    let port = arrival.port;
    // Beyond a port of a translated persona addresses mean something else.
    let translated = port.role == ROLE_SEGMENT && port.flags & PORT_TRANSLATED != 0;
    if translated || settings.traces != 0 || port.flags & PORT_L3_ONLY != 0 {
        return Lane::Stages;
    }
    match arrival.frame.read::<2>(12) {
        Some([8, 0]) => v4(arrival, settings),
        Some([0x86, 0xdd]) => v6(arrival, settings).map_or(Lane::Stages, |exit| Lane::Leaves(exit, false)),
        _ => Lane::Stages,
    }
}

#[inline(always)]
fn v4(arrival: &Arrival<'_>, settings: &Settings) -> Lane {
    let Some(header) = arrival.frame.words::<{ V4_BYTES / 4 }>(ETHERNET_BYTES) else { return Lane::Stages };
    let [first, fragment, life, source, target] = header.map(u32::from_be);
    let (version, length) = ((first >> 24) as u8, first & 0xffff);
    if version != 0x45 || length < V4_BYTES as u32 {
        return malformed_v4(arrival, version, length);
    }
    if fragment & 0x3fff != 0 || life >> 24 <= 1 || is_martian_v4(source.to_be_bytes(), true) {
        return Lane::Stages;
    }
    between_v4(arrival, settings, ((life >> 16) as u8, length), source, target)
        .map_or(Lane::Stages, |exit| Lane::Leaves(exit, true))
}

/// Drops a packet whose header says that it is not one, as the parser does; what the parser may accept, and what
/// is reported or counted for somebody, is left to the stages.
#[inline(always)]
fn malformed_v4(arrival: &Arrival<'_>, version: u8, length_bytes: u32) -> Lane {
    let header_bytes = u32::from(version & 0xf) * 4;
    let refused = version >> 4 != 4 || header_bytes < V4_BYTES as u32;
    // Super-packets may say 0.
    let impossible = refused || (length_bytes != 0 && length_bytes < header_bytes);
    if !impossible || arrival.port.segment != 0 || !report::is_told(Reason::BadHeader, arrival.tick) {
        return Lane::Stages;
    }
    Lane::Drop(Reason::BadHeader)
}

#[inline(always)]
fn between_v4(
    arrival: &Arrival<'_>,
    settings: &Settings,
    (protocol, length_bytes): (u8, u32),
    source: u32,
    target: u32,
) -> Option<Exit> {
    let ends = ends(&arrival.frame, protocol, length_bytes, V4_BYTES)?;
    if source == target {
        return None;
    }
    let sides = judge(arrival, &ends, [segment_of_v4(source), segment_of_v4(target)])?;
    if is_local_v4(source) {
        return None;
    }
    let found = if sides.routed_alike { adjacency::find(target, arrival.ifindex, settings) } else { None };
    let exit = match found {
        Some(exit) => exit,
        None => shared_hop(&mapped(target.to_be_bytes()), arrival.ifindex, sides.sender, settings)?,
    };
    leave(arrival, settings, &ends, &sides, exit)
}

#[inline(always)]
fn v6(arrival: &Arrival<'_>, settings: &Settings) -> Option<Exit> {
    let header = arrival.frame.read::<V6_BYTES>(ETHERNET_BYTES)?;
    let [source, target] = [arrival.frame.read::<16>(22)?, arrival.frame.read::<16>(38)?];
    let payload = u32::from(u16::from_be_bytes([header[4], header[5]]));
    if header[0] >> 4 != 6
        || payload == 0
        || header[7] <= 1
        || is_martian_v6(&source, true)
        || is_link_local(&source)
        || source == target
    {
        return None;
    }
    let ends = ends(&arrival.frame, header[6], payload + V6_BYTES as u32, V6_BYTES)?;
    let sides = judge(arrival, &ends, [segment_of(&source), segment_of(&target)])?;
    if is_local(&source) {
        return None;
    }
    let found =
        if sides.routed_alike { adjacency::find_v6(&target, arrival.ifindex, settings) } else { None };
    let exit = match found {
        Some(exit) => exit,
        None => shared_hop(&target, arrival.ifindex, sides.sender, settings)?,
    };
    leave(arrival, settings, &ends, &sides, exit)
}

/// Reads ports and checks lengths; `None` for what the parser would refuse, or call anything but plain.
#[inline(always)]
fn ends(frame: &Frame, protocol: u8, length_bytes: u32, l3_bytes: usize) -> Option<Ends> {
    let at = ETHERNET_BYTES + l3_bytes;
    let least = l3_bytes as u32;
    if length_bytes > (frame.bytes as u32).wrapping_sub(ETHERNET_BYTES as u32) {
        return None;
    }
    let [ports, second] = frame.words::<2>(at)?.map(u32::from_be);
    let header_bytes = match protocol {
        protocol::UDP => {
            let said = second >> 16;
            if said != 0 && said < 8 {
                return None;
            }
            8
        }
        protocol::TCP => {
            let [rest] = frame.words::<1>(at + 12)?.map(u32::from_be);
            if is_impossible((rest >> 16) as u8) || rest >> 28 < 5 {
                return None;
            }
            (rest >> 28) * 4
        }
        _ => return None,
    };
    if length_bytes < least + header_bytes {
        return None;
    }
    Some(Ends {
        protocol,
        source_port: (ports >> 16) as u16,
        target_port: ports as u16,
        length_bytes,
        header_bytes: least + header_bytes,
    })
}

/// Whether ports alone let the packet pass; addresses are not asked.
#[inline(always)]
fn judge(arrival: &Arrival<'_>, ends: &Ends, [source, receiver]: [u32; 2]) -> Option<Sides> {
    let port = arrival.port;
    let tcp = ends.protocol == protocol::TCP;
    let mut sides = Sides { sender: 0, receiver, routed_alike: true };
    if port.role == ROLE_SEGMENT {
        if source == 0 || (port.segment != 0 && source != port.segment) {
            return None;
        }
        let segment = open_segment(source, arrival.tick, tcp, ends.target_port, ends.source_port)?;
        sides.sender = source;
        sides.routed_alike = segment.routed == 0;
    } else if source != 0 || receiver == 0 {
        return None;
    }
    if receiver != 0 {
        open_segment(receiver, arrival.tick, tcp, ends.source_port, ends.target_port)?;
    }
    may_talk(sides.sender, receiver).then_some(sides)
}

/// Checks that the packet may leave this way, and counts it.
#[inline(always)]
fn leave(arrival: &Arrival<'_>, settings: &Settings, ends: &Ends, sides: &Sides, exit: Exit) -> Option<Exit> {
    let wire_bytes =
        if arrival.gso_bytes == 0 { ends.length_bytes } else { arrival.gso_bytes + ends.header_bytes };
    if exit.is_old(arrival.tick, settings) || wire_bytes > exit.mtu_bytes {
        return None;
    }
    if matches!(arrival.hook, Hook::XdpIn) {
        let leaves_by = PORTS.get(exit.ifindex % limits::PORTS)?;
        if leaves_by.ifindex != exit.ifindex || leaves_by.flags & PORT_XDP_TARGET == 0 {
            return None;
        }
    }
    let bytes = ends.length_bytes.wrapping_add((arrival.packets - 1).wrapping_mul(ends.header_bytes));
    report::passed((arrival.packets, bytes), sides.sender, sides.receiver);
    Some(exit)
}
