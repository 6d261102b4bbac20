//! Interface records: which personality an interface has, and the persona that carries it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::admit::invalid;
use super::switches::SWITCHES;
use super::{Hub, refused};
use crate::command::switch::InterfaceCommand;
use crate::command::{Problem, Rejection, RejectionKind, Reply};
use crate::desired::interfaces::Slot;
use crate::document::interface::{InterfaceRecordDocument, RoutesDocument};
use crate::model::interface::InterfaceRecord;
use crate::model::personality::{Version, Wanted};
use crate::systems::experiment::Experiment;
use crate::systems::personality::health::{Has, Health};
use crate::systems::personality::operation::JournalEntry;
use crate::systems::personality::switch::OperationId;
use crate::systems::personality::versions::Versions;
use crate::systems::personality::{Layout, Record, Standing};
use crate::view::Origin;
use crate::view::switch::PersonalityView;

/// Switches that are over and can still be asked for: more, where there are more interfaces for a group of them.
const OPERATIONS: usize = 256;
/// Interface records.
const INTERFACES: usize = 10_000;

/// Personalities, interfaces that have them, and switches.
#[derive(Clone, Debug, Default)]
pub(super) struct Interfaces {
    pub(super) versions: Versions,
    pub(super) records: BTreeMap<String, Record>,
    /// Switches that are over, the last ones of them.
    pub(super) operations: BTreeMap<OperationId, Arc<JournalEntry>>,
    /// Those that are not in the journal yet.
    pub(super) unwritten: Vec<Arc<JournalEntry>>,
    /// What happened, for those who follow: record and words.
    pub(super) notices: Vec<(String, String)>,
    /// Whether something changed since it was stored.
    pub(super) unsaved: bool,
    /// Experiments by name.
    pub(super) experiments: BTreeMap<String, Arc<Experiment>>,
    /// When what was counted for them was stored.
    pub(super) measured_at: Option<Timestamp>,
    /// Views of personalities, as long as nothing changed.
    pub(super) shown: Option<BTreeMap<Version, Arc<PersonalityView>>>,
}

impl Interfaces {
    /// Keeps what became of a switch.
    pub(super) fn end(&mut self, entry: JournalEntry) {
        let entry = Arc::new(entry);
        self.unwritten.push(Arc::clone(&entry));
        self.operations.insert(entry.id.clone(), entry);
        let kept = OPERATIONS.max(self.records.len().min(SWITCHES));
        let Some(spare) = self.operations.len().checked_sub(kept).filter(|spare| *spare > 0) else { return };
        // What the journal does not have yet is nowhere else; and who follows a group asks for all of it.
        let unwritten: BTreeSet<&OperationId> = self.unwritten.iter().map(|entry| &entry.id).collect();
        let switches = self.records.values().filter_map(|record| record.switch.as_ref());
        let groups: BTreeSet<&OperationId> = switches.filter_map(|switch| switch.group.as_ref()).collect();
        let is_needed = |entry: &JournalEntry| {
            unwritten.contains(&entry.id) || entry.group.as_ref().is_some_and(|group| groups.contains(group))
        };
        let oldest = self.operations.values().filter(|entry| !is_needed(entry)).take(spare);
        let oldest: Vec<OperationId> = oldest.map(|entry| entry.id.clone()).collect();
        for id in oldest {
            self.operations.remove(&id);
        }
    }

    /// When time alone changes something.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.records.values().filter_map(Record::deadline).min()
    }
}

impl Hub {
    /// Personalities and interfaces, to change them.
    pub(super) fn interfaces_mut(&mut self) -> &mut Interfaces {
        self.revision += 1;
        let interfaces = Arc::make_mut(&mut self.interfaces);
        interfaces.unsaved = true;
        interfaces.shown = None;
        interfaces
    }

    pub(super) fn record(&self, name: &str) -> Result<&Record, Rejection> {
        self.interfaces.records.get(name).ok_or_else(|| {
            refused(RejectionKind::NotFound, "", format!("there is no interface record `{name}`"))
        })
    }

    /// Changes a record.
    pub(super) fn with_record<T>(&mut self, name: &str, change: impl FnOnce(&mut Record) -> T) -> Option<T> {
        self.interfaces_mut().records.get_mut(name).map(change)
    }

