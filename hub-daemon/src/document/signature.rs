//! What the first bytes of a connection must look like, as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::parts::{OneOrMany, Scalar};

/// What the first bytes of a connection look like. All that is given must be there; of a list one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignatureDocument {
    /// Protocol that is spoken: `tls`, `http`, `ssh`, `smtp`, `dns` or `quic`. Where a name is given it follows
    /// from that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speaks: Option<SpeaksDocument>,
    /// Host that a TLS client asks for (SNI): a name, or `*.NAME` for all below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_sni: Option<OneOrMany<String>>,
    /// Protocol that a TLS client offers (ALPN), like `h2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpn: Option<OneOrMany<String>>,
    /// Host of an HTTP/1 request, as in `tls_sni`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_host: Option<OneOrMany<String>>,
    /// Method of an HTTP/1 request, like `GET`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_method: Option<OneOrMany<String>>,
    /// Name that a DNS question asks for, as in `tls_sni`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_name: Option<OneOrMany<String>>,
    /// Bytes at a place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<BytesDocument>,
}

/// Protocols that are told by their first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SpeaksDocument {
    /// TLS: a client's hello.
    Tls,
    /// HTTP/1: a request.
    Http,
    /// SSH: a banner.
    Ssh,
    /// SMTP: a banner or a greeting.
    Smtp,
    /// DNS over UDP: a question.
    Dns,
    /// QUIC: a long header.
    Quic,
}

/// Bytes at a place of the first payload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BytesDocument {
    /// Where they begin, from 0; default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<u32>,
    /// The bytes as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The bytes as hexadecimal digits, instead of `text`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hex: Option<Scalar>,
}
