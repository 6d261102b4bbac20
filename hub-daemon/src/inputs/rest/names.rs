//! `/names`: what hosts of personas are called, and which addresses others dial.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::problem::ProblemDetails;
use super::query::Parameters;
use crate::systems::persona::names::{self, Name};

/// Names of hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Names {
    /// In order.
    pub(crate) names: Vec<Name>,
}

/// Lists names of hosts, or resolves one
///
/// A host is an endpoint by its name, or an address with dashes: `10-100-0-5.web.hub`. Only endpoints are
/// listed.
#[utoipa::path(get, path = "/names", tag = "personas",
    params(("name" = Option<String>, Query, description = "one name to resolve")),
    responses(
        (status = 200, body = Names, description = "none where the name means nothing"),
        (status = 400, description = "a parameter is wrong"),
    ))]
pub(super) async fn names(
    State(api): State<Api>,
    mut parameters: Parameters,
) -> Result<Json<Names>, ProblemDetails> {
    let name = parameters.one("name");
    parameters.finish()?;
    let snapshot = api.hub.snapshot.borrow().clone();
    let names = match name {
        Some(name) => names::resolve(&snapshot, &name).into_iter().collect(),
        None => names::all(&snapshot),
    };
    Ok(Json(Names { names }))
}
