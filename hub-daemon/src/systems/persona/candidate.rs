//! Candidates: a definition whose policy is judged beside the live one, for a while.
//!
//! A candidate decides nothing and claims nothing: only its rules reach the data path. It ends by itself; it
//! is kept after that, so that what was counted can be read and the definition taken.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::document::persona::PersonaDocument;
use crate::model::persona::Persona;
use crate::model::personality::Carried;
use crate::model::policy::Policy;
use crate::view::CandidateView;

/// A definition on trial.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The definition as given.
    pub document: Arc<PersonaDocument>,
    /// The definition checked.
    pub persona: Arc<Persona>,
    /// Its rules compiled, without the ranges of peers.
    pub policy: Arc<Policy>,
    /// When its rules end, by their identity.
    pub rule_ends: BTreeMap<u64, Timestamp>,
    /// When it began.
    pub began: Timestamp,
    /// When it ends.
    pub until: Timestamp,
    /// Whether its end was seen.
    pub over: bool,
}

/// The stored form of a [`Candidate`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredCandidate {
    /// When it began.
    pub began: Timestamp,
    /// When it ends.
    pub until: Timestamp,
    /// Whether its end was seen.
    pub over: bool,
    /// The definition as given.
    pub definition: PersonaDocument,
    /// What it has beside, where it carries a personality: not what the one that decides has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried: Option<Carried>,
}

impl Candidate {
    /// What to store.
    pub fn stored(&self) -> StoredCandidate {
        StoredCandidate {
            began: self.began,
            until: self.until,
            over: self.over,
            definition: self.document.as_ref().clone(),
            carried: self.document.carried.clone(),
        }
    }

    /// What the outside may see.
    pub fn view(&self) -> CandidateView {
        CandidateView {
            running: !self.over,
            began_at: self.began,
            ends_at: self.until,
            definition: self.document.as_ref().clone(),
        }
    }
}
