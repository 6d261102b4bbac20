//! Bytes to headers, over plain slices.
//!
//! Where several things are wrong with a packet, the first in this order is its reason: header cut off,
//! header wrong, datagram cut off, addresses, position of the fragment, options and extension headers, transport.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hub_common::event::Reason;

use super::{Tuple, icmp};

/// What a frame holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// IPv4 or IPv6.
    Ip(Headers),
    /// ARP, with who asks for whose link address if it asks.
    Arp(Result<Option<[IpAddr; 2]>, Reason>),
    /// Anything else without a VLAN tag.
    Other,
    /// A frame with a VLAN tag, whatever is inside.
    Tagged,
}

/// Which piece of a packet this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// All of it.
    Whole,
    /// The first fragment, with the identification.
    First(u32),
    /// A later fragment, with the identification.
    Later(u32),
}

/// What the rules and the flow table may ask about a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Sender.
    pub source: IpAddr,
    /// Receiver.
    pub target: IpAddr,
    /// IP protocol after extension headers.
    pub protocol: u8,
    /// Port, or ICMP identifier, or 0.
    pub source_port: u16,
    /// Port, or ICMP identifier, or 0.
    pub target_port: u16,
    /// TCP flags, or 0.
    pub tcp_flags: u8,
    /// ICMP type, or 0.
    pub icmp_type: u8,
    /// ICMP code, or 0.
    pub icmp_code: u8,
    /// Fragmentation.
    pub piece: Piece,
    /// Of an ICMP error, the connection of the packet it quotes, as that packet's sender sees it.
    pub quoted: Option<Tuple>,
    /// Of a neighbour solicitation, whose link address it asks for.
    pub asked: Option<IpAddr>,
}

impl Headers {
    /// Whether this is ICMP of its own family.
    pub const fn is_icmp(&self) -> bool {
        matches!((self.source, self.protocol), (IpAddr::V4(_), 1) | (IpAddr::V6(_), 58))
    }
}

/// Parses an Ethernet frame; an error says whether the frame holds IP.
pub fn parse(frame: &[u8]) -> Result<Parsed, Reason> {
    if frame.len() < 14 {
        return Err(Reason::Truncated);
    }
    let packet = &frame[14..];
    match (frame[12], frame[13]) {
        (0x08, 0x00) => v4(packet).map(Parsed::Ip),
        (0x86, 0xdd) => v6(packet).map(Parsed::Ip),
        (0x08, 0x06) => Ok(Parsed::Arp(arp(packet))),
        (0x81, 0x00) | (0x88, 0xa8) if packet.len() < 4 => Err(Reason::Truncated),
        (0x81, 0x00) | (0x88, 0xa8) => Ok(Parsed::Tagged),
        _ => Ok(Parsed::Other),
    }
}

/// Who asks for whose link address (RFC 826).
fn arp(message: &[u8]) -> Result<Option<[IpAddr; 2]>, Reason> {
    if message.len() < 28 {
        return Err(Reason::Truncated);
    }
    let address = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&message[at..at + 4]).unwrap());
    Ok((message[6..8] == [0, 1]).then(|| [address(14), address(24)]))
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from(bytes[at]) << 8 | u16::from(bytes[at + 1])
}

fn v4(packet: &[u8]) -> Result<Headers, Reason> {
    if packet.len() < 20 {
        return Err(Reason::Truncated);
    }
    let header_bytes = usize::from(packet[0] & 15) * 4;
    let total_bytes = usize::from(word(packet, 2));
    if packet[0] >> 4 != 4 || header_bytes < 20 || total_bytes < header_bytes {
        return Err(Reason::BadHeader);
    }
    if total_bytes > packet.len() {
        return Err(Reason::Truncated);
    }
    let (header, carried) = packet[..total_bytes].split_at(header_bytes);
    let source = Ipv4Addr::new(header[12], header[13], header[14], header[15]);
    let target = Ipv4Addr::new(header[16], header[17], header[18], header[19]);
    // RFC 1812 section 5.3.7.
    let nowhere = |address: Ipv4Addr| address.octets()[0] == 0 || address.is_loopback();
    if nowhere(source) || nowhere(target) || source.octets()[0] >= 224 {
        return Err(Reason::Martian);
    }
    let protocol = header[9];
    let id = u32::from(word(header, 4));
    let (more, position) = (header[6] & 0x20 != 0, word(header, 6) & 0x1fff);
    let piece = match (more, position) {
        (false, 0) => Piece::Whole,
        (true, 0) => Piece::First(id),
        // RFC 3128: it would write over the flags of the TCP header in the first fragment.
        (_, 1) if protocol == 6 => return Err(Reason::FragmentTiny),
        _ => Piece::Later(id),
    };
    options(&header[20..])?;
    transport(source.into(), target.into(), protocol, piece, carried)
}

fn options(mut rest: &[u8]) -> Result<(), Reason> {
    loop {
        match rest {
            [] | [0, ..] => return Ok(()),
            [1, ..] => rest = &rest[1..],
            // RFC 7126 section 4.3: loose and strict source routes.
            [131 | 137, ..] => return Err(Reason::SourceRoute),
            [_, size, ..] if *size >= 2 && usize::from(*size) <= rest.len() => {
                rest = &rest[usize::from(*size)..];
            }
            _ => return Err(Reason::BadHeader),
        }
    }
}

