//! `/personas`: making, reading, changing and removing personas.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::filter::Filter;
use super::place::{Made, Manner, make};
use super::problem::ProblemDetails;
use super::query::{Named, Parameters};
use super::watch::Which;
use super::{Api, body, decode, etag, idempotency, merge};
use crate::command::{Command, Problem, Reply};
use crate::document::persona::PersonaDocument;
use crate::document::template;
use crate::inputs::server::Closing;
use crate::model::PersonaId;
use crate::model::key::Key;
use crate::model::life::{self, Held};
use crate::view::{PersonaState, PersonaView, Snapshot};

/// Most time that a POST waits for the kernel to take the persona; the answer then says `provisioning`.
const PROVISIONING_TIME: Duration = Duration::from_secs(2);
/// Attempts at a patch whose persona changes in between, when the client did not say `If-Match`.
const PATCH_ATTEMPTS: usize = 4;

/// One page of personas, oldest first.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct PersonaPage {
    /// The personas.
    pub(crate) personas: Vec<PersonaView>,
    /// `cursor` of the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next_cursor: Option<String>,
}

/// Lists personas, or watches them
///
/// With `watch`: server-sent events `added` for each that there is, `current` when these are all, then `added`,
/// `modified` and `deleted` as it happens; their data is a `PersonaView`, of `deleted` the last one, of `current` a
/// `Current`. What no longer fits the filters is `deleted`, what fits now is `added`. Of several changes a slow reader
/// gets the last. A stream that broke is begun anew: it tells everything again.
#[utoipa::path(get, path = "/personas", tag = "personas",
    params(
        ("state" = Option<String>, Query, description = "pending, provisioning, active, expiring, expired, deleting or failed"),
        ("name" = Option<String>, Query, description = "exact name"),
        ("origin" = Option<String>, Query, description = "api or file"),
        ("label" = Option<String>, Query, description = "key=value; may be given several times"),
        ("limit" = Option<u32>, Query, description = "1 to 1000, default 100"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
        ("watch" = Option<bool>, Query, description = "follow them, without `limit` and `cursor`"),
    ),
    responses(
        (status = 200, content((PersonaPage = "application/json"), (PersonaView = "text/event-stream"))),
        (status = 400, description = "a parameter is wrong"),
        (status = 503, description = "too many streams"),
    ))]
pub(super) async fn list(
    State(api): State<Api>,
    closing: Option<Extension<Closing>>,
    parameters: Parameters,
) -> Result<Response, ProblemDetails> {
    let filter = Filter::read(parameters)?;
    if filter.watch {
        return api.watch(Which::Fitting(filter), closing.map(|Extension(closing)| closing));
    }
    let snapshot = Arc::clone(&api.hub.snapshot.borrow());
    let (personas, next_cursor) = filter.page(&snapshot);
    Ok(Json(PersonaPage { personas, next_cursor }).into_response())
}

/// Creates a persona
///
/// Waits up to two seconds for the kernel to take it. With `Prefer: respond-async` it is answered as soon as it is
/// stored; `Location` tells its state. With `gateway: {choose: free}` it is created on the gateway of which the
/// largest part stays free, this hub or another one; `gateway.node` of the answer names it, and `Location` is there.
#[utoipa::path(post, path = "/personas", tag = "personas", request_body = PersonaDocument,
    params(
        ("Idempotency-Key" = Option<String>, Header,
            description = "the same key with the same body gets the same answer, for 24 hours"),
        ("Prefer" = Option<String>, Header, description = "respond-async: do not wait for the kernel"),
    ),
    responses(
        (status = 201, body = PersonaView, headers(("Location" = String), ("ETag" = String))),
        (status = 202, body = PersonaView, description = "it is stored, and the kernel has yet to take it",
            headers(("Location" = String), ("ETag" = String))),
        (status = 400, description = "not JSON"),
        (status = 409, description = "the name or the range is taken"),
        (status = 412, description = "If-Match makes no sense here"),
        (status = 413, description = "larger than 1 MiB"),
        (status = 415, description = "not application/json"),
        (status = 422, description = "the document is invalid, no hub takes it, or the key was used with another body"),
        (status = 503, description = "the hub is busy or stopping"),
        (status = 507, description = "a limit of the hub is reached"),
    ))]
