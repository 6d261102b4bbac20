//! The only write path to the kernel: the set difference between what is wanted and what is there.
//!
//! Each kernel table implements [`Table`]. A pass lists what is ours, puts what is missing or different and
//! deletes what is not wanted. Foreign objects are never listed, so never touched.
//!
//! A pass over all tables puts from what is referred to to what refers, and deletes the other way round:
//!
//! 1. rules and routes that nobody wants any more and that nothing of this pass takes over from (`withdraw`);
//! 2. links and their switches (`tables::network::Network::put_links`);
//! 3. maps of the data path: segments and policies, prefixes, peers, then ports with their programs;
//! 4. forwarding, addresses, routes, rules (`put_paths`): only now do packets come;
//! 5. what this pass put for a persona of which something failed is taken back (`undo`);
//! 6. rules, routes, addresses; maps; links, switches that are no longer wanted.
//!
//! Within a table what takes an entry's place comes first, then what ends sooner ([`Round`]).
//!
//! A persona is in the kernel whole or not at all: once a put of it has failed, its further puts are left
//! out, and the hub, told by [`faults`], stops wanting the rest.

mod round;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use crate::desired::shared_map::SharedMap;
use crate::model::PersonaId;
pub use round::Round;

/// One kernel table, seen as a map of what is ours.
///
/// Calls block until the kernel has answered: system calls of this kind cannot be waited for, so a pass
/// runs on a thread of its own.
pub trait Table {
    /// What identifies an entry.
    type Key: Ord + Clone + Debug;
    /// What an entry should hold.
    type Value: PartialEq + Clone + Debug;
    /// What an entry was found to hold, as far as the kernel tells.
    type Found: Clone + Debug;
    /// What may go wrong; says object and intent.
    type Error: std::error::Error;

    /// Name for reports and metrics.
    const NAME: &'static str;
    /// Whether one entry takes so long to make that a pass makes only as many as it has time for.
    const SLOW: bool = false;

    /// Everything of ours that the kernel holds.
    fn list(&mut self) -> Result<BTreeMap<Self::Key, Self::Found>, Self::Error>;
    /// Makes one entry be as given; also replaces a different one.
    fn put(&mut self, key: &Self::Key, value: &Self::Value) -> Result<(), Self::Error>;
    /// Removes one entry; success if it is gone already.
    fn delete(&mut self, key: &Self::Key) -> Result<(), Self::Error>;
    /// Removes entries; tells which could not be removed, and why. For tables that know a faster way.
    fn delete_all(&mut self, keys: &[Self::Key]) -> Vec<(Self::Key, Self::Error)> {
        let failure = |key: &Self::Key| Some((key.clone(), self.delete(key).err()?));
        keys.iter().filter_map(failure).collect()
    }
    /// Whether what was found is what is wanted.
    fn holds(wanted: &Self::Value, found: &Self::Found) -> bool;
    /// Names an entry for people.
    fn describe(key: &Self::Key) -> String {
        format!("{} {key:?}", Self::NAME)
    }
}

/// What a pass compares with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// What the kernel holds, read back: finds what others did.
    Kernel,
    /// What the last pass left right: for a change of what is wanted, between passes that read everything.
    Memory,
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
pub fn difference<T: Table>(
    wanted: &SharedMap<T::Key, T::Value>,
    found: &BTreeMap<T::Key, T::Found>,
) -> Difference<T::Key, T::Value> {
    Difference {
        put: wanted
            .iter()
            .filter(|(key, value)| !found.get(key).is_some_and(|found| T::holds(value, found)))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        delete: found.keys().filter(|key| !wanted.contains_key(key)).cloned().collect(),
    }
}

/// What one pass did to one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Name of the table.
    pub table: &'static str,
    /// Entries put.
    pub put: usize,
    /// Entries deleted.
    pub deleted: usize,
    /// Entries that the pass before left right and this one found missing, different or added.
    pub drift: usize,
    /// What could not be done.
    pub failures: Vec<Failure>,
}

impl Report {
    /// Notes what came of putting one object: whether it changed, or why it could not be put.
    pub fn note<E: std::fmt::Display>(
        &mut self,
        put: Result<bool, E>,
        object: impl FnOnce() -> String,
        persona: Option<&PersonaId>,
    ) {
        match put {
            Ok(changed) => self.put += usize::from(changed),
            Err(error) => self.failures.push(Failure {
                object: object(),
                error: error.to_string(),
                persona: persona.cloned(),
            }),
        }
    }
}

