//! Experiments: who is on which side, and what was counted there. Switches are ordered as groups.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::{Hub, after, refused};
use crate::command::experiment::{Begin, ExperimentCommand, How};
use crate::command::switch::Order;
use crate::command::{Problem, Rejection, RejectionKind, Reply};
use crate::model::experiment::is_chosen;
use crate::model::names;
use crate::model::personality::{Version, Wanted};
use crate::systems::experiment::totals::Reading;
use crate::systems::experiment::{Arm, Change, Experiment, Member, Pending};
use crate::systems::personality::operation::JournalEntry;
use crate::systems::personality::switch::OperationId;
use crate::systems::personality::{Record, Standing};

/// Experiments that are under way or can still be asked for.
const EXPERIMENTS: usize = 64;
/// What was counted is stored so often.
const STORE: SignedDuration = SignedDuration::from_secs(60);

impl Hub {
    pub(super) fn experiment(
        &mut self,
        command: ExperimentCommand,
        now: Timestamp,
    ) -> Result<Reply, Rejection> {
        let name = match command {
            ExperimentCommand::Begin(begin) if begin.dry_run => {
                let mut copy = self.clone();
                copy.begin_experiment(&begin, now)?;
                return copy.experiment_view(&begin.name);
            }
            ExperimentCommand::Begin(begin) => {
                self.whole_or_nothing(|hub| hub.begin_experiment(&begin, now))?;
                begin.name
            }
            ExperimentCommand::Share { experiment, percent, how } => {
                self.whole_or_nothing(|hub| hub.share(&experiment, percent, &how, now))?;
                experiment
            }
            ExperimentCommand::End { experiment, keep, how } => {
                self.whole_or_nothing(|hub| hub.end_experiment(&experiment, keep, &how, now))?;
                experiment
            }
            ExperimentCommand::Delete { experiment } => {
                if !self.known_experiment(&experiment)?.stage().is_over() {
                    let detail = format!("experiment `{experiment}` is under way: end it first");
                    return Err(refused(RejectionKind::Conflict, "", detail));
                }
                self.interfaces_mut().experiments.remove(&experiment);
                return Ok(Reply::Deleted);
            }
        };
        self.experiment_view(&name)
    }

    fn experiment_view(&self, name: &str) -> Result<Reply, Rejection> {
        self.known_experiment(name).map(|experiment| Reply::Experiment(Arc::clone(experiment)))
    }

    fn known_experiment(&self, name: &str) -> Result<&Arc<Experiment>, Rejection> {
        self.interfaces
            .experiments
            .get(name)
            .ok_or_else(|| refused(RejectionKind::NotFound, "", format!("there is no experiment `{name}`")))
    }

    /// One whose sides can be changed.
    fn running(&self, name: &str) -> Result<&Arc<Experiment>, Rejection> {
        let experiment = self.known_experiment(name)?;
        let stage = experiment.stage();
        if stage.is_over() || experiment.pending.is_some() {
            let detail = format!("experiment `{name}` is {}, not running", stage.name());
            return Err(refused(RejectionKind::Conflict, "", detail));
        }
        Ok(experiment)
    }

    fn begin_experiment(&mut self, begin: &Begin, now: Timestamp) -> Result<(), Rejection> {
        self.room_for(&begin.name)?;
        let chosen = |order: &&Order| is_chosen(&begin.salt, &order.interface, begin.percent);
        let orders: Vec<Order> = begin.orders.iter().filter(chosen).cloned().collect();
        let (all, chosen) = (begin.orders.len(), orders.len());
        if chosen == 0 || chosen == all {
            let which = if chosen == 0 { "none" } else { "all" };
            let detail = format!(
                "{} % chooses {which} of {all} interfaces: each side needs one; use another percentage or `salt`",
                begin.percent
            );
            return Err(refused(RejectionKind::Invalid, "/percent", detail));
        }
        let members = self.members_of(begin)?;
        let waits = self.begin_all(&orders, |index, problem| named(&orders, index, problem), now)?;
        let experiment = Experiment {
            name: begin.name.clone(),
            salt: begin.salt.clone(),
            percent: begin.percent,
            by: begin.by.clone(),
            why: begin.why.clone(),
            created_at: now,
            began_at: None,
            ended_at: None,
            kept: None,
            failure: None,
            members,
            pending: Some(Pending {
                change: Change::Begin,
                waits: waits.into_iter().collect(),
                failure: None,
            }),
        };
        self.interfaces_mut().experiments.insert(begin.name.clone(), Arc::new(experiment));
        Ok(())
    }

