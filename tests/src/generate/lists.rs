//! Random sets, quarantine and limits.

use super::{Random, SEGMENTS, World, masked};
use crate::model::{Element, Limit};

/// Sets of each segment, numbered from 1.
pub(super) const SETS: usize = 3;
/// Slots of limits.
pub(super) const LIMITS: [u16; 6] = [1, 2, 3, 4, 5, 6];

impl World {
    pub(super) fn add_lists(&mut self, random: &mut Random) {
        for slot in LIMITS {
            let burst = random.pick(&[1, 2, 5, 30]).unwrap();
            let (per_packet, per_source) = (random.chance(50), random.chance(40));
            let connections = if slot > 4 { burst.min(2).try_into().ok() } else { None };
            let burst = if slot == 6 { u64::MAX } else { burst };
            self.model.limits.insert(slot, Limit { burst, per_packet, per_source, connections });
        }
        for segment in 1..=SEGMENTS {
            for set in 1..=SETS {
                let elements = (0..random.below(5)).map(|_| self.element(random)).collect();
                self.model.sets.insert((segment, set as u32), elements);
            }
        }
        if random.chance(10) {
            let segment = random.below(SEGMENTS as usize + 1) as u32;
            let list = if random.chance(50) { &self.remotes } else { &self.members };
            let address = random.pick(list).unwrap();
            let until = random.one_of(&[(80, u64::MAX), (20, 1)]);
            self.model.quarantine.insert((segment, address), until);
        }
    }

    /// Changes a set, as an operator would at run time. Returns the segment whose set it is.
    pub fn change_set(&mut self, random: &mut Random) -> u32 {
        let segment = 1 + random.below(SEGMENTS as usize) as u32;
        let element = self.element(random);
        let elements = self.model.sets.get_mut(&(segment, 1 + random.below(SETS) as u32)).unwrap();
        if elements.is_empty() || random.chance(60) {
            elements.push(element);
        } else {
            elements.swap_remove(random.below(elements.len()));
        }
        if let Some(segment) = self.model.segments.get_mut(&segment) {
            segment.set_generation += 1;
        }
        segment
    }

    fn element(&self, random: &mut Random) -> Element {
        let list = if random.chance(60) { &self.remotes } else { &self.members };
        let address = random.pick(list).unwrap();
        let bits: &[u8] = if address.is_ipv4() { &[8, 16, 24, 32] } else { &[16, 32, 48, 64, 128] };
        let bits = random.pick(bits).unwrap();
        let until_tick = random.one_of(&[(85, u64::MAX), (15, 1)]);
        Element { address: masked(address, bits), bits, until_tick }
    }
}
