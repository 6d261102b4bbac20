//! `/interfaces/{interface}/journal`: switches that are over, from the file that they are written to.

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::problem::ProblemDetails;
use super::query::{Named, Parameters};
use crate::systems::personality::operation::JournalEntry;

/// Switches of an interface that are over.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct SwitchJournal {
    /// The oldest first.
    pub(crate) entries: Vec<JournalEntry>,
}

/// Lists switches of an interface that are over: who, why, from and to what, how long, and how they ended
#[utoipa::path(get, path = "/interfaces/{interface}/journal", tag = "personalities",
    operation_id = "journal_of_interface",
    params(
        ("interface" = String, Path, description = "name of the record, also of one that is gone"),
        ("limit" = Option<u32>, Query, description = "the last 1 to 1000, default 100"),
        ("since" = Option<String>, Query, description = "only those that ended then or later"),
    ),
    responses(
        (status = 200, body = SwitchJournal),
        (status = 400, description = "a parameter is wrong"),
        (status = 404, description = "no such record, and nothing in the journal"),
        (status = 503, description = "the journal cannot be read"),
    ))]
pub(super) async fn journal(
    State(api): State<Api>,
    Named(interface): Named,
    mut parameters: Parameters,
) -> Result<Json<SwitchJournal>, ProblemDetails> {
    let limit = parameters.number("limit", 100, 1_000);
    let since = parameters.one("since").and_then(|text| {
        let since: Result<Timestamp, _> = text.parse();
        if since.is_err() {
            parameters.refuse("since", &format!("`{text}`: use a time like 2030-12-31T23:59:59Z"));
        }
        since.ok()
    });
    parameters.finish()?;
    let known = api.interface(&interface);
    let switches = api.hub.switches;
    let read = tokio::task::spawn_blocking(move || switches.journal(&interface, since, limit)).await;
    let entries = match read {
        Ok(Ok(entries)) => entries,
        Ok(Err(error)) => return Err(ProblemDetails::unavailable(&format!("read the journal: {error}"))),
        Err(error) => return Err(ProblemDetails::unavailable(&error.to_string())),
    };
    match known {
        Err(problem) if entries.is_empty() => Err(problem),
        Ok(_) | Err(_) => Ok(Json(SwitchJournal { entries })),
    }
}