    fn room_for(&mut self, name: &str) -> Result<(), Rejection> {
        names::persona(name).map_err(|error| refused(RejectionKind::Invalid, "/name", error.to_string()))?;
        let experiments = &self.interfaces.experiments;
        if experiments.contains_key(name) {
            let detail = format!("there is an experiment `{name}` already: delete it, or use another name");
            return Err(refused(RejectionKind::Conflict, "/name", detail));
        }
        if experiments.len() >= EXPERIMENTS {
            let over = experiments.values().filter(|experiment| experiment.stage().is_over());
            let oldest = over.min_by_key(|experiment| experiment.ended_at).map(|it| it.name.clone());
            let Some(oldest) = oldest else {
                let detail = format!("{EXPERIMENTS} experiments are under way: end some of them");
                return Err(refused(RejectionKind::Full, "", detail));
            };
            self.interfaces_mut().experiments.remove(&oldest);
        }
        Ok(())
    }

    /// The interfaces on their sides. All must be able to be on either.
    fn members_of(&self, begin: &Begin) -> Result<BTreeMap<String, Member>, Rejection> {
        let (mut members, mut problems, mut kind) = (BTreeMap::new(), Vec::new(), None);
        for (index, order) in begin.orders.iter().enumerate() {
            match self.member_of(begin, order) {
                Ok(member) => drop(members.insert(order.interface.clone(), member)),
                Err(rejection) => {
                    kind = kind.max(Some(super::documents::severity(rejection.kind)));
                    let all = rejection.problems.into_iter();
                    problems.extend(all.map(|problem| named(&begin.orders, index, problem)));
                }
            }
        }
        match kind {
            None => Ok(members),
            Some((_, kind)) => Err(Rejection { kind, problems }),
        }
    }

    fn member_of(&self, begin: &Begin, order: &Order) -> Result<Member, Rejection> {
        let record = self.record(&order.interface)?;
        let other = self.interfaces.experiments.values().find(|experiment| {
            !experiment.stage().is_over() && experiment.members.contains_key(&order.interface)
        });
        if let Some(other) = other {
            let detail = format!("it is in experiment `{}`: end that one first", other.name);
            return Err(refused(RejectionKind::Conflict, "", detail));
        }
        if record.switch.is_some() || record.standing != Standing::Active {
            let detail = "it is being switched, or does not have what was wanted: wait, or revert it first";
            return Err(refused(RejectionKind::Conflict, "", detail));
        }
        let wanted = Wanted::parse(&order.to)
            .map_err(|error| refused(RejectionKind::Invalid, "/to", error.to_string()))?;
        let (a, b) = (record.layout.live.clone(), self.version(&wanted, "/to")?);
        self.fits(&record.settings, &wanted, "/to")?;
        if a == b {
            let detail = format!("it has {b} already: it can be on neither side");
            return Err(refused(RejectionKind::Conflict, "/to", detail));
        }
        let chosen = is_chosen(&begin.salt, &order.interface, begin.percent);
        Ok(Member::new(if chosen { Arm::B } else { Arm::A }, a, b))
    }

    fn share(&mut self, name: &str, percent: u8, how: &How, now: Timestamp) -> Result<(), Rejection> {
        let experiment = self.running(name)?;
        let side = |member: &String| {
            if is_chosen(&experiment.salt, member, percent) { Arm::B } else { Arm::A }
        };
        let sides: BTreeSet<Arm> = experiment.members.keys().map(side).collect();
        if sides.len() < Arm::ALL.len() {
            let detail =
                format!("with {percent} % all interfaces are on one side: end the experiment instead");
            return Err(refused(RejectionKind::Invalid, "/percent", detail));
        }
        let moved: BTreeMap<String, Arm> = experiment
            .members
            .iter()
            .map(|(name, member)| (name, side(name), member))
            .filter(|(_, side, member)| *side != member.arm)
            .map(|(name, side, _)| (name.clone(), side))
            .collect();
        let why = format!("experiment {name}: {percent} %");
        self.go_over(name, &moved, Change::Share { percent, moved: moved.clone() }, &why, how, now)
    }

    fn end_experiment(&mut self, name: &str, keep: Arm, how: &How, now: Timestamp) -> Result<(), Rejection> {
        let experiment = self.running(name)?;
        let others = experiment.members.iter().filter(|(_, member)| member.arm != keep);
        let moved: BTreeMap<String, Arm> = others.map(|(name, _)| (name.clone(), keep)).collect();
        let why = format!("experiment {name} ends with {}", keep.name());
        self.go_over(name, &moved, Change::End(keep), &why, how, now)
    }

