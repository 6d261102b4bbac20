//! One entry of `security_policies`, as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::parts::{OneOrMany, Scalar, TcpFlagsDocument};
use super::qos::PriorityDocument;
use super::signature::SignatureDocument;
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
    /// Prefix or list of prefixes that the packet comes from; `@NAME` is a set of the persona.
    #[serde(default, skip_serializing_if = "Option::is_none", alias = "source_ip")]
    pub source: Option<OneOrMany<String>>,
    /// Prefix or list of prefixes that the packet goes to; `@NAME` is a set of the persona.
    #[serde(default, skip_serializing_if = "Option::is_none", alias = "destination_ip")]
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
    /// What the connection must look like by its first bytes, which is known when it has sent them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<SignatureDocument>,
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
    /// When the rule ends: RFC 3339 with offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// Life of the rule from its admission on, instead of `expires_at`: `4h`. With `action: quarantine`:
    /// how long a source stays in quarantine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// With `action: rate_limit`: packets (or flows) per second like `100/s`, or bits like `10Mbps`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Scalar>,
    /// What may come at once: a number of packets (or flows), or bytes like `64kB`. Default: what comes in
    /// a second, of bits in a tenth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<Scalar>,
    /// What is limited: `flows`, new connections (the default), or `packets` (the default for bits).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<LimitDocument>,
    /// `source` gives each source a limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per: Option<PerDocument>,
    /// With `action: allow` or `rate_limit`: connections of one source that the rule lets be at once, 1 to 1000000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections_per_source: Option<u32>,
    /// In the hub's `baseline`: an allow that ends the questioning; without it the persona's rules are
    /// asked as well.
    #[serde(default, rename = "final", skip_serializing_if = "Option::is_none")]
    pub is_final: Option<bool>,
}

impl RuleDocument {
    /// A rule that matches everything.
    pub fn new(action: Action) -> Self {
        Self {
            name: None,
            direction: None,
            protocol: None,
            port: None,
            source_port: None,
            source: None,
            destination: None,
            icmp_type: None,
            icmp_code: None,
            tcp_flags: None,
            action,
            log: None,
            dscp: None,
            priority: None,
            expires_at: None,
            ttl: None,
            rate: None,
            burst: None,
            limit: None,
            per: None,
            max_connections_per_source: None,
            is_final: None,
            signature: None,
        }
    }
}

/// What a rate limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LimitDocument {
    /// Every packet that goes the way of the rule.
    Packets,
    /// New connections.
    Flows,
}

/// What has a limit of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PerDocument {
    /// Each source address.
    Source,
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
