//! The persona document: the source's JSON, and what operators need beside it.
//!
//! The same structure comes as a REST body and as YAML with `kind: persona`. Fields that are left out
//! stay out when it is written again, so a stored definition can be merged with a patch.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::alert::AlertDocument;
use super::node::GatewayDocument;
use super::parts::{DetectorsDocument, InterfaceDocument, OneOrMany, Scalar};
use super::qos::QosDocument;
use super::rule::RuleDocument;
use super::service::ServiceDocument;
use crate::model::personality::Carried;

/// A network persona: address range, permitted protocols, rules, quality of service and an end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("required" = ["name"], "anyOf" = [
    {"required": ["ip_range"]},
    {"required": ["template"]},
    {"required": ["kind"], "properties": {"kind": {"const": "template"}}},
]))]
pub struct PersonaDocument {
    /// Kind of the document: `persona`, or `template` for fields that personas take by `template: NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<PersonaKind>,
    /// Unique name: 1–63 letters, digits, `-`, `_` or `.`, a letter or digit first.
    #[serde(default)]
    #[schema(required = true, example = "TempDevNetwork")]
    pub name: String,
    /// Prefix or prefixes in CIDR notation, IPv4 or IPv6, host bits zero; or `auto`, `auto/26`, `auto6/64`,
    /// `auto@POOL`: the hub chooses from its pools.
    #[serde(default)]
    #[schema(required = true, value_type = OneOrMany<String>)]
    pub ip_range: OneOrMany<String>,
    /// Template of the documents folder; what is left out here comes from it, and `ip_range` is `auto` then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// IP protocols that may pass at all, by name or number; default `[tcp, udp, icmp]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocols: Option<Vec<Scalar>>,
    /// Bandwidth, latency, code point and class of traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qos: Option<QosDocument>,
    /// Rules, first match wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_policies: Option<Vec<RuleDocument>>,
    /// When the persona ends: RFC 3339 with offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "2030-12-31T23:59:59Z")]
    pub expiration: Option<String>,
    /// Life from admission on, instead of `expiration`: `4h`, `2d12h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// Longest life from admission on, extensions included; it may be shortened later, not raised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ttl: Option<String>,
    /// What the end does to connections: `cut` (default), or `drain:30s`, at most 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_expiry: Option<String>,
    /// Existing interfaces whose traffic belongs to the persona.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interfaces: Option<Vec<InterfaceDocument>>,
    /// Veth pairs that the hub makes, one end in a member's network namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Vec<EndpointDocument>>,
    /// Names of personas it may talk to; each must name the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers: Option<Vec<String>>,
    /// Services that other personas may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expose: Option<Vec<ServiceDocument>>,
    /// Services of others that members may reach, as `PERSONA/NAME`.
    #[serde(default, rename = "use", skip_serializing_if = "Option::is_none")]
    pub uses: Option<Vec<String>>,
    /// Where members may go outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<EgressDocument>,
    /// What to do where another persona has the range already; default `nat`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<OverlapDocument>,
    /// Largest packet of members in bytes, 1280 to 9216; default 1500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// What a change of rules means for connections that exist; default `reevaluate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub established: Option<EstablishedDocument>,
    /// Which connections are entered into the flow table; default `all`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracking: Option<TrackingDocument>,
    /// What happens when no rule matches a protocol that rules speak of; default `deny`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_action: Option<DefaultActionDocument>,
    /// Whether `default_action` applies to protocols that no rule mentions as well; default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
    /// What is watched for: `default`, or detectors with their settings; default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detectors: Option<DetectorsDocument>,
    /// Thresholds whose crossing is reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alerts: Option<Vec<AlertDocument>>,
    /// Whether rules decide (`enforce`, the default), only count (`audit`), or are not asked (`off`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<EnforcementDocument>,
    /// Connections that one source may have with members at once, 1 to 1000000; default: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections_per_source: Option<u32>,
    /// Sets of prefixes by name, which rules refer to as `@NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sets: Option<BTreeMap<String, SetDocument>>,
    /// Among personas that end at the same time, routes of the one with the higher number win; default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// Which of several hubs it lives on; default: every hub that is given it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayDocument>,
    /// Free text for the operator's own order: at most 32 keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Given to personas that the hub makes for personalities; no document says it.
    #[serde(skip)]
    #[schemars(skip)]
    #[schema(ignore)]
    pub carried: Option<Carried>,
}

/// The kinds of documents there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PersonaKind {
    /// A persona.
    Persona,
    /// Fields that personas take from it.
    Template,
}

/// A veth pair into a member's network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointDocument {
    /// Name of the endpoint, unique in the persona.
    pub name: String,
    /// Network namespace: a name below `/run/netns`, or an absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Process whose network namespace it is, instead of `namespace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Name of the interface there; default `eth0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// `auto` (the default: one address per family of the range), or addresses from the range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<OneOrMany<String>>,
}

/// Where members may go outside the persona and its peers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EgressDocument {
    /// Prefixes outside that members may reach; with this list, no others but those that rules allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<OneOrMany<String>>,
    /// Prefixes that members may never reach, whatever rules say; the persona's own range is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deny: Option<OneOrMany<String>>,
    /// Router for the persona's own default route; default: the host's routes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<OneOrMany<String>>,
    /// What packets carry beyond uplinks instead of members' addresses; default `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat: Option<NatDocument>,
}

/// What to do where another persona has the range already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OverlapDocument {
    /// Others reach it by a virtual range of the same length.
    #[default]
    Nat,
    /// Refuse it, and let nobody override it.
    Reject,
    /// Take the range for as long as it lives; the persona that had it is reached by a virtual one meanwhile.
    Override,
}

/// What packets carry beyond uplinks instead of members' addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NatDocument {
    /// Members' own addresses.
    #[default]
    None,
    /// The hub's IPv4 address of the interface they leave by, and a port of the hub; IPv6 stays.
    Masquerade,
    /// As `masquerade`, for IPv6 too.
    MasqueradeAll,
    /// Prefixes as long as the ranges: addresses are replaced one to one.
    #[schema(value_type = OneOrMany<String>)]
    Static(OneOrMany<String>),
}

/// What a change of rules means for connections that exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EstablishedDocument {
    /// They are judged again by the rules as they are.
    #[default]
    Reevaluate,
    /// They stay.
    Preserve,
}

/// Which connections are entered into the flow table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TrackingDocument {
    /// All of them.
    #[default]
    All,
    /// Those that rules do not allow both ways by protocol and ports alone. The others pass packet by
    /// packet, faster: they show in no list of flows, and TCP is not checked for its handshake.
    Needed,
}

/// What rules do. Isolation, anti-spoofing, quarantine and expiry stay in force in every case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EnforcementDocument {
    /// They decide.
    #[default]
    Enforce,
    /// They are asked, and what they would drop is counted and passes.
    Audit,
    /// They are not asked.
    Off,
}

/// A set of prefixes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetDocument {
    /// Prefixes or addresses that are always in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<Vec<String>>,
    /// How long an element stays that is added at run time without a `ttl` of its own; default: for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
}

/// What happens to packets that no rule matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DefaultActionDocument {
    /// Drop in silence.
    #[default]
    Deny,
    /// Drop and tell the sender.
    Reject,
}
