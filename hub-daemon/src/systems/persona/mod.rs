//! Personas: their records, what they claim, what they contribute, what is to be said about them.

pub mod candidate;
pub mod choice;
pub mod claims;
pub mod condition;
pub mod lint;
pub mod lists;
pub mod names;
pub mod overlap;
pub mod place;
pub mod seats;
pub mod shaping;
pub mod translate;
pub mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};

use crate::document::persona::PersonaDocument;
use crate::model::life;
use crate::model::persona::Persona;
use crate::model::policy::Policy;
use crate::model::prefix;
use crate::model::translation::Virtual;
use crate::model::{PersonaId, SegmentId};
use crate::view::{Origin, PersonaView};
use candidate::Candidate;
use lists::Lists;
use seats::Seat;

/// Condition of a persona in the last tenth of its life.
pub const ENDS_SOON: &str = "EndsSoon";
/// Condition of a persona in its last minute.
pub const ENDS_IN_A_MINUTE: &str = "EndsInAMinute";

fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    one.into_iter().chain(other).min()
}

/// Everything the hub knows of one persona, alive or ended.
#[derive(Clone, Debug)]
pub struct Record {
    /// Identity.
    pub id: PersonaId,
    /// Index in the data path.
    pub segment: SegmentId,
    /// Counts changes of the definition, from 1.
    pub generation: u64,
    /// When it was admitted.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// Where the clock was set back, the deadline that held before: no life becomes longer by that.
    pub cap: Option<Timestamp>,
    /// When it is deleted, if it drains until then.
    pub leaving: Option<Timestamp>,
    /// How many of [`Record::moments`] are over.
    pub moments_seen: usize,
    /// Whether a pass that brings it into the kernel has begun.
    pub is_taken_up: bool,
    /// Who owns the definition.
    pub origin: Origin,
    /// Lines of its rules in the file, from 1; empty for the API.
    pub rule_lines: Vec<u32>,
    /// The definition as given.
    pub document: Arc<PersonaDocument>,
    /// The definition checked.
    pub persona: Arc<Persona>,
    /// Its rules compiled, without the ranges of peers.
    pub policy: Arc<Policy>,
    /// When its rules end, by their identity.
    pub rule_ends: BTreeMap<u64, Timestamp>,
    /// What was put into sets and quarantine at run time.
    pub lists: Lists,
    /// Lint.
    pub warnings: Arc<Vec<String>>,
    /// What its endpoints got.
    pub seats: BTreeMap<String, Seat>,
    /// Ranges that others know under other addresses.
    pub virtuals: Virtual,
    /// Ranges of its own that others took for their lives, with those; each has a virtual one meanwhile.
    pub overridden: BTreeMap<IpNet, BTreeSet<PersonaId>>,
    /// Ranges that personas with the same ranges know under other addresses, because those are their own.
    pub aliases: Virtual,
    /// Where it stands.
    pub life: Life,
    /// What the kernel refused when asked last.
    pub faults: Vec<String>,
    /// How long its handshakes take, if that is longer than its latency.
    pub late: Option<Duration>,
    /// Failed attempts to bring it into the kernel.
    pub attempts: u32,
    /// Revision of the hub at which it was to be brought into the kernel.
    pub since: u64,
    /// A definition on trial, or the last one that was.
    pub candidate: Option<Candidate>,
    /// The view published last.
    pub view: Option<Arc<PersonaView>>,
}

/// Where a persona stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Wanted in the kernel, not yet known to be there.
    Provisioning,
    /// In the kernel.
    Active,
    /// The kernel refused part of it; nothing of it is wanted there until `retry_at`.
    Failed {
        /// Next attempt.
        retry_at: Timestamp,
    },
    /// Another hub has it: nothing of it is in this kernel.
    Elsewhere,
    /// Its deadline passed. It never comes back.
    Expired {
        /// When that was seen.
        at: Timestamp,
        /// Whether its segment still drops the packets of its ranges.
        holds: bool,
        /// Whether the documents folder still has it.
        listed: bool,
    },
}

