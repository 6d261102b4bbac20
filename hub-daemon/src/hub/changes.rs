//! What changed since the hub was stored last, so that one change costs as much as it is large.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::{IpNet, Ipv6Net};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Hub;
use super::interface_state::StoredInterfaces;
use super::keys::Made;
use super::state::{State, StoredPersona, stored};
use crate::command::Clocks;
use crate::model::{PersonaId, SegmentId};

/// The difference between two stored forms of a hub.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Changes {
    /// Personas that were made or changed.
    pub personas: Vec<StoredPersona>,
    /// Personas that were removed.
    pub removed: Vec<PersonaId>,
    /// Where virtual IPv6 ranges come from.
    pub unique_local: Option<Ipv6Net>,
    /// Numbers of segments that rest.
    pub resting: Rest<SegmentId>,
    /// Ranges out of pools that rest.
    pub resting_ranges: Rest<IpNet>,
    /// Keys of requests that made personas; without a value those that are forgotten.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub keys: BTreeMap<String, Option<Made>>,
    /// Personalities, interfaces and switches, all of them if anything of them changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interfaces: Option<Box<StoredInterfaces>>,
    /// The clocks that its times are by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clocks: Option<Clocks>,
}

/// What began to rest, and what rests no longer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rest<K: Ord> {
    /// Until when.
    pub begun: BTreeMap<K, Timestamp>,
    /// Those that rest no longer.
    pub ended: Vec<K>,
}

impl<K: Ord> Default for Rest<K> {
    fn default() -> Self {
        Self { begun: BTreeMap::new(), ended: Vec::new() }
    }
}

impl<K: Ord + Copy> Rest<K> {
    fn between(before: &BTreeMap<K, Timestamp>, after: &BTreeMap<K, Timestamp>) -> Self {
        let begun = after.iter().filter(|(key, until)| before.get(key) != Some(until));
        Self {
            begun: begun.map(|(key, until)| (*key, *until)).collect(),
            ended: before.keys().filter(|key| !after.contains_key(key)).copied().collect(),
        }
    }

    fn apply(self, resting: &mut BTreeMap<K, Timestamp>) {
        for key in self.ended {
            resting.remove(&key);
        }
        resting.extend(self.begun);
    }
}

/// Everything that rests, as it was stored last.
#[derive(Clone, Debug, Default)]
pub struct Resting {
    /// Numbers of segments.
    pub segments: BTreeMap<SegmentId, Timestamp>,
    /// Ranges out of pools.
    pub ranges: BTreeMap<IpNet, Timestamp>,
}

impl Hub {
    /// How many personas were made, changed or removed since the hub was stored, and how many there are.
    pub fn unsaved(&self) -> (usize, usize) {
        (self.records.unsaved().len(), self.records.len())
    }

    /// What changed since the hub was stored, and `resting` with it. A change that waits for confirmation
    /// is no part of it.
    pub fn changes(&self, resting: &Resting) -> Changes {
        let mut changes = Changes {
            unique_local: Some(self.unique_local),
            resting: Rest::between(&resting.segments, self.segments.resting()),
            resting_ranges: Rest::between(&resting.ranges, self.ranges.resting()),
            keys: self.keys.changes(),
            interfaces: self.must_be_stored().then(|| Box::new(self.stored_interfaces())),
            clocks: self.clocks.clone(),
            ..Changes::default()
        };
        for id in self.records.unsaved() {
            match self.records.get(id) {
                Some(record) => changes.personas.push(stored(record)),
                None => changes.removed.push(id.clone()),
            }
        }
        changes
    }

    /// What rests.
    pub fn resting(&self) -> Resting {
        Resting { segments: self.segments.resting().clone(), ranges: self.ranges.resting().clone() }
    }

    /// Notes that the hub was stored as it is.
    pub fn saved(&mut self) {
        self.records.saved();
        self.keys.saved();
        if self.interfaces.unsaved {
            Arc::make_mut(&mut self.interfaces).unsaved = false;
        }
    }
}

impl State {
    /// Makes changes, the oldest first.
    pub fn change(&mut self, all: impl IntoIterator<Item = Changes>) {
        let personas = std::mem::take(&mut self.personas).into_iter();
        let mut personas: BTreeMap<PersonaId, StoredPersona> =
            personas.map(|persona| (persona.id.clone(), persona)).collect();
        for changes in all {
            for id in changes.removed {
                personas.remove(&id);
            }
            personas.extend(changes.personas.into_iter().map(|persona| (persona.id.clone(), persona)));
            self.unique_local = changes.unique_local.or(self.unique_local);
            if let Some(interfaces) = changes.interfaces {
                self.interfaces = *interfaces;
            }
            self.clocks = changes.clocks.or(self.clocks.take());
            for (key, made) in changes.keys {
                match made {
                    Some(made) => _ = self.keys.insert(key, made),
                    None => _ = self.keys.remove(&key),
                }
            }
            changes.resting.apply(&mut self.resting);
            changes.resting_ranges.apply(&mut self.resting_ranges);
        }
        self.personas = personas.into_values().collect();
    }
}
