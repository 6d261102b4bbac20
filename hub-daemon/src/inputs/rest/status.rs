//! `/status`, `/healthz` and `/readyz`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::problem::ProblemDetails;
use crate::datapath_view::FlowTable;
use crate::outputs::status::StatusView;
use crate::view::Condition;

/// Answer of the probes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Readiness {
    /// `ok` for a daemon that answers, `ready` for one whose kernel state is in place.
    pub status: String,
}

/// Shows the hub's own condition
#[utoipa::path(get, path = "/status", tag = "hub", responses((status = 200, body = StatusView)))]
pub(super) async fn status(State(api): State<Api>) -> Json<StatusView> {
    let flow_table = api.read(|datapath| Ok(datapath.flow_counts()?.table)).await;
    let snapshot = Arc::clone(&api.hub.snapshot.borrow());
    let attachments = api.hub.attachments.borrow().clone();
    let (table, fault) = match flow_table {
        Ok(table) => (table, None),
        Err(problem) => (FlowTable::default(), Some(problem.detail)),
    };
    let mut view = StatusView::new(&snapshot, api.hub.started, attachments, table, &api.hub.reconcile);
    let unreadable = fault.map(|message| Condition { reason: "DataPathUnreadable".to_owned(), message });
    view.conditions.extend(unreadable);
    Json(view)
}

/// Says whether the daemon answers
#[utoipa::path(get, path = "/healthz", tag = "hub",
    responses((status = 200, body = Readiness), (status = 503, description = "the hub's task has ended")))]
pub(super) async fn healthz(State(api): State<Api>) -> Result<Json<Readiness>, ProblemDetails> {
    if api.hub.commands.is_closed() {
        return Err(ProblemDetails::unavailable("the hub's task has ended"));
    }
    Ok(Json(Readiness { status: "ok".to_owned() }))
}

/// Says whether the kernel state is in place
#[utoipa::path(get, path = "/readyz", tag = "hub",
    responses((status = 200, body = Readiness), (status = 503, description = "not yet")))]
pub(super) async fn readyz(State(api): State<Api>) -> Result<Json<Readiness>, ProblemDetails> {
    if !api.hub.snapshot.borrow().ready {
        return Err(ProblemDetails::unavailable("the kernel does not yet hold what the documents say"));
    }
    Ok(Json(Readiness { status: "ready".to_owned() }))
}
