//! `hubctl interface`: create, list, show and delete the records of interfaces.

use std::path::PathBuf;

use axum::http::Method;
use clap::{Subcommand, ValueHint};
use serde_json::Value;

use super::arguments::Format;
use super::client::{self, Client};
use super::definition;
use super::exit::Failure;
use super::output::{self, Output};
use super::persona::{conditions, origin};
use super::table::{cell, pairs, section, table};
use crate::model::check::CheckResult;
use crate::outputs::status::interface_state_name;
use crate::view::switch::InterfaceView;

/// Kind of these documents.
const KIND: &str = "interface";
/// Records asked for at once.
const PAGE: &str = "1000";

#[derive(Debug, Subcommand)]
pub(super) enum InterfaceVerb {
    /// Give interfaces their first personality
    Create {
        /// YAML or JSON with one or several documents; - is standard input
        #[arg(short, long, value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// List interfaces, the personality that each has, and its state
    List {
        /// State: active, draining, applying, verifying, `awaiting_confirm`, fallback or degraded
        #[arg(long)]
        state: Option<String>,
        /// Name of the personality that it has
        #[arg(long)]
        personality: Option<String>,
        /// Label that the record has; may be given several times
        #[arg(short, long = "label", value_name = "KEY=VALUE")]
        labels: Vec<String>,
    },
    /// Show one interface, with its checks
    Show {
        /// Name of the record
        interface: String,
    },
    /// Forget interfaces: what the hub put there for their personalities goes
    Delete {
        /// Names of the records
        #[arg(required = true)]
        interfaces: Vec<String>,
    },
}

pub(super) async fn run(client: &Client, output: Output, verb: InterfaceVerb) -> Result<(), Failure> {
    match verb {
        InterfaceVerb::Create { file } => {
            let (documents, others) = definition::of_kind(&file, KIND)?;
            for document in documents {
                let answer = client.send(Method::POST, "/v1/interfaces", &document).await?;
                match output.format() {
                    Format::Table => output.show(&answer.body, |view: &InterfaceView| {
                        let mut text = format!("{} created: it has {}", view.name, view.current);
                        text.push_str(&section("conditions", &conditions(&view.conditions)));
                        text
                    })?,
                    Format::Json | Format::Yaml => show(output, &answer.body)?,
                }
            }
            left_out(output, others)
        }
        InterfaceVerb::List { state, personality, labels } => {
            let mut asked = vec![("state", state.as_deref()), ("personality", personality.as_deref())];
            asked.extend(labels.iter().map(|label| ("label", Some(label.as_str()))));
            let all = all(client, &asked).await?;
            match output.format() {
                Format::Yaml => documents(output, KIND, &all),
                Format::Table | Format::Json => {
                    output.show(&Value::Array(all), |all: &Vec<InterfaceView>| {
                        let columns =
                            ["NAME", "STATE", "PERSONALITY", "PREVIOUS", "UNTIL", "PLACE", "CONDITIONS"];
                        table(columns, all.iter().map(row))
                    })
                }
            }
        }
        InterfaceVerb::Show { interface } => show(output, &client.get(&path(&interface)).await?.body),
        InterfaceVerb::Delete { interfaces } => {
            for interface in interfaces {
                client.ask(Method::DELETE, &path(&interface), None, None).await?;
                output.done(&format!("{interface} deleted"))?;
            }
            Ok(())
        }
    }
}

/// Path of one record.
pub(super) fn path(interface: &str) -> String {
    format!("/v1/interfaces/{}", client::step(interface))
}

/// Every record that these parameters mean.
pub(super) async fn all(client: &Client, asked: &[(&str, Option<&str>)]) -> Result<Vec<Value>, Failure> {
    pages(client, "/v1/interfaces", "interfaces", asked).await
}

/// Every item of a list that comes in pages.
pub(super) async fn pages(
    client: &Client,
    path: &str,
    field: &str,
    asked: &[(&str, Option<&str>)],
) -> Result<Vec<Value>, Failure> {
    let mut all = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let more = [("limit", Some(PAGE)), ("cursor", cursor.as_deref())];
        let page = client.get(&client::query(path, asked.iter().copied().chain(more))).await?.body;
        all.extend(page.get(field).and_then(Value::as_array).into_iter().flatten().cloned());
        cursor = page.get("next_cursor").and_then(Value::as_str).map(str::to_owned);
        if cursor.is_none() {
            return Ok(all);
        }
    }
}

