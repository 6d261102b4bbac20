//! `?watch` of `/personas`: how things are, then what becomes of them, as server-sent events.
//!
//! A stream compares the state that was published last with the one that it showed, and only when its reader has taken
//! all of that: whoever is slow misses what did not last, never how it ended, and one state waits for them at most. A
//! reader that takes nothing for long is cut off by the listener. Events have no ids: a stream that broke is begun anew
//! and tells everything again, also what a daemon that started anew has.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::response::sse::{Event, KeepAlive};
use axum::response::{IntoResponse as _, Response, Sse};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, watch};
use utoipa::ToSchema;

use super::Api;
use super::events::{KEEP_ALIVE, as_sse, closed};
use super::filter::Filter;
use super::problem::ProblemDetails;
use crate::desired::shared_map::SharedMap;
use crate::inputs::server::Closing;
use crate::model::PersonaId;
use crate::view::{PersonaView, Snapshot};

/// Data of a `current` event: everything that there was when the stream began has been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Current {
    /// How many personas that is.
    pub(crate) personas: usize,
}

/// Which personas a stream is about.
pub(super) enum Which {
    /// Those that a list would show.
    Fitting(Filter),
    /// One, as long as there is it.
    One(PersonaId),
}

/// What a reader has yet to take.
enum News {
    Of(&'static str, Arc<PersonaView>),
    Current(Current),
}

/// What a stream needs between two events.
struct Stage {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    closing: Option<Closing>,
    which: Which,
    shown: SharedMap<PersonaId, Arc<PersonaView>>,
    news: VecDeque<News>,
    _permit: OwnedSemaphorePermit,
}

impl Api {
    /// A stream of these personas.
    pub(super) fn watch(&self, which: Which, closing: Option<Closing>) -> Result<Response, ProblemDetails> {
        let permit = self.stream()?;
        let mut stage = Stage {
            snapshots: self.hub.snapshot.clone(),
            closing,
            which,
            shown: SharedMap::new(),
            news: VecDeque::new(),
            _permit: permit,
        };
        stage.compare();
        let current = Current { personas: stage.news.len() };
        stage.news.push_back(News::Current(current));
        let events = futures::stream::unfold(stage, next);
        Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
    }
}

async fn next(mut stage: Stage) -> Option<(Result<Event, Infallible>, Stage)> {
    loop {
        if let Some(news) = stage.news.pop_front() {
            let event = match news {
                News::Of(what, persona) => as_sse(what, &*persona),
                News::Current(current) => as_sse("current", &current),
            };
            return Some((Ok(event), stage));
        }
        if stage.which.is_over(&stage.shown) {
            return None;
        }
        tokio::select! {
            changed = stage.snapshots.changed() => changed.ok()?,
            () = closed(stage.closing.as_mut()) => return None,
        }
        stage.compare();
    }
}

impl Stage {
    /// Notes what is different from what was shown.
    fn compare(&mut self) {
        let personas = self.snapshots.borrow_and_update().personas.clone();
        for (_, before, after) in self.shown.changes(&personas) {
            let fitting =
                |view: Option<&Arc<PersonaView>>| view.filter(|view| self.which.takes(view)).cloned();
            let news = match (fitting(before), fitting(after)) {
                (None, None) => continue,
                (None, Some(after)) => News::Of("added", after),
                (Some(_), Some(after)) => News::Of("modified", after),
                (Some(before), None) => News::Of("deleted", before),
            };
            self.news.push_back(news);
        }
        self.shown = personas;
    }
}

impl Which {
    fn takes(&self, persona: &PersonaView) -> bool {
        match self {
            Self::Fitting(filter) => filter.takes(persona),
            Self::One(id) => persona.id == *id,
        }
    }

    /// Whether nothing can come any more: an id is never used again.
    fn is_over(&self, shown: &SharedMap<PersonaId, Arc<PersonaView>>) -> bool {
        match self {
            Self::Fitting(_) => false,
            Self::One(id) => !shown.contains_key(id),
        }
    }
}
