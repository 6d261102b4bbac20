//! `/threat-level`: how great a threat is, for interfaces that have a personality by level.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::caller::Caller;
use super::interfaces::record;
use super::problem::ProblemDetails;
use super::{Api, body};
use crate::command::switch::SwitchCommand;
use crate::command::{Command, Problem, Rejection, RejectionKind};
use crate::view::switch::InterfaceView;

/// A threat level, as it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ThreatDocument {
    /// A level of the interfaces' `zones`.
    #[schema(example = "severe")]
    pub(crate) level: String,
    /// Names of their records; default: all that have such a level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) interfaces: Option<Vec<String>>,
}

/// Threat levels of interfaces.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ThreatView {
    /// Those that have zones.
    pub(crate) interfaces: Vec<ZoneView>,
}

/// The threat level of one interface.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ZoneView {
    /// Name of its record.
    pub(crate) interface: String,
    /// The level that it follows; none has been told if absent.
    pub(crate) level: Option<String>,
    /// Its levels, from the least to the greatest threat.
    pub(crate) levels: Vec<String>,
}

/// Shows the threat levels that interfaces follow
#[utoipa::path(get, path = "/threat-level", tag = "personalities", operation_id = "show_threat_level",
    responses((status = 200, body = ThreatView)))]
pub(super) async fn show(State(api): State<Api>) -> Json<ThreatView> {
    let snapshot = Arc::clone(&api.hub.snapshot.borrow());
    Json(ThreatView { interfaces: snapshot.interfaces.values().filter_map(|view| zone(view)).collect() })
}

/// Tells the threat level: interfaces follow it up at once, and down when it has been lower for a while
///
/// Each interface is switched for itself; one that cannot be switched at the moment is told so in its journal.
#[utoipa::path(put, path = "/threat-level", tag = "personalities", operation_id = "tell_threat_level",
    request_body = ThreatDocument,
    responses(
        (status = 200, body = ThreatView, description = "the interfaces that were told"),
        (status = 400, description = "not JSON"),
        (status = 409, description = "these could not be told; all others were"),
        (status = 415, description = "not application/json"),
        (status = 422, description = "no such interface, or no such level"),
        (status = 503, description = "the hub is busy or stopping"),
    ))]
pub(super) async fn put(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ThreatView>, ProblemDetails> {
    let bytes = body::read(&headers, body, body::JSON).await?;
    let asked: ThreatDocument = body::other(&bytes)?;
    let levels = api.with_level(&asked)?.into_iter().map(|interface| (interface, asked.level.clone()));
    api.tell_levels(levels, &caller).await
}

pub(super) fn zone(view: &InterfaceView) -> Option<ZoneView> {
    let zones = view.definition.zones.as_ref()?;
    Some(ZoneView {
        interface: view.name.clone(),
        level: view.level.clone(),
        levels: zones.levels.iter().map(|zone| zone.level.clone()).collect(),
    })
}

impl Api {
    /// Tells each interface its level. One that refuses keeps no other from being told; all refusals are reported.
    pub(super) async fn tell_levels(
        &self,
        levels: impl IntoIterator<Item = (String, String)>,
        caller: &Caller,
    ) -> Result<Json<ThreatView>, ProblemDetails> {
        let mut told = Vec::new();
        let mut refused: Option<Rejection> = None;
        for (interface, level) in levels {
            let by = caller.by.clone();
            let threat = SwitchCommand::Threat { interface: interface.clone(), level, by };
            let rejection = match self.hub_command(Command::Switch(threat)).await? {
                Ok(reply) => {
                    told.extend(zone(&*record(reply)?));
                    continue;
                }
                Err(rejection) => rejection,
            };
            let own = rejection.problems.into_iter().map(|problem| Problem {
                detail: format!("interface `{interface}`: {}", problem.detail),
                ..problem
            });
            let all = refused.get_or_insert(Rejection { kind: rejection.kind, problems: Vec::new() });
            all.problems.extend(own);
        }
        match refused {
            None => Ok(Json(ThreatView { interfaces: told })),
            Some(rejection) => Err(rejection.into()),
        }
    }

    /// Names of the interfaces that are meant; each has the level.
    fn with_level(&self, asked: &ThreatDocument) -> Result<Vec<String>, ProblemDetails> {
        let snapshot = Arc::clone(&self.hub.snapshot.borrow());
        let has = |view: &InterfaceView| zone(view).is_some_and(|zone| zone.levels.contains(&asked.level));
        let (names, problems) = if let Some(names) = &asked.interfaces {
            let wrong = names.iter().enumerate().filter_map(|(index, name)| {
                let detail = match snapshot.interfaces.get(name) {
                    None => format!("no interface record `{name}`"),
                    Some(view) if !has(view) => format!("`{name}` has no level `{}`", asked.level),
                    Some(_) => return None,
                };
                Some(Problem::new(format!("/interfaces/{index}"), detail))
            });
            (names.clone(), wrong.collect::<Vec<_>>())
        } else {
            let those = snapshot.interfaces.values().filter(|view| has(view));
            let names: Vec<String> = those.map(|view| view.name.clone()).collect();
            let detail = format!("level `{}`: no interface has a personality for it", asked.level);
            let nobody = names.is_empty().then(|| Problem::new("/level", detail));
            (names, nobody.into_iter().collect())
        };
        if problems.is_empty() {
            Ok(names)
        } else {
            Err(Rejection { kind: RejectionKind::Invalid, problems }.into())
        }
    }
}
