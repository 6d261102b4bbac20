//! `/personalities`: keeping, reading and removing versions of what interfaces can be switched to.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::operations::Receipt;
use super::problem::ProblemDetails;
use super::query::{Named, Parameters};
use super::{Api, body, etag, idempotency};
use crate::command::switch::PersonalityCommand;
use crate::command::{Command, Reply};
use crate::document::personality::PersonalityDocument;
use crate::document::read::Reading;
use crate::model::personality::{Version, Wanted};
use crate::view::switch::PersonalityView;

/// One page of personalities, by name and version.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct PersonalityPage {
    /// The versions.
    pub(crate) personalities: Vec<PersonalityView>,
    /// `cursor` of the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next_cursor: Option<String>,
}

/// Lists personalities, every version
#[utoipa::path(get, path = "/personalities", tag = "personalities", operation_id = "list_personalities",
    params(
        ("name" = Option<String>, Query, description = "only versions of this name"),
        ("limit" = Option<u32>, Query, description = "1 to 1000, default 100"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, body = PersonalityPage), (status = 400, description = "a parameter is wrong")))]
pub(super) async fn list(
    State(api): State<Api>,
    mut parameters: Parameters,
) -> Result<Json<PersonalityPage>, ProblemDetails> {
    let name = parameters.one("name");
    let limit = parameters.number("limit", 100, 1_000);
    let after = parameters.one("cursor").and_then(|text| {
        let version = Version::try_from(text.clone());
        if version.is_err() {
            parameters.refuse("cursor", &format!("`{text}`: use `next_cursor` of the page before"));
        }
        version.ok()
    });
    parameters.finish()?;
    let snapshot = Arc::clone(&api.hub.snapshot.borrow());
    let all = snapshot.personalities.values().filter(|view| {
        name.as_ref().is_none_or(|name| *name == view.version.name)
            && after.as_ref().is_none_or(|after| view.version > *after)
    });
    let mut personalities: Vec<PersonalityView> =
        all.take(limit + 1).map(|view| view.as_ref().clone()).collect();
    let more = personalities.len() > limit;
    personalities.truncate(limit);
    let last = personalities.last().filter(|_| more);
    let next_cursor = last.map(|view| view.version.to_string());
    Ok(Json(PersonalityPage { personalities, next_cursor }))
}

/// Keeps a personality
///
/// The same content again is the same version; another content of a name is its next version. Secrets are
/// named by their files: a key in the document is refused.
#[utoipa::path(post, path = "/personalities", tag = "personalities", operation_id = "create_personality",
    request_body(content(
        (PersonalityDocument = "application/json"),
        (PersonalityDocument = "application/yaml"),
    )),
    params(
        ("Idempotency-Key" = Option<String>, Header,
            description = "the same key with the same body gets the same answer, for 24 hours"),
    ),
    responses(
        (status = 201, body = PersonalityView, headers(("Location" = String), ("ETag" = String))),
        (status = 400, description = "not JSON"),
        (status = 409, description = "a file defines it"),
        (status = 412, description = "If-Match makes no sense here"),
        (status = 413, description = "larger than 1 MiB"),
        (status = 415, description = "neither application/json nor application/yaml"),
        (status = 422, description = "the document is invalid, or the key was used with another body"),
        (status = 503, description = "the hub is busy or stopping"),
        (status = 507, description = "a limit of the hub is reached"),
    ))]
pub(super) async fn create(
    State(api): State<Api>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: Body,
) -> Result<Receipt, ProblemDetails> {
    etag::refuse_precondition(&headers)?;
    let key = idempotency::key(&headers)?;
    let bytes = body::read(&headers, body, body::DOCUMENT).await?;
    let document = Box::new(body::document(&headers, &bytes, Reading::personality)?);
    let path = uri.path().to_owned();
    let receipts = api.receipts.clone();
    let make = async move {
        let command = Command::Personality(PersonalityCommand::Create { document });
        let Reply::Personality(view) = api.command(command).await? else {
            return Err(ProblemDetails::unavailable("the hub gave no personality"));
        };
        Ok(Receipt::new(StatusCode::CREATED, &view)?
            .at(format!("{path}/{}", view.version))
            .tagged(tag(&view)))
    };
    receipts.once(idempotency::about(key, &uri, &bytes), make).await
}

/// Shows a personality: its definition, how large it is, and who has it
///
/// A name without a version means its last one. The definition is as it was given, but for its `kind`; it names
/// secrets by their files.
#[utoipa::path(get, path = "/personalities/{personality}", tag = "personalities",
    operation_id = "show_personality",
    params(
        ("personality" = String, Path, description = "NAME, or NAME@VERSION"),
        ("If-None-Match" = Option<String>, Header, description = "an ETag"),
    ),
    responses(
        (status = 200, body = PersonalityView, headers(("ETag" = String))),
        (status = 304, description = "it is what the client has"),
        (status = 404, description = "no such personality"),
    ))]
pub(super) async fn show(
    State(api): State<Api>,
    Named(personality): Named,
    headers: HeaderMap,
) -> Result<Response, ProblemDetails> {
    let view = api.personality(&personality)?;
    let tag = tag(&view);
    if etag::is_known(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    Ok(([(header::ETAG, tag)], Json(view.as_ref())).into_response())
}

/// Removes one version of a personality, or with a name alone all of them
#[utoipa::path(delete, path = "/personalities/{personality}", tag = "personalities",
    operation_id = "delete_personality",
    params(("personality" = String, Path, description = "NAME, or NAME@VERSION")),
    responses(
        (status = 204, description = "it is gone"),
        (status = 404, description = "no such personality"),
        (status = 409, description = "an interface uses it, or a file defines it"),
        (status = 422, description = "not a name"),
        (status = 503, description = "the hub is busy or stopping"),
    ))]
pub(super) async fn delete(
    State(api): State<Api>,
    Named(personality): Named,
) -> Result<StatusCode, ProblemDetails> {
    api.command(Command::Personality(PersonalityCommand::Delete { personality })).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The tag of a version: it never changes, who uses it does.
fn tag(view: &PersonalityView) -> HeaderValue {
    etag::of_digest(&etag::hash(&(&view.version, &view.digest, &view.used_by)))
}

impl Api {
    /// The version that somebody asks for.
    pub(super) fn personality(&self, text: &str) -> Result<Arc<PersonalityView>, ProblemDetails> {
        let snapshot = Arc::clone(&self.hub.snapshot.borrow());
        let wanted = Wanted::parse(text).ok();
        let found = wanted.and_then(|Wanted { name, number }| {
            let from = Version { name: name.clone(), number: number.unwrap_or(0) };
            let to = Version { name, number: number.unwrap_or(u32::MAX) };
            snapshot.personalities.range(from..=to).next_back().map(|(_, view)| Arc::clone(view))
        });
        found.ok_or_else(|| ProblemDetails::not_found("personality", text))
    }
}
