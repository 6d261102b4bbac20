//! `/interfaces/{interface}/switch` and what is said of a switch: revert, confirm, cancel; `/switches` of groups.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::caller::Caller;
use super::operations::{OperationList, Receipt, patience};
use super::orders::{GroupDocument, SwitchDocument};
use super::problem::ProblemDetails;
use super::query::Named;
use super::{Api, body, idempotency};
use crate::command::switch::{Said, SwitchCommand};
use crate::view::switch::{OperationView, PlanView};

/// What switches would do.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct PlanList {
    /// One for each interface.
    plans: Vec<PlanView>,
}

/// What is said of a switch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SaidDocument {
    /// Why, for people and the journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// Switches an interface to another personality
///
/// Answers when the switch is prepared, with the place where it can be followed; `Prefer: wait=30` waits for
/// its end. `dry_run` answers with a plan and changes nothing.
#[utoipa::path(post, path = "/interfaces/{interface}/switch", tag = "personalities",
    operation_id = "switch_interface", request_body = SwitchDocument,
    params(
        ("interface" = String, Path, description = "name of the record"),
        ("Prefer" = Option<String>, Header, description = "wait=SECONDS: wait for the end, at most 600"),
        ("Idempotency-Key" = Option<String>, Header,
            description = "the same key with the same body gets the same answer, for 24 hours"),
    ),
    responses(
        (status = 200, body = OperationView, description = "it is over; with `dry_run` a PlanView"),
        (status = 202, body = OperationView, description = "it is under way", headers(("Location" = String))),
        (status = 400, description = "not JSON"),
        (status = 404, description = "no such record"),
        (status = 409, description = "a switch is under way, or it has that personality already"),
        (status = 413, description = "larger than 1 MiB"),
        (status = 415, description = "not application/json"),
        (status = 422, description = "the order is invalid, or there is no such personality"),
        (status = 503, description = "the hub is busy or stopping"),
        (status = 507, description = "a limit of the hub is reached"),
    ))]
pub(super) async fn switch(
    State(api): State<Api>,
    Named(interface): Named,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Receipt, ProblemDetails> {
    api.interface(&interface)?;
    let key = idempotency::key(&headers)?;
    let bytes = body::read(&headers, body, body::JSON).await?;
    let asked: SwitchDocument = body::other(&bytes)?;
    let order = api.order(&interface, asked.personality.as_deref(), &asked, &caller)?;
    if asked.dry_run == Some(true) {
        return Receipt::new(StatusCode::OK, &api.plan(order).await?);
    }
    let receipts = api.receipts.clone();
    let wait = patience(&headers);
    let make = async move {
        let views = api.switches(SwitchCommand::Start(vec![order]), wait).await?;
        one(&views)
    };
    receipts.once(idempotency::about(key, &uri, &bytes), make).await
}

/// Switches several interfaces at once: all of them, or none
#[utoipa::path(post, path = "/switches", tag = "personalities", operation_id = "switch_interfaces",
    request_body = GroupDocument,
    params(
        ("Prefer" = Option<String>, Header, description = "wait=SECONDS: wait for the end, at most 600"),
        ("Idempotency-Key" = Option<String>, Header,
            description = "the same key with the same body gets the same answer, for 24 hours"),
    ),
    responses(
        (status = 200, body = OperationList, description = "they are over; with `dry_run` a PlanList"),
        (status = 202, body = OperationList, description = "they are under way"),
        (status = 400, description = "not JSON"),
        (status = 409, description = "one of them is being switched, or has that personality already"),
        (status = 413, description = "larger than 1 MiB"),
        (status = 415, description = "not application/json"),
        (status = 422, description = "the order is invalid, or no interface is meant"),
        (status = 503, description = "the hub is busy or stopping"),
        (status = 507, description = "a limit of the hub is reached"),
    ))]
