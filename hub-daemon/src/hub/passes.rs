//! What passes of reconcile could not do, and when they try again.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::{Hub, after};
use crate::model::PersonaId;
use crate::systems::persona::{Life, Record};

/// First and longest wait before a persona that the kernel refused is tried again.
const RETRY: [SignedDuration; 2] = [SignedDuration::from_secs(2), SignedDuration::from_secs(60)];

impl Hub {
    /// Takes note of what a pass could not do, by persona.
    pub(super) fn faults(
        &mut self,
        revision: u64,
        mut faults: BTreeMap<PersonaId, Vec<String>>,
        postponed: &BTreeSet<PersonaId>,
        now: Timestamp,
    ) {
        if postponed.is_empty() {
            self.passed = Some(revision);
        }
        self.revision += 1;
        self.switches_passed(revision, &faults, postponed, now);
        let touched = |record: &Record| match record.life {
            Life::Provisioning => true,
            Life::Active => record.faults.as_slice() != faults.get(&record.id).map_or(&[][..], Vec::as_slice),
            Life::Failed { .. } | Life::Elsewhere | Life::Expired { .. } => false,
        };
        let those = self.records.values().filter(|record| touched(record));
        let ids: Vec<PersonaId> = those.map(|record| record.id.clone()).collect();
        for id in &ids {
            let Some(record) = self.records.get_mut(id) else { continue };
            let found = faults.remove(id).unwrap_or_default();
            match record.life {
                Life::Provisioning if record.since > revision || postponed.contains(id) => {}
                // The pass did not know yet what the network has become.
                Life::Provisioning if !found.is_empty() && self.looked > revision => {}
                Life::Provisioning if found.is_empty() => {
                    record.life = Life::Active;
                    record.attempts = 0;
                    record.faults.clear();
                }
                Life::Provisioning => {
                    let [first, longest] = RETRY;
                    let wait = first.saturating_mul(1 << record.attempts.min(5)).min(longest);
                    record.life = Life::Failed { retry_at: after(now, wait) };
                    record.attempts = record.attempts.saturating_add(1);
                    record.faults = found;
                }
                Life::Active => record.faults = found,
                Life::Failed { .. } | Life::Elsewhere | Life::Expired { .. } => {}
            }
        }
        self.settle_takers(&ids, now);
    }
}
