//! Prefixes to the three levels of the IPv4 table, as the maps document them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use hub_common::segment::V4_BLOCK;

use crate::model::Prefix;

/// Entries of the first level that are not empty, and the blocks they lead to.
#[derive(Debug, Default)]
pub(super) struct V4Table {
    /// Index and value of first-level entries: one per /16.
    pub(super) root: BTreeMap<u32, u32>,
    /// Blocks of 256 entries.
    pub(super) blocks: Vec<[u32; 256]>,
}

impl V4Table {
    /// The table for these prefixes; those of IPv6 are passed over.
    pub(super) fn new(prefixes: &[Prefix]) -> Self {
        let ranges: Vec<Range> = prefixes.iter().filter_map(Range::of).collect();
        let mut table = Self::default();
        for range in &ranges {
            let last = range.first | (u32::MAX.checked_shr(range.bits.into()).unwrap_or(0));
            for index in range.first >> 16..=last >> 16 {
                if !table.root.contains_key(&index) {
                    let entry = table.entry(&ranges, index << 16, 16);
                    table.root.insert(index, entry);
                }
            }
        }
        table
    }

    /// The entry for a block of addresses of this length: a segment, or a block of smaller ones.
    fn entry(&mut self, ranges: &[Range], first: u32, bits: u8) -> u32 {
        let within = |range: &&Range| range.bits > bits && cut(range.first, bits) == first;
        if !ranges.iter().any(|range| within(&range)) {
            let holds = |range: &&Range| range.bits <= bits && cut(first, range.bits) == range.first;
            let best = ranges.iter().filter(holds).max_by_key(|range| range.bits);
            return best.map_or(0, |range| range.segment);
        }
        let mut block = [0; 256];
        for (part, entry) in (0u32..).zip(&mut block) {
            *entry = self.entry(ranges, first | part << (24 - bits), bits + 8);
        }
        self.blocks.push(block);
        V4_BLOCK | (self.blocks.len() as u32 - 1)
    }
}

struct Range {
    first: u32,
    bits: u8,
    segment: u32,
}

impl Range {
    fn of(prefix: &Prefix) -> Option<Self> {
        let IpAddr::V4(address) = prefix.address else { return None };
        Some(Self { first: address.into(), bits: prefix.bits, segment: prefix.segment })
    }
}

/// The first `bits` bits of an address.
fn cut(address: u32, bits: u8) -> u32 {
    address & u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::ip;

    fn look_up(table: &V4Table, address: &str) -> u32 {
        let IpAddr::V4(address) = ip(address) else { panic!("not IPv4") };
        let [_, _, third, fourth] = address.octets();
        let mut entry = table.root.get(&(u32::from(address) >> 16)).copied().unwrap_or(0);
        for part in [third, fourth] {
            if entry & V4_BLOCK != 0 {
                entry = table.blocks[(entry & !V4_BLOCK) as usize][usize::from(part)];
            }
        }
        entry
    }

    #[test]
    fn the_longest_prefix_is_found_at_every_level() {
        let prefix = |address, bits, segment| Prefix { address: ip(address), bits, segment };
        let table = V4Table::new(&[
            prefix("10.0.0.0", 12, 1),
            prefix("10.1.0.0", 20, 2),
            prefix("10.1.2.0", 28, 3),
            prefix("10.1.2.5", 32, 4),
            prefix("2001:db8::", 32, 5),
        ]);
        for (address, segment) in [
            ("10.15.255.255", 1),
            ("10.16.0.0", 0),
            ("10.1.16.0", 1),
            ("10.1.15.255", 2),
            ("10.1.2.16", 2),
            ("10.1.2.4", 3),
            ("10.1.2.5", 4),
            ("10.1.2.6", 3),
            ("9.255.255.255", 0),
        ] {
            assert_eq!(look_up(&table, address), segment, "{address}");
        }
    }
}
