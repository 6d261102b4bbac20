//! What the outside may see of the hub: values made for reading, published after every change.

pub mod experiment;
pub mod switch;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::desired::shared_map::SharedMap;
use crate::document::node::NodeRole;
use crate::document::persona::PersonaDocument;
use crate::document::template::Templates;
use crate::model::life::Limits;
use crate::model::nodes::OtherNode;
use crate::model::personality::Version;
use crate::model::qos::Engine;
use crate::model::{PersonaId, SegmentId};
use crate::systems::experiment::Experiment;
use crate::systems::persona::lists::Lists;
use crate::systems::personality::switch::OperationId;
use switch::{InterfaceView, OperationView, PersonalityView};

/// All personas and the hub's own condition at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Personas by id.
    pub personas: SharedMap<PersonaId, Arc<PersonaView>>,
    /// Conditions of the hub itself: fall-backs taken, faults.
    pub conditions: Vec<Condition>,
    /// When the documents were last read without error.
    pub documents_read: Option<Timestamp>,
    /// Error of the last failed read of the documents, if it is newer than the last good one.
    pub documents_error: Option<String>,
    /// Whether the kernel was equal to the documents at least once.
    pub ready: bool,
    /// Where ranges are taken from.
    pub pools: Vec<PoolView>,
    /// What makes packets of limited personas wait.
    pub qos: Engine,
    /// What personas may be made of.
    pub templates: Templates,
    /// Personalities by version.
    pub personalities: BTreeMap<Version, Arc<PersonalityView>>,
    /// Interface records by name.
    pub interfaces: BTreeMap<String, Arc<InterfaceView>>,
    /// Switches, under way and over, the last ones of them.
    pub operations: BTreeMap<OperationId, Arc<OperationView>>,
    /// Experiments by name.
    pub experiments: BTreeMap<String, Arc<Experiment>>,
    /// What this hub is, and how full.
    pub node: NodeView,
    /// The hub's limits of lives.
    pub life: Limits,
    /// The other hubs.
    pub nodes: Arc<[OtherNode]>,
    /// TCP connections that pass the hub in one direction only, by segment, where there are any.
    pub one_sided: BTreeMap<SegmentId, u64>,
}

impl Snapshot {
    /// Segments of all personas that are in the data path.
    pub fn segments(&self) -> Vec<SegmentId> {
        self.personas.values().filter_map(|persona| persona.in_datapath()).collect()
    }
}

/// What a hub is among several, and how full.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeView {
    /// `node.name`; a hub without one cannot be chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether personas may choose it.
    pub role: NodeRole,
    /// What personas choose it by.
    pub labels: BTreeMap<String, String>,
    /// Whether its kernel holds what its documents say.
    pub ready: bool,
    /// How much it takes on.
    pub capacity: NodeRoom,
    /// How much lives there.
    pub used: NodeRoom,
    /// How much more it takes on.
    pub free: NodeRoom,
    /// State there of the persona that was asked for by name, if it knows one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persona: Option<PersonaState>,
}

/// An amount of what hubs take on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeRoom {
    /// Personas that live there.
    pub personas: u64,
    /// Sum of their `qos.bandwidth` towards members, bits per second; absent where there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_bps: Option<u64>,
    /// Sum of their `qos.bandwidth` from members, bits per second; absent where there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_bps: Option<u64>,
}

/// Prefixes that ranges are taken from, and what was taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PoolView {
    /// Name in `hub.yaml`.
    pub name: String,
    /// Its prefixes.
    pub prefixes: Vec<String>,
    /// How long a range rests before another persona gets it.
    pub quarantine_seconds: u64,
    /// Ranges that personas have.
    pub allotted: Vec<PoolRange>,
    /// Ranges that rest.
    pub resting: Vec<String>,
    /// Part of the IPv4 addresses that personas have or that rest, 0 to 1.
    pub used_ipv4: f64,
    /// Part of the IPv6 addresses that personas have or that rest, 0 to 1.
    pub used_ipv6: f64,
}