pub(super) async fn switch_all(
    State(api): State<Api>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Receipt, ProblemDetails> {
    let key = idempotency::key(&headers)?;
    let bytes = body::read(&headers, body, body::JSON).await?;
    let asked: GroupDocument = body::other(&bytes)?;
    let meant = api.meant(&asked)?;
    let orders = api.orders(&meant, &asked.switch, &caller)?;
    let names: Vec<String> = meant.into_iter().map(|(name, _)| name).collect();
    if asked.switch.dry_run == Some(true) {
        let mut plans = Vec::new();
        for order in orders {
            plans.push(api.plan(order).await.map_err(|problem| problem.below("/switch"))?);
        }
        return Receipt::new(StatusCode::OK, &PlanList { plans });
    }
    let receipts = api.receipts.clone();
    let wait = patience(&headers);
    let make = async move {
        let operations = api.start_all(orders, &names, wait).await?;
        let over = operations.iter().all(|view| view.outcome.is_some());
        let status = if over { StatusCode::OK } else { StatusCode::ACCEPTED };
        Receipt::new(status, &OperationList { operations })
    };
    receipts.once(idempotency::about(key, &uri, &bytes), make).await
}

/// Has an interface go back: gives up a switch that is under way, else to what was good last, else to the default
#[utoipa::path(post, path = "/interfaces/{interface}/revert", tag = "personalities",
    operation_id = "revert_interface", request_body = Option<SaidDocument>,
    params(
        ("interface" = String, Path, description = "name of the record"),
        ("Prefer" = Option<String>, Header, description = "wait=SECONDS: wait for the end, at most 600"),
    ),
    responses(
        (status = 200, body = OperationView, description = "it is over"),
        (status = 202, body = OperationView, description = "it is under way", headers(("Location" = String))),
        (status = 404, description = "no such record"),
        (status = 409, description = "there is nothing to go back to, or it goes back already"),
        (status = 415, description = "not application/json"),
        (status = 422, description = "the body is invalid"),
        (status = 503, description = "the hub is busy or stopping"),
    ))]
pub(super) async fn revert(
    State(api): State<Api>,
    Named(interface): Named,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Receipt, ProblemDetails> {
    let said = said(interface, caller, &headers, body).await?;
    one(&api.switches(SwitchCommand::Revert(said), patience(&headers)).await?)
}

/// Keeps a switch that waits for confirmation, and all of its group
#[utoipa::path(post, path = "/interfaces/{interface}/confirm", tag = "personalities",
    operation_id = "confirm_switch", request_body = Option<SaidDocument>,
    params(("interface" = String, Path, description = "name of the record")),
    responses(
        (status = 200, body = OperationView, description = "it stays"),
        (status = 404, description = "no such record"),
        (status = 409, description = "no switch waits for confirmation"),
        (status = 415, description = "not application/json"),
        (status = 422, description = "the body is invalid"),
        (status = 503, description = "the hub is busy or stopping"),
    ))]
pub(super) async fn confirm(
    State(api): State<Api>,
    Named(interface): Named,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Receipt, ProblemDetails> {
    let said = said(interface, caller, &headers, body).await?;
    one(&api.switches(SwitchCommand::Confirm(said), None).await?)
}

/// Gives up a switch that has not been made yet, and all of its group
#[utoipa::path(post, path = "/interfaces/{interface}/cancel", tag = "personalities",
    operation_id = "cancel_switch", request_body = Option<SaidDocument>,
    params(("interface" = String, Path, description = "name of the record")),
    responses(
        (status = 200, body = OperationView, description = "it is given up"),
        (status = 404, description = "no such record"),
        (status = 409, description = "no switch is under way, or it has been made: revert it"),
        (status = 415, description = "not application/json"),
        (status = 422, description = "the body is invalid"),
        (status = 503, description = "the hub is busy or stopping"),
    ))]
pub(super) async fn cancel(
    State(api): State<Api>,
    Named(interface): Named,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Receipt, ProblemDetails> {
    let said = said(interface, caller, &headers, body).await?;
    one(&api.switches(SwitchCommand::Cancel(said), None).await?)
}

/// The answer about one switch.
fn one(views: &[OperationView]) -> Result<Receipt, ProblemDetails> {
    let Some(view) = views.first() else {
        return Err(ProblemDetails::unavailable("the hub does not say what became of the switch"));
    };
    let status = if view.outcome.is_some() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok(Receipt::new(status, view)?.at(format!("/v1/operations/{}", view.id.0)))
}

async fn said(
    interface: String,
    caller: Caller,
    headers: &HeaderMap,
    body: Body,
) -> Result<Said, ProblemDetails> {
    let is_empty = headers.get(header::CONTENT_LENGTH).is_none_or(|length| length == "0");
    let bytes = if is_empty && !headers.contains_key(header::CONTENT_TYPE) {
        Bytes::new()
    } else {
        body::read(headers, body, body::JSON).await?
    };
    let said: SaidDocument = if bytes.is_empty() { SaidDocument::default() } else { body::other(&bytes)? };
    Ok(Said { interface, by: caller.by, why: said.why.unwrap_or_default() })
}
