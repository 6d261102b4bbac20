//! What an IP header carries.

use std::net::IpAddr;

use super::flags;
use crate::checksum;

/// A transport header with its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp {
        /// Source port.
        source: u16,
        /// Target port.
        target: u16,
        /// Flags byte.
        flags: u8,
        /// Sequence number.
        sequence: u32,
        /// Acknowledgement number.
        acknowledgement: u32,
        /// Window.
        window: u16,
        /// Options; padded to a multiple of four bytes.
        options: Vec<u8>,
        /// What follows the header.
        payload: Vec<u8>,
    },
    /// UDP.
    Udp {
        /// Source port.
        source: u16,
        /// Target port.
        target: u16,
        /// What follows the header.
        payload: Vec<u8>,
    },
    /// ICMP over IPv4, ICMPv6 over IPv6.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// The other four bytes of the header.
        rest: [u8; 4],
        /// What follows the header.
        payload: Vec<u8>,
    },
    /// SCTP.
    Sctp {
        /// Source port.
        source: u16,
        /// Target port.
        target: u16,
        /// Chunks.
        payload: Vec<u8>,
    },
    /// Anything else, as it is.
    Raw {
        /// IP protocol.
        protocol: u8,
        /// The bytes after the IP header.
        payload: Vec<u8>,
    },
}

impl Transport {
    /// A TCP segment without options and payload.
    pub const fn tcp(source: u16, target: u16, flags: u8) -> Self {
        let acknowledgement = if flags & flags::ACK == 0 { 0 } else { 5_001 };
        Self::Tcp {
            source,
            target,
            flags,
            sequence: 1_000,
            acknowledgement,
            window: 0xffff,
            options: Vec::new(),
            payload: Vec::new(),
        }
    }

    /// A UDP datagram with a short payload.
    pub fn udp(source: u16, target: u16) -> Self {
        Self::Udp { source, target, payload: b"hub".to_vec() }
    }

    /// An SCTP packet with an INIT chunk.
    pub fn sctp(source: u16, target: u16) -> Self {
        let payload = vec![1, 0, 0, 20, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1];
        Self::Sctp { source, target, payload }
    }

    /// A GRE header that announces IPv4.
    pub fn gre() -> Self {
        Self::Raw { protocol: 47, payload: vec![0, 0, 0x08, 0, 0x45, 0, 0, 20] }
    }

    /// The IP protocol number.
    pub const fn protocol(&self, v4: bool) -> u8 {
        match self {
            Self::Tcp { .. } => 6,
            Self::Udp { .. } => 17,
            Self::Icmp { .. } => {
                if v4 {
                    1
                } else {
                    58
                }
            }
            Self::Sctp { .. } => 132,
            Self::Raw { protocol, .. } => *protocol,
        }
    }

    /// What the other end would answer; TCP with these flags, a ping with its reply.
    pub(super) fn answer(&self, tcp_flags: u8, v4: bool) -> Self {
        match self {
            Self::Tcp { source, target, .. } => Self::tcp(*target, *source, tcp_flags),
            Self::Udp { source, target, payload } => {
                Self::Udp { source: *target, target: *source, payload: payload.clone() }
            }
            Self::Sctp { source, target, payload } => {
                Self::Sctp { source: *target, target: *source, payload: payload.clone() }
            }
            Self::Icmp { kind, code, rest, payload } => {
                let kind = match (v4, kind) {
                    (true, 8) => 0,
                    (true, 13 | 15 | 17) | (false, 128) => kind + 1,
                    _ => *kind,
                };
                Self::Icmp { kind, code: *code, rest: *rest, payload: payload.clone() }
            }
            Self::Raw { .. } => self.clone(),
        }
    }

    /// What follows the header.
    pub fn payload(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Tcp { payload, .. }
            | Self::Udp { payload, .. }
            | Self::Icmp { payload, .. }
            | Self::Sctp { payload, .. }
            | Self::Raw { payload, .. } => payload,
        }
    }

    /// The header with its checksum, and the payload.
    pub(super) fn bytes(&self, from: IpAddr, to: IpAddr) -> Vec<u8> {
        match self {
            Self::Tcp { source, target, flags, sequence, acknowledgement, window, options, payload } => {
                let options_bytes = options.len().next_multiple_of(4);
                let mut out = ports(*source, *target);
                out.extend(sequence.to_be_bytes());
                out.extend(acknowledgement.to_be_bytes());
                out.extend([((20 + options_bytes) as u8 / 4) << 4, *flags]);
                out.extend(window.to_be_bytes());
                out.extend([0; 4]);
                out.extend(options);
                out.resize(20 + options_bytes, 0);
                out.extend(payload);
                let sum = checksum::transport(from, to, 6, &out);
                put(&mut out, 16, sum);
                out
            }
            Self::Udp { source, target, payload } => {
                let mut out = ports(*source, *target);
                out.extend((8 + payload.len() as u16).to_be_bytes());
                out.extend([0, 0]);
                out.extend(payload);
                let sum = checksum::transport(from, to, 17, &out);
                // RFC 768: zero means that there is no checksum.
                put(&mut out, 6, if sum == 0 { 0xffff } else { sum });
                out
            }
            Self::Icmp { kind, code, rest, payload } => {
                let mut out = vec![*kind, *code, 0, 0];
                out.extend(rest);
                out.extend(payload);
                let sum = if from.is_ipv4() {
                    checksum::internet(&out)
                } else {
                    checksum::transport(from, to, 58, &out)
                };
                put(&mut out, 2, sum);
                out
            }
            Self::Sctp { source, target, payload } => {
                let mut out = ports(*source, *target);
                out.extend([0; 8]);
                out.extend(payload);
                let sum = checksum::crc32c(&out);
                out[8..12].copy_from_slice(&sum);
                out
            }
            Self::Raw { payload, .. } => payload.clone(),
        }
    }
}

fn ports(source: u16, target: u16) -> Vec<u8> {
    let mut out = source.to_be_bytes().to_vec();
    out.extend(target.to_be_bytes());
    out
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}
