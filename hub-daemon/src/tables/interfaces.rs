//! Interfaces with a personality: their addresses, sizes, and both slots of their routing tables.
//!
//! A pass has three steps. [`Interfaces::prepare`] puts what is missing, before the data path changes: new
//! addresses are there beside old ones, and the table of the slot that is not live is filled. [`Interfaces::flip`]
//! makes packets use the other slot: one rule comes or goes. [`Interfaces::retire`] deletes what nobody wants,
//! when nothing uses it any more.
//!
//! Ours are addresses with protocol 178, routes with protocol 177 in tables from 17800000 on, and rules with
//! protocol 177 and the priorities of slots; everything else in a namespace is never touched. An address that is
//! wanted and there already without our mark is left as it is. What fails is told of the interface's persona, and
//! takes nothing back: what packets use stays as it was until the hub wants something else.

mod addresses;
mod conflicts;
mod memory;
mod outcome;
mod rules;
mod sizes;
mod space;
mod twins;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use conflicts::Conflicts;
use memory::Memory;
use outcome::{InterfaceError, Outcome};
use space::Space;

use crate::desired::interfaces::{Interface, Slot};
use crate::desired::{Desired, Namespace};
use crate::kernel::namespace::OpenNamespace;
use crate::kernel::netlink::NetlinkError;
use crate::reconcile::{Against, Failure, Report};

/// Name for reports.
const NAME: &str = "interfaces";

/// What tells namespaces apart; `None` is the hub's own.
type Home = Option<(u64, u64)>;

/// Interfaces of all namespaces.
pub struct Interfaces {
    memory: Memory,
    spaces: BTreeMap<Home, Space>,
    /// Where each record's interface is.
    homes: BTreeMap<String, Home>,
    /// What the last pass was asked for.
    last: BTreeMap<String, Interface>,
    /// Addresses that somebody else has.
    conflicts: Conflicts,
    /// Namespaces that this pass works in.
    due: BTreeSet<Home>,
    /// What could not be done, by record; kept until that is tried again.
    failures: BTreeMap<Option<String>, Vec<Failure>>,
    report: Report,
}

impl Interfaces {
    /// Interfaces of namespaces that are remembered in `runtime_dir`, none of which was looked at yet.
    pub fn new(runtime_dir: &Path) -> Self {
        Self {
            memory: Memory::new(runtime_dir),
            spaces: BTreeMap::new(),
            homes: BTreeMap::new(),
            last: BTreeMap::new(),
            conflicts: Conflicts::default(),
            due: BTreeSet::new(),
            failures: BTreeMap::new(),
            report: Report { table: NAME, ..Report::default() },
        }
    }

    /// Begins a pass: puts addresses, sizes, routes of both slots, and rules, and leaves the choice of slots as it is.
    pub fn prepare(&mut self, desired: &Desired, against: Against) {
        self.due.clear();
        let wanted = &desired.interfaces;
        let failed: BTreeSet<String> = self.failures.keys().flatten().cloned().collect();
        let is_tried_again = failed.iter().any(|name| wanted.contains_key(name));
        if against == Against::Memory && self.last == *wanted && !is_tried_again {
            return;
        }
        let changed: BTreeSet<String> = wanted
            .iter()
            .filter(|(name, interface)| {
                against == Against::Kernel
                    || self.last.get(*name) != Some(*interface)
                    // What could not be done is tried again.
                    || failed.contains(*name)
            })
            .map(|(name, _)| name.clone())
            .chain(self.last.keys().filter(|name| !wanted.contains_key(*name)).cloned())
            .collect();
        self.failures.remove(&None);
        for name in &changed {
            self.due.extend(self.homes.remove(name));
            self.failures.remove(&Some(name.clone()));
            if let Some(interface) = wanted.get(name) {
                self.find(name, interface);
            }
        }
        if against == Against::Kernel {
            self.visit();
        }
        let last = &self.last;
        let is_same = |name: &str| last.get(name).is_some_and(|last| wanted.get(name) == Some(last));
        self.conflicts.forget(|name| against == Against::Kernel || !is_same(name));
        let due: Vec<Home> = self.due.iter().copied().collect();
        let mut outcomes =
            due.into_iter().filter_map(|home| Some((home, self.read_space(home, wanted)?))).collect();
        self.conflicts.ask(&mut self.spaces, &mut outcomes);
        for (home, outcome) in outcomes {
            self.prepare_space(home, outcome, wanted, against);
        }
        self.last.clone_from(wanted);
    }

