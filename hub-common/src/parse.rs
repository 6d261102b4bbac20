//! Bytes to [`Packet`]: the one parser for XDP, TC and the host.
//!
//! Everything is read by value through [`Bytes`], so that the kernel's bounds checks are in one place.
//! A packet that is not understood is an error with its [`Reason`]; the caller decides what that means
//! on its port.

use crate::address::{is_martian_v4, is_martian_v6, is_multicast, mapped};
use crate::event::Reason;
use crate::limits::{EXTENSION_HEADERS, VLAN_TAGS};
use crate::packet::{
    Inner, PACKET_ARP, PACKET_FRAGMENT_FIRST, PACKET_FRAGMENT_LATER, PACKET_ICMP_ERROR, PACKET_ICMP_REQUEST,
    PACKET_NEIGHBOUR, PACKET_OPTIONS, PACKET_OTHER, PACKET_ROUTER, PACKET_V4, PACKET_V6, PACKET_VLAN, Packet,
    protocol,
};
use crate::rule::has_ports;

/// Read access to a frame.
pub trait Bytes {
    /// The `N` bytes at `offset`, or `None` where the readable part ends before them.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
    /// Length of the whole frame in bytes, also of parts that `read` cannot reach.
    fn frame_bytes(&self) -> usize;
}

impl Bytes for &[u8] {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..offset.checked_add(N)?)?.try_into().ok()
    }
    fn frame_bytes(&self) -> usize {
        self.len()
    }
}

/// Ethernet header length in bytes.
pub const ETHERNET_BYTES: usize = 14;
const ETHERTYPE_V4: u16 = 0x0800;
const ETHERTYPE_V6: u16 = 0x86dd;
const ETHERTYPE_ARP: u16 = 0x0806;
/// No header lies further into a frame than this; keeps offsets provable.
const OFFSET_MAX: usize = 2_048;

/// Parses a frame that begins with an Ethernet header.
#[inline(always)]
pub fn ethernet(bytes: &impl Bytes, packet: &mut Packet) -> Result<(), Reason> {
    let mut ethertype = u16::from_be_bytes(bytes.read::<2>(12).ok_or(Reason::Truncated)?);
    let mut offset = ETHERNET_BYTES;
    let mut tags = 0;
    while tags < VLAN_TAGS && matches!(ethertype, 0x8100 | 0x88a8) {
        let tag = bytes.read::<4>(offset).ok_or(Reason::Truncated)?;
        ethertype = u16::from_be_bytes([tag[2], tag[3]]);
        offset += 4;
        packet.flags |= PACKET_VLAN;
        tags += 1;
    }
    network(bytes, ethertype, offset, packet)
}

/// Parses from the network header at `offset` on.
#[inline(always)]
pub fn network(bytes: &impl Bytes, ethertype: u16, offset: usize, packet: &mut Packet) -> Result<(), Reason> {
    packet.ethertype = ethertype;
    packet.l3_offset = offset as u16;
    match ethertype {
        ETHERTYPE_V4 => v4(bytes, offset, packet),
        ETHERTYPE_V6 => v6(bytes, offset, packet),
        ETHERTYPE_ARP => {
            packet.flags |= PACKET_ARP;
            Ok(())
        }
        _ => {
            packet.flags |= PACKET_OTHER;
            Ok(())
        }
    }
}

#[inline(always)]
fn v4(bytes: &impl Bytes, offset: usize, packet: &mut Packet) -> Result<(), Reason> {
    let header = bytes.read::<20>(offset).ok_or(Reason::Truncated)?;
    packet.flags |= PACKET_V4;
    let header_bytes = (header[0] & 0xf) as usize * 4;
    if header[0] >> 4 != 4 || header_bytes < 20 {
        return Err(Reason::BadHeader);
    }
    let source = [header[12], header[13], header[14], header[15]];
    let target = [header[16], header[17], header[18], header[19]];
    packet.source = mapped(source);
    packet.target = mapped(target);
    packet.protocol = header[9];
    packet.ttl = header[8];
    let total = u16::from_be_bytes([header[2], header[3]]) as usize;
    packet.length_bytes = length(bytes, offset, total, header_bytes)? as u32;
    if is_martian_v4(source, true) || is_martian_v4(target, false) {
        return Err(Reason::Martian);
    }
    if header_bytes > 20 {
        packet.flags |= PACKET_OPTIONS;
        v4_options(bytes, offset + 20, offset + header_bytes)?;
    }
    let fragment = u16::from_be_bytes([header[6], header[7]]);
    let position = fragment & 0x1fff;
    if fragment & 0x3fff != 0 {
        packet.fragment_id = u16::from_be_bytes([header[4], header[5]]) as u32;
        packet.flags |= if position == 0 { PACKET_FRAGMENT_FIRST } else { PACKET_FRAGMENT_LATER };
    }
    if position == 1 && packet.protocol == protocol::TCP {
        return Err(Reason::FragmentTiny);
    }
    transport(bytes, offset + header_bytes, packet)
}

