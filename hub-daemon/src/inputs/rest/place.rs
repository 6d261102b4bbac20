//! Chooses the hub of a persona that names none, and has it created there.
//!
//! A hub that gets the persona gets it with its own name in it, so that it never asks others again. Here it is
//! noted first, as one of another hub: what is wrong with it by itself, or with its name, is found before anybody
//! is asked, and the note is taken back when nobody took the persona.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderName, Method, StatusCode, header};

use super::others::{self, Silence};
use super::personas::admit;
use super::problem::ProblemDetails;
use super::{Api, HUB_TIME, idempotency};
use crate::command::{Command, Problem, Rejection, RejectionKind, Reply};
use crate::document::persona::PersonaDocument;
use crate::document::template;
use crate::model::key::Key;
use crate::model::nodes::OtherNode;
use crate::systems::persona::choice::{Asked, Choice};
use crate::view::{PersonaView, Snapshot};

/// Most time for another hub to take a persona: as long as it waits itself, and a moment.
const CREATE_TIME: Duration = HUB_TIME.saturating_add(Duration::from_secs(5));
/// Where another hub creates personas.
const PERSONAS: &str = "/v1/personas";

/// A persona that was created.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) persona: Box<PersonaView>,
    /// Where it is, on another hub.
    pub(super) location: Option<String>,
}

/// How a persona is to be created.
#[derive(Clone, Debug)]
pub(super) struct Manner {
    pub(super) key: Option<Key>,
    /// Whether to wait for the kernel.
    pub(super) wait: bool,
}

/// Creates a persona where it belongs.
pub(super) async fn make(
    api: Api,
    document: PersonaDocument,
    manner: Manner,
) -> Result<Made, ProblemDetails> {
    let snapshot = Arc::clone(&api.hub.snapshot.borrow());
    let document = template::whole(document, &snapshot.templates);
    let is_open = document.gateway.as_ref().is_some_and(|gateway| gateway.choose.is_some());
    if !is_open || document.template.is_some() {
        let persona = admit(&api, document, &manner).await?;
        return Ok(Made { persona, location: None });
    }
    // In a task of its own: a client that goes away must not leave it half done.
    let task = tokio::spawn(async move { choose(&api, &snapshot, &document, &manner).await });
    task.await.map_err(|error| ProblemDetails::unavailable(&error.to_string()))?
}

async fn choose(
    api: &Api,
    snapshot: &Snapshot,
    document: &PersonaDocument,
    manner: &Manner,
) -> Result<Made, ProblemDetails> {
    let asked =
        Asked::new(document).map_err(|problems| Rejection { kind: RejectionKind::Invalid, problems })?;
    let mut choice = match chosen(api, manner).await? {
        Some(before) => Choice { order: vec![before], unfit: Vec::new() },
        None => among(&asked, snapshot, &document.name).await,
    };
    for name in std::mem::take(&mut choice.order) {
        let placed = Asked::placed(document, &name);
        let tried = match snapshot.nodes.iter().find(|node| node.name == name) {
            Some(node) => there(api, node, placed, manner).await?,
            None => here(api, placed, manner).await?,
        };
        match tried {
            Ok(made) => {
                tracing::info!(persona = document.name, node = name, "hub chosen");
                return Ok(made);
            }
            Err(why) => choice.unfit.push((name, why)),
        }
    }
    choice.unfit.sort();
    let problem = |(name, why)| Problem::new("/gateway", format!("no hub takes it; `{name}`: {why}"));
    let problems = choice.unfit.into_iter().map(problem).collect();
    Err(Rejection { kind: RejectionKind::Invalid, problems }.into())
}

/// Hubs to be asked, by what each says of itself.
async fn among(asked: &Asked, snapshot: &Snapshot, name: &str) -> Choice {
    let said = others::tell(&snapshot.nodes, Some(name)).await;
    let own_name = snapshot.node.name.as_deref().unwrap_or("this hub");
    let others = snapshot.nodes.iter().zip(&said);
    let others = others.map(|(node, said)| (node.name.as_str(), said.as_ref().map_err(String::as_str)));
    asked.choose(std::iter::once((own_name, Ok(&snapshot.node))).chain(others))
}

