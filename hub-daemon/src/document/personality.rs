//! The personality document: everything that an interface is given at once, and loses at once.
//!
//! The same structure comes as YAML with `kind: personality` and as a REST body. Secrets are named by their
//! files; a key that is written here is refused, and shown by nobody.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::parts::AddressDocument;
use super::persona::{DefaultActionDocument, SetDocument};
use super::qos::QosDocument;
use super::rule::RuleDocument;
use crate::desired::interfaces::{AddressScope, TunnelBackend};

/// A network configuration that interfaces can be switched to. In every text but `name` and `labels`,
/// `{interface}` stands for the name of the interface's record, and `{label:KEY}` for what its label says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PersonalityDocument {
    /// Kind of the document: `personality`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<PersonalityKind>,
    /// Name of all its versions: 1–63 letters, digits, `-`, `_` or `.`, a letter or digit first.
    #[schema(example = "web")]
    pub name: String,
    /// Version of this form: 1, the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_version: Option<u32>,
    /// Addresses with their length, for example `10.20.0.5/24`; each with a `scope`, if it is not `global`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_addresses: Option<Vec<AddressDocument>>,
    /// Subnet of `hub.yaml` that the addresses are in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet_id: Option<String>,
    /// Rules, first match wins, as `security_policies` of a persona: `source_ip` and `destination_ip` are
    /// other names of `source` and `destination`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firewall_rules: Option<Vec<RuleDocument>>,
    /// IP protocols that may pass at all, by name or number; default `[tcp, udp, icmp]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocols: Option<Vec<super::parts::Scalar>>,
    /// What happens when no rule matches a protocol that rules speak of; default `deny`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_action: Option<DefaultActionDocument>,
    /// Whether `default_action` applies to protocols that no rule mentions as well; default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
    /// Sets of prefixes by name, which rules refer to as `@NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sets: Option<BTreeMap<String, SetDocument>>,
    /// Bandwidth, latency, code point and class of traffic. A `priority` without `dscp` brings its code point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qos_settings: Option<QosDocument>,
    /// A WireGuard tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vpn_tunnel_config: Option<TunnelDocument>,
    /// Which applications may be used; asked after `firewall_rules`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application_access_policy: Option<ApplicationsDocument>,
    /// Servers that answer names, in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_servers: Option<Vec<String>>,
    /// Domains that names without dots are looked for in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_search: Option<Vec<String>>,
    /// Routes of the interface, in a table of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routing_table: Option<Vec<RouteDocument>>,
    /// Largest packet in bytes, 1280 to 9216; default: as the interface is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// What must work with this personality.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthDocument>,
    /// How connections of the personality before end that this one would break.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainDocument>,
    /// Free text for the operator's own order: at most 32 keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
}

/// The kind of these documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PersonalityKind {
    /// A personality.
    Personality,
}

/// An address with its scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddressPlaced {
    /// The address with its length.
    pub address: String,
    /// How far it is known; default `global`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<AddressScope>,
}

/// A WireGuard tunnel. Keys are files of the host that runs hubd.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TunnelDocument {
    /// Name of its link; default: `hub` and a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Who encrypts; default `auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<TunnelBackend>,
    /// File with the private key, base64, as `wg genkey` writes it.
    #[serde(default)]
    #[schema(value_type = String)]
    pub private_key_file: PathBuf,
    /// A key that was written into the document: refused.
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    #[schema(ignore)]
    pub private_key: Option<Inline>,
    /// UDP port that it listens on; default: one that is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_port: Option<u16>,
    /// Addresses of the link, with their length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Vec<String>>,
    /// Largest packet in bytes; default 1420.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The other ends.
    #[serde(default)]
    pub peers: Vec<TunnelPeerDocument>,
}

/// The other end of a tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TunnelPeerDocument {
    /// Its public key, base64.
    pub public_key: String,
    /// Where it is reached, as `ADDRESS:PORT`; default: it calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Prefixes that it may send from, and that are sent to it. No route follows from them.
    #[serde(default)]
    pub allowed_ips: Vec<String>,
    /// Seconds between packets that keep the way open; default: none are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive: Option<u16>,
    /// File with a pre-shared key, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub preshared_key_file: Option<PathBuf>,
    /// A key that was written into the document: refused.
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    #[schema(ignore)]
    pub preshared_key: Option<Inline>,
}

