//! `DELETE /personas/{persona}` and `/gc`: what goes, and whether anything is left of it.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::personas::prefers;
use super::problem::ProblemDetails;
use super::query::{Named, Parameters};
use super::{Api, etag};
use crate::command::{Command, Reply};
use crate::model::life;
use crate::view::PersonaView;

/// What a deletion left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Removal {
    /// The persona, as it was named.
    pub persona: String,
    /// What is in the kernel, the hub's, and wanted by nobody: nothing, unless the kernel refused to let go.
    pub residue: Vec<String>,
}

/// What is the hub's in the kernel and wanted by nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Orphans {
    /// Found, in words.
    pub found: Vec<String>,
    /// Still there after removing them; absent when nothing was to be removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Vec<String>>,
}

/// Deletes a persona
///
/// With `drain`, connections that exist may go on for so long; the state is `deleting` until then.
#[utoipa::path(delete, path = "/personas/{persona}", tag = "personas",
    params(
        ("persona" = String, Path, description = "id or name"),
        ("drain" = Option<String>, Query, description = "time for connections to end, at most 5m: 30s"),
        ("If-Match" = Option<String>, Header, description = "an ETag"),
        ("Prefer" = Option<String>, Header, description = "return=representation: look for what is left"),
    ),
    responses(
        (status = 200, body = Removal, description = "it is gone; what is left of it"),
        (status = 202, body = PersonaView, description = "it drains"),
        (status = 204, description = "it is gone"),
        (status = 400, description = "a parameter is wrong"),
        (status = 404, description = "no such persona, or not any more"),
        (status = 409, description = "a file owns it"),
        (status = 412, description = "it changed in between"),
        (status = 503, description = "the hub is busy or stopping"),
    ))]
pub(super) async fn delete(
    State(api): State<Api>,
    Named(persona): Named,
    mut parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, ProblemDetails> {
    let written = parameters.one("drain").filter(|text| text != "0" && text != "0s");
    let drain = written.as_deref().and_then(life::drain);
    if let (Some(text), None) = (&written, drain) {
        parameters.refuse("drain", &format!("`{text}`: use a time of at most 5m, for example 30s"));
    }
    parameters.finish()?;
    let held = api.persona(&persona).ok();
    let if_generation = etag::if_match(&headers, held.as_deref());
    let meant = etag::meant(held.as_deref(), if_generation, persona.clone());
    let reply = api.command(Command::Delete { persona: meant, if_generation, drain }).await?;
    match reply {
        Reply::Updated(view) => Ok((StatusCode::ACCEPTED, Json(view)).into_response()),
        _ if prefers(&headers, "return=representation") => {
            let residue = api.orphans().await?;
            Ok(Json(Removal { persona, residue }).into_response())
        }
        Reply::Created(_)
        | Reply::Deleted
        | Reply::Orphans(_)
        | Reply::Segment(_)
        | Reply::Personality(_)
        | Reply::Interface(_)
        | Reply::Switched(_)
        | Reply::Plan(_)
        | Reply::Experiment(_)
        | Reply::Done
        | Reply::Applied { .. } => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}

/// Lists what is the hub's in the kernel and wanted by nobody
#[utoipa::path(get, path = "/gc", tag = "hub",
    responses((status = 200, body = Orphans), (status = 503, description = "the hub is busy or stopping")))]
pub(super) async fn orphans(State(api): State<Api>) -> Result<Json<Orphans>, ProblemDetails> {
    Ok(Json(Orphans { found: api.orphans().await?, left: None }))
}

/// Removes what is the hub's in the kernel and wanted by nobody
#[utoipa::path(post, path = "/gc", tag = "hub",
    responses((status = 200, body = Orphans), (status = 503, description = "the hub is busy or stopping")))]
pub(super) async fn collect(State(api): State<Api>) -> Result<Json<Orphans>, ProblemDetails> {
    let found = api.orphans().await?;
    // Every pass removes them; this is answered after one.
    api.command(Command::Tick).await?;
    let left = api.orphans().await?;
    Ok(Json(Orphans { found, left: Some(left) }))
}

impl Api {
    async fn orphans(&self) -> Result<Vec<String>, ProblemDetails> {
        match self.command(Command::Orphans).await? {
            Reply::Orphans(orphans) => Ok(orphans),
            Reply::Created(_)
            | Reply::Updated(_)
            | Reply::Deleted
            | Reply::Segment(_)
            | Reply::Personality(_)
            | Reply::Interface(_)
            | Reply::Switched(_)
            | Reply::Plan(_)
            | Reply::Experiment(_)
            | Reply::Done
            | Reply::Applied { .. } => Err(ProblemDetails::unavailable("the hub gave no list")),
        }
    }
}
