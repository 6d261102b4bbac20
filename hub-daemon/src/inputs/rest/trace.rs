//! `POST /trace`: packets with their verdicts as server-sent events, for a while.
//!
//! The data path looks for packets from the first byte of the answer on, until the client goes away, has
//! seen enough, or the time is over. What could not be shown is counted.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures::Stream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::events::{KEEP_ALIVE, as_sse, closed};
use super::problem::ProblemDetails;
use super::{Api, STREAMS, body};
use crate::command::{Problem, Rejection, RejectionKind};
use crate::inputs::server::Closing;
use crate::inputs::trace::{Trace, TraceEnd, TraceError, TraceQuestion, TracedPacket};

/// Time after the end in which packets that were seen before it still arrive.
const STRAGGLERS: Duration = Duration::from_millis(200);

/// What a stream needs between two packets.
struct Stage {
    trace: Option<Trace>,
    left: u64,
    shown: u64,
    until: Instant,
    closing: Option<Closing>,
    _permit: OwnedSemaphorePermit,
}

/// Shows packets with what becomes of them, live
///
/// Events are named `packet`, with a `TracedPacket`, and at last `end`, with a `TraceEnd`.
#[utoipa::path(post, path = "/trace", tag = "data path", request_body = TraceQuestion,
    responses(
        (status = 200, body = TracedPacket, content_type = "text/event-stream"),
        (status = 400, description = "not JSON"),
        (status = 404, description = "no such persona"),
        (status = 413, description = "larger than 1 MiB"),
        (status = 415, description = "not application/json"),
        (status = 422, description = "a field is wrong"),
        (status = 503, description = "too many traces, or the data path is not loaded"),
    ))]
pub(super) async fn trace(
    State(api): State<Api>,
    closing: Option<Extension<Closing>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ProblemDetails> {
    let bytes = body::read(&headers, body, body::JSON).await?;
    let question: TraceQuestion = body::other(&bytes)?;
    let segment = match &question.persona {
        Some(persona) => Some(api.persona(persona)?.in_datapath().ok_or_else(|| {
            let detail = format!("nothing of persona `{persona}` is in this kernel");
            ProblemDetails::of_status(StatusCode::NOT_FOUND, detail)
        })?),
        None => None,
    };
    let filter = question.filter(segment).map_err(refused)?;
    let unavailable = |detail: String| ProblemDetails::of_status(StatusCode::SERVICE_UNAVAILABLE, detail);
    let Ok(permit) = Arc::clone(&api.streams).try_acquire_owned() else {
        return Err(unavailable(format!("{STREAMS} streams are open already")));
    };
    let life = question.life();
    let begun = api.hub.tracer.begin(filter, life).await;
    let trace = begun.map_err(|error: TraceError| unavailable(error.to_string()))?;
    let stage = Stage {
        trace: Some(trace),
        left: question.count.unwrap_or(u64::MAX),
        shown: 0,
        until: Instant::now() + life + STRAGGLERS,
        closing: closing.map(|Extension(closing)| closing),
        _permit: permit,
    };
    Ok(Sse::new(futures::stream::unfold(stage, next)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

fn refused(refusals: Vec<(&'static str, String)>) -> ProblemDetails {
    let problems = refusals.into_iter().map(|(field, detail)| Problem::new(format!("/{field}"), detail));
    Rejection { kind: RejectionKind::Invalid, problems: problems.collect() }.into()
}

async fn next(mut stage: Stage) -> Option<(Result<Event, Infallible>, Stage)> {
    let trace = stage.trace.as_mut()?;
    if stage.left > 0 {
        let packet = tokio::select! {
            packet = trace.next() => packet,
            () = tokio::time::sleep_until(stage.until) => None,
            () = closed(stage.closing.as_mut()) => return None,
        };
        if let Some(packet) = packet {
            stage.left -= 1;
            stage.shown += 1;
            return Some((Ok(as_sse("packet", &*packet)), stage));
        }
    }
    let end = TraceEnd { shown: stage.shown, ..trace.counts() };
    stage.trace = None;
    Some((Ok(as_sse("end", &end)), stage))
}
