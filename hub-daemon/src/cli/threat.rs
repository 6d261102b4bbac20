//! `hubctl threat-level`: shows the levels that interfaces follow, or tells another one.

use axum::http::Method;

use super::client::Client;
use super::exit::Failure;
use super::output::Output;
use super::table::table;
use crate::inputs::rest::{ThreatDocument, ThreatView};

const PATH: &str = "/v1/threat-level";

pub(super) async fn run(
    client: &Client,
    output: Output,
    level: Option<String>,
    interfaces: Vec<String>,
) -> Result<(), Failure> {
    let answer = match level {
        None => client.get(PATH).await?,
        Some(level) => {
            let interfaces = Some(interfaces).filter(|interfaces| !interfaces.is_empty());
            let document = ThreatDocument { level, interfaces };
            let document = serde_json::to_value(document).map_err(Failure::answer)?;
            client.send(Method::PUT, PATH, &document).await?
        }
    };
    output.show(&answer.body, |view: &ThreatView| {
        let rows = view.interfaces.iter().map(|zone| {
            let level = zone.level.clone().unwrap_or_else(|| "-".to_owned());
            [zone.interface.clone(), level, zone.levels.join(", ")]
        });
        table(["INTERFACE", "LEVEL", "LEVELS"], rows)
    })
}
