//! Switches that are over: what the journal says of them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::switch::{Cause, OperationId, Phase, Switch, micros};
use crate::command::switch::FlowCount;
use crate::model::check::CheckResult;
use crate::model::personality::Version;
use crate::view::switch::OperationView;

/// A phase that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PhaseDone {
    /// Which.
    pub phase: Phase,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub began_at: Timestamp,
    /// How long it took, in microseconds.
    pub took_us: u64,
}

/// How a switch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As it was ordered.
    Committed,
    /// Before anything changed.
    Aborted,
    /// Everything is as it was, and was checked.
    RolledBack,
    /// With the default personality.
    FellBack,
    /// With none that works.
    Degraded,
}

impl Outcome {
    /// As JSON and metrics spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::Aborted => "aborted",
            Self::RolledBack => "rolled_back",
            Self::FellBack => "fell_back",
            Self::Degraded => "degraded",
        }
    }

    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::Aborted => "aborted",
            Self::RolledBack => "rolled back",
            Self::FellBack => "fell back to the default",
            Self::Degraded => "degraded",
        }
    }
}

/// One switch that is over: a line of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JournalEntry {
    /// Identity.
    pub id: OperationId,
    /// The group that it was one of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<OperationId>,
    /// Name of the interface's record.
    pub interface: String,
    /// Who ordered it.
    pub by: String,
    /// Why.
    pub why: String,
    /// Whether the hub began it by itself.
    #[serde(default)]
    pub automatic: bool,
    /// What it came from.
    #[schema(value_type = String)]
    pub from: Version,
    /// What it went to.
    #[schema(value_type = String)]
    pub to: Version,
    /// What differs between the two definitions, by JSON pointer.
    pub differences: Vec<String>,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub began_at: Timestamp,
    /// When it was over.
    #[schema(value_type = String, format = DateTime)]
    pub ended_at: Timestamp,
    /// Its phases.
    pub phases: Vec<PhaseDone>,
    /// How long new connections were refused that it would have broken, in microseconds.
    pub blocked_us: u64,
    /// Flows as they were counted last before the flip, or where that did not wait for the count, beside it: those
    /// active or idle then were cut. `None` of a switch that was over before anybody counted.
    #[serde(default)]
    pub flows: Option<FlowCount>,
    /// The last answers to checks.
    pub checks: Vec<CheckResult>,
    /// How it ended.
    pub outcome: Outcome,
    /// What went wrong first, if something did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl JournalEntry {
    /// What is to be written of a switch that ends now.
    pub fn new(
        interface: &str,
        switch: &Switch,
        differences: Vec<String>,
        outcome: Outcome,
        now: Timestamp,
    ) -> Self {
        let unblocked = switch.flipped_at.unwrap_or(now);
        Self {
            id: switch.id.clone(),
            group: switch.group.clone(),
            interface: interface.to_owned(),
            by: switch.by.clone(),
            why: switch.why.clone(),
            automatic: switch.cause != Cause::Ordered,
            from: switch.from.clone(),
            to: switch.to.clone(),
            differences,
            began_at: switch.began_at,
            ended_at: now,
            phases: switch.done.clone(),
            blocked_us: switch.blocked_at.map_or(0, |at| micros(at, unblocked)),
            flows: switch.flows,
            checks: switch.checks.clone(),
            outcome,
            failure: switch.failure.clone(),
        }
    }

    /// What the outside may see of it.
    pub fn view(&self) -> OperationView {
        OperationView {
            id: self.id.clone(),
            group: self.group.clone(),
            interface: self.interface.clone(),
            by: self.by.clone(),
            why: self.why.clone(),
            from: self.from.clone(),
            to: self.to.clone(),
            phase: None,
            deadline: None,
            began_at: self.began_at,
            ended_at: Some(self.ended_at),
            phases: self.phases.clone(),
            flows: self.flows,
            checks: self.checks.clone(),
            outcome: Some(self.outcome),
            failure: self.failure.clone(),
        }
    }
}

impl Switch {
    /// What the outside may see of it.
    pub fn view(&self, interface: &str) -> OperationView {
        OperationView {
            id: self.id.clone(),
            group: self.group.clone(),
            interface: interface.to_owned(),
            by: self.by.clone(),
            why: self.why.clone(),
            from: self.from.clone(),
            to: self.to.clone(),
            phase: Some(self.phase),
            deadline: self.deadline,
            began_at: self.began_at,
            ended_at: None,
            phases: self.done.clone(),
            flows: self.flows,
            checks: self.checks.clone(),
            outcome: None,
            failure: self.failure.clone(),
        }
    }
}
