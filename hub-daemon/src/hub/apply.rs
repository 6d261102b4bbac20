//! Several personas as one change, and changes that go back by themselves unless somebody confirms them.
//!
//! What was before is part of the hub's state, so that it is on the disk before the kernel hears of the
//! change, and a hub that dies in between knows what to go back to.

use std::sync::Arc;

use jiff::Timestamp;

use super::admit::Author;
use super::documents::{below, severity};
use super::state::{Pending, State, stored};
use super::{Hub, QUARANTINE, after, refused};
use crate::command::switch::SwitchCommand;
use crate::command::{Command, Deadline, Problem, Rejection, RejectionKind, Reply};
use crate::document::persona::PersonaDocument;
use crate::model::PersonaId;
use crate::systems::persona::Record;
use crate::view::Origin;

const PENDING: &str = "ConfirmationPending";
const REVERTED: &str = "Reverted";

/// What becomes of one definition.
enum Step {
    Keep,
    Change(PersonaId),
    Admit,
}

impl Hub {
    /// Until when the last change waits for confirmation.
    pub fn pending(&self) -> Option<&Deadline> {
        self.pending.as_ref().map(|pending| &pending.deadline)
    }

    /// Creates and replaces personas: all of them, or nothing changes.
    pub(super) fn apply(
        &mut self,
        documents: Vec<PersonaDocument>,
        confirm: Option<Deadline>,
        now: Timestamp,
    ) -> Result<Reply, Rejection> {
        if confirm.is_some() && self.is_switching() {
            let detail = "a switch of an interface is under way: what is before would not be what comes back";
            return Err(refused(RejectionKind::Conflict, "", detail));
        }
        let mut next = self.clone();
        let (created, updated) = next.apply_all(documents, now)?;
        next.revision = next.revision.max(self.revision + 1);
        if let Some(deadline) = confirm {
            next.announce_pending(&deadline);
            next.pending = Some(Arc::new(Pending { deadline, before: self.state() }));
        }
        next.set_condition(REVERTED, None);
        *self = next;
        Ok(Reply::Applied { created, updated })
    }

    /// Says until when a change waits.
    pub(super) fn announce_pending(&mut self, deadline: &Deadline) {
        let message = format!(
            "the last change goes back at {}: `hubctl confirm` keeps it, `hubctl revert` does not wait",
            deadline.until
        );
        self.set_condition(PENDING, Some(message));
    }

    fn apply_all(
        &mut self,
        documents: Vec<PersonaDocument>,
        now: Timestamp,
    ) -> Result<(Vec<String>, Vec<String>), Rejection> {
        let mut problems = Vec::new();
        let mut kind = None;
        let mut refuse = |index: usize, rejection: Rejection| {
            kind = kind.max(Some(severity(rejection.kind)));
            problems.extend(rejection.problems.into_iter().map(|problem| below(index, problem)));
        };
        let mut steps = Vec::new();
        for (index, document) in documents.iter().enumerate() {
            if documents.iter().take(index).any(|other| other.name == document.name) {
                let detail = format!("name `{}` is there twice", document.name);
                refuse(index, refused(RejectionKind::Conflict, "/name", detail));
            }
            let step = match self.named(&document.name) {
                None => Step::Admit,
                Some(record) if *record.document == *document => Step::Keep,
                Some(record) => Step::Change(record.id.clone()),
            };
            if !matches!(step, Step::Admit)
                && let Err(rejection) = self.writable(&document.name, None)
            {
                refuse(index, rejection);
            }
            steps.push(step);
        }
        // Ranges may move between them: whoever changes lets go first.
        for step in &steps {
            if let Step::Change(id) = step
                && let Some(record) = self.records.get(id)
            {
                self.claims.remove(record);
            }
        }
        let (mut created, mut updated) = (Vec::new(), Vec::new());
        let mut all: Vec<_> = documents.into_iter().zip(steps).enumerate().collect();
        // Whoever takes ranges comes after those that have them.
        all.sort_by_cached_key(|(_, (document, _))| self.takes(document));
        for (index, (document, step)) in all {
            let name = document.name.clone();
            let done = match step {
                Step::Keep => Ok(()),
                Step::Change(id) => {
                    updated.push(name);
                    self.change(&id, document, Author::api(), now)
                }
                Step::Admit => {
                    created.push(name);
                    self.admit(document, Author::api(), now).map(drop)
                }
            };
            if let Err(rejection) = done {
                refuse(index, rejection);
            }
        }
        match kind {
            None => Ok((created, updated)),
            Some((_, kind)) => Err(Rejection { kind, problems }),
        }
    }

    /// Keeps the change that waits.
    pub(super) fn confirm(&mut self) -> Result<Reply, Rejection> {
        if self.pending.take().is_none() {
            return Err(nothing_waits());
        }
        self.set_condition(PENDING, None);
        Ok(Reply::Done)
    }