/// Says to people that a file has documents of other kinds.
pub(super) fn left_out(output: Output, others: usize) -> Result<(), Failure> {
    match others {
        0 => Ok(()),
        1 => output.done("1 document of another kind was left out"),
        _ => output.done(&format!("{others} documents of other kinds were left out")),
    }
}

/// Shows definitions as documents of the documents folder.
pub(super) fn documents(output: Output, kind: &str, all: &[Value]) -> Result<(), Failure> {
    let definition = |view: &Value| view.get("definition").cloned().unwrap_or_default();
    let documents: Result<Vec<String>, Failure> =
        all.iter().map(|view| definition::document_of(kind, &definition(view))).collect();
    output.line(&documents?.join("---\n"))
}

fn show(output: Output, view: &Value) -> Result<(), Failure> {
    match output.format() {
        Format::Yaml => documents(output, KIND, std::slice::from_ref(view)),
        Format::Json => output.line(&output::pretty(view)?),
        Format::Table => output.show(view, describe),
    }
}

fn row(view: &InterfaceView) -> [String; 7] {
    let reasons: Vec<&str> = view.conditions.iter().map(|condition| condition.reason.as_str()).collect();
    [
        view.name.clone(),
        interface_state_name(view.state).to_owned(),
        view.current.to_string(),
        view.previous.as_ref().map(ToString::to_string).unwrap_or_default(),
        view.until.map(|until| until.to_string()).unwrap_or_default(),
        place(view),
        reasons.join(","),
    ]
}

/// Where an interface is, as its record says.
fn place(view: &InterfaceView) -> String {
    let definition = serde_json::to_value(&view.definition).unwrap_or_default();
    let interface = cell(definition.get("interface"));
    match &view.definition.namespace {
        Some(namespace) => format!("{interface} in {namespace}"),
        None => interface,
    }
}

fn describe(view: &InterfaceView) -> String {
    let text = |version: &Option<_>| version.as_ref().map(ToString::to_string).unwrap_or_default();
    let switch = view.operation.as_ref().map(|operation| {
        let phase = operation.phase.map_or("over", |phase| phase.words());
        format!("{} to {}, {phase}", operation.id.0, operation.to)
    });
    let mut said = pairs(&[
        ("name", view.name.clone()),
        ("state", interface_state_name(view.state).to_owned()),
        ("personality", view.current.to_string()),
        ("digest", view.digest.0.clone()),
        ("previous", text(&view.previous)),
        ("last known good", text(&view.last_known_good)),
        ("default", text(&view.default)),
        ("goes back", view.until.map(|until| until.to_string()).unwrap_or_default()),
        ("threat level", view.level.clone().unwrap_or_default()),
        ("switch", switch.unwrap_or_default()),
        ("interface", place(view)),
        ("port", view.definition.port.clone().unwrap_or_default()),
        ("persona", view.persona.to_string()),
        ("origin", origin(&view.origin)),
        ("created", view.created_at.to_string()),
    ]);
    said.push_str(&section("checks", &checks(&view.checks)));
    said.push_str(&section("conditions", &conditions(&view.conditions)));
    said
}

/// Checks, one per line.
pub(super) fn checks(results: &[CheckResult]) -> String {
    if results.is_empty() {
        return String::new();
    }
    let rows = results.iter().map(|result| {
        let word = if result.passed { "passed" } else { "failed" };
        [result.check.clone(), word.to_owned(), result.detail.clone()]
    });
    table(["CHECK", "RESULT", "SEEN"], rows)
}