/// Length from the IP header on: what the header says, or the frame's where the kernel has merged more
/// segments than 16 bits can count.
#[inline(always)]
fn length(bytes: &impl Bytes, offset: usize, said: usize, least: usize) -> Result<usize, Reason> {
    let there = bytes.frame_bytes().saturating_sub(offset);
    if said == 0 && there > u16::MAX as usize {
        return Ok(there);
    }
    if said < least {
        return Err(Reason::BadHeader);
    }
    if said > there {
        return Err(Reason::Truncated);
    }
    Ok(said)
}

/// Refuses source routes; other options are the kernel's to process.
#[inline(always)]
fn v4_options(bytes: &impl Bytes, start: usize, end: usize) -> Result<(), Reason> {
    let mut at = start;
    let mut steps = 0;
    // Forty bytes of options hold at most forty one-byte options.
    while steps < 40 && at < end {
        let Some([kind]) = bytes.read::<1>(at) else { return Err(Reason::Truncated) };
        match kind {
            0 => return Ok(()),
            1 => at += 1,
            131 | 137 => return Err(Reason::SourceRoute),
            _ => {
                let Some([size]) = bytes.read::<1>(at + 1) else { return Err(Reason::Truncated) };
                if size < 2 {
                    return Err(Reason::BadHeader);
                }
                at += size as usize;
            }
        }
        steps += 1;
    }
    if at > end { Err(Reason::BadHeader) } else { Ok(()) }
}

#[inline(always)]
fn v6(bytes: &impl Bytes, offset: usize, packet: &mut Packet) -> Result<(), Reason> {
    let header = bytes.read::<8>(offset).ok_or(Reason::Truncated)?;
    packet.flags |= PACKET_V6;
    packet.source = bytes.read::<16>(offset + 8).ok_or(Reason::Truncated)?;
    packet.target = bytes.read::<16>(offset + 24).ok_or(Reason::Truncated)?;
    packet.protocol = header[6];
    packet.ttl = header[7];
    if header[0] >> 4 != 6 {
        return Err(Reason::BadHeader);
    }
    let payload = u16::from_be_bytes([header[4], header[5]]) as usize;
    let said = if payload == 0 && header[6] == 0 { 0 } else { payload + 40 };
    packet.length_bytes = length(bytes, offset, said, 40)? as u32;
    // The unspecified source is duplicate address detection's and must reach its stage.
    let unspecified = packet.source == [0; 16];
    if (!unspecified && is_martian_v6(&packet.source, true)) || is_martian_v6(&packet.target, false) {
        return Err(Reason::Martian);
    }
    let end = v6_extensions(bytes, offset + 40, packet)?;
    if unspecified && packet.protocol != protocol::ICMPV6 {
        return Err(Reason::Martian);
    }
    transport(bytes, end, packet)
}

/// Walks extension headers; returns the offset of what follows them and sets the protocol.
#[inline(always)]
fn v6_extensions(bytes: &impl Bytes, start: usize, packet: &mut Packet) -> Result<usize, Reason> {
    let mut at = start;
    let mut next = packet.protocol;
    let mut steps = 0;
    while steps <= EXTENSION_HEADERS {
        if !matches!(next, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140) {
            packet.protocol = next;
            return Ok(at);
        }
        if steps == EXTENSION_HEADERS || at > OFFSET_MAX || (next == 0 && steps > 0) {
            return Err(Reason::ExtensionHeaders);
        }
        let Some(header) = bytes.read::<8>(at) else { return Err(Reason::ExtensionHeaders) };
        if next == 43 && header[2] == 0 {
            return Err(Reason::SourceRoute);
        }
        if next == 0 {
            packet.flags |= PACKET_OPTIONS;
        }
        if next == 44 {
            let position = u16::from_be_bytes([header[2], header[3]]);
            at += 8;
            if position & 0xfff9 != 0 {
                packet.fragment_id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                if position >> 3 != 0 {
                    packet.flags |= PACKET_FRAGMENT_LATER;
                    packet.protocol = header[0];
                    return Ok(at);
                }
                packet.flags |= PACKET_FRAGMENT_FIRST;
            }
        } else if next == 51 {
            at += (header[1] as usize + 2) * 4;
        } else {
            at += (header[1] as usize + 1) * 8;
        }
        next = header[0];
        steps += 1;
    }
    Err(Reason::ExtensionHeaders)
}

