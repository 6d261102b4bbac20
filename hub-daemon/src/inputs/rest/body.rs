//! Reading a request's body: JSON, for some documents YAML, of bounded size, within bounded time.

use std::path::Path;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::decode::{self, DecodeError, Ends};
use super::problem::ProblemDetails;
use super::{BODY_BYTES, BODY_TIME};
use crate::document::persona::PersonaDocument;
use crate::document::read::Reading;
use crate::document::source;
use crate::inputs::reload::{FileProblem, ReloadFailure};

/// Media types that a document may have.
pub(super) const JSON: &[&str] = &["application/json"];
/// Media types of documents that may be YAML (RFC 9512).
pub(super) const DOCUMENT: &[&str] = &["application/json", YAML];
const YAML: &str = "application/yaml";
/// Media types that a merge patch may have (RFC 7396).
pub(super) const MERGE_PATCH: &[&str] = &["application/merge-patch+json", "application/json"];

/// The body's bytes, when it is of one of the `accepted` media types.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    accepted: &[&str],
) -> Result<Bytes, ProblemDetails> {
    let (given, media_type) = media_type(headers);
    if !accepted.iter().any(|accepted| media_type.eq_ignore_ascii_case(accepted)) {
        let detail = format!("content type `{given}`: use {}", accepted.join(" or "));
        return Err(ProblemDetails::of_status(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let too_large = || {
        let detail = format!("the body is larger than {BODY_BYTES} bytes");
        ProblemDetails::of_status(StatusCode::PAYLOAD_TOO_LARGE, detail)
    };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|bytes: u64| bytes > BODY_BYTES as u64) {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIME, axum::body::to_bytes(body, BODY_BYTES)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_limit(&error) => Err(too_large()),
        Ok(Err(error)) => Err(ProblemDetails::of_status(StatusCode::BAD_REQUEST, error.to_string())),
        Err(_elapsed) => Err(ProblemDetails::of_status(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body did not arrive within {} s", BODY_TIME.as_secs()),
        )),
    }
}

/// The content type as it is given, and without its parameters.
fn media_type(headers: &HeaderMap) -> (&str, &str) {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    (given, given.split(';').next().unwrap_or_default().trim())
}

fn is_limit(error: &axum::Error) -> bool {
    std::error::Error::source(error)
        .is_some_and(<dyn std::error::Error>::is::<http_body_util::LengthLimitError>)
}

/// The persona in a body.
pub(super) fn persona(bytes: &[u8], ends: &Ends<'_>) -> Result<PersonaDocument, ProblemDetails> {
    decode::persona(bytes, ends).map_err(ProblemDetails::from)
}

/// The persona in a body, whose hub may be left to choose.
pub(super) fn newcomer(bytes: &[u8], ends: &Ends<'_>) -> Result<PersonaDocument, ProblemDetails> {
    decode::newcomer(bytes, ends).map_err(ProblemDetails::from)
}

/// A document in a body of JSON or YAML; problems of YAML are shown in place.
pub(super) fn document<T: DeserializeOwned>(
    headers: &HeaderMap,
    bytes: &[u8],
    read: impl FnOnce(Value) -> Reading<T>,
) -> Result<T, ProblemDetails> {
    if !media_type(headers).1.eq_ignore_ascii_case(YAML) {
        return decode::decode(bytes, read).map_err(ProblemDetails::from);
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        ProblemDetails::of_status(StatusCode::BAD_REQUEST, format!("the body is not UTF-8: {error}"))
    })?;
    source::one(Path::new("body"), text, read).map_err(|problems| {
        ReloadFailure { problems: problems.iter().map(FileProblem::from).collect() }.into()
    })
}

/// Another document in a body.
pub(super) fn other<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ProblemDetails> {
    decode::other(bytes).map_err(ProblemDetails::from)
}

/// The body is no JSON.
pub(super) fn syntax(detail: &str) -> ProblemDetails {
    ProblemDetails::of_status(StatusCode::BAD_REQUEST, format!("the body is not JSON: {detail}"))
}

impl From<DecodeError> for ProblemDetails {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Syntax(detail) => syntax(&detail),
            DecodeError::Document(rejection) => rejection.into(),
        }
    }
}