/// A range out of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolRange {
    /// The range.
    pub range: String,
    /// Name of the persona that has it.
    pub persona: String,
}

/// One persona as `GET` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PersonaView {
    /// Never changes, never used again.
    pub id: PersonaId,
    /// State of its life.
    pub state: PersonaState,
    /// Counts changes of the definition, from 1.
    pub generation: u64,
    /// The prefixes it has, those that the hub chose included.
    #[serde(default)]
    pub ranges: Vec<String>,
    /// Index in the data path's tables; 0 if nothing of it is there.
    pub segment: SegmentId,
    /// When it was admitted.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it ends.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
    /// Who owns the definition.
    pub origin: Origin,
    /// Ranges of the definition that everybody but members knows under other addresses, with those.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    pub virtual_ranges: BTreeMap<IpNet, IpNet>,
    /// Ranges that personas which have them too know under other addresses, with those.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    pub aliases: BTreeMap<IpNet, IpNet>,
    /// Its ranges that other personas took for their lives; others reach them by `virtual_ranges` meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overridden: Vec<OverriddenView>,
    /// Addresses of endpoints by name, as members know them.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, Vec<String>>)]
    pub members: BTreeMap<String, Vec<IpAddr>>,
    /// The definition, as given, with defaults filled in.
    pub definition: PersonaDocument,
    /// Things to know: what is not enforced, what is missing, what failed.
    pub conditions: Vec<Condition>,
    /// Lint: legal, but probably not meant.
    pub warnings: Vec<String>,
    /// Where each rule came from, by position in `security_policies`: `FILE:LINE` or `api`.
    pub rule_sources: Vec<String>,
    /// A definition on trial, or the last one that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<CandidateView>,
    /// What was put into sets and quarantine at run time; has routes of its own.
    #[serde(skip)]
    #[schema(ignore)]
    pub lists: Lists,
}

impl PersonaView {
    /// Its index in the data path's tables, if it is there.
    pub fn in_datapath(&self) -> Option<SegmentId> {
        Some(self.segment).filter(|segment| *segment != SegmentId::default())
    }
}

/// A range that another persona took with `overlap: override`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OverriddenView {
    /// The range.
    #[schema(value_type = String)]
    pub range: IpNet,
    /// Name of the persona.
    pub by: String,
    /// When that one ends.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub until: Option<Timestamp>,
}

/// A definition whose policy is judged beside the live one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CandidateView {
    /// Whether packets are being judged by it.
    pub running: bool,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub began_at: Timestamp,
    /// When it ends, or ended.
    #[schema(value_type = String, format = DateTime)]
    pub ends_at: Timestamp,
    /// The definition, as given, with defaults filled in.
    pub definition: PersonaDocument,
}

/// State of a persona's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PersonaState {
    /// Admitted; nothing was done about it yet.
    Pending,
    /// On its way into the kernel.
    Provisioning,
    /// In the kernel, packets pass as its policy says.
    Active,
    /// It lives on another hub; nothing of it is in this kernel.
    Elsewhere,
    /// Its deadline has passed; connections that exist may end.
    Expiring,
    /// Its deadline has passed; kept for reading only.
    Expired,
    /// To be deleted once connections that exist had time to end.
    Deleting,
    /// The kernel refused part of it; nothing of it passes packets.
    Failed,
}

impl PersonaState {
    /// Whether it lives, and on this hub.
    pub const fn is_here(self) -> bool {
        !matches!(self, Self::Expired | Self::Elsewhere)
    }
}

/// Who owns a definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase", tag = "by")]
pub enum Origin {
    /// REST or `hubctl create`.
    Api,
    /// A document in the documents folder; the API may not change it.
    File {
        /// The file.
        #[schema(value_type = String)]
        path: PathBuf,
        /// Line of the document, from 1.
        line: u32,
    },
    /// The record of an interface, whose personality the persona carries.
    Interface,
}

/// Something an operator should know of a persona or of the hub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Condition {
    /// What it is about, one word in CamelCase, for example `InterfaceMissing`.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}
