//! Switches begin: validated and planned at once, prepared from then on.

use jiff::{SignedDuration, Timestamp};

use super::super::admit::invalid;
use super::super::documents::{below, severity};
use super::super::{Hub, refused};
use crate::command::switch::{Connection, Order};
use crate::command::{Problem, Rejection, RejectionKind, Reply};
use crate::model::personality::{Drain, Version, Wanted};
use crate::model::problems::Problems;
use crate::systems::personality::switch::{Cause, OperationId, Phase, Switch};
use crate::systems::personality::{Record, Standing};

/// Switches under way: each has a compiled policy beside the live one.
pub(in super::super) const SWITCHES: usize = 1_024;
/// Longest time that a switch may wait for confirmation, or last.
const LONGEST: std::time::Duration = std::time::Duration::from_hours(30 * 24);

impl Hub {
    /// Begins switches: all of them, or none.
    pub(super) fn start(&mut self, orders: &[Order], now: Timestamp) -> Result<Reply, Rejection> {
        if orders.is_empty() {
            return Err(refused(RejectionKind::Invalid, "", "no interface is named: name at least one"));
        }
        let is_group = orders.len() > 1;
        let place = |index, problem| if is_group { below(index, problem) } else { problem };
        let began = self.begin_all(orders, place, now)?;
        Ok(Reply::Switched(began.iter().filter_map(|id| self.operation(id)).collect()))
    }

    /// Begins switches as one group: all of them, or none. `place` says where a problem of an order is.
    pub(in super::super) fn begin_all(
        &mut self,
        orders: &[Order],
        place: impl Fn(usize, Problem) -> Problem,
        now: Timestamp,
    ) -> Result<Vec<OperationId>, Rejection> {
        let group = (orders.len() > 1).then(|| self.operation_id(now));
        self.whole_or_nothing(|hub| {
            let (mut began, mut problems, mut kind) = (Vec::new(), Vec::new(), None);
            for (index, order) in orders.iter().enumerate() {
                match hub.begin(order, group.clone(), Cause::Ordered, now) {
                    Ok(id) => began.push(id),
                    Err(rejection) => {
                        kind = kind.max(Some(severity(rejection.kind)));
                        problems.extend(rejection.problems.into_iter().map(|problem| place(index, problem)));
                    }
                }
            }
            match kind {
                None => Ok(began),
                Some((_, kind)) => Err(Rejection { kind, problems }),
            }
        })
    }

    /// Begins a switch: its personality is prepared beside the one that decides. One to what an interface has for a
    /// while is about that while alone, and is done.
    pub(super) fn begin(
        &mut self,
        order: &Order,
        group: Option<OperationId>,
        cause: Cause,
        now: Timestamp,
    ) -> Result<OperationId, Rejection> {
        let (name, to, drain) = self.validated(order, now)?;
        let record = self.record(&name)?;
        let from = record.layout.live.clone();
        let is_lent = to == from && record.temporary.is_some();
        if !is_lent {
            is_another(record, &to)?;
            let layout = record.layout.with(Some(to.clone()));
            self.spare(&name, &to, order.ordered_by);
            self.with_record(&name, |record| record.departed.clear());
            self.lay(&name, layout, now)?;
        }
        let id = self.operation_id(now);
        self.revision += 1;
        let since = self.revision;
        let switch = Switch {
            id: id.clone(),
            group,
            from,
            to,
            by: order.by.clone(),
            why: order.why.clone(),
            cause,
            drain,
            urgent: order.urgent,
            confirm_within: order.confirm_within,
            lasts: order.lasts,
            ordered_by: order.ordered_by,
            phase: Phase::Prepare,
            phase_at: now,
            deadline: Some(super::after(now, self.to_apply())),
            since,
            applied: false,
            began_at: now,
            flipped_at: is_lent.then_some(now),
            blocked_at: None,
            done: Vec::new(),
            baseline: None,
            verified: Vec::new(),
            checks: Vec::new(),
            flows: None,
            counts: since,
            failure: None,
        };
        let said = format!("switch {} to {}: {}, by {}", id.0, switch.to, switch.phase.words(), order.by);
        self.with_record(&name, |record| {
            record.switch = Some(switch);
            let end = record.given_up_at(Phase::Prepare, now);
            if let Some(switch) = &mut record.switch {
                switch.deadline = switch.deadline.into_iter().chain(end).min();
            }
            record.retires_at = None;
            record.ticket = since;
        });
        self.notice(&name, Some(said));
        if is_lent {
            self.commit(&name, now);
        }
        Ok(id)
    }

    /// Has a personality that an interface goes to let the connection go on that the switch is ordered by.
    pub(super) fn spare(&mut self, name: &str, to: &Version, ordered_by: Option<Connection>) {
        self.with_record(name, |record| {
            // The one that decides stays as it is.
            if record.layout.live != *to {
                record.spared.remove(to);
                record.spared.extend(ordered_by.map(|connection| (to.clone(), connection)));
            }
        });
    }

    /// What a switch would be about, if nothing is against it.
    pub(super) fn validated(
        &self,
        order: &Order,
        now: Timestamp,
    ) -> Result<(String, Version, Drain), Rejection> {
        let record = self.record(&order.interface)?;
        if let Some(switch) = &record.switch {
            let (to, phase) = (&switch.to, switch.phase.words());
            let detail = format!("a switch to {to} is under way ({phase}): wait for it, or revert it first");
            return Err(refused(RejectionKind::Conflict, "", detail));
        }
        if !self.carrier_works(&record.carrier, now) {
            return Err(refused(RejectionKind::Conflict, "", "the interface has no carrier that works"));
        }
        let running = self.interfaces.records.values().filter(|record| record.switch.is_some()).count();
        if running >= SWITCHES {
            let detail = format!("{SWITCHES} switches are under way: wait for some of them");
            return Err(refused(RejectionKind::Full, "", detail));
        }
        let wanted = Wanted::parse(&order.to)
            .map_err(|error| refused(RejectionKind::Invalid, "/to", error.to_string()))?;
        let to = self.version(&wanted, "/to")?;
        let settings = &record.settings;
        self.kept(&to)?.personality.on(&settings.name, &settings.labels).map_err(|problems| {
            // An order says nothing of labels.
            let all = problems.into_iter();
            invalid(all.map(|problem| Problem { pointer: "/to".to_owned(), ..problem }).collect())
        })?;
        self.on_vlan(settings, &to, "/to")?;
        let mut problems = Problems::default();
        for (pointer, time) in [("/confirm_within", order.confirm_within), ("/for", order.lasts)] {
            if time.is_some_and(|time| time.is_zero() || time > LONGEST) {
                problems.add(pointer, "use a time between 1s and 30d");
            }
        }
        let drain = match &order.drain {
            Some(written) => Drain::new(&mut problems, Some(written)),
            None => self.kept(&to)?.personality.drain(),
        };
        problems.settle(()).map_err(invalid)?;
        Ok((order.interface.clone(), to, drain))
    }

    pub(super) fn operation_id(&mut self, now: Timestamp) -> OperationId {
        OperationId(self.fresh_id(now).0.to_string())
    }
}

/// Refuses what an interface has already.
pub(super) fn is_another(record: &Record, to: &Version) -> Result<(), Rejection> {
    if *to != record.layout.live || record.standing == Standing::Degraded {
        return Ok(());
    }
    let detail = format!("interface `{}` has {to} already", record.settings.name);
    Err(refused(RejectionKind::Conflict, "/to", detail))
}

pub(super) fn signed(time: std::time::Duration) -> SignedDuration {
    SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX)
}
