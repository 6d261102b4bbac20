//! Addresses in and around ranges.

use std::net::IpAddr;

use super::Random;
use crate::model::Prefix;

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// The address with this number, in the family of another.
fn like(family: IpAddr, number: u128) -> IpAddr {
    if family.is_ipv4() { IpAddr::V4((number as u32).into()) } else { IpAddr::V6(number.into()) }
}

/// The bits of an address that a prefix of this length leaves open.
fn open_bits(family: IpAddr, bits: u8) -> u128 {
    let width = if family.is_ipv4() { 32 } else { 128 };
    let open = width - u32::from(bits);
    if open == 128 { u128::MAX } else { (1 << open) - 1 }
}

/// The first address of the range of this length around an address.
pub(super) fn masked(address: IpAddr, bits: u8) -> IpAddr {
    like(address, number(address) & !open_bits(address, bits))
}

/// Some address of a range.
pub(super) fn inside(random: &mut Random, prefix: Prefix) -> IpAddr {
    let host = u128::from(random.next()) << 64 | u128::from(random.next());
    like(prefix.address, number(prefix.address) | (host & open_bits(prefix.address, prefix.bits)))
}

/// Addresses at both ends of a range, within it, and just outside.
pub(super) fn around(random: &mut Random, prefix: Prefix) -> Vec<IpAddr> {
    let first = number(prefix.address);
    let last = first | open_bits(prefix.address, prefix.bits);
    let outside = [first.wrapping_sub(1), last.wrapping_add(1)].map(|number| like(prefix.address, number));
    let mut out = vec![prefix.address, like(prefix.address, last)];
    out.extend((0..4).map(|_| inside(random, prefix)));
    out.push(outside[random.below(2)]);
    out
}