/// The hub that was chosen when the same request came before, to an earlier daemon perhaps.
async fn chosen(api: &Api, manner: &Manner) -> Result<Option<String>, ProblemDetails> {
    let Some(key) = manner.key.clone() else { return Ok(None) };
    let Reply::Created(persona) = api.command(Command::Recall { key }).await? else { return Ok(None) };
    Ok(persona.definition.gateway.and_then(|gateway| gateway.node))
}

/// Creates it here; the inner error is why this hub does not take it.
async fn here(
    api: &Api,
    document: PersonaDocument,
    manner: &Manner,
) -> Result<Result<Made, String>, ProblemDetails> {
    match admit(api, document, manner).await {
        Ok(persona) => Ok(Ok(Made { persona, location: None })),
        Err(problem) if is_no_room(problem.status) => Ok(Err(problem.detail)),
        Err(problem) => Err(problem),
    }
}

/// Creates it on another hub and notes it here; the inner error is why that hub does not take it.
async fn there(
    api: &Api,
    node: &OtherNode,
    document: PersonaDocument,
    manner: &Manner,
) -> Result<Result<Made, String>, ProblemDetails> {
    let body =
        serde_json::to_vec(&document).map_err(|error| ProblemDetails::unavailable(&error.to_string()))?;
    let note = Manner { key: manner.key.clone(), wait: true };
    let noted = admit(api, document, &note).await?;
    let mut headers = vec![(header::CONTENT_TYPE, "application/json")];
    headers.extend(
        manner.key.as_ref().map(|key| (HeaderName::from_static(idempotency::HEADER), key.text.as_str())),
    );
    headers.extend((!manner.wait).then_some((HeaderName::from_static("prefer"), "respond-async")));
    let answer = others::ask(node, Method::POST, PERSONAS, &headers, Bytes::from(body), CREATE_TIME).await;
    let outcome = match answer {
        Ok(answer) if [StatusCode::CREATED, StatusCode::ACCEPTED].contains(&answer.status) => {
            match serde_json::from_slice(&answer.body) {
                Ok(persona) => {
                    let location = answer.location.map(|path| node.locate(&path));
                    return Ok(Ok(Made { persona: Box::new(persona), location }));
                }
                Err(error) => Err(unknown(node, &error.to_string())),
            }
        }
        Ok(answer) if is_no_room(answer.status.as_u16()) => Ok(answer.problem().detail),
        Ok(answer) if answer.status == StatusCode::SERVICE_UNAVAILABLE => {
            Err(unknown(node, &answer.problem().detail))
        }
        Ok(answer) => {
            let problem = answer.problem();
            Err(ProblemDetails { detail: format!("node `{}`: {}", node.name, problem.detail), ..problem })
        }
        Err(Silence::Unreachable(why)) => Ok(why),
        Err(Silence::Unknown(why)) => Err(unknown(node, &why)),
    };
    let forget = Command::Delete { persona: noted.id.to_string(), if_generation: None, drain: None };
    if let Err(problem) = api.command(forget).await {
        tracing::warn!(persona = %noted.id, problem = problem.detail, "a note of another hub's persona stays");
    }
    outcome.map(Err)
}

/// Whether a refusal with this status is about the hub: what is wrong with the persona was found here.
fn is_no_room(status: u16) -> bool {
    let kinds = [StatusCode::UNPROCESSABLE_ENTITY, StatusCode::INSUFFICIENT_STORAGE];
    kinds.iter().any(|kind| kind.as_u16() == status)
}

/// Another hub may have created it: to try the next one could make it twice.
fn unknown(node: &OtherNode, why: &str) -> ProblemDetails {
    let detail = format!(
        "node `{}` was chosen and may have created it: {why}; ask again with the same Idempotency-Key, then the hub \
         that has it answers",
        node.name
    );
    ProblemDetails::unavailable(&detail)
}
