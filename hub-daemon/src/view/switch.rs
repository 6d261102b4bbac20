//! What the outside may see of personalities, interface records and switches.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Condition, Origin};
use crate::command::switch::{Connection, FlowCount};
use crate::datapath_view::Impacts;
use crate::desired::interfaces::Place;
use crate::document::interface::InterfaceRecordDocument;
use crate::document::personality::{PersonalityDocument, ScopeDocument};
use crate::kernel::impacted::Change;
use crate::model::check::{CheckAsked, CheckResult};
use crate::model::personality::{Digest, Drain, Version};
use crate::model::policy::Policy;
use crate::model::set::{self, Elements};
use crate::model::{PersonaId, SegmentId};
use crate::systems::personality::operation::{Outcome, PhaseDone};
use crate::systems::personality::probes::InForce;
use crate::systems::personality::switch::{OperationId, Phase};

/// One version of a personality.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PersonalityView {
    /// Name and number, like `web@3`.
    #[schema(value_type = String)]
    pub version: Version,
    /// SHA-256 of the definition in its normal form.
    pub digest: Digest,
    /// When it was kept.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Who owns it.
    pub origin: Origin,
    /// The definition in its normal form.
    pub definition: PersonalityDocument,
    /// Compiled rules towards the interface and from it.
    pub compiled_rules: [usize; 2],
    /// Names of interfaces that have it, or go to it in some case.
    pub used_by: BTreeSet<String>,
}

/// What an interface is doing about its personality.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum InterfaceState {
    /// It has the personality that was wanted.
    Active,
    /// Connections end before a switch.
    Draining,
    /// A switch is prepared, made or taken back.
    Applying,
    /// A switch was made and is checked.
    Verifying,
    /// A switch waits for somebody to keep it.
    AwaitingConfirm,
    /// It has its default personality, because another one could not be had.
    Fallback,
    /// It has none that works: only failsafe ports are open.
    Degraded,
}

/// One interface record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InterfaceView {
    /// Name of the record.
    pub name: String,
    /// What the interface is doing about its personality.
    pub state: InterfaceState,
    /// The personality that it has.
    #[schema(value_type = String)]
    pub current: Version,
    /// Digest of that.
    pub digest: Digest,
    /// The one before.
    #[schema(value_type = Option<String>)]
    pub previous: Option<Version>,
    /// The last one that was verified and stayed healthy.
    #[schema(value_type = Option<String>)]
    pub last_known_good: Option<Version>,
    /// The one for the case that nothing else works.
    #[schema(value_type = Option<String>)]
    pub default: Option<Version>,
    /// When it goes back to the one before.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub until: Option<Timestamp>,
    /// Its threat level, where it has zones.
    pub level: Option<String>,
    /// The persona that carries the personality: its flows and counters are the interface's.
    pub persona: PersonaId,
    /// Index of that in the data path.
    pub segment: SegmentId,
    /// When the record was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Who owns it.
    pub origin: Origin,
    /// The record, as given.
    pub definition: InterfaceRecordDocument,
    /// The switch that is under way.
    pub operation: Option<OperationView>,
    /// The last answers to its checks.
    pub checks: Vec<CheckResult>,
    /// Things to know.
    pub conditions: Vec<Condition>,
    /// Where it is.
    #[serde(skip)]
    #[schema(ignore)]
    pub place: Option<Place>,
    /// The tunnel of the personality that decides, where it is in a namespace of others.
    #[serde(skip)]
    #[schema(ignore)]
    pub tunnel: Option<TunnelView>,
    /// What its packets are to be judged by; absent while it is shut.
    #[serde(skip)]
    #[schema(ignore)]
    pub in_force: Option<InForce>,
    /// What the hub wants to know of it.
    #[serde(skip)]
    #[schema(ignore)]
    pub wants: Vec<Wanted>,
}

/// A tunnel, as far as questions about packets in it need to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelView {
    /// Name of its device.
    pub link: String,
    /// Addresses on this side of it: the interface's and its own.
    pub addresses: BTreeSet<IpAddr>,
}

