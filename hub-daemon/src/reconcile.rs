//! The only write path to the kernel: the set difference between what is wanted and what is there.
//!
//! Each kernel table implements [`Table`]. A pass lists what is ours, deletes what is not wanted and puts
//! what is missing or different. Foreign objects are never listed, so never touched.

use std::collections::BTreeMap;
use std::fmt::Debug;

/// One kernel table, seen as a map of what is ours.
pub trait Table {
    /// What identifies an entry.
    type Key: Ord + Clone + Debug;
    /// What an entry holds, in a form that reads back equal to what was put.
    type Value: PartialEq + Clone + Debug;
    /// What may go wrong; says object and intent.
    type Error: std::error::Error;

    /// Name for reports and metrics.
    fn name(&self) -> &'static str;
    /// Everything of ours that the kernel holds.
    fn list(&mut self) -> impl Future<Output = Result<BTreeMap<Self::Key, Self::Value>, Self::Error>>;
    /// Makes one entry be as given; also replaces a different one.
    fn put(&mut self, key: &Self::Key, value: &Self::Value) -> impl Future<Output = Result<(), Self::Error>>;
    /// Removes one entry; success if it is gone already.
    fn delete(&mut self, key: &Self::Key) -> impl Future<Output = Result<(), Self::Error>>;
}

/// Differences between wanted and found: what to put, what to delete.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference<K, V> {
    /// Missing or different.
    pub put: Vec<(K, V)>,
    /// Found and not wanted.
    pub delete: Vec<K>,
}

/// Compares wanted with found.
pub fn difference<K: Ord + Clone, V: PartialEq + Clone>(
    wanted: &BTreeMap<K, V>,
    found: &BTreeMap<K, V>,
) -> Difference<K, V> {
    Difference {
        put: wanted
            .iter()
            .filter(|(key, value)| found.get(key) != Some(value))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        delete: found.keys().filter(|key| !wanted.contains_key(key)).cloned().collect(),
    }
}
