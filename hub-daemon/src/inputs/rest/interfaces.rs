//! `/interfaces`: the records of interfaces that personalities are given to.

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
use crate::command::switch::InterfaceCommand;
use crate::command::{Command, Problem, Rejection, RejectionKind, Reply};
use crate::document::interface::InterfaceRecordDocument;
use crate::document::read::Reading;
use crate::outputs::status::interface_state_name;
use crate::view::switch::InterfaceView;

/// One page of interface records, by name.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct InterfacePage {
    /// The records.
    pub(crate) interfaces: Vec<InterfaceView>,
    /// `cursor` of the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next_cursor: Option<String>,
}

/// Lists interface records
#[utoipa::path(get, path = "/interfaces", tag = "personalities", operation_id = "list_interfaces",
    params(
        ("state" = Option<String>, Query,
            description = "active, draining, applying, verifying, awaiting_confirm, fallback or degraded"),
        ("personality" = Option<String>, Query, description = "name of the personality that it has"),
        ("label" = Option<String>, Query, description = "key=value; may be given several times"),
        ("limit" = Option<u32>, Query, description = "1 to 1000, default 100"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, body = InterfacePage), (status = 400, description = "a parameter is wrong")))]
pub(super) async fn list(
    State(api): State<Api>,
    mut parameters: Parameters,
) -> Result<Json<InterfacePage>, ProblemDetails> {
    let state = parameters.one("state");
    let personality = parameters.one("personality");
    let after = parameters.one("cursor");
    let limit = parameters.number("limit", 100, 1_000);
    let mut labels = Vec::new();
    for text in parameters.all("label") {
        match text.split_once('=') {
            Some((key, value)) => labels.push((key.to_owned(), value.to_owned())),
            None => parameters.refuse("label", &format!("`{text}`: use key=value")),
        }
    }
    parameters.finish()?;
    let snapshot = Arc::clone(&api.hub.snapshot.borrow());
    let all = snapshot.interfaces.values().filter(|view| {
        state.as_ref().is_none_or(|state| *state == interface_state_name(view.state))
            && personality.as_ref().is_none_or(|name| *name == view.current.name)
            && after.as_ref().is_none_or(|after| view.name > *after)
            && labels.iter().all(|(key, value)| has_label(view, key, value))
    });
    let mut interfaces: Vec<InterfaceView> = all.take(limit + 1).map(|view| view.as_ref().clone()).collect();
    let more = interfaces.len() > limit;
    interfaces.truncate(limit);
    let next_cursor = interfaces.last().filter(|_| more).map(|view| view.name.clone());
    Ok(Json(InterfacePage { interfaces, next_cursor }))
}

/// Whether an interface has a label.
pub(super) fn has_label(view: &InterfaceView, key: &str, value: &str) -> bool {
    let labels = view.definition.labels.as_ref();
    labels.and_then(|labels| labels.get(key)).is_some_and(|held| held == value)
}

/// Gives an interface its first personality
#[utoipa::path(post, path = "/interfaces", tag = "personalities", operation_id = "create_interface",
    request_body(content(
        (InterfaceRecordDocument = "application/json"),
        (InterfaceRecordDocument = "application/yaml"),
    )),
    params(
        ("Idempotency-Key" = Option<String>, Header,
            description = "the same key with the same body gets the same answer, for 24 hours"),
    ),
    responses(
        (status = 201, body = InterfaceView, headers(("Location" = String), ("ETag" = String))),
        (status = 400, description = "not JSON"),
        (status = 409, description = "the name, the interface or an address is taken"),
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
    let document = Box::new(body::document(&headers, &bytes, Reading::interface)?);
    let path = uri.path().to_owned();
    let receipts = api.receipts.clone();
    let make = async move {
        let view = record(api.command(Command::Interface(InterfaceCommand::Create { document })).await?)?;
        Ok(Receipt::new(StatusCode::CREATED, &view)?.at(format!("{path}/{}", view.name)).tagged(tag(&view)))
    };
    receipts.once(idempotency::about(key, &uri, &bytes), make).await
}