/// A question of the hub: who can see the answer tells it, with the ticket.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Another question has another ticket.
    pub ticket: u64,
    /// The question.
    pub question: Question,
}

/// What the hub wants to know of an interface.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// The answers to these checks, once, or again and again with pauses.
    Checks {
        /// The checks.
        asked: Vec<CheckAsked>,
        /// Time between two rounds; `None` for one.
        every: Option<Duration>,
        /// Addresses that they come from; without any the kernel chooses.
        from: Vec<IpAddr>,
    },
    /// How many flows the candidate of a segment would end, again and again until the question goes.
    Flows {
        /// The segment.
        segment: SegmentId,
        /// What they will be judged by.
        judged: Judged,
        /// Whether the switch goes on by the answer; else it is for the journal.
        awaited: bool,
    },
}

/// One switch, under way or over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OperationView {
    /// Identity.
    pub id: OperationId,
    /// The group that it is one of.
    pub group: Option<OperationId>,
    /// Name of the interface's record.
    pub interface: String,
    /// Who ordered it.
    pub by: String,
    /// Why.
    pub why: String,
    /// What it comes from.
    #[schema(value_type = String)]
    pub from: Version,
    /// What it goes to.
    #[schema(value_type = String)]
    pub to: Version,
    /// Where it is; absent when it is over.
    pub phase: Option<Phase>,
    /// When that phase is given up.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub deadline: Option<Timestamp>,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub began_at: Timestamp,
    /// When it was over.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
    /// Phases that are over.
    pub phases: Vec<PhaseDone>,
    /// Flows as they were counted last before the flip, or beside it where it did not wait for that.
    pub flows: Option<FlowCount>,
    /// The last answers to checks.
    pub checks: Vec<CheckResult>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// What went wrong, if something did.
    pub failure: Option<String>,
}

/// What a switch would do.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct PlanView {
    /// Name of the interface's record.
    pub interface: String,
    /// What it comes from.
    #[schema(value_type = String)]
    pub from: Version,
    /// What it goes to.
    #[schema(value_type = String)]
    pub to: Version,
    /// What differs between the two definitions, by JSON pointer.
    pub differences: Vec<String>,
    /// Addresses that it would get.
    #[schema(value_type = Vec<String>)]
    pub addresses_added: Vec<IpNet>,
    /// Addresses that it would lose.
    #[schema(value_type = Vec<String>)]
    pub addresses_removed: Vec<IpNet>,
    /// Checks that would have to succeed, in words.
    pub checks: Vec<String>,
    /// Index of the carrier in the data path.
    pub segment: SegmentId,
    /// What it would mean for connections, where the data path can be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<Impacts>,
    /// What connections would be judged by.
    #[serde(skip)]
    #[schema(ignore)]
    pub judged: Judged,
}

/// What connections are judged by when a switch is planned, and when it waits for some of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// The rules.
    pub policy: Arc<Policy>,
    /// How many of them, in front of the others, no document says.
    pub inserted: u16,
    /// Elements of their sets, by number.
    pub sets: BTreeMap<u32, Arc<Elements>>,
    /// How connections end.
    pub drain: Drain,
    /// Protocols and ports that stay reachable.
    pub failsafe: BTreeSet<(u8, u16)>,
    /// The connection that the switch is ordered by: nobody waits for its end.
    pub exempt: Option<Connection>,
}

impl Judged {
    /// Whether connections are waited for that would go on.
    pub fn waits_for_all(&self) -> bool {
        self.drain.scope == ScopeDocument::All
    }

    /// Asks what they mean for the connections of a segment at a time.
    pub fn ask<T>(&self, segment: SegmentId, now: Timestamp, ask: impl FnOnce(&Change<'_>) -> T) -> T {
        ask(&Change {
            segment,
            policy: &self.policy,
            inserted: self.inserted,
            in_set: &|number, address| {
                self.sets.get(&number).is_some_and(|held| set::holds(held, address, now))
            },
            idle_cutoff: self.drain.idle_cutoff,
            drain_udp: self.drain.udp,
            failsafe: &self.failsafe,
            exempt: self.exempt,
            now,
        })
    }
}
