//! The ways back: to what was before, to the default, to nothing.

use jiff::{SignedDuration, Timestamp};

use super::super::{Hub, after, refused};
use super::because;
use super::begin::signed;
use crate::command::switch::{Order, Said};
use crate::command::{Rejection, RejectionKind, Reply};
use crate::model::personality::Version;
use crate::systems::personality::operation::Outcome;
use crate::systems::personality::switch::{APPLY, APPLY_FIRST, Cause, Phase, RETIRE};
use crate::systems::personality::{Layout, Record, Standing};

impl Hub {
    /// Something went wrong with a switch: it goes back, and all of its group with it.
    pub(in super::super) fn fail(&mut self, name: &str, why: &str, now: Timestamp) {
        let members = self.members(name);
        let goes_on = self.with_switch(name, |switch| {
            switch.failure.get_or_insert_with(|| why.to_owned());
            switch.phase.goes_on()
        });
        self.fail_one(name, now);
        // A group is given up whole; on its way back each is for itself.
        for member in members.iter().filter(|member| *member != name && goes_on == Some(true)) {
            self.with_switch(member, |switch| {
                switch.failure.get_or_insert_with(|| format!("interface `{name}`: {why}"));
            });
            self.fail_one(member, now);
        }
    }

    fn fail_one(&mut self, name: &str, now: Timestamp) {
        let Some(switch) = self.interfaces.records.get(name).and_then(|record| record.switch.as_ref()) else {
            return;
        };
        match switch.phase {
            _ if switch.cause == Cause::Returns && switch.phase.goes_on() => self.fall_back(name, now),
            Phase::Prepare | Phase::Preflight | Phase::Drain | Phase::Ready => {
                self.forget_other(name, now);
                self.end_switch(name, Outcome::Aborted, now);
            }
            Phase::Flip | Phase::Verify | Phase::Verified | Phase::AwaitConfirm => self.roll_back(name, now),
            Phase::Rollback | Phase::RollbackVerify => self.fall_back(name, now),
            Phase::Fallback | Phase::FallbackVerify => self.degrade(name, now),
        }
    }

    /// How long the kernel has for a way back, or for what is prepared.
    pub(super) fn to_apply(&self) -> SignedDuration {
        signed(if self.passed.is_some() { APPLY } else { APPLY_FIRST })
    }

    /// Goes on with a way back that was under way when the hub stopped.
    pub(in super::super) fn resume(&mut self, name: &str, phase: Phase, now: Timestamp) {
        let Some(record) = self.interfaces.records.get(name) else { return };
        let layout = record.layout.clone();
        if self.lay(name, layout, now).is_ok() {
            self.enter(name, phase, Some(self.to_apply()), now);
        } else {
            self.fail(name, "the way back is closed", now);
        }
    }

    /// Has the personality of before refuse the addresses that came, for the case that it decides again: who is
    /// connected there is told then.
    pub(super) fn prepare_way_back(&mut self, name: &str, now: Timestamp) {
        let Some(record) = self.interfaces.records.get(name) else { return };
        let goes_back = record.switch.as_ref().is_some_and(|switch| switch.cause != Cause::Returns);
        let layout = record.layout.clone();
        if goes_back && let Err(rejection) = self.lay(name, layout, now) {
            let why = rejection.problems.first().map_or("", |problem| problem.detail.as_str());
            let said = format!("connections to new addresses would end in silence on the way back: {why}");
            self.notice(name, Some(said));
        }
    }

    /// Has the personality of before decide again; if the time of that is over, what it goes back to.
    pub(in super::super) fn roll_back(&mut self, name: &str, now: Timestamp) {
        let layout = self.interfaces.records.get(name).and_then(|record| {
            let over = record.temporary.as_ref().filter(|temporary| temporary.until <= now);
            match over.map(|temporary| &temporary.back).filter(|back| **back != record.layout.live) {
                Some(back) => {
                    let (slot, live) = (record.layout.slot.other(), back.clone());
                    Some(Layout { slot, live, other: None })
                }
                None => record.layout.flipped(),
            }
        });
        let laid = layout.is_some_and(|layout| self.lay_alone(name, layout, now));
        if laid {
            self.enter(name, Phase::Rollback, Some(self.to_apply()), now);
        } else {
            self.fall_back(name, now);
        }
    }

