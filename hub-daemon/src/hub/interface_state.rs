//! The stored form of personalities, interfaces and switches, and what a hub that starts makes of it.
//!
//! A switch that had not flipped is forgotten: nothing of it was decided by. One that had flipped and was not
//! done is taken back before anything else. One that was done stays.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Hub, after};
use crate::command::switch::Connection;
use crate::document::interface::InterfaceRecordDocument;
use crate::document::personality::PersonalityDocument;
use crate::model::PersonaId;
use crate::model::interface::InterfaceRecord;
use crate::model::personality::{self, Drain, Personality, Version};
use crate::systems::experiment::Experiment;
use crate::systems::personality::health::Health;
use crate::systems::personality::operation::{JournalEntry, PhaseDone};
use crate::systems::personality::switch::{Cause, OperationId, Phase, Switch};
use crate::systems::personality::versions::Kept;
use crate::systems::personality::{Layout, Level, Record, Standing, Temporary};
use crate::view::{Condition, Origin};

/// Why a switch that was under way is given up.
const RESTARTED: &str = "the hub was started anew";

/// The stored form of personalities, interfaces and switches.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoredInterfaces {
    /// Personalities.
    pub versions: Vec<StoredVersion>,
    /// Interfaces.
    pub records: Vec<StoredRecord>,
    /// Switches that are over, the last ones of them.
    pub operations: Vec<Arc<JournalEntry>>,
    /// Identities of those that are not in the journal yet.
    pub unwritten: Vec<OperationId>,
    /// Experiments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub experiments: Vec<Arc<Experiment>>,
}

/// The stored form of a version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredVersion {
    /// Name and number.
    pub version: Version,
    /// When it was kept.
    pub created_at: Timestamp,
    /// Who owns it.
    pub origin: Origin,
    /// Compiled rules.
    pub rules: [usize; 2],
    /// The definition.
    pub definition: PersonalityDocument,
}

/// The stored form of an interface record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredRecord {
    /// The record, as given.
    pub definition: InterfaceRecordDocument,
    /// Who owns it.
    pub origin: Origin,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its carrier.
    pub carrier: PersonaId,
    /// What is told to the kernel.
    pub layout: Layout,
    /// Connections that go on whatever its personalities say.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub spared: BTreeMap<Version, Connection>,
    /// The personality that it has.
    pub current: Version,
    /// The one before.
    pub previous: Option<Version>,
    /// The last one that was good.
    pub last_known_good: Option<Version>,
    /// How well it is off.
    pub standing: Standing,
    /// The switch that is under way.
    pub switch: Option<StoredSwitch>,
    /// Personalities whose addresses are refused because they were given up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub departed: Vec<Version>,
    /// When the other slot is emptied.
    pub retires_at: Option<Timestamp>,
    /// When it goes back.
    pub temporary: Option<Temporary>,
    /// How its checks came out.
    pub health: Health,
    /// Its threat level.
    pub level: Option<Level>,
}

/// The stored form of a switch: what its end must know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredSwitch {
    /// Identity.
    pub id: OperationId,
    /// The group that it is one of.
    pub group: Option<OperationId>,
    /// What it comes from.
    pub from: Version,
    /// What it goes to.
    pub to: Version,
    /// Who ordered it.
    pub by: String,
    /// Why.
    pub why: String,
    /// Who began it.
    pub cause: Cause,
    /// Where it is.
    pub phase: Phase,
    /// When the phase began.
    pub phase_at: Timestamp,
    /// When the switch began.
    pub began_at: Timestamp,
    /// When it flipped.
    pub flipped_at: Option<Timestamp>,
    /// When new connections were refused first.
    pub blocked_at: Option<Timestamp>,
    /// Phases that are over.
    pub done: Vec<PhaseDone>,
    /// What went wrong first.
    pub failure: Option<String>,
}

impl StoredSwitch {
    fn new(switch: &Switch) -> Self {
        Self {
            id: switch.id.clone(),
            group: switch.group.clone(),
            from: switch.from.clone(),
            to: switch.to.clone(),
            by: switch.by.clone(),
            why: switch.why.clone(),
            cause: switch.cause,
            phase: switch.phase,
            phase_at: switch.phase_at,
            began_at: switch.began_at,
            flipped_at: switch.flipped_at,
            blocked_at: switch.blocked_at,
            done: switch.done.clone(),
            failure: switch.failure.clone(),
        }
    }

