//! The hash table in front of the IPv6 trie: /64 and /48 prefixes that belong to one segment each.
//!
//! The trie has every prefix and is written first, so an entry that asks it is never wrong. An entry changes
//! hands in two stores: its segment becomes "ask", then key and segment become the new ones.

use std::collections::{BTreeMap, BTreeSet};

use aya::Ebpf;
use aya::maps::{Array, IterableMap as _, MapData, MapError};
use hub_common::limits::NET_LINES;
use hub_common::nets::{NETS_PER_LINE, NETS_SHORTER, NETS_SITES, NetLine, is_kept, line, network, site};
use ipnet::Ipv6Net;

use super::{MapFault, fault, take};
use crate::kernel::batch;
use crate::model::SegmentId;

const MAP: &str = "NETS";
/// The segment of an entry that asks the trie.
const ASK: u32 = 0;

/// The map, and what it holds.
pub struct Nets {
    map: Array<MapData, NetLine>,
    lines: Lines,
}

impl Nets {
    /// Takes the map of an object, with what an earlier run left.
    pub fn new(ebpf: &mut Ebpf, adopted: bool) -> Result<Self, MapFault> {
        let map: Array<_, NetLine> = take(ebpf, MAP)?;
        let mut lines = Lines::default();
        if adopted {
            batch::range(map.map(), 0, map.len(), |index, found: &[NetLine]| {
                for line in found {
                    lines.adopt(index, *line);
                }
            })
            .map_err(fault(MAP))?;
        }
        Ok(Self { map, lines })
    }

    /// Makes the table that of these prefixes, which the trie holds.
    pub fn put(&mut self, prefixes: impl Iterator<Item = (Ipv6Net, SegmentId)>) -> Result<(), MapFault> {
        let map = &mut self.map;
        self.lines.put(prefixes, |index, line| map.set(index, line, 0)).map_err(kernel)
    }
}

fn kernel(source: MapError) -> MapFault {
    MapFault::Kernel { map: MAP, source }
}

/// What the lines hold that are not empty.
#[derive(Debug, Default)]
pub struct Lines {
    held: BTreeMap<u32, NetLine>,
}

impl Lines {
    fn adopt(&mut self, index: u32, line: NetLine) {
        if line != NetLine::ZERO {
            self.held.insert(index, line);
        }
    }

    /// Makes the lines those of the prefixes: hands each store to `store`, in an order in which any address
    /// is found as before or as after. What could not be stored is stored the next time.
    pub fn put<E>(
        &mut self,
        prefixes: impl Iterator<Item = (Ipv6Net, SegmentId)>,
        mut store: impl FnMut(u32, NetLine) -> Result<(), E>,
    ) -> Result<(), E> {
        let (entries, flags) = entries(prefixes);
        let header = self.held.get(&NET_LINES).map_or(0, |line| line.keys[0]);
        self.set(NET_LINES, header_of(header | flags), &mut store)?;
        let mut wanted: BTreeMap<u32, BTreeMap<u64, u32>> = BTreeMap::new();
        for (key, segment) in entries {
            wanted.entry(line(key)).or_default().insert(key, segment);
        }
        let held = self.held.keys().filter(|index| **index != NET_LINES).copied();
        let lines: BTreeSet<u32> = wanted.keys().copied().chain(held).collect();
        let nothing = BTreeMap::new();
        // Networks before their sites; then what takes the place of what has gone.
        let networks = |now: NetLine, wanted: &BTreeMap<u64, u32>| opened(now, wanted, |key| !is_site(key));
        let sites = |now: NetLine, wanted: &BTreeMap<u64, u32>| opened(now, wanted, |_| true);
        let steps: [Step; 3] = [networks, sites, made];
        for step in steps {
            for index in &lines {
                let now = self.held.get(index).copied().unwrap_or(NetLine::ZERO);
                let line = step(now, wanted.get(index).unwrap_or(&nothing));
                self.set(*index, line, &mut store)?;
            }
        }
        self.set(NET_LINES, header_of(flags), &mut store)
    }

    fn set<E>(
        &mut self,
        index: u32,
        line: NetLine,
        store: &mut impl FnMut(u32, NetLine) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.held.get(&index).copied().unwrap_or(NetLine::ZERO) == line {
            return Ok(());
        }
        store(index, line)?;
        if line == NetLine::ZERO {
            self.held.remove(&index);
        } else {
            self.held.insert(index, line);
        }
        Ok(())
    }
}

/// What becomes of a line that is to hold these entries.
type Step = fn(NetLine, &BTreeMap<u64, u32>) -> NetLine;

fn header_of(flags: u64) -> NetLine {
    let mut header = NetLine::ZERO;
    header.keys[0] = flags;
    header
}

/// The entries of prefixes, and the header's flags.
fn entries(prefixes: impl Iterator<Item = (Ipv6Net, SegmentId)>) -> (BTreeMap<u64, u32>, u64) {
    let mut entries = BTreeMap::new();
    let mut flags = 0;
    for (net, id) in prefixes {
        let bits = net.prefix_len();
        let network = network(&net.network().octets());
        let (key, is_whole) = match bits {
            0..48 => {
                flags |= NETS_SHORTER;
                continue;
            }
            48..64 => {
                flags |= NETS_SITES;
                (site(network), bits == 48)
            }
            _ => (network, bits == 64),
        };
        if !is_kept(network) {
            continue;
        }
        let segment = if is_whole { id.0 } else { ASK };
        // Two prefixes of one entry: the trie knows which is longer.
        entries.entry(key).and_modify(|held| *held = ASK).or_insert(segment);
    }
    (entries, flags)
}

/// Whether a key is that of a /48.
const fn is_site(key: u64) -> bool {
    key >> 48 == 0xffff
}

/// The line in which what goes asks the trie, and in which those that `is_due` have their segments if there is
/// a place for them. Without a place, the line is full, and whoever looks for them asks the trie, too.
fn opened(now: NetLine, wanted: &BTreeMap<u64, u32>, is_due: fn(u64) -> bool) -> NetLine {
    let mut line = now;
    for (key, segment) in line.keys.iter().zip(&mut line.segments) {
        match wanted.get(key) {
            Some(wanted) if is_due(*key) => *segment = *wanted,
            Some(_) => {}
            None => *segment = ASK,
        }
    }
    let mut coming = wanted.iter().filter(|(key, _)| is_due(**key) && !now.keys.contains(key));
    for place in 0..NETS_PER_LINE {
        if let (Some(key @ 0), Some(segment)) = (line.keys.get_mut(place), line.segments.get_mut(place))
            && let Some((new, value)) = coming.next()
        {
            (*key, *segment) = (*new, *value);
        }
    }
    line
}

/// The line without what goes.
fn made(now: NetLine, wanted: &BTreeMap<u64, u32>) -> NetLine {
    let mut line = now;
    for (key, segment) in line.keys.iter_mut().zip(&mut line.segments) {
        if !wanted.contains_key(key) {
            (*key, *segment) = (0, ASK);
        }
    }
    opened(line, wanted, |_| true)
}

#[cfg(test)]
impl Nets {
    /// An empty one, whose map was made with these flags.
    pub(super) fn of(flags: u32) -> Self {
        Self { map: Array::create(NET_LINES + 1, flags).unwrap(), lines: Lines::default() }
    }

    /// How many lines hold something.
    pub(super) fn used(&self) -> usize {
        self.lines.held.len()
    }
}

#[cfg(test)]
mod tests;
