//! `detectors` of a persona: what its packets are watched for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Detectors by name; one that is left out is off, one without settings has its defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DetectorsEach {
    /// Distinct target ports that one source tried; default 20 in 10s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_scan: Option<DetectorDocument>,
    /// Distinct targets that one source tried; default 100 in 10s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_sweep: Option<DetectorDocument>,
    /// TCP SYNs to one target; default 2000 in 1s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syn_flood: Option<DetectorDocument>,
    /// Pings of one source; default 200 in 1s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_flood: Option<DetectorDocument>,
    /// Packets of one source with TCP flags that no stack sends; default 5 in 10s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_flags: Option<DetectorDocument>,
    /// Packets whose source is their target, by port of the hub; default 1 in 10s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub land: Option<DetectorDocument>,
    /// Packets with a source of the persona from the wrong side, by port of the hub; default 10 in 10s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spoof: Option<DetectorDocument>,
    /// Fragments of one source that fit no packet or hide its ports; default 50 in 10s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fragments: Option<DetectorDocument>,
    /// Flows that one source began or tried to; default 1000 in 1s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow_rate: Option<DetectorDocument>,
}

/// When a detector fires, and what follows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DetectorDocument {
    /// Signs in a window at which it fires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<u64>,
    /// Length of a window, from the first sign on: `10s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<String>,
    /// What happens beside the event; default `alert`: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<ResponseDocument>,
    /// How long a quarantine lasts; default `10m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
}

/// What follows when a detector fires, beside the event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ResponseDocument {
    /// Nothing.
    #[default]
    Alert,
    /// New flows of the source (of `syn_flood`: connections to the target) are refused until the window ends.
    Drop,
    /// New flows of the source are refused for `ttl`.
    Quarantine,
}
