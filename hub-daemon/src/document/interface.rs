//! The interface record: which interface has personalities, and which one it is given when.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::parts::SelectorDocument;
use super::personality::TargetDocument;

/// An interface that personalities are given to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InterfaceRecordDocument {
    /// Kind of the document: `interface`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<InterfaceKind>,
    /// Name of the record, unique among personas and records.
    #[schema(example = "web-1")]
    pub name: String,
    /// The interface: its name, or a mapping with `name`, `mac` or `altname`.
    pub interface: SelectorDocument,
    /// Network namespace that it is in: a name below `/run/netns`, or an absolute path. Default: the hub's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Interface of the hub that leads to it; needed with `namespace`, and the interface itself without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Personality that it has at first, as `NAME` or `NAME@VERSION`.
    pub personality: String,
    /// Personality for the case that a switch can neither go on nor back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// Whether the hub may write `/etc/resolv.conf` where nothing better answers names; default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manage_resolv_conf: Option<bool>,
    /// Whose packets use the personality's routes: `everything` of the namespace (the default with
    /// `namespace`), or what comes from its `addresses`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<RoutesDocument>,
    /// Personalities by threat level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zones: Option<ZonesDocument>,
    /// A personality for the case that something else fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover: Option<FailoverDocument>,
    /// Free text for the operator's own order, and for `{label:KEY}` in personalities: at most 32 keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
}

/// The kind of these documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum InterfaceKind {
    /// An interface record.
    Interface,
}

/// What an interface is known by; exactly one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SelectorEach {
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its hardware address, for example `02:00:00:00:00:01`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Another name that it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub altname: Option<String>,
}

/// Whose packets use the routes of a personality.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RoutesDocument {
    /// Everything that the namespace sends.
    Everything,
    /// What comes from the interface's addresses.
    Addresses,
}

/// Personalities by threat level.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ZonesDocument {
    /// Levels from the least to the greatest threat.
    pub levels: Vec<ZoneDocument>,
    /// How long a level must be lower before the interface follows it down; default `5m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hysteresis: Option<String>,
}

/// One threat level.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ZoneDocument {
    /// Its name.
    pub level: String,
    /// The personality.
    pub personality: String,
}

/// A personality for the case that something fails.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FailoverDocument {
    /// What is asked, in the form of a health target.
    pub check: TargetDocument,
    /// How long it must fail; default `10s`.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub fails_for: Option<String>,
    /// The personality.
    pub to: String,
    /// Whether it comes back by itself; default `manual`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail_back: Option<FailBackDocument>,
    /// How long the check must succeed before it comes back; default `60s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_down: Option<String>,
}

/// Whether an interface comes back by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FailBackDocument {
    /// Somebody switches it back.
    #[default]
    Manual,
    /// It does when the check succeeds again.
    Auto,
}
