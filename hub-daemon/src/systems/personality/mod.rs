//! Personalities of interfaces: their versions, the interfaces' records, switches, and what these contribute.
//!
//! What a personality says of packets is said by a persona, the carrier; see
//! [`crate::model::personality::Personality::carrier`]. Here is the rest.

pub mod checks;
pub mod contribute;
pub mod health;
pub mod lookups;
pub mod operation;
pub mod probes;
pub mod seat;
pub mod switch;
pub mod versions;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::command::switch::Connection;
use crate::desired::interfaces::Slot;
use crate::document::interface::InterfaceRecordDocument;
use crate::model::PersonaId;
use crate::model::interface::InterfaceRecord;
use crate::model::personality::{Personality, Version};
use crate::model::policy::Policy;
use crate::view::Origin;
use health::Health;
use switch::{Cause, OperationId, Phase, Switch};

/// Everything the hub knows of one interface with personalities.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The record, checked.
    pub settings: Arc<InterfaceRecord>,
    /// The record, as given.
    pub document: Arc<InterfaceRecordDocument>,
    /// Who owns it.
    pub origin: Origin,
    /// When it was made.
    pub created_at: Timestamp,
    /// The persona that carries its personality.
    pub carrier: PersonaId,
    /// What is told to the kernel.
    pub layout: Layout,
    /// The personalities of the layout as they are on this interface, where that differs.
    pub worn: BTreeMap<Version, Arc<Personality>>,
    /// What packets are judged by when the time of a temporary personality is over and what that goes back to is not
    /// in a slot.
    pub held: Option<Arc<Policy>>,
    /// Connections that switches to versions of the layout were ordered by, which those let go on.
    pub spared: BTreeMap<Version, Connection>,
    /// The personality that it has: the last one that a switch was done with.
    pub current: Version,
    /// The one before.
    pub previous: Option<Version>,
    /// The last one that was verified and stayed healthy.
    pub last_known_good: Option<Version>,
    /// How well it is off without a switch.
    pub standing: Standing,
    /// The switch that is under way.
    pub switch: Option<Switch>,
    /// Personalities that were given up for one that was not beside them: until the other slot would be emptied their
    /// addresses are refused, so that who is connected there is told.
    pub departed: Vec<Version>,
    /// When the other slot is emptied.
    pub retires_at: Option<Timestamp>,
    /// When it goes back by itself.
    pub temporary: Option<Temporary>,
    /// How its checks came out.
    pub health: Health,
    /// Its threat level.
    pub level: Option<Level>,
    /// Of what is asked about it: answers to another ticket are old.
    pub ticket: u64,
}

/// Which personalities are in the slots of an interface: one that decides, and one beside it that was prepared
/// or is kept. Everything that is told to the kernel follows from this, so that it is never of both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// The slot that decides.
    pub slot: Slot,
    /// The personality in it.
    pub live: Version,
    /// The personality in the other slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other: Option<Version>,
}

impl Layout {
    /// The same personalities, with the other one deciding.
    #[must_use]
    pub fn flipped(&self) -> Option<Self> {
        let live = self.other.clone()?;
        Some(Self { slot: self.slot.other(), live, other: Some(self.live.clone()) })
    }

    /// Whether a personality is in one of the slots.
    pub fn holds(&self, version: &Version) -> bool {
        self.live == *version || self.other.as_ref() == Some(version)
    }

    /// The same, with something else in the other slot.
    #[must_use]
    pub fn with(&self, other: Option<Version>) -> Self {
        Self { other, ..self.clone() }
    }
}

/// How well an interface is off without a switch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It has what was wanted.
    #[default]
    Active,
    /// It has its default.
    Fallback,
    /// Nothing works: its packets are refused.
    Degraded,
}

/// A switch that goes back by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Temporary {
    /// When.
    pub until: Timestamp,
    /// To what.
    pub back: Version,
    /// The switch.
    pub operation: OperationId,
    /// When the way back is tried again, if it could not begin in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tries_at: Option<Timestamp>,
}

impl Temporary {
    /// When the way back begins.
    pub fn due(&self) -> Timestamp {
        self.tries_at.map_or(self.until, |at| at.max(self.until))
    }
}

/// The threat level of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Level {
    /// The level that it follows; none, as long as it could follow none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Another one that it follows then: a lower one, if it stays so, or one that could not be followed at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub falls: Option<(String, Timestamp)>,
    /// Who told it that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// When it went down, the last times.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fell: Vec<Timestamp>,
}

impl Level {
    /// The soonest time, from now on, that it may go down, whatever `hysteresis` says.
    pub fn may_fall_at(&self, now: Timestamp) -> Timestamp {
        health::soonest(&self.fell, now)
    }

    /// Notes that it goes down.
    pub fn falls_now(&mut self, now: Timestamp) {
        health::note(&mut self.fell, now);
    }
}

impl Record {
    /// When time alone changes what is wanted of it.
    pub fn deadline(&self) -> Option<Timestamp> {
        let of_switch = self.switch.as_ref().and_then(|switch| switch.deadline);
        let falls = self.level.as_ref().and_then(|level| level.falls.as_ref().map(|(_, at)| *at));
        let until = self.temporary.as_ref().map(Temporary::due);
        // While a switch is under way nothing else begins.
        let otherwise = [self.retires_at, falls, until, self.health.deadline()].into_iter().flatten();
        match &self.switch {
            Some(_) => of_switch,
            None => otherwise.min(),
        }
    }

    /// When a phase of the switch that is under way is given up, however long it may take: with the time of what the
    /// switch comes from until the flip, with its own from then on.
    pub fn given_up_at(&self, phase: Phase, now: Timestamp) -> Option<Timestamp> {
        let switch = self.switch.as_ref()?;
        if phase.is_before_flip() {
            let until = self.temporary.as_ref()?.until;
            // The hub's own are in a hurry anyway; and one that is ordered afterwards makes up for a way back that
            // cannot begin.
            (switch.cause == Cause::Ordered && until > now).then_some(until)
        } else {
            switch.lasts_until().filter(|_| phase.goes_on())
        }
    }
}
