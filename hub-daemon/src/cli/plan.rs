//! `hubctl plan` and `hubctl apply`.

use axum::http::Method;

use super::client::Client;
use super::exit::{Failure, count};
use super::output::Output;
use super::table::cell;
use crate::inputs::reload::{Change, ChangeAction, FieldChange, ReloadReport};

pub(super) async fn plan(client: &Client, output: Output) -> Result<(), Failure> {
    let answer = client.get("/v1/plan").await?;
    output.show(&answer.body, |report: &ReloadReport| describe(report, "would change"))
}

pub(super) async fn apply(client: &Client, output: Output) -> Result<(), Failure> {
    let answer = client.ask(Method::POST, "/v1/reload", None, None).await?;
    output.show(&answer.body, |report: &ReloadReport| describe(report, "changed"))
}

fn describe(report: &ReloadReport, verb: &str) -> String {
    let mut keys = String::new();
    if !report.configured.is_empty() {
        keys = format!("hub.yaml {verb}: {}\n", report.configured.join(", "));
    }
    if !report.needs_restart.is_empty() {
        keys.push_str("restart hubd for: ");
        keys.push_str(&report.needs_restart.join(", "));
        keys.push('\n');
    }
    let documents = count(usize::try_from(report.documents).unwrap_or(usize::MAX), "document");
    if report.changes.is_empty() {
        return format!("{keys}{documents} read; nothing {verb}");
    }
    let changes: String = report.changes.iter().map(describe_change).collect();
    format!("{keys}{changes}\n{documents} read; {} {verb}", count(report.changes.len(), "persona"))
}

fn describe_change(change: &Change) -> String {
    let sign = match change.action {
        ChangeAction::Create => '+',
        ChangeAction::Update => '~',
        ChangeAction::Delete => '-',
    };
    let place = change.written.as_ref().map(|written| format!("  ({written})")).unwrap_or_default();
    let fields: String = change.fields.iter().map(describe_field).collect();
    format!("{sign} {}{place}\n{fields}", change.persona)
}

fn describe_field(field: &FieldChange) -> String {
    let (old, new) = (cell(field.old.as_ref()), cell(field.new.as_ref()));
    match (&field.old, &field.new) {
        (None, _) => format!("    + {}: {new}\n", field.pointer),
        (Some(_), None) => format!("    - {}: {old}\n", field.pointer),
        (Some(_), Some(_)) => format!("    ~ {}: {old} -> {new}\n", field.pointer),
    }
}
