//! Transport headers, and the packet that an ICMP error quotes.

use super::{Bytes, FRAGMENT, FRAGMENT_BYTES, OFFSET_MASK, V6_BYTES};
use crate::address::{is_martian_v6, mapped};
use crate::event::Reason;
use crate::packet::{
    Inner, PACKET_ASKS, PACKET_FRAGMENT_FIRST, PACKET_FRAGMENT_LATER, PACKET_ICMP_ERROR, PACKET_ICMP_REQUEST,
    PACKET_NEIGHBOUR, PACKET_ROUTER, PACKET_V4, PACKET_V6, Packet, protocol,
};
use crate::rule::has_ports;

/// Neighbour solicitation (RFC 4861).
const SOLICITATION: u8 = 135;

/// Parses the transport header, unless the packet is a later fragment, which has none.
#[inline(always)]
pub fn transport(bytes: &impl Bytes, packet: &mut Packet) -> Result<(), Reason> {
    let duplicate_address_detection = packet.has(PACKET_V6) && packet.protocol == protocol::ICMPV6;
    if packet.source == [0; 16] && !duplicate_address_detection {
        return Err(Reason::Martian);
    }
    if packet.has(PACKET_FRAGMENT_LATER) {
        return Ok(());
    }
    let offset = packet.l4_offset as usize & OFFSET_MASK;
    let room =
        (packet.length_bytes as usize).saturating_sub(offset.saturating_sub(packet.l3_offset as usize));
    let short = if packet.has(PACKET_FRAGMENT_FIRST) { Reason::FragmentTiny } else { Reason::Truncated };
    match packet.protocol {
        protocol::TCP => {
            if room < 20 {
                return Err(short);
            }
            let header = bytes.read::<14>(offset).ok_or(Reason::Truncated)?;
            packet.source_port = u16::from_be_bytes([header[0], header[1]]);
            packet.target_port = u16::from_be_bytes([header[2], header[3]]);
            packet.tcp_flags = header[13];
            packet.l4_bytes = (header[12] >> 4) as u16 * 4;
            if packet.l4_bytes < 20 {
                return Err(Reason::BadHeader);
            }
            if packet.l4_bytes as usize > room {
                return Err(short);
            }
            Ok(())
        }
        protocol::ICMP if packet.has(PACKET_V4) => icmp(bytes, offset, room, short, packet, true),
        protocol::ICMPV6 if packet.has(PACKET_V6) => icmp(bytes, offset, room, short, packet, false),
        other if has_ports(other) => {
            if room < 8 {
                return Err(short);
            }
            let header = bytes.read::<6>(offset).ok_or(Reason::Truncated)?;
            packet.source_port = u16::from_be_bytes([header[0], header[1]]);
            packet.target_port = u16::from_be_bytes([header[2], header[3]]);
            packet.l4_bytes = 8;
            let said = u16::from_be_bytes([header[4], header[5]]);
            if other == protocol::UDP && said != 0 && said < 8 {
                return Err(Reason::BadHeader);
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

#[inline(always)]
fn icmp(
    bytes: &impl Bytes,
    offset: usize,
    room: usize,
    short: Reason,
    packet: &mut Packet,
    v4: bool,
) -> Result<(), Reason> {
    if room < 8 {
        // Multicast listener and neighbour messages are longer; nothing valid is shorter.
        return Err(short);
    }
    let header = bytes.read::<8>(offset).ok_or(Reason::Truncated)?;
    packet.icmp_type = header[0];
    packet.icmp_code = header[1];
    packet.l4_bytes = 8;
    let id = u16::from_be_bytes([header[4], header[5]]);
    let (request, kind) = if v4 { v4_query(header[0]) } else { v6_query(header[0]) };
    packet.kind = kind;
    if request {
        packet.flags |= PACKET_ICMP_REQUEST;
    }
    if has_identifier(header[0], v4) {
        packet.source_port = id;
        packet.target_port = id;
    }
    if !v4 && matches!(header[0], 130..=137 | 143) {
        packet.flags |= PACKET_NEIGHBOUR;
        if matches!(header[0], 134 | 137) {
            packet.flags |= PACKET_ROUTER;
        }
        // One that is shorter asks for nothing: the kernel drops it.
        if header[0] == SOLICITATION && room >= 24 {
            packet.inner.target = bytes.read::<16>(offset + 8).ok_or(Reason::Truncated)?;
            packet.flags |= PACKET_ASKS;
        }
    }
    let is_error = if v4 { matches!(header[0], 3 | 4 | 5 | 11 | 12) } else { header[0] < 128 };
    if !is_error {
        return Ok(());
    }
    packet.flags |= PACKET_ICMP_ERROR;
    if v4 {
        inner_v4(bytes, offset + 8, room - 8, &mut packet.inner)
    } else {
        inner_v6(bytes, offset + 8, room - 8, &mut packet.inner)
    }
}

/// Whether bytes 4 and 5 of the message are an identifier that a reply repeats.
#[inline(always)]
const fn has_identifier(kind: u8, v4: bool) -> bool {
    if v4 { matches!(kind, 0 | 8 | 13..=18) } else { matches!(kind, 128 | 129) }
}

/// Whether an ICMP type is a request, and the request type of its pair.
#[inline(always)]
const fn v4_query(kind: u8) -> (bool, u8) {
    match kind {
        8 | 13 | 15 | 17 => (true, kind),
        0 => (false, 8),
        14 | 16 | 18 => (false, kind - 1),
        other => (false, other),
    }
}

#[inline(always)]
const fn v6_query(kind: u8) -> (bool, u8) {
    match kind {
        128 | 139 => (true, kind),
        129 | 140 => (false, kind - 1),
        other => (false, other),
    }
}

#[inline(always)]
fn inner_v4(bytes: &impl Bytes, offset: usize, room: usize, inner: &mut Inner) -> Result<(), Reason> {
    if room < 20 {
        return Err(Reason::Truncated);
    }
    let header = bytes.read::<20>(offset).ok_or(Reason::Truncated)?;
    let header_bytes = (header[0] & 0xf) as usize * 4;
    let later_fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0;
    if header[0] >> 4 != 4 || header_bytes < 20 || later_fragment {
        return Err(Reason::IcmpError);
    }
    inner.source = mapped([header[12], header[13], header[14], header[15]]);
    inner.target = mapped([header[16], header[17], header[18], header[19]]);
    inner.protocol = header[9];
    if room < header_bytes + 8 {
        return Err(Reason::Truncated);
    }
    inner_ports(bytes, offset + header_bytes, inner, true)
}

#[inline(always)]
fn inner_v6(bytes: &impl Bytes, offset: usize, room: usize, inner: &mut Inner) -> Result<(), Reason> {
    if room < 8 {
        return Err(Reason::Truncated);
    }
    let header = bytes.read::<8>(offset).ok_or(Reason::Truncated)?;
    if header[0] >> 4 != 6 {
        return Err(Reason::IcmpError);
    }
    if room < V6_BYTES + 8 {
        return Err(Reason::Truncated);
    }
    inner.source = bytes.read::<16>(offset + 8).ok_or(Reason::Truncated)?;
    inner.target = bytes.read::<16>(offset + 24).ok_or(Reason::Truncated)?;
    inner.protocol = header[6];
    // No packet with such addresses has passed; one of IPv4 in IPv6 clothes would be taken for one of IPv4.
    if is_martian_v6(&inner.source, true) || is_martian_v6(&inner.target, false) {
        return Err(Reason::IcmpError);
    }
    let mut header_bytes = V6_BYTES;
    if inner.protocol == FRAGMENT {
        // A first fragment has ports; a later one tells of no connection.
        let fragment = bytes.read::<4>(offset + V6_BYTES).ok_or(Reason::Truncated)?;
        if u16::from_be_bytes([fragment[2], fragment[3]]) >> 3 != 0 {
            return Err(Reason::IcmpError);
        }
        inner.protocol = fragment[0];
        header_bytes += FRAGMENT_BYTES;
        if room < header_bytes + 8 {
            return Err(Reason::Truncated);
        }
    }
    inner_ports(bytes, offset + header_bytes, inner, false)
}

/// Only eight bytes of the quoted transport header are certain (RFC 792, RFC 4443 section 2.4).
#[inline(always)]
fn inner_ports(bytes: &impl Bytes, offset: usize, inner: &mut Inner, v4: bool) -> Result<(), Reason> {
    let header = bytes.read::<8>(offset).ok_or(Reason::Truncated)?;
    let protocol = inner.protocol;
    if has_ports(protocol) {
        inner.source_port = u16::from_be_bytes([header[0], header[1]]);
        inner.target_port = u16::from_be_bytes([header[2], header[3]]);
    } else if protocol == if v4 { protocol::ICMP } else { protocol::ICMPV6 } {
        inner.kind = if v4 { v4_query(header[0]).1 } else { v6_query(header[0]).1 };
        if has_identifier(header[0], v4) {
            let id = u16::from_be_bytes([header[4], header[5]]);
            inner.source_port = id;
            inner.target_port = id;
        }
    }
    Ok(())
}