    pub(super) fn interface(
        &mut self,
        command: InterfaceCommand,
        now: Timestamp,
    ) -> Result<Reply, Rejection> {
        match command {
            InterfaceCommand::Create { document } => {
                let name = document.name.clone();
                self.whole_or_nothing(|hub| hub.enlist(&document, Origin::Api, now))?;
                let view = self.interface_view(&name, now)?;
                Ok(Reply::Interface(Box::new(view)))
            }
            InterfaceCommand::Replace { document, if_document } => {
                let name = document.name.clone();
                let record = self.of_nobody(&name)?;
                if if_document.is_some_and(|before| *before != *record.document) {
                    let detail = format!("interface record `{name}` changed in between");
                    return Err(refused(RejectionKind::Changed, "", detail));
                }
                self.relist(&document, Origin::Api)?;
                let view = self.interface_view(&name, now)?;
                Ok(Reply::Interface(Box::new(view)))
            }
            InterfaceCommand::Delete { interface } => {
                self.of_nobody(&interface)?;
                self.delist(&interface, now)?;
                Ok(Reply::Deleted)
            }
        }
    }

    /// A record that no file owns.
    fn of_nobody(&self, name: &str) -> Result<&Record, Rejection> {
        let record = self.record(name)?;
        if let Origin::File { path, line } = &record.origin {
            let place = path.display();
            let detail = format!("managed_by_file: `{name}` is defined in {place}:{line}: change it there");
            return Err(refused(RejectionKind::Conflict, "", detail));
        }
        Ok(record)
    }

    /// Admits an interface with its first personality.
    pub(super) fn enlist(
        &mut self,
        document: &InterfaceRecordDocument,
        origin: Origin,
        now: Timestamp,
    ) -> Result<(), Rejection> {
        let settings = Arc::new(InterfaceRecord::new(document).map_err(invalid)?);
        let first = self.known_personalities(&settings)?;
        if self.interfaces.records.contains_key(&settings.name) {
            let detail = format!("there is an interface record `{}` already", settings.name);
            return Err(refused(RejectionKind::Conflict, "/name", detail));
        }
        let place = &settings.place;
        let twin = self.interfaces.records.values().find(|other| {
            // The hub knows its own interfaces by all their names.
            let is_same = || self.port_of(&other.settings) == self.port_of(&settings);
            other.settings.place == *place || settings.is_own() && other.settings.is_own() && is_same()
        });
        if let Some(twin) = twin {
            let detail = format!("the interface has a record already: `{}`", twin.settings.name);
            return Err(refused(RejectionKind::Conflict, "/interface", detail));
        }
        self.has_own_routes(&settings)?;
        if self.interfaces.records.len() >= INTERFACES {
            let detail = format!("{INTERFACES} interface records, limit {INTERFACES}");
            return Err(refused(RejectionKind::Full, "", detail));
        }
        if origin == Origin::Api {
            // A file is read before the machine has all its links; what is wrong later is told.
            self.on_vlan(&settings, &first, "/personality")?;
        }
        let layout = Layout { slot: Slot::A, live: first.clone(), other: None };
        let carrier = self.first_carrier(&settings, &layout, now)?;
        let worn = self.wear(&settings, &layout)?;
        let mut health = Health::default();
        health.begin(now, Has::Another);
        let record = Record {
            document: Arc::new(InterfaceRecordDocument { kind: None, ..document.clone() }),
            origin,
            created_at: now,
            carrier,
            layout,
            worn,
            held: None,
            spared: BTreeMap::new(),
            current: first,
            previous: None,
            last_known_good: None,
            standing: Standing::Active,
            switch: None,
            departed: Vec::new(),
            retires_at: None,
            temporary: None,
            health,
            level: None,
            ticket: self.revision,
            settings,
        };
        let name = record.settings.name.clone();
        self.interfaces_mut().records.insert(name, record);
        Ok(())
    }

    /// Refuses routes for everything that a namespace sends where another record has routes there: one rule would switch
    /// both.
    fn has_own_routes(&self, settings: &InterfaceRecord) -> Result<(), Rejection> {
        let is_whole = |settings: &InterfaceRecord| settings.routes == RoutesDocument::Everything;
        let mut others =
            self.interfaces.records.values().map(|record| &record.settings).filter(|other| {
                other.name != settings.name && other.place.namespace == settings.place.namespace
            });
        let Some(other) = others.find(|other| is_whole(settings) || is_whole(other)) else { return Ok(()) };
        let whose = if is_whole(other) { "that record" } else { "this one" };
        let detail = format!(
            "interface record `{}` is about the same namespace, and {whose} says `routes: everything`: say \
             `routes: addresses` in all records of a namespace that has several",
            other.name
        );
        Err(refused(RejectionKind::Conflict, "/routes", detail))
    }

