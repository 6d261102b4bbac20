//! `/pools`: where ranges are taken from, and what was taken.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use crate::view::PoolView;

/// All pools of `hub.yaml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PoolList {
    /// By name.
    pub pools: Vec<PoolView>,
}

/// Lists pools with the ranges that personas have out of them
#[utoipa::path(get, path = "/pools", tag = "hub", responses((status = 200, body = PoolList)))]
pub(super) async fn pools(State(api): State<Api>) -> Json<PoolList> {
    let snapshot = Arc::clone(&api.hub.snapshot.borrow());
    Json(PoolList { pools: snapshot.pools.clone() })
}
