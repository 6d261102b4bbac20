//! Descriptions to bytes.

use std::net::IpAddr;

use super::{Datagram, Extension, Fragment, SOURCE_MAC, TARGET_MAC, Transport};
use crate::checksum;

impl Datagram {
    /// The packet from its IP header on.
    pub fn bytes(&self) -> Vec<u8> {
        let carried = self.transport.bytes(self.source, self.target);
        match (self.source, self.target) {
            (IpAddr::V4(source), IpAddr::V4(target)) => self.v4(source.octets(), target.octets(), &carried),
            (IpAddr::V6(source), IpAddr::V6(target)) => self.v6(source.octets(), target.octets(), &carried),
            _ => unreachable!("checked when the packet was described"),
        }
    }

    /// The packet in an Ethernet frame, with its VLAN tags.
    pub fn frame(&self) -> Vec<u8> {
        let mut out = TARGET_MAC.to_vec();
        out.extend(SOURCE_MAC);
        for tag in &self.tags {
            out.extend(tag.ethertype.to_be_bytes());
            out.extend(tag.id.to_be_bytes());
        }
        out.extend(if self.source.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] });
        out.extend(self.bytes());
        out
    }

    /// The packet in a frame of the opposite direction.
    pub fn frame_back(&self) -> Vec<u8> {
        self.frame_between(TARGET_MAC, SOURCE_MAC)
    }

    /// The packet in a frame between these two.
    pub fn frame_between(&self, source: [u8; 6], target: [u8; 6]) -> Vec<u8> {
        let mut frame = self.frame();
        frame[..6].copy_from_slice(&target);
        frame[6..12].copy_from_slice(&source);
        frame
    }

    /// The packet cut into fragments that each carry at most `piece_bytes`, a multiple of eight.
    pub fn fragments(&self, piece_bytes: usize) -> Vec<Self> {
        assert_eq!(piece_bytes % 8, 0, "fragments begin at multiples of eight bytes");
        let v4 = self.source.is_ipv4();
        let protocol = self.transport.protocol(v4);
        let carried = self.transport.bytes(self.source, self.target);
        let pieces = carried.chunks(piece_bytes).collect::<Vec<_>>();
        let mut out = Vec::new();
        for (number, piece) in pieces.iter().enumerate() {
            let position = (number * piece_bytes / 8) as u16;
            let fragment = Fragment { position, more: number + 1 < pieces.len() };
            let mut one = self.clone();
            one.transport = Transport::Raw { protocol, payload: piece.to_vec() };
            if v4 {
                one.fragment = fragment;
            } else {
                one.extensions.push(Extension::fragment(self.id, fragment));
            }
            out.push(one);
        }
        out
    }

    fn v4(&self, source: [u8; 4], target: [u8; 4], carried: &[u8]) -> Vec<u8> {
        let header_bytes = 20 + self.options.len().next_multiple_of(4);
        let total = (header_bytes + carried.len()) as u16;
        let flags = u16::from(self.dont_fragment) << 14 | u16::from(self.fragment.more) << 13;
        let fragment = self.fragment.position | flags;
        let mut out = vec![0x40 | (header_bytes / 4) as u8, 0];
        out.extend(total.to_be_bytes());
        out.extend((self.id as u16).to_be_bytes());
        out.extend(fragment.to_be_bytes());
        out.extend([self.ttl, self.transport.protocol(true), 0, 0]);
        out.extend(source);
        out.extend(target);
        out.extend(&self.options);
        out.resize(header_bytes, 0);
        let sum = checksum::internet(&out);
        out[10..12].copy_from_slice(&sum.to_be_bytes());
        out.extend(carried);
        out
    }

    fn v6(&self, source: [u8; 16], target: [u8; 16], carried: &[u8]) -> Vec<u8> {
        let mut payload = Vec::new();
        for (number, extension) in self.extensions.iter().enumerate() {
            let start = payload.len();
            payload.extend(&extension.bytes);
            payload[start] = self.kind_after(number + 1);
        }
        payload.extend(carried);
        let mut out = vec![0x60, 0, 0, 0];
        out.extend((payload.len() as u16).to_be_bytes());
        out.extend([self.kind_after(0), self.ttl]);
        out.extend(source);
        out.extend(target);
        out.extend(payload);
        out
    }

    /// Protocol number of the extension header at `number`, or of the transport after the last.
    fn kind_after(&self, number: usize) -> u8 {
        self.extensions.get(number).map_or_else(|| self.transport.protocol(false), |next| next.kind)
    }
}
