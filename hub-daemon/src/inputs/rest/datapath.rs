//! `/flows`, `/counters` and `/why`: what the data path holds and what it would do.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::ProblemDetails;
use super::query::{Named, Parameters};
use super::{Api, body};
use crate::datapath_view::{Answer, FlowTable, FlowView, HookCounts, Question, SegmentCounts};
use crate::inputs::datapath::Datapath;
use crate::kernel::names;
use crate::kernel::reader::ReadError;
use crate::model::SegmentId;
use crate::view::Snapshot;

/// Flows in an answer when the request does not say.
const FLOWS: usize = 100;
/// Most flows in an answer.
const FLOWS_MAX: usize = 10_000;

/// A connection with the names of its personas.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct NamedFlow {
    /// The connection.
    #[serde(flatten)]
    pub(crate) flow: FlowView,
    /// Persona of the first end.
    pub(crate) source_persona: Option<String>,
    /// Persona of the other end.
    pub(crate) target_persona: Option<String>,
}

/// Live connections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct FlowList {
    /// The connections, at most `limit`.
    pub(crate) flows: Vec<NamedFlow>,
    /// How full the flow table is.
    pub(crate) flow_table: FlowTable,
}

/// Totals of the data path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct HubCounters {
    /// Totals of every hook.
    pub(crate) hooks: Vec<HookCounts>,
    /// How full the flow table is.
    pub(crate) flow_table: FlowTable,
}

/// Lists live connections of a persona
#[utoipa::path(get, path = "/personas/{persona}/flows", tag = "data path",
    params(
        ("persona" = String, Path, description = "id or name"),
        ("limit" = Option<u32>, Query, description = "1 to 10000, default 100"),
    ),
    responses(
        (status = 200, body = FlowList),
        (status = 400, description = "a parameter is wrong"),
        (status = 404, description = "no such persona"),
        (status = 503, description = "the data path cannot be read"),
    ))]
pub(super) async fn persona_flows(
    State(api): State<Api>,
    Named(persona): Named,
    parameters: Parameters,
) -> Result<Json<FlowList>, ProblemDetails> {
    let Some(segment) = api.persona(&persona)?.in_datapath() else {
        let flow_table = api.read(|datapath| Ok(datapath.flow_counts()?.table)).await?;
        parameters.finish()?;
        return Ok(Json(FlowList { flows: Vec::new(), flow_table }));
    };
    api.flow_list(Some(segment), parameters).await
}

/// Lists live connections
#[utoipa::path(get, path = "/flows", tag = "data path",
    params(("limit" = Option<u32>, Query, description = "1 to 10000, default 100")),
    responses(
        (status = 200, body = FlowList),
        (status = 400, description = "a parameter is wrong"),
        (status = 503, description = "the data path cannot be read"),
    ))]
pub(super) async fn flows(
    State(api): State<Api>,
    parameters: Parameters,
) -> Result<Json<FlowList>, ProblemDetails> {
    api.flow_list(None, parameters).await
}

/// Shows the counters of a persona
#[utoipa::path(get, path = "/personas/{persona}/counters", tag = "data path",
    params(("persona" = String, Path, description = "id or name")),
    responses(
        (status = 200, body = SegmentCounts),
        (status = 404, description = "no such persona"),
        (status = 503, description = "the data path cannot be read"),
    ))]
pub(super) async fn persona_counters(
    State(api): State<Api>,
    Named(persona): Named,
) -> Result<Json<SegmentCounts>, ProblemDetails> {
    let Some(segment) = api.persona(&persona)?.in_datapath() else {
        return Ok(Json(SegmentCounts::default()));
    };
    let read = move |datapath: &dyn Datapath| {
        let mut counts = datapath.segment(segment)?;
        counts.queues = datapath.queues()?.remove(&segment).unwrap_or_default();
        Ok(counts)
    };
    api.read(read).await.map(Json)
}

/// Shows the totals of the data path
#[utoipa::path(get, path = "/counters", tag = "data path",
    responses(
        (status = 200, body = HubCounters),
        (status = 503, description = "the data path cannot be read"),
    ))]
pub(super) async fn counters(State(api): State<Api>) -> Result<Json<HubCounters>, ProblemDetails> {
    let counters = api.read(|datapath| {
        Ok(HubCounters { hooks: datapath.hooks()?, flow_table: datapath.flow_counts()?.table })
    });
    counters.await.map(Json)
}

/// Says what the data path would do with a packet, and why
///
/// The loaded program judges a made-up packet on the live tables; nothing is sent or changed.
#[utoipa::path(post, path = "/why", tag = "data path", request_body = Question,
    responses(
        (status = 200, body = Answer),
        (status = 400, description = "not JSON"),
        (status = 413, description = "larger than 1 MiB"),
        (status = 415, description = "not application/json"),
        (status = 422, description = "the question makes no sense"),
        (status = 503, description = "the data path cannot be read"),
    ))]
pub(super) async fn why(
    State(api): State<Api>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Answer>, ProblemDetails> {
    let bytes = body::read(&headers, body, body::JSON).await?;
    let question: Question = body::other(&bytes)?;
    api.read(move |datapath| datapath.why(&question)).await.map(Json)
}

impl Api {
    /// Reads the data path on a thread that may block.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Datapath) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ProblemDetails> {
        let datapath = Arc::clone(&self.hub.datapath);
        let task = tokio::task::spawn_blocking(move || read(&*datapath));
        let answer = task.await.map_err(|error| ProblemDetails::unavailable(&error.to_string()))?;
        answer.map_err(ProblemDetails::from)
    }

    async fn flow_list(
        &self,
        segment: Option<SegmentId>,
        mut parameters: Parameters,
    ) -> Result<Json<FlowList>, ProblemDetails> {
        let limit = parameters.number("limit", FLOWS, FLOWS_MAX);
        parameters.finish()?;
        let (flows, flow_table) = self
            .read(move |datapath| Ok((datapath.flows(segment, limit)?, datapath.flow_counts()?.table)))
            .await?;
        let snapshot = Arc::clone(&self.hub.snapshot.borrow());
        let flows = flows.into_iter().take(limit).map(|flow| NamedFlow {
            source_persona: name_of(&snapshot, flow.source_segment),
            target_persona: name_of(&snapshot, flow.target_segment),
            flow,
        });
        Ok(Json(FlowList { flows: flows.collect(), flow_table }))
    }
}

fn name_of(snapshot: &Snapshot, segment: SegmentId) -> Option<String> {
    names::persona(snapshot, segment.0).map(|held| held.definition.name.clone())
}
