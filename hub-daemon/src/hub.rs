//! The core: one value that owns what the hub wants. No IO, no clock; `now` is an argument.
//!
//! [`Hub::handle`] changes it whole or not at all. [`Hub::desired`] says what the kernel should hold,
//! [`Hub::snapshot`] what the outside may see, [`Hub::deadline`] when time alone changes either.

mod admit;
mod apply;
mod candidate;
pub mod changes;
mod documents;
mod draft;
mod elsewhere;
mod experiments;
mod interface_documents;
pub mod interface_state;
mod interface_views;
mod interfaces;
mod kept;
pub mod keys;
mod lay;
mod life;
mod lists;
mod look;
mod output;
mod passes;
mod personalities;
mod ports;
mod ranges;
mod records;
mod segments;
mod services;
pub mod state;
mod switches;
mod takeover;
mod templates;
#[cfg(test)]
mod tests;
pub mod undo;

use std::sync::Arc;

use ipnet::Ipv6Net;
use jiff::{SignedDuration, Timestamp};

use crate::command::{Clocks, Command, Inventory, Problem, Rejection, RejectionKind, Reply};
use crate::document::template::Templates;
use crate::model::PersonaId;
use crate::model::config::Config;
use crate::model::id::IdSource;
use crate::systems::persona::claims::{Claims, Prefixes};
use crate::systems::persona::{Life, Record};
use crate::view::{Condition, Origin};
use interfaces::Interfaces;
use kept::Kept;
use keys::Keys;
use output::Shown;
use ranges::Ranges;
use records::Records;
use segments::Segments;
use state::Pending;

/// How long the number of a segment rests before another persona gets it: longer than any packet or flow
/// that knew the old one.
pub const QUARANTINE: SignedDuration = SignedDuration::from_secs(60);
/// How long a persona that ended stays readable, and its segment keeps dropping the packets of its range.
pub const TOMBSTONE: SignedDuration = SignedDuration::from_hours(24);

/// What the hub wants, and for whom.
#[derive(Clone, Debug)]
pub struct Hub {
    config: Config,
    ids: IdSource,
    records: Records,
    claims: Claims,
    /// Ranges of personas that ended, whose segments still drop packets.
    graves: Prefixes,
    segments: Segments,
    /// Where virtual IPv6 ranges come from.
    unique_local: Ipv6Net,
    ranges: Ranges,
    /// The clocks that times of the records are by.
    clocks: Option<Clocks>,
    inventory: Inventory,
    conditions: Vec<Condition>,
    /// Templates of the documents folder.
    templates: Templates,
    documents_read: Option<Timestamp>,
    documents_error: Option<String>,
    /// Revision with the documents as first read; 0 if they were refused.
    heard: Option<u64>,
    /// Revision of the last pass.
    passed: Option<u64>,
    /// Revision with the network as it is.
    looked: u64,
    revision: u64,
    /// The views that were shown last; `None` if all are to be made anew.
    shown: Option<Shown>,
    /// What was wanted last; `None` if all of it is to be made anew.
    kept: Option<Kept>,
    /// Interfaces have queues, also where nobody has a bandwidth any more.
    queues_stand: bool,
    /// Keys of requests that made personas.
    keys: Keys,
    /// A change that waits for confirmation, with what was before.
    pending: Option<Arc<Pending>>,
    /// Personalities and the interfaces that have them.
    interfaces: Arc<Interfaces>,
}