/// One thing that could not be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The object.
    pub object: String,
    /// Why, with object and intent.
    pub error: String,
    /// Whose the object is; `None` for what belongs to no persona.
    pub persona: Option<PersonaId>,
}

/// Failures by persona, as `Command::Faults` wants them.
pub fn faults(reports: &[Report]) -> BTreeMap<PersonaId, Vec<String>> {
    let mut faults: BTreeMap<PersonaId, Vec<String>> = BTreeMap::new();
    for failure in reports.iter().flat_map(|report| &report.failures) {
        if let Some(persona) = &failure.persona {
            faults.entry(persona.clone()).or_default().push(failure.error.clone());
        }
    }
    faults
}

/// A table with the memory of its last pass.
pub struct Tracked<T: Table> {
    table: T,
    /// What the last pass left right; `None` before the first.
    last: Option<SharedMap<T::Key, T::Value>>,
    /// Left to delete in this pass.
    delete: Vec<T::Key>,
    /// Put in this pass.
    put: Vec<T::Key>,
    /// Personas of which this pass put something, where that is slow.
    begun: BTreeSet<PersonaId>,
    report: Report,
}

impl<T: Table> Tracked<T> {
    /// Tracks a table of which nothing is known yet.
    pub fn new(table: T) -> Self {
        let report = Report { table: T::NAME, ..Report::default() };
        Self { table, last: None, delete: Vec::new(), put: Vec::new(), begun: BTreeSet::new(), report }
    }

    /// The table itself.
    pub fn table(&mut self) -> &mut T {
        &mut self.table
    }

    /// Deletes what the last pass left and nobody wants any more, before anything is put. What something
    /// that is still to be put takes over from has to stay until then: `succeeds(coming, gone)`.
    pub fn withdraw(
        &mut self,
        wanted: &SharedMap<T::Key, T::Value>,
        succeeds: impl Fn(&BTreeSet<&T::Key>, &T::Key) -> bool,
    ) {
        let Some(last) = &self.last else { return };
        let (mut gone, mut coming) = (Vec::new(), BTreeSet::new());
        for (key, _, value) in last.changes(wanted) {
            if value.is_some() {
                coming.insert(key);
            } else {
                gone.push(key.clone());
            }
        }
        gone.retain(|key| !succeeds(&coming, key));
        let failed: BTreeSet<T::Key> = self.table.delete_all(&gone).into_iter().map(|(key, _)| key).collect();
        // What failed is found and deleted again at the end of the pass, which then says why.
        for key in gone.iter().filter(|key| !failed.contains(key)) {
            self.report.deleted += 1;
            self.forget(key);
        }
    }

    /// Whether the last pass left exactly this.
    pub fn left(&self, wanted: &SharedMap<T::Key, T::Value>) -> bool {
        self.last.as_ref() == Some(wanted)
    }

    /// Begins a pass, as [`Self::put`] does or by memory. Deletes of an earlier pass that failed are found by
    /// the next pass that reads everything.
    pub fn put_against(
        &mut self,
        against: Against,
        wanted: &SharedMap<T::Key, T::Value>,
        owner: impl Fn(&T::Key) -> Option<PersonaId>,
        round: &mut Round<'_>,
    ) {
        let Some(last) = self.last.as_mut().filter(|_| against == Against::Memory) else {
            return self.put(wanted, owner, round);
        };
        self.delete.clear();
        let (mut put, mut known) = (Vec::new(), BTreeSet::new());
        for (key, before, value) in last.changes(wanted) {
            let Some(value) = value else {
                self.delete.push(key.clone());
                continue;
            };
            if before.is_some() {
                known.insert(key.clone());
            }
            put.push((key.clone(), value.clone()));
        }
        *last = wanted.clone();
        self.put_in_order(put, |key| known.contains(key), owner, round);
    }

    /// Begins a pass: lists, compares, and puts what is missing or different. Leaves out, and adds to,
    /// the personas of which something has failed in this `round`.
    pub fn put(
        &mut self,
        wanted: &SharedMap<T::Key, T::Value>,
        owner: impl Fn(&T::Key) -> Option<PersonaId>,
        round: &mut Round<'_>,
    ) {
        self.delete.clear();
        let found = match self.table.list() {
            Ok(found) => found,
            Err(error) => return self.fail(T::NAME.to_owned(), &error, None),
        };
        let Difference { put, delete } = difference::<T>(wanted, &found);
        if let Some(last) = &self.last {
            let lost = put.iter().filter(|(key, value)| last.get(key) == Some(value)).count();
            let added = delete.iter().filter(|key| !last.contains_key(key)).count();
            self.report.drift += lost + added;
        }
        self.last = Some(wanted.clone());
        self.delete = delete;
        self.put_in_order(put, |key| found.contains_key(key), owner, round);
    }

