//! Builds packets byte by byte, right unless told to be wrong.
//!
//! A [`Datagram`] is a description; [`Datagram::frame`] writes it out with correct lengths and checksums.
//! Broken packets are right ones whose bytes are changed afterwards, or descriptions with odd parts.

mod transport;
mod write;

use std::net::{IpAddr, Ipv4Addr};

pub use transport::Transport;

/// MAC address of the sender in every frame built here.
pub const SOURCE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// MAC address of the receiver in every frame built here.
pub const TARGET_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// TCP flags.
pub mod flags {
    /// FIN.
    pub const FIN: u8 = 1;
    /// SYN.
    pub const SYN: u8 = 2;
    /// RST.
    pub const RST: u8 = 4;
    /// PSH.
    pub const PSH: u8 = 8;
    /// ACK.
    pub const ACK: u8 = 16;
}

/// An address with a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The address.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
}

impl From<(&str, u16)> for End {
    fn from((address, port): (&str, u16)) -> Self {
        Self { address: ip(address), port }
    }
}

impl From<(IpAddr, u16)> for End {
    fn from((address, port): (IpAddr, u16)) -> Self {
        Self { address, port }
    }
}

/// Reads an address that the test wrote itself.
pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|error| panic!("address `{text}`: {error}"))
}

/// An ARP message for IPv4 over Ethernet (RFC 826).
pub fn arp(operation: u8, sender: Ipv4Addr, asked: Ipv4Addr) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, operation];
    [&head[..], &SOURCE_MAC, &sender.octets(), &[0; 6], &asked.octets()].concat()
}

/// One VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// `0x8100`, or `0x88a8` for the outer tag of two.
    pub ethertype: u16,
    /// VLAN identifier.
    pub id: u16,
}

/// Position of a fragment within its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Offset in units of eight bytes.
    pub position: u16,
    /// Whether others follow.
    pub more: bool,
}

/// An IPv6 extension header, whole; its first byte is filled in when the chain is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Its protocol number.
    pub kind: u8,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Extension {
    /// A header of `units` × 8 bytes that holds padding options only.
    pub fn padding(kind: u8, units: u8) -> Self {
        let mut bytes = vec![0, units - 1];
        bytes.extend(vec![0; usize::from(units) * 8 - 2]);
        Self { kind, bytes }
    }

    /// A hop-by-hop header with the router alert option that MLD carries (RFC 2711).
    pub fn router_alert() -> Self {
        Self { kind: 0, bytes: vec![0, 0, 5, 2, 0, 0, 1, 0] }
    }

    /// A routing header with one address to visit.
    pub fn routing(kind: u8) -> Self {
        let mut bytes = vec![0, 2, kind, 1];
        bytes.extend([0; 20]);
        Self { kind: 43, bytes }
    }

    /// An authentication header with a 12-byte check value.
    pub fn authentication() -> Self {
        let mut bytes = vec![0, 4];
        bytes.extend([0; 22]);
        Self { kind: 51, bytes }
    }

    /// A fragment header.
    pub fn fragment(id: u32, fragment: Fragment) -> Self {
        let word = fragment.position << 3 | u16::from(fragment.more);
        let mut bytes = vec![0, 0];
        bytes.extend(word.to_be_bytes());
        bytes.extend(id.to_be_bytes());
        Self { kind: 44, bytes }
    }
}

/// One packet of either family, as a description.
#[derive(Clone, Debug)]
pub struct Datagram {
    /// Sender.
    pub source: IpAddr,
    /// Receiver, of the same family.
    pub target: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Identification, used by fragments.
    pub id: u32,
    /// IPv4: no router may cut it up.
    pub dont_fragment: bool,
    /// IPv4 fragment fields; IPv6 has an [`Extension::fragment`] instead.
    pub fragment: Fragment,
    /// IPv4 options; padded to a multiple of four bytes.
    pub options: Vec<u8>,
    /// IPv6 extension headers in order.
    pub extensions: Vec<Extension>,
    /// VLAN tags, outer first.
    pub tags: Vec<Tag>,
    /// What the IP header carries.
    pub transport: Transport,
}