    /// Makes everything be as before the change that waits.
    pub(super) fn revert(&mut self, why: &str, now: Timestamp) -> Result<Reply, Rejection> {
        let Some(pending) = self.pending.take() else { return Err(nothing_waits()) };
        let before = self.with_interfaces(pending.before.clone());
        let mut next =
            Self::restore_by(self.config.clone(), self.ids.clone(), before, self.clocks.clone(), now);
        for carrier in self.carriers_of_interfaces() {
            next.records.insert(carrier.id.clone(), carrier.clone());
        }
        next.interfaces = Arc::clone(&self.interfaces);
        next.interfaces_mut();
        for record in next.records.values_mut() {
            if let Some(tried) = self.records.get(&record.id) {
                // Nobody may take the definition of before for the one that was tried.
                record.generation = tried.generation + u64::from(tried.document != record.document);
                record.late = tried.late_for(&record.document);
            }
            record.since = self.revision + 1;
        }
        for (id, tried) in self.records.iter() {
            let lost = tried.holds_segment() && !next.records.contains_key(id);
            if lost && next.segments.take_again(tried.segment) {
                next.segments.rest(tried.segment, after(now, QUARANTINE));
            }
            next.rest_lost_ranges(&tried.persona, now);
        }
        next.ranges.rest_too(&self.ranges);
        next.queues_stand = self.queues_stand;
        let lost = std::mem::take(&mut next.conditions);
        next.conditions = self.conditions.iter().cloned().chain(lost).collect();
        next.inventory = self.inventory.clone();
        next.keys = self.keys.clone();
        next.templates.clone_from(&self.templates);
        next.documents_read = self.documents_read;
        next.documents_error.clone_from(&self.documents_error);
        next.heard = self.heard;
        next.passed = self.passed;
        next.revision = self.revision + 1;
        next.set_condition(PENDING, None);
        next.records.supersede(&self.records);
        next.set_condition(REVERTED, Some(format!("the last change went back at {now}: {why}")));
        *self = next;
        Ok(Reply::Done)
    }

    /// A state of before with the interfaces of now: what became of them meanwhile is no part of the change.
    fn with_interfaces(&self, mut before: State) -> State {
        before.personas.retain(|stored| stored.origin != Origin::Interface);
        before.personas.extend(self.carriers_of_interfaces().map(stored));
        before.interfaces = self.stored_interfaces();
        for record in &mut before.interfaces.records {
            // It goes on, other than after a start.
            record.switch = None;
        }
        before
    }

    fn carriers_of_interfaces(&self) -> impl Iterator<Item = &Record> {
        self.records.values().filter(|record| record.origin == Origin::Interface)
    }

    /// While a change waits nothing else is ordered, so that what was before still fits. What interfaces do by
    /// themselves, or must be able to at any time, goes on.
    pub(super) fn refuse_while_pending(&self, command: &Command) -> Result<(), Rejection> {
        let Some(pending) = &self.pending else { return Ok(()) };
        let waits = match command {
            Command::Create { .. }
            | Command::Begin { .. }
            | Command::CreateOnce { .. }
            | Command::Replace { .. }
            | Command::Delete { .. }
            | Command::Elements { .. }
            | Command::Quarantine { .. }
            | Command::Personality(_)
            | Command::Interface(_)
            | Command::Switch(SwitchCommand::Start(_))
            | Command::Experiment(_)
            | Command::Apply { .. } => true,
            // A daemon that starts must read its documents.
            Command::Documents(_) | Command::Configure(_) => self.heard.is_some(),
            // What makes an interface safe, or ends what is under way, waits for nobody.
            Command::Switch(
                SwitchCommand::Plan(_)
                | SwitchCommand::Revert(_)
                | SwitchCommand::Confirm(_)
                | SwitchCommand::Cancel(_)
                | SwitchCommand::Threat { .. },
            )
            | Command::Recall { .. }
            | Command::Try { .. }
            | Command::EndTrial { .. }
            | Command::Confirm
            | Command::Revert { .. }
            | Command::Inventory(_)
            | Command::Observed { .. }
            | Command::Measured(_)
            | Command::Templates(_)
            | Command::Faults { .. }
            | Command::ClockSet(_)
            | Command::Orphans
            | Command::Latency(_)
            | Command::Tick => false,
        };
        if !waits {
            return Ok(());
        }
        let until = pending.deadline.until;
        let detail = format!("a change waits for confirmation until {until}: confirm or revert it first");
        Err(Rejection { kind: RejectionKind::Conflict, problems: vec![Problem::new("", detail)] })
    }
}

fn nothing_waits() -> Rejection {
    refused(RejectionKind::NotFound, "", "no change waits for confirmation")
}