    /// What replaces an entry comes first, then what ends sooner.
    fn put_in_order(
        &mut self,
        put: Vec<(T::Key, T::Value)>,
        is_there: impl Fn(&T::Key) -> bool,
        owner: impl Fn(&T::Key) -> Option<PersonaId>,
        round: &mut Round<'_>,
    ) {
        let mut put: Vec<_> = put.into_iter().map(|(key, value)| (owner(&key), key, value)).collect();
        put.sort_by_cached_key(|(owner, key, _)| (!is_there(key), round.urgency(owner.as_ref())));
        for (owner, key, value) in put {
            self.put_one(&key, &value, owner, round);
        }
    }

    fn put_one(&mut self, key: &T::Key, value: &T::Value, owner: Option<PersonaId>, round: &mut Round<'_>) {
        if T::SLOW
            && !self.put.is_empty()
            && !round.has_time()
            && let Some(owner) = owner.clone().filter(|owner| !self.begun.contains(owner))
        {
            round.postpone(owner);
        }
        if round.leaves_out(owner.as_ref()) {
            return self.forget(key);
        }
        if T::SLOW {
            self.begun.extend(owner.clone());
        }
        match self.table.put(key, value) {
            Ok(()) => {
                self.report.put += 1;
                self.put.push(key.clone());
            }
            Err(error) => {
                round.failed.extend(owner.clone());
                self.forget(key);
                self.fail(T::describe(key), &error, owner);
            }
        }
    }

    /// Takes back what this pass put for personas that failed, the last first. What it replaced does not
    /// come back: of a persona that failed nothing is wanted.
    pub fn undo(&mut self, owner: impl Fn(&T::Key) -> Option<PersonaId>, failed: &BTreeSet<PersonaId>) {
        for key in std::mem::take(&mut self.put).into_iter().rev() {
            let Some(owner) = owner(&key).filter(|owner| failed.contains(owner)) else { continue };
            self.forget(&key);
            match self.table.delete(&key) {
                Ok(()) => self.report.put -= 1,
                Err(error) => self.fail(T::describe(&key), &error, Some(owner)),
            }
        }
    }

    /// Deletes what [`Self::put`] found and nobody wants.
    pub fn delete(&mut self) {
        let keys = std::mem::take(&mut self.delete);
        let failures = self.table.delete_all(&keys);
        self.report.deleted += keys.len() - failures.len();
        for (key, error) in failures {
            self.fail(T::describe(&key), &error, None);
        }
    }

    /// Ends a pass: what it did.
    pub fn report(&mut self) -> Report {
        self.put.clear();
        self.begun.clear();
        std::mem::replace(&mut self.report, Report { table: T::NAME, ..Report::default() })
    }

    /// Names what is ours and not wanted, or says why that is not known.
    pub fn orphans(&mut self, wanted: &SharedMap<T::Key, T::Value>) -> Vec<String> {
        match self.table.list() {
            Ok(found) => found.keys().filter(|key| !wanted.contains_key(key)).map(T::describe).collect(),
            Err(error) => vec![format!("{}: {error}", T::NAME)],
        }
    }

    /// Deletes everything of ours; goes on when something fails. Names what it deleted.
    pub fn teardown(&mut self) -> (Vec<String>, Vec<Failure>) {
        self.put(&SharedMap::new(), |_| None, &mut Round::default());
        let names = self.delete.iter().map(T::describe).collect::<BTreeSet<_>>();
        self.delete();
        let failures = self.report().failures;
        let failed = failures.iter().map(|failure| failure.object.clone()).collect();
        (names.difference(&failed).cloned().collect(), failures)
    }

    /// The kernel does not hold this entry, though it is wanted.
    fn forget(&mut self, key: &T::Key) {
        if let Some(last) = &mut self.last {
            last.remove(key);
        }
    }

    fn fail(&mut self, object: String, error: &T::Error, persona: Option<PersonaId>) {
        self.report.failures.push(Failure { object, error: error.to_string(), persona });
    }
}

/// A whole pass over one table that no persona owns entries of.
pub fn reconcile<T: Table>(table: &mut Tracked<T>, wanted: &SharedMap<T::Key, T::Value>) -> Report {
    table.put(wanted, |_| None, &mut Round::default());
    table.delete();
    table.report()
}

#[cfg(test)]
mod tests;