impl Record {
    /// Its ranges as the hub and everybody else knows them.
    pub fn main_ranges(&self) -> Vec<IpNet> {
        self.persona.ranges().iter().map(|range| self.virtuals.main(range)).collect()
    }

    /// Whether it has virtual ranges though it would take its own: the kernel refused it once.
    pub fn has_stepped_back(&self) -> bool {
        self.persona.overrides()
            && self.virtuals.iter().any(|(range, _)| !self.overridden.contains_key(range))
    }

    /// The ranges of another persona as its members know them.
    pub fn sees(&self, other: &Self) -> Vec<IpNet> {
        let alias = |range: IpNet| {
            let own = self.virtuals.iter().any(|(native, _)| prefix::overlaps(native, &range));
            other.aliases.get(&range).filter(|_| own).unwrap_or(range)
        };
        other.main_ranges().into_iter().map(alias).collect()
    }

    /// Whether it is alive at `now`.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.has_not_ended() && self.over_at().is_none_or(|end| now < end)
    }

    /// From when on it takes no new connections.
    pub fn deadline(&self) -> Option<Timestamp> {
        earlier(self.expires_at, self.cap)
    }

    /// From when on no packet of it passes.
    pub fn over_at(&self) -> Option<Timestamp> {
        let drained = self.deadline().map(|end| end.saturating_add(self.drain()).unwrap_or(Timestamp::MAX));
        earlier(drained, self.leaving)
    }

    /// How long connections go on after the deadline.
    pub fn drain(&self) -> SignedDuration {
        SignedDuration::try_from(self.persona.on_expiry().drain()).unwrap_or_default()
    }

    /// Whether its deadline has passed, which nobody moves then.
    pub fn is_past_deadline(&self, now: Timestamp) -> bool {
        self.deadline().is_some_and(|end| end <= now)
    }

    /// Moments at which time alone changes what is said of it: warnings of its end, and its deadline.
    pub fn moments(&self) -> Vec<Timestamp> {
        let Some(deadline) = self.deadline() else { return Vec::new() };
        let mut moments = life::warnings(self.created_at, deadline);
        moments.push(deadline);
        moments
    }

    /// The warning that is due: its reason and the deadline.
    pub fn ending(&self, now: Timestamp) -> Option<(&'static str, Timestamp)> {
        let deadline = self.deadline().filter(|end| now < *end)?;
        let warnings = life::warnings(self.created_at, deadline);
        let last = deadline.duration_since(now) <= SignedDuration::from_mins(1);
        let due = warnings.first().is_some_and(|first| *first <= now);
        due.then_some((if last { ENDS_IN_A_MINUTE } else { ENDS_SOON }, deadline))
    }

    /// Whether it lives at `now`, on this hub, and the kernel did not refuse it.
    pub fn works(&self, now: Timestamp) -> bool {
        self.is_live(now) && !matches!(self.life, Life::Failed { .. } | Life::Elsewhere)
    }

    /// Whether its end has not been seen yet.
    pub fn has_not_ended(&self) -> bool {
        !matches!(self.life, Life::Expired { .. })
    }

    /// How long its handshakes take under another definition, if that is longer than the same latency.
    pub fn late_for(&self, document: &PersonaDocument) -> Option<Duration> {
        let latency = |document: &PersonaDocument| document.qos.as_ref()?.latency.clone();
        self.late.filter(|_| latency(&self.document) == latency(document))
    }

    /// Whether its segment is in the data path.
    pub fn holds_segment(&self) -> bool {
        match self.life {
            Life::Provisioning | Life::Active | Life::Failed { .. } => true,
            Life::Elsewhere => false,
            Life::Expired { holds, .. } => holds,
        }
    }

    /// Where the definition is, for messages: `FILE:LINE`, or the API.
    pub fn written(&self) -> String {
        match &self.origin {
            Origin::Api => "the API".to_owned(),
            Origin::Interface => "the interface's record".to_owned(),
            Origin::File { path, line } => format!("{}:{line}", path.display()),
        }
    }
}
