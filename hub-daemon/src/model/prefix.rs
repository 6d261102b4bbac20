//! Address ranges: which prefixes a persona may own, and prefixes in rules.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Why a text is no prefix, or none that a persona may own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// Neither an address nor a prefix.
    #[error("prefix `{0}`: use CIDR notation, for example 10.100.0.0/24 or fd00:100::/64")]
    Format(String),
    /// An address where a range is needed.
    #[error("prefix `{0}`: add a length, for example {0}/{1}")]
    NoLength(String, u8),
    /// Host bits are set.
    #[error("prefix `{0}` has host bits set: use {1}")]
    HostBits(String, IpNet),
    /// A range that is never routed.
    #[error("prefix `{0}` overlaps {1} ({2}): use a unicast range such as 10.0.0.0/8 or fd00::/8")]
    Special(String, IpNet, &'static str),
    /// The first address of a prefix, or the broadcast address.
    #[error("address `{0}` means the whole prefix: use one of its hosts")]
    Edge(String),
    /// Too small to hold a gateway and a member, or too large for one persona.
    #[error("prefix `{0}`: use a length between /{1} and /{2}")]
    Length(String, u8, u8),
}

/// Ranges that no persona may overlap (IANA special-purpose registries, RFC 6890).
const SPECIAL: &[(IpNet, &str)] = &[
    (v4([0, 0, 0, 0], 8), "this network"),
    (v4([127, 0, 0, 0], 8), "loopback"),
    (v4([169, 254, 0, 0], 16), "link-local"),
    (v4([224, 0, 0, 0], 4), "multicast"),
    (v4([240, 0, 0, 0], 4), "reserved"),
    (v6([0; 8], 32), "unspecified, loopback and embedded IPv4"),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), "link-local"),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "multicast"),
];

const fn v4(address: [u8; 4], length: u8) -> IpNet {
    let [a, b, c, d] = address;
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length))
}

const fn v6(address: [u16; 8], length: u8) -> IpNet {
    let mut bits = 0;
    let mut rest: &[u16] = &address;
    while let [first, tail @ ..] = rest {
        bits = bits << 16 | *first as u128;
        rest = tail;
    }
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from_bits(bits), length))
}

/// Reads a range that a persona owns.
pub fn owned(text: &str) -> Result<IpNet, PrefixError> {
    let text = text.trim();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Err(PrefixError::NoLength(text.to_owned(), if address.is_ipv4() { 24 } else { 64 }));
    }
    let prefix = exact(text)?;
    let (min, max) = lengths(prefix.addr().is_ipv4());
    if let Some((special, name)) = special(&prefix) {
        return Err(PrefixError::Special(text.to_owned(), special, name));
    }
    if !(min..=max).contains(&prefix.prefix_len()) {
        return Err(PrefixError::Length(text.to_owned(), min, max));
    }
    Ok(prefix)
}

/// Shortest and longest length of a range: not too large for one persona, and room for a gateway and a member.
pub fn lengths(v4: bool) -> (u8, u8) {
    if v4 { (8, 30) } else { (32, 126) }
}

/// Reads a prefix in a rule: any, and a bare address stands for itself.
pub fn matched(text: &str) -> Result<IpNet, PrefixError> {
    let text = text.trim();
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(address.into()),
        Err(_) => exact(text),
    }
}

/// Reads an address of an interface with its length: one that a host may have.
pub fn placed(text: &str) -> Result<IpNet, PrefixError> {
    let text = text.trim();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Err(PrefixError::NoLength(text.to_owned(), if address.is_ipv4() { 24 } else { 64 }));
    }
    let address: IpNet = text.parse().map_err(|_format| PrefixError::Format(text.to_owned()))?;
    if let Some((special, name)) = special(&IpNet::from(address.addr())) {
        return Err(PrefixError::Special(text.to_owned(), special, name));
    }
    let edge = address.prefix_len() + 1 < address.max_prefix_len() && address.addr() == address.network();
    let broadcast = address.addr().is_ipv4() && address.addr() == address.broadcast();
    if edge || (broadcast && address.prefix_len() < 31) {
        return Err(PrefixError::Edge(text.to_owned()));
    }
    Ok(address)
}

/// Reads a range of the persona that carries a personality: one that personas own, or a single address.
pub fn carried(text: &str) -> Result<IpNet, PrefixError> {
    match text.trim().parse::<IpNet>() {
        Ok(prefix) if prefix.prefix_len() == prefix.max_prefix_len() => match special(&prefix) {
            Some((special, name)) => Err(PrefixError::Special(text.to_owned(), special, name)),
            None => Ok(prefix),
        },
        Ok(_) | Err(_) => owned(text),
    }
}

/// Ranges that are not for hosts anywhere, or not beyond their link.
pub fn special_ranges() -> impl Iterator<Item = IpNet> {
    SPECIAL.iter().map(|(range, _)| *range)
}

fn special(prefix: &IpNet) -> Option<(IpNet, &'static str)> {
    SPECIAL.iter().find(|(special, _)| overlaps(special, prefix)).copied()
}

