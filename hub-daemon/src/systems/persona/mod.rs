//! Personas: their records, what they claim, what they contribute, what is to be said about them.

pub mod claims;
pub mod condition;
pub mod lint;
pub mod lists;
pub mod place;
pub mod seats;
pub mod view;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::document::persona::PersonaDocument;
use crate::model::persona::Persona;
use crate::model::policy::Policy;
use crate::model::{PersonaId, SegmentId};
use crate::view::{Origin, PersonaView};
use lists::Lists;
use seats::Seat;

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
    /// Where it stands.
    pub life: Life,
    /// What the kernel refused when asked last.
    pub faults: Vec<String>,
    /// Failed attempts to bring it into the kernel.
    pub attempts: u32,
    /// Revision of the hub at which it was to be brought into the kernel.
    pub since: u64,
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
    /// Whether it is alive at `now`.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.has_not_ended() && self.expires_at.is_none_or(|end| now < end)
    }

    /// Whether its end has not been seen yet.
    pub fn has_not_ended(&self) -> bool {
        !matches!(self.life, Life::Expired { .. })
    }

    /// Whether its segment is in the data path.
    pub fn holds_segment(&self) -> bool {
        match self.life {
            Life::Provisioning | Life::Active | Life::Failed { .. } => true,
            Life::Expired { holds, .. } => holds,
        }
    }

    /// Where the definition is, for messages: `FILE:LINE`, or the API.
    pub fn written(&self) -> String {
        match &self.origin {
            Origin::Api => "the API".to_owned(),
            Origin::File { path, line } => format!("{}:{line}", path.display()),
        }
    }
}
