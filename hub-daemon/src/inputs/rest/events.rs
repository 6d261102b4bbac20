//! `/events`: what happens, as server-sent events.
//!
//! Each stream reads the shared ring at its own speed. A reader that is too slow loses the oldest events
//! and gets a `lagged` event that says how many; the hub never waits for a reader.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use axum::{Extension, http::StatusCode};
use futures::Stream;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use utoipa::ToSchema;

use super::problem::ProblemDetails;
use super::query::Parameters;
use super::{Api, STREAMS};
use crate::datapath_view::EventView;
use crate::inputs::server::Closing;

/// Time between comments on a quiet stream, so that a dead one is noticed.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What changes are called that are about switches.
const SWITCH: &str = "switch";

/// Data of a `lagged` event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Lagged {
    /// Events that this stream missed.
    pub lost: u64,
}

/// Which events a stream shows.
#[derive(Debug)]
struct Wanted {
    kind: Option<String>,
    persona: Option<String>,
}

/// What a stream needs between two events.
struct Stage {
    receiver: Receiver<EventView>,
    closing: Option<Closing>,
    wanted: Wanted,
    _permit: OwnedSemaphorePermit,
}

/// Streams events as they happen
///
/// Events are named `packet`, `change`, `switch`, `alert` and `lagged`; the data of all but the last is an
/// `EventView`. A `switch` is a change of an interface's personality; its persona is the name of the record.
#[utoipa::path(get, path = "/events", tag = "hub",
    params(
        ("type" = Option<String>, Query, description = "packet, change, switch or alert"),
        ("persona" = Option<String>, Query, description = "name; only events about it"),
    ),
    responses(
        (status = 200, body = EventView, content_type = "text/event-stream"),
        (status = 400, description = "a parameter is wrong"),
        (status = 503, description = "too many streams"),
    ))]
pub(super) async fn events(
    State(api): State<Api>,
    closing: Option<Extension<Closing>>,
    mut parameters: Parameters,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ProblemDetails> {
    let wanted = Wanted { kind: parameters.one("type"), persona: parameters.one("persona") };
    if let Some(kind) = &wanted.kind
        && !["packet", "change", SWITCH, "alert"].contains(&kind.as_str())
    {
        parameters.refuse("type", &format!("`{kind}`: use packet, change, switch or alert"));
    }
    parameters.finish()?;
    let permit = api.stream()?;
    let stage = Stage {
        receiver: api.hub.events.subscribe(),
        closing: closing.map(|Extension(closing)| closing),
        wanted,
        _permit: permit,
    };
    Ok(Sse::new(futures::stream::unfold(stage, next)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

async fn next(mut stage: Stage) -> Option<(Result<Event, Infallible>, Stage)> {
    loop {
        let received = tokio::select! {
            received = stage.receiver.recv() => received,
            () = closed(stage.closing.as_mut()) => return None,
        };
        let event = match received {
            Ok(event) if stage.wanted.takes(&event) => as_sse(name_of(&event), &event),
            Ok(_) => continue,
            Err(RecvError::Lagged(lost)) => as_sse("lagged", &Lagged { lost }),
            Err(RecvError::Closed) => return None,
        };
        return Some((Ok(event), stage));
    }
}

impl Api {
    /// The place of a stream, as long as there are such.
    pub(super) fn stream(&self) -> Result<OwnedSemaphorePermit, ProblemDetails> {
        Arc::clone(&self.streams).try_acquire_owned().map_err(|_none_left| {
            let detail = format!("{STREAMS} event streams are open already");
            ProblemDetails::of_status(StatusCode::SERVICE_UNAVAILABLE, detail)
        })
    }
}

/// Ends when the listener closes; never without one.
pub(super) async fn closed(closing: Option<&mut Closing>) {
    match closing {
        Some(closing) => closing.closed().await,
        None => std::future::pending().await,
    }
}

pub(super) fn as_sse(name: &str, data: &impl Serialize) -> Event {
    let event = Event::default().event(name);
    match event.json_data(data) {
        Ok(event) => event,
        Err(error) => Event::default().comment(error.to_string()),
    }
}

fn name_of(event: &EventView) -> &'static str {
    match event {
        EventView::Packet(_) => "packet",
        EventView::Change(change) if change.what == SWITCH => SWITCH,
        EventView::Change(_) => "change",
        EventView::Alert(_) => "alert",
    }
}

impl Wanted {
    fn takes(&self, event: &EventView) -> bool {
        if self.kind.as_ref().is_some_and(|kind| kind != name_of(event)) {
            return false;
        }
        let Some(persona) = &self.persona else { return true };
        match event {
            EventView::Packet(packet) => {
                [&packet.source_persona, &packet.target_persona].contains(&&Some(persona.clone()))
            }
            EventView::Change(change) => change.persona.as_ref() == Some(persona),
            EventView::Alert(alert) => alert.persona.as_ref() == Some(persona),
        }
    }
}
