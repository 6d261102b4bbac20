//! What the hub shows of itself: metrics and status.

pub mod alerts;
pub mod metrics;
pub mod stats;
pub mod status;
