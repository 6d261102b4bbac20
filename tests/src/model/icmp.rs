//! What ICMP and ICMPv6 messages are about.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hub_common::event::Reason;

use super::Tuple;
use super::headers::nowhere;

/// Requests with the types of their replies: echo, time stamp, information, address mask (RFC 792, 950),
/// and for IPv6 echo (RFC 4443) and node information (RFC 4620).
const QUERIES_V4: [(u8, u8); 4] = [(8, 0), (13, 14), (15, 16), (17, 18)];
const QUERIES_V6: [(u8, u8); 2] = [(128, 129), (139, 140)];

const fn queries(v4: bool) -> &'static [(u8, u8)] {
    if v4 { &QUERIES_V4 } else { &QUERIES_V6 }
}

/// Whether the message asks for a reply.
pub(super) fn is_request(v4: bool, kind: u8) -> bool {
    queries(v4).iter().any(|(request, _)| *request == kind)
}

/// Whether the message is such a reply.
pub(super) fn is_reply(v4: bool, kind: u8) -> bool {
    queries(v4).iter().any(|(_, reply)| *reply == kind)
}

/// Whether bytes 4 and 5 of the header are an identifier that a reply repeats.
pub(super) fn has_identifier(v4: bool, kind: u8) -> bool {
    if v4 { is_request(v4, kind) || is_reply(v4, kind) } else { kind == 128 || kind == 129 }
}

/// The type that a request and its reply are both known by; other messages are known by their own.
pub(super) fn conversation(v4: bool, kind: u8) -> u8 {
    queries(v4).iter().find(|(_, reply)| *reply == kind).map_or(kind, |(request, _)| *request)
}

/// Whether the message is an error about another packet.
pub(super) fn is_error(v4: bool, kind: u8) -> bool {
    if v4 { [3, 4, 5, 11, 12].contains(&kind) } else { kind < 128 }
}

/// Whether the message is neighbour discovery or multicast listener discovery.
pub(super) fn is_neighbour(kind: u8) -> bool {
    (130..=137).contains(&kind) || kind == 143
}

/// Whether only routers send the message: advertisements and ICMPv6 redirects.
pub(super) const fn is_routers(kind: u8) -> bool {
    kind == 134 || kind == REDIRECT
}

/// ICMPv6 redirect (RFC 4861 section 4.5).
pub(super) const REDIRECT: u8 = 137;

/// Reads the quoted packet; only its IP header and eight more bytes are certain to be there.
pub(super) fn quoted(v4: bool, quote: &[u8]) -> Result<Tuple, Reason> {
    // A version is told by the first bytes, even if the header is cut off after them.
    if quote.len() < (if v4 { 20 } else { 8 }) {
        return Err(Reason::Truncated);
    }
    let version = quote[0] >> 4;
    let header_bytes = if v4 { usize::from(quote[0] & 15) * 4 } else { 40 };
    let later_fragment = v4 && (quote[6] & 0x1f != 0 || quote[7] != 0);
    if version != (if v4 { 4 } else { 6 }) || header_bytes < 20 || later_fragment {
        return Err(Reason::IcmpError);
    }
    if quote.len() < header_bytes + 8 {
        return Err(Reason::Truncated);
    }
    let (source, target): (IpAddr, IpAddr) = if v4 {
        let at = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&quote[at..at + 4]).unwrap());
        (at(12).into(), at(16).into())
    } else {
        let at = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&quote[at..at + 16]).unwrap());
        (at(8).into(), at(24).into())
    };
    // RFC 4443 section 2.4 (e): no error is sent about packets from multicast addresses; none is about packets that
    // nobody lets pass.
    if let (IpAddr::V6(source), IpAddr::V6(target)) = (source, target)
        && (source.is_multicast() || nowhere(source) || nowhere(target))
    {
        return Err(Reason::IcmpError);
    }
    let (mut l4, mut protocol) = (&quote[header_bytes..], if v4 { quote[9] } else { quote[6] });
    if !v4 && protocol == 44 {
        // RFC 8200 section 4.5: what follows the header of a first fragment is the transport's.
        if l4[2] != 0 || l4[3] & 0xf8 != 0 {
            return Err(Reason::IcmpError);
        }
        if l4.len() < 16 {
            return Err(Reason::Truncated);
        }
        (protocol, l4) = (l4[0], &l4[8..]);
    }
    let word = |at: usize| u16::from(l4[at]) << 8 | u16::from(l4[at + 1]);
    let mut tuple = Tuple { source, target, protocol, source_port: 0, target_port: 0, kind: 0 };
    match protocol {
        6 | 17 | 132 | 136 => (tuple.source_port, tuple.target_port) = (word(0), word(2)),
        1 | 58 if (protocol == 1) == v4 => {
            tuple.kind = conversation(v4, l4[0]);
            if has_identifier(v4, l4[0]) {
                (tuple.source_port, tuple.target_port) = (word(4), word(4));
            }
        }
        _ => {}
    }
    Ok(tuple)
}
