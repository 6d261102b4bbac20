//! Subnets of `hub.yaml`, which personalities refer to by `subnet_id`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::parts::OneOrMany;

/// A subnet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SubnetDocument {
    /// Its prefixes.
    pub cidr: OneOrMany<String>,
    /// Addresses that the hub answers by in it, at most one per family; default: the first of each prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<OneOrMany<String>>,
    /// VLAN that it is on, 1 to 4094: the hub's link to an interface in it must be a device of that VLAN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Persona that may be reached from it, and reaches it if it names the interface's record as its peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persona: Option<String>,
}