    /// Switches interfaces to what they have on another side. Those that somebody gave something else keep that.
    fn go_over(
        &mut self,
        name: &str,
        moved: &BTreeMap<String, Arm>,
        change: Change,
        why: &str,
        how: &How,
        now: Timestamp,
    ) -> Result<(), Rejection> {
        let experiment = Arc::clone(self.running(name)?);
        let orders = moved.iter().filter_map(|(interface, arm)| {
            let member = experiment.members.get(interface)?;
            let record = self.interfaces.records.get(interface)?;
            let is_on_its_side = record.switch.is_some() || record.layout.live == *member.version();
            let why = if how.why.is_empty() { why.to_owned() } else { format!("{why}: {}", how.why) };
            is_on_its_side.then(|| Order {
                interface: interface.clone(),
                to: member.version_of(*arm).to_string(),
                by: how.by.clone(),
                why,
                drain: None,
                urgent: how.urgent,
                confirm_within: None,
                lasts: None,
                ordered_by: how.ordered_by,
            })
        });
        let orders: Vec<Order> = orders.collect();
        let waits = self.begin_all(&orders, |index, problem| named(&orders, index, problem), now)?;
        let waits = waits.into_iter().collect();
        self.with_experiment(name, |experiment| {
            experiment.pending = Some(Pending { change, waits, failure: None });
            experiment.settle(now);
        });
        Ok(())
    }

    fn with_experiment(&mut self, name: &str, change: impl FnOnce(&mut Experiment)) {
        if let Some(experiment) = self.interfaces_mut().experiments.get_mut(name) {
            change(Arc::make_mut(experiment));
        }
    }

    /// Takes note of a switch that is over.
    pub(super) fn note_experiments(&mut self, entry: &JournalEntry) {
        let waits = |experiment: &Experiment| {
            experiment.pending.as_ref().is_some_and(|pending| pending.waits.contains(&entry.id))
        };
        let experiments = self.interfaces.experiments.values();
        let those: Vec<String> = experiments.filter(|it| waits(it)).map(|it| it.name.clone()).collect();
        for name in those {
            self.with_experiment(&name, |experiment| experiment.note_switch(entry));
        }
    }

    /// Ends changes whose switches were lost with what could not be restored.
    pub(super) fn settle_experiments(&mut self, now: Timestamp) {
        let records = self.interfaces.records.values();
        let running: BTreeSet<OperationId> =
            records.filter_map(|record| Some(record.switch.as_ref()?.id.clone())).collect();
        let names: Vec<String> = self.interfaces.experiments.keys().cloned().collect();
        for name in names {
            self.with_experiment(&name, |experiment| {
                if let Some(pending) = &mut experiment.pending {
                    let before = pending.waits.len();
                    pending.waits.retain(|id| running.contains(id));
                    if pending.waits.len() < before {
                        pending.failure.get_or_insert_with(|| "a switch was lost".to_owned());
                    }
                    experiment.settle(now);
                }
            });
        }
    }

    /// Forgets an interface that is gone.
    pub(super) fn leave_experiments(&mut self, interface: &str) {
        let experiments = self.interfaces_mut().experiments.values_mut();
        for experiment in experiments.filter(|experiment| experiment.members.contains_key(interface)) {
            Arc::make_mut(experiment).members.remove(interface);
        }
    }

    /// Takes note of counters.
    pub(super) fn measured(&mut self, readings: &BTreeMap<String, Reading>, now: Timestamp) {
        let running = |experiment: &Experiment| !experiment.stage().is_over();
        if !self.interfaces.experiments.values().any(|experiment| running(experiment)) {
            return;
        }
        self.revision += 1;
        let interfaces = Arc::make_mut(&mut self.interfaces);
        let holds = |record: &Record, version: &Version| {
            record.switch.is_none() && record.standing == Standing::Active && record.layout.live == *version
        };
        for experiment in interfaces.experiments.values_mut().filter(|experiment| running(experiment)) {
            let counts = experiment.pending.is_none();
            for (name, member) in &mut Arc::make_mut(experiment).members {
                let (Some(record), Some(reading)) = (interfaces.records.get(name), readings.get(name)) else {
                    continue;
                };
                if !counts {
                    member.last = None;
                } else if !holds(record, member.version()) {
                    member.leave();
                } else {
                    member.left = false;
                    member.note(reading.clone(), record.health.failure.is_some(), now);
                }
            }
        }
        let is_due = interfaces.measured_at.is_none_or(|at| after(at, STORE) <= now || at > now);
        if is_due {
            interfaces.measured_at = Some(now);
            interfaces.unsaved = true;
        }
    }

    /// The clock was set: what was read last was read as long ago as before.
    pub(super) fn shift_experiments(&mut self, by: SignedDuration) {
        for experiment in self.interfaces_mut().experiments.values_mut() {
            for member in Arc::make_mut(experiment).members.values_mut() {
                if let Some((at, _)) = &mut member.last {
                    *at = after(*at, by);
                }
            }
        }
    }
}

/// A problem of one order, with the name of its interface.
fn named(orders: &[Order], index: usize, problem: Problem) -> Problem {
    let name = orders.get(index).map_or("", |order| order.interface.as_str());
    Problem { detail: format!("`{name}`: {}", problem.detail), ..problem }
}
