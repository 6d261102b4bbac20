//! Keys of requests that made personas: one that is sent again makes nothing, also by another daemon.
//!
//! A key is stored with the persona that it made, in one write. It is forgotten after a day, when many others have
//! come, and with a note of another hub's persona, which is taken back where that hub does not take it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Hub, after, refused};
use crate::command::{Rejection, RejectionKind, Reply};
use crate::model::PersonaId;
use crate::model::key::{KEY_TIME, KEYS, Key};

/// What a key made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// SHA-256 of the request's body, in hexadecimal digits.
    pub body: String,
    /// The persona.
    pub persona: PersonaId,
    /// When.
    pub at: Timestamp,
}

/// All keys, and which of them were kept or forgotten since they were stored.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys {
    held: Arc<BTreeMap<String, Made>>,
    unsaved: BTreeSet<String>,
}

impl Keys {
    /// Keys as they were stored.
    pub(super) fn restore(stored: BTreeMap<String, Made>) -> Self {
        Self { held: Arc::new(stored), unsaved: BTreeSet::new() }
    }

    /// What to store.
    pub(super) fn stored(&self) -> BTreeMap<String, Made> {
        BTreeMap::clone(&self.held)
    }

    /// Those that were kept since they were stored, and without a value those that were forgotten.
    pub(super) fn changes(&self) -> BTreeMap<String, Option<Made>> {
        self.unsaved.iter().map(|key| (key.clone(), self.held.get(key).cloned())).collect()
    }

    /// All of them are stored.
    pub(super) fn saved(&mut self) {
        self.unsaved.clear();
    }

    /// The clock was set: keys are remembered as long as before.
    pub(super) fn shift(&mut self, by: SignedDuration) {
        for (key, made) in Arc::make_mut(&mut self.held) {
            made.at = after(made.at, by);
            self.unsaved.insert(key.clone());
        }
    }

    /// Forgets the keys of a persona.
    pub(super) fn forget(&mut self, persona: &PersonaId) {
        self.retain(|made| made.persona != *persona);
    }

    fn keep(&mut self, key: Key, persona: PersonaId, now: Timestamp) {
        self.retain(|made| made.lasts(now));
        let oldest = self.held.iter().min_by_key(|(_, made)| made.at).map(|(key, _)| key.clone());
        if let Some(oldest) = oldest.filter(|_| self.held.len() >= KEYS) {
            Arc::make_mut(&mut self.held).remove(&oldest);
            self.unsaved.insert(oldest);
        }
        self.unsaved.insert(key.text.clone());
        Arc::make_mut(&mut self.held).insert(key.text, Made { body: key.body, persona, at: now });
    }

    fn retain(&mut self, stays: impl Fn(&Made) -> bool) {
        let gone: Vec<String> =
            self.held.iter().filter(|(_, made)| !stays(made)).map(|(key, _)| key.clone()).collect();
        for key in gone {
            Arc::make_mut(&mut self.held).remove(&key);
            self.unsaved.insert(key);
        }
    }
}

impl Made {
    /// Whether it is remembered. A time to come is one of a clock that was set back.
    fn lasts(&self, now: Timestamp) -> bool {
        now.duration_since(self.at) < KEY_TIME
    }
}

impl Hub {
    /// What a key made, as it is; nothing if nobody used the key yet.
    pub(super) fn recall(&mut self, key: &Key, now: Timestamp) -> Result<Option<Reply>, Rejection> {
        let Some(made) = self.keys.held.get(&key.text).filter(|made| made.lasts(now)).cloned() else {
            return Ok(None);
        };
        if made.body != key.body {
            let detail = "Idempotency-Key: used before with another body";
            return Err(refused(RejectionKind::Invalid, "", detail));
        }
        if !self.records.contains_key(&made.persona) {
            let detail =
                format!("Idempotency-Key: it made persona {}, which is gone: use another", made.persona);
            return Err(refused(RejectionKind::Conflict, "", detail));
        }
        self.reply(&made.persona, now, Reply::Created).map(Some)
    }

    /// Notes that a key made what is answered.
    pub(super) fn remember(&mut self, key: Key, reply: &Reply, now: Timestamp) {
        if let Reply::Created(view) = reply {
            self.keys.keep(key, view.id.clone(), now);
        }
    }
}
