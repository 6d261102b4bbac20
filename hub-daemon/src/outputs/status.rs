//! The hub's own condition as `GET /status` and `hubctl status` show it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::datapath_view::FlowTable;
use crate::outputs::stats::{ReconcileStats, TableView};
use crate::view::switch::InterfaceState;
use crate::view::{Condition, PersonaState, Snapshot};

/// The hub at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StatusView {
    /// Version of `hubd`.
    pub version: String,
    /// Whether the kernel was equal to the documents at least once.
    pub ready: bool,
    /// When `hubd` started.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// Number of personas by state.
    pub personas: BTreeMap<String, u64>,
    /// Number of interfaces with personalities by state; those without any are left out.
    #[serde(default)]
    pub interfaces: BTreeMap<String, u64>,
    /// When the documents were last read without error.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub documents_read: Option<Timestamp>,
    /// Error of the last failed read of the documents, if it is newer than the last good one.
    pub documents_error: Option<String>,
    /// Fall-backs taken and faults.
    pub conditions: Vec<Condition>,
    /// Where the hub's programs are.
    pub attachments: Vec<Attachment>,
    /// What keeps bandwidths: `htb` or `edt`.
    #[serde(default)]
    pub qos_engine: String,
    /// How full the flow table is.
    pub flow_table: FlowTable,
    /// When the kernel last equalled what is wanted.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub reconciled_at: Option<Timestamp>,
    /// What reconciling did, by kernel table.
    pub tables: Vec<TableView>,
}

/// One program on one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Attachment {
    /// Name of the interface.
    pub interface: String,
    /// Its index.
    pub ifindex: u32,
    /// `uplink`, `segment` or `tunnel`.
    pub role: String,
    /// `xdp_in`, `tc_in` or `tc_out`.
    pub hook: String,
    /// How it is attached: `tcx`, `clsact`, `native`, `generic`.
    pub mode: String,
    /// Number of the program in the kernel.
    pub program_id: u32,
}

/// Name of a state, as JSON and metrics spell it.
pub fn state_name(state: PersonaState) -> &'static str {
    match state {
        PersonaState::Pending => "pending",
        PersonaState::Provisioning => "provisioning",
        PersonaState::Active => "active",
        PersonaState::Expiring => "expiring",
        PersonaState::Expired => "expired",
        PersonaState::Deleting => "deleting",
        PersonaState::Failed => "failed",
        PersonaState::Elsewhere => "elsewhere",
    }
}

/// Name of an interface's state, as JSON and metrics spell it.
pub fn interface_state_name(state: InterfaceState) -> &'static str {
    match state {
        InterfaceState::Active => "active",
        InterfaceState::Draining => "draining",
        InterfaceState::Applying => "applying",
        InterfaceState::Verifying => "verifying",
        InterfaceState::AwaitingConfirm => "awaiting_confirm",
        InterfaceState::Fallback => "fallback",
        InterfaceState::Degraded => "degraded",
    }
}

/// Every state of interfaces.
pub const INTERFACE_STATES: [InterfaceState; 7] = [
    InterfaceState::Active,
    InterfaceState::Draining,
    InterfaceState::Applying,
    InterfaceState::Verifying,
    InterfaceState::AwaitingConfirm,
    InterfaceState::Fallback,
    InterfaceState::Degraded,
];

/// Number of personas by state, every state included.
pub fn count_states(snapshot: &Snapshot) -> BTreeMap<&'static str, u64> {
    let states = [
        PersonaState::Pending,
        PersonaState::Provisioning,
        PersonaState::Active,
        PersonaState::Expiring,
        PersonaState::Expired,
        PersonaState::Deleting,
        PersonaState::Failed,
        PersonaState::Elsewhere,
    ];
    let mut counts: BTreeMap<&str, u64> = states.into_iter().map(|state| (state_name(state), 0)).collect();
    for persona in snapshot.personas.values() {
        *counts.entry(state_name(persona.state)).or_default() += 1;
    }
    counts
}

fn count_interfaces(snapshot: &Snapshot) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for interface in snapshot.interfaces.values() {
        *counts.entry(interface_state_name(interface.state).to_owned()).or_default() += 1;
    }
    counts
}

impl StatusView {
    /// Puts together what is known.
    pub fn new(
        snapshot: &Snapshot,
        started_at: Timestamp,
        attachments: Vec<Attachment>,
        flow_table: FlowTable,
        reconcile: &ReconcileStats,
    ) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ready: snapshot.ready,
            started_at,
            personas: count_states(snapshot).into_iter().map(|(state, n)| (state.to_owned(), n)).collect(),
            interfaces: count_interfaces(snapshot),
            documents_read: snapshot.documents_read,
            documents_error: snapshot.documents_error.clone(),
            conditions: snapshot.conditions.clone(),
            attachments,
            qos_engine: snapshot.qos.name().to_owned(),
            flow_table,
            reconciled_at: reconcile.last_success(),
            tables: reconcile.tables(),
        }
    }
}
