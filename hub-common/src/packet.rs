//! A parsed packet: what the stages see instead of bytes.

use crate::address::Address;

crate::shared! {
    /// Headers of one packet, both families alike.
    pub struct Packet {
        /// Sender.
        pub source: Address,
        /// Receiver.
        pub target: Address,
        /// TCP, UDP or SCTP port; ICMP identifier; 0 otherwise.
        pub source_port: u16,
        /// TCP, UDP or SCTP port; ICMP identifier; 0 otherwise.
        pub target_port: u16,
        /// IP protocol after extension headers.
        pub protocol: u8,
        /// What tells flows of one ICMP identifier apart: the request's type; 0 otherwise.
        pub kind: u8,
        /// ICMP type.
        pub icmp_type: u8,
        /// ICMP code.
        pub icmp_code: u8,
        /// TCP flags byte.
        pub tcp_flags: u8,
        /// TTL or hop limit.
        pub ttl: u8,
        /// `PACKET_*` bits.
        pub flags: u16,
        /// Bytes from the IP header on, as the IP header says.
        pub length_bytes: u32,
        /// Offset of the IP header from the start of the frame.
        pub l3_offset: u16,
        /// Offset of the transport header from the start of the frame.
        pub l4_offset: u16,
        /// Length of the transport header in bytes; 0 when unknown.
        pub l4_bytes: u16,
        /// Ethertype as far as it was walked, host order.
        pub ethertype: u16,
        /// Fragment identification.
        pub fragment_id: u32,
        /// Address space that the packet is of; 0 is the hub's own.
        pub zone: u16,
        /// Zero.
        pub pad: u16,
        /// Of an ICMP error: the packet it speaks of. With [`PACKET_ASKS`]: whom it asks for, as `target`.
        pub inner: Inner,
    }

    /// The packet quoted by an ICMP error.
    pub struct Inner {
        /// Its sender.
        pub source: Address,
        /// Its receiver.
        pub target: Address,
        /// Its source port or ICMP identifier.
        pub source_port: u16,
        /// Its target port or ICMP identifier.
        pub target_port: u16,
        /// Its protocol.
        pub protocol: u8,
        /// Its ICMP kind.
        pub kind: u8,
        /// Zero.
        pub pad: [u8; 2],
    }

    /// What identifies the fragments of one packet.
    pub struct FragmentKey {
        /// Sender.
        pub source: Address,
        /// Receiver.
        pub target: Address,
        /// Identification.
        pub id: u32,
        /// IP protocol for IPv4 (RFC 791); 0 for IPv6 (RFC 8200 section 4.5).
        pub protocol: u16,
        /// Address space.
        pub zone: u16,
    }

    /// What later fragments take from the first.
    pub struct FragmentPorts {
        /// Tick after which the entry is void.
        pub until_tick: u64,
        /// Source port.
        pub source_port: u16,
        /// Target port.
        pub target_port: u16,
        /// ICMP kind.
        pub kind: u8,
        /// ICMP type.
        pub icmp_type: u8,
        /// ICMP code.
        pub icmp_code: u8,
        /// TCP flags.
        pub tcp_flags: u8,
        /// IP protocol after extension headers.
        pub protocol: u8,
        /// Zero.
        pub pad: [u8; 7],
    }
}

/// IPv4.
pub const PACKET_V4: u16 = 1;
/// IPv6.
pub const PACKET_V6: u16 = 1 << 1;
/// First of several fragments.
pub const PACKET_FRAGMENT_FIRST: u16 = 1 << 2;
/// A later fragment: it has no transport header.
pub const PACKET_FRAGMENT_LATER: u16 = 1 << 3;
/// IPv4 options or IPv6 hop-by-hop options: the kernel forwards it, not a redirect.
pub const PACKET_OPTIONS: u16 = 1 << 4;
/// Neighbour discovery or multicast listener discovery.
pub const PACKET_NEIGHBOUR: u16 = 1 << 5;
/// An ICMP error; `inner` is set.
pub const PACKET_ICMP_ERROR: u16 = 1 << 6;
/// An ICMP request that may open a flow.
pub const PACKET_ICMP_REQUEST: u16 = 1 << 7;
/// Not IP: ARP.
pub const PACKET_ARP: u16 = 1 << 8;
/// Not IP, not ARP.
pub const PACKET_OTHER: u16 = 1 << 9;
/// A VLAN tag was seen, in the data or beside it.
pub const PACKET_VLAN: u16 = 1 << 10;
/// A router advertisement or ICMPv6 redirect.
pub const PACKET_ROUTER: u16 = 1 << 11;
/// An ARP request or a neighbour solicitation: it asks for the link address of `inner.target`.
pub const PACKET_ASKS: u16 = 1 << 12;

/// TCP FIN.
pub const TCP_FIN: u8 = 1;
/// TCP SYN.
pub const TCP_SYN: u8 = 1 << 1;
/// TCP RST.
pub const TCP_RST: u8 = 1 << 2;
/// TCP ACK.
pub const TCP_ACK: u8 = 1 << 4;

/// IP protocol numbers that the stages know.
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

impl Packet {
    /// Whether all of `bits` are set.
    #[inline(always)]
    pub const fn has(&self, bits: u16) -> bool {
        self.flags & bits == bits
    }

    /// Whether any of `bits` is set.
    #[inline(always)]
    pub const fn has_any(&self, bits: u16) -> bool {
        self.flags & bits != 0
    }

    /// What identifies this packet's fragments.
    #[inline(always)]
    pub const fn fragment_key(&self) -> FragmentKey {
        let protocol = if self.has(PACKET_V4) { self.protocol as u16 } else { 0 };
        let (source, target, zone) = (self.source, self.target, self.zone);
        FragmentKey { source, target, id: self.fragment_id, protocol, zone }
    }

    /// What later fragments of this packet need to know.
    #[inline(always)]
    pub const fn fragment_ports(&self, until_tick: u64) -> FragmentPorts {
        FragmentPorts {
            until_tick,
            source_port: self.source_port,
            target_port: self.target_port,
            kind: self.kind,
            icmp_type: self.icmp_type,
            icmp_code: self.icmp_code,
            tcp_flags: self.tcp_flags,
            protocol: self.protocol,
            pad: [0; 7],
        }
    }

    /// Fills in what a later fragment lacks.
    #[inline(always)]
    pub const fn take_ports(&mut self, first: &FragmentPorts) {
        self.source_port = first.source_port;
        self.target_port = first.target_port;
        self.kind = first.kind;
        self.icmp_type = first.icmp_type;
        self.icmp_code = first.icmp_code;
        self.tcp_flags = first.tcp_flags;
        self.protocol = first.protocol;
    }
}
