//! The filter before the hub's own addresses: one bit per place of an address.
//!
//! A clear bit denies that an address is the hub's, so bits come before addresses and go after them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use aya::Ebpf;
use aya::maps::{Array, IterableMap as _, MapData, MapError};
use hub_common::address::{Address, scatter};
use hub_common::limits::LOCAL_WORDS;

use super::{MapFault, take};
use crate::kernel::batch;

/// Name of the map.
const NAME: &str = "LOCAL_BITS";

/// The map of bits.
pub struct LocalBits {
    map: Array<MapData, u64>,
    live: BTreeMap<u32, u64>,
}

impl LocalBits {
    /// Takes the map of an object and reads what an earlier run left.
    pub fn new(ebpf: &mut Ebpf) -> Result<Self, MapFault> {
        let map: Array<_, u64> = take(ebpf, NAME)?;
        let mut live = BTreeMap::new();
        let note = |index: &u32, words: &[u64]| {
            live.extend(words.iter().filter(|word| **word != 0).map(|word| (*index, *word)));
            ControlFlow::Continue(())
        };
        batch::entries(map.map(), note).map_err(|error| kernel(MapError::IoError(error)))?;
        Ok(Self { map, live })
    }

    /// Sets the bits of these addresses.
    pub fn set(&mut self, addresses: &BTreeSet<Address>) -> Result<(), MapFault> {
        for (index, bits) in words(addresses) {
            let word = self.live.get(&index).copied().unwrap_or(0) | bits;
            self.store(index, word)?;
        }
        Ok(())
    }

    /// Clears all bits but those of these addresses.
    pub fn keep(&mut self, addresses: &BTreeSet<Address>) -> Result<(), MapFault> {
        let wanted = words(addresses);
        let there: Vec<u32> = self.live.keys().copied().collect();
        for index in there {
            self.store(index, wanted.get(&index).copied().unwrap_or(0))?;
        }
        Ok(())
    }

    fn store(&mut self, index: u32, word: u64) -> Result<(), MapFault> {
        if self.live.get(&index).copied().unwrap_or(0) == word {
            return Ok(());
        }
        self.map.set(index, word, 0).map_err(kernel)?;
        if word == 0 {
            self.live.remove(&index)
        } else {
            self.live.insert(index, word)
        };
        Ok(())
    }
}

/// The words with the bits of these addresses.
pub fn words(addresses: &BTreeSet<Address>) -> BTreeMap<u32, u64> {
    const BITS: u32 = LOCAL_WORDS.trailing_zeros() + 6;
    let mut words = BTreeMap::new();
    for address in addresses {
        let place = scatter(address, BITS);
        *words.entry(place >> 6).or_default() |= 1 << (place & 63);
    }
    words
}

fn kernel(source: MapError) -> MapFault {
    MapFault::Kernel { map: NAME, source }
}
