//! `hubctl alerts`.

use super::client::Client;
use super::exit::Failure;
use super::output::Output;
use super::table::table;
use crate::outputs::alerts::AlertView;

pub(super) async fn run(client: &Client, output: Output) -> Result<(), Failure> {
    let answer = client.get("/v1/alerts").await?;
    output.show(&answer.body, |alerts: &Vec<AlertView>| {
        table(["PERSONA", "ALERT", "STATE", "SINCE", "VALUE", "THRESHOLD"], alerts.iter().map(row))
    })
}

fn row(alert: &AlertView) -> [String; 6] {
    let of = alert.of.as_ref().map(|of| format!(" of {of}")).unwrap_or_default();
    [
        alert.persona.clone().unwrap_or_else(|| "(hub)".to_owned()),
        alert.alert.clone(),
        alert.state.clone(),
        alert.since.map_or_else(|| "-".to_owned(), |since| since.to_string()),
        alert.value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}")),
        format!("{}{of} {} {}", alert.metric, alert.op, alert.threshold),
    ]
}
