//! Packets that are odd but right, and frames that are wrong.

use super::Random;
use crate::packet::{Datagram, Extension, Fragment};

/// Adds something to a packet that few packets have.
pub(super) fn oddity(random: &mut Random, datagram: Datagram) -> Datagram {
    match random.below(10) {
        0 => datagram.with_tag(0x8100, random.word()),
        1 => datagram.with_tag(0x8100, 5).with_tag(0x88a8, 6),
        _ if datagram.source.is_ipv4() => options(random, datagram),
        _ => extensions(random, datagram),
    }
}

fn options(random: &mut Random, mut datagram: Datagram) -> Datagram {
    match random.below(8) {
        0 => datagram.with_options(&[148, 4, 0, 0]),
        1 => datagram.with_options(&[1, 1, 1, 0]),
        2 => datagram.with_options(&[7, 39, 4]),
        3 => datagram.with_options(&[131, 3, 4]),
        4 => datagram.with_options(&[1, 137, 3, 4]),
        5 => datagram.with_options(&[68, random.byte(), 5, 0]),
        6 => {
            datagram.fragment = Fragment { position: 1, more: random.chance(50) };
            datagram
        }
        _ => {
            let mut bytes = vec![0; random.below(41)];
            bytes.fill_with(|| random.byte());
            datagram.with_options(&bytes)
        }
    }
}

fn extensions(random: &mut Random, mut datagram: Datagram) -> Datagram {
    let count = random.one_of(&[(50, 1), (30, 2), (10, 5), (5, 6), (5, 8)]);
    for number in 0..count {
        let extension = match random.below(if number == 0 { 8 } else { 6 }) {
            0 => Extension::routing(random.one_of(&[(3, 0), (5, 2), (5, 4)])),
            1 => Extension::authentication(),
            2 => {
                let fragment =
                    Fragment { position: random.one_of(&[(8, 0), (1, 3)]), more: random.chance(20) };
                Extension::fragment(random.byte().into(), fragment)
            }
            3..6 => Extension::padding(
                random.one_of(&[(20, 60), (2, 135), (1, 139), (1, 140), (1, 0)]),
                random.one_of(&[(9, 1), (5, 3), (1, 250)]),
            ),
            _ if random.chance(50) => Extension::router_alert(),
            _ => Extension::padding(0, 1),
        };
        datagram.extensions.push(extension);
    }
    datagram
}

/// Breaks a frame: cuts it, or changes its bytes.
pub(super) fn damage(random: &mut Random, mut frame: Vec<u8>) -> Vec<u8> {
    let last = frame.len() - 1;
    match random.below(10) {
        // The kernel takes no frame shorter than an Ethernet header.
        0..3 => frame.truncate(14 + random.below(last.max(15) - 14)),
        3..6 => {
            for _ in 0..=random.below(3) {
                // Most header fields lie here.
                let at = 12 + random.below(last.min(66) - 11);
                frame[at] = random.byte();
            }
        }
        6 => {
            let at = 14 + random.below(last.min(40) - 13);
            frame[at] ^= 1 << random.below(8);
        }
        7 => {
            let ethertype: [u8; 2] =
                random.pick(&[[0x08, 0x06], [0x88, 0xcc], [0x00, 0x2e], [0x81, 0x00], [0x91, 0x00]]).unwrap();
            frame[12..14].copy_from_slice(&ethertype);
        }
        8 => frame[14] = random.byte(),
        // Ethernet pads short frames.
        _ => frame.extend(vec![0; random.below(46)]),
    }
    frame
}
