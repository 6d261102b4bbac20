//! Versions of personalities: by content, numbered in the order of their coming, never changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::model::personality::{Digest, Personality, Version, Wanted};
use crate::view::Origin;

/// One version.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// Name and number.
    pub version: Version,
    /// Of the definition.
    pub digest: Digest,
    /// The definition, checked.
    pub personality: Personality,
    /// When it was kept.
    pub created_at: Timestamp,
    /// Who owns it.
    pub origin: Origin,
    /// Compiled rules towards the interface and from it.
    pub rules: [usize; 2],
}

/// All versions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Versions {
    kept: BTreeMap<Version, Arc<Kept>>,
}

impl Versions {
    /// The version, if it is there.
    pub fn get(&self, version: &Version) -> Option<&Arc<Kept>> {
        self.kept.get(version)
    }

    /// What somebody asks for.
    pub fn find(&self, wanted: &Wanted) -> Option<&Arc<Kept>> {
        match wanted.number {
            Some(number) => self.get(&Version { name: wanted.name.clone(), number }),
            None => self.named(&wanted.name).next_back(),
        }
    }

    /// Versions of a name, the oldest first.
    pub fn named(&self, name: &str) -> impl DoubleEndedIterator<Item = &Arc<Kept>> {
        let at = |number| Version { name: name.to_owned(), number };
        self.kept.range(at(0)..=at(u32::MAX)).map(|(_, kept)| kept)
    }

    /// Whether one of them has a bandwidth.
    pub fn limit(&self) -> bool {
        self.values().any(|kept| {
            let qos = kept.personality.document().qos_settings.as_ref();
            qos.is_some_and(|qos| qos.bandwidth.is_some() && qos.police != Some(true))
        })
    }

    /// The version with this content.
    pub fn with_digest(&self, name: &str, digest: &Digest) -> Option<&Arc<Kept>> {
        self.named(name).find(|kept| kept.digest == *digest)
    }

    /// The version that a new content of a name gets.
    pub fn next(&self, name: &str) -> Version {
        let last = self.named(name).next_back().map_or(0, |kept| kept.version.number);
        Version { name: name.to_owned(), number: last.saturating_add(1) }
    }

    /// Keeps a version.
    pub fn insert(&mut self, kept: Kept) {
        self.kept.insert(kept.version.clone(), Arc::new(kept));
    }

    /// Removes a version.
    pub fn remove(&mut self, version: &Version) {
        self.kept.remove(version);
    }

    /// All of them, by name and number.
    pub fn values(&self) -> impl Iterator<Item = &Arc<Kept>> {
        self.kept.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}
