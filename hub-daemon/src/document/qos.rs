//! `qos` of a persona, as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::parts::{BandwidthDocument, Scalar};

/// Quality of service. Source: persona `qos`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QosDocument {
    /// Bits per second, decimal multiples: `100Mbps`, `1.5Gbit`, `12.5MB/s`, or a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<BandwidthDocument>,
    /// What it may use of a link that others leave idle, in the forms of `bandwidth`; default: `bandwidth`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ceil: Option<BandwidthDocument>,
    /// Longest queueing delay that the hub may add: `50ms`, the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<String>,
    /// Code point that its packets get: a name like `EF`, `AF41`, `CS1`, or 0–63. Default: as they came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dscp: Option<Scalar>,
    /// Class of its packets that no rule gives another; default `normal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<PriorityDocument>,
    /// Whether packets above `bandwidth` are dropped instead of queued; default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub police: Option<bool>,
}

/// Class of traffic inside a persona; the first is served first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum PriorityDocument {
    /// Speech: before all others.
    Voice,
    /// Pictures.
    Video,
    /// What is nothing else.
    #[default]
    Normal,
    /// What can wait.
    Bulk,
}

impl PriorityDocument {
    /// Number in the data path: 0 is served first.
    pub fn number(self) -> u8 {
        match self {
            Self::Voice => 0,
            Self::Video => 1,
            Self::Normal => 2,
            Self::Bulk => 3,
        }
    }
}
