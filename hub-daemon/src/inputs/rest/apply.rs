//! `/apply`, `/confirm` and `/revert`: several personas as one change, which may go back by itself.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::problem::ProblemDetails;
use super::{Api, body, decode};
use crate::command::{Command, Problem, Rejection, RejectionKind, Reply};
use crate::kernel::boot;
use crate::model::span;

/// Personas to create or replace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApplyDocument {
    /// Their definitions; a name that is taken means that persona.
    #[schema(value_type = Vec<crate::document::persona::PersonaDocument>)]
    pub(crate) personas: Vec<Value>,
    /// Take the change back after this long, as `120s`, unless it is confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) confirm: Option<String>,
}

/// What a change did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Applied {
    /// Names of personas that are new.
    pub(crate) created: Vec<String>,
    /// Names of personas that were changed.
    pub(crate) updated: Vec<String>,
    /// When the change goes back unless it is confirmed.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) confirm_until: Option<Timestamp>,
}

/// Creates and replaces personas as one change
///
/// With `confirm` it is live at once and goes back by itself, also after a crash or a reboot of the machine,
/// unless `/confirm` comes in time. Until then nothing else can be changed.
#[utoipa::path(post, path = "/apply", tag = "personas", request_body = ApplyDocument,
    responses(
        (status = 200, body = Applied),
        (status = 400, description = "not JSON"),
        (status = 409, description = "a file owns a persona, a range is taken, or a change waits"),
        (status = 413, description = "larger than 1 MiB"),
        (status = 415, description = "not application/json"),
        (status = 422, description = "a document is invalid"),
        (status = 503, description = "the hub is busy or stopping"),
        (status = 507, description = "a limit of the hub is reached"),
    ))]
pub(super) async fn apply(
    State(api): State<Api>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Applied>, ProblemDetails> {
    let bytes = body::read(&headers, body, body::JSON).await?;
    let asked: ApplyDocument = body::other(&bytes)?;
    let (mut problems, mut late) = (Vec::new(), Vec::new());
    let mut documents = Vec::new();
    for (index, value) in asked.personas.into_iter().enumerate() {
        let name = value.get("name").and_then(Value::as_str);
        let ends = api.ends(name.and_then(|name| api.persona(name).ok()).as_deref());
        match decode::persona_from_value(value, &ends) {
            Ok(document) => {
                late.extend(below(index, ends(&document)));
                documents.push(document);
            }
            Err(rejection) => problems.extend(below(index, rejection.problems)),
        }
    }
    let life = asked.confirm.as_deref().map(span::parse).transpose();
    if let Err(error) = &life {
        problems.push(Problem::new("/confirm", error.to_string()));
    }
    if !problems.is_empty() {
        // The hub is not asked, which would find these.
        problems.extend(late);
        return Err(Rejection { kind: RejectionKind::Invalid, problems }.into());
    }
    let confirm = life.ok().flatten().map(boot::deadline);
    let confirm_until = confirm.as_ref().map(|deadline| deadline.until);
    let reply = api.hub_command(Command::Apply { documents, confirm }).await?;
    match reply {
        Ok(Reply::Applied { created, updated }) => Ok(Json(Applied { created, updated, confirm_until })),
        Ok(_) => Err(ProblemDetails::unavailable("the hub does not say what it did")),
        Err(rejection) => {
            let problems = rejection.problems.into_iter().map(|problem| {
                let within = !problem.pointer.is_empty();
                let pointer = if within { format!("/personas{}", problem.pointer) } else { String::new() };
                Problem { pointer, ..problem }
            });
            Err(Rejection { problems: problems.collect(), kind: rejection.kind }.into())
        }
    }
}

fn below(index: usize, problems: Vec<Problem>) -> impl Iterator<Item = Problem> {
    problems
        .into_iter()
        .map(move |problem| Problem { pointer: format!("/personas/{index}{}", problem.pointer), ..problem })
}

/// Keeps the change that waits for confirmation
#[utoipa::path(post, path = "/confirm", tag = "personas",
    responses(
        (status = 204, description = "it stays"),
        (status = 404, description = "no change waits"),
        (status = 503, description = "the hub is busy or stopping"),
    ))]
pub(super) async fn confirm(State(api): State<Api>) -> Result<StatusCode, ProblemDetails> {
    api.command(Command::Confirm).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes back the change that waits for confirmation
#[utoipa::path(post, path = "/revert", tag = "personas",
    responses(
        (status = 204, description = "everything is as before"),
        (status = 404, description = "no change waits"),
        (status = 503, description = "the hub is busy or stopping"),
    ))]
pub(super) async fn revert(State(api): State<Api>) -> Result<StatusCode, ProblemDetails> {
    api.command(Command::Revert { why: "an operator said so".to_owned() }).await?;
    Ok(StatusCode::NO_CONTENT)
}
