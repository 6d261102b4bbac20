//! Port sets, shared by all policies that have the same.

use std::collections::BTreeMap;

use aya::Ebpf;
use aya::maps::{Array, MapData};
use hub_common::open::{OPEN_ALL, OPEN_FIRST, OPEN_NONE, PortSet};

use super::slots::Slots;
use super::{MapFault, take};
use crate::model::policy::PortRanges;

/// The map of port sets.
pub struct PortSets {
    map: Array<MapData, PortSet>,
    slots: Slots,
    /// Slot and number of policies that name it.
    live: BTreeMap<PortRanges, (u32, usize)>,
}

impl PortSets {
    /// Takes the map of an object.
    pub fn new(ebpf: &mut Ebpf) -> Result<Self, MapFault> {
        let map: Array<_, PortSet> = take(ebpf, "PORT_SETS")?;
        Ok(Self { slots: Slots::new(0, map.len()), map, live: BTreeMap::new() })
    }

    /// Notes that a live policy of an earlier run names a set.
    pub fn adopt(&mut self, name: u8) -> Result<(), MapFault> {
        let Some(slot) = slot(name) else { return Ok(()) };
        let set = self.map.get(&slot, 0).map_err(kernel)?;
        if let Some((_, users)) = self.live.values_mut().find(|(live, _)| *live == slot) {
            *users += 1;
        } else {
            self.slots.claim(slot, 1);
            self.live.insert(ranges(&set), (slot, 1));
        }
        Ok(())
    }

    /// The name of a set with these ports. Where there is no room it is [`OPEN_NONE`]: connections are
    /// tracked, as without sets.
    pub fn intern(&mut self, ranges: &PortRanges) -> Result<u8, MapFault> {
        if ranges.is_empty() {
            return Ok(OPEN_NONE);
        }
        if *ranges == [[0, u16::MAX]] {
            return Ok(OPEN_ALL);
        }
        if let Some((slot, users)) = self.live.get_mut(ranges) {
            *users += 1;
            return Ok(name(*slot));
        }
        let Some(slot) = self.slots.take(1) else {
            let capacity = self.slots.capacity();
            tracing::warn!(capacity, "no room for another port set: a persona's connections are all tracked");
            return Ok(OPEN_NONE);
        };
        if let Err(source) = self.map.set(slot, PortSet::of(ranges), 0) {
            self.slots.give(slot, 1);
            return Err(kernel(source));
        }
        self.live.insert(ranges.clone(), (slot, 1));
        Ok(name(slot))
    }

    /// Takes back one use of a name that no packet can see any more.
    pub fn release(&mut self, name: u8) {
        let Some(slot) = slot(name) else { return };
        for (live, users) in self.live.values_mut() {
            if *live == slot {
                *users -= 1;
            }
        }
        let before = self.live.len();
        self.live.retain(|_, (_, users)| *users > 0);
        if self.live.len() < before {
            self.slots.give(slot, 1);
        }
    }
}

/// The slot of a name, if it names one.
fn slot(name: u8) -> Option<u32> {
    name.checked_sub(OPEN_FIRST).map(u32::from)
}

/// The name of a slot; the table has as many as there are names, and what has none is asked flow by flow.
fn name(slot: u32) -> u8 {
    u8::try_from(slot).ok().and_then(|slot| slot.checked_add(OPEN_FIRST)).unwrap_or(OPEN_NONE)
}

/// A set as merged ranges.
fn ranges(set: &PortSet) -> PortRanges {
    let mut ranges: PortRanges = Vec::new();
    for port in (0..=u16::MAX).filter(|port| set.holds(*port)) {
        match ranges.last_mut() {
            Some([_, last]) if *last + 1 == port => *last = port,
            _ => ranges.push([port, port]),
        }
    }
    ranges
}

fn kernel(source: aya::maps::MapError) -> MapFault {
    MapFault::Kernel { map: "PORT_SETS", source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_reads_back_as_its_ranges() {
        for written in [vec![[0, 0]], vec![[1, 3], [5, 5], [443, 8_443]], vec![[60_000, u16::MAX]]] {
            assert_eq!(ranges(&PortSet::of(&written)), written);
        }
    }
}
