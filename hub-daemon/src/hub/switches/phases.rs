//! From phase to phase, as long as nothing goes wrong.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::super::Hub;
use super::after;
use super::begin::signed;
use crate::document::personality::OnTimeoutDocument;
use crate::model::PersonaId;
use crate::model::check::PHASE;
use crate::systems::personality::operation::Outcome;
use crate::systems::personality::switch::{APPLY, GRACE, Phase, RETIRE};
use crate::systems::personality::{Standing, Temporary};

impl Hub {
    /// A pass of reconcile is over: phases that waited for it go on, or have failed.
    pub(in super::super) fn switches_passed(
        &mut self,
        revision: u64,
        faults: &BTreeMap<PersonaId, Vec<String>>,
        postponed: &BTreeSet<PersonaId>,
        now: Timestamp,
    ) {
        let waiting = self.interfaces.records.iter().filter(|(_, record)| {
            let waits = record.switch.as_ref().is_some_and(|switch| {
                switch.phase.is_applied_first() && !switch.applied && switch.since <= revision
            });
            waits && !postponed.contains(&record.carrier)
        });
        let those: Vec<(String, PersonaId, u64)> = waiting
            .map(|(name, record)| {
                let since = record.switch.as_ref().map_or(0, |switch| switch.since);
                (name.clone(), record.carrier.clone(), since)
            })
            .collect();
        for (name, carrier, since) in those {
            // Another of its group may have failed, and this one with it.
            let still = self.interfaces.records.get(&name).and_then(|record| record.switch.as_ref());
            if still.is_none_or(|switch| switch.since != since) {
                continue;
            }
            match faults.get(&carrier).and_then(|faults| faults.first()) {
                Some(fault) => self.fail(&name, fault, now),
                None => self.applied(&name, now),
            }
        }
    }

    /// The kernel has what the phase asked of it.
    fn applied(&mut self, name: &str, now: Timestamp) {
        let Some((phase, urgent)) = self.with_switch(name, |switch| {
            switch.applied = true;
            (switch.phase, switch.urgent)
        }) else {
            return;
        };
        let checks = Some(signed(PHASE + GRACE));
        match phase {
            Phase::Prepare if urgent => self.flip_when_ready(name, now),
            Phase::Prepare => self.enter(name, Phase::Preflight, checks, now),
            Phase::Drain => {
                let ticket = self.revision;
                self.with_record(name, |record| record.ticket = ticket);
            }
            Phase::Flip => {
                self.prepare_way_back(name, now);
                self.enter(name, Phase::Verify, checks, now);
                self.rise(name, now);
            }
            Phase::Rollback => {
                self.enter(name, Phase::RollbackVerify, checks, now);
                self.rise(name, now);
            }
            Phase::Fallback => {
                self.enter(name, Phase::FallbackVerify, checks, now);
                self.rise(name, now);
            }
            Phase::Preflight
            | Phase::Ready
            | Phase::Verify
            | Phase::Verified
            | Phase::AwaitConfirm
            | Phase::RollbackVerify
            | Phase::FallbackVerify => {}
        }
    }

    /// Preflight is over: connections end that the switch would break, if they are given time.
    pub(super) fn preflown(&mut self, name: &str, now: Timestamp) {
        let Some(timeout) = self.with_switch(name, |switch| switch.drain.timeout) else { return };
        if timeout.is_zero() {
            return self.flip_when_ready(name, now);
        }
        self.enter(name, Phase::Drain, Some(signed(timeout)), now);
        self.with_switch(name, |switch| switch.blocked_at = Some(now));
    }

    /// Flips, with all of its group at once, when they all are ready.
    pub(super) fn flip_when_ready(&mut self, name: &str, now: Timestamp) {
        let members = self.members(name);
        if members.len() > 1 {
            self.enter(name, Phase::Ready, None, now);
            if !self.all_in(&members, Phase::Ready) {
                return;
            }
        }
        let flipped = self.whole_or_nothing(|hub| {
            for member in &members {
                let layout = hub.record(member)?.layout.flipped();
                if let Some(layout) = layout {
                    hub.lay(member, layout, now)?;
                }
            }
            Ok(())
        });
        if let Err(rejection) = flipped {
            let why = rejection.problems.first().map_or_else(String::new, |problem| problem.detail.clone());
            return self.fail(name, &why, now);
        }
        for member in &members {
            self.with_switch(member, |switch| switch.flipped_at = Some(now));
            self.enter(member, Phase::Flip, Some(signed(APPLY)), now);
        }
    }

