//! Which segment an address belongs to: a 16-8-8 table of arrays for IPv4, a hash table and a trie for IPv6.
//!
//! An IPv4 look-up reads one entry per level and stops at the first that is no block. Blocks are built in
//! free slots, and one store into the root makes a whole /16 change at once; a packet sees the old table
//! or the new one. A DIR-24-8 table reads one entry less for prefixes between /17 and /24 and costs 64 MiB
//! for the 32-bit entries that 100,000 personas need; this one costs 1 KiB for each /16 and /24 that holds
//! longer prefixes. Packets gain nothing by the entry less: `cargo xtask bench --lookup` measures both.

use std::collections::{BTreeMap, BTreeSet};

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, IterableMap as _, MapData, MapError};
use hub_common::address::Address;
use hub_common::segment::V4_BLOCK;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::nets::Nets;
use super::slots::Slots;
use super::{MapFault, failure, fault, take};
use crate::desired::shared_map::SharedMap;
use crate::kernel::batch;
use crate::kernel::load::Capacities;
use crate::model::SegmentId;
use crate::reconcile::Report;

const NAME: &str = "prefixes";
type Block = [u32; 256];

/// Both tables.
pub struct Prefixes {
    root: Array<MapData, u32>,
    blocks: Array<MapData, Block>,
    v6: LpmTrie<MapData, Address, u32>,
    nets: Nets,
    /// The table in front of the trie may say something else than that.
    is_due: bool,
    live: SharedMap<IpNet, SegmentId>,
    slots: Slots,
    /// Blocks in use, per root entry.
    used: BTreeMap<u16, Vec<u32>>,
    retired: Vec<u32>,
    /// Root entries that an earlier run left: rebuilt at the first pass.
    left: BTreeSet<u16>,
    /// A pass has been here: `live` is whole.
    has_put: bool,
}

impl Prefixes {
    /// Takes the maps of an object; what an earlier run left stays until the first pass.
    pub fn new(ebpf: &mut Ebpf, capacities: &Capacities, adopted: bool) -> Result<Self, MapFault> {
        let mut made = Self {
            root: take(ebpf, "V4_ROOT")?,
            blocks: take(ebpf, "V4_BLOCKS")?,
            v6: take(ebpf, "V6_PREFIXES")?,
            nets: Nets::new(ebpf, adopted)?,
            is_due: false,
            live: SharedMap::new(),
            slots: Slots::new(0, capacities.v4_blocks),
            used: BTreeMap::new(),
            retired: Vec::new(),
            left: BTreeSet::new(),
            has_put: false,
        };
        if adopted {
            made.adopt()?;
        }
        Ok(made)
    }

    fn adopt(&mut self) -> Result<(), MapFault> {
        let mut found = Vec::new();
        batch::range(self.root.map(), 0, self.root.len(), |index, entries: &[u32]| {
            let used = entries.first().filter(|entry| **entry != 0);
            found.extend(used.and_then(|entry| Some((u16::try_from(index).ok()?, *entry))));
        })
        .map_err(fault("V4_ROOT"))?;
        for (index, entry) in found {
            self.left.insert(index);
            let mut used = Vec::new();
            if entry & V4_BLOCK != 0 {
                let slot = entry & !V4_BLOCK;
                used.push(slot);
                let block = self.blocks.get(&slot, 0).map_err(|source| kernel("V4_BLOCKS", source))?;
                used.extend(
                    block.iter().filter(|entry| **entry & V4_BLOCK != 0).map(|entry| entry & !V4_BLOCK),
                );
            }
            for slot in &used {
                self.slots.claim(*slot, 1);
            }
            self.used.insert(index, used);
        }
        for pair in &self.v6 {
            let (key, segment) = pair.map_err(|source| kernel("V6_PREFIXES", source))?;
            let net = Ipv6Net::new(key.data().into(), u8::try_from(key.prefix_len()).unwrap_or(128));
            if let Ok(net) = net {
                self.live.insert(net.into(), SegmentId(segment));
            }
        }
        Ok(())
    }

    /// What leads to a segment; `None` while the IPv4 table is still that of an earlier run.
    pub fn of(&self, id: SegmentId) -> Option<Vec<IpNet>> {
        let nets = self.live.iter().filter(|(_, held)| **held == id).map(|(net, _)| *net);
        self.has_put.then(|| nets.collect())
    }