impl Hub {
    /// A hub without personas. `ids` must differ from run to run.
    pub fn new(config: Config, mut ids: IdSource) -> Self {
        let unique_local = ids.unique_local();
        let segments = Segments::new(config.limits.segments());
        Self {
            config,
            ids,
            records: Records::default(),
            claims: Claims::default(),
            graves: Prefixes::default(),
            segments,
            unique_local,
            ranges: Ranges::default(),
            clocks: None,
            inventory: Inventory::default(),
            conditions: Vec::new(),
            templates: Templates::default(),
            documents_read: None,
            documents_error: None,
            heard: None,
            passed: None,
            looked: 0,
            revision: 0,
            shown: None,
            kept: None,
            queues_stand: false,
            keys: Keys::default(),
            pending: None,
            interfaces: Arc::default(),
        }
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Counts changes of what is desired, seen or stored. A pass of reconcile belongs to the revision
    /// before its [`Hub::desired`].
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Does what a command asks, whole or not at all.
    pub fn handle(&mut self, command: Command, now: Timestamp) -> Result<Reply, Rejection> {
        if let Command::ClockSet(by) = command {
            self.clock_set(by, now);
        }
        self.advance(now);
        if let Command::CreateOnce { key, .. } | Command::Recall { key } = &command
            && let Some(reply) = self.recall(key, now)?
        {
            return Ok(reply);
        }
        self.refuse_while_pending(&command)?;
        match command {
            Command::Create { document } | Command::Begin { document } => {
                self.create(self.whole(*document)?, now)
            }
            Command::CreateOnce { document, key, .. } => {
                let reply = self.create(self.whole(*document)?, now)?;
                self.remember(key, &reply, now);
                Ok(reply)
            }
            Command::Replace { persona, document, if_generation } => {
                self.replace(&persona, self.whole(*document)?, if_generation, now)
            }
            Command::Delete { persona, if_generation, drain } => {
                self.delete(&persona, if_generation, drain, now)
            }
            Command::Try { persona, document, until } => {
                self.try_candidate(&persona, self.whole(*document)?, until, now)
            }
            Command::EndTrial { persona } => self.end_trial(&persona, now),
            Command::Apply { documents, confirm } => self.apply(documents, confirm, now),
            Command::Confirm => self.confirm(),
            Command::Revert { why } => self.revert(&why, now),
            Command::Documents(documents) => self.documents(documents, now),
            Command::Elements { persona, set, change } => self.elements(&persona, &set, &change, now),
            Command::Quarantine { persona, address, until } => self.quarantine(&persona, address, until, now),
            Command::Personality(command) => self.personality(command, now),
            Command::Interface(command) => self.interface(command, now),
            Command::Switch(command) => {
                let done = self.switch(command, now);
                self.advance_interfaces(now);
                done
            }
            Command::Experiment(command) => self.experiment(command, now),
            Command::Measured(readings) => {
                self.measured(&readings, now);
                Ok(Reply::Done)
            }
            Command::Observed { interface, ticket, observation } => {
                let done = self.observed(&interface, ticket, observation, now);
                self.advance_interfaces(now);
                // A switch that is over may have kept an interface from being followed.
                self.follow_ports(now);
                done
            }
            Command::Templates(templates) => {
                self.take_templates(templates);
                Ok(Reply::Done)
            }
            Command::Inventory(inventory) => {
                self.look(inventory, now);
                self.follow_ports(now);
                Ok(Reply::Done)
            }
            Command::Faults { revision, faults, postponed } => {
                self.faults(revision, faults, &postponed, now);
                self.advance_interfaces(now);
                Ok(Reply::Done)
            }
            Command::Latency(late) => {
                let changed = |record: &Record| record.late != late.get(&record.id).copied();
                for record in self.records.select_mut(changed) {
                    record.late = late.get(&record.id).copied();
                }
                Ok(Reply::Done)
            }
            Command::Configure(config) => {
                self.config = *config;
                (self.shown, self.kept) = (None, None);
                self.revision += 1;
                self.rank_all(now);
                self.lay_anew(now);
                Ok(Reply::Done)
            }
            // The kernel is asked by who owns the hub.
            Command::Orphans => Ok(Reply::Orphans(Vec::new())),
            Command::ClockSet(_) | Command::Tick | Command::Recall { .. } => Ok(Reply::Done),
        }
    }

    /// Replaces a condition of the hub itself, by its reason; `None` clears it.
    pub fn set_condition(&mut self, reason: &str, message: Option<String>) {
        self.conditions.retain(|condition| condition.reason != reason);
        self.conditions.extend(message.map(|message| Condition { reason: reason.to_owned(), message }));
        self.revision += 1;
    }

    /// Notes that the folder of documents could not be read, or was refused: what was there stays.
    pub fn documents_failed(&mut self, error: String) {
        self.documents_error = Some(error);
        self.heard.get_or_insert(0);
        self.revision += 1;
    }

    /// Whether the documents were read and a pass followed. Documents that are refused keep nobody waiting:
    /// the hub goes on with what it had.
    fn is_ready(&self) -> bool {
        self.heard.zip(self.passed).is_some_and(|(heard, passed)| heard <= passed)
    }

    /// When time alone changes what is desired or seen.
    pub fn deadline(&mut self) -> Option<Timestamp> {
        let of_records = self.records.deadline(due);
        let of_interfaces = self.interfaces.deadline();
        let others = self.segments.deadline().into_iter().chain(self.ranges.deadline());
        of_records.into_iter().chain(others).chain(of_interfaces).min()
    }

    /// Lets time pass: personas end, tombstones go, numbers are free again, failed ones are tried again.
    fn advance(&mut self, now: Timestamp) {
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        self.revision += 1;
        self.segments.wake(now);
        self.ranges.wake(now);
        self.end_trials(now);
        self.advance_interfaces(now);
        for id in self.records.due(now, due) {
            let Some(record) = self.records.get_mut(&id) else { continue };
            if record.lists.forget(now) {
                record.view = None;
            }
            if record.has_not_ended() && !record.is_live(now) {
                if record.leaving.is_some() {
                    self.remove(&id, now);
                } else {
                    self.end(&id, now);
                }
                continue;
            }
            record.see_moments(now);
            match record.life {
                Life::Failed { retry_at } if retry_at <= now => {
                    record.life = Life::Provisioning;
                    record.since = self.revision;
                }
                Life::Expired { at, listed, .. } if after(at, TOMBSTONE) <= now => {
                    self.release(&id, now);
                    if !listed {
                        self.records.remove(&id);
                    }
                }
                Life::Provisioning
                | Life::Active
                | Life::Failed { .. }
                | Life::Elsewhere
                | Life::Expired { .. } => {}
            }
        }
    }

    /// Turns a persona into a tombstone. Its segment stays, so that packets of its range have an answer.
    fn end(&mut self, id: &PersonaId, now: Timestamp) {
        let Some(record) = self.records.get_mut(id) else { return };
        let listed = matches!(record.origin, Origin::File { .. });
        self.claims.remove(record);
        let holds = record.life != Life::Elsewhere;
        if holds {
            self.graves.insert(record);
        }
        let persona = Arc::clone(&record.persona);
        record.life = Life::Expired { at: now, holds, listed };
        record.faults.clear();
        self.rest_ranges(&persona, None, now);
        if persona.overrides() {
            self.give_back(id, &|_| false, now);
        }
    }

    /// Takes a tombstone out of the data path; its number rests.
    fn release(&mut self, id: &PersonaId, now: Timestamp) {
        let Some(record) = self.records.get_mut(id) else { return };
        let Life::Expired { at, holds: true, listed } = record.life else { return };
        record.life = Life::Expired { at, holds: false, listed };
        // Its number is nobody's in it any more.
        record.view = None;
        self.graves.remove(record);
        self.segments.rest(record.segment, after(now, QUARANTINE));
    }

    /// Removes a persona, alive or ended, from everything.
    fn remove(&mut self, id: &PersonaId, now: Timestamp) {
        self.release(id, now);
        let Some(record) = self.records.remove(id) else { return };
        if record.has_not_ended() {
            self.claims.remove(&record);
            if record.life == Life::Elsewhere {
                self.keys.forget(id);
            } else {
                self.segments.rest(record.segment, after(now, QUARANTINE));
            }
            self.rest_ranges(&record.persona, None, now);
            if record.persona.overrides() {
                self.give_back(id, &|_| false, now);
            }
        }
        self.revision += 1;
    }

    /// The persona with this id or name; a live one before one that ended.
    fn find(&self, persona: &str) -> Option<&Record> {
        let by_id = self.records.get(&PersonaId(persona.into()));
        let by_name = || self.claims.named(persona).and_then(|id| self.records.get(id));
        let ended = || self.records.values().rev().find(|record| record.persona.name() == persona);
        by_id.or_else(by_name).or_else(ended)
    }

    /// The persona alive under this name.
    fn named(&self, name: &str) -> Option<&Record> {
        self.claims.named(name).and_then(|id| self.records.get(id))
    }
}

/// When time alone changes what is wanted or said of a record.
fn due(record: &Record) -> Option<Timestamp> {
    let of_life = match record.life {
        Life::Provisioning | Life::Active | Life::Elsewhere => record.next_moment(),
        Life::Failed { retry_at } => record.next_moment().into_iter().chain([retry_at]).min(),
        Life::Expired { at, holds, listed } => (holds || !listed).then(|| after(at, TOMBSTONE)),
    };
    let trial = record.candidate.as_ref().filter(|candidate| !candidate.over);
    of_life.into_iter().chain(record.lists.deadline()).chain(trial.map(|candidate| candidate.until)).min()
}

fn after(time: Timestamp, span: SignedDuration) -> Timestamp {
    time.saturating_add(span).unwrap_or(Timestamp::MAX)
}

fn refused(kind: RejectionKind, pointer: &str, detail: impl Into<String>) -> Rejection {
    Rejection { kind, problems: vec![Problem::new(pointer, detail)] }
}
