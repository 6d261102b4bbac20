//! `/personas/{persona}/sets` and `/personas/{persona}/quarantine`: addresses that come and go at run time.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::ProblemDetails;
use super::query::Named;
use super::{Api, body};
use crate::command::{Command, Elements, Rejection, RejectionKind};
use crate::datapath_view::QuarantinedView;
use crate::model::problems::Problems;
use crate::model::{prefix, span};

/// Elements to put into a set, or to take out.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entries {
    /// Prefixes or addresses.
    pub(crate) entries: Vec<String>,
    /// How long they stay, as `10m`; default: what the set says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ttl: Option<String>,
}

/// An address to keep out.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Isolation {
    /// The address.
    #[schema(value_type = String)]
    pub(crate) address: IpAddr,
    /// How long it stays out, as `10m`.
    pub(crate) ttl: String,
}

/// What a set holds.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct SetView {
    /// Its elements.
    pub(crate) elements: Vec<ElementView>,
}

/// An element of a set.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ElementView {
    /// Prefix.
    #[schema(value_type = String)]
    pub(crate) prefix: IpNet,
    /// When it leaves the set; absent for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) expires_at: Option<Timestamp>,
    /// Whether the definition has it.
    pub(crate) defined: bool,
}

/// Lists the sets of a persona with their elements
#[utoipa::path(get, path = "/personas/{persona}/sets", tag = "sets",
    params(("persona" = String, Path, description = "id or name")),
    responses((status = 200, body = BTreeMap<String, SetView>), (status = 404, description = "no such persona")))]
pub(super) async fn sets(
    State(api): State<Api>,
    Named(persona): Named,
) -> Result<Json<BTreeMap<String, SetView>>, ProblemDetails> {
    let persona = api.persona(&persona)?;
    let now = Timestamp::now();
    let defined = persona.definition.sets.clone().unwrap_or_default();
    let sets = defined.into_iter().map(|(name, set)| {
        let written = set.entries.iter().flatten().filter_map(|text| prefix::matched(text).ok());
        let mut elements: BTreeMap<IpNet, ElementView> =
            written.map(|prefix| (prefix, ElementView { prefix, expires_at: None, defined: true })).collect();
        for (prefix, end) in persona.lists.sets.get(&name).into_iter().flatten() {
            if end.is_none_or(|end| end > now) {
                let added = ElementView { prefix: *prefix, expires_at: *end, defined: false };
                elements.entry(*prefix).or_insert(added);
            }
        }
        (name, SetView { elements: elements.into_values().collect() })
    });
    Ok(Json(sets.collect()))
}

/// Puts elements into a set
///
/// They are in force without a change of the definition, and end by themselves.
#[utoipa::path(post, path = "/personas/{persona}/sets/{set}/entries", tag = "sets", request_body = Entries,
    params(
        ("persona" = String, Path, description = "id or name"),
        ("set" = String, Path, description = "name of the set"),
    ),
    responses(
        (status = 204, description = "they are in the set"),
        (status = 404, description = "no such persona or set"),
        (status = 409, description = "the persona has ended"),
        (status = 422, description = "an entry is no prefix"),
        (status = 507, description = "the set is full"),
    ))]
pub(super) async fn add(
    State(api): State<Api>,
    Path((persona, set)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, ProblemDetails> {
    let add = |problems: &mut Problems, entries, ttl: Option<String>| {
        let ttl = ttl.and_then(|text| time(problems, &text));
        Elements::Add { entries, ttl }
    };
    change(&api, (persona, set), (headers, body), add).await
}

/// Takes elements out of a set
#[utoipa::path(delete, path = "/personas/{persona}/sets/{set}/entries", tag = "sets", request_body = Entries,
    params(
        ("persona" = String, Path, description = "id or name"),
        ("set" = String, Path, description = "name of the set"),
    ),
    responses(
        (status = 204, description = "they are not in the set"),
        (status = 404, description = "no such persona or set"),
        (status = 409, description = "the definition has it, or the persona has ended"),
        (status = 422, description = "an entry is no prefix"),
    ))]