/// A secret where there must be none: that it was there is all that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Inline;

impl<'de> Deserialize<'de> for Inline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_secret| Self)
    }
}

/// Which applications may be used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplicationsDocument {
    /// What becomes of others; default: as the rules say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<AccessDocument>,
    /// Applications in order; the first that fits decides.
    #[serde(default)]
    pub applications: Vec<ApplicationDocument>,
}

/// What becomes of one application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplicationDocument {
    /// Its name in the catalogue or in `applications` of `hub.yaml`, for example `ssh`.
    pub application: String,
    /// Whether it may be used.
    pub action: AccessDocument,
}

/// Whether an application may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AccessDocument {
    /// It may, on its ports, and where it can be told by its first bytes only if it speaks as it should.
    Allow,
    /// It may not: neither on its ports, whatever is said there, nor where only it would speak so.
    Deny,
}

/// A route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteDocument {
    /// A prefix, or `default`.
    pub destination: String,
    /// The router.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// `interface` (the default), `tunnel`, or the name of another device there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Smaller wins; default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
    /// What it does; default `unicast`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<RouteKindDocument>,
    /// Source address of packets of the host itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// What a route does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RouteKindDocument {
    /// It leads somewhere.
    #[default]
    Unicast,
    /// It drops in silence.
    Blackhole,
    /// It drops, and the sender is told.
    Unreachable,
    /// It drops, and the sender is told that it is forbidden.
    Prohibit,
}

/// What must work.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthDocument {
    /// What is asked beside what the hub asks by itself; each must succeed after a switch.
    #[serde(default)]
    pub targets: Vec<TargetDocument>,
    /// Name that `dns_servers` are asked for; default: `.`, for its NS records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_name: Option<String>,
    /// What happens when checks fail later; default `alert`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_unhealthy: Option<OnUnhealthyDocument>,
}

/// One question; exactly one of its fields says what is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetDocument {
    /// An address that answers pings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ping: Option<String>,
    /// `ADDRESS:PORT` that accepts a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<String>,
    /// URL that answers with a status below 400: `http://`, `https://` with a certificate for the host by somebody
    /// who is trusted, or `https+insecure://` with any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// With an `http` of `https://`: PEM file with the authorities that are trusted; default: those of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub ca: Option<PathBuf>,
    /// Server that answers a question for `name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<String>,
    /// With `dns`: the name; default `.`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Address that packets leave to by `device`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// With `route`: the device; default: the interface itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// A router on the link whose MAC address is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub neighbour: Option<String>,
}

/// What happens when checks fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnUnhealthyDocument {
    /// People are told.
    #[default]
    Alert,
    /// The last personality that was good comes back.
    Revert,
}

/// How connections end that the personality would break.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainDocument {
    /// How long they have: default `30s`, at most 1h; `0s` gives them none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// As many may be left; default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<u64>,
    /// Which ones are waited for, and which new ones are refused; default `impacted`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<ScopeDocument>,
    /// What becomes of new connections: default `reject`, TCP by a reset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<BlockDocument>,
    /// What happens when the time is over; default `force`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_timeout: Option<OnTimeoutDocument>,
    /// Whether flows without connections are waited for; default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp: Option<bool>,
    /// TCP that was silent for longer is not waited for; default `60s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_cutoff: Option<String>,
}

/// Which connections a drain is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScopeDocument {
    /// Those that the new personality would break.
    #[default]
    Impacted,
    /// All of them.
    All,
}

/// What becomes of new connections while others drain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum BlockDocument {
    /// The client is told at once.
    #[default]
    Reject,
    /// Dropped in silence.
    Drop,
}

/// What happens when a drain takes too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnTimeoutDocument {
    /// The switch goes on; what the new personality forbids is cut.
    #[default]
    Force,
    /// The switch is given up.
    Abort,
}
