//! Which other range a range has on the other side: virtual inside the hub, external beyond uplinks.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::prefix;

/// Native ranges whose addresses somebody else has, with the ranges that stand for them in the hub.
///
/// Both of a pair have the same length, and host bits are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Virtual(BTreeMap<IpNet, IpNet>);

impl Virtual {
    /// Gives a native range a virtual one of the same length.
    pub fn insert(&mut self, native: IpNet, instead: IpNet) {
        self.0.insert(native, instead);
    }

    /// A native range is what it seems again.
    pub fn remove(&mut self, native: &IpNet) {
        self.0.remove(native);
    }

    /// The virtual range of a native one.
    pub fn get(&self, native: &IpNet) -> Option<IpNet> {
        self.0.get(native).copied()
    }

    /// Native ranges with their virtual ones.
    pub fn iter(&self) -> impl Iterator<Item = (&IpNet, &IpNet)> {
        self.0.iter()
    }

    /// Whether every range is what it seems.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a prefix of a range is called in the hub.
    pub fn main(&self, net: &IpNet) -> IpNet {
        let pair = self.0.iter().find(|(native, _)| native.contains(net));
        pair.map_or(*net, |(_, instead)| moved(net, instead))
    }

    /// What an address of a range is called in the hub.
    pub fn address(&self, address: IpAddr) -> IpAddr {
        self.main(&IpNet::from(address)).addr()
    }
}

/// The same part of another range.
fn moved(net: &IpNet, to: &IpNet) -> IpNet {
    let length = to.prefix_len();
    let address: IpAddr = match (net.addr(), to.network()) {
        (IpAddr::V4(host), IpAddr::V4(to)) => {
            let hosts = u32::MAX.checked_shr(length.into()).unwrap_or(0);
            (to.to_bits() & !hosts | host.to_bits() & hosts).to_be_bytes().into()
        }
        (IpAddr::V6(host), IpAddr::V6(to)) => {
            let hosts = u128::MAX.checked_shr(length.into()).unwrap_or(0);
            (to.to_bits() & !hosts | host.to_bits() & hosts).to_be_bytes().into()
        }
        (host, _) => host,
    };
    IpNet::new(address, net.prefix_len()).unwrap_or(*net)
}

/// Finds a free range as long as another in pools: the first that overlaps nothing in `taken`.
pub fn free(like: &IpNet, pools: &[IpNet], taken: &dyn Fn(&IpNet) -> Option<IpNet>) -> Option<IpNet> {
    let length = like.prefix_len();
    let fitting = pools
        .iter()
        .filter(|pool| pool.addr().is_ipv4() == like.addr().is_ipv4() && pool.prefix_len() <= length);
    fitting.into_iter().find_map(|pool| {
        let mut candidate = IpNet::new(pool.network(), length).ok()?;
        loop {
            let Some(other) = taken(&candidate) else { return Some(candidate) };
            // Behind whichever is longer, the candidate or what is in its way.
            let last = if other.contains(&candidate) { other.broadcast() } else { candidate.broadcast() };
            candidate = IpNet::new(next(last)?, length).ok().filter(|next| pool.contains(next))?;
        }
    })
}

fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => address.to_bits().checked_add(1).map(|bits| bits.to_be_bytes().into()),
        IpAddr::V6(address) => address.to_bits().checked_add(1).map(|bits| bits.to_be_bytes().into()),
    }
}

/// What packets of members carry beyond uplinks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Nat {
    /// Their own addresses.
    #[default]
    None,
    /// The hub's address of the interface they leave by.
    Masquerade {
        /// Whether IPv6 is translated too; IPv4 is.
        v6: bool,
    },
    /// Addresses of external ranges: (range, external range) of the same length.
    Static(Vec<(IpNet, IpNet)>),
}

impl Nat {
    /// External ranges.
    pub fn external(&self) -> impl Iterator<Item = &IpNet> {
        let pairs = match self {
            Self::Static(pairs) => pairs.as_slice(),
            Self::None | Self::Masquerade { .. } => &[],
        };
        pairs.iter().map(|(_, external)| external)
    }
}

