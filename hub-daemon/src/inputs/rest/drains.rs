//! `/operations/{operation}/connections`: what the drain of a switch waits for, looked at when it is asked.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::problem::ProblemDetails;
use super::query::{Named, Parameters};
use crate::command::switch::FlowCount;
use crate::datapath_view::{ImpactedFlow, Impacts};
use crate::inputs::datapath::Datapath;
use crate::model::personality::Version;
use crate::systems::personality::switch::Phase;
use crate::view::switch::{OperationView, Question};

/// Connections in an answer when the request does not say.
const CONNECTIONS: usize = 100;
/// Most connections in an answer.
const CONNECTIONS_MAX: usize = 10_000;

/// What a switch waits for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct DrainView {
    /// Name of the interface's record.
    pub(crate) interface: String,
    /// What it goes to.
    #[schema(value_type = String)]
    pub(crate) to: Version,
    /// Where the switch is: connections are looked at in `drain` alone. Absent when it is over.
    pub(crate) phase: Option<Phase>,
    /// When that phase is given up.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) deadline: Option<Timestamp>,
    /// How many there are; absent before the drain, and where there was none.
    pub(crate) flows: Option<FlowCount>,
    /// Those that are waited for (`active`), and then those that would end and are not; at most `limit`.
    pub(crate) connections: Vec<ImpactedFlow>,
}

/// Lists the connections that a switch waits for while it drains, and why the other personality would end them
#[utoipa::path(get, path = "/operations/{operation}/connections", tag = "personalities",
    operation_id = "list_drained_connections",
    params(
        ("operation" = String, Path, description = "its id"),
        ("limit" = Option<u32>, Query, description = "1 to 10000, default 100"),
    ),
    responses(
        (status = 200, body = DrainView, description = "without connections before the drain and after it"),
        (status = 400, description = "a parameter is wrong"),
        (status = 404, description = "no such switch, or one that is over for long"),
        (status = 503, description = "the data path cannot be read"),
    ))]
pub(super) async fn connections(
    State(api): State<Api>,
    Named(operation): Named,
    mut parameters: Parameters,
) -> Result<Json<DrainView>, ProblemDetails> {
    let limit = parameters.number("limit", CONNECTIONS, CONNECTIONS_MAX);
    parameters.finish()?;
    let view = api.operation(&operation)?;
    let (flows, connections) = match api.drains(&view) {
        Some(Question::Flows { segment, judged, .. }) => {
            let all = judged.waits_for_all();
            let read = move |datapath: &dyn Datapath| {
                judged.ask(segment, Timestamp::now(), |change| datapath.impacted(change, limit))
            };
            let impacts = api.read(read).await?;
            (Some(impacts.summed(all)), listed(impacts, all))
        }
        Some(Question::Checks { .. }) | None => (view.flows, Vec::new()),
    };
    let OperationView { interface, to, phase, deadline, .. } = view.as_ref().clone();
    Ok(Json(DrainView { interface, to, phase, deadline, flows, connections }))
}

/// Those of all connections that a drain is about, the ones that it waits for first.
fn listed(impacts: Impacts, all: bool) -> Vec<ImpactedFlow> {
    let mut flows: Vec<_> = impacts.flows.into_iter().filter(|flow| all || !flow.survives).collect();
    flows.sort_by_key(|flow| !flow.active);
    flows
}

impl Api {
    /// What the hub asks of connections for a switch that drains.
    fn drains(&self, view: &OperationView) -> Option<Question> {
        let snapshot = Arc::clone(&self.hub.snapshot.borrow());
        let held = snapshot.interfaces.get(&view.interface)?;
        let is_its_own = held.operation.as_ref().is_some_and(|operation| operation.id == view.id);
        let mut questions = held.wants.iter().map(|wanted| &wanted.question).filter(|_| is_its_own);
        questions.find(|question| matches!(question, Question::Flows { awaited: true, .. })).cloned()
    }
}