    /// Makes both tables equal to `wanted`. Where there is no room, nothing of the /16 changes.
    pub fn put(&mut self, wanted: &SharedMap<IpNet, SegmentId>) -> Report {
        let mut report = Report { table: NAME, ..Report::default() };
        if self.has_put && !self.is_due && self.left.is_empty() && self.live == *wanted {
            return report;
        }
        let changed = self.live.changes(wanted).map(|(net, held, id)| (*net, held.copied(), id.copied()));
        let changed: Vec<(IpNet, Option<SegmentId>, Option<SegmentId>)> = changed.collect();
        let mut live = wanted.clone();
        let mut roots = std::mem::take(&mut self.left);
        for (net, held, id) in &changed {
            match net {
                IpNet::V4(net) => roots.extend(roots_of(*net)),
                IpNet::V6(net) => {
                    if let Err(error) = self.put_v6(net, *id) {
                        report.failures.extend(failure(NAME, &error).failures);
                        // As it was, so that the next pass tries again.
                        match held {
                            Some(held) => live.insert(IpNet::V6(*net), *held),
                            None => live.remove(&IpNet::V6(*net)),
                        };
                        continue;
                    }
                }
            }
            report.put += usize::from(id.is_some());
            report.deleted += usize::from(id.is_none());
        }
        let v4: Vec<(Ipv4Net, SegmentId)> = wanted
            .iter()
            .filter_map(|(net, id)| if let IpNet::V4(net) = net { Some((*net, *id)) } else { None })
            .collect();
        for root in roots {
            if let Err(error) = self.rebuild(root, &v4) {
                report.failures.extend(failure(NAME, &error).failures);
                // Tried again at the next pass.
                self.left.insert(root);
            }
        }
        self.live = live;
        let v6 = self.live.iter().filter_map(|(net, id)| match net {
            IpNet::V4(_) => None,
            IpNet::V6(net) => Some((*net, *id)),
        });
        let put = self.nets.put(v6);
        self.is_due = put.is_err();
        report.failures.extend(put.err().into_iter().flat_map(|error| failure(NAME, &error).failures));
        self.has_put = true;
        report
    }

    fn put_v6(&mut self, net: &Ipv6Net, id: Option<SegmentId>) -> Result<(), MapFault> {
        let key = Key::new(u32::from(net.prefix_len()), net.network().octets());
        let done = match id {
            Some(id) => self.v6.insert(&key, id.0, 0),
            None => self.v6.remove(&key),
        };
        done.map_err(|source| kernel("V6_PREFIXES", source))
    }

    /// Builds one /16 anew and makes the root point at it.
    fn rebuild(&mut self, root: u16, v4: &[(Ipv4Net, SegmentId)]) -> Result<(), MapFault> {
        let painted = paint(root, v4);
        let mut used = Vec::new();
        let entry = match self.write(&painted, &mut used) {
            Ok(entry) => entry,
            Err(error) => {
                for slot in used {
                    self.slots.give(slot, 1);
                }
                return Err(error);
            }
        };
        if let Err(source) = self.root.set(u32::from(root), entry, 0) {
            for slot in used {
                self.slots.give(slot, 1);
            }
            return Err(kernel("V4_ROOT", source));
        }
        self.retired.extend(self.used.insert(root, used).unwrap_or_default());
        Ok(())
    }

    fn write(&mut self, painted: &Painted, used: &mut Vec<u32>) -> Result<u32, MapFault> {
        let Painted::Blocks(middle) = painted else { return Ok(painted.uniform()) };
        let mut block = [0; 256];
        for (entry, painted) in block.iter_mut().zip(middle.iter()) {
            *entry = match painted {
                Leaf::One(id) => *id,
                Leaf::Many(leaves) => V4_BLOCK | self.write_block(leaves, used)?,
            };
        }
        Ok(V4_BLOCK | self.write_block(&block, used)?)
    }

    fn write_block(&mut self, block: &Block, used: &mut Vec<u32>) -> Result<u32, MapFault> {
        let capacity = self.slots.capacity();
        let slot = self.slots.take(1).ok_or(MapFault::Full { map: "V4_BLOCKS", capacity })?;
        used.push(slot);
        self.blocks.set(slot, block, 0).map_err(|source| kernel("V4_BLOCKS", source))?;
        Ok(slot)
    }

    /// Whether blocks wait for a grace period.
    pub fn has_retired(&self) -> bool {
        !self.retired.is_empty()
    }

    /// Frees retired blocks; call after a grace period.
    pub fn reuse(&mut self) {
        for slot in std::mem::take(&mut self.retired) {
            self.slots.give(slot, 1);
        }
    }
}

fn kernel(map: &'static str, source: MapError) -> MapFault {
    MapFault::Kernel { map, source }
}

/// Root entries that a prefix touches.
fn roots_of(net: Ipv4Net) -> impl Iterator<Item = u16> + use<> {
    let root = |address: u32| (address >> 16) as u16;
    root(net.network().into())..=root(net.broadcast().into())
}

/// Content of one /16.
enum Painted {
    One(u32),
    Blocks(Box<[Leaf; 256]>),
}

