//! What the outside may ask of the hub, and what it answers.
//!
//! Inputs (files, REST, netlink) turn bytes into a [`Command`]; the one task that owns the hub answers
//! with a [`Reply`] or a [`Rejection`]. Reading does not need a command: after each one the task
//! publishes a [`crate::view::Snapshot`].

pub mod experiment;
mod inventory;
pub mod switch;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

pub use self::inventory::{Inventory, Link};
use crate::document::interface::InterfaceRecordDocument;
use crate::document::persona::PersonaDocument;
use crate::document::personality::PersonalityDocument;
use crate::document::template::Templates;
use crate::model::config::Config;
use crate::model::key::Key;
use crate::model::{PersonaId, SegmentId};
use crate::systems::experiment::Experiment;
use crate::systems::experiment::totals::Reading;
use crate::view::PersonaView;
use crate::view::switch::{InterfaceView, OperationView, PersonalityView, PlanView};
use experiment::ExperimentCommand;
use switch::{InterfaceCommand, Observation, PersonalityCommand, SwitchCommand};

/// A request to change what the hub wants.
#[derive(Clone, Debug)]
pub enum Command {
    /// Admit a persona.
    Create {
        /// Its definition.
        document: Box<PersonaDocument>,
    },
    /// As [`Self::Create`], answered when it is stored, before the kernel has it.
    Begin {
        /// Its definition.
        document: Box<PersonaDocument>,
    },
    /// As [`Self::Create`], or [`Self::Begin`] if `hasty`, for a request with a key: what the same one made before is
    /// answered as it is, and nothing is made.
    CreateOnce {
        /// Its definition.
        document: Box<PersonaDocument>,
        /// The key.
        key: Key,
        /// Answered before the kernel has it.
        hasty: bool,
    },
    /// Ask what a request with this key made: [`Reply::Created`], or [`Reply::Done`] if there was none.
    Recall {
        /// The key.
        key: Key,
    },
    /// Replace a persona's definition; its identity, segment and flows stay.
    Replace {
        /// Id or name.
        persona: String,
        /// The whole new definition.
        document: Box<PersonaDocument>,
        /// Refuse unless the persona is at this generation.
        if_generation: Option<u64>,
    },
    /// Remove a persona.
    Delete {
        /// Id or name.
        persona: String,
        /// Refuse unless the persona is at this generation.
        if_generation: Option<u64>,
        /// Let connections that exist go on for so long, and refuse others.
        drain: Option<Duration>,
    },
    /// Judge a definition's policy beside the live one; nothing else of it is looked at.
    Try {
        /// Id or name.
        persona: String,
        /// The whole definition on trial.
        document: Box<PersonaDocument>,
        /// When the trial ends.
        until: Timestamp,
    },
    /// End a trial and forget it.
    EndTrial {
        /// Id or name.
        persona: String,
    },
    /// Create or replace several personas as one change.
    Apply {
        /// Their definitions; a name that is taken means that persona.
        documents: Vec<PersonaDocument>,
        /// Take it back then, unless it was confirmed.
        confirm: Option<Deadline>,
    },
    /// Keep the change that waits for confirmation.
    Confirm,
    /// Take back the change that waits for confirmation.
    Revert {
        /// Why, for people.
        why: String,
    },
    /// The folder of documents was read whole and is valid: this is what files want.
    Documents(FileDocuments),
    /// Change what a set of a persona holds beside its document's entries.
    Elements {
        /// Id or name.
        persona: String,
        /// Name of the set.
        set: String,
        /// What changes.
        change: Elements,
    },
    /// Keep an address out of a persona, or let it in again.
    Quarantine {
        /// Id or name.
        persona: String,
        /// The address.
        address: IpAddr,
        /// How long it stays out; `None` lets it in again.
        until: Option<Duration>,
    },
    /// Something about personalities.
    Personality(PersonalityCommand),
    /// Something about interface records.
    Interface(InterfaceCommand),
    /// Something about the personality that an interface has.
    Switch(SwitchCommand),
    /// Something about experiments.
    Experiment(ExperimentCommand),
    /// The counters of interfaces that experiments are made with, by the names of their records.
    Measured(BTreeMap<String, Reading>),
    /// What was seen of an interface, because the hub asked for it.
    Observed {
        /// Name of the interface's record.
        interface: String,
        /// The ticket of the question.
        ticket: u64,
        /// What was seen.
        observation: Observation,
    },
    /// The templates of the documents folder, as they are.
    Templates(Templates),
    /// The kernel's links and addresses changed.
    Inventory(Inventory),
    /// A pass of reconcile is over.
    Faults {
        /// `Hub::revision` just before the pass's `Hub::desired`: personas admitted later wait for the next.
        revision: u64,
        /// What could not be done, by persona; an empty map clears.
        faults: BTreeMap<PersonaId, Vec<String>>,
        /// Personas that the pass had no time for: the next one, which begins at once, takes them on.
        postponed: BTreeSet<PersonaId>,
    },
    /// Whose handshakes take longer than its latency, with the time within which 95 of a hundred were done;
    /// of all others they do not.
    Latency(BTreeMap<PersonaId, Duration>),
    /// Time passed a deadline: look at `now`.
    Tick,
    /// The wall clock was set, by so much.
    ClockSet(SignedDuration),
    /// List what is ours in the kernel and wanted by nobody.
    Orphans,
    /// The configuration was read again; what differs can be changed while the hub runs.
    Configure(Box<Config>),
}

