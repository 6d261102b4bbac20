//! What operators put into a persona's sets and quarantine at run time.
//!
//! Elements end by themselves: the data path holds each with its end, and the hub forgets it then.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use hub_common::set::set_number;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::Record;
use crate::desired::Desired;
use crate::model::set::Elements;

/// Most addresses that an operator may keep in one persona's quarantine.
pub const QUARANTINED: usize = 1_024;

/// Elements by set, and addresses in quarantine, with their ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Lists {
    /// Elements of sets beside those of the document; `None` stays for good.
    pub sets: BTreeMap<String, Elements>,
    /// Addresses that are kept out.
    pub quarantine: BTreeMap<IpAddr, Timestamp>,
    /// Counts changes of sets.
    pub generation: u32,
}

impl Lists {
    /// Forgets what has ended. Returns whether anything had.
    pub fn forget(&mut self, now: Timestamp) -> bool {
        let before = self.len();
        for elements in self.sets.values_mut() {
            elements.retain(|_, end| end.is_none_or(|end| end > now));
        }
        self.sets.retain(|_, elements| !elements.is_empty());
        self.quarantine.retain(|_, end| *end > now);
        before != self.len()
    }

    /// Has everything stay as long as it would have, by a clock that was set.
    pub fn shift(&mut self, by: SignedDuration) {
        let elements = self.sets.values_mut().flat_map(BTreeMap::values_mut).flatten();
        for end in elements.chain(self.quarantine.values_mut()) {
            *end = end.saturating_add(by).unwrap_or(Timestamp::MAX);
        }
    }

    /// When the next of them ends.
    pub fn deadline(&self) -> Option<Timestamp> {
        let elements = self.sets.values().flat_map(BTreeMap::values).copied().flatten();
        elements.chain(self.quarantine.values().copied()).min()
    }

    fn len(&self) -> usize {
        self.sets.values().map(BTreeMap::len).sum::<usize>() + self.quarantine.len()
    }
}

impl Record {
    /// Everything in one of its sets: the value of the definition itself where nothing was added.
    pub fn elements(&self, set: &str) -> Arc<Elements> {
        let written = self.persona.sets().get(set).map(|set| Arc::clone(&set.entries)).unwrap_or_default();
        match self.lists.sets.get(set) {
            None => written,
            // What the document has stays, whatever was added.
            Some(added) => {
                let mut elements = added.clone();
                elements.extend(written.iter());
                Arc::new(elements)
            }
        }
    }

    /// Elements of all its sets.
    pub fn element_count(&self) -> usize {
        let added: usize = self.lists.sets.values().map(BTreeMap::len).sum();
        added + self.persona.sets().values().map(|set| set.entries.len()).sum::<usize>()
    }
}

/// Adds a persona's sets and quarantine to what the kernel should hold.
pub fn contribute(desired: &mut Desired, record: &Record) {
    for name in record.persona.sets().keys() {
        desired.sets.insert((record.segment, set_number(name)), record.elements(name));
    }
    // What is beside must find its elements when packets are judged by it.
    let beside = record.candidate.as_ref().filter(|candidate| !candidate.over);
    for (name, set) in beside.into_iter().flat_map(|candidate| candidate.persona.sets()) {
        if !record.persona.sets().contains_key(name) {
            desired.sets.insert((record.segment, set_number(name)), Arc::clone(&set.entries));
        }
    }
    let out = record.lists.quarantine.iter();
    desired.quarantine.extend(out.map(|(address, end)| ((record.segment, *address), *end)));
}