/// Content of one /24.
#[derive(Clone)]
enum Leaf {
    One(u32),
    Many(Box<Block>),
}

impl Painted {
    fn uniform(&self) -> u32 {
        if let Self::One(id) = self { *id } else { 0 }
    }
}

/// Paints the prefixes that meet a /16 over each other, the longest last. `v4` is sorted by address.
fn paint(root: u16, v4: &[(Ipv4Net, SegmentId)]) -> Painted {
    let first = u32::from(root) << 16;
    let last = first | 0xffff;
    // Prefixes nest or are disjoint, and sort by address, then length: those that end before it are skipped.
    let end = v4.partition_point(|(net, _)| u32::from(net.network()) <= last);
    let mut meeting: Vec<_> = v4
        .iter()
        .take(end)
        .filter(|(net, _)| u32::from(net.broadcast()) >= first)
        .map(|(net, id)| (net, id.0))
        .collect();
    meeting.sort_by_key(|(net, _)| net.prefix_len());
    let mut base = 0;
    let mut blocks: Option<Box<[Leaf; 256]>> = None;
    for (net, id) in meeting {
        if net.prefix_len() <= 16 {
            base = id;
            continue;
        }
        let blocks = blocks.get_or_insert_with(|| Box::new(std::array::from_fn(|_| Leaf::One(base))));
        let [_, _, from, low] = net.network().octets();
        let [_, _, to, high] = net.broadcast().octets();
        for leaf in blocks.iter_mut().take(usize::from(to) + 1).skip(usize::from(from)) {
            if net.prefix_len() <= 24 {
                *leaf = Leaf::One(id);
                continue;
            }
            if let Leaf::One(under) = *leaf {
                *leaf = Leaf::Many(Box::new([under; 256]));
            }
            if let Leaf::Many(entries) = leaf {
                entries.iter_mut().take(usize::from(high) + 1).skip(usize::from(low)).for_each(|e| *e = id);
            }
        }
    }
    blocks.map_or(Painted::One(base), Painted::Blocks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    use crate::kernel::{BPF_F_RDONLY, may_make_maps};

    const BPF_F_NO_PREALLOC: u32 = 1;

    #[test]
    fn a_table_in_front_of_the_trie_that_could_not_be_written_is_written_the_next_time() {
        if !may_make_maps() {
            return;
        }
        let mut prefixes = Prefixes {
            root: Array::create(1 << 16, 0).unwrap(),
            blocks: Array::create(4, 0).unwrap(),
            v6: LpmTrie::create(16, BPF_F_NO_PREALLOC).unwrap(),
            nets: Nets::of(BPF_F_RDONLY),
            is_due: false,
            live: SharedMap::new(),
            slots: Slots::new(0, 4),
            used: BTreeMap::new(),
            retired: Vec::new(),
            left: BTreeSet::new(),
            has_put: false,
        };
        let wanted = [("fd00::/64".parse().unwrap(), SegmentId(1))].into_iter().collect();
        for _ in 0..3 {
            assert_eq!(prefixes.put(&wanted).failures.len(), 1);
        }
        prefixes.nets = Nets::of(0);
        assert!(prefixes.put(&wanted).failures.is_empty());
        assert_eq!(prefixes.nets.used(), 1, "the line of the prefix");
    }

    fn look_up(painted: &Painted, address: Ipv4Addr) -> u32 {
        let [_, _, third, fourth] = address.octets();
        match painted {
            Painted::One(id) => *id,
            Painted::Blocks(blocks) => match &blocks[usize::from(third)] {
                Leaf::One(id) => *id,
                Leaf::Many(entries) => entries[usize::from(fourth)],
            },
        }
    }

    proptest! {
        #[test]
        fn painting_equals_longest_prefix_match(
            nets in prop::collection::vec((any::<u16>(), 8u8..=32), 0..40),
            probes in prop::collection::vec(any::<u16>(), 200),
        ) {
            let table: BTreeMap<Ipv4Net, SegmentId> = nets
                .iter()
                .zip(1..)
                .map(|((low, bits), id)| {
                    let address = Ipv4Addr::from(0x0a64_0000 | u32::from(*low));
                    (Ipv4Net::new(address, *bits).unwrap().trunc(), SegmentId(id))
                })
                .collect();
            let sorted: Vec<_> = table.into_iter().collect();
            let painted = paint(0x0a64, &sorted);
            for low in probes {
                let address = Ipv4Addr::from(0x0a64_0000 | u32::from(low));
                let longest = sorted.iter().filter(|(net, _)| net.contains(&address)).max_by_key(|(net, _)| net.prefix_len());
                prop_assert_eq!(look_up(&painted, address), longest.map_or(0, |(_, id)| id.0));
            }
        }
    }
}
