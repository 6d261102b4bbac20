//! `/node` and `/nodes`: what this hub is among several and how full, and the same of the others.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::ProblemDetails;
use super::query::Parameters;
use super::{Api, others, personas};
use crate::view::NodeView;

/// This hub and the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct NodeList {
    /// This hub first, then the others as `hub.yaml` has them.
    pub(crate) nodes: Vec<NodeStanding>,
}

/// One of several hubs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct NodeStanding {
    /// Its name in `hub.yaml`; empty for this hub when it has none.
    pub(crate) name: String,
    /// Where its API is; absent for this hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<String>,
    /// What it says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<NodeView>,
    /// Why it says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unreachable: Option<String>,
}

/// Shows what this hub is among several, and how full
#[utoipa::path(get, path = "/node", tag = "hub",
    params(("persona" = Option<String>, Query, description = "name or id: say its state here as well")),
    responses((status = 200, body = NodeView), (status = 400, description = "a parameter is wrong")))]
pub(super) async fn node(
    State(api): State<Api>,
    mut parameters: Parameters,
) -> Result<Json<NodeView>, ProblemDetails> {
    let persona = parameters.one("persona");
    parameters.finish()?;
    let snapshot = Arc::clone(&api.hub.snapshot.borrow());
    let state = persona.and_then(|name| personas::find(&snapshot, &name).map(|held| held.state));
    Ok(Json(NodeView { persona: state, ..snapshot.node.clone() }))
}

/// Lists this hub and the others with what is free
///
/// The others are asked at once and have a second to answer.
#[utoipa::path(get, path = "/nodes", tag = "hub", responses((status = 200, body = NodeList)))]
pub(super) async fn nodes(State(api): State<Api>) -> Json<NodeList> {
    let snapshot = Arc::clone(&api.hub.snapshot.borrow());
    let own = NodeStanding {
        name: snapshot.node.name.clone().unwrap_or_default(),
        url: None,
        node: Some(snapshot.node.clone()),
        unreachable: None,
    };
    let said = others::tell(&snapshot.nodes, None).await;
    let others = snapshot.nodes.iter().zip(said).map(|(other, said)| {
        let (node, unreachable) = said.map_or_else(|why| (None, Some(why)), |view| (Some(view), None));
        NodeStanding { name: other.name.clone(), url: Some(other.url.clone()), node, unreachable }
    });
    Json(NodeList { nodes: std::iter::once(own).chain(others).collect() })
}