/// Whether two prefixes have an address in common.
pub fn overlaps(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// A prefix without the smaller ones that it contains, as few prefixes as possible.
pub fn without(prefix: &IpNet, holes: &[IpNet]) -> Vec<IpNet> {
    if !holes.iter().any(|hole| prefix.contains(hole) && prefix != hole) {
        return vec![*prefix];
    }
    let halves = prefix.subnets(prefix.prefix_len() + 1).into_iter().flatten();
    halves.filter(|half| !holes.contains(half)).flat_map(|half| without(&half, holes)).collect()
}

/// The hub's own address in a range: the first usable one.
pub fn gateway(range: &IpNet) -> IpAddr {
    nth(range, 1)
}

/// The address `offset` after the start of a range.
pub fn nth(range: &IpNet, offset: u64) -> IpAddr {
    match range {
        IpNet::V4(range) => Ipv4Addr::from(u32::from(range.network()).wrapping_add(offset as u32)).into(),
        IpNet::V6(range) => {
            Ipv6Addr::from(u128::from(range.network()).wrapping_add(u128::from(offset))).into()
        }
    }
}

/// Whether a member may have this address: in the range, and neither its start, nor the gateway, nor the
/// IPv4 broadcast address.
pub fn usable(range: &IpNet, address: IpAddr) -> bool {
    let reserved = address == range.network()
        || address == gateway(range)
        || (address.is_ipv4() && address == range.broadcast());
    range.contains(&address) && !reserved
}

fn exact(text: &str) -> Result<IpNet, PrefixError> {
    let prefix: IpNet = text.parse().map_err(|_format| PrefixError::Format(text.to_owned()))?;
    if prefix.trunc() != prefix {
        return Err(PrefixError::HostBits(text.to_owned(), prefix.trunc()));
    }
    Ok(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn host_bits_are_refused_with_the_right_prefix() {
        let error = owned("10.100.0.7/24").unwrap_err().to_string();
        assert_eq!(error, "prefix `10.100.0.7/24` has host bits set: use 10.100.0.0/24");
    }

    #[test]
    fn ranges_that_are_never_routed_are_refused() {
        for (text, name) in [
            ("127.0.0.0/8", "loopback"),
            ("127.16.0.0/24", "loopback"),
            ("224.0.1.0/24", "multicast"),
            ("169.254.0.0/16", "link-local"),
            ("0.0.0.0/8", "this network"),
            ("0.0.0.0/0", "this network"),
            ("fe80::/64", "link-local"),
            ("ff02::/64", "multicast"),
            ("::ffff:0:0/96", "embedded IPv4"),
        ] {
            assert!(owned(text).unwrap_err().to_string().contains(name), "{text}");
        }
    }

    #[test]
    fn sizes_are_bounded() {
        assert!(owned("10.0.0.0/30").is_ok() && owned("fd00::/126").is_ok());
        assert!(owned("10.0.0.0/31").unwrap_err().to_string().contains("/8 and /30"));
        assert!(owned("fd00::/127").unwrap_err().to_string().contains("/32 and /126"));
        assert!(owned("10.0.0.1").unwrap_err().to_string().contains("10.0.0.1/24"));
    }

    proptest! {
        #[test]
        fn a_prefix_without_holes_has_every_address_but_theirs(
            bits in 8u8..=16,
            holes in prop::collection::vec((0u32..0x0100_0000, 17u8..=28), 0..4),
            probes in prop::collection::vec(0u32..0x0100_0000, 32),
        ) {
            let net = |address: u32, bits: u8| IpNet::V4(Ipv4Net::new((0x0a00_0000 | address).into(), bits).unwrap().trunc());
            let prefix = net(0, bits);
            let mut apart: Vec<IpNet> = Vec::new();
            for (address, bits) in holes {
                let hole = net(address, bits);
                if !apart.iter().any(|other| overlaps(other, &hole)) {
                    apart.push(hole);
                }
            }
            let rest = without(&prefix, &apart);
            let edges = apart.iter().flat_map(|hole| [hole.network(), hole.broadcast()]);
            let probes = probes.into_iter().map(|probe| net(probe, 32).addr()).chain(edges);
            for probe in probes {
                let expected = prefix.contains(&probe) && !apart.iter().any(|hole| hole.contains(&probe));
                prop_assert_eq!(rest.iter().filter(|part| part.contains(&probe)).count(), usize::from(expected));
            }
        }

        #[test]
        fn overlap_is_having_the_gateway_or_start_in_common(a: u32, b: u32, x in 8u8..=30, y in 8u8..=30) {
            let left = IpNet::V4(Ipv4Net::new(a.into(), x).unwrap().trunc());
            let right = IpNet::V4(Ipv4Net::new(b.into(), y).unwrap().trunc());
            let naive = left.contains(&right.network()) || right.contains(&left.network());
            prop_assert_eq!(overlaps(&left, &right), naive);
        }
    }
}
