//! Prometheus metrics, read at each scrape from the published snapshot and the kernel's maps.
//!
//! Nothing is counted here; between scrapes only the names of the last snapshot's personas are kept. The number
//! of series is bounded by the personas, their rules and the fixed lists of reasons and hooks: no label carries
//! anything of a packet. Families of the hub are written by the library, those of personas, which may be very
//! many, piece by piece.

mod experiments;
mod hub;
mod page;
mod persona;
mod qos;
mod roster;
mod rows;
mod series;
mod switches;
mod text;

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;

use crate::inputs::HubHandle;
use crate::view::Snapshot;

use self::hub::Flows;
use self::page::Page;
use self::roster::{Last, Roster};
use self::rows::Rows;
use self::series::Series;

/// `OpenMetrics` 1.0 text, which Prometheus reads.
const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Writes the metrics of the hub itself.
struct HubCollector {
    hub: HubHandle,
    snapshot: Arc<Snapshot>,
    roster: Arc<Roster>,
    flows: Flows,
}

impl fmt::Debug for HubCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HubCollector")
    }
}

impl Collector for HubCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        hub::encode(&mut Series::new(encoder), &self.hub, &self.snapshot, &self.roster, &self.flows)
    }
}

/// `GET /metrics`, to be served with [`crate::inputs::server::bind_plain`].
pub fn router(hub: HubHandle) -> Router {
    Router::new().route("/metrics", get(scrape)).with_state((hub, Last::new()))
}

async fn scrape(State((hub, last)): State<(HubHandle, Last)>) -> Response {
    let read = tokio::task::spawn_blocking(move || read(hub, &last));
    match read.await {
        Ok(Ok(page)) => {
            let body = Body::from_stream(futures::stream::iter(page));
            ([(header::CONTENT_TYPE, MEDIA_TYPE)], body).into_response()
        }
        Ok(Err(error)) => failed(&error),
        Err(error) => failed(&error),
    }
}

/// Reads everything; what is told of personas is made into text later.
fn read(hub: HubHandle, last: &Last) -> Result<Page, fmt::Error> {
    let snapshot = Arc::clone(&hub.snapshot.borrow());
    let roster = last.of(&snapshot);
    let (flows, of_personas) = match hub.datapath.flow_counts() {
        Ok(flows) => (Ok(flows.table), Some(flows.personas)),
        Err(error) => (Err(error), None),
    };
    let rows = Rows::read(&*hub.datapath, Arc::clone(&roster), of_personas);
    let mut registry = Registry::default();
    registry.register_collector(Box::new(HubCollector { hub, snapshot, roster, flows }));
    let mut head = String::new();
    prometheus_client::encoding::text::encode_registry(&mut head, &registry)?;
    Ok(Page::new(head, rows))
}

fn failed(error: &dyn std::error::Error) -> Response {
    tracing::warn!(%error, "cannot write metrics");
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
}
