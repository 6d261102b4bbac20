//! `/operations`: switches under way and over, and what a request that ordered one waits for.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive};
use axum::response::{IntoResponse, Response, Sse};
use axum::{Extension, Json};
use futures::Stream;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, watch};
use utoipa::ToSchema;

use super::Api;
use super::events::{KEEP_ALIVE, as_sse, closed};
use super::problem::ProblemDetails;
use super::query::{Named, Parameters};
use crate::inputs::server::Closing;
use crate::systems::personality::switch::OperationId;
use crate::view::Snapshot;
use crate::view::switch::OperationView;

/// Longest time that a request waits for the end of a switch.
const WAIT: Duration = Duration::from_mins(10);

/// Switches that can be asked for, the oldest first.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct OperationList {
    /// Under way, and the last ones that are over.
    pub(crate) operations: Vec<OperationView>,
}

/// Lists switches: those under way, and the last 256 that are over
#[utoipa::path(get, path = "/operations", tag = "personalities", operation_id = "list_operations",
    params(("interface" = Option<String>, Query, description = "only those of this record")),
    responses((status = 200, body = OperationList), (status = 400, description = "a parameter is wrong")))]
pub(super) async fn list(
    State(api): State<Api>,
    mut parameters: Parameters,
) -> Result<Json<OperationList>, ProblemDetails> {
    let interface = parameters.one("interface");
    parameters.finish()?;
    let snapshot = Arc::clone(&api.hub.snapshot.borrow());
    let those = snapshot.operations.values();
    let those = those.filter(|view| interface.as_ref().is_none_or(|name| *name == view.interface));
    Ok(Json(OperationList { operations: those.map(|view| view.as_ref().clone()).collect() }))
}

/// Shows a switch: its phases, flows and checks, and how it ended
#[utoipa::path(get, path = "/operations/{operation}", tag = "personalities",
    operation_id = "show_operation",
    params(("operation" = String, Path, description = "its id")),
    responses(
        (status = 200, body = OperationView),
        (status = 404, description = "no such switch, or one that is over for long"),
    ))]
pub(super) async fn show(
    State(api): State<Api>,
    Named(operation): Named,
) -> Result<Json<OperationView>, ProblemDetails> {
    Ok(Json(api.operation(&operation)?.as_ref().clone()))
}

/// Follows a switch: an event for each change, until it is over
///
/// Events are named `operation`; their data is an `OperationView`. The last one has an `outcome`.
#[utoipa::path(get, path = "/operations/{operation}/events", tag = "personalities",
    operation_id = "follow_operation",
    params(("operation" = String, Path, description = "its id")),
    responses(
        (status = 200, body = OperationView, content_type = "text/event-stream"),
        (status = 404, description = "no such switch, or one that is over for long"),
        (status = 503, description = "too many streams"),
    ))]
