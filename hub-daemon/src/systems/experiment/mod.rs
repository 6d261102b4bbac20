//! Experiments: some interfaces get another personality, the others keep theirs, and both are measured.
//!
//! An experiment switches nothing by itself: it orders groups of switches, and takes note of how they ended.

pub mod compare;
pub mod totals;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use self::totals::{Reading, Totals};
use crate::model::personality::Version;
use crate::systems::personality::operation::{JournalEntry, Outcome};
use crate::systems::personality::switch::OperationId;

/// One of the two sides of an experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Arm {
    /// Those that keep what they have.
    A,
    /// Those that get the other personality.
    B,
}

impl Arm {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::A, Self::B];

    /// As JSON and metrics spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
}

/// Everything the hub knows of one experiment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// Unique name.
    pub name: String,
    /// What the choice of interfaces is made by, beside their names.
    pub salt: String,
    /// How many of a hundred interfaces are to be in arm B.
    pub percent: u8,
    /// Who began it.
    pub by: String,
    /// Why.
    pub why: String,
    /// When it was ordered.
    pub created_at: Timestamp,
    /// When arm B had its personality.
    pub began_at: Option<Timestamp>,
    /// When it was over.
    pub ended_at: Option<Timestamp>,
    /// The side whose personality all have in the end; none if it never began.
    pub kept: Option<Arm>,
    /// What went wrong last.
    pub failure: Option<String>,
    /// Its interfaces by the names of their records.
    pub members: BTreeMap<String, Member>,
    /// A change of arms that is under way.
    pub pending: Option<Pending>,
}

/// One interface of an experiment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its side.
    pub arm: Arm,
    /// What it had before the experiment.
    pub a: Version,
    /// What it has, or would have, in arm B.
    pub b: Version,
    /// Whether it does not have what its side has: nothing is counted meanwhile.
    pub left: bool,
    /// What was counted since it is on its side.
    pub totals: Totals,
    /// The counters as they were read last, while it had what its side has.
    pub last: Option<(Timestamp, Reading)>,
}

impl Member {
    /// An interface that nothing was counted of.
    pub fn new(arm: Arm, a: Version, b: Version) -> Self {
        Self { arm, a, b, left: false, totals: Totals::default(), last: None }
    }

    /// The personality of its side.
    pub fn version(&self) -> &Version {
        self.version_of(self.arm)
    }

    /// The personality that it has on a side.
    pub fn version_of(&self, arm: Arm) -> &Version {
        match arm {
            Arm::A => &self.a,
            Arm::B => &self.b,
        }
    }

    /// Adds what its counters say since they were read last. One that fails checks `fails` them in this round.
    pub fn note(&mut self, reading: Reading, fails: bool, now: Timestamp) {
        if let Some((at, before)) = &self.last {
            self.totals.add(&reading, before, now.duration_since(*at), fails);
        }
        self.last = Some((now, reading));
    }

    /// Notes that it does not have what its side has.
    pub fn leave(&mut self) {
        (self.left, self.last) = (true, None);
    }
}

/// A change of arms that is under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pending {
    /// What is changed.
    pub change: Change,
    /// Switches that are not over.
    pub waits: BTreeSet<OperationId>,
    /// What went wrong with one of them.
    pub failure: Option<String>,
}

/// What changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Arm B gets its personality.
    Begin,
    /// Other interfaces are in arm B.
    Share {
        /// How many of a hundred.
        percent: u8,
        /// Those that change sides.
        moved: BTreeMap<String, Arm>,
    },
    /// All have the personality of one side.
    End(Arm),
}

/// How far an experiment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Arm B is being switched.
    Starting,
    /// Both sides are measured.
    Running,
    /// Interfaces change sides.
    Changing,
    /// All get the personality of one side.
    Ending,
    /// It is over.
    Ended,
    /// It never began: arm B could not be switched.
    Failed,
}

impl Stage {
    /// As JSON and metrics spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Changing => "changing",
            Self::Ending => "ending",
            Self::Ended => "ended",
            Self::Failed => "failed",
        }
    }

    /// Whether nothing is to come.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Ended | Self::Failed)
    }
}

impl Experiment {
    /// How far it is.
    pub fn stage(&self) -> Stage {
        match (self.ended_at, self.pending.as_ref().map(|pending| &pending.change)) {
            (Some(_), _) if self.began_at.is_none() => Stage::Failed,
            (Some(_), _) => Stage::Ended,
            (None, Some(Change::Begin)) => Stage::Starting,
            (None, Some(Change::Share { .. })) => Stage::Changing,
            (None, Some(Change::End(_))) => Stage::Ending,
            (None, None) => Stage::Running,
        }
    }

    /// The interfaces of a side.
    pub fn of(&self, arm: Arm) -> impl Iterator<Item = (&String, &Member)> {
        self.members.iter().filter(move |(_, member)| member.arm == arm)
    }

    /// What was counted of all interfaces of a side.
    pub fn sum(&self, arm: Arm) -> Totals {
        Totals::sum(&self.of(arm).map(|(_, member)| &member.totals).collect::<Vec<_>>())
    }

    /// Takes note of a switch that is over; of one that is not its own there is nothing to note.
    pub fn note_switch(&mut self, entry: &JournalEntry) {
        let Some(pending) = &mut self.pending else { return };
        if !pending.waits.remove(&entry.id) {
            return;
        }
        if entry.outcome != Outcome::Committed {
            let why = entry.failure.as_deref().unwrap_or(entry.outcome.words());
            pending.failure.get_or_insert_with(|| format!("{}: {why}", entry.interface));
        }
        self.settle(entry.ended_at);
    }

    /// Ends a change whose switches all are over.
    pub fn settle(&mut self, now: Timestamp) {
        let Some(pending) = self.pending.take_if(|pending| pending.waits.is_empty()) else { return };
        match (pending.change, pending.failure) {
            (Change::Begin, None) => self.began_at = Some(now),
            (Change::Begin, Some(failure)) => {
                (self.ended_at, self.failure) = (Some(now), Some(failure));
            }
            (Change::Share { .. } | Change::End(_), Some(failure)) => self.failure = Some(failure),
            (Change::Share { percent, moved }, None) => {
                (self.percent, self.failure) = (percent, None);
                for (name, arm) in moved {
                    if let Some(member) = self.members.get_mut(&name) {
                        *member = Member::new(arm, member.a.clone(), member.b.clone());
                    }
                }
            }
            (Change::End(arm), None) => {
                (self.ended_at, self.kept, self.failure) = (Some(now), Some(arm), None);
            }
        }
    }
}