    /// Finds the namespace of an interface.
    fn find(&mut self, record: &str, interface: &Interface) {
        let result = self.enter(interface.place.namespace.as_ref());
        match result {
            Ok(home) => {
                self.homes.insert(record.to_owned(), home);
                self.due.insert(home);
            }
            Err(error) => self.fail(Some(record.to_owned()), &error, Some(interface)),
        }
    }

    /// Looks at namespaces that something was put in before: by this daemon or by one that is gone.
    fn visit(&mut self) {
        let remembered = match self.memory.namespaces() {
            Ok(remembered) => remembered,
            Err(error) => return self.fail(None, &error.into(), None),
        };
        self.due.extend(self.spaces.keys());
        for namespace in remembered {
            match self.enter(namespace.as_ref()) {
                Ok(home) => {
                    self.due.insert(home);
                }
                // What was in a namespace went with it. Who wants it is told by its interface.
                Err(InterfaceError::Namespace(_)) if self.is_wanted(namespace.as_ref()) => {}
                Err(InterfaceError::Namespace(_)) => {
                    if let Err(error) = self.memory.leave(namespace.as_ref()) {
                        self.fail(None, &error.into(), None);
                    }
                }
                Err(error) => self.fail(None, &error, None),
            }
        }
    }

    fn is_wanted(&self, namespace: Option<&Namespace>) -> bool {
        self.last.values().any(|interface| interface.place.namespace.as_ref() == namespace)
    }

    fn enter(&mut self, name: Option<&Namespace>) -> Result<Home, InterfaceError> {
        let namespace = name.map(OpenNamespace::open).transpose()?;
        let home = namespace.as_ref().map(OpenNamespace::identity);
        if let Entry::Vacant(place) = self.spaces.entry(home) {
            place.insert(Space::open(name.cloned(), namespace)?);
        }
        Ok(home)
    }

    /// Whether the interface of a record is another record's, as the last pass found.
    pub fn is_twin(&self, record: &str) -> bool {
        let space = self.homes.get(record).and_then(|home| self.spaces.get(home));
        space.is_some_and(|space| space.wanted.twins.contains(record))
    }