fn v6(packet: &[u8]) -> Result<Headers, Reason> {
    if packet.len() < 40 {
        return Err(Reason::Truncated);
    }
    let payload_bytes = usize::from(word(packet, 4));
    // A jumbogram (RFC 2675) says 0 and begins with hop-by-hop options; none is short enough for a test.
    if packet[0] >> 4 != 6 || (payload_bytes == 0 && packet[6] == 0) {
        return Err(Reason::BadHeader);
    }
    if 40 + payload_bytes > packet.len() {
        return Err(Reason::Truncated);
    }
    let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).unwrap());
    let (source, target) = (address(8), address(24));
    let unspecified = source.is_unspecified();
    if (nowhere(source) && !unspecified) || nowhere(target) || source.is_multicast() {
        return Err(Reason::Martian);
    }
    let (protocol, piece, carried) = extensions(packet[6], &packet[40..40 + payload_bytes])?;
    // Duplicate address detection has no source yet (RFC 4862 section 5.4).
    if unspecified && protocol != 58 {
        return Err(Reason::Martian);
    }
    transport(source.into(), target.into(), protocol, piece, carried)
}

/// Unspecified, loopback, and IPv4 addresses in IPv6 clothes (RFC 4942 section 2.2).
pub(super) fn nowhere(address: Ipv6Addr) -> bool {
    let s = address.segments();
    s[..5] == [0; 5] && (s[5] == 0xffff || s[5] == 0)
}

/// Walks extension headers to the transport.
fn extensions(first: u8, payload: &[u8]) -> Result<(u8, Piece, &[u8]), Reason> {
    /// No extension header begins further into a frame than this.
    const FARTHEST: usize = 2_048;
    let (mut kind, mut rest, mut piece) = (first, payload, Piece::Whole);
    for number in 0.. {
        if ![0, 43, 44, 51, 60, 135, 139, 140].contains(&kind) {
            break;
        }
        let too_many = number == hub_common::limits::EXTENSION_HEADERS as usize;
        let too_far = 14 + 40 + (payload.len() - rest.len()) > FARTHEST;
        let late_hop_by_hop = kind == 0 && number > 0;
        if too_many || too_far || late_hop_by_hop {
            return Err(Reason::ExtensionHeaders);
        }
        if rest.len() < 8 {
            return Err(Reason::Truncated);
        }
        let next = rest[0];
        let size = match kind {
            44 => 8,
            51 => 4 * (usize::from(rest[1]) + 2),
            _ => 8 * (usize::from(rest[1]) + 1),
        };
        if size > rest.len() {
            return Err(Reason::Truncated);
        }
        if kind == 43 && rest[2] == 0 {
            return Err(Reason::SourceRoute);
        }
        if kind == 44 {
            let id = u32::from(word(rest, 4)) << 16 | u32::from(word(rest, 6));
            let (position, more) = (word(rest, 2) >> 3, rest[3] & 1 == 1);
            if position > 0 {
                return Ok((next, Piece::Later(id), &rest[8..]));
            }
            if more {
                piece = Piece::First(id);
            }
        }
        rest = &rest[size..];
        kind = next;
    }
    Ok((kind, piece, rest))
}

fn transport(
    source: IpAddr,
    target: IpAddr,
    protocol: u8,
    piece: Piece,
    carried: &[u8],
) -> Result<Headers, Reason> {
    let mut headers = Headers {
        source,
        target,
        protocol,
        source_port: 0,
        target_port: 0,
        tcp_flags: 0,
        icmp_type: 0,
        icmp_code: 0,
        piece,
        quoted: None,
        asked: None,
    };
    if matches!(piece, Piece::Later(_)) {
        return Ok(headers);
    }
    // RFC 1858: a first fragment must hold the whole transport header.
    let short = if piece == Piece::Whole { Reason::Truncated } else { Reason::FragmentTiny };
    match protocol {
        6 => {
            if carried.len() < 20 {
                return Err(short);
            }
            let header_bytes = usize::from(carried[12] >> 4) * 4;
            if header_bytes < 20 {
                return Err(Reason::BadHeader);
            }
            if header_bytes > carried.len() {
                return Err(short);
            }
            (headers.source_port, headers.target_port) = (word(carried, 0), word(carried, 2));
            headers.tcp_flags = carried[13];
        }
        17 | 132 | 136 => {
            if carried.len() < 8 {
                return Err(short);
            }
            if protocol == 17 && (1..8).contains(&word(carried, 4)) {
                return Err(Reason::BadHeader);
            }
            (headers.source_port, headers.target_port) = (word(carried, 0), word(carried, 2));
        }
        _ if headers.is_icmp() => {
            if carried.len() < 8 {
                return Err(short);
            }
            (headers.icmp_type, headers.icmp_code) = (carried[0], carried[1]);
            let v4 = source.is_ipv4();
            if icmp::has_identifier(v4, carried[0]) {
                headers.source_port = word(carried, 4);
                headers.target_port = word(carried, 4);
            }
            if !v4 && carried[0] == 135 && carried.len() >= 24 {
                headers.asked = Some(IpAddr::from(<[u8; 16]>::try_from(&carried[8..24]).unwrap()));
            }
            if icmp::is_error(v4, carried[0]) {
                headers.quoted = Some(icmp::quoted(v4, &carried[8..])?);
            }
        }
        _ => {}
    }
    Ok(headers)
}
