//! Translations: which address a packet carries on which side of the hub.
//!
//! Inside the hub every address means one thing: its *main view*. Routes, flows, segments and counters know
//! no other. A persona whose range another one holds already has a virtual range there, and only its own
//! ports know the native one; a persona that is translated towards the outside has another range, or the
//! hub's address, beyond uplinks. So packets are rewritten at the edge: first thing when they come in by
//! such a port, last thing when they leave by it.

use crate::address::{Address, halves};
use crate::checksum;
use crate::flow::FlowKey;

crate::shared! {
    /// A prefix that replaces another of the same length.
    pub struct Prefix {
        /// First address.
        pub address: Address,
        /// Length in bits, from the mapped start (an IPv4 /24 is 120).
        pub bits: u32,
        /// Zero.
        pub pad: u32,
    }

    /// One side of a connection that leaves with the hub's address; the other side's entry names this one.
    pub struct Masquerade {
        /// Address that the member's end has on the other side.
        pub address: Address,
        /// Port, or ICMP identifier, that it has there.
        pub port: u16,
        /// Zero.
        pub pad: [u16; 3],
        /// Key of the entry for the way back.
        pub pair: FlowKey,
    }

    /// What packets leave an uplink with.
    pub struct Uplink {
        /// The hub's IPv4 address there; zeros for none.
        pub v4: Address,
        /// The hub's IPv6 address there; zeros for none.
        pub v6: Address,
        /// First port that masquerading may use.
        pub first_port: u32,
        /// Number of ports.
        pub ports: u32,
    }

    /// The four addresses and ports that a packet should carry.
    pub struct Ends {
        /// Sender.
        pub source: Address,
        /// Receiver.
        pub target: Address,
        /// Sender of the packet that an ICMP error quotes.
        pub inner_source: Address,
        /// Its receiver.
        pub inner_target: Address,
        /// Port of the sender.
        pub source_port: u16,
        /// Port of the receiver.
        pub target_port: u16,
        /// Port of the quoted packet's sender.
        pub inner_source_port: u16,
        /// Port of the quoted packet's receiver.
        pub inner_target_port: u16,
    }
}

/// Key of the table of translations: segment and side, then the address.
pub type TranslationKey = [u8; 24];

/// Bits of a [`TranslationKey`] before the address.
pub const KEY_BITS: u32 = 64;

/// From members: their native addresses to the main view.
pub const INWARD: u32 = 0;
/// To members: the main view to native addresses.
pub const OUTWARD: u32 = 1;
/// To uplinks: the main view to the external range.
pub const EXTERNAL: u32 = 2;
/// From uplinks: the external range to the main view. The segment is 0.
pub const INTERNAL: u32 = 3;

/// Zone of a [`FlowKey`] between an uplink's address and the outside.
pub const ZONE_OUTSIDE: u16 = 1;
/// Ports that are tried for a connection before it is refused.
pub const PORT_ATTEMPTS: u32 = 32;

/// The port to try at an attempt for a connection with this hash: from a place of its own on, in order.
#[inline(always)]
pub const fn candidate(uplink: &Uplink, hash: u32, attempt: u32) -> u16 {
    let start = ((hash as u64 * uplink.ports as u64) >> 32) as u32;
    let offset = start + attempt;
    let offset = if offset >= uplink.ports { offset - uplink.ports } else { offset };
    (uplink.first_port + offset) as u16
}

/// Spreads connections over ports.
#[inline(always)]
pub fn spread(source: &Address, source_port: u16) -> u32 {
    let (high, low) = halves(source);
    let mixed = (high ^ low ^ (source_port as u64) << 48).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as u32
}

/// The key of an address on a side of a segment. The zeros align the value behind it.
#[inline(always)]
pub const fn key(segment: u32, side: u32, address: &Address) -> TranslationKey {
    let s = (segment << 2 | side).to_be_bytes();
    let a = address;
    [
        0, 0, 0, 0, s[0], s[1], s[2], s[3], a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9],
        a[10], a[11], a[12], a[13], a[14], a[15],
    ]
}