    fn records<'a>(
        &self,
        home: Home,
        wanted: &'a BTreeMap<String, Interface>,
    ) -> BTreeMap<&'a str, &'a Interface> {
        let here = wanted.iter().filter(|(name, _)| self.homes.get(*name) == Some(&home));
        here.map(|(name, interface)| (name.as_str(), interface)).collect()
    }

    /// Reads what a namespace holds, and what is wanted of it; `None` if nothing can be done there.
    fn read_space(&mut self, home: Home, wanted: &BTreeMap<String, Interface>) -> Option<Outcome> {
        let records = self.records(home, wanted);
        for name in records.keys() {
            self.failures.remove(&Some((*name).to_owned()));
        }
        let space = self.spaces.get_mut(&home)?;
        let mut outcome = Outcome::default();
        let entered = if records.is_empty() { Ok(()) } else { self.memory.enter(space.name.as_ref()) };
        match entered.map_err(InterfaceError::from).and_then(|()| space.read(&records, &mut outcome)) {
            Ok(()) => Some(outcome),
            Err(error) => {
                self.due.remove(&home);
                for (name, interface) in &records {
                    self.fail(Some((*name).to_owned()), &error, Some(interface));
                }
                None
            }
        }
    }

    /// Puts what is missing in a namespace that was read.
    fn prepare_space(
        &mut self,
        home: Home,
        mut outcome: Outcome,
        wanted: &BTreeMap<String, Interface>,
        against: Against,
    ) {
        let records = self.records(home, wanted);
        let is_same = records.iter().all(|(name, interface)| self.last.get(*name) == Some(interface));
        let Some(space) = self.spaces.get_mut(&home) else { return };
        space.put(&records, &mut self.memory, &mut outcome);
        if is_same && against == Against::Kernel {
            self.report.drift += outcome.put;
        }
        self.take(outcome, wanted);
    }

    /// Makes packets of every interface use the slot that is wanted. To be called right after the data path
    /// changed.
    pub fn flip_all(&mut self, desired: &Desired) {
        for (name, interface) in &desired.interfaces {
            let Some(home) = self.homes.get(name).filter(|home| self.due.contains(*home)) else { continue };
            let Some(space) = self.spaces.get(home) else { continue };
            if space.live(interface).is_some_and(|live| live != interface.live)
                && let Err(error) = self.flip(name, interface.live)
            {
                self.fail(Some(name.clone()), &error.into(), Some(interface));
                // The next pass tries again.
                self.last.remove(name);
            }
        }
    }

    /// Makes packets of one interface use a slot, by one system call in which one rule for each family (and for
    /// each address, where only packets from addresses use the tables) comes or goes.
    ///
    /// # Errors
    ///
    /// The kernel refused. Of an interface that no pass knows nothing is done.
    pub fn flip(&mut self, record: &str, slot: Slot) -> Result<(), NetlinkError> {
        let Some(interface) = self.last.get_mut(record) else { return Ok(()) };
        let Some(space) = self.homes.get(record).and_then(|home| self.spaces.get_mut(home)) else {
            return Ok(());
        };
        self.report.put += space.flip(interface, slot)?;
        interface.live = slot;
        Ok(())
    }

    /// Ends a pass: deletes rules, routes and addresses that nobody wants, and puts sizes back.
    pub fn retire(&mut self, desired: &Desired) {
        for home in std::mem::take(&mut self.due) {
            let Some(space) = self.spaces.get_mut(&home) else { continue };
            let mut outcome = Outcome::default();
            space.retire(&mut self.memory, &mut outcome);
            if space.is_empty() && outcome.failures.is_empty() {
                let name = space.name.clone();
                self.spaces.remove(&home);
                if let Err(error) = self.memory.leave(name.as_ref()) {
                    outcome.failures.push((None, error.into()));
                }
            }
            self.take(outcome, &desired.interfaces);
        }
    }

    fn take(&mut self, outcome: Outcome, wanted: &BTreeMap<String, Interface>) {
        self.report.put += outcome.put;
        self.report.deleted += outcome.deleted;
        for (record, error) in outcome.failures {
            let interface = record.as_ref().and_then(|record| wanted.get(record));
            self.fail(record, &error, interface);
        }
    }

    fn fail(&mut self, record: Option<String>, error: &InterfaceError, interface: Option<&Interface>) {
        let object = record.as_ref().map_or_else(|| NAME.to_owned(), |record| format!("interface {record}"));
        let persona = interface.map(|interface| interface.persona.clone());
        let failure = Failure { object, error: error.to_string(), persona };
        self.failures.entry(record).or_default().push(failure);
    }

    /// What the pass did, and what could not be done by it or by an earlier one that nothing changed since.
    pub fn report(&mut self) -> Report {
        let mut report = std::mem::replace(&mut self.report, Report { table: NAME, ..Report::default() });
        report.failures = self.failures.values().flatten().cloned().collect();
        report
    }

    /// Names what is ours and wanted by nobody.
    pub fn orphans(&mut self, desired: &Desired) -> Vec<String> {
        let mut orphans = Vec::new();
        self.visit();
        for (home, space) in &mut self.spaces {
            let here = desired.interfaces.iter().filter(|(name, _)| self.homes.get(*name) == Some(home));
            let records = here.map(|(name, interface)| (name.as_str(), interface)).collect();
            match space.read(&records, &mut Outcome::default()) {
                Ok(()) => orphans.extend(space.unwanted()),
                Err(error) => orphans.push(format!("{NAME}: {error}")),
            }
        }
        orphans
    }

    /// Removes everything of ours from all namespaces that are remembered and from the hub's own.
    pub fn teardown(&mut self) -> (Vec<String>, Vec<Failure>) {
        self.homes.clear();
        self.last.clear();
        self.failures.clear();
        if let Err(error) = self.enter(None) {
            self.fail(None, &error, None);
        }
        self.visit();
        let mut removed = Vec::new();
        for (_, mut space) in std::mem::take(&mut self.spaces) {
            let mut outcome = Outcome::default();
            match space.read(&BTreeMap::new(), &mut outcome) {
                Ok(()) => space.retire(&mut self.memory, &mut outcome),
                Err(error) => outcome.failures.push((None, error)),
            }
            if outcome.failures.is_empty()
                && let Err(error) = self.memory.leave(space.name.as_ref())
            {
                outcome.failures.push((None, error.into()));
            }
            removed.append(&mut outcome.removed);
            self.take(outcome, &BTreeMap::new());
        }
        (removed, self.report().failures)
    }
}
