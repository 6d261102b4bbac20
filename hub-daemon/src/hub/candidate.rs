//! Trials: a candidate begins, and ends by time, by command, or with the definition it was compared with.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::admit::not_found;
use super::draft::{Draft, rule_ends};
use super::{Hub, refused};
use crate::command::{Problem, Rejection, RejectionKind, Reply};
use crate::document::persona::PersonaDocument;
use crate::systems::persona::Record;
use crate::systems::persona::candidate::Candidate;
use crate::view::Origin;

/// Trials at once: each has a compiled policy of its own.
const TRIALS: usize = 64;

impl Hub {
    /// Begins a trial, in place of the one before.
    pub(super) fn try_candidate(
        &mut self,
        persona: &str,
        document: PersonaDocument,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Reply, Rejection> {
        let record = self.find(persona).ok_or_else(|| not_found(persona))?;
        let id = record.id.clone();
        carries_nothing(record)?;
        if !record.is_live(now) {
            return Err(refused(RejectionKind::Conflict, "", "it ended: there are no packets to judge"));
        }
        if until <= now {
            return Err(refused(RejectionKind::Invalid, "", "the trial would be over: give it some time"));
        }
        let running = |other: &Candidate| !other.over;
        let others = self.records.values().filter(|other| other.id != id);
        if others.filter_map(|other| other.candidate.as_ref()).filter(|other| running(other)).count()
            >= TRIALS
        {
            let detail = format!("{TRIALS} candidates are on trial already: end one");
            return Err(refused(RejectionKind::Full, "", detail));
        }
        // Its own end is nothing that a trial looks at.
        let baseline = &self.config.baseline;
        let allotted = record.persona.allotted();
        let mut draft = Draft::checked(document, allotted, None, BTreeMap::new(), baseline)?;
        draft.end_rules(rule_ends(&draft.persona, Some(record), now));
        let mut problems = Vec::new();
        if draft.persona.name() != record.persona.name() {
            let detail = format!("a candidate keeps the name `{}`", record.persona.name());
            problems.push(Problem::new("/name", detail));
        }
        if draft.persona.ranges() != record.persona.ranges() {
            let detail = "a candidate keeps the ranges of its persona: a trial compares what rules say";
            problems.push(Problem::new("/ip_range", detail));
        }
        if !problems.is_empty() {
            return Err(Rejection { kind: RejectionKind::Invalid, problems });
        }
        self.claims.room(&draft.persona, &record.virtuals, &draft.policy, &self.config)?;
        let candidate = Candidate {
            document: Arc::new(draft.document),
            persona: Arc::new(draft.persona),
            policy: Arc::new(draft.policy),
            rule_ends: draft.rule_ends,
            began: now,
            until,
            over: false,
        };
        self.revision += 1;
        if let Some(record) = self.records.get_mut(&id) {
            record.candidate = Some(candidate);
            record.view = None;
        }
        let view = self.view(&id, now).ok_or_else(|| not_found(persona))?;
        Ok(Reply::Updated(Box::new(view.as_ref().clone())))
    }

    /// Ends a trial, or forgets one that ended.
    pub(super) fn end_trial(&mut self, persona: &str, now: Timestamp) -> Result<Reply, Rejection> {
        let record = self.find(persona).ok_or_else(|| not_found(persona))?;
        let id = record.id.clone();
        carries_nothing(record)?;
        if record.candidate.is_none() {
            let detail = format!("persona `{persona}` has no candidate");
            return Err(refused(RejectionKind::NotFound, "", detail));
        }
        self.revision += 1;
        if let Some(record) = self.records.get_mut(&id) {
            record.candidate = None;
            record.view = None;
        }
        let view = self.view(&id, now).ok_or_else(|| not_found(persona))?;
        Ok(Reply::Updated(Box::new(view.as_ref().clone())))
    }

    /// Ends trials whose time is over.
    pub(super) fn end_trials(&mut self, now: Timestamp) {
        let ends = |record: &Record| {
            let candidate = record.candidate.as_ref().filter(|candidate| !candidate.over);
            candidate.is_some_and(|candidate| candidate.until <= now || !record.is_live(now))
        };
        for record in self.records.select_mut(ends) {
            if let Some(candidate) = &mut record.candidate {
                candidate.over = true;
            }
            record.view = None;
        }
    }
}

/// The candidate of a persona that carries a personality is what its interface is switched to.
fn carries_nothing(record: &Record) -> Result<(), Rejection> {
    if record.origin == Origin::Interface {
        let detail = "it carries the personality of an interface: plan a switch of that instead";
        return Err(refused(RejectionKind::Conflict, "", detail));
    }
    Ok(())
}
