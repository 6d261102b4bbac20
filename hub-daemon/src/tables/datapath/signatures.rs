//! Signatures by slot, shared by all rules that ask for the same.
//!
//! Connections remember slots. So one keeps its meaning for as long as there are others to take; a slot that is
//! used again says when that began, and connections older than that are not taken for it.

use std::collections::BTreeMap;

use aya::Ebpf;
use aya::maps::{Array, MapData, MapError};
use hub_common::application::Signature;

use super::{MapFault, take};

/// The map of signatures.
pub(super) struct Signatures {
    map: Array<MapData, Signature>,
    /// What slots hold, from the first on, and how many policies name each.
    slots: Vec<(Signature, usize)>,
    /// Slots that policies name, by policy word.
    named: BTreeMap<u32, Vec<u8>>,
}

impl Signatures {
    /// Takes the map of an object, with what an earlier run left.
    pub(super) fn new(ebpf: &mut Ebpf, adopted: bool) -> Result<Self, MapFault> {
        let map: Array<_, Signature> = take(ebpf, "SIGNATURE_TABLE")?;
        let mut slots = Vec::new();
        while adopted && slots.len() < map.len() as usize {
            let signature = map.get(&index(slots.len()), 0).map_err(kernel)?;
            if signature.born_tick == 0 {
                break;
            }
            slots.push((signature, 0));
        }
        Ok(Self { map, slots, named: BTreeMap::new() })
    }

    /// Notes that a live policy of an earlier run names a signature (slot plus 1).
    pub(super) fn adopt(&mut self, word: u32, signature: u8) {
        if signature != 0 {
            self.name(word, signature);
        }
    }

    /// The slot plus 1 of a signature that a policy names.
    pub(super) fn intern(&mut self, word: u32, signature: &Signature, tick: u64) -> Result<u8, MapFault> {
        let slot = match self.slots.iter().position(|(held, _)| held.asks_as(signature)) {
            Some(slot) => slot,
            None => self.place(signature, tick)?,
        };
        let name = u8::try_from(slot + 1).unwrap_or_default();
        self.name(word, name);
        Ok(name)
    }

    fn place(&mut self, signature: &Signature, tick: u64) -> Result<usize, MapFault> {
        let born = Signature { born_tick: tick.max(1), ..*signature };
        if self.slots.len() < self.map.len() as usize {
            let slot = self.slots.len();
            self.map.set(index(slot), born, 0).map_err(kernel)?;
            if let Some((before, _)) = slot.checked_sub(1).and_then(|before| self.slots.get_mut(before)) {
                before.more = 1;
                // Packets look at a slot once the one before says that there is more.
                self.map.set(index(slot - 1), *before, 0).map_err(kernel)?;
            }
            self.slots.push((born, 0));
            return Ok(slot);
        }
        let full = MapFault::Full { map: "SIGNATURE_TABLE", capacity: self.map.len() };
        let slot = self.slots.iter().position(|(_, users)| *users == 0).ok_or(full)?;
        let Some((held, _)) = self.slots.get_mut(slot) else { return Ok(slot) };
        let born = Signature { more: held.more, ..born };
        // Nobody takes the half of one and the half of the other for a signature.
        self.map.set(index(slot), Signature { born_tick: 0, ..*held }, 0).map_err(kernel)?;
        super::grace::wait();
        self.map.set(index(slot), Signature { born_tick: 0, ..born }, 0).map_err(kernel)?;
        self.map.set(index(slot), born, 0).map_err(kernel)?;
        *held = born;
        Ok(slot)
    }

    fn name(&mut self, word: u32, signature: u8) {
        let named = self.named.entry(word).or_default();
        if !named.contains(&signature) {
            named.push(signature);
            if let Some((_, users)) = self.slots.get_mut(usize::from(signature).wrapping_sub(1)) {
                *users += 1;
            }
        }
    }

    /// Takes back what a policy named that no packet can see any more.
    pub(super) fn release(&mut self, word: u32) {
        for signature in self.named.remove(&word).unwrap_or_default() {
            if let Some((_, users)) = self.slots.get_mut(usize::from(signature).wrapping_sub(1)) {
                *users = users.saturating_sub(1);
            }
        }
    }
}

fn index(slot: usize) -> u32 {
    u32::try_from(slot).unwrap_or(u32::MAX)
}

fn kernel(source: MapError) -> MapFault {
    MapFault::Kernel { map: "SIGNATURE_TABLE", source }
}