pub(super) async fn remove(
    State(api): State<Api>,
    Path((persona, set)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, ProblemDetails> {
    let remove = |problems: &mut Problems, entries, ttl: Option<String>| {
        if ttl.is_some() {
            problems.add("/ttl", "an element that goes has no ttl: remove the field");
        }
        Elements::Remove(entries)
    };
    change(&api, (persona, set), (headers, body), remove).await
}

/// Changes a set of a persona by the elements and the ttl that a body names, if nothing is wrong with them.
async fn change(
    api: &Api,
    (persona, set): (String, String),
    (headers, body): (HeaderMap, Body),
    make: impl FnOnce(&mut Problems, Vec<IpNet>, Option<String>) -> Elements,
) -> Result<StatusCode, ProblemDetails> {
    let Entries { entries, ttl } = body::other(&body::read(&headers, body, body::JSON).await?)?;
    let mut problems = Problems::default();
    let entries = prefixes(&mut problems, &entries);
    let change = make(&mut problems, entries, ttl);
    settle(problems)?;
    api.command(Command::Elements { persona, set, change }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists the addresses in a persona's quarantine
///
/// Those that rules put there as well as those that operators did.
#[utoipa::path(get, path = "/personas/{persona}/quarantine", tag = "quarantine",
    params(("persona" = String, Path, description = "id or name")),
    responses(
        (status = 200, body = Vec<QuarantinedView>),
        (status = 404, description = "no such persona"),
        (status = 503, description = "the data path cannot be read"),
    ))]
pub(super) async fn quarantine(
    State(api): State<Api>,
    Named(persona): Named,
) -> Result<Json<Vec<QuarantinedView>>, ProblemDetails> {
    let Some(segment) = api.persona(&persona)?.in_datapath() else { return Ok(Json(Vec::new())) };
    Ok(Json(api.read(move |reader| reader.quarantined(segment)).await?))
}

/// Keeps an address out of a persona for a while
#[utoipa::path(post, path = "/personas/{persona}/quarantine", tag = "quarantine", request_body = Isolation,
    params(("persona" = String, Path, description = "id or name")),
    responses(
        (status = 204, description = "it is kept out"),
        (status = 404, description = "no such persona"),
        (status = 409, description = "the persona has ended"),
        (status = 422, description = "the ttl is none"),
        (status = 507, description = "the quarantine is full"),
    ))]
pub(super) async fn isolate(
    State(api): State<Api>,
    Named(persona): Named,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, ProblemDetails> {
    let Isolation { address, ttl } = body::other(&body::read(&headers, body, body::JSON).await?)?;
    let mut problems = Problems::default();
    let until = time(&mut problems, &ttl);
    settle(problems)?;
    api.command(Command::Quarantine { persona, address, until }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lets an address in again, whoever kept it out
#[utoipa::path(delete, path = "/personas/{persona}/quarantine/{address}", tag = "quarantine",
    params(
        ("persona" = String, Path, description = "id or name"),
        ("address" = String, Path, description = "the address"),
    ),
    responses(
        (status = 204, description = "it is let in"),
        (status = 400, description = "not an address"),
        (status = 404, description = "no such persona"),
        (status = 409, description = "the persona has ended"),
    ))]
pub(super) async fn lift(
    State(api): State<Api>,
    Path((persona, address)): Path<(String, String)>,
) -> Result<StatusCode, ProblemDetails> {
    let Ok(address) = address.parse() else {
        let detail = format!("`{address}` is no address: use one like 192.0.2.1");
        return Err(ProblemDetails::of_status(StatusCode::BAD_REQUEST, detail));
    };
    api.command(Command::Quarantine { persona, address, until: None }).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn prefixes(problems: &mut Problems, written: &[String]) -> Vec<IpNet> {
    if written.is_empty() {
        problems.add("/entries", "the list is empty: name at least one");
    }
    let read = written.iter().enumerate();
    read.filter_map(|(index, text)| problems.take(&format!("/entries/{index}"), prefix::matched(text)))
        .collect()
}

fn time(problems: &mut Problems, text: &str) -> Option<Duration> {
    let read = span::parse(text).map_err(|wrong| wrong.to_string().replacen("duration", "ttl", 1));
    problems.take("/ttl", read)
}

fn settle(problems: Problems) -> Result<(), ProblemDetails> {
    let refused = |problems| Rejection { kind: RejectionKind::Invalid, problems }.into();
    problems.settle(()).map_err(refused)
}