#[inline(always)]
fn transport(bytes: &impl Bytes, offset: usize, packet: &mut Packet) -> Result<(), Reason> {
    packet.l4_offset = offset as u16;
    if packet.has(PACKET_FRAGMENT_LATER) {
        return Ok(());
    }
    if offset > OFFSET_MAX {
        return Err(Reason::ExtensionHeaders);
    }
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
    let is_query = if v4 { kind != header[0] || request } else { matches!(header[0], 128 | 129) };
    if is_query {
        packet.source_port = id;
        packet.target_port = id;
    }
    if !v4 && matches!(header[0], 130..=137 | 143) {
        packet.flags |= PACKET_NEIGHBOUR;
        if matches!(header[0], 134 | 137) {
            packet.flags |= PACKET_ROUTER;
        }
    }
    let is_error = if v4 { matches!(header[0], 3 | 4 | 5 | 11 | 12) } else { header[0] < 128 };
    if !is_error {
        return Ok(());
    }
    packet.flags |= PACKET_ICMP_ERROR;
    if v4 {
        inner_v4(bytes, offset + 8, &mut packet.inner)
    } else {
        inner_v6(bytes, offset + 8, &mut packet.inner)
    }
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
fn inner_v4(bytes: &impl Bytes, offset: usize, inner: &mut Inner) -> Result<(), Reason> {
    let header = bytes.read::<20>(offset).ok_or(Reason::Truncated)?;
    let header_bytes = (header[0] & 0xf) as usize * 4;
    let later_fragment = u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0;
    if header[0] >> 4 != 4 || header_bytes < 20 || later_fragment {
        return Err(Reason::IcmpError);
    }
    inner.source = mapped([header[12], header[13], header[14], header[15]]);
    inner.target = mapped([header[16], header[17], header[18], header[19]]);
    inner.protocol = header[9];
    inner_ports(bytes, offset + header_bytes, inner, true)
}

#[inline(always)]
fn inner_v6(bytes: &impl Bytes, offset: usize, inner: &mut Inner) -> Result<(), Reason> {
    let header = bytes.read::<8>(offset).ok_or(Reason::Truncated)?;
    if header[0] >> 4 != 6 {
        return Err(Reason::IcmpError);
    }
    inner.source = bytes.read::<16>(offset + 8).ok_or(Reason::Truncated)?;
    inner.target = bytes.read::<16>(offset + 24).ok_or(Reason::Truncated)?;
    inner.protocol = header[6];
    if is_multicast(&inner.source) {
        return Err(Reason::IcmpError);
    }
    inner_ports(bytes, offset + 40, inner, false)
}

/// Only eight bytes of the quoted transport header are certain (RFC 792, RFC 4443 section 2.4).
#[inline(always)]
fn inner_ports(bytes: &impl Bytes, offset: usize, inner: &mut Inner, v4: bool) -> Result<(), Reason> {
    let header = bytes.read::<8>(offset).ok_or(Reason::Truncated)?;
    let protocol = inner.protocol;
    if has_ports(protocol) {
        inner.source_port = u16::from_be_bytes([header[0], header[1]]);
        inner.target_port = u16::from_be_bytes([header[2], header[3]]);
    } else if protocol == protocol::ICMP || protocol == protocol::ICMPV6 {
        let id = u16::from_be_bytes([header[4], header[5]]);
        inner.source_port = id;
        inner.target_port = id;
        inner.kind = if v4 { v4_query(header[0]).1 } else { v6_query(header[0]).1 };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(frame: &[u8]) -> Result<Packet, Reason> {
        let mut packet = Packet::ZERO;
        ethernet(&frame, &mut packet).map(|()| packet)
    }

    fn tcp_v4(flags_and_offset: u16) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00, 0x45, 0, 0, 40, 0, 7]);
        frame.extend(flags_and_offset.to_be_bytes());
        frame.extend([64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([0x10, 0x00, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0]);
        frame
    }

    #[test]
    fn tcp_syn_is_read() {
        let packet = parse(&tcp_v4(0)).unwrap();
        assert_eq!((packet.source_port, packet.target_port, packet.tcp_flags), (4096, 80, 2));
        assert_eq!((packet.l3_offset, packet.l4_offset, packet.length_bytes), (14, 34, 40));
    }

    #[test]
    fn fragments_are_told_apart() {
        assert!(parse(&tcp_v4(0x2000)).unwrap().has(PACKET_FRAGMENT_FIRST));
        assert!(parse(&tcp_v4(0x2005)).unwrap().has(PACKET_FRAGMENT_LATER));
        assert_eq!(parse(&tcp_v4(0x2001)), Err(Reason::FragmentTiny));
    }

    #[test]
    fn every_cut_is_an_error() {
        let frame = tcp_v4(0);
        for cut in 0..frame.len() {
            assert_eq!(parse(&frame[..cut]), Err(Reason::Truncated), "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0usize..4) {
            let mut frame = bytes;
            if frame.len() > 15 {
                let (a, b, c) = [(8, 0, 0x45), (0x86, 0xdd, 0x60), (0x81, 0, 0), (8, 6, 0)][kind];
                (frame[12], frame[13], frame[14]) = (a, b, c);
            }
            let _ = parse(&frame);
        }
    }
}
