//! Passes over a table in memory.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{Against, Round, Table, Tracked, faults, reconcile};
use crate::desired::shared_map::SharedMap;
use crate::model::PersonaId;

/// A kernel that refuses the keys in `refused`.
#[derive(Default)]
struct Memory {
    entries: BTreeMap<&'static str, u32>,
    refused: BTreeSet<&'static str>,
    unreadable: bool,
    done: Vec<String>,
    /// Deletions that fail before one succeeds.
    stuck: u32,
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
    const SLOW: bool = true;

    fn list(&mut self) -> Result<BTreeMap<&'static str, u32>, Refused> {
        if self.unreadable { Err(Refused("list")) } else { Ok(self.entries.clone()) }
    }
    fn put(&mut self, key: &&'static str, value: &u32) -> Result<(), Refused> {
        if self.refused.contains(key) {
            return Err(Refused(key));
        }
        self.entries.insert(key, *value);
        self.done.push(format!("+{key}"));
        Ok(())
    }
    fn delete(&mut self, key: &&'static str) -> Result<(), Refused> {
        if self.stuck > 0 {
            self.stuck -= 1;
            return Err(Refused(key));
        }
        self.entries.remove(key);
        self.done.push(format!("-{key}"));
        Ok(())
    }
    fn holds(wanted: &u32, found: &u32) -> bool {
        wanted == found
    }
}

/// The persona of an entry is its first letter.
fn owner(key: &&'static str) -> Option<PersonaId> {
    Some(PersonaId(key.get(..1)?.into()))
}

#[test]
fn second_pass_changes_nothing() {
    let mut table = Tracked::new(Memory { entries: [("old", 1)].into(), ..Memory::default() });
    let wanted = [("a", 1), ("b", 2)].into();
    let first = reconcile(&mut table, &wanted);
    assert_eq!((first.put, first.deleted, first.drift), (2, 1, 0));
    assert!(table.table().entries.iter().eq(wanted.iter()));
    let second = reconcile(&mut table, &wanted);
    assert_eq!((second.put, second.deleted, second.drift), (0, 0, 0));
}

#[test]
fn drift_is_what_was_right_before() {
    let mut table = Tracked::new(Memory::default());
    let mut wanted = SharedMap::from([("a", 1), ("b", 2), ("c", 3)]);
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
    let mut round = Round::default();
    table.put(&wanted, owner, &mut round);
    assert_eq!(round.failed, [PersonaId("a".into())].into());
    assert!(!table.table().entries.contains_key("a3"), "puts after the failure are left out");
    table.undo(owner, &round.failed);
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
    let report = reconcile(&mut table, &SharedMap::new());
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

/// A round in which the persona of each letter ends at this second.
fn ending<'a>(seconds: &[(&str, i64)], has_time: impl Fn() -> bool + 'a) -> Round<'a> {
    let end =
        |(name, second): &(&str, i64)| (PersonaId((*name).into()), Timestamp::from_second(*second).unwrap());
    Round::by(seconds.iter().map(end).collect(), has_time)
}

/// What a pass with these tables does, in order.
fn done(table: &mut Tracked<Memory>, wanted: &SharedMap<&'static str, u32>, round: &mut Round<'_>) -> String {
    table.table().done.clear();
    // The second letter says what packets an entry is for.
    table.withdraw(wanted, |coming, gone| coming.iter().any(|key| key[1..2] == gone[1..2]));
    table.put(wanted, owner, round);
    table.undo(owner, &round.failed);
    table.delete();
    table.report();
    table.table().done.join(" ")
}

#[test]
fn withdrawals_come_first_and_then_what_ends_sooner() {
    let mut table = Tracked::new(Memory::default());
    let before = [("a1", 1), ("b2", 1), ("c3", 1), ("c4", 1)].into();
    done(&mut table, &before, &mut Round::default());
    let after = [("c4", 2), ("d5", 1), ("e6", 1), ("f2", 1), ("g7", 1)].into();
    let mut round = ending(&[("d", 90), ("e", 30), ("f", 60), ("c", 80)], || true);
    // b2 stays until f2 is there; c4, which is there, changes before anything new comes.
    assert_eq!(done(&mut table, &after, &mut round), "-a1 -c3 +c4 +e6 +f2 +d5 +g7 -b2");
    assert_eq!(done(&mut table, &after, &mut round), "", "a second pass has nothing to do");
}

#[test]
fn withdrawal_that_fails_is_tried_again_in_the_same_pass() {
    let mut table = Tracked::new(Memory::default());
    done(&mut table, &[("a1", 1)].into(), &mut Round::default());
    table.table().stuck = 1;
    assert_eq!(done(&mut table, &SharedMap::new(), &mut Round::default()), "-a1");
    assert!(table.table().entries.is_empty());
}

#[test]
fn a_pass_without_time_leaves_whole_personas_to_the_next() {
    let mut table = Tracked::new(Memory::default());
    let wanted = [("a1", 1), ("b2", 1), ("b3", 1), ("c4", 1)].into();
    let ends = [("a", 50), ("b", 10), ("c", 30)];
    let mut round = ending(&ends, || false);
    assert_eq!(done(&mut table, &wanted, &mut round), "+b2 +b3", "who is begun is finished");
    assert_eq!(round.postponed, [PersonaId("a".into()), PersonaId("c".into())].into());
    let mut round = ending(&ends, || false);
    assert_eq!(done(&mut table, &wanted, &mut round), "+c4");
    let mut round = ending(&ends, || true);
    assert_eq!(done(&mut table, &wanted, &mut round), "+a1");
    assert!(round.postponed.is_empty());
}

#[test]
fn a_pass_by_memory_changes_what_is_wanted_and_reads_nothing() {
    let mut table = Tracked::new(Memory::default());
    let mut wanted = SharedMap::from([("a", 1), ("b", 2), ("c", 3)]);
    let against = |table: &mut Tracked<Memory>, wanted: &SharedMap<_, _>| {
        table.put_against(Against::Memory, wanted, owner, &mut Round::default());
        table.delete();
        table.report()
    };
    // Nothing is remembered before the first pass, so it reads.
    assert_eq!(against(&mut table, &wanted).put, 3);
    table.table().unreadable = true;
    assert!(table.left(&wanted));
    wanted.insert("a", 9);
    wanted.remove(&"b");
    let report = against(&mut table, &wanted);
    assert_eq!((report.put, report.deleted, report.drift, report.failures.len()), (1, 1, 0, 0));
    assert!(table.table().entries.iter().eq(wanted.iter()));
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
