//! The bounded set of connections of one listener, and which of them may be pushed out.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{Request, Response, StatusCode};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::task::{AbortHandle, JoinSet};
use tower::ServiceExt as _;

use super::{Closing, Peer};

/// No request under way: waiting for a header, or in the TLS handshake.
const IDLE: u8 = 0;
/// A request is being answered.
const BUSY: u8 = 1;
/// Pushed out; no request may start.
const CLOSED: u8 = 2;

/// What the acceptor and a connection share: which of the three states it is in.
#[derive(Debug, Default)]
pub(super) struct Slot(AtomicU8);

impl Slot {
    fn change(&self, from: u8, to: u8) -> bool {
        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// The connections of one listener, oldest first.
pub(super) struct Connections {
    max: usize,
    tasks: JoinSet<()>,
    open: Vec<(Arc<Slot>, AbortHandle)>,
}

impl Connections {
    pub(super) fn new(max: usize) -> Self {
        Self { max, tasks: JoinSet::new(), open: Vec::with_capacity(max) }
    }

    /// Runs a connection; when there is no room, pushes out the oldest idle one, or gives this one up.
    pub(super) fn start<F>(&mut self, connection: impl FnOnce(Arc<Slot>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        while self.tasks.try_join_next().is_some() {}
        self.open.retain(|(_, task)| !task.is_finished());
        if self.open.len() >= self.max && !self.push_out() {
            tracing::warn!(max = self.max, "refused a connection: all are busy");
            return;
        }
        let slot = Arc::new(Slot::default());
        let task = self.tasks.spawn(connection(Arc::clone(&slot)));
        self.open.push((slot, task));
    }

    fn push_out(&mut self) -> bool {
        let Some(position) = self.open.iter().position(|(slot, _)| slot.change(IDLE, CLOSED)) else {
            return false;
        };
        let (_, task) = self.open.remove(position);
        task.abort();
        true
    }

    /// Waits until all have ended, then ends those that have not.
    pub(super) async fn finish(mut self, patience: Duration) {
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(patience, all).await.is_err() {
            self.tasks.shutdown().await;
        }
    }
}

/// A router as hyper wants it, which knows the peer and marks the slot busy from a request's header to its answer's end.
pub(super) fn service(
    router: Router,
    slot: Arc<Slot>,
    peer: Peer,
    closing: Closing,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = Response<Tracked>,
    Error = Infallible,
    Future: Send + 'static,
> + Send {
    hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        request.extensions_mut().insert(closing.clone());
        let (router, slot) = (router.clone(), Arc::clone(&slot));
        async move {
            if !slot.change(IDLE, BUSY) {
                let mut refusal = Response::new(Body::empty());
                *refusal.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                return Ok(refusal.map(|body| Tracked { body, _busy: Busy(slot) }));
            }
            let busy = Busy(slot);
            let answer = router.oneshot(request).await?;
            Ok(answer.map(|body| Tracked { body, _busy: busy }))
        }
    })
}

/// Marks the slot idle when dropped.
#[derive(Debug)]
struct Busy(Arc<Slot>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.change(BUSY, IDLE);
    }
}

/// A body that keeps its connection busy until it is sent or given up.
#[derive(Debug)]
pub(super) struct Tracked {
    body: Body,
    _busy: Busy,
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
