//! Frames that the hub drops, each for another reason, as they come in from the peer.

use hub_common::{
    bench::FRAME_BYTES,
    checksum::{add_bytes, finish},
};

use super::{
    lab::{FIRST_MEMBER, LAN_MAC, MEMBERS_MAC, PEER, PEER_MAC, WAN_MAC, member_address},
    place::Way,
};

const TCP: u8 = 6;
const UDP: u8 = 17;
/// Generic routing encapsulation: no persona of the bench permits it.
const GRE: u8 = 47;
const SYN: u8 = 2;
const ACK: u8 = 16;

/// A frame of zeros with the MACs of one that goes this way, and IPv4.
pub(super) fn addressed(mut frame: [u8; FRAME_BYTES], way: Way) -> [u8; FRAME_BYTES] {
    let (target, source) = match way {
        Way::ToMembers => (WAN_MAC, PEER_MAC),
        Way::FromMembers => (LAN_MAC, MEMBERS_MAC),
    };
    put(&mut frame, 0, &target);
    put(&mut frame, 6, &source);
    put(&mut frame, 12, &[0x08, 0x00]);
    frame
}

/// Name and frame of each reason, cheapest first.
pub(super) fn dropped() -> Vec<(&'static str, Vec<u8>)> {
    let (peer, member) = (PEER.octets(), member_address(FIRST_MEMBER).octets());
    let neighbour = member_address(FIRST_MEMBER + 1).octets();
    let mut malformed = packet(UDP, peer, member, 443, 0);
    put(&mut malformed, 14, &[0x41]);
    vec![
        ("drop: malformed header", malformed),
        ("drop: TCP without flags", packet(TCP, peer, member, 2_001, 0)),
        ("drop: forged source", packet(UDP, neighbour, member, 443, 0)),
        ("drop: TCP outside a connection", packet(TCP, peer, member, 2_001, ACK)),
        ("drop: protocol not permitted", packet(GRE, peer, member, 0, 0)),
        ("drop: no rule of 10 allows it", denied()),
    ]
}

/// A first packet that no rule of the bench allows.
pub(super) fn denied() -> Vec<u8> {
    packet(TCP, PEER.octets(), member_address(FIRST_MEMBER).octets(), 1_999, SYN)
}

fn packet(protocol: u8, source: [u8; 4], target: [u8; 4], port: u16, tcp_flags: u8) -> Vec<u8> {
    let mut frame = addressed([0; FRAME_BYTES], Way::ToMembers).to_vec();
    let mut header = [0; 20];
    put(&mut header, 0, &[0x45, 0, 0, 50, 0, 0, 0x40, 0, 64, protocol, 0, 0]);
    put(&mut header, 12, &source);
    put(&mut header, 16, &target);
    let sum = finish(add_bytes(0, &header)).to_be_bytes();
    put(&mut header, 10, &sum);
    put(&mut frame, 14, &header);
    put(&mut frame, 34, &50_000_u16.to_be_bytes());
    put(&mut frame, 36, &port.to_be_bytes());
    if protocol == UDP {
        put(&mut frame, 38, &30_u16.to_be_bytes());
    } else {
        // Data offset: five words.
        put(&mut frame, 46, &[0x50, tcp_flags]);
    }
    frame
}

fn put(frame: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(field) = frame.get_mut(at..at + bytes.len()) {
        field.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_right_checksums_and_lengths() {
        for (name, frame) in dropped().iter().skip(1) {
            assert_eq!(frame.len(), FRAME_BYTES, "{name}");
            assert_eq!(hub_common::checksum::fold(add_bytes(0, &frame[14..34])), 0xffff, "{name}");
        }
    }
}
