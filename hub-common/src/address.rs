//! Addresses of both families in 16 bytes, and the comparisons the matcher needs.

use core::net::IpAddr;

/// An IPv6 address, or an IPv4 address mapped into `::ffff:0:0/96`; network byte order.
pub type Address = [u8; 16];

/// Bits that a mapped IPv4 prefix is longer by.
pub const V4_OFFSET_BITS: u8 = 96;

/// Maps an IPv4 address.
#[inline(always)]
pub const fn mapped(v4: [u8; 4]) -> Address {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, v4[0], v4[1], v4[2], v4[3]]
}

/// An address of either family.
pub const fn of(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(v4) => mapped(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The two halves as integers, most significant first.
#[inline(always)]
pub fn halves(address: &Address) -> (u64, u64) {
    let bytes = u128::from_be_bytes(*address);
    ((bytes >> 64) as u64, bytes as u64)
}

/// Whether the address is a mapped IPv4 address.
#[inline(always)]
pub fn is_v4(address: &Address) -> bool {
    let (high, low) = halves(address);
    high == 0 && low >> 32 == 0xffff
}

/// A number whose low `bits` bits differ for addresses that are near each other; ranges apart from each other
/// begin at places that look drawn by lot.
#[inline(always)]
pub fn fold(address: &Address, bits: u32) -> u32 {
    let (high, low) = halves(address);
    let range = (high ^ low >> bits).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (low as u32).wrapping_add((range >> 32) as u32)
}

/// Place of an address among `1 << bits` places that look drawn by lot.
#[inline(always)]
pub fn scatter(address: &Address, bits: u32) -> u32 {
    let (high, low) = halves(address);
    spread(low ^ high.rotate_left(32), bits)
}

/// As [`scatter`], of an IPv4 address as a number.
#[inline(always)]
pub const fn scatter_v4(address: u32, bits: u32) -> u32 {
    spread(0xffff << 32 | address as u64, bits)
}

#[inline(always)]
const fn spread(number: u64, bits: u32) -> u32 {
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - bits)) as u32
}

/// Whether `address` lies in `prefix/bits`; `bits` counts from the mapped start (IPv4 /24 is 120).
#[inline(always)]
pub fn in_prefix(address: &Address, prefix: &Address, bits: u8) -> bool {
    if bits == 0 {
        return true;
    }
    let (high, low) = halves(address);
    let (prefix_high, prefix_low) = halves(prefix);
    if bits <= 64 {
        return (high ^ prefix_high) >> (64 - bits as u32) == 0;
    }
    if high != prefix_high {
        return false;
    }
    let rest = 128u32.saturating_sub(bits as u32) & 63;
    (low ^ prefix_low) >> rest == 0
}

/// Whether no router may forward a packet from or to this IPv4 address.
///
/// Source: RFC 1812 section 5.3.7. Multicast and broadcast targets are judged apart.
#[inline(always)]
pub fn is_martian_v4(address: [u8; 4], source: bool) -> bool {
    let first = address[0];
    first == 0 || first == 127 || (source && first >= 224)
}

/// Whether no router may forward a packet from or to this IPv6 address.
///
/// Mapped addresses on the wire would be mistaken for IPv4 and are refused (RFC 4942 section 2.2).
#[inline(always)]
pub fn is_martian_v6(address: &Address, source: bool) -> bool {
    let (high, low) = halves(address);
    let embedded = high == 0 && (low <= 1 || low >> 32 == 0xffff || low >> 32 == 0);
    embedded || (source && is_multicast(address))
}

/// Whether the address is an IPv6 multicast address, or an IPv4 multicast or limited broadcast address.
#[inline(always)]
pub fn is_multicast(address: &Address) -> bool {
    if is_v4(address) {
        let first = address[12];
        return (224..240).contains(&first) || (halves(address).1 as u32) == u32::MAX;
    }
    address[0] == 0xff
}

/// Whether the address is valid on one link only.
#[inline(always)]
pub fn is_link_local(address: &Address) -> bool {
    if is_v4(address) {
        return address[12] == 169 && address[13] == 254;
    }
    address[0] == 0xfe && address[1] & 0xc0 == 0x80
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn prefixes_compare_like_a_bit_loop(a: [u8; 16], flip in 0u8..128, bits in 0u8..=128) {
            let mut b = a;
            b[flip as usize / 8] ^= 0x80 >> (flip % 8);
            prop_assert_eq!(in_prefix(&a, &b, bits), flip >= bits);
            prop_assert!(in_prefix(&a, &a, bits));
        }
    }

    #[test]
    fn an_ipv4_address_has_one_place() {
        for address in [[10, 0, 0, 1], [255; 4], [0; 4], [192, 0, 2, 7]] {
            assert_eq!(scatter_v4(u32::from_be_bytes(address), 20), scatter(&mapped(address), 20));
        }
    }

    #[test]
    fn special_addresses_are_recognised() {
        assert!(is_multicast(&mapped([224, 0, 0, 1])) && is_multicast(&mapped([255; 4])));
        assert!(!is_multicast(&mapped([10, 0, 0, 255])));
        assert!(is_link_local(&mapped([169, 254, 1, 1])));
        assert!(is_martian_v6(&mapped([10, 0, 0, 1]), false), "mapped on the wire");
        assert!(is_martian_v6(&[0; 16], true));
    }
}
