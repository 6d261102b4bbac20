//! What the hub shows of itself: metrics, status, names.

pub mod metrics;
pub mod names;
pub mod stats;
pub mod status;