/// Shows an interface: the personality that it has, those it goes back to, and what it is doing about them
#[utoipa::path(get, path = "/interfaces/{interface}", tag = "personalities", operation_id = "show_interface",
    params(("interface" = String, Path, description = "name of the record")),
    responses(
        (status = 200, body = InterfaceView, headers(("ETag" = String))),
        (status = 404, description = "no such record"),
    ))]
pub(super) async fn show(
    State(api): State<Api>,
    Named(interface): Named,
) -> Result<Response, ProblemDetails> {
    Ok(with_tag(&*api.interface(&interface)?))
}

/// Replaces an interface's record
///
/// The interface itself and what leads to it stay; which personality it has is the business of switches.
#[utoipa::path(put, path = "/interfaces/{interface}", tag = "personalities", operation_id = "replace_interface",
    request_body(content(
        (InterfaceRecordDocument = "application/json"),
        (InterfaceRecordDocument = "application/yaml"),
    )),
    params(
        ("interface" = String, Path, description = "name of the record"),
        ("If-Match" = Option<String>, Header, description = "an ETag: of the record, not of its state"),
    ),
    responses(
        (status = 200, body = InterfaceView, headers(("ETag" = String))),
        (status = 400, description = "not JSON"),
        (status = 404, description = "no such record"),
        (status = 409, description = "a file owns it, or it would be about another interface"),
        (status = 412, description = "it changed in between"),
        (status = 413, description = "larger than 1 MiB"),
        (status = 415, description = "neither application/json nor application/yaml"),
        (status = 422, description = "the document is invalid"),
        (status = 503, description = "the hub is busy or stopping"),
    ))]
pub(super) async fn replace(
    State(api): State<Api>,
    Named(interface): Named,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ProblemDetails> {
    let held = api.interface(&interface)?;
    let bytes = body::read(&headers, body, body::DOCUMENT).await?;
    let document = body::document(&headers, &bytes, Reading::interface)?;
    if document.name != interface {
        let detail = format!("the record is `{interface}`: make another one for another name");
        let problems = vec![Problem::new("/name", detail)];
        return Err(Rejection { kind: RejectionKind::Invalid, problems }.into());
    }
    let if_document = match etag::wants(&headers, &tag(&held)) {
        None => None,
        Some(true) => Some(Box::new(held.definition.clone())),
        Some(false) => {
            let problems = vec![Problem::new("", format!("interface record `{interface}` changed"))];
            return Err(Rejection { kind: RejectionKind::Changed, problems }.into());
        }
    };
    let command = InterfaceCommand::Replace { document: Box::new(document), if_document };
    Ok(with_tag(&*record(api.command(Command::Interface(command)).await?)?))
}

/// Forgets an interface: its carrier goes, and what the hub put there for its personality
#[utoipa::path(delete, path = "/interfaces/{interface}", tag = "personalities",
    operation_id = "delete_interface",
    params(("interface" = String, Path, description = "name of the record")),
    responses(
        (status = 204, description = "it is gone"),
        (status = 404, description = "no such record"),
        (status = 409, description = "a switch is under way, or a file owns it"),
        (status = 503, description = "the hub is busy or stopping"),
    ))]
pub(super) async fn delete(
    State(api): State<Api>,
    Named(interface): Named,
) -> Result<StatusCode, ProblemDetails> {
    api.command(Command::Interface(InterfaceCommand::Delete { interface })).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The record of a reply.
pub(super) fn record(reply: Reply) -> Result<Box<InterfaceView>, ProblemDetails> {
    let Reply::Interface(view) = reply else {
        return Err(ProblemDetails::unavailable("the hub gave no interface record"));
    };
    Ok(view)
}

/// The tag of a record: of what somebody wrote, whatever its state.
fn tag(view: &InterfaceView) -> HeaderValue {
    etag::of_digest(&etag::hash(&(&view.definition, view.created_at)))
}

fn with_tag(view: &InterfaceView) -> Response {
    ([(header::ETAG, tag(view))], Json(view)).into_response()
}

impl Api {
    /// The record of this name.
    pub(super) fn interface(&self, name: &str) -> Result<Arc<InterfaceView>, ProblemDetails> {
        let snapshot = self.hub.snapshot.borrow();
        let found = snapshot.interfaces.get(name).cloned();
        found.ok_or_else(|| ProblemDetails::not_found("interface record", name))
    }
}
