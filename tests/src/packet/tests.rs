//! The builder against another library's parser.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};

use super::flags::{ACK, SYN};
use super::*;
use crate::checksum;

fn both(build: impl Fn(IpAddr, IpAddr) -> Datagram) -> Vec<Datagram> {
    vec![build(ip("10.0.0.1"), ip("192.0.2.7")), build(ip("2001:db8::1"), ip("2001:db8:1::7"))]
}

#[test]
fn tcp_and_udp_read_back_with_right_checksums() {
    for tcp in both(|a, b| Datagram::tcp((a, 4000), (b, 80), SYN).with_payload(b"hello")) {
        let frame = tcp.frame();
        let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(TransportSlice::Tcp(header)) = sliced.transport else { panic!("not tcp") };
        assert_eq!((header.source_port(), header.destination_port()), (4000, 80));
        assert!(header.syn() && !header.ack());
        assert_eq!(header.payload(), b"hello");
        let l4 = &tcp.bytes()[if tcp.source.is_ipv4() { 20 } else { 40 }..];
        assert_eq!(checksum::transport(tcp.source, tcp.target, 6, l4), 0);
    }
    for udp in both(|a, b| Datagram::udp((a, 5353), (b, 53))) {
        let frame = udp.frame();
        let Some(TransportSlice::Udp(header)) = SlicedPacket::from_ethernet(&frame).unwrap().transport else {
            panic!("not udp")
        };
        assert_eq!(header.length(), 11);
        let l4 = &udp.bytes()[if udp.source.is_ipv4() { 20 } else { 40 }..];
        assert_eq!(checksum::transport(udp.source, udp.target, 17, l4), 0);
    }
}

#[test]
fn icmp_of_both_families_reads_back() {
    let frame = Datagram::ping(ip("10.0.0.1"), ip("10.0.0.2"), 77).frame();
    let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
    assert!(matches!(sliced.transport, Some(TransportSlice::Icmpv4(ref icmp)) if icmp.type_u8() == 8));
    let ping = Datagram::ping(ip("2001:db8::1"), ip("2001:db8::2"), 77);
    let frame = ping.frame();
    let Some(TransportSlice::Icmpv6(icmp)) = SlicedPacket::from_ethernet(&frame).unwrap().transport else {
        panic!("not icmpv6")
    };
    assert_eq!(icmp.type_u8(), 128);
    assert!(icmp.is_checksum_valid(source_octets(&ping), target_octets(&ping)));
}

fn source_octets(packet: &Datagram) -> [u8; 16] {
    let IpAddr::V6(address) = packet.source else { panic!("not IPv6") };
    address.octets()
}

fn target_octets(packet: &Datagram) -> [u8; 16] {
    let IpAddr::V6(address) = packet.target else { panic!("not IPv6") };
    address.octets()
}

#[test]
fn options_tags_and_extensions_are_where_they_belong() {
    let tagged = Datagram::udp(("10.0.0.1", 1), ("10.0.0.2", 2))
        .with_options(&[148, 4, 0, 0])
        .with_tag(0x8100, 100)
        .with_tag(0x88a8, 200)
        .frame();
    let sliced = SlicedPacket::from_ethernet(&tagged).unwrap();
    assert_eq!(sliced.vlan_ids().len(), 2);
    let Some(NetSlice::Ipv4(v4)) = sliced.net else { panic!("not IPv4") };
    assert_eq!(v4.header().options(), &[148, 4, 0, 0]);
    assert_eq!(checksum::internet(v4.header().slice()), 0);

    let chain = Datagram::udp(("2001:db8::1", 1), ("2001:db8::2", 2))
        .with_extension(Extension::router_alert())
        .with_extension(Extension::routing(4))
        .with_extension(Extension::padding(60, 2))
        .with_extension(Extension::authentication())
        .frame();
    let sliced = SlicedPacket::from_ethernet(&chain).unwrap();
    let Some(TransportSlice::Udp(udp)) = sliced.transport else { panic!("chain was not walked") };
    assert_eq!((udp.source_port(), udp.destination_port()), (1, 2));
}

#[test]
fn fragments_put_together_are_the_packet() {
    for whole in both(|a, b| Datagram::udp((a, 1), (b, 2)).with_payload(&[9; 100])) {
        let v4 = whole.source.is_ipv4();
        let header = if v4 { 20 } else { 48 };
        let pieces = whole.fragments(48);
        assert_eq!(pieces.len(), 3);
        let mut carried: Vec<u8> = Vec::new();
        for (number, piece) in pieces.iter().enumerate() {
            let bytes = piece.bytes();
            let word = if v4 {
                u16::from_be_bytes([bytes[6], bytes[7]]) << 3
            } else {
                u16::from_be_bytes([bytes[42], bytes[43]]) & 0xfff8
            };
            assert_eq!(usize::from(word), number * 48);
            carried.extend(&bytes[header..]);
        }
        assert_eq!(carried, whole.bytes()[if v4 { 20 } else { 40 }..]);
    }
}

#[test]
fn errors_quote_the_packet_they_speak_of() {
    for packet in both(|a, b| Datagram::tcp((a, 4000), (b, 80), ACK)) {
        let router = if packet.source.is_ipv4() { ip("198.51.100.1") } else { ip("2001:db8:ffff::1") };
        let kind = if packet.source.is_ipv4() { 3 } else { 1 };
        let error = Datagram::error_about(router, &packet, kind, 1);
        assert_eq!(error.target, packet.source);
        let bytes = error.bytes();
        let header = if packet.source.is_ipv4() { 28 } else { 48 };
        let quoted = bytes.len() - header;
        assert_eq!(bytes[header..], packet.bytes()[..quoted]);
        assert!(quoted >= header, "header and eight bytes");
    }
}

#[test]
fn an_answer_swaps_the_ends() {
    let syn = Datagram::tcp(("10.0.0.1", 4000), ("10.0.0.2", 80), SYN);
    let answer = syn.answer(SYN | ACK);
    assert_eq!((answer.source, answer.target), (syn.target, syn.source));
    assert!(matches!(answer.transport, Transport::Tcp { source: 80, target: 4000, flags: 18, .. }));
    let pong = Datagram::ping(ip("10.0.0.1"), ip("10.0.0.2"), 5).answer(0);
    assert!(matches!(pong.transport, Transport::Icmp { kind: 0, rest: [0, 5, 0, 1], .. }));
}
