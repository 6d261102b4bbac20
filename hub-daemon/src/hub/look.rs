//! What the hub learns of the kernel's links, addresses and foreign routes.

use jiff::Timestamp;

use super::Hub;
use crate::command::Inventory;
use crate::systems::persona::Life;

impl Hub {
    /// Takes note of the kernel's state. A range that somebody else routes is no longer a tombstone's.
    pub(super) fn look(&mut self, mut inventory: Inventory, now: Timestamp) {
        let has_queues = std::mem::take(&mut inventory.has_queues);
        if self.passed.is_none() {
            self.queues_stand |= has_queues;
        }
        if self.inventory == inventory {
            return;
        }
        for route in &inventory.foreign_routes {
            for (_, grave) in self.graves.overlapping(route) {
                self.release(&grave, now);
            }
        }
        let others = self.inventory.others().ne(inventory.others())
            || self.inventory.foreign_routes != inventory.foreign_routes
            || self.inventory.foreign_rules != inventory.foreign_rules;
        if !self.inventory.is_ground_of(&inventory) {
            (self.shown, self.kept) = (None, None);
        }
        self.inventory = inventory;
        self.revision += 1;
        if !others {
            return;
        }
        self.looked = self.revision;
        // What failed may have failed for what has changed. What passes made and took back is no such change.
        for record in self.records.select_mut(|record| matches!(record.life, Life::Failed { .. })) {
            record.life = Life::Provisioning;
            record.since = self.revision;
        }
    }
}
