//! Bytes to [`Packet`]: the one parser for XDP, TC and the host.
//!
//! Three steps, [`ethernet`] or [`network`], [`extension`], [`transport()`], each called where the one
//! before asks for it; [`whole`] calls them all.
//!
//! VERIFIER(6.18): the kernel walks every way through a function. In one function the ways of the three
//! steps multiply (500,000 instructions), apart they add up.
//!
//! Everything is read by value through [`Bytes`], so that the kernel's bounds checks are in one place.
//! A packet that is not understood is an error with its [`Reason`]; the caller decides what that means
//! on its port.

use crate::address::{is_martian_v4, is_martian_v6, mapped};
use crate::event::Reason;
use crate::limits::{EXTENSION_HEADERS, VLAN_TAGS};
use crate::packet::{
    PACKET_ARP, PACKET_ASKS, PACKET_FRAGMENT_FIRST, PACKET_FRAGMENT_LATER, PACKET_OPTIONS, PACKET_OTHER,
    PACKET_V4, PACKET_V6, PACKET_VLAN, Packet, protocol,
};

mod transport;

pub use transport::transport;

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
/// No extension header begins further into a frame than this.
const OFFSET_MAX: usize = 2_048;
/// Bounds offsets that were read from memory; above any that the parser stores.
const OFFSET_MASK: usize = 0x1fff;

/// Parses a frame from the Ethernet header, or from the network header where there is none, to the end of
/// its transport header.
pub fn whole(bytes: &impl Bytes, bare_ethertype: Option<u16>, packet: &mut Packet) -> Result<(), Reason> {
    match bare_ethertype {
        Some(ethertype) => network(bytes, ethertype, 0, packet)?,
        None => ethernet(bytes, packet)?,
    }
    if packet.has(PACKET_V4 | PACKET_OPTIONS) {
        let mut at = 0;
        while at < v4_options_bytes(packet) {
            at = v4_option(bytes, at, packet)?;
        }
    }
    let mut step = 0;
    while has_extensions(packet) {
        extension(bytes, step, packet)?;
        step += 1;
    }
    if packet.has_any(PACKET_V4 | PACKET_V6) { transport(bytes, packet) } else { Ok(()) }
}

/// Parses link and network headers of a frame that begins with an Ethernet header.
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

/// Parses the network header at `offset`.
#[inline(always)]
pub fn network(bytes: &impl Bytes, ethertype: u16, offset: usize, packet: &mut Packet) -> Result<(), Reason> {
    packet.ethertype = ethertype;
    packet.l3_offset = offset as u16;
    match ethertype {
        ETHERTYPE_V4 => v4(bytes, offset, packet),
        ETHERTYPE_V6 => v6(bytes, offset, packet),
        ETHERTYPE_ARP => {
            packet.flags |= PACKET_ARP;
            arp(bytes, offset, packet)
        }
        _ => {
            packet.flags |= PACKET_OTHER;
            Ok(())
        }
    }
}

