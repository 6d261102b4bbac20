//! `/plan` and `/reload`: the documents folder, read again.

use axum::Json;
use axum::extract::State;
use tokio::sync::oneshot;

use super::problem::ProblemDetails;
use super::{Api, HUB_TIME};
use crate::inputs::reload::{ReloadMode, ReloadReport, ReloadRequest};

/// Reads the documents and says what would change
#[utoipa::path(get, path = "/plan", tag = "documents",
    responses(
        (status = 200, body = ReloadReport),
        (status = 422, description = "a document is invalid; nothing changed"),
        (status = 503, description = "the hub is busy or stopping"),
    ))]
pub(super) async fn plan(State(api): State<Api>) -> Result<Json<ReloadReport>, ProblemDetails> {
    api.documents(ReloadMode::Plan).await.map(Json)
}

/// Reads the documents and makes them what the hub wants
#[utoipa::path(post, path = "/reload", tag = "documents",
    responses(
        (status = 200, body = ReloadReport),
        (status = 422, description = "a document is invalid; nothing changed"),
        (status = 503, description = "the hub is busy or stopping"),
    ))]
pub(super) async fn reload(State(api): State<Api>) -> Result<Json<ReloadReport>, ProblemDetails> {
    api.documents(ReloadMode::Apply).await.map(Json)
}

impl Api {
    async fn documents(&self, mode: ReloadMode) -> Result<ReloadReport, ProblemDetails> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.hub.reload.send(ReloadRequest { mode, answer }).await.ok()?;
            answered.await.ok()
        };
        match tokio::time::timeout(HUB_TIME, asked).await {
            Ok(Some(report)) => report.map_err(ProblemDetails::from),
            Ok(None) => Err(ProblemDetails::unavailable("the hub is stopping")),
            Err(_elapsed) => Err(ProblemDetails::unavailable("the hub is busy reading documents")),
        }
    }
}
