//! `/alerts`: where thresholds stand.

use axum::Json;
use axum::extract::State;

use super::Api;
use crate::outputs::alerts::AlertView;

/// Lists alerts of the hub and of personas
///
/// They are looked at once a second.
#[utoipa::path(get, path = "/alerts", tag = "hub", responses((status = 200, body = Vec<AlertView>)))]
pub(super) async fn alerts(State(api): State<Api>) -> Json<Vec<AlertView>> {
    Json(api.hub.alerts.views.borrow().to_vec())
}
