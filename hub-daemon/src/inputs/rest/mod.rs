//! The REST API: JSON over HTTP/1, the same routes at `/` and at `/v1`.
//!
//! A change is a [`crate::command::Command`] to the hub's task; reading takes the last published
//! snapshot, or asks the data path. Every refusal is a problem document (RFC 9457) that lists every error
//! found. Nothing here knows what a persona means.

mod alerts;
mod apply;
mod body;
mod caller;
mod candidate;
mod datapath;
mod decode;
mod documents;
mod drains;
mod etag;
mod events;
mod experiments;
mod filter;
mod idempotency;
mod interfaces;
mod journal;
mod lists;
mod merge;
mod names;
mod node;
mod openapi;
mod operations;
mod orders;
mod others;
mod personalities;
mod personas;
mod place;
mod pools;
pub mod problem;
mod query;
mod removal;
mod status;
mod switches;
mod templates;
mod threat;
mod threat_alerts;
mod top;
mod trace;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use tokio::sync::{Semaphore, oneshot};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::command::{Command, Rejection, Reply};
use crate::inputs::HubHandle;
use crate::inputs::server::Peer;

use self::idempotency::Answers;
use self::operations::Receipt;
use self::place::Made;
use self::problem::ProblemDetails;

pub(crate) use self::apply::{Applied, ApplyDocument};
pub(crate) use self::caller::SESSION;
pub(crate) use self::candidate::CandidateReport;
pub(crate) use self::datapath::{FlowList, HubCounters, NamedFlow};
pub(crate) use self::drains::DrainView;
pub use self::events::Lagged;
pub(crate) use self::experiments::{ExperimentDocument, ExperimentList};
pub(crate) use self::journal::SwitchJournal;
pub(crate) use self::lists::SetView;
pub(crate) use self::node::{NodeList, NodeStanding};
pub(crate) use self::orders::{GroupDocument, GroupInterfaces, SwitchDocument};
pub use self::pools::PoolList;
pub use self::removal::{Orphans, Removal};
pub use self::status::Readiness;
pub use self::templates::TemplateList;
pub(crate) use self::threat::{ThreatDocument, ThreatView};
pub(crate) use self::top::{TopPersona, TopView};

/// Most bytes of a request's body.
pub const BODY_BYTES: usize = 1_024 * 1_024;
/// Most time to receive a request's body.
const BODY_TIME: Duration = Duration::from_secs(5);
/// Most time to wait for the hub's task.
const HUB_TIME: Duration = Duration::from_secs(10);
/// Most event streams at once: half the connections, so that the other half can be worked with.
pub const STREAMS: usize = 32;

/// What the handlers share.
#[derive(Clone, Debug)]
struct Api {
    hub: HubHandle,
    answers: Answers<Made>,
    receipts: Answers<Receipt>,
    streams: Arc<Semaphore>,
}

/// The API, to be served on any number of listeners.
pub fn router(hub: HubHandle) -> Router {
    let streams = Arc::new(Semaphore::new(STREAMS));
    let api = Api { hub, answers: Answers::default(), receipts: Answers::default(), streams };
    let (routes, description) = described_routes().with_state(api).split_for_parts();
    let routes = routes.merge(openapi::description(description));
    Router::new()
        .merge(routes.clone())
        .nest("/v1", routes)
        .merge(openapi::pages())
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn(log))
}

/// The routes with their `OpenAPI` description.
fn described_routes() -> OpenApiRouter<Api> {
    openapi::described(
        OpenApiRouter::new()
            .routes(routes!(personas::list, personas::create))
            .routes(routes!(personas::show, personas::replace, personas::patch, removal::delete))
            .routes(routes!(removal::orphans, removal::collect))
            .routes(routes!(pools::pools))
            .routes(routes!(node::node))
            .routes(routes!(node::nodes))
            .routes(routes!(templates::templates))
            .routes(routes!(candidate::show, candidate::put, candidate::delete))
            .routes(routes!(candidate::accept))
            .routes(routes!(lists::sets))
            .routes(routes!(lists::add, lists::remove))
            .routes(routes!(lists::quarantine, lists::isolate))
            .routes(routes!(lists::lift))
            .routes(routes!(datapath::persona_flows))
            .routes(routes!(datapath::persona_counters))
            .routes(routes!(datapath::flows))
            .routes(routes!(datapath::counters))
            .routes(routes!(datapath::why))
            .routes(routes!(names::names))
            .routes(routes!(top::top))
            .routes(routes!(trace::trace))
            .routes(routes!(personalities::list, personalities::create))
            .routes(routes!(personalities::show, personalities::delete))
            .routes(routes!(interfaces::list, interfaces::create))
            .routes(routes!(interfaces::show, interfaces::replace, interfaces::delete))
            .routes(routes!(switches::switch))
            .routes(routes!(switches::switch_all))
            .routes(routes!(switches::revert))
            .routes(routes!(switches::confirm))
            .routes(routes!(switches::cancel))
            .routes(routes!(journal::journal))
            .routes(routes!(operations::list))
            .routes(routes!(operations::show))
            .routes(routes!(operations::follow))
            .routes(routes!(drains::connections))
            .routes(routes!(threat::show, threat::put))
            .routes(routes!(threat_alerts::notify))
            .routes(routes!(experiments::list, experiments::begin))
            .routes(routes!(experiments::show, experiments::change, experiments::delete))
            .routes(routes!(experiments::end))
            .routes(routes!(apply::apply))
            .routes(routes!(apply::confirm))
            .routes(routes!(apply::revert))
            .routes(routes!(documents::plan))
            .routes(routes!(documents::reload))
            .routes(routes!(events::events))
            .routes(routes!(alerts::alerts))
            .routes(routes!(status::status))
            .routes(routes!(status::healthz))
            .routes(routes!(status::readyz)),
    )
}

async fn not_found() -> ProblemDetails {
    ProblemDetails::of_status(StatusCode::NOT_FOUND, "no such route; see /openapi.json or /docs")
}

async fn method_not_allowed() -> ProblemDetails {
    ProblemDetails::of_status(
        StatusCode::METHOD_NOT_ALLOWED,
        "the route has no such method; see the `Allow` header",
    )
}

/// Says who asked for what: changes at `info`, reading at `debug`.
async fn log(request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().map(ToString::to_string).unwrap_or_default();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    let status = response.status().as_u16();
    if matches!(method, Method::GET | Method::HEAD | Method::OPTIONS) {
        tracing::debug!(peer, %method, path, status, "request");
    } else {
        tracing::info!(peer, %method, path, status, "request");
    }
    response
}

impl Api {
    /// Asks the hub's task; a refusal is a problem, a task that does not answer in time is a 503.
    async fn command(&self, command: Command) -> Result<Reply, ProblemDetails> {
        self.hub_command(command).await?.map_err(ProblemDetails::from)
    }

    /// Asks the hub's task; a task that does not answer in time is a 503.
    async fn hub_command(&self, command: Command) -> Result<Result<Reply, Rejection>, ProblemDetails> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.hub.commands.send((command, answer)).await.ok()?;
            answered.await.ok()
        };
        match tokio::time::timeout(HUB_TIME, asked).await {
            Ok(Some(reply)) => Ok(reply),
            Ok(None) => Err(ProblemDetails::unavailable("the hub is stopping")),
            Err(_elapsed) => Err(ProblemDetails::unavailable(
                "the hub is busy: it may still do what you asked; read before you try again",
            )),
        }
    }
}