/// Parses ARP for IPv4 over Ethernet (RFC 826); the kernel drops any other, whose addresses mean nothing here.
#[inline(always)]
fn arp(bytes: &impl Bytes, offset: usize, packet: &mut Packet) -> Result<(), Reason> {
    const REQUEST: [u8; 2] = [0, 1];
    let message = bytes.read::<28>(offset).ok_or(Reason::Truncated)?;
    packet.source = mapped([message[14], message[15], message[16], message[17]]);
    packet.target = mapped([message[24], message[25], message[26], message[27]]);
    if [message[6], message[7]] == REQUEST {
        packet.flags |= PACKET_ASKS;
        packet.inner.target = packet.target;
    }
    Ok(())
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
    packet.l4_offset = (offset + header_bytes) as u16;
    Ok(())
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

/// Bytes of options in an IPv4 header.
#[inline(always)]
pub const fn v4_options_bytes(packet: &Packet) -> u32 {
    packet.l4_offset.wrapping_sub(packet.l3_offset).wrapping_sub(20) as u32
}

/// Looks at the IPv4 option that begins `at` bytes into the options and returns where the next begins.
///
/// Refuses source routes and broken options; other options are the kernel's to process.
///
/// VERIFIER(6.18): one option a call, as with [`extension`].
#[inline(always)]
pub fn v4_option(bytes: &impl Bytes, at: u32, packet: &Packet) -> Result<u32, Reason> {
    // Offsets read from memory are unbounded until they are masked. Two bytes are read for one, because a
    // bound of one byte becomes `pointer >= end`, from which the verifier learns nothing.
    let offset = (packet.l3_offset as usize & 0xff) + 19 + (at as usize & 0x3f);
    let Some([_, kind]) = bytes.read::<2>(offset) else { return Err(Reason::Truncated) };
    let next = match kind {
        0 => v4_options_bytes(packet),
        1 => at + 1,
        131 | 137 => return Err(Reason::SourceRoute),
        _ if at + 1 == v4_options_bytes(packet) => return Err(Reason::BadHeader),
        _ => {
            let Some([_, _, size]) = bytes.read::<3>(offset) else { return Err(Reason::Truncated) };
            if size < 2 {
                return Err(Reason::BadHeader);
            }
            at + size as u32
        }
    };
    if next > v4_options_bytes(packet) { Err(Reason::BadHeader) } else { Ok(next) }
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
    packet.l4_offset = (offset + 40) as u16;
    Ok(())
}

/// Bytes of an IPv6 header.
pub const V6_BYTES: usize = 40;
/// Number of the IPv6 extension header of fragments (RFC 8200 section 4.5).
pub const FRAGMENT: u8 = 44;
/// Its bytes.
pub const FRAGMENT_BYTES: usize = 8;

/// Whether an IPv6 header is followed by an extension header.
#[inline(always)]
pub const fn has_extensions(packet: &Packet) -> bool {
    packet.has(PACKET_V6) && !packet.has(PACKET_FRAGMENT_LATER) && is_extension(packet.protocol)
}

#[inline(always)]
const fn is_extension(next: u8) -> bool {
    matches!(next, 0 | 43 | FRAGMENT | 51 | 60 | 135 | 139 | 140)
}

/// Walks one IPv6 extension header, the `step`th from 0: moves the transport offset behind it and sets the
/// protocol. Called until [`has_extensions`] says no.
///
/// VERIFIER(6.18): one header a call, because ranges of the offset differ after each kind of header and
/// every combination would be walked.
#[inline(always)]
pub fn extension(bytes: &impl Bytes, step: u32, packet: &mut Packet) -> Result<(), Reason> {
    let at = packet.l4_offset as usize & OFFSET_MASK;
    let kind = packet.protocol;
    if step >= EXTENSION_HEADERS || at > OFFSET_MAX || (kind == 0 && step > 0) {
        return Err(Reason::ExtensionHeaders);
    }
    let Some(header) = bytes.read::<8>(at) else { return Err(Reason::Truncated) };
    if kind == 0 {
        packet.flags |= PACKET_OPTIONS;
    }
    let length = match kind {
        FRAGMENT => FRAGMENT_BYTES,
        51 => (header[1] as usize + 2) * 4,
        _ => (header[1] as usize + 1) * 8,
    };
    // Bytes behind the packet's end are padding of the frame, never headers.
    if at + length > packet.l3_offset as usize + packet.length_bytes as usize {
        return Err(Reason::Truncated);
    }
    if kind == 43 && header[2] == 0 {
        return Err(Reason::SourceRoute);
    }
    packet.protocol = header[0];
    packet.l4_offset = (at + length) as u16;
    if kind == FRAGMENT {
        let position = u16::from_be_bytes([header[2], header[3]]);
        if position & 0xfff9 != 0 {
            packet.fragment_id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            packet.flags |= if position >> 3 == 0 { PACKET_FRAGMENT_FIRST } else { PACKET_FRAGMENT_LATER };
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(frame: &[u8]) -> Result<Packet, Reason> {
        let mut packet = Packet::ZERO;
        whole(&frame, None, &mut packet)?;
        Ok(packet)
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

    /// An IPv6 packet with this next header and payload, in a frame with padding behind it.
    fn v6_padded(next: u8, payload: &[u8], padding: usize) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, payload.len() as u8, next, 64]);
        frame.extend(GLOBAL);
        frame.extend(GLOBAL);
        frame.extend(payload);
        frame.resize(frame.len() + padding, 0);
        frame
    }

    const GLOBAL: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

    #[test]
    fn padding_of_a_frame_is_no_part_of_a_packet() {
        let route = [59, 2, 0, 1, 0, 0, 0, 0].into_iter().chain([0; 16]).collect::<Vec<_>>();
        assert_eq!(parse(&v6_padded(43, &route, 8)), Err(Reason::SourceRoute));
        for length in 0..route.len() {
            assert_eq!(parse(&v6_padded(43, &route[..length], 40)), Err(Reason::Truncated), "{length} bytes");
        }
    }

    /// An ICMPv6 error that quotes a packet between two addresses.
    fn error_about(source: [u8; 16], target: [u8; 16]) -> Vec<u8> {
        let mut message = vec![1, 1, 0, 0, 0, 0, 0, 0, 0x60, 0, 0, 0, 0, 20, 6, 64];
        message.extend(source);
        message.extend(target);
        message.extend([0, 21, 0, 80, 0, 0, 3, 0xe8]);
        message
    }

    #[test]
    fn quotes_of_packets_that_nobody_lets_pass_are_no_quotes() {
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 2, 3];
        let group = [0xff, 0xe, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
        let whole = error_about(GLOBAL, group);
        assert!(parse(&v6_padded(58, &whole, 0)).is_ok(), "a packet to a group may be answered");
        for (source, target) in [(GLOBAL, mapped), (mapped, GLOBAL), (group, GLOBAL), ([0; 16], GLOBAL)] {
            let whole = error_about(source, target);
            assert_eq!(parse(&v6_padded(58, &whole, 0)), Err(Reason::IcmpError), "{source:?} {target:?}");
            let cut = &whole[..whole.len() - 1];
            assert_eq!(parse(&v6_padded(58, cut, 40)), Err(Reason::Truncated), "of which a byte is missing");
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
            prop_assert!(parse(&frame).is_ok() || parse(&frame).is_err(), "it returned");
        }
    }
}
