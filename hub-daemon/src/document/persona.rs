//! The persona document.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Stand-in until the document module lands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PersonaDocument {
    /// Unique name.
    pub name: String,
}
