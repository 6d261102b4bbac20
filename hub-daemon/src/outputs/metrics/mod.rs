//! Prometheus metrics, read at each scrape from the published snapshot and the kernel's maps.
//!
//! Nothing is counted here and nothing is kept between scrapes. The number of series is bounded by the
//! personas, their rules and the fixed lists of reasons and hooks: no label carries anything of a packet.

mod hub;
mod persona;
mod qos;
mod series;

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;

use crate::inputs::HubHandle;

use self::series::Series;

/// `OpenMetrics` 1.0 text, which Prometheus reads.
const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Reads all metrics.
#[derive(Debug)]
struct HubCollector(HubHandle);

impl Collector for HubCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut series = Series::new(encoder);
        let snapshot = Arc::clone(&self.0.snapshot.borrow());
        hub::encode(&mut series, &self.0, &snapshot)?;
        let rows = persona::rows(&*self.0.datapath, &snapshot);
        persona::encode(&mut series, &rows)?;
        qos::encode(&mut series, &*self.0.datapath, &snapshot, &rows)
    }
}

/// `GET /metrics`, to be served with [`crate::inputs::server::bind_plain`].
pub fn router(hub: HubHandle) -> Router {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(HubCollector(hub)));
    Router::new().route("/metrics", get(scrape)).with_state(Arc::new(registry))
}

async fn scrape(State(registry): State<Arc<Registry>>) -> Response {
    let encoded = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).map(|()| text)
    });
    match encoded.await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, MEDIA_TYPE)], text).into_response(),
        Ok(Err(error)) => failed(&error),
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn std::error::Error) -> Response {
    tracing::warn!(%error, "cannot write metrics");
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
}
