//! `alerts` of a persona and of `hub.yaml`: thresholds on what is counted, and where to tell.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::parts::Scalar;

/// A threshold. In `hub.yaml` it is on the sum over all personas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AlertDocument {
    /// Unique among the alerts of its document; default: the metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What is looked at, once a second.
    pub metric: MetricDocument,
    /// Which part of the metric: the reason of `drops`, the rule of `rule_hits` by position, the detector of
    /// `detections`, `ingress` or `egress` of `queue_delay`; default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<Scalar>,
    /// How it compares with `value` when something is wrong; default `>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<OpDocument>,
    /// The threshold: a number, or for bits per second a bandwidth like `80Mbps`, for milliseconds a time like
    /// `20ms`.
    pub value: Scalar,
    /// How long it must stay beyond the threshold: `30s`; default: one look.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub lasting: Option<String>,
    /// The alert ends when it compares no more with this value; default: the threshold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clear: Option<Scalar>,
}

/// What an alert looks at. Ingress is towards members.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum MetricDocument {
    /// Bits per second that passed towards members.
    IngressBps,
    /// Bits per second that passed from members.
    EgressBps,
    /// Packets per second that passed towards members.
    IngressPps,
    /// Packets per second that passed from members.
    EgressPps,
    /// Connections in the flow table.
    Flows,
    /// Connections that began, per second.
    NewFlows,
    /// Packets dropped per second, of one reason or of all.
    Drops,
    /// Packets per second that a rule judged.
    RuleHits,
    /// Times that a detector fired in the last minute.
    Detections,
    /// Milliseconds within which 95 of a hundred TCP handshakes of the last minute were done; 0 without any.
    RttP95,
    /// Milliseconds that packets wait for their bandwidth, in the direction where it is longer.
    QueueDelay,
}

/// How a value compares with a threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub enum OpDocument {
    /// Greater.
    #[default]
    #[serde(rename = ">")]
    Above,
    /// Greater or equal.
    #[serde(rename = ">=")]
    AtLeast,
    /// Smaller.
    #[serde(rename = "<")]
    Below,
    /// Smaller or equal.
    #[serde(rename = "<=")]
    AtMost,
}

/// Who is told of alerts by `POST`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookDocument {
    /// `http://HOST[:PORT]/PATH`, or `https://…` with `ca`.
    pub url: String,
    /// File with the key of the signature: HMAC-SHA256 of the body in `X-Hub-Signature-256`.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// PEM file with the authority of the receiver's certificate.
    #[serde(default)]
    pub ca: Option<PathBuf>,
}
