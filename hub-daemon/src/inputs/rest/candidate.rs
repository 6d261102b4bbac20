//! `/personas/{persona}/candidate`: a definition judged beside the live one before it is taken.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::personas::changed;
use super::problem::ProblemDetails;
use super::query::{Named, Parameters};
use super::{Api, body};
use crate::command::Command;
use crate::datapath_view::CandidateCounts;
use crate::document::persona::PersonaDocument;
use crate::model::span;
use crate::view::{CandidateView, PersonaView};

/// Life of a trial when the request does not say.
const TRIAL: &str = "60s";
/// Longest trial.
const LONGEST: SignedDuration = SignedDuration::from_hours(7 * 24);

/// A candidate with what it answered so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct CandidateReport {
    /// Name of the persona.
    pub(crate) persona: String,
    /// The candidate.
    #[serde(flatten)]
    pub(crate) candidate: CandidateView,
    /// What it answered.
    #[serde(flatten)]
    pub(crate) counts: CandidateCounts,
}

/// Tries a definition on the persona's packets
///
/// Its rules are asked about the same packets as the live ones, and decide nothing. What differs is counted.
#[utoipa::path(put, path = "/personas/{persona}/candidate", operation_id = "try_candidate", tag = "personas", request_body = PersonaDocument,
    params(
        ("persona" = String, Path, description = "id or name"),
        ("for" = Option<String>, Query, description = "how long, at most 7d, default 60s"),
    ),
    responses(
        (status = 200, body = CandidateReport),
        (status = 400, description = "not JSON, or a parameter is wrong"),
        (status = 404, description = "no such persona"),
        (status = 409, description = "the persona ended"),
        (status = 413, description = "larger than 1 MiB"),
        (status = 415, description = "not application/json"),
        (status = 422, description = "the document is invalid, or has another name or range"),
        (status = 503, description = "the hub is busy or stopping"),
        (status = 507, description = "a limit of the hub is reached"),
    ))]
pub(super) async fn put(
    State(api): State<Api>,
    Named(persona): Named,
    mut parameters: Parameters,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<CandidateReport>, ProblemDetails> {
    let written = parameters.one("for").unwrap_or_else(|| TRIAL.to_owned());
    let life = span::parse(&written)
        .map_err(|error| error.to_string())
        .and_then(|life| SignedDuration::try_from(life).map_err(|error| error.to_string()))
        .and_then(|life| if life > LONGEST { Err("use at most 7d".to_owned()) } else { Ok(life) });
    if let Err(detail) = &life {
        parameters.refuse("for", detail);
    }
    parameters.finish()?;
    let bytes = body::read(&headers, body, body::JSON).await?;
    let document = Box::new(body::persona(&bytes, &|_| Vec::new())?);
    let until = Timestamp::now().saturating_add(life.unwrap_or_default()).unwrap_or(Timestamp::MAX);
    let reply = api.command(Command::Try { persona: persona.clone(), document, until }).await?;
    drop(reply);
    report(&api, &persona).await.map(Json)
}

/// Shows what a candidate answered so far
#[utoipa::path(get, path = "/personas/{persona}/candidate", operation_id = "show_candidate", tag = "personas",
    params(("persona" = String, Path, description = "id or name")),
    responses(
        (status = 200, body = CandidateReport),
        (status = 404, description = "no such persona, or it has no candidate"),
        (status = 503, description = "the data path cannot be read"),
    ))]
pub(super) async fn show(
    State(api): State<Api>,
    Named(persona): Named,
) -> Result<Json<CandidateReport>, ProblemDetails> {
    report(&api, &persona).await.map(Json)
}

/// Ends a trial and forgets it
#[utoipa::path(delete, path = "/personas/{persona}/candidate", operation_id = "delete_candidate", tag = "personas",
    params(("persona" = String, Path, description = "id or name")),
    responses(
        (status = 204, description = "it is gone"),
        (status = 404, description = "no such persona, or it has no candidate"),
        (status = 503, description = "the hub is busy or stopping"),
    ))]
pub(super) async fn delete(
    State(api): State<Api>,
    Named(persona): Named,
) -> Result<StatusCode, ProblemDetails> {
    api.command(Command::EndTrial { persona }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a candidate the persona's definition
#[utoipa::path(post, path = "/personas/{persona}/candidate/accept", operation_id = "accept_candidate", tag = "personas",
    params(("persona" = String, Path, description = "id or name")),
    responses(
        (status = 200, body = PersonaView),
        (status = 404, description = "no such persona, or it has no candidate"),
        (status = 409, description = "a file owns it"),
        (status = 412, description = "it changed in between"),
        (status = 503, description = "the hub is busy or stopping"),
    ))]
pub(super) async fn accept(
    State(api): State<Api>,
    Named(persona): Named,
) -> Result<Json<PersonaView>, ProblemDetails> {
    let held = api.persona(&persona)?;
    let candidate = held.candidate.as_ref().ok_or_else(|| none(&persona))?;
    let id = held.id.to_string();
    let document = Box::new(candidate.definition.clone());
    let command = Command::Replace { persona: id.clone(), document, if_generation: Some(held.generation) };
    let reply = api.command(command).await?;
    // A definition that is the live one already leaves its trial running.
    drop(api.command(Command::EndTrial { persona: id }).await);
    Ok(Json(PersonaView { candidate: None, ..*changed(reply)? }))
}

async fn report(api: &Api, persona: &str) -> Result<CandidateReport, ProblemDetails> {
    let held = api.persona(persona)?;
    let candidate = held.candidate.clone().ok_or_else(|| none(persona))?;
    let counts = match held.in_datapath() {
        Some(segment) => api.read(move |datapath| datapath.candidate(segment)).await?,
        None => CandidateCounts::default(),
    };
    Ok(CandidateReport { persona: held.definition.name.clone(), candidate, counts })
}

fn none(persona: &str) -> ProblemDetails {
    ProblemDetails::of_status(StatusCode::NOT_FOUND, format!("persona `{persona}` has no candidate"))
}
