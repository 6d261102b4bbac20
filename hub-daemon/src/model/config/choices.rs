//! Choices that `hub.yaml` offers, as written and as meant.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which of several personas that take one range has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RoutePriority {
    /// The one that ends first: it is laid over what stays. One without an end comes last.
    #[default]
    EarliestExpiry,
    /// The one that ends last, for stability. One without an end comes first.
    LatestExpiry,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// The hub cannot do its job.
    Error,
    /// Someone should look.
    Warn,
    /// A document or state changed.
    #[default]
    Info,
    /// Steps.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// As filters spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}