    /// Lays what takes the place of the personalities that there are. If none of them stays beside it, their addresses
    /// stay for a while, and are refused; where they cannot, it goes without.
    fn lay_alone(&mut self, name: &str, layout: Layout, now: Timestamp) -> bool {
        let gone = self.interfaces.records.get(name).filter(|_| layout.other.is_none()).map(|record| {
            let all = [&record.layout.live].into_iter().chain(&record.layout.other).chain(&record.departed);
            let mut gone: Vec<Version> = Vec::new();
            for version in all.filter(|version| **version != layout.live) {
                if !gone.contains(version) {
                    gone.push(version.clone());
                }
            }
            gone
        });
        self.with_record(name, |record| record.departed = gone.unwrap_or_default());
        if self.lay(name, layout.clone(), now).is_ok() {
            return true;
        }
        self.with_record(name, |record| record.departed.clear());
        self.lay(name, layout, now).is_ok()
    }

    /// Has the default personality decide, if that is another one.
    fn fall_back(&mut self, name: &str, now: Timestamp) {
        let default = self.fallback(name);
        let layout = self.interfaces.records.get(name).zip(default).map(|(record, default)| Layout {
            slot: record.layout.slot.other(),
            live: default,
            other: None,
        });
        let laid = layout.is_some_and(|layout| self.lay_alone(name, layout, now));
        if laid {
            self.enter(name, Phase::Fallback, Some(self.to_apply()), now);
        } else {
            self.degrade(name, now);
        }
    }

    /// The default, unless it has just failed.
    fn fallback(&self, name: &str) -> Option<Version> {
        let record = self.interfaces.records.get(name)?;
        let switch = record.switch.as_ref()?;
        let default = self.version(record.settings.default.as_ref()?, "").ok()?;
        let is_over = switch.cause == Cause::Returns;
        let failed = default == switch.to || (default == switch.from && !is_over);
        (!failed).then_some(default)
    }

    /// Nothing works: packets are refused until somebody switches it.
    fn degrade(&mut self, name: &str, now: Timestamp) {
        self.with_record(name, |record| {
            record.standing = Standing::Degraded;
            record.current = record.layout.live.clone();
            record.temporary = None;
        });
        self.forget_other(name, now);
        self.end_switch(name, Outcome::Degraded, now);
    }

    /// The personality of before works as it did.
    pub(super) fn rolled_back(&mut self, name: &str, now: Timestamp) {
        if self.tells_of_addresses(name) {
            self.went_back(name, Some(after(now, signed(RETIRE))), now);
        } else {
            self.went_back(name, None, now);
            self.forget_other(name, now);
        }
    }

    /// The personality of before decides, and the switch is over. What it went to stays beside until `retires_at`.
    pub(super) fn went_back(&mut self, name: &str, retires_at: Option<Timestamp>, now: Timestamp) {
        self.with_record(name, |record| {
            record.retires_at = retires_at;
            if record.layout.live != record.current {
                // The time of the one before was over.
                (record.current, record.previous) = (record.layout.live.clone(), None);
                record.temporary = None;
            }
        });
        self.end_switch(name, Outcome::RolledBack, now);
    }

    /// Whether the personality that decides refuses addresses of the one beside, which can stay there for that.
    fn tells_of_addresses(&self, name: &str) -> bool {
        let Some(record) = self.interfaces.records.get(name) else { return false };
        if !record.departed.is_empty() {
            return true;
        }
        let Some(carrier) = self.records.get(&record.carrier) else { return false };
        let carried = carrier.document.carried.as_ref();
        let refuses = carried.is_some_and(|carried| !carried.leaving.is_empty());
        refuses && carrier.faults.is_empty() && record.temporary.is_none() && record.layout.other.is_some()
    }

