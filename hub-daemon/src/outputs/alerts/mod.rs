//! Alerts: looks at the counters once a second, and tells log, event stream, webhooks and metrics what turned.
//!
//! What an alert does next is decided in [`crate::model::alert`]; [`engine`] keeps the stands, `readings`
//! turns counters into values, [`webhook`] delivers, [`watch`] is the task with the clock.

pub mod engine;
mod file;
mod late;
mod outbox;
mod readings;
mod recent;
mod total;
pub mod watch;
pub mod webhook;

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::outputs::stats::Count;

/// What readers know of alerts.
#[derive(Clone, Debug)]
pub struct Alerts {
    /// Every alert, of the hub and of personas.
    pub views: tokio::sync::watch::Receiver<Arc<Vec<AlertView>>>,
    /// What webhooks did.
    pub deliveries: Arc<Deliveries>,
}

/// Counts of what webhooks did.
#[derive(Debug, Default)]
pub struct Deliveries {
    /// Taken by the receiver.
    pub delivered: Count,
    /// Given up after the last try.
    pub failed: Count,
    /// Thrown away because too many waited.
    pub dropped: Count,
}

/// One alert at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AlertView {
    /// Persona; absent for alerts of the hub.
    pub persona: Option<String>,
    /// Name of the alert.
    pub alert: String,
    /// `ok`, `pending`, `firing` or `resolved`.
    pub state: String,
    /// Since when, unless it is ok.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
    /// What it looks at.
    pub metric: String,
    /// Which part of it.
    pub of: Option<String>,
    /// How it compares with the threshold when something is wrong.
    pub op: String,
    /// The threshold.
    pub threshold: f64,
    /// The last value; absent until there is one.
    pub value: Option<f64>,
}

/// An alert fired, or ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AlertEvent {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// Persona; absent for alerts of the hub.
    pub persona: Option<String>,
    /// Name of the alert.
    pub alert: String,
    /// `firing` or `resolved`.
    pub state: String,
    /// What it looks at.
    pub metric: String,
    /// Which part of it.
    pub of: Option<String>,
    /// How it compares with the threshold when something is wrong.
    pub op: String,
    /// The threshold.
    pub threshold: f64,
    /// The value that turned it; absent when nothing is looked at any more.
    pub value: Option<f64>,
    /// A sentence.
    pub message: String,
}
