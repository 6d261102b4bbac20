//! `/top`: every persona's counters at one moment, in one answer, for who compares two of them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::problem::ProblemDetails;
use crate::datapath_view::{HookCounts, Usage};
use crate::view::PersonaState;

/// Counters of all personas at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct TopView {
    /// When they were read.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) time: Timestamp,
    /// Personas that have not ended, by name.
    pub(crate) personas: Vec<TopPersona>,
    /// Totals of every hook.
    pub(crate) hooks: Vec<HookCounts>,
}

/// Counters of one persona.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct TopPersona {
    /// Its name.
    pub(crate) name: String,
    /// Its identity: a name may be given again.
    pub(crate) id: String,
    /// State of its life.
    pub(crate) state: PersonaState,
    /// Counters, all of them since its beginning.
    #[serde(flatten)]
    pub(crate) usage: Usage,
}

/// Shows the counters of all personas
#[utoipa::path(get, path = "/top", tag = "data path",
    responses(
        (status = 200, body = TopView),
        (status = 503, description = "the data path cannot be read"),
    ))]
pub(super) async fn top(State(api): State<Api>) -> Result<Json<TopView>, ProblemDetails> {
    let snapshot = Arc::clone(&api.hub.snapshot.borrow());
    let segments = snapshot.segments();
    let read = api.read(move |datapath| {
        Ok((datapath.segments(&segments)?, datapath.flow_counts()?, datapath.hooks()?))
    });
    let (counts, flows, hooks) = read.await?;
    let time = Timestamp::now();
    let live = snapshot.personas.values().filter(|persona| persona.state != PersonaState::Expired);
    let mut personas: Vec<TopPersona> = live
        .map(|persona| TopPersona {
            name: persona.definition.name.clone(),
            id: persona.id.to_string(),
            state: persona.state,
            usage: persona.in_datapath().map_or_else(Usage::default, |segment| Usage {
                counts: counts.get(segment).unwrap_or_default(),
                flows: flows.personas.get(&segment).copied().unwrap_or_default(),
            }),
        })
        .collect();
    personas.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Json(TopView { time, personas, hooks }))
}
