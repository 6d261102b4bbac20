//! What the outside may ask about personalities, interface records and switches.

use std::net::IpAddr;
use std::time::Duration;

use crate::document::interface::InterfaceRecordDocument;
use crate::document::personality::{DrainDocument, PersonalityDocument};
use crate::model::check::CheckResult;

/// Something about personalities.
#[derive(Clone, Debug)]
pub enum PersonalityCommand {
    /// Keep a personality; the same content again is the same version.
    Create {
        /// Its definition.
        document: Box<PersonalityDocument>,
    },
    /// Remove one version (`web@3`), or all of a name.
    Delete {
        /// Which.
        personality: String,
    },
}

/// Something about interface records.
#[derive(Clone, Debug)]
pub enum InterfaceCommand {
    /// Give an interface its first personality.
    Create {
        /// The record.
        document: Box<InterfaceRecordDocument>,
    },
    /// Give a record other settings; the interface itself, and what leads to it, stay.
    Replace {
        /// The record.
        document: Box<InterfaceRecordDocument>,
        /// Only if this is what the record says so far.
        if_document: Option<Box<InterfaceRecordDocument>>,
    },
    /// Forget an interface; its carrier goes, and with it what the hub put there.
    Delete {
        /// Name of the record.
        interface: String,
    },
}

/// Something about the personality that an interface has.
#[derive(Clone, Debug)]
pub enum SwitchCommand {
    /// Switch interfaces, all of them or none.
    Start(Vec<Order>),
    /// Say what a switch would do; changes nothing.
    Plan(Order),
    /// Go back to what was good last, or to the default; give up a switch that is under way.
    Revert(Said),
    /// Keep a switch that waits for confirmation.
    Confirm(Said),
    /// Give up a switch that has not flipped yet.
    Cancel(Said),
    /// The threat level of an interface with zones.
    Threat {
        /// Name of the record.
        interface: String,
        /// The level.
        level: String,
        /// Who says so.
        by: String,
    },
}

/// One switch, as it is ordered.
#[derive(Clone, Debug)]
pub struct Order {
    /// Name of the interface's record.
    pub interface: String,
    /// The personality, `NAME` or `NAME@VERSION`.
    pub to: String,
    /// Who orders it.
    pub by: String,
    /// Why, for people.
    pub why: String,
    /// How connections end, in place of what the personality says.
    pub drain: Option<DrainDocument>,
    /// Whether to flip at once: nothing is drained, and nothing compared with before.
    pub urgent: bool,
    /// It goes back unless it is confirmed within so long after it is verified.
    pub confirm_within: Option<Duration>,
    /// It goes back so long after the flip.
    pub lasts: Option<Duration>,
    /// The connection that it was ordered by.
    pub ordered_by: Option<Connection>,
}

/// Both ends of a connection of TCP, in no order.
pub type Connection = [(IpAddr, u16); 2];

/// A word about the switch of an interface.
#[derive(Clone, Debug)]
pub struct Said {
    /// Name of the interface's record.
    pub interface: String,
    /// Who says it.
    pub by: String,
    /// Why, for people.
    pub why: String,
}

/// What was seen of an interface.
#[derive(Clone, Debug)]
pub enum Observation {
    /// The answers to checks, in the order of the questions.
    Checks(Vec<CheckResult>),
    /// Flows that the other policy would end.
    Flows(FlowCount),
}

/// Flows of a segment, as a switch sees them.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema,
)]
pub struct FlowCount {
    /// Active ones that the switch waits for.
    pub active: u64,
    /// Those it would end that were silent for too long to be waited for.
    pub idle: u64,
    /// Those that live on.
    pub kept: u64,
}
