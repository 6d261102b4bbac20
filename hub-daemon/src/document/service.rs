//! Services that personas offer to each other, as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::parts::{OneOrMany, Scalar};

/// A service that other personas may `use`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceDocument {
    /// Name, unique in the persona; others write `PERSONA/NAME`.
    pub name: String,
    /// A protocol with ports: tcp, udp, sctp or udplite; default tcp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Scalar>,
    /// Target port: a number, a range like `80-90`, or a list of those.
    #[schema(value_type = OneOrMany<Scalar>)]
    pub port: OneOrMany<Scalar>,
}
