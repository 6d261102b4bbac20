//! Threat levels: an interface follows one that rises at once, whatever it is doing, and one that falls when it lasts.

use jiff::Timestamp;

use super::super::{Hub, refused};
use super::after;
use super::automatic::{AGAIN, HUB};
use super::back::back_to;
use super::begin::signed;
use crate::command::switch::Order;
use crate::command::{Rejection, RejectionKind, Reply};
use crate::model::interface::Zones;
use crate::model::personality::Wanted;
use crate::systems::personality::operation::Outcome;
use crate::systems::personality::switch::{Cause, Phase, RETIRE};
use crate::systems::personality::{Record, Standing};

impl Hub {
    /// Takes note of the threat level of an interface. It goes up at once, and down when the level has been lower
    /// for a while.
    pub(super) fn threat(
        &mut self,
        name: &str,
        level: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<Reply, Rejection> {
        let record = self.record(name)?;
        let Some(zones) = &record.settings.zones else {
            let detail = format!("interface `{name}` has no zones: add `zones` to its record");
            return Err(refused(RejectionKind::Conflict, "", detail));
        };
        let Some(asked) = rank(zones, level) else {
            let known: Vec<&str> = zones.levels.iter().map(|(name, _)| name.as_str()).collect();
            let detail = format!("level `{level}`: use one of {}", known.join(", "));
            return Err(refused(RejectionKind::Invalid, "/level", detail));
        };
        let hysteresis = signed(zones.hysteresis);
        let current = held(record, zones);
        let falls = record.level.as_ref().and_then(|level| level.falls.clone());
        if current.is_none_or(|current| asked > current) {
            self.give_way(name, level, now);
            self.follow(name, level, by, now);
        } else if current.is_some_and(|current| asked < current) {
            // The same lower level again does not make it wait longer.
            let since = falls.filter(|(lower, _)| lower == level).map(|(_, at)| at);
            let at = since.unwrap_or_else(|| after(now, hysteresis));
            self.with_record(name, |record| {
                if let Some(held) = &mut record.level {
                    held.falls = Some((level.to_owned(), at));
                    if since.is_none() {
                        held.by = Some(by.to_owned());
                    }
                }
            });
            self.advance_interfaces(now);
        } else {
            self.with_record(name, |record| {
                if let Some(level) = &mut record.level {
                    level.falls = None;
                }
            });
        }
        let view = self.interface_view(name, now)?;
        Ok(Reply::Interface(Box::new(view)))
    }

    /// Gives up a switch that a greater threat takes the place of: one that has not flipped, one whose checks are
    /// awaited or that waits for somebody, and one that is on its way back. The next one comes from what was before.
    /// One that the kernel is making at the moment is not disturbed.
    fn give_way(&mut self, name: &str, level: &str, now: Timestamp) {
        let Some(record) = self.interfaces.records.get(name) else { return };
        let Some(switch) = &record.switch else { return };
        let wanted = record.settings.zones.as_ref().and_then(|zones| wanted(zones, level));
        let Some(wanted) = wanted.and_then(|wanted| self.version(wanted, "").ok()) else { return };
        let (phase, returns, decides) =
            (switch.phase, switch.cause == Cause::Returns, record.layout.live == wanted);
        let why = format!("the threat level rose to {level}");
        match phase {
            // What was lent is over, and the next one ends it as well.
            _ if phase.is_before_flip() && returns => {
                self.with_switch(name, |switch| switch.failure = Some(why));
                self.end_switch(name, Outcome::Aborted, now);
            }
            _ if phase.is_before_flip() => self.fail(name, &why, now),
            // What the level asks for decides already: nothing is gained by less.
            Phase::Verify | Phase::Verified | Phase::AwaitConfirm if decides => {}
            Phase::Verify | Phase::Verified if returns => self.commit(name, now),
            Phase::Verify | Phase::Verified | Phase::AwaitConfirm => self.fail(name, &why, now),
            Phase::FallbackVerify if !decides => self.fell_back(name, now),
            Phase::Prepare
            | Phase::Preflight
            | Phase::Drain
            | Phase::Ready
            | Phase::Flip
            | Phase::Rollback
            | Phase::RollbackVerify
            | Phase::Fallback
            | Phase::FallbackVerify => {}
        }
        let Some(record) = self.interfaces.records.get(name) else { return };
        let phase = record.switch.as_ref().map(|switch| switch.phase);
        let goes_back = matches!(phase, Some(Phase::Rollback | Phase::RollbackVerify));
        if goes_back && record.layout.live != wanted {
            self.went_back(name, Some(after(now, signed(RETIRE))), now);
        }
    }

    /// A phase is over that a greater threat had to wait for.
    pub(super) fn rise(&mut self, name: &str, now: Timestamp) {
        let Some(record) = self.interfaces.records.get(name) else { return };
        let Some((level, zones)) = record.level.as_ref().zip(record.settings.zones.as_ref()) else { return };
        let Some((waits, _)) = level.falls.clone().filter(|(_, at)| *at <= now) else { return };
        if rank(zones, &waits) > held(record, zones) {
            let by = level.by.clone().unwrap_or_else(|| HUB.to_owned());
            self.give_way(name, &waits, now);
            self.follow(name, &waits, &by, now);
        }
    }

    /// Gives an interface the personality of a threat level.
    pub(super) fn follow(&mut self, name: &str, level: &str, by: &str, now: Timestamp) {
        let Some(record) = self.interfaces.records.get(name) else { return };
        let Some(zones) = &record.settings.zones else { return };
        let rises = rank(zones, level) > held(record, zones);
        let Some(to) = wanted(zones, level).and_then(|wanted| self.version(wanted, "").ok()) else { return };
        if record.switch.is_some() {
            // The flip that is under way is brought to its end first, and what decides already is verified.
            self.with_record(name, |record| {
                let held = record.level.get_or_insert_default();
                (held.falls, held.by) = (Some((level.to_owned(), now)), Some(by.to_owned()));
            });
            return;
        }
        let may_at = record.level.as_ref().filter(|_| !rises).map(|level| level.may_fall_at(now));
        if let Some(at) = may_at.filter(|at| *at > now) {
            self.with_record(name, |record| {
                if let Some(held) = &mut record.level {
                    (held.falls, held.by) = (Some((level.to_owned(), at)), Some(by.to_owned()));
                }
            });
            self.notice(name, Some(format!("threat level {level} waits: it went down too often")));
            return;
        }
        let has_it =
            record.layout.live == to && record.standing == Standing::Active && record.temporary.is_none();
        let began = has_it || {
            let why = format!("threat level {level}");
            let order = Order { urgent: rises, ..back_to(name, &to, by, &why) };
            self.by_itself(name, &order, Cause::Automatic, now)
        };
        let again = (!began).then(|| (level.to_owned(), after(now, AGAIN)));
        self.with_record(name, |record| {
            let held = record.level.get_or_insert_default();
            (held.falls, held.by) = (again, Some(by.to_owned()));
            if began {
                held.name = Some(level.to_owned());
                if !rises {
                    held.falls_now(now);
                }
            }
        });
    }
}

/// The level that an interface follows.
fn held(record: &Record, zones: &Zones) -> Option<usize> {
    record.level.as_ref().and_then(|level| rank(zones, level.name.as_ref()?))
}

fn wanted<'a>(zones: &'a Zones, level: &str) -> Option<&'a Wanted> {
    zones.levels.iter().find(|(name, _)| name == level).map(|(_, wanted)| wanted)
}

fn rank(zones: &Zones, level: &str) -> Option<usize> {
    zones.levels.iter().position(|(name, _)| name == level)
}
