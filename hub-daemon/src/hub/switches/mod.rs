//! Switches: an interface gets another personality whole, or keeps the one it has.
//!
//! A switch goes from phase to phase by what happens: a pass of reconcile, an answer to checks, a count of
//! flows, a word of somebody, time. Whatever goes wrong leads back: to the personality before, then to the
//! default, then to none. What a phase wants of the kernel follows from the record's layout alone.

mod automatic;
mod back;
mod begin;
mod observe;
mod phases;
mod plan;
mod threat;
mod wants;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{Hub, after, refused};
use crate::command::switch::{Said, SwitchCommand};
use crate::command::{Rejection, RejectionKind, Reply};
use crate::systems::personality::health::Has;
use crate::systems::personality::operation::{JournalEntry, Outcome};
use crate::systems::personality::switch::{OperationId, Phase, Switch};
use crate::view::switch::OperationView;
pub(super) use begin::SWITCHES;
use begin::signed;

impl Hub {
    pub(super) fn switch(&mut self, command: SwitchCommand, now: Timestamp) -> Result<Reply, Rejection> {
        match command {
            SwitchCommand::Start(orders) => self.start(&orders, now),
            SwitchCommand::Plan(order) => self.plan(&order, now),
            SwitchCommand::Revert(said) => self.revert_interface(&said, now),
            SwitchCommand::Confirm(said) => self.confirm_switch(&said, now),
            SwitchCommand::Cancel(said) => self.cancel_switch(&said, now),
            SwitchCommand::Threat { interface, level, by } => self.threat(&interface, &level, &by, now),
        }
    }

    /// Keeps a switch that waits, and those of its group.
    fn confirm_switch(&mut self, said: &Said, now: Timestamp) -> Result<Reply, Rejection> {
        let switch = self.under_way(&said.interface)?;
        if switch.phase != Phase::AwaitConfirm {
            let detail = format!("the switch to {} does not wait for confirmation", switch.to);
            return Err(refused(RejectionKind::Conflict, "", detail));
        }
        let id = switch.id.clone();
        for name in self.members(&said.interface) {
            self.commit(&name, now);
        }
        self.became(&id)
    }

    /// Gives up a switch that has not flipped, and those of its group.
    fn cancel_switch(&mut self, said: &Said, now: Timestamp) -> Result<Reply, Rejection> {
        let switch = self.under_way(&said.interface)?;
        if !switch.phase.is_before_flip() {
            let detail = format!("the switch to {} has been made: revert it instead", switch.to);
            return Err(refused(RejectionKind::Conflict, "", detail));
        }
        let id = switch.id.clone();
        self.fail(&said.interface, &format!("canceled by {}{}", said.by, because(&said.why)), now);
        self.became(&id)
    }

    /// The switch of an interface that is under way.
    fn under_way(&self, name: &str) -> Result<&Switch, Rejection> {
        let record = self.record(name)?;
        record.switch.as_ref().ok_or_else(|| {
            let detail = format!("no switch of interface `{name}` is under way");
            refused(RejectionKind::Conflict, "", detail)
        })
    }

    /// What became of a switch.
    fn became(&self, id: &OperationId) -> Result<Reply, Rejection> {
        let view = self.operation(id).ok_or_else(|| {
            refused(RejectionKind::NotFound, "", format!("there is no operation `{}`", id.0))
        })?;
        Ok(Reply::Switched(vec![view]))
    }

    /// A switch as the outside sees it, under way or over.
    fn operation(&self, id: &OperationId) -> Option<OperationView> {
        let records = self.interfaces.records.iter();
        let mut switches = records.filter_map(|(name, record)| Some((name, record.switch.as_ref()?)));
        let running = switches.find(|(_, switch)| switch.id == *id).map(|(name, switch)| switch.view(name));
        running.or_else(|| self.interfaces.operations.get(id).map(|entry| entry.view()))
    }

    /// The interfaces of the group that a switch is one of; itself, if of none.
    fn members(&self, name: &str) -> Vec<String> {
        let group =
            self.interfaces.records.get(name).and_then(|record| record.switch.as_ref()?.group.clone());
        let Some(group) = group else { return vec![name.to_owned()] };
        let records = self.interfaces.records.iter();
        let those = records.filter(|(_, record)| {
            record.switch.as_ref().is_some_and(|switch| switch.group.as_ref() == Some(&group))
        });
        those.map(|(name, _)| name.clone()).collect()
    }

    /// Changes the switch of a record.
    fn with_switch<T>(&mut self, name: &str, change: impl FnOnce(&mut Switch) -> T) -> Option<T> {
        self.with_record(name, |record| record.switch.as_mut().map(change)).flatten()
    }

    /// Goes on to a phase, which is given up after `wait`.
    fn enter(&mut self, name: &str, phase: Phase, wait: Option<SignedDuration>, now: Timestamp) {
        self.revision += 1;
        let since = self.revision;
        let said = self.with_record(name, |record| {
            record.ticket = since;
            let waits = wait.map(|wait| after(now, wait));
            let deadline = waits.into_iter().chain(record.given_up_at(phase, now)).min();
            let switch = record.switch.as_mut()?;
            switch.enter(phase, deadline, since, now);
            Some(format!("switch {} to {}: {}", switch.id.0, switch.to, phase.words()))
        });
        self.notice(name, said.flatten());
    }

    /// Ends a switch: it is a line of the journal from here on.
    fn end_switch(&mut self, name: &str, outcome: Outcome, now: Timestamp) {
        let ended = self.with_record(name, |record| {
            let mut switch = record.switch.take()?;
            switch.leave(now);
            let has = if record.current == switch.from { has(outcome, &switch) } else { Has::Another };
            record.health.begin(now, has);
            Some(switch)
        });
        let Some(switch) = ended.flatten() else { return };
        let differences = self.differences(&switch.from, &switch.to);
        let entry = JournalEntry::new(name, &switch, differences, outcome, now);
        let failure = entry.failure.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
        let said = format!("switch {} to {}: {}{failure}", entry.id.0, entry.to, outcome.words());
        self.note_experiments(&entry);
        self.interfaces_mut().end(entry);
        self.notice(name, Some(said));
        let ticket = self.revision;
        self.with_record(name, |record| record.ticket = ticket);
    }

    pub(super) fn notice(&mut self, name: &str, said: Option<String>) {
        self.interfaces_mut().notices.extend(said.map(|said| (name.to_owned(), said)));
    }
}

/// What an interface has after a switch.
fn has(outcome: Outcome, switch: &Switch) -> Has {
    match outcome {
        Outcome::Committed | Outcome::FellBack => Has::Another,
        Outcome::Aborted => {
            let took = switch.done.iter().map(|done| done.took_us).sum();
            Has::TheSame(signed(Duration::from_micros(took)))
        }
        Outcome::RolledBack => Has::TheOneBefore,
        Outcome::Degraded => Has::None,
    }
}

fn because(why: &str) -> String {
    if why.is_empty() { String::new() } else { format!(": {why}") }
}
