//! What survives a restart: definitions made at run time, and the numbers that personas were given.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::{IpNet, Ipv6Net};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Hub;
use super::admit::Author;
use super::draft::{Draft, rule_ends};
use super::interface_state::StoredInterfaces;
use super::keys::{Keys, Made};
use crate::command::{Clocks, Deadline, Rejection};
use crate::document::persona::PersonaDocument;
use crate::model::config::Config;
use crate::model::id::IdSource;
use crate::model::personality::Carried;
use crate::model::rule::Rule;
use crate::model::translation::Virtual;
use crate::model::{PersonaId, SegmentId, is_default};
use crate::systems::persona::candidate::{Candidate, StoredCandidate};
use crate::systems::persona::lists::Lists;
use crate::systems::persona::seats::Seat;
use crate::systems::persona::{Life, Record};
use crate::view::{Condition, Origin};

/// Version of the form below.
pub const VERSION: u32 = 1;
/// Version of a stored form that a journal goes on from.
pub const JOURNALED: u32 = 2;

/// The stored form of a hub.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// [`VERSION`], or [`JOURNALED`] where there is a sequence.
    pub version: u32,
    /// Number of the last change of the journal that this holds.
    #[serde(default, skip_serializing_if = "is_default")]
    pub sequence: u64,
    /// Personas, alive and ended, files' and the API's.
    pub personas: Vec<StoredPersona>,
    /// Segment numbers that rest, until when.
    pub resting: BTreeMap<SegmentId, Timestamp>,
    /// Where virtual IPv6 ranges come from.
    #[serde(default)]
    pub unique_local: Option<Ipv6Net>,
    /// Ranges out of pools that rest, until when.
    #[serde(default)]
    pub resting_ranges: BTreeMap<IpNet, Timestamp>,
    /// Keys of requests that made personas.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub keys: BTreeMap<String, Made>,
    /// The clocks that its times are by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clocks: Option<Clocks>,
    /// A change that waits for confirmation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Box<Pending>>,
    /// Personalities, interfaces and switches.
    #[serde(default, skip_serializing_if = "is_default")]
    pub interfaces: StoredInterfaces,
}

/// A change that goes back unless somebody confirms it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pending {
    /// When it goes back.
    pub deadline: Deadline,
    /// What was before.
    pub before: State,
}

/// The stored form of a persona.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredPersona {
    /// Identity.
    pub id: PersonaId,
    /// Index in the data path.
    pub segment: SegmentId,
    /// Counts changes.
    pub generation: u64,
    /// When it was admitted.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// Who owns it.
    pub origin: Origin,
    /// Lines of its rules.
    pub rule_lines: Vec<u32>,
    /// Where it stands.
    pub life: StoredLife,
    /// When its rules end, by their identity.
    #[serde(default)]
    pub rule_ends: BTreeMap<u64, Timestamp>,
    /// What was put into sets and quarantine at run time.
    #[serde(default)]
    pub lists: Lists,
    /// What its endpoints got.
    pub seats: BTreeMap<String, Seat>,
    /// Its virtual ranges.
    #[serde(default)]
    pub virtuals: Virtual,
    /// Its ranges that others took for their lives.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub overridden: BTreeMap<IpNet, BTreeSet<PersonaId>>,
    /// What personas with the same ranges know it by.
    #[serde(default)]
    pub aliases: Virtual,
    /// Ranges that the hub chose, by position in `ip_range`.
    #[serde(default)]
    pub allotted: BTreeMap<usize, IpNet>,
    /// The deadline that held before the clock was set back.
    #[serde(default)]
    pub cap: Option<Timestamp>,
    /// When it is deleted, if it drains until then.
    #[serde(default)]
    pub leaving: Option<Timestamp>,
    /// The definition as given.
    pub definition: PersonaDocument,
    /// A definition on trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<StoredCandidate>,
    /// What it has if it carries a personality.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried: Option<Carried>,
}

/// The stored form of [`Life`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoredLife {
    /// Not known to have been in the kernel whole.
    Provisioning,
    /// Was in the kernel.
    Active,
    /// Ended.
    Expired {
        /// When that was seen.
        at: Timestamp,
        /// Whether its segment still drops packets.
        holds: bool,
        /// Whether a file still had it.
        listed: bool,
    },
}

impl Hub {
    /// What to store.
    pub fn state(&self) -> State {
        State {
            version: VERSION,
            sequence: 0,
            personas: self.records.values().map(stored).collect(),
            resting: self.segments.resting().clone(),
            unique_local: Some(self.unique_local),
            resting_ranges: self.ranges.resting().clone(),
            keys: self.keys.stored(),
            clocks: self.clocks.clone(),
            pending: self.pending.as_deref().cloned().map(Box::new),
            interfaces: self.stored_interfaces(),
        }
    }

