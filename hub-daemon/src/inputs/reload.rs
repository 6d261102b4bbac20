//! Asking for the documents folder to be read again: to see what would change, or to change it.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::oneshot;
use utoipa::ToSchema;

use crate::document::snippet::Diagnostic;

/// A request to the task that reads the documents folder. SIGHUP and `hubctl apply` are the same request.
#[derive(Debug)]
pub struct ReloadRequest {
    /// What to do with what was read.
    pub mode: ReloadMode,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<ReloadReport, ReloadFailure>>,
}

/// What to do with the documents that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadMode {
    /// Compare only.
    Plan,
    /// Make them what the hub wants.
    Apply,
}

/// How the documents differ from what the hub holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ReloadReport {
    /// Number of documents read.
    pub documents: u64,
    /// Whether the hub took the changes.
    pub applied: bool,
    /// What is different, by name of the persona.
    pub changes: Vec<Change>,
    /// Keys of `hub.yaml` that differ and can be changed while the hub runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub configured: Vec<String>,
    /// Keys of `hub.yaml` that differ and need a restart of `hubd`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs_restart: Vec<String>,
}

/// One persona that differs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// Name of the persona.
    pub persona: String,
    /// What happens to it.
    pub action: ChangeAction,
    /// File and line of the document; absent when it is gone.
    pub written: Option<String>,
    /// Fields that differ, for an update.
    pub fields: Vec<FieldChange>,
}

/// What happens to a persona.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChangeAction {
    /// It is in the documents and not in the hub.
    Create,
    /// It is in both and differs.
    Update,
    /// It came from a document that is gone.
    Delete,
}

/// One field that differs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FieldChange {
    /// JSON pointer to it.
    pub pointer: String,
    /// What the hub holds; absent when the field is added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<Value>,
    /// What the document says; absent when the field is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<Value>,
}

/// Why the documents were not taken; the hub is as before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} problems in the documents", problems.len())]
pub struct ReloadFailure {
    /// Every problem found; at least one.
    pub problems: Vec<FileProblem>,
}

/// One thing wrong with a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileProblem {
    /// The file.
    #[schema(value_type = String)]
    pub file: PathBuf,
    /// Line, from 1; 0 when the problem is the file as a whole.
    pub line: u32,
    /// Column, from 1; 0 when unknown.
    pub column: u32,
    /// JSON pointer to the field within the document, empty when unknown.
    pub pointer: String,
    /// What is wrong and what would be right.
    pub detail: String,
    /// All of this for people, with the line and a caret below the place; empty when there is no text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub snippet: String,
}

impl From<&Diagnostic> for FileProblem {
    fn from(diagnostic: &Diagnostic) -> Self {
        Self {
            file: diagnostic.path.clone(),
            line: diagnostic.line,
            column: diagnostic.column,
            pointer: diagnostic.pointer.clone(),
            detail: diagnostic.detail.clone(),
            snippet: diagnostic.to_string(),
        }
    }
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.snippet.is_empty() {
            return f.write_str(self.snippet.trim_end());
        }
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if self.line > 0 && self.column > 0 {
            write!(f, ":{}", self.column)?;
        }
        write!(f, ": ")?;
        if !self.pointer.is_empty() {
            write!(f, "{}: ", self.pointer)?;
        }
        write!(f, "{}", self.detail)
    }
}