    /// The switch, in a phase that has just begun.
    fn revived(self) -> Switch {
        Switch {
            id: self.id,
            // On its way back each is for itself.
            group: None,
            from: self.from,
            to: self.to,
            by: self.by,
            why: self.why,
            cause: self.cause,
            drain: Drain::default(),
            urgent: false,
            confirm_within: None,
            lasts: None,
            ordered_by: None,
            phase: self.phase,
            phase_at: self.phase_at,
            deadline: None,
            since: 0,
            applied: false,
            began_at: self.began_at,
            flipped_at: self.flipped_at,
            blocked_at: self.blocked_at,
            done: self.done,
            baseline: None,
            verified: Vec::new(),
            checks: Vec::new(),
            flows: None,
            counts: 0,
            failure: self.failure,
        }
    }
}

impl Hub {
    /// What to store.
    pub(super) fn stored_interfaces(&self) -> StoredInterfaces {
        let interfaces = &self.interfaces;
        let version = |kept: &Arc<Kept>| StoredVersion {
            version: kept.version.clone(),
            created_at: kept.created_at,
            origin: kept.origin.clone(),
            rules: kept.rules,
            definition: kept.personality.document().clone(),
        };
        let record = |record: &Record| StoredRecord {
            definition: record.document.as_ref().clone(),
            origin: record.origin.clone(),
            created_at: record.created_at,
            carrier: record.carrier.clone(),
            layout: record.layout.clone(),
            spared: record.spared.clone(),
            current: record.current.clone(),
            previous: record.previous.clone(),
            last_known_good: record.last_known_good.clone(),
            standing: record.standing,
            switch: record.switch.as_ref().map(StoredSwitch::new),
            departed: record.departed.clone(),
            retires_at: record.retires_at,
            temporary: record.temporary.clone(),
            health: record.health.stored(),
            level: record.level.clone(),
        };
        StoredInterfaces {
            versions: interfaces.versions.values().map(version).collect(),
            records: interfaces.records.values().map(record).collect(),
            operations: interfaces.operations.values().cloned().collect(),
            unwritten: interfaces.unwritten.iter().map(|entry| entry.id.clone()).collect(),
            experiments: interfaces.experiments.values().cloned().collect(),
        }
    }

    /// Brings back what was stored; carriers are there already.
    pub(super) fn restore_interfaces(&mut self, stored: StoredInterfaces, now: Timestamp) {
        let mut lost = Vec::new();
        for stored in stored.versions {
            let name = stored.version.to_string();
            match Personality::new(&stored.definition) {
                Ok(personality) => self.interfaces_mut().versions.insert(Kept {
                    digest: personality::digest(personality.document()),
                    version: stored.version,
                    personality,
                    created_at: stored.created_at,
                    origin: stored.origin,
                    rules: stored.rules,
                }),
                Err(problems) => {
                    let why: Vec<String> = problems.into_iter().map(|problem| problem.detail).collect();
                    lost.push(format!("personality `{name}` is not restored: {}", why.join("; ")));
                }
            }
        }
        for entry in stored.operations {
            let interfaces = self.interfaces_mut();
            if stored.unwritten.contains(&entry.id) {
                interfaces.unwritten.push(Arc::clone(&entry));
            }
            interfaces.operations.insert(entry.id.clone(), entry);
        }
        let mut names = Vec::new();
        for stored in stored.records {
            let name = stored.definition.name.clone();
            match self.revive_record(stored) {
                Ok(()) => names.push(name),
                Err(why) => lost.push(format!("interface `{name}` is not restored: {why}")),
            }
        }
        // Switches that are given up now may be those of an experiment.
        let experiments = stored.experiments.into_iter();
        self.interfaces_mut().experiments =
            experiments.map(|experiment| (experiment.name.clone(), experiment)).collect();
        for name in names {
            self.recover(&name, now);
        }
        self.settle_experiments(now);
        let lost = lost.into_iter();
        self.conditions
            .extend(lost.map(|message| Condition { reason: "StateIncomplete".to_owned(), message }));
        self.drop_orphans(now);
    }

