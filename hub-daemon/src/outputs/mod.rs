//! What the hub shows of itself: metrics, status, names.

pub mod alerts;
pub mod metrics;
pub mod names;
pub mod stats;
pub mod status;
pub mod switches;
