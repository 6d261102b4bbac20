//! `hubctl status`.

use super::client::Client;
use super::exit::Failure;
use super::output::Output;
use super::persona::conditions;
use super::table::{pairs, section, table};
use crate::outputs::status::StatusView;

pub(super) async fn run(client: &Client, output: Output) -> Result<(), Failure> {
    let answer = client.get("/v1/status").await?;
    output.show(&answer.body, describe)
}

fn describe(status: &StatusView) -> String {
    let personas: Vec<String> =
        status.personas.iter().filter(|(_, n)| **n > 0).map(|(state, n)| format!("{n} {state}")).collect();
    let interfaces: Vec<String> = status.interfaces.iter().map(|(state, n)| format!("{n} {state}")).collect();
    let time =
        |time: Option<jiff::Timestamp>| time.map_or_else(|| "never".to_owned(), |time| time.to_string());
    let flows = &status.flow_table;
    let mut text = pairs(&[
        ("hubd", format!("{}, {}", status.version, if status.ready { "ready" } else { "not ready" })),
        ("started", status.started_at.to_string()),
        ("personas", if personas.is_empty() { "none".to_owned() } else { personas.join(", ") }),
        ("interfaces", interfaces.join(", ")),
        (
            "flows",
            format!(
                "established {} of {}, opening {} of {}",
                flows.established, flows.established_max, flows.opening, flows.opening_max
            ),
        ),
        ("bandwidths by", status.qos_engine.clone()),
        ("documents read", time(status.documents_read)),
        ("documents error", status.documents_error.clone().unwrap_or_default()),
        ("reconciled", time(status.reconciled_at)),
    ]);
    text.push_str(&section("conditions", &conditions(&status.conditions)));
    if !status.attachments.is_empty() {
        let rows = status.attachments.iter().map(|attachment| {
            [
                attachment.interface.clone(),
                attachment.role.clone(),
                attachment.hook.clone(),
                attachment.mode.clone(),
                attachment.program_id.to_string(),
            ]
        });
        let programs = table(["INTERFACE", "ROLE", "HOOK", "MODE", "PROGRAM"], rows);
        text.push_str(&section("programs", &programs));
    }
    if !status.tables.is_empty() {
        let rows = status.tables.iter().map(|view| {
            let number = |value: u64| value.to_string();
            [
                view.table.clone(),
                number(view.puts),
                number(view.deletes),
                number(view.failures),
                number(view.drift),
            ]
        });
        let tables = table(["TABLE", "PUTS", "DELETES", "FAILURES", "DRIFT"], rows);
        text.push_str(&section("kernel tables", &tables));
    }
    text
}
