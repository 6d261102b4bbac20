//! Which hub of several this is, which others there are, and which one a persona belongs to, as written.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::parts::Scalar;

/// Which hub of several this is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NodeDocument {
    /// Name of this hub among others: 1–63 letters, digits, `-`, `_` or `.`.
    pub name: Option<String>,
    /// Whether personas may choose this hub by its labels; default `hub`.
    pub role: NodeRole,
    /// What personas choose a gateway by.
    pub labels: BTreeMap<String, String>,
    /// How much it takes on; default: what the tables of the data path hold.
    pub capacity: CapacityDocument,
}

/// What a hub of several is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NodeRole {
    /// Takes personas that name it, or no gateway.
    #[default]
    Hub,
    /// Takes personas that choose a gateway by its labels as well.
    Gateway,
}

/// How much a hub takes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CapacityDocument {
    /// Personas that live here at once.
    pub personas: Option<u32>,
    /// Sum of `qos.bandwidth` of the personas that live here, for each direction: `10Gbps`.
    pub bandwidth: Option<Scalar>,
}

/// Another hub, and how its API is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OtherNodeDocument {
    /// Its `node.name`.
    pub name: String,
    /// `https://HOST:PORT`, `http://HOST:PORT`, or `unix:/PATH` of a socket on this machine.
    pub url: String,
    /// File with the bearer token that it asks for.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// PEM file with the authority of its certificate; https needs it.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// PEM file with the certificate to show, with `key`.
    #[serde(default)]
    pub cert: Option<PathBuf>,
    /// PEM file with the key of that certificate.
    #[serde(default)]
    pub key: Option<PathBuf>,
}

/// Which of several hubs takes a persona.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum GatewayChoice {
    /// The one of which the largest part stays free.
    Free,
}

/// Which hub a persona belongs to; the others know of it and do nothing about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GatewayDocument {
    /// `node.name` of the hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Labels that a hub with `role: gateway` must have, instead of its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Let the hub that is asked choose one of the gateways, by what is free, when the persona is created over
    /// the API; the definition says `node` from then on. Not in files: all hubs read the same ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choose: Option<GatewayChoice>,
}
