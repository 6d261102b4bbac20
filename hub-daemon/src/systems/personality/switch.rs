//! One switch: its phases, and what is known of it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::checks::{Goes, Past};
use super::operation::PhaseDone;
use crate::command::switch::{Connection, FlowCount};
use crate::model::check::CheckResult;
use crate::model::personality::{Drain, Version};

/// Identity of a switch, or of a group of switches: a ULID, so ids sort by their making.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String)]
pub struct OperationId(pub String);

/// How long the kernel has for what a phase asks of it.
pub const APPLY: Duration = Duration::from_secs(20);
/// How long it has when the hub has just started: its first pass is about everything that there is.
pub const APPLY_FIRST: Duration = Duration::from_mins(5);
/// How long the old slot is kept after a switch.
pub const RETIRE: Duration = Duration::from_mins(1);
/// How much longer than a phase its lease lasts: the hub comes before it, the data path if there is no hub.
pub const GRACE: Duration = Duration::from_secs(10);

/// A switch that is under way.
#[derive(Clone, Debug, PartialEq)]
pub struct Switch {
    /// Identity.
    pub id: OperationId,
    /// The group that it is one of: all of them, or none.
    pub group: Option<OperationId>,
    /// What it comes from.
    pub from: Version,
    /// What it goes to.
    pub to: Version,
    /// Who ordered it.
    pub by: String,
    /// Why.
    pub why: String,
    /// Who began it.
    pub cause: Cause,
    /// How connections end.
    pub drain: Drain,
    /// Whether it flips at once.
    pub urgent: bool,
    /// How long it waits for confirmation.
    pub confirm_within: Option<Duration>,
    /// How long it lasts.
    pub lasts: Option<Duration>,
    /// The connection that it was ordered by.
    pub ordered_by: Option<Connection>,
    /// Where it is.
    pub phase: Phase,
    /// When the phase began.
    pub phase_at: Timestamp,
    /// When it is given up.
    pub deadline: Option<Timestamp>,
    /// Revision of the hub that has what the phase asks of the kernel.
    pub since: u64,
    /// Whether the kernel has it.
    pub applied: bool,
    /// When the switch began.
    pub began_at: Timestamp,
    /// When it flipped.
    pub flipped_at: Option<Timestamp>,
    /// When new connections were refused first.
    pub blocked_at: Option<Timestamp>,
    /// Phases that are over.
    pub done: Vec<PhaseDone>,
    /// Checks of before with whether they passed; `None` if nothing was asked.
    pub baseline: Option<Past>,
    /// Checks of after with whether they passed.
    pub verified: Past,
    /// The last answers.
    pub checks: Vec<CheckResult>,
    /// Flows as they were counted last, if they were.
    pub flows: Option<FlowCount>,
    /// Of the question for them where no drain waits for the answer: it is the same from beginning to end.
    pub counts: u64,
    /// What went wrong first.
    pub failure: Option<String>,
}

/// Who began a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// Somebody ordered it.
    Ordered,
    /// The hub did.
    Automatic,
    /// The hub did, for the time of the personality before is over: there is no way back to that.
    Returns,
}

/// Where a switch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The other slot is filled; packets see nothing of it.
    Prepare,
    /// Checks say how things are before.
    Preflight,
    /// New connections that would break are refused, and others end.
    Drain,
    /// It could flip, and waits for the others of its group.
    Ready,
    /// The other slot decides.
    Flip,
    /// Checks say how things are after.
    Verify,
    /// It is good, and waits for the others of its group.
    Verified,
    /// It waits for somebody to keep it.
    AwaitConfirm,
    /// The slot of before decides again.
    Rollback,
    /// Checks say whether everything is as it was.
    RollbackVerify,
    /// The default personality decides.
    Fallback,
    /// Checks say whether that one works.
    FallbackVerify,
}

impl Phase {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Preflight => "preflight",
            Self::Drain => "drain",
            Self::Ready => "ready",
            Self::Flip => "flip",
            Self::Verify => "verify",
            Self::Verified => "verified",
            Self::AwaitConfirm => "await confirm",
            Self::Rollback => "rollback",
            Self::RollbackVerify => "verify the rollback",
            Self::Fallback => "fall back",
            Self::FallbackVerify => "verify the default",
        }
    }

    /// As JSON and metrics spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Preflight => "preflight",
            Self::Drain => "drain",
            Self::Ready => "ready",
            Self::Flip => "flip",
            Self::Verify => "verify",
            Self::Verified => "verified",
            Self::AwaitConfirm => "await_confirm",
            Self::Rollback => "rollback",
            Self::RollbackVerify => "rollback_verify",
            Self::Fallback => "fallback",
            Self::FallbackVerify => "fallback_verify",
        }
    }

    /// Whether nothing has changed for packets yet but that some are refused.
    pub fn is_before_flip(self) -> bool {
        self < Self::Flip
    }

    /// Whether it can still become what was ordered.
    pub fn goes_on(self) -> bool {
        self < Self::Rollback
    }

    /// Whose answers are awaited: those of the personality of before are judged as its own of before.
    pub fn goes(self) -> Goes {
        if self == Self::RollbackVerify { Goes::Back } else { Goes::On }
    }

    /// Whether checks are awaited.
    pub fn asks_checks(self) -> bool {
        matches!(self, Self::Preflight | Self::Verify | Self::RollbackVerify | Self::FallbackVerify)
    }

    /// Whether the kernel is to be told something first.
    pub fn is_applied_first(self) -> bool {
        matches!(self, Self::Prepare | Self::Drain | Self::Flip | Self::Rollback | Self::Fallback)
    }
}

impl Switch {
    /// Goes on to the next phase.
    pub fn enter(&mut self, phase: Phase, deadline: Option<Timestamp>, since: u64, now: Timestamp) {
        self.leave(now);
        self.phase = phase;
        self.phase_at = now;
        self.deadline = deadline;
        self.since = since;
        self.applied = false;
    }

    /// Whether connections are waited for before the flip.
    pub fn drains(&self) -> bool {
        !self.urgent && !self.drain.timeout.is_zero()
    }

    /// When its own time is over, if it has flipped.
    pub fn lasts_until(&self) -> Option<Timestamp> {
        let lasts = SignedDuration::try_from(self.lasts?).unwrap_or(SignedDuration::MAX);
        Some(self.flipped_at?.saturating_add(lasts).unwrap_or(Timestamp::MAX))
    }

    /// Notes that the phase is over.
    pub fn leave(&mut self, now: Timestamp) {
        let took_us = micros(self.phase_at, now);
        self.done.push(PhaseDone { phase: self.phase, began_at: self.phase_at, took_us });
    }
}

/// Microseconds between two times; none if the clock was set back meanwhile.
pub(super) fn micros(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.duration_since(from).as_micros()).unwrap_or_default()
}
