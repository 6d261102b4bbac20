//! Passes over a table in memory.

use std::collections::{BTreeMap, BTreeSet};

use super::{Against, Table, Tracked, faults, reconcile};
use crate::model::PersonaId;

/// A kernel that refuses the keys in `refused`.
#[derive(Default)]
struct Memory {
    entries: BTreeMap<&'static str, u32>,
    refused: BTreeSet<&'static str>,
    unreadable: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("put {0}: refused")]
struct Refused(&'static str);

impl Table for Memory {
    type Key = &'static str;
    type Value = u32;
    type Found = u32;
    type Error = Refused;
    const NAME: &'static str = "memory";

    fn list(&mut self) -> Result<BTreeMap<&'static str, u32>, Refused> {
        if self.unreadable { Err(Refused("list")) } else { Ok(self.entries.clone()) }
    }
    fn put(&mut self, key: &&'static str, value: &u32) -> Result<(), Refused> {
        if self.refused.contains(key) {
            return Err(Refused(key));
        }
        self.entries.insert(key, *value);
        Ok(())
    }
    fn delete(&mut self, key: &&'static str) -> Result<(), Refused> {
        self.entries.remove(key);
        Ok(())
    }
    fn holds(wanted: &u32, found: &u32) -> bool {
        wanted == found
    }
}

/// The persona of an entry is its first letter.
#[expect(clippy::unnecessary_wraps, reason = "the shape that a pass asks for")]
fn owner(key: &&'static str) -> Option<PersonaId> {
    Some(PersonaId(key.chars().take(1).collect()))
}

#[test]
fn second_pass_changes_nothing() {
    let mut table = Tracked::new(Memory { entries: [("old", 1)].into(), ..Memory::default() });
    let wanted = [("a", 1), ("b", 2)].into();
    let first = reconcile(&mut table, &wanted);
    assert_eq!((first.put, first.deleted, first.drift), (2, 1, 0));
    assert_eq!(table.table().entries, wanted);
    let second = reconcile(&mut table, &wanted);
    assert_eq!((second.put, second.deleted, second.drift), (0, 0, 0));
}

#[test]
fn drift_is_what_was_right_before() {
    let mut table = Tracked::new(Memory::default());
    let mut wanted = BTreeMap::from([("a", 1), ("b", 2), ("c", 3)]);
    reconcile(&mut table, &wanted);
    let entries = &mut table.table().entries;
    entries.remove("a");
    entries.insert("b", 9);
    entries.insert("stranger", 9);
    wanted.insert("c", 4);
    let report = reconcile(&mut table, &wanted);
    assert_eq!((report.put, report.deleted, report.drift), (3, 1, 3));
}

#[test]
fn persona_that_fails_is_taken_back_whole() {
    let mut table = Tracked::new(Memory { refused: ["a2"].into(), ..Memory::default() });
    let wanted = [("a1", 1), ("a2", 2), ("a3", 3), ("b1", 4)].into();
    let mut failed = BTreeSet::new();
    table.put(&wanted, owner, &mut failed);
    assert_eq!(failed, [PersonaId("a".into())].into());
    assert!(!table.table().entries.contains_key("a3"), "puts after the failure are left out");
    table.undo(owner, &failed);
    assert_eq!(table.table().entries, [("b1", 4)].into());
    let report = table.report();
    assert_eq!(report.put, 1);
    assert_eq!(faults(&[report]), [(PersonaId("a".into()), vec!["put a2: refused".to_owned()])].into());
}

#[test]
fn failed_entry_is_no_drift_next_time() {
    let mut table = Tracked::new(Memory { refused: ["a"].into(), ..Memory::default() });
    let wanted = [("a", 1)].into();
    reconcile(&mut table, &wanted);
    assert_eq!(reconcile(&mut table, &wanted).drift, 0);
}

#[test]
fn unreadable_table_is_left_alone() {
    let mut table =
        Tracked::new(Memory { entries: [("a", 1)].into(), unreadable: true, ..Memory::default() });
    let report = reconcile(&mut table, &BTreeMap::new());
    assert_eq!((report.deleted, report.failures.len()), (0, 1));
    assert_eq!(table.table().entries.len(), 1);
}

#[test]
fn teardown_deletes_everything_of_ours() {
    let mut table = Tracked::new(Memory { entries: [("a", 1), ("b", 2)].into(), ..Memory::default() });
    let (removed, failures) = table.teardown();
    assert_eq!(removed, [r#"memory "a""#, r#"memory "b""#]);
    assert!(failures.is_empty() && table.table().entries.is_empty());
}

#[test]
fn a_pass_by_memory_changes_what_is_wanted_and_reads_nothing() {
    let mut table = Tracked::new(Memory::default());
    let mut wanted = BTreeMap::from([("a", 1), ("b", 2), ("c", 3)]);
    let against = |table: &mut Tracked<Memory>, wanted: &BTreeMap<_, _>| {
        table.put_against(Against::Memory, wanted, owner, &mut BTreeSet::new());
        table.delete();
        table.report()
    };
    // Nothing is remembered before the first pass, so it reads.
    assert_eq!(against(&mut table, &wanted).put, 3);
    table.table().unreadable = true;
    assert!(table.left(&wanted));
    wanted.insert("a", 9);
    wanted.remove("b");
    let report = against(&mut table, &wanted);
    assert_eq!((report.put, report.deleted, report.drift, report.failures.len()), (1, 1, 0, 0));
    assert_eq!(table.table().entries, wanted);
    table.table().refused.insert("d1");
    wanted.insert("d1", 1);
    assert_eq!(against(&mut table, &wanted).failures.len(), 1);
    assert!(!table.left(&wanted), "what was refused is tried again");
    table.table().refused.clear();
    assert_eq!(against(&mut table, &wanted).put, 1);
    table.table().unreadable = false;
    table.table().entries.remove("c");
    let report = reconcile(&mut table, &wanted);
    assert_eq!((report.put, report.drift), (1, 1), "a pass that reads finds what others did");
}
