//! What a request's address says: the persona in its path, and query parameters — every one known, none
//! twice unless it may be, all errors at once.

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::StatusCode;
use axum::http::request::Parts;

use super::problem::{FieldError, ProblemDetails};

/// The parameters of a request, taken out one by one; what is left at the end is unknown.
#[derive(Debug, Default)]
pub(super) struct Parameters {
    given: Vec<(String, String)>,
    errors: Vec<FieldError>,
}

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ProblemDetails> {
        let Query(given) = Query::from_request_parts(parts, state)
            .await
            .map_err(|rejection| ProblemDetails::of_status(StatusCode::BAD_REQUEST, rejection.body_text()))?;
        Ok(Self { given, errors: Vec::new() })
    }
}

/// Name or id of a persona in the path.
#[derive(Debug)]
pub(super) struct Named(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = ProblemDetails;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ProblemDetails> {
        let Path(name) = Path::from_request_parts(parts, state)
            .await
            .map_err(|rejection| ProblemDetails::of_status(StatusCode::BAD_REQUEST, rejection.body_text()))?;
        Ok(Self(name))
    }
}

impl Parameters {
    /// Takes every value of a parameter.
    pub(super) fn all(&mut self, name: &str) -> Vec<String> {
        self.given.extract_if(.., |(key, _)| key == name).map(|(_, value)| value).collect()
    }

    /// Takes the value of a parameter that may be given once.
    pub(super) fn one(&mut self, name: &str) -> Option<String> {
        let mut values = self.all(name);
        if values.len() > 1 {
            self.refuse(name, "given more than once");
        }
        values.pop()
    }

    /// Takes a switch: `name` alone, or with `true` or `false`.
    pub(super) fn flag(&mut self, name: &str) -> bool {
        let Some(value) = self.one(name) else { return false };
        if !["", "true", "false"].contains(&value.as_str()) {
            self.refuse(name, &format!("`{value}`: use it alone, or with true or false"));
        }
        value != "false"
    }

    /// Whether a parameter is given.
    pub(super) fn has(&self, name: &str) -> bool {
        self.given.iter().any(|(key, _)| key == name)
    }

    /// Takes a number from 1 to `max`.
    pub(super) fn number(&mut self, name: &str, default: usize, max: usize) -> usize {
        let Some(value) = self.one(name) else { return default };
        match value.parse() {
            Ok(number) if (1..=max).contains(&number) => number,
            Ok(_) | Err(_) => {
                self.refuse(name, &format!("`{value}`: use a number from 1 to {max}"));
                default
            }
        }
    }

    /// Notes that a parameter is wrong.
    pub(super) fn refuse(&mut self, name: &str, detail: &str) {
        self.errors.push(FieldError {
            pointer: String::new(),
            detail: format!("parameter `{name}`: {detail}"),
            place: None,
        });
    }

    /// Refuses the request if anything was wrong or is left.
    pub(super) fn finish(mut self) -> Result<(), ProblemDetails> {
        for (name, _) in std::mem::take(&mut self.given) {
            self.refuse(&name, "unknown");
        }
        if self.errors.is_empty() {
            return Ok(());
        }
        let detail = "the query parameters are wrong";
        let mut problem = ProblemDetails::of_status(StatusCode::BAD_REQUEST, detail);
        problem.errors = self.errors;
        Err(problem)
    }
}
