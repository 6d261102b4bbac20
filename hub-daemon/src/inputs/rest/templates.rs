//! `/templates`: what personas may be made of.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use crate::document::persona::PersonaDocument;

/// All templates of the documents folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TemplateList {
    /// By name.
    pub templates: Vec<PersonaDocument>,
}

/// Lists templates; a persona takes one with `"template": "NAME"`
#[utoipa::path(get, path = "/templates", tag = "personas", responses((status = 200, body = TemplateList)))]
pub(super) async fn templates(State(api): State<Api>) -> Json<TemplateList> {
    let snapshot = Arc::clone(&api.hub.snapshot.borrow());
    Json(TemplateList { templates: snapshot.templates.values().cloned().collect() })
}
