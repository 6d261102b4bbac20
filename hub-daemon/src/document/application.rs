//! Applications of `hub.yaml`, which personalities name beside those of the hub's own catalogue.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::parts::{OneOrMany, Scalar};
use super::signature::SignatureDocument;

/// What connections of one application have, all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CatalogueEntryDocument {
    /// Protocol, as in rules; default: what the signature is carried by, else any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Scalar>,
    /// Port, range, or a list of both; default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<OneOrMany<Scalar>>,
    /// What the first bytes look like; default: anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<SignatureDocument>,
}