/// An end by two clocks: steps of the wall clock do not move it, and a reboot is past it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deadline {
    /// The end by the wall clock as it was, for people.
    pub until: Timestamp,
    /// The run of the kernel that the boot clock belongs to.
    pub boot_id: String,
    /// The end by the boot clock, in nanoseconds.
    pub boot_ns: u64,
}

/// How far the wall clock is before the boot clock; another difference in the same run of the kernel means that
/// somebody set the wall clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clocks {
    /// The run of the kernel that the boot clock belongs to; empty if it is not known.
    pub boot_id: String,
    /// The wall clock less the boot clock, in nanoseconds.
    pub wall_before_boot_ns: i64,
}

impl Clocks {
    /// A difference that is a step of the wall clock: both clocks run as fast as each other, but are not read at the
    /// same moment.
    pub const STEP_NS: i64 = 500_000_000;

    /// By how much the wall clock was set from here until then, if it was and there is a way to tell.
    pub fn step_until(&self, then: &Self) -> Option<SignedDuration> {
        if then.boot_id.is_empty() || self.boot_id != then.boot_id {
            return None;
        }
        let by = then.wall_before_boot_ns.saturating_sub(self.wall_before_boot_ns);
        (by.saturating_abs() >= Self::STEP_NS).then_some(SignedDuration::from_nanos(by))
    }
}

/// A change of a set.
#[derive(Clone, Debug)]
pub enum Elements {
    /// Put these in, or renew them.
    Add {
        /// The elements.
        entries: Vec<IpNet>,
        /// How long they stay; `None` is as the set says.
        ttl: Option<Duration>,
    },
    /// Take these out.
    Remove(Vec<IpNet>),
}

/// What the folder of documents holds. Problems count the personas first, then the personalities, then the
/// interfaces.
#[derive(Clone, Debug, Default)]
pub struct FileDocuments {
    /// Personas.
    pub personas: Vec<FileDocument>,
    /// Personalities.
    pub personalities: Vec<FileDocument<PersonalityDocument>>,
    /// Interface records.
    pub interfaces: Vec<FileDocument<InterfaceRecordDocument>>,
}

impl FileDocuments {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.personas.len() + self.personalities.len() + self.interfaces.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Vec<FileDocument>> for FileDocuments {
    fn from(personas: Vec<FileDocument>) -> Self {
        Self { personas, ..Self::default() }
    }
}

/// A document with the file it came from.
#[derive(Clone, Debug)]
pub struct FileDocument<D = PersonaDocument> {
    /// The file.
    pub path: PathBuf,
    /// Line of the document's first key, from 1.
    pub line: u32,
    /// Lines of its rules, from 1.
    pub rule_lines: Vec<u32>,
    /// What it defines.
    pub document: D,
}

/// What a command did.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A persona was admitted.
    Created(Box<PersonaView>),
    /// A persona was changed.
    Updated(Box<PersonaView>),
    /// Several personas were created or changed.
    Applied {
        /// Names of those that are new.
        created: Vec<String>,
        /// Names of those that were changed.
        updated: Vec<String>,
    },
    /// A persona was removed.
    Deleted,
    /// What is ours in the kernel and wanted by nobody, in words.
    Orphans(Vec<String>),
    /// The quarantine of this segment changed.
    Segment(SegmentId),
    /// A personality as it is kept.
    Personality(Box<PersonalityView>),
    /// An interface record as it is.
    Interface(Box<InterfaceView>),
    /// Switches that began, or what became of one.
    Switched(Vec<OperationView>),
    /// What a switch would do.
    Plan(Box<PlanView>),
    /// An experiment as it is.
    Experiment(Arc<Experiment>),
    /// Nothing to say.
    Done,
}

/// Why a command changed nothing. All problems at once, not the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// What kind of refusal.
    pub kind: RejectionKind,
    /// Every problem found; at least one.
    pub problems: Vec<Problem>,
}

/// Kinds of refusal, with the HTTP status each becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RejectionKind {
    /// 422: the document says something that cannot be.
    Invalid,
    /// 409: it contradicts what is there.
    Conflict,
    /// 404: there is no such persona.
    NotFound,
    /// 412: the persona changed in between.
    Changed,
    /// 507: a limit of the hub is reached.
    Full,
}

/// One thing wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// JSON pointer to the field, empty for the whole document (RFC 6901).
    pub pointer: String,
    /// What is wrong and what would be right, lowercase, without a dot.
    pub detail: String,
}

impl Problem {
    /// A problem with the field at `pointer`.
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into() }
    }
}
