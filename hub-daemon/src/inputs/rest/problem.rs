//! Problem documents (RFC 9457): the body of every refusal.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::command::{Problem, Rejection, RejectionKind};
use crate::inputs::reload::{FileProblem, ReloadFailure};
use crate::kernel::reader::ReadError;

/// Media type of a problem document.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemDetails {
    /// A URI that names the kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// A sentence about this request.
    pub detail: String,
    /// Everything that is wrong, not only the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// JSON pointer to the field, empty for the whole document.
    pub pointer: String,
    /// What is wrong and what would be right.
    pub detail: String,
    /// Where, when the document is a file of the hub's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<FileProblem>,
}

impl ProblemDetails {
    /// A problem that its HTTP status describes.
    pub fn of_status(status: StatusCode, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Error");
        Self {
            kind: "about:blank".to_owned(),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            errors: Vec::new(),
        }
    }

    /// The hub cannot answer.
    pub(super) fn unavailable(detail: &str) -> Self {
        Self::of_status(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    /// There is no persona of that name or id.
    pub(super) fn no_persona(persona: &str) -> Self {
        Self::not_found("persona", persona)
    }

    /// There is nothing of that kind and name.
    pub(super) fn not_found(kind: &str, name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "not found", format!("no {kind} `{name}`"))
    }

    /// The same about a part of a larger document.
    pub(super) fn below(mut self, base: &str) -> Self {
        for error in self.errors.iter_mut().filter(|error| !error.pointer.is_empty()) {
            error.pointer.insert_str(0, base);
        }
        self
    }

    fn new(status: StatusCode, kind: &str, title: &str, detail: String) -> Self {
        Self {
            kind: format!("urn:hub:problem:{kind}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail,
            errors: Vec::new(),
        }
    }

    fn with_errors(mut self, problems: Vec<Problem>) -> Self {
        self.errors = problems
            .into_iter()
            .map(|problem| FieldError { pointer: problem.pointer, detail: problem.detail, place: None })
            .collect();
        self
    }
}

impl IntoResponse for ProblemDetails {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(self)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        response
    }
}

impl From<Rejection> for ProblemDetails {
    fn from(rejection: Rejection) -> Self {
        let (status, kind, title) = match rejection.kind {
            RejectionKind::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "invalid", "invalid document"),
            RejectionKind::Conflict => (StatusCode::CONFLICT, "conflict", "contradicts what is there"),
            RejectionKind::NotFound => (StatusCode::NOT_FOUND, "not-found", "not found"),
            RejectionKind::Changed => (StatusCode::PRECONDITION_FAILED, "changed", "changed in between"),
            RejectionKind::Full => (StatusCode::INSUFFICIENT_STORAGE, "full", "a limit is reached"),
        };
        let detail = match rejection.problems.as_slice() {
            [] => title.to_owned(),
            [only] => only.detail.clone(),
            [first, rest @ ..] => format!("{} (and {} more)", first.detail, rest.len()),
        };
        Self::new(status, kind, title, detail).with_errors(rejection.problems)
    }
}

impl From<ReloadFailure> for ProblemDetails {
    fn from(failure: ReloadFailure) -> Self {
        let detail = failure.to_string();
        let mut problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "invalid documents", detail);
        problem.errors = failure
            .problems
            .into_iter()
            .map(|place| FieldError {
                pointer: place.pointer.clone(),
                detail: place.detail.clone(),
                place: Some(place),
            })
            .collect();
        problem
    }
}

impl From<ReadError> for ProblemDetails {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Question(detail) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "invalid question", detail)
            }
            ReadError::Map { .. } | ReadError::Queues(_) => Self::unavailable(&error.to_string()),
        }
    }
}
