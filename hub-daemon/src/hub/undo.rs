//! A change that could not be stored is taken back.
//!
//! Records remember what they were; what is derived from them is derived again, for this is rare.

use super::{Hub, Life};
use crate::systems::persona::claims::{Claims, Prefixes};

/// Everything of a hub but its records and what follows from them.
#[derive(Debug)]
pub struct Before(Box<Hub>);

impl Hub {
    /// Notes the hub as it is, so that what comes can be taken back.
    pub fn mark(&mut self) -> Before {
        self.records.mark();
        let large = (
            std::mem::take(&mut self.records),
            std::mem::take(&mut self.claims),
            std::mem::take(&mut self.graves),
            std::mem::take(&mut self.inventory),
            (self.shown.take(), self.kept.take()),
        );
        let before = Before(Box::new(self.clone()));
        (self.records, self.claims, self.graves, self.inventory, (self.shown, self.kept)) = large;
        before
    }

    /// Makes the hub be as it was when it was marked; the mark must be its last.
    pub fn undo(&mut self, before: Before) {
        let Self { mut records, inventory, .. } = std::mem::replace(self, *before.0);
        records.undo();
        (self.claims, self.graves) = (Claims::default(), Prefixes::default());
        for record in records.values() {
            match record.life {
                Life::Provisioning | Life::Active | Life::Failed { .. } | Life::Elsewhere => {
                    self.claims.insert(record);
                }
                Life::Expired { holds: true, .. } => self.graves.insert(record),
                Life::Expired { holds: false, .. } => {}
            }
        }
        (self.records, self.inventory) = (records, inventory);
        (self.shown, self.kept) = (None, None);
    }
}
