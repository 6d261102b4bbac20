//! Where requests come from: bytes become a [`Command`], nothing is decided here.
//!
//! [`HubHandle`] is all that an input knows of the hub: it sends commands to the one task that owns the
//! state, and reads the snapshots that this task publishes. Handles are cheap to clone.

pub mod datapath;
pub mod plan;
pub mod reload;
pub mod rest;
pub mod server;
pub mod trace;

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::command::{Command, Rejection, Reply};
use crate::datapath_view::EventView;
use crate::outputs::alerts::Alerts;
use crate::outputs::stats::ReconcileStats;
use crate::outputs::status::Attachment;
use crate::outputs::switches::SwitchLog;
use crate::view::Snapshot;

use self::datapath::Datapath;
use self::reload::ReloadRequest;
use self::trace::Tracer;

/// A command with the place for its answer. The snapshot is published before the answer is sent, so that
/// who changed something reads the change.
pub type CommandRequest = (Command, oneshot::Sender<Result<Reply, Rejection>>);

/// All that an input knows of the hub.
#[derive(Clone, Debug)]
pub struct HubHandle {
    /// To the task that owns the hub.
    pub commands: mpsc::Sender<CommandRequest>,
    /// The state after the last command.
    pub snapshot: watch::Receiver<Arc<Snapshot>>,
    /// Events as they happen; slow readers lose the oldest and are told how many.
    pub events: broadcast::Sender<EventView>,
    /// Counters, flows and verdicts.
    pub datapath: Arc<dyn Datapath>,
    /// To the task that reads the documents folder.
    pub reload: mpsc::Sender<ReloadRequest>,
    /// Where the hub's programs are.
    pub attachments: watch::Receiver<Vec<Attachment>>,
    /// What reconciling did.
    pub reconcile: Arc<ReconcileStats>,
    /// What became of switches.
    pub switches: Arc<SwitchLog>,
    /// Thresholds, and what their webhooks did.
    pub alerts: Alerts,
    /// Starts traces.
    pub tracer: Arc<Tracer>,
    /// When the daemon started.
    pub started: Timestamp,
}