    /// Checks have passed after the flip.
    pub(super) fn verified(&mut self, name: &str, now: Timestamp) {
        let members = self.members(name);
        if members.len() > 1 {
            self.enter(name, Phase::Verified, None, now);
            if !self.all_in(&members, Phase::Verified) {
                return;
            }
        }
        // One that waits has all of its group wait.
        let waits = members.iter().filter_map(|member| {
            let switch = self.interfaces.records.get(member)?.switch.as_ref()?;
            switch.confirm_within
        });
        match waits.min() {
            Some(wait) => {
                for member in &members {
                    self.enter(member, Phase::AwaitConfirm, Some(signed(wait)), now);
                }
            }
            None => members.iter().for_each(|member| self.commit(member, now)),
        }
    }

    fn all_in(&self, members: &[String], phase: Phase) -> bool {
        members.iter().all(|member| {
            let record = self.interfaces.records.get(member);
            record.and_then(|record| record.switch.as_ref()).is_some_and(|switch| switch.phase == phase)
        })
    }

    /// The switch is done: the record says so, and what was before is kept for a while.
    pub(super) fn commit(&mut self, name: &str, now: Timestamp) {
        self.with_record(name, |record| {
            let Some(switch) = &record.switch else { return };
            let before = std::mem::replace(&mut record.current, switch.to.clone());
            // What was lent is nothing to go back to: what that would have gone back to is.
            let back = record.temporary.take().map_or(before, |temporary| temporary.back);
            let all = [Some(back), record.previous.take()];
            record.previous = all.into_iter().flatten().find(|version| *version != record.current);
            record.standing = Standing::Active;
            let back = switch.lasts_until().zip(record.previous.clone());
            record.temporary = back.map(|(until, back)| Temporary {
                until,
                back,
                operation: switch.id.clone(),
                tries_at: None,
            });
            // What is to come back stays beside.
            record.retires_at = record.temporary.is_none().then(|| after(now, signed(RETIRE)));
            record.health.baseline = Some(switch.verified.clone());
        });
        let record = self.interfaces.records.get(name);
        if record.is_some_and(|record| self.kept_beside(record).is_some()) {
            self.forget_other(name, now);
        }
        self.end_switch(name, Outcome::Committed, now);
    }

    /// Time is over for a phase.
    pub(super) fn overdue(&mut self, name: &str, now: Timestamp) {
        let Some(record) = self.interfaces.records.get(name) else { return };
        let Some(switch) = &record.switch else { return };
        let (phase, drain) = (switch.phase, switch.drain);
        let is_now = |end: Option<Timestamp>| end.is_some() && end == switch.deadline;
        let until = record.temporary.as_ref().map(|temporary| temporary.until);
        match phase {
            _ if phase.is_before_flip() && is_now(until) => {
                self.fail(name, &format!("the time of {} is over", switch.from), now);
            }
            _ if phase.goes_on() && is_now(switch.lasts_until()) => {
                self.fail(name, "its time was over before it was done", now);
            }
            Phase::Drain if drain.on_timeout == OnTimeoutDocument::Force => self.flip_when_ready(name, now),
            Phase::Drain => {
                let (time, flows) = (drain.timeout.as_secs(), switch.flows);
                let left = flows.map_or_else(String::new, |flows| format!("{} ", flows.active));
                self.fail(name, &format!("{left}connections did not end in {time} s"), now);
            }
            Phase::AwaitConfirm => self.fail(name, "it was not confirmed in time", now),
            Phase::Prepare
            | Phase::Preflight
            | Phase::Ready
            | Phase::Flip
            | Phase::Verify
            | Phase::Verified
            | Phase::Rollback
            | Phase::RollbackVerify
            | Phase::Fallback
            | Phase::FallbackVerify => {
                self.fail(name, &format!("{} took too long", phase.words()), now);
            }
        }
    }
}