    /// A hub as it was stored. What does not fit any more is left out and reported as a condition.
    pub fn restore(config: Config, ids: IdSource, state: State, now: Timestamp) -> Self {
        let mut hub = Self::new(config, ids);
        hub.unique_local = state.unique_local.unwrap_or(hub.unique_local);
        for (segment, until) in state.resting {
            if hub.segments.take_again(segment) {
                hub.segments.rest(segment, until);
            }
        }
        for (range, until) in state.resting_ranges {
            hub.ranges.rest(range, until);
        }
        hub.keys = Keys::restore(state.keys);
        hub.clocks = state.clocks;
        hub.pending = state.pending.map(|pending| Arc::new(*pending));
        if let Some(deadline) = hub.pending().cloned() {
            hub.announce_pending(&deadline);
        }
        let mut lost = Vec::new();
        for stored in state.personas {
            let name = stored.definition.name.clone();
            if let Err(why) = hub.revive(stored) {
                lost.push(format!("persona `{name}` is not restored: {why}"));
            }
        }
        hub.conditions.extend(
            lost.into_iter().map(|message| Condition { reason: "StateIncomplete".to_owned(), message }),
        );
        for record in hub.records.values_mut() {
            record.see_moments(now);
        }
        hub.forget_takers(now);
        hub.restore_interfaces(state.interfaces, now);
        hub.advance(now);
        hub
    }

    fn revive(&mut self, stored: StoredPersona) -> Result<(), String> {
        let baseline = &self.config.baseline;
        let carried = stored.carried;
        let draft = Draft::checked(
            PersonaDocument { carried: carried.clone(), ..stored.definition },
            &stored.allotted,
            stored.expires_at,
            stored.rule_ends,
            baseline,
        );
        let draft = draft.map_err(|rejection| {
            rejection.problems.iter().map(|problem| problem.detail.clone()).collect::<Vec<_>>().join("; ")
        })?;
        let is_elsewhere = self.config.node.is_elsewhere(&draft.document);
        let (live, holds) = match stored.life {
            StoredLife::Provisioning | StoredLife::Active => (true, !is_elsewhere),
            StoredLife::Expired { holds, .. } => (false, holds),
        };
        if self.records.contains_key(&stored.id) || (live && self.named(draft.persona.name()).is_some()) {
            return Err("its id or name is there twice".to_owned());
        }
        if holds && stored.segment.0 == 0 {
            return Err("it lived on another hub: it is read or created anew".to_owned());
        }
        if holds && !self.segments.take_again(stored.segment) {
            return Err(format!("segment {} is taken or outside the table", stored.segment));
        }
        let author = Author { origin: stored.origin, rule_lines: stored.rule_lines };
        let life = match stored.life {
            StoredLife::Provisioning | StoredLife::Active if is_elsewhere => Life::Elsewhere,
            StoredLife::Provisioning => Life::Provisioning,
            StoredLife::Active => Life::Active,
            StoredLife::Expired { at, holds, listed } => Life::Expired { at, holds, listed },
        };
        let given = (stored.seats, stored.virtuals);
        let record = draft.record(stored.id.clone(), stored.segment, author, given, stored.created_at, 0);
        let (cap, leaving) = (stored.cap, stored.leaving);
        // One that is no longer understood is no loss: it decides nothing.
        let candidate = stored.candidate.and_then(|stored| {
            revived(stored, carried, record.persona.allotted(), &self.config.baseline).ok()
        });
        let aliases = stored.aliases;
        let lists = stored.lists;
        let overridden = stored.overridden;
        let record = Record { generation: stored.generation, life, cap, leaving, overridden, ..record };
        let record = Record { lists, aliases, candidate, ..record };
        if live {
            self.ranges.insert(&record);
            self.claims.insert(&record);
        } else if holds {
            self.graves.insert(&record);
        }
        self.records.insert(stored.id, record);
        Ok(())
    }
}

fn revived(
    stored: StoredCandidate,
    carried: Option<Carried>,
    allotted: &BTreeMap<usize, IpNet>,
    baseline: &[Rule],
) -> Result<Candidate, Rejection> {
    // Of what was stored without it, nothing is known that goes away.
    let carried =
        stored.carried.or_else(|| carried.map(|carried| Carried { leaving: Vec::new(), ..carried }));
    let definition = PersonaDocument { carried, ..stored.definition };
    let mut draft = Draft::checked(definition, allotted, None, BTreeMap::new(), baseline)?;
    draft.end_rules(rule_ends(&draft.persona, None, stored.began));
    Ok(Candidate {
        document: Arc::new(draft.document),
        persona: Arc::new(draft.persona),
        policy: Arc::new(draft.policy),
        rule_ends: draft.rule_ends,
        began: stored.began,
        until: stored.until,
        over: stored.over,
    })
}

/// The stored form of a record.
pub(super) fn stored(record: &Record) -> StoredPersona {
    StoredPersona {
        id: record.id.clone(),
        segment: record.segment,
        generation: record.generation,
        created_at: record.created_at,
        expires_at: record.expires_at,
        origin: record.origin.clone(),
        rule_lines: record.rule_lines.clone(),
        life: match record.life {
            Life::Active => StoredLife::Active,
            Life::Provisioning | Life::Failed { .. } | Life::Elsewhere => StoredLife::Provisioning,
            Life::Expired { at, holds, listed } => StoredLife::Expired { at, holds, listed },
        },
        rule_ends: record.rule_ends.clone(),
        lists: record.lists.clone(),
        seats: record.seats.clone(),
        virtuals: record.virtuals.clone(),
        overridden: record.overridden.clone(),
        aliases: record.aliases.clone(),
        allotted: record.persona.allotted().clone(),
        cap: record.cap,
        leaving: record.leaving,
        definition: Arc::unwrap_or_clone(Arc::clone(&record.document)),
        candidate: record.candidate.as_ref().map(Candidate::stored),
        carried: record.document.carried.clone(),
    }
}
