//! Lives: deletions that drain, and a wall clock that is set.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::state::State;
use super::{Hub, after};
use crate::command::{Clocks, Problem, Rejection, Reply};
use crate::compile;
use crate::document::persona::PersonaDocument;
use crate::model::config::Config;
use crate::model::expiry::Expiry;
use crate::model::id::IdSource;
use crate::model::life::{self, Held};
use crate::systems::persona::{Life, Record};

/// A wall clock that goes back by more makes no life longer; by less, it is being corrected.
const SET_BACK: SignedDuration = SignedDuration::from_secs(60);

impl Hub {
    /// A hub as it was stored, by the clocks as they are: what was set meanwhile is set now.
    pub fn restore_by(
        config: Config,
        ids: IdSource,
        state: State,
        clocks: Option<Clocks>,
        now: Timestamp,
    ) -> Self {
        let step = state.clocks.as_ref().zip(clocks.as_ref()).and_then(|(then, now)| then.step_until(now));
        // Its times are by the clock of then.
        let then = step.map_or(now, |by| after(now, -by));
        let mut hub = Self::restore(config, ids, state, then);
        hub.clocks = clocks.or(hub.clocks);
        if let Some(by) = step {
            hub.clock_set(by, now);
            hub.advance(now);
        }
        hub
    }

    /// Notes how the clocks are to each other, so that another daemon can tell whether one was set.
    pub fn note_clocks(&mut self, clocks: Clocks) {
        self.clocks = Some(clocks);
    }

    pub(super) fn delete(
        &mut self,
        persona: &str,
        if_generation: Option<u64>,
        drain: Option<Duration>,
        now: Timestamp,
    ) -> Result<Reply, Rejection> {
        let id = self.writable(persona, if_generation)?;
        let drain = drain.and_then(|time| SignedDuration::try_from(time).ok());
        match (drain, self.records.get_mut(&id)) {
            (Some(drain), Some(record)) if record.is_live(now) && record.life == Life::Active => {
                // Asked twice, the earlier end stays.
                let end = after(now, drain);
                record.leaving = Some(record.leaving.map_or(end, |leaving| leaving.min(end)));
                self.revision += 1;
                self.reply(&id, now, Reply::Updated)
            }
            _ => {
                self.remove(&id, now);
                Ok(Reply::Deleted)
            }
        }
    }

    /// When the life of a definition ends, and at most when where the clock was set back: both stay if the old
    /// definition has the same end. The rest of the definition may be wrong.
    pub(super) fn life_ends(
        &self,
        document: &PersonaDocument,
        old: Option<&Record>,
        by_api: bool,
        now: Timestamp,
    ) -> Result<(Option<Timestamp>, Option<Timestamp>), Vec<Problem>> {
        let held = old.map(|old| Held::new(&old.document, old.created_at, old.expires_at));
        let end = life::end(document, self.config.life, held, by_api, now)?;
        let same = old.filter(|old| life::expiry(&old.document) == life::expiry(document));
        Ok((end, same.and_then(|old| old.cap)))
    }

    /// Keeps what counts time, rather than names one, as long as it was; and no end later than it was.
    pub(super) fn clock_set(&mut self, by: SignedDuration, now: Timestamp) {
        for record in self.records.select_mut(Record::has_not_ended) {
            let held = record.deadline();
            record.created_at = after(record.created_at, by);
            record.cap = record.cap.map(|cap| after(cap, by));
            record.leaving = record.leaving.map(|end| after(end, by));
            if by < -SET_BACK {
                record.cap = held.map(|deadline| after(deadline, by));
            }
            if let Life::Failed { retry_at } = &mut record.life {
                *retry_at = after(*retry_at, by);
            }
            record.shift_rules(by);
            record.lists.shift(by);
            if let Some(candidate) = &mut record.candidate {
                candidate.began = after(candidate.began, by);
                candidate.until = after(candidate.until, by);
            }
            record.see_moments(now);
        }
        self.segments.shift(by);
        self.ranges.shift(by);
        self.keys.shift(by);
        self.shift_interfaces(by);
        self.revision += 1;
    }

    /// A pass that brings everything wanted into the kernel begins.
    pub fn begin_pass(&mut self) {
        for record in self.records.select_mut(|record| !record.is_taken_up) {
            record.is_taken_up = true;
        }
    }
}

impl Record {
    /// When time alone changes what is said or wanted of it.
    pub(super) fn next_moment(&self) -> Option<Timestamp> {
        self.moments().get(self.moments_seen).copied().into_iter().chain(self.over_at()).min()
    }

    /// Has its rules end when they would have, by a clock that was set. An end that the document names stays there,
    /// unless the clock went back.
    fn shift_rules(&mut self, by: SignedDuration) {
        if self.rule_ends.is_empty() {
            return;
        }
        for rule in self.persona.rules() {
            let Some(end) = self.rule_ends.get_mut(&rule.identity()) else { continue };
            *end = match rule.expiry() {
                Expiry::At(named) if *end == named && by >= -SET_BACK => named,
                Expiry::At(named) => after(*end, by).min(named),
                Expiry::Never | Expiry::After(_) => after(*end, by),
            };
        }
        compile::end(Arc::make_mut(&mut self.policy), &self.persona, &self.rule_ends);
    }

    pub(super) fn see_moments(&mut self, now: Timestamp) {
        self.moments_seen = self.moments().iter().filter(|moment| **moment <= now).count();
    }
}
