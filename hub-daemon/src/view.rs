//! What the outside may see of the hub: values made for reading, published after every change.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::document::persona::PersonaDocument;
use crate::model::{PersonaId, SegmentId};
use crate::systems::persona::lists::Lists;

/// All personas and the hub's own condition at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Personas by id.
    pub personas: BTreeMap<PersonaId, Arc<PersonaView>>,
    /// Conditions of the hub itself: fall-backs taken, faults.
    pub conditions: Vec<Condition>,
    /// When the documents were last read without error.
    pub documents_read: Option<Timestamp>,
    /// Error of the last failed read of the documents, if it is newer than the last good one.
    pub documents_error: Option<String>,
    /// Whether the kernel was equal to the documents at least once.
    pub ready: bool,
}

/// One persona as `GET` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PersonaView {
    /// Never changes, never used again.
    pub id: PersonaId,
    /// State of its life.
    pub state: PersonaState,
    /// Counts changes of the definition, from 1; the `ETag`.
    pub generation: u64,
    /// Index in the data path's tables.
    pub segment: SegmentId,
    /// When it was admitted.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it ends.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
    /// Who owns the definition.
    pub origin: Origin,
    /// The definition, as given, with defaults filled in.
    pub definition: PersonaDocument,
    /// Things to know: what is not enforced, what is missing, what failed.
    pub conditions: Vec<Condition>,
    /// Lint: legal, but probably not meant.
    pub warnings: Vec<String>,
    /// Where each rule came from, by position in `security_policies`: `FILE:LINE` or `api`.
    pub rule_sources: Vec<String>,
    /// What was put into sets and quarantine at run time; has routes of its own.
    #[serde(skip)]
    #[schema(ignore)]
    pub lists: Lists,
}

/// State of a persona's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PersonaState {
    /// Admitted, not yet in the kernel.
    Provisioning,
    /// In the kernel, packets pass as its policy says.
    Active,
    /// Its deadline has passed; kept for reading only.
    Expired,
    /// The kernel refused part of it; nothing of it passes packets.
    Failed,
}

/// Who owns a definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase", tag = "by")]
pub enum Origin {
    /// REST or `hubctl create`.
    Api,
    /// A document in the documents folder; the API may not change it.
    File {
        /// The file.
        #[schema(value_type = String)]
        path: PathBuf,
        /// Line of the document, from 1.
        line: u32,
    },
}

/// Something an operator should know of a persona or of the hub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Condition {
    /// What it is about, one word in CamelCase, for example `QosNotEnforced`.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}
