//! Switches that the hub begins by itself: when a time is over, or checks fail.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::super::Hub;
use super::after;
use super::back::back_to;
use super::begin::signed;
use crate::command::switch::Order;
use crate::document::personality::OnUnhealthyDocument;
use crate::model::check::CheckResult;
use crate::model::interface::Failover;
use crate::model::personality::Version;
use crate::systems::personality::checks::Goes;
use crate::systems::personality::health::{GOOD_AFTER, May};
use crate::systems::personality::switch::Cause;
use crate::systems::personality::{Record, Standing, checks};

/// Who orders switches that nobody ordered.
pub(super) const HUB: &str = "hub";
/// A switch that could not begin is tried again after this long.
pub(super) const AGAIN: SignedDuration = SignedDuration::from_secs(5);

impl Hub {
    /// Lets time pass for interfaces.
    pub(in super::super) fn advance_interfaces(&mut self, now: Timestamp) {
        let due = |record: &Record| record.deadline().is_some_and(|deadline| deadline <= now);
        let records = self.interfaces.records.iter();
        let names: Vec<String> =
            records.filter(|(_, record)| due(record)).map(|(name, _)| name.clone()).collect();
        for name in names {
            // What is due may begin something that is due at once; nothing of it goes on for ever.
            for _ in 0..4 {
                let Some(record) = self.interfaces.records.get(&name).filter(|record| due(record)) else {
                    break;
                };
                if record.switch.is_some() {
                    self.overdue(&name, now);
                } else {
                    self.moment(&name, now);
                }
            }
        }
    }

    /// Something is due while no switch is under way.
    fn moment(&mut self, name: &str, now: Timestamp) {
        let Some(record) = self.interfaces.records.get(name) else { return };
        let is_over = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
        let temporary = record.temporary.clone();
        let falls = record.level.as_ref().and_then(|level| level.falls.clone());
        if let Some(temporary) = temporary.filter(|temporary| temporary.due() <= now) {
            let why = format!("the time of switch {} is over", temporary.operation.0);
            self.by_itself(name, &back_to(name, &temporary.back, HUB, &why), Cause::Returns, now);
        } else if let Some((level, _)) = falls.filter(|(_, at)| *at <= now) {
            let by = record.level.as_ref().and_then(|level| level.by.clone());
            self.follow(name, &level, by.as_deref().unwrap_or(HUB), now);
        } else if is_over(record.retires_at) {
            self.with_record(name, |record| record.retires_at = None);
            self.forget_other(name, now);
        } else if is_over(record.health.good_at) {
            self.with_record(name, |record| {
                record.health.good_at = None;
                if record.health.failures > 0 {
                    record.health.good_at = Some(after(now, GOOD_AFTER));
                } else if record.standing == Standing::Active && record.temporary.is_none() {
                    record.last_known_good = Some(record.current.clone());
                }
            });
        }
    }

    /// Begins a switch that nobody ordered. One that cannot begin is said, and tried again where time asks for it.
    pub(super) fn by_itself(&mut self, name: &str, order: &Order, cause: Cause, now: Timestamp) -> bool {
        match self.whole_or_nothing(|hub| hub.begin(order, None, cause, now)) {
            Ok(_) => true,
            Err(rejection) => {
                let why = rejection.problems.first().map_or("", |problem| problem.detail.as_str());
                let said = format!("a switch to {} could not begin ({}): {why}", order.to, order.why);
                self.with_record(name, |record| {
                    if let Some(temporary) = record.temporary.as_mut().filter(|_| cause == Cause::Returns) {
                        temporary.tries_at = Some(after(now, AGAIN));
                    }
                });
                self.notice(name, Some(said));
                false
            }
        }
    }