    /// The default works.
    pub(super) fn fell_back(&mut self, name: &str, now: Timestamp) {
        self.with_record(name, |record| {
            let before = std::mem::replace(&mut record.current, record.layout.live.clone());
            record.previous = Some(before);
            record.standing = Standing::Fallback;
            record.temporary = None;
            record.retires_at = (!record.departed.is_empty()).then(|| after(now, signed(RETIRE)));
            record.health.baseline = record.switch.as_ref().map(|switch| switch.verified.clone());
        });
        self.end_switch(name, Outcome::FellBack, now);
    }

    /// What stays beside the personality that decides for as long as that does: what a temporary one goes back to, or
    /// a backup by itself.
    pub(super) fn kept_beside(&self, record: &Record) -> Option<Version> {
        let live = &record.layout.live;
        let back = match &record.temporary {
            Some(temporary) => Some(&temporary.back),
            None => record.previous.as_ref().filter(|_| {
                let failover = record.settings.failover.as_ref();
                record.standing == Standing::Active
                    && failover.is_some_and(|failover| self.comes_back_from(failover, live))
            }),
        };
        back.filter(|back| *back != live).cloned()
    }

    /// Empties the other slot, but for what stays there.
    pub(in super::super) fn forget_other(&mut self, name: &str, now: Timestamp) {
        let Some(record) = self.interfaces.records.get(name) else { return };
        let layout = record.layout.with(self.kept_beside(record));
        if layout == record.layout && record.departed.is_empty() {
            return;
        }
        self.with_record(name, |record| record.departed.clear());
        if let Err(rejection) = self.lay(name, layout, now) {
            let why = rejection.problems.first().map_or("", |problem| problem.detail.as_str());
            self.notice(name, Some(format!("what was prepared cannot be taken back: {why}")));
        }
    }

    /// Goes back to what was good last; gives up a switch that is under way.
    pub(super) fn revert_interface(&mut self, said: &Said, now: Timestamp) -> Result<Reply, Rejection> {
        let record = self.record(&said.interface)?;
        if let Some(switch) = &record.switch {
            if !switch.phase.goes_on() {
                let detail = format!("the switch to {} goes back already", switch.to);
                return Err(refused(RejectionKind::Conflict, "", detail));
            }
            let id = switch.id.clone();
            self.fail(&said.interface, &format!("reverted by {}{}", said.by, because(&said.why)), now);
            return self.became(&id);
        }
        let target = self.good_before(&said.interface).ok_or_else(|| {
            let detail =
                "there is nothing to go back to: no other personality was good, and there is no default";
            refused(RejectionKind::Conflict, "", detail)
        })?;
        let order = back_to(&said.interface, &target, &said.by, &said.why);
        let id = self.whole_or_nothing(|hub| hub.begin(&order, None, Cause::Ordered, now))?;
        self.became(&id)
    }

    /// What an interface goes back to: the last one that was good, else the one before, else the default.
    pub(super) fn good_before(&self, name: &str) -> Option<Version> {
        let record = self.interfaces.records.get(name)?;
        let back = record.temporary.as_ref().map(|temporary| temporary.back.clone());
        let default = record.settings.default.as_ref().and_then(|wanted| self.version(wanted, "").ok());
        let all = [back, record.last_known_good.clone(), record.previous.clone(), default];
        let degraded = record.standing == Standing::Degraded;
        let known = |version: &Version| self.interfaces.versions.get(version).is_some();
        all.into_iter().flatten().find(|version| known(version) && (degraded || *version != record.current))
    }
}

/// An order to go back at once.
pub(super) fn back_to(interface: &str, to: &Version, by: &str, why: &str) -> Order {
    Order {
        interface: interface.to_owned(),
        to: to.to_string(),
        by: by.to_owned(),
        why: why.to_owned(),
        drain: None,
        urgent: true,
        confirm_within: None,
        lasts: None,
        ordered_by: None,
    }
}