    /// Every personality that a record speaks of must be there. Returns its first one.
    pub(super) fn known_personalities(&self, settings: &InterfaceRecord) -> Result<Version, Rejection> {
        let levels = settings.zones.iter().flat_map(|zones| &zones.levels).enumerate();
        let levels =
            levels.map(|(index, (_, wanted))| (format!("/zones/levels/{index}/personality"), wanted));
        let failover = settings.failover.iter().map(|failover| ("/failover/to".to_owned(), &failover.to));
        let default = settings.default.iter().map(|wanted| ("/default".to_owned(), wanted));
        let all: Vec<(String, &Wanted)> = levels.chain(failover).chain(default).collect();
        let mut problems = Vec::new();
        for (pointer, wanted) in &all {
            problems.extend(
                self.fits(settings, wanted, pointer).err().into_iter().flat_map(|error| error.problems),
            );
        }
        match self.fits(settings, &settings.personality, "/personality") {
            Ok(version) if problems.is_empty() => Ok(version),
            Ok(_) => Err(Rejection { kind: RejectionKind::Invalid, problems }),
            Err(mut rejection) => {
                rejection.problems.append(&mut problems);
                Err(rejection)
            }
        }
    }

    /// The version that a record speaks of, which must make sense with what the record says.
    pub(super) fn fits(
        &self,
        settings: &InterfaceRecord,
        wanted: &Wanted,
        pointer: &str,
    ) -> Result<Version, Rejection> {
        let version = self.version(wanted, pointer)?;
        self.kept(&version)?.personality.on(&settings.name, &settings.labels).map_err(|problems| {
            // What is wrong with a label is there.
            let place = |problem: Problem| match problem.pointer.as_str() {
                "/personality" => Problem { pointer: pointer.to_owned(), ..problem },
                _ => problem,
            };
            invalid(problems.into_iter().map(place).collect())
        })?;
        Ok(version)
    }

    /// Forgets an interface, and its carrier with it.
    pub(super) fn delist(&mut self, name: &str, now: Timestamp) -> Result<(), Rejection> {
        let record = self.record(name)?;
        if let Some(switch) = &record.switch {
            let detail = format!("a switch to {} is under way: cancel or revert it first", switch.to);
            return Err(refused(RejectionKind::Conflict, "", detail));
        }
        let carrier = record.carrier.clone();
        self.interfaces_mut().records.remove(name);
        self.leave_experiments(name);
        self.remove(&carrier, now);
        Ok(())
    }

    /// Gives a record other settings; the interface itself and what leads to it stay.
    pub(super) fn relist(
        &mut self,
        document: &InterfaceRecordDocument,
        origin: Origin,
    ) -> Result<(), Rejection> {
        let settings = InterfaceRecord::new(document).map_err(invalid)?;
        self.known_personalities(&settings)?;
        let record = self.record(&settings.name)?;
        if record.settings.place != settings.place || record.settings.port != settings.port {
            let detail = "a record stays with its interface: write another record for another one";
            return Err(refused(RejectionKind::Conflict, "/interface", detail));
        }
        if record.settings.routes != settings.routes {
            self.has_own_routes(&settings)?;
        }
        let layout = &record.layout;
        if self.wear(&settings, layout)? != self.wear(&record.settings, layout)? {
            let detail = format!(
                "personality {} is made with what the labels say: switch to another one first",
                layout.live
            );
            return Err(refused(RejectionKind::Conflict, "/labels", detail));
        }
        let document = InterfaceRecordDocument { kind: None, ..document.clone() };
        if *record.document == document && record.origin == origin {
            return Ok(());
        }
        let name = settings.name.clone();
        self.with_record(&name, |record| {
            let keeps_level = settings.zones == record.settings.zones;
            record.level = record.level.take().filter(|_| keeps_level);
            record.document = Arc::new(document);
            record.settings = Arc::new(settings);
            record.origin = origin;
        });
        Ok(())
    }

    /// Whether an interface has two personalities at the moment.
    pub(super) fn is_switching(&self) -> bool {
        self.interfaces
            .records
            .values()
            .any(|record| record.switch.is_some() || record.layout.other.is_some())
    }

    /// What happened since this was asked last: record and words.
    pub fn take_notices(&mut self) -> Vec<(String, String)> {
        if self.interfaces.notices.is_empty() {
            return Vec::new();
        }
        std::mem::take(&mut Arc::make_mut(&mut self.interfaces).notices)
    }

    /// Switches that are over and not in the journal, the oldest first.
    pub fn unwritten(&self) -> &[Arc<JournalEntry>] {
        &self.interfaces.unwritten
    }

    /// Notes that the first `count` of [`Self::unwritten`] are in the journal.
    pub fn written(&mut self, count: usize) {
        let unwritten = &mut Arc::make_mut(&mut self.interfaces).unwritten;
        unwritten.drain(..count.min(unwritten.len()));
    }

    /// Whether interfaces or switches changed since the hub was stored: it must be, before the kernel hears of it.
    pub fn must_be_stored(&self) -> bool {
        self.interfaces.unsaved
    }
}