    /// Judges a round of checks while no switch is under way.
    pub(super) fn looked_after(&mut self, name: &str, mut results: Vec<CheckResult>, now: Timestamp) {
        let mut asked = self.asked(name);
        let Some(record) = self.interfaces.records.get(name) else { return };
        let failover = record.settings.failover.clone();
        let own = self.baseline_of(name).len();
        let of_failover = asked.split_off(own.min(asked.len()));
        let answer = if of_failover.is_empty() { None } else { results.get(own).cloned() };
        results.truncate(own);
        let failure = checks::failure(&asked, &results, record.health.baseline.as_ref(), Goes::On);
        let was_bad = record.health.is_bad();
        // Where nothing is known of when it was verified, what works at first is to go on working.
        let first = failure.is_none() && record.health.baseline.is_none();
        let first = first.then(|| checks::past(&asked, &results));
        let health = self.with_seen(name, |record| {
            record.health.baseline = record.health.baseline.take().or(first);
            record.health.note(failure.clone(), results, now);
            record.health.is_bad()
        });
        let is_bad = health == Some(true);
        if is_bad != was_bad {
            let said = match &failure {
                Some(failure) => format!("unhealthy: {failure}"),
                None => "healthy again".to_owned(),
            };
            self.notice(name, Some(said));
        }
        if let Some((failover, answer)) = failover.zip(answer)
            && self.fails_over(name, &failover, answer.passed, now)
        {
            return;
        }
        if is_bad && self.reverts(name) {
            let why = format!("unhealthy: {}", failure.unwrap_or_default());
            self.leave_unhealthy(name, &why, now);
        }
    }

    fn reverts(&self, name: &str) -> bool {
        let record = self.interfaces.records.get(name);
        let active = record.filter(|record| record.standing == Standing::Active);
        let kept = active.and_then(|record| self.interfaces.versions.get(&record.layout.live));
        kept.is_some_and(|kept| kept.personality.health().on_unhealthy == OnUnhealthyDocument::Revert)
    }

    /// Goes back from a personality that has become bad; where that happens too often, to none.
    fn leave_unhealthy(&mut self, name: &str, why: &str, now: Timestamp) {
        let Some(record) = self.interfaces.records.get(name) else { return };
        match record.health.may_switch(now) {
            May::Later => {}
            May::NoMore => {
                self.with_record(name, |record| {
                    record.standing = Standing::Degraded;
                    record.temporary = None;
                });
                self.notice(name, Some(format!("degraded: it was switched too often; {why}")));
            }
            May::Now => {
                let Some(target) = self.good_before(name) else { return };
                self.by_itself_again(name, &back_to(name, &target, HUB, why), now);
            }
        }
    }

    /// Switches to what a record has for the case that something fails, and back. Returns whether it did.
    fn fails_over(&mut self, name: &str, failover: &Failover, works: bool, now: Timestamp) -> bool {
        let Ok(to) = self.version(&failover.to, "") else { return false };
        let primary = self.interfaces.records.get(name);
        let back = primary.and_then(|record| self.primary_beside(record, failover).cloned());
        let Some((is_there, fails_since, works_since)) = self.with_seen(name, |record| {
            let health = &mut record.health;
            let is_there = record.layout.live == to;
            if works {
                health.fails_since = None;
                health.works_since.get_or_insert(now);
            } else {
                health.works_since = None;
                health.fails_since.get_or_insert(now);
            }
            if is_there && back.is_none() {
                // Asked by the backup's own way, it says nothing of the other one.
                health.works_since = None;
            }
            (is_there, health.fails_since, health.works_since)
        }) else {
            return false;
        };
        let lasted =
            |since: Option<Timestamp>, time| since.is_some_and(|since| after(since, signed(time)) <= now);
        let target: Option<(Version, &str)> = if !is_there && lasted(fails_since, failover.fails_for) {
            Some((to, "the check of failover fails"))
        } else if is_there && lasted(works_since, failover.hold_down) {
            back.map(|back| (back, "the check of failover succeeds again"))
        } else {
            None
        };
        let Some((target, why)) = target else { return false };
        let Some(record) = self.interfaces.records.get(name) else { return false };
        if record.health.may_switch(now) != May::Now {
            return false;
        }
        self.by_itself_again(name, &back_to(name, &target, HUB, why), now)
    }

    /// Begins a switch of those that are limited. Only what began is counted.
    fn by_itself_again(&mut self, name: &str, order: &Order, now: Timestamp) -> bool {
        let began = self.by_itself(name, order, Cause::Automatic, now);
        if began {
            self.with_record(name, |record| record.health.switches(now));
        }
        began
    }

    /// Notes what was seen, most of which is nothing to store.
    fn with_seen<T>(&mut self, name: &str, note: impl FnOnce(&mut Record) -> T) -> Option<T> {
        self.revision += 1;
        let interfaces = Arc::make_mut(&mut self.interfaces);
        let record = interfaces.records.get_mut(name)?;
        let before = record.health.stored();
        let noted = note(record);
        interfaces.unsaved |= record.health.stored() != before;
        Some(noted)
    }
}