    fn revive_record(&mut self, stored: StoredRecord) -> Result<(), String> {
        let settings = InterfaceRecord::new(&stored.definition).map_err(|problems| {
            problems.into_iter().map(|problem| problem.detail).collect::<Vec<_>>().join("; ")
        })?;
        if self.interfaces.versions.get(&stored.layout.live).is_none() {
            return Err(format!("its personality {} is not there", stored.layout.live));
        }
        if !self.records.contains_key(&stored.carrier) {
            return Err("the persona that carries its personality is not there".to_owned());
        }
        let name = settings.name.clone();
        let record = Record {
            settings: Arc::new(settings),
            document: Arc::new(stored.definition),
            origin: stored.origin,
            created_at: stored.created_at,
            carrier: stored.carrier,
            layout: stored.layout,
            worn: BTreeMap::new(),
            held: None,
            spared: stored.spared,
            current: stored.current,
            previous: stored.previous,
            last_known_good: stored.last_known_good,
            standing: stored.standing,
            switch: stored.switch.map(StoredSwitch::revived),
            departed: stored.departed,
            retires_at: stored.retires_at,
            temporary: stored.temporary,
            health: stored.health,
            level: stored.level,
            ticket: 0,
        };
        self.interfaces_mut().records.insert(name, record);
        Ok(())
    }

    /// Brings a switch that was under way to a side: what had not flipped is forgotten, the rest taken back.
    fn recover(&mut self, name: &str, now: Timestamp) {
        let Some(record) = self.interfaces.records.get(name) else { return };
        let layout = record.layout.clone();
        let Some(switch) = &record.switch else {
            // The carrier follows the layout, whatever of it was understood again.
            if self.lay(name, layout, now).is_err() {
                self.forget_other(name, now);
            }
            return;
        };
        let phase = switch.phase;
        match phase {
            Phase::Prepare
            | Phase::Preflight
            | Phase::Drain
            | Phase::Ready
            | Phase::Flip
            | Phase::Verify
            | Phase::Verified
            | Phase::AwaitConfirm => self.fail(name, RESTARTED, now),
            Phase::Rollback | Phase::RollbackVerify => self.resume(name, Phase::Rollback, now),
            Phase::Fallback | Phase::FallbackVerify => self.resume(name, Phase::Fallback, now),
        }
    }

    /// Removes carriers whose record was not stored.
    fn drop_orphans(&mut self, now: Timestamp) {
        let carried = |id: &PersonaId| self.interfaces.records.values().any(|record| record.carrier == *id);
        let orphans = self.records.values().filter(|record| record.origin == Origin::Interface);
        let ids: Vec<PersonaId> = orphans.map(|record| record.id.clone()).filter(|id| !carried(id)).collect();
        for id in ids {
            self.remove(&id, now);
        }
    }

    /// The clock was set: what counts time lasts as long as before.
    pub(super) fn shift_interfaces(&mut self, by: jiff::SignedDuration) {
        if self.interfaces.records.is_empty() {
            return;
        }
        self.shift_experiments(by);
        for record in self.interfaces_mut().records.values_mut() {
            if let Some(switch) = &mut record.switch {
                switch.deadline = switch.deadline.map(|at| after(at, by));
                switch.phase_at = after(switch.phase_at, by);
                switch.flipped_at = switch.flipped_at.map(|at| after(at, by));
                switch.blocked_at = switch.blocked_at.map(|at| after(at, by));
            }
            record.retires_at = record.retires_at.map(|at| after(at, by));
            if let Some(temporary) = &mut record.temporary {
                temporary.until = after(temporary.until, by);
                temporary.tries_at = temporary.tries_at.map(|at| after(at, by));
            }
            if let Some(level) = &mut record.level {
                let falls = level.falls.as_mut().map(|(_, at)| at);
                falls.into_iter().chain(&mut level.fell).for_each(|at| *at = after(*at, by));
            }
            record.health.shift(by);
        }
    }
}
