//! What a reject says: a TCP reset, or ICMP "administratively prohibited".
//!
//! A reply is built whole in a fixed buffer with an Ethernet header in front; ports without one send it
//! from [`ETHERNET_BYTES`] on.

#![expect(
    clippy::indexing_slicing,
    reason = "bounds are constants; a panic that can be reached does not load"
)]

use crate::checksum::{add_bytes, finish, fold};
use crate::packet::{PACKET_V4, Packet, TCP_ACK, TCP_FIN, TCP_SYN, protocol};
use crate::parse::ETHERNET_BYTES;

/// Longest reply: Ethernet, IPv6, ICMPv6 and 48 quoted bytes.
pub const REPLY_BYTES: usize = 112;
/// Bytes of the refused packet that an IPv4 reply quotes: header and eight bytes (RFC 792).
pub const QUOTE_V4_BYTES: usize = 28;
/// Bytes of the refused packet that an IPv6 reply quotes: header and eight bytes.
pub const QUOTE_V6_BYTES: usize = 48;
/// Frame length of a reset over IPv4.
pub const RESET_V4_BYTES: usize = ETHERNET_BYTES + 20 + 20;
/// Frame length of a reset over IPv6.
pub const RESET_V6_BYTES: usize = ETHERNET_BYTES + 40 + 20;
/// Frame length of an ICMP error over IPv4.
pub const ERROR_V4_BYTES: usize = ETHERNET_BYTES + 20 + 8 + QUOTE_V4_BYTES;
/// Frame length of an ICMP error over IPv6.
pub const ERROR_V6_BYTES: usize = ETHERNET_BYTES + 40 + 8 + QUOTE_V6_BYTES;

/// Mark of a reply on its way back into the host by the interface that the refused packet was to leave by: it tells the
/// reply from what the other end sends, and goes before anybody else sees it.
pub const ANSWER_MARK: u32 = 0x4875_6241;

/// Time to live of replies.
const TTL: u8 = 64;

/// Writes the reset that answers a TCP packet (RFC 9293 section 3.10.7.1).
///
/// `header` is the first 20 bytes of its TCP header. `partial` says that the packet's checksum is left
/// for hardware to complete, which then happens to the reply too: its field holds the pseudo header's sum.
#[inline(always)]
pub fn reset(
    packet: &Packet,
    ethernet: &[u8; ETHERNET_BYTES + 2],
    header: &[u8; 20],
    partial: bool,
    out: &mut [u8; REPLY_BYTES],
) {
    let v4 = packet.has(PACKET_V4);
    envelope(packet, ethernet, protocol::TCP, 20, out);
    let mut tcp = [0; 20];
    tcp[0] = header[2];
    tcp[1] = header[3];
    tcp[2] = header[0];
    tcp[3] = header[1];
    if packet.tcp_flags & TCP_ACK != 0 {
        tcp[4] = header[8];
        tcp[5] = header[9];
        tcp[6] = header[10];
        tcp[7] = header[11];
        tcp[13] = 4;
    } else {
        let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        let headers = packet.l4_offset.wrapping_sub(packet.l3_offset).wrapping_add(packet.l4_bytes) as u32;
        let control = (packet.tcp_flags & TCP_SYN != 0) as u32 + (packet.tcp_flags & TCP_FIN != 0) as u32;
        let answer = sequence.wrapping_add(packet.length_bytes).wrapping_sub(headers).wrapping_add(control);
        let answer = answer.to_be_bytes();
        tcp[8] = answer[0];
        tcp[9] = answer[1];
        tcp[10] = answer[2];
        tcp[11] = answer[3];
        tcp[13] = 4 | TCP_ACK;
    }
    tcp[12] = 5 << 4;
    let pseudo = pseudo_header(packet, protocol::TCP, 20);
    let checksum = if partial { fold(pseudo) } else { finish(add_bytes(pseudo, &tcp)) };
    let checksum = checksum.to_be_bytes();
    tcp[16] = checksum[0];
    tcp[17] = checksum[1];
    if v4 {
        out[34..54].copy_from_slice(&tcp);
    } else {
        out[54..74].copy_from_slice(&tcp);
    }
}

/// Where the quoted packet goes in a reply over IPv4.
pub const QUOTE_V4_OFFSET: usize = ETHERNET_BYTES + 20 + 8;
/// Where the quoted packet goes in a reply over IPv6.
pub const QUOTE_V6_OFFSET: usize = ETHERNET_BYTES + 40 + 8;