/// Pairs external ranges with ranges of the same family and length, in order.
pub fn pairs(
    ranges: &[IpNet],
    external: &[(String, IpNet)],
) -> Result<Vec<(IpNet, IpNet)>, (String, String)> {
    let mut pairs: Vec<(IpNet, IpNet)> = Vec::new();
    for (pointer, external) in external {
        if let Some(range) = ranges.iter().find(|range| prefix::overlaps(range, external)) {
            return Err((pointer.clone(), format!("prefix {external} overlaps {range} of ip_range")));
        }
        if pairs.iter().any(|(_, other)| prefix::overlaps(other, external)) {
            return Err((pointer.clone(), format!("prefix {external} overlaps another of this list")));
        }
        let fits = |range: &&IpNet| {
            range.addr().is_ipv4() == external.addr().is_ipv4()
                && range.prefix_len() == external.prefix_len()
                && !pairs.iter().any(|(paired, _)| paired == *range)
        };
        let Some(range) = ranges.iter().find(fits) else {
            let detail = format!("prefix {external}: use one as long as a range of ip_range");
            return Err((pointer.clone(), detail));
        };
        pairs.push((*range, *external));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn parts_of_a_range_move_with_it() {
        let mut ranges = Virtual::default();
        ranges.insert(net("10.100.0.0/24"), net("100.64.3.0/24"));
        ranges.insert(net("fd00:100::/64"), net("fd12:3456:789a::/64"));
        assert_eq!(ranges.main(&net("10.100.0.128/25")), net("100.64.3.128/25"));
        assert_eq!(ranges.address("fd00:100::17".parse().unwrap()), net("fd12:3456:789a::17/128").addr());
        assert_eq!(ranges.main(&net("10.101.0.0/24")), net("10.101.0.0/24"), "not its range");
    }

    #[test]
    fn the_first_free_range_is_found_between_others() {
        let taken = ["100.64.0.0/24", "100.64.1.128/25", "100.64.2.0/23"].map(net);
        let in_the_way = |net: &IpNet| taken.iter().find(|other| prefix::overlaps(other, net)).copied();
        let pools = [net("fd00::/48"), net("100.64.0.0/10")];
        assert_eq!(free(&net("10.0.0.0/24"), &pools, &in_the_way), Some(net("100.64.4.0/24")));
        assert_eq!(free(&net("10.0.0.0/25"), &pools, &in_the_way), Some(net("100.64.1.0/25")));
        assert_eq!(free(&net("fd07::/64"), &pools, &in_the_way), Some(net("fd00::/64")));
        assert_eq!(free(&net("10.0.0.0/8"), &pools, &in_the_way), None, "longer than the pool");
        assert_eq!(free(&net("10.0.0.0/24"), &[net("100.64.2.0/23")], &in_the_way), None, "full");
    }

    #[test]
    fn external_ranges_pair_with_ranges_as_long() {
        let ranges = ["10.0.0.0/24", "10.1.0.0/25", "fd00::/64"].map(net);
        let external = |nets: &[&str]| -> Vec<(String, IpNet)> {
            nets.iter().map(|text| ("/x".to_owned(), net(text))).collect()
        };
        let found = pairs(&ranges, &external(&["2001:db8::/64", "192.0.2.128/25"])).unwrap();
        assert_eq!(found, [(ranges[2], net("2001:db8::/64")), (ranges[1], net("192.0.2.128/25"))]);
        for (wrong, why) in [
            (&["192.0.2.0/26"] as &[&str], "as long as"),
            (&["10.0.0.0/25"], "overlaps 10.0.0.0/24"),
            (&["192.0.2.0/24", "192.0.2.0/24"], "another of this list"),
        ] {
            assert!(pairs(&ranges, &external(wrong)).unwrap_err().1.contains(why), "{wrong:?}");
        }
    }
}