pub(super) async fn create(
    State(api): State<Api>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ProblemDetails> {
    etag::refuse_precondition(&headers)?;
    let key = idempotency::key(&headers)?;
    let bytes = body::read(&headers, body, body::JSON).await?;
    let document = body::newcomer(&bytes, &api.ends(None))?;
    let wait = !prefers(&headers, "respond-async");
    let key = key.map(|text| Key::new(text, &bytes));
    let manner = Manner { key: key.clone(), wait };
    let answers = api.answers.clone();
    let Made { persona, location } = answers.once(key, make(api, document, manner)).await?;
    let location = location.unwrap_or_else(|| format!("{}/{}", uri.path(), persona.id));
    let status =
        if !wait && is_on_its_way(persona.state) { StatusCode::ACCEPTED } else { StatusCode::CREATED };
    let mut response = (status, with_tag(&persona)).into_response();
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Admits a persona, and waits for the kernel if asked to.
pub(super) async fn admit(
    api: &Api,
    document: PersonaDocument,
    manner: &Manner,
) -> Result<Box<PersonaView>, ProblemDetails> {
    let document = Box::new(document);
    let command = match manner {
        Manner { key: Some(key), wait } => Command::CreateOnce { document, key: key.clone(), hasty: !wait },
        Manner { key: None, wait: true } => Command::Create { document },
        Manner { key: None, wait: false } => Command::Begin { document },
    };
    let persona = changed(api.command(command).await?)?;
    if !manner.wait || !is_on_its_way(persona.state) {
        return Ok(persona);
    }
    let mut snapshots = api.hub.snapshot.clone();
    let provisioned = snapshots.wait_for(|snapshot| {
        snapshot.personas.get(&persona.id).is_some_and(|held| !is_on_its_way(held.state))
    });
    match tokio::time::timeout(PROVISIONING_TIME, provisioned).await {
        Ok(Ok(snapshot)) => {
            Ok(snapshot.personas.get(&persona.id).map_or(persona, |held| Box::new((**held).clone())))
        }
        Ok(Err(_)) | Err(_) => Ok(persona),
    }
}

fn is_on_its_way(state: PersonaState) -> bool {
    matches!(state, PersonaState::Pending | PersonaState::Provisioning)
}

/// Shows a persona, or watches it
///
/// With `watch`: events as in the list, of the persona that has this name now. The stream ends when it is `deleted`.
#[utoipa::path(get, path = "/personas/{persona}", tag = "personas",
    params(
        ("persona" = String, Path, description = "id or name"),
        ("watch" = Option<bool>, Query, description = "follow it"),
        ("If-None-Match" = Option<String>, Header, description = "an ETag"),
    ),
    responses(
        (status = 200, content((PersonaView = "application/json"), (PersonaView = "text/event-stream")),
            headers(("ETag" = String))),
        (status = 304, description = "it is what the client has"),
        (status = 400, description = "a parameter is wrong"),
        (status = 404, description = "no such persona"),
        (status = 503, description = "too many streams"),
    ))]
pub(super) async fn show(
    State(api): State<Api>,
    closing: Option<Extension<Closing>>,
    Named(persona): Named,
    mut parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, ProblemDetails> {
    let watch = parameters.flag("watch");
    parameters.finish()?;
    let persona = api.persona(&persona)?;
    if watch {
        return api.watch(Which::One(persona.id.clone()), closing.map(|Extension(closing)| closing));
    }
    let tag = etag::of(&persona);
    if etag::is_known(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    Ok(with_tag(&persona))
}

/// Replaces a persona's definition
///
/// Identity, segment and flows stay.
#[utoipa::path(put, path = "/personas/{persona}", tag = "personas", request_body = PersonaDocument,
    params(
        ("persona" = String, Path, description = "id or name"),
        ("If-Match" = Option<String>, Header, description = "an ETag"),
    ),
    responses(
        (status = 200, body = PersonaView, headers(("ETag" = String))),
        (status = 400, description = "not JSON"),
        (status = 404, description = "no such persona"),
        (status = 409, description = "a file owns it, or the name or the range is taken"),
        (status = 412, description = "it changed in between"),
        (status = 413, description = "larger than 1 MiB"),
        (status = 415, description = "not application/json"),
        (status = 422, description = "the document is invalid"),
        (status = 503, description = "the hub is busy or stopping"),
        (status = 507, description = "a limit of the hub is reached"),
    ))]