/// The address with the same host bits in another prefix.
#[inline(always)]
pub fn moved(address: &Address, prefix: &Prefix) -> Address {
    let (high, low) = halves(address);
    let (to_high, to_low) = halves(&prefix.address);
    let bits = prefix.bits;
    let (high_hosts, low_hosts) = if bits >= 64 {
        // A shift by 64 is none.
        (0, if bits >= 128 { 0 } else { u64::MAX >> ((bits - 64) & 63) })
    } else {
        (u64::MAX >> (bits & 63), u64::MAX)
    };
    let high = (to_high & !high_hosts) | (high & high_hosts);
    let low = (to_low & !low_hosts) | (low & low_hosts);
    ((high as u128) << 64 | low as u128).to_be_bytes()
}

/// Adds to a running sum what replacing an address means for a checksum that covers it.
#[inline(always)]
pub fn difference(sum: u32, old: &Address, new: &Address) -> u32 {
    let (old_high, old_low) = halves(old);
    let (new_high, new_low) = halves(new);
    sum + words(!old_high) + words(!old_low) + words(new_high) + words(new_low)
}

/// As [`difference`], for a 16-bit word.
#[inline(always)]
pub const fn word_difference(sum: u32, old: u16, new: u16) -> u32 {
    sum + (!old) as u32 + new as u32
}

#[inline(always)]
const fn words(half: u64) -> u32 {
    ((half >> 48) as u32 & 0xffff)
        + ((half >> 32) as u32 & 0xffff)
        + ((half >> 16) as u32 & 0xffff)
        + (half as u32 & 0xffff)
}

/// A checksum after the running sum `difference` of replaced words.
#[inline(always)]
pub const fn adjust(sum: u16, difference: u32) -> u16 {
    checksum::finish((!sum) as u32 + checksum::fold(difference) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{in_prefix, mapped};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_moved_address_keeps_its_host_bits(address: [u8; 16], to: [u8; 16], bits in 0u32..=128) {
            let there = moved(&address, &Prefix { address: to, bits, pad: 0 });
            prop_assert!(in_prefix(&there, &to, bits as u8));
            let hosts = if bits == 128 { 0 } else { u128::MAX >> bits };
            prop_assert_eq!(u128::from_be_bytes(there) & hosts, u128::from_be_bytes(address) & hosts);
        }

        #[test]
        fn an_adjusted_checksum_equals_a_new_one(
            old: [u8; 16],
            new: [u8; 16],
            port: u16,
            rest in prop::collection::vec(1u8.., 20),
        ) {
            let whole = |address: &[u8; 16], port: u16| {
                let mut bytes = address.to_vec();
                bytes.extend(port.to_be_bytes());
                bytes.extend(&rest);
                checksum::finish(checksum::add_bytes(0, &bytes))
            };
            let change = word_difference(difference(0, &old, &new), 7, port);
            prop_assert_eq!(adjust(whole(&old, 7), change), whole(&new, port));
        }
    }

    #[test]
    fn as_many_attempts_as_ports_try_every_port_once() {
        let uplink = Uplink { first_port: 65_530, ports: 6, ..Uplink::ZERO };
        for hash in [0, 1 << 31, u32::MAX] {
            let tried: std::collections::BTreeSet<u16> =
                (0..6).map(|attempt| candidate(&uplink, hash, attempt)).collect();
            assert_eq!(tried, (65_530..=65_535).collect());
        }
    }

    #[test]
    fn ipv4_moves_within_its_mapping() {
        let to = Prefix { address: mapped([100, 64, 3, 0]), bits: 120, pad: 0 };
        assert_eq!(moved(&mapped([10, 100, 0, 77]), &to), mapped([100, 64, 3, 77]));
    }

    #[test]
    fn keys_of_sides_and_segments_differ() {
        let address = mapped([10, 0, 0, 1]);
        assert_ne!(key(1, INWARD, &address), key(1, OUTWARD, &address));
        assert_ne!(key(1, INTERNAL, &address), key(2, INWARD, &address));
    }
}