/// Writes the ICMP error "communication administratively prohibited" (RFC 1812 section 5.2.7.1, RFC 4443
/// section 3.1) around the start of the refused packet, which is in `out` already, from its IP header on.
#[inline(always)]
pub fn error(packet: &Packet, ethernet: &[u8; ETHERNET_BYTES + 2], out: &mut [u8; REPLY_BYTES]) {
    let v4 = packet.has(PACKET_V4);
    let (at, kind, code, sum) = if v4 {
        envelope(packet, ethernet, protocol::ICMP, 8 + QUOTE_V4_BYTES as u16, out);
        (34, 3, 13, 0)
    } else {
        envelope(packet, ethernet, protocol::ICMPV6, 8 + QUOTE_V6_BYTES as u16, out);
        let pseudo = pseudo_header(packet, protocol::ICMPV6, 8 + QUOTE_V6_BYTES as u32);
        (54, 1, 1, pseudo)
    };
    out[at] = kind;
    out[at + 1] = code;
    out[at + 2..at + 8].copy_from_slice(&[0; 6]);
    let body = if v4 { &out[34..70] } else { &out[54..110] };
    let checksum = finish(add_bytes(sum, body)).to_be_bytes();
    out[at + 2] = checksum[0];
    out[at + 3] = checksum[1];
}

/// Ethernet and IP headers of a reply, ends swapped.
#[inline(always)]
fn envelope(
    packet: &Packet,
    ethernet: &[u8; ETHERNET_BYTES + 2],
    next: u8,
    payload_bytes: u16,
    out: &mut [u8; REPLY_BYTES],
) {
    let mut at = 0;
    while at < 6 {
        out[at] = ethernet[at + 6];
        out[at + 6] = ethernet[at];
        at += 1;
    }
    if packet.has(PACKET_V4) {
        out[12] = 0x08;
        out[13] = 0x00;
        let total = (payload_bytes + 20).to_be_bytes();
        let (s, t) = (&packet.source, &packet.target);
        let mut ip = [
            0x45, 0, total[0], total[1], 0, 0, 0x40, 0, TTL, next, 0, 0, t[12], t[13], t[14], t[15], s[12],
            s[13], s[14], s[15],
        ];
        let checksum = finish(add_bytes(0, &ip)).to_be_bytes();
        ip[10] = checksum[0];
        ip[11] = checksum[1];
        out[14..34].copy_from_slice(&ip);
    } else {
        out[12] = 0x86;
        out[13] = 0xdd;
        let payload = payload_bytes.to_be_bytes();
        out[14..22].copy_from_slice(&[0x60, 0, 0, 0, payload[0], payload[1], next, TTL]);
        out[22..38].copy_from_slice(&packet.target);
        out[38..54].copy_from_slice(&packet.source);
    }
}

/// Sum of the pseudo header (the same for both directions).
///
/// The mapped prefix of an IPv4 address adds 0xffff, which is zero in this arithmetic.
#[inline(always)]
pub fn pseudo_header(packet: &Packet, next: u8, length_bytes: u32) -> u32 {
    let sum = add_bytes(next as u32 + length_bytes, &packet.source);
    add_bytes(sum, &packet.target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::mapped;
    use crate::packet::PACKET_V6;

    fn syn(v4: bool) -> (Packet, [u8; 20]) {
        let mut header = [0; 20];
        header[..8].copy_from_slice(&[0x9c, 0x40, 0, 80, 0, 0, 0, 41]);
        let packet = Packet {
            source: if v4 { mapped([192, 0, 2, 1]) } else { [0x20; 16] },
            target: if v4 { mapped([10, 0, 0, 1]) } else { [0x30; 16] },
            flags: if v4 { PACKET_V4 } else { PACKET_V6 },
            tcp_flags: TCP_SYN,
            l3_offset: 14,
            l4_offset: if v4 { 34 } else { 54 },
            l4_bytes: 20,
            length_bytes: if v4 { 40 } else { 60 },
            ..Packet::ZERO
        };
        (packet, header)
    }

    #[test]
    fn a_reset_answers_the_syn() {
        for v4 in [true, false] {
            let (packet, header) = syn(v4);
            let mut out = [0; REPLY_BYTES];
            reset(&packet, &[7; 16], &header, false, &mut out);
            let tcp = if v4 { &out[34..54] } else { &out[54..74] };
            assert_eq!(&tcp[..4], &[0, 80, 0x9c, 0x40]);
            assert_eq!(&tcp[8..12], &[0, 0, 0, 42]);
            assert_eq!(tcp[13], 0x14);
            assert_eq!(fold(add_bytes(pseudo_header(&packet, 6, 20), tcp)), 0xffff);
            if v4 {
                assert_eq!(fold(add_bytes(0, &out[14..34])), 0xffff);
            }
        }
    }

    #[test]
    fn an_error_quotes_the_packet() {
        for v4 in [true, false] {
            let (packet, _) = syn(v4);
            let mut out = [0; REPLY_BYTES];
            out[QUOTE_V4_OFFSET..].fill(9);
            error(&packet, &[7; 16], &mut out);
            if v4 {
                assert_eq!(&out[34..36], &[3, 13]);
                assert_eq!(fold(add_bytes(0, &out[34..70])), 0xffff);
            } else {
                assert_eq!(&out[54..56], &[1, 1]);
                assert_eq!(fold(add_bytes(pseudo_header(&packet, 58, 56), &out[54..110])), 0xffff);
            }
        }
    }
}