pub(super) async fn replace(
    State(api): State<Api>,
    Named(persona): Named,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ProblemDetails> {
    let bytes = body::read(&headers, body, body::JSON).await?;
    let held = api.persona(&persona).ok();
    let document = body::persona(&bytes, &api.ends(held.as_deref()))?;
    let if_generation = etag::if_match(&headers, held.as_deref());
    let persona = etag::meant(held.as_deref(), if_generation, persona);
    let command = Command::Replace { persona, document: Box::new(document), if_generation };
    Ok(with_tag(&*changed(api.command(command).await?)?))
}

/// Changes part of a persona's definition
///
/// A merge patch (RFC 7396) on `definition`: what is given replaces, `null` removes.
#[utoipa::path(patch, path = "/personas/{persona}", tag = "personas",
    request_body(content = Object, content_type = "application/merge-patch+json"),
    params(
        ("persona" = String, Path, description = "id or name"),
        ("If-Match" = Option<String>, Header, description = "an ETag"),
    ),
    responses(
        (status = 200, body = PersonaView, headers(("ETag" = String))),
        (status = 400, description = "not JSON"),
        (status = 404, description = "no such persona"),
        (status = 409, description = "a file owns it, or the name or the range is taken"),
        (status = 412, description = "it changed in between"),
        (status = 413, description = "larger than 1 MiB"),
        (status = 415, description = "not application/merge-patch+json"),
        (status = 422, description = "the document is invalid"),
        (status = 503, description = "the hub is busy or stopping"),
        (status = 507, description = "a limit of the hub is reached"),
    ))]
pub(super) async fn patch(
    State(api): State<Api>,
    Named(persona): Named,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ProblemDetails> {
    let bytes = body::read(&headers, body, body::MERGE_PATCH).await?;
    let patch: Value = serde_json::from_slice(&bytes).map_err(|error| body::syntax(&error.to_string()))?;
    let mut attempts = PATCH_ATTEMPTS;
    loop {
        let held = api.persona(&persona)?;
        let asked = etag::if_match(&headers, Some(&held));
        let mut definition = serde_json::to_value(&held.definition)
            .map_err(|error| ProblemDetails::unavailable(&error.to_string()))?;
        merge::merge(&mut definition, &patch);
        let document = decode::persona_from_value(definition, &api.ends(Some(&held)))?;
        let command = Command::Replace {
            persona: held.id.to_string(),
            document: Box::new(document),
            if_generation: asked.or(Some(held.generation)),
        };
        attempts -= 1;
        match api.command(command).await {
            Err(problem)
                if asked.is_none() && attempts > 0 && problem.status == StatusCode::PRECONDITION_FAILED => {}
            reply => return Ok(with_tag(&*changed(reply?)?)),
        }
    }
}

fn with_tag(persona: &PersonaView) -> Response {
    ([(header::ETAG, etag::of(persona))], Json(persona)).into_response()
}

pub(super) fn changed(reply: Reply) -> Result<Box<PersonaView>, ProblemDetails> {
    match reply {
        Reply::Created(persona) | Reply::Updated(persona) => Ok(persona),
        Reply::Deleted
        | Reply::Orphans(_)
        | Reply::Segment(_)
        | Reply::Personality(_)
        | Reply::Interface(_)
        | Reply::Switched(_)
        | Reply::Plan(_)
        | Reply::Experiment(_)
        | Reply::Done
        | Reply::Applied { .. } => Err(ProblemDetails::unavailable("the hub gave no persona")),
    }
}

pub(super) fn prefers(headers: &HeaderMap, what: &str) -> bool {
    let values = headers.get_all("prefer").into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case(what))
}

/// The persona of that id or name; of several with one name, the one that is alive, else the last.
pub(super) fn find<'a>(snapshot: &'a Snapshot, persona: &str) -> Option<&'a Arc<PersonaView>> {
    let by_id = snapshot.personas.get(&PersonaId(persona.into()));
    by_id.or_else(|| {
        let named = snapshot.personas.values().filter(|held| held.definition.name == persona);
        named.max_by_key(|held| (held.state != PersonaState::Expired, held.id.clone()))
    })
}

impl Api {
    /// What is wrong with the end of a definition that another part of is wrong, of a persona that there is or not.
    pub(super) fn ends(
        &self,
        held: Option<&PersonaView>,
    ) -> impl Fn(&PersonaDocument) -> Vec<Problem> + use<> {
        let snapshot = Arc::clone(&self.hub.snapshot.borrow());
        let held = held.filter(|held| held.state != PersonaState::Expired);
        let held = held.map(|held| Held::new(&held.definition, held.created_at, held.expires_at));
        move |document| {
            let whole = template::whole(document.clone(), &snapshot.templates);
            life::end(&whole, snapshot.life, held, true, Timestamp::now()).err().unwrap_or_default()
        }
    }

    /// The persona of that id or name.
    pub(super) fn persona(&self, persona: &str) -> Result<Arc<PersonaView>, ProblemDetails> {
        find(&self.hub.snapshot.borrow(), persona).cloned().ok_or_else(|| ProblemDetails::no_persona(persona))
    }
}
