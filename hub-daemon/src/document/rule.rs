//! One entry of `security_policies`, as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::parts::{OneOrMany, Scalar, TcpFlagsDocument};
use super::qos::PriorityDocument;
use crate::model::policy::Action;

/// A rule; the first of its direction that matches a packet decides. A field left out matches all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleDocument {
    /// Name for people; shown in counters and events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Packets towards members (`ingress`, the default), from members (`egress`), or `both`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<DirectionDocument>,
    /// Protocol name, number 0–255, or `any`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Scalar>,
    /// Target port: a number, a range like `80-90`, or a list of those. Without `protocol` it means
    /// TCP, UDP and SCTP, as far as they are permitted.
    #[serde(default, skip_serializing_if = "Option::is_none", alias = "ports")]
    pub port: Option<OneOrMany<Scalar>>,
    /// Source port, in the same forms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<OneOrMany<Scalar>>,
    /// Prefix or list of prefixes that the packet comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<OneOrMany<String>>,
    /// Prefix or list of prefixes that the packet goes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<OneOrMany<String>>,
    /// ICMP type: a number, or a name like `echo-request`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<Scalar>,
    /// ICMP code: a number, or a name like `port-unreachable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_code: Option<Scalar>,
    /// TCP flags, for example `syn,!ack`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_flags: Option<TcpFlagsDocument>,
    /// What to do with a packet that matches.
    pub action: Action,
    /// Whether matches are reported as events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<bool>,
    /// Code point that packets of the connections get which the rule admits, both ways: `EF`, `AF41`, 0–63.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dscp: Option<Scalar>,
    /// Class of traffic of those packets inside the persona's bandwidth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<PriorityDocument>,
}

/// Which way packets go that a rule looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DirectionDocument {
    /// Towards members of the persona.
    #[default]
    Ingress,
    /// From members of the persona.
    Egress,
    /// Either.
    Both,
}