pub(super) async fn follow(
    State(api): State<Api>,
    closing: Option<Extension<Closing>>,
    Named(operation): Named,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ProblemDetails> {
    api.operation(&operation)?;
    let permit = api.stream()?;
    let stage = Stage {
        snapshots: api.hub.snapshot,
        closing: closing.map(|Extension(closing)| closing),
        id: OperationId(operation),
        shown: None,
        _permit: permit,
    };
    Ok(Sse::new(futures::stream::unfold(stage, next)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// What a stream needs between two events.
struct Stage {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    closing: Option<Closing>,
    id: OperationId,
    shown: Option<Arc<OperationView>>,
    _permit: OwnedSemaphorePermit,
}

async fn next(mut stage: Stage) -> Option<(Result<Event, Infallible>, Stage)> {
    if stage.shown.as_ref().is_some_and(|shown| shown.outcome.is_some()) {
        return None;
    }
    let (id, shown) = (stage.id.clone(), stage.shown.take());
    let is_news = |snapshot: &Arc<Snapshot>| snapshot.operations.get(&id) != shown.as_ref();
    let found = tokio::select! {
        changed = stage.snapshots.wait_for(is_news) => changed.ok()?.operations.get(&stage.id).cloned(),
        () = closed(stage.closing.as_mut()) => return None,
    };
    let view = found?;
    let event = as_sse("operation", view.as_ref());
    stage.shown = Some(view);
    Some((Ok(event), stage))
}

/// The answer to a request that made something; kept as it is for whoever asks with the same key.
#[derive(Clone, Debug)]
pub(super) struct Receipt {
    status: StatusCode,
    body: Value,
    location: Option<String>,
    tag: Option<HeaderValue>,
}

impl Receipt {
    pub(super) fn new(status: StatusCode, body: &impl Serialize) -> Result<Self, ProblemDetails> {
        let body =
            serde_json::to_value(body).map_err(|error| ProblemDetails::unavailable(&error.to_string()))?;
        Ok(Self { status, body, location: None, tag: None })
    }

    /// With the place where it is found.
    pub(super) fn at(self, location: String) -> Self {
        Self { location: Some(location), ..self }
    }

    /// With its `ETag`.
    pub(super) fn tagged(self, tag: HeaderValue) -> Self {
        Self { tag: Some(tag), ..self }
    }
}

impl IntoResponse for Receipt {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        let location = self.location.and_then(|location| HeaderValue::from_str(&location).ok());
        let headers = response.headers_mut();
        headers.extend(location.map(|location| (header::LOCATION, location)));
        headers.extend(self.tag.map(|tag| (header::ETAG, tag)));
        response
    }
}

/// How long a request with `Prefer: wait=SECONDS` (RFC 7240 section 4.3) waits for the end.
pub(super) fn patience(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all("prefer").into_iter().filter_map(|value| value.to_str().ok());
    let mut waits = values.flat_map(|value| value.split([',', ';'])).filter_map(|token| {
        let (name, seconds) = token.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| seconds.trim().trim_matches('"').parse().ok())?
    });
    waits.next().map(|seconds| Duration::from_secs(seconds).min(WAIT))
}

impl Api {
    /// The switch with this id.
    pub(super) fn operation(&self, id: &str) -> Result<Arc<OperationView>, ProblemDetails> {
        let snapshot = self.hub.snapshot.borrow();
        let found = snapshot.operations.get(&OperationId(id.to_owned())).cloned();
        found.ok_or_else(|| ProblemDetails::not_found("operation", id))
    }

    /// Switches when they are over, or as they are after the time.
    pub(super) async fn when_over(&self, views: Vec<OperationView>, time: Duration) -> Vec<OperationView> {
        let is_over = |snapshot: &Snapshot| {
            let of = |view: &OperationView| snapshot.operations.get(&view.id);
            views.iter().all(|view| of(view).is_some_and(|held| held.outcome.is_some()))
        };
        let mut snapshots = self.hub.snapshot.clone();
        drop(tokio::time::timeout(time, snapshots.wait_for(|snapshot| is_over(snapshot))).await);
        let snapshot = Arc::clone(&self.hub.snapshot.borrow());
        let held = |view: &OperationView| snapshot.operations.get(&view.id).map(|held| held.as_ref().clone());
        views.iter().map(|view| held(view).unwrap_or_else(|| view.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefer_says_how_long_to_wait() {
        let of = |value: &'static str| {
            let headers: HeaderMap =
                [(header::HeaderName::from_static("prefer"), HeaderValue::from_static(value))]
                    .into_iter()
                    .collect();
            patience(&headers).map(|time| time.as_secs())
        };
        assert_eq!(of("wait=30"), Some(30));
        assert_eq!(of("respond-async, wait=5"), Some(5));
        assert_eq!(of("wait=999999"), Some(600));
        assert_eq!(of("respond-async"), None);
        assert_eq!(of("wait=soon"), None);
    }
}