impl Datagram {
    /// A packet without anything special.
    pub fn new(source: IpAddr, target: IpAddr, transport: Transport) -> Self {
        assert_eq!(source.is_ipv4(), target.is_ipv4(), "one packet, one family: {source}, {target}");
        Self {
            source,
            target,
            ttl: 64,
            id: 7,
            dont_fragment: false,
            fragment: Fragment { position: 0, more: false },
            options: Vec::new(),
            extensions: Vec::new(),
            tags: Vec::new(),
            transport,
        }
    }

    /// A TCP segment.
    pub fn tcp(source: impl Into<End>, target: impl Into<End>, flags: u8) -> Self {
        let (source, target) = (source.into(), target.into());
        Self::new(source.address, target.address, Transport::tcp(source.port, target.port, flags))
    }

    /// A UDP datagram.
    pub fn udp(source: impl Into<End>, target: impl Into<End>) -> Self {
        let (source, target) = (source.into(), target.into());
        Self::new(source.address, target.address, Transport::udp(source.port, target.port))
    }

    /// An SCTP packet with one INIT chunk.
    pub fn sctp(source: impl Into<End>, target: impl Into<End>) -> Self {
        let (source, target) = (source.into(), target.into());
        Self::new(source.address, target.address, Transport::sctp(source.port, target.port))
    }

    /// A GRE packet with an empty IPv4 header inside.
    pub fn gre(source: IpAddr, target: IpAddr) -> Self {
        Self::new(source, target, Transport::gre())
    }

    /// A packet of any protocol.
    pub fn raw(source: IpAddr, target: IpAddr, protocol: u8, payload: &[u8]) -> Self {
        Self::new(source, target, Transport::Raw { protocol, payload: payload.to_vec() })
    }

    /// An ICMP or ICMPv6 message with these eight header bytes' type, code and rest.
    pub fn icmp(source: IpAddr, target: IpAddr, kind: u8, code: u8, rest: [u8; 4]) -> Self {
        Self::new(source, target, Transport::Icmp { kind, code, rest, payload: Vec::new() })
    }

    /// An echo request.
    pub fn ping(source: IpAddr, target: IpAddr, id: u16) -> Self {
        Self::echo(source, target, if source.is_ipv4() { 8 } else { 128 }, id)
    }

    /// An echo reply.
    pub fn pong(source: IpAddr, target: IpAddr, id: u16) -> Self {
        Self::echo(source, target, if source.is_ipv4() { 0 } else { 129 }, id)
    }

    fn echo(source: IpAddr, target: IpAddr, kind: u8, id: u16) -> Self {
        let [high, low] = id.to_be_bytes();
        Self::icmp(source, target, kind, 0, [high, low, 0, 1]).with_payload(b"hub-echo-payload")
    }

    /// The ICMP error that `router` sends about `packet` to its sender, quoting what every router must.
    pub fn error_about(router: IpAddr, packet: &Self, kind: u8, code: u8) -> Self {
        let quote = packet.bytes();
        let header = match (router.is_ipv4(), quote.get(6)) {
            (true, _) => 28 + packet.options.len().next_multiple_of(4),
            // Behind the header of a fragment.
            (false, Some(44)) => 56,
            (false, _) => 48,
        };
        let quote = &quote[..quote.len().min(header)];
        Self::icmp(router, packet.source, kind, code, [0; 4]).with_payload(quote)
    }

    /// The packet that the receiver would answer with: ends and ports swapped, TCP flags as given.
    #[must_use]
    pub fn answer(&self, tcp_flags: u8) -> Self {
        let transport = self.transport.answer(tcp_flags, self.source.is_ipv4());
        Self::new(self.target, self.source, transport)
    }

    /// With another payload.
    #[must_use]
    pub fn with_payload(mut self, bytes: &[u8]) -> Self {
        *self.transport.payload() = bytes.to_vec();
        self
    }

    /// With another TTL or hop limit.
    #[must_use]
    pub fn with_ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// With a VLAN tag, outside of those it has.
    #[must_use]
    pub fn with_tag(mut self, ethertype: u16, id: u16) -> Self {
        self.tags.insert(0, Tag { ethertype, id });
        self
    }

    /// With IPv4 options.
    #[must_use]
    pub fn with_options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self
    }

    /// With one more IPv6 extension header, after those it has.
    #[must_use]
    pub fn with_extension(mut self, extension: Extension) -> Self {
        self.extensions.push(extension);
        self
    }

    /// With another identification.
    #[must_use]
    pub fn with_id(mut self, id: u32) -> Self {
        self.id = id;
        self
    }
}

#[cfg(test)]
mod tests;
