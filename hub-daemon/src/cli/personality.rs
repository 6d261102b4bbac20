//! `hubctl personality`: versions of personalities, and what is said of switches.

use std::path::PathBuf;
use std::process::ExitCode;

use axum::http::Method;
use clap::{Args, Subcommand, ValueHint};
use serde_json::{Value, json};

use super::arguments::Format;
use super::client::{self, Client};
use super::definition;
use super::drain;
use super::exit::Failure;
use super::follow;
use super::interface::{self, documents, left_out};
use super::output::{self, Output};
use super::persona::origin;
use super::switch::{self, SwitchAsked};
use super::table::{pairs, section, table};
use crate::inputs::rest::SwitchJournal;
use crate::systems::personality::operation::JournalEntry;
use crate::view::switch::{OperationView, PersonalityView};

/// Kind of these documents.
const KIND: &str = "personality";

#[derive(Debug, Subcommand)]
pub(super) enum PersonalityVerb {
    /// Keep personalities; the same content again is the same version
    Create {
        /// YAML or JSON with one or several documents; - is standard input
        #[arg(short, long, value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// List personalities, every version
    List {
        /// Only versions of this name
        name: Option<String>,
    },
    /// Show a personality and who has it
    Show {
        /// NAME for its last version, or NAME@VERSION
        personality: String,
    },
    /// Delete versions of personalities; a name alone means all of its versions
    Delete {
        /// NAME or NAME@VERSION
        #[arg(required = true)]
        personalities: Vec<String>,
    },
    /// Switch an interface, or several as one, to a personality and follow it: exit code 0 if it ended as
    /// ordered, 1 if not
    Switch(SwitchAsked),
    /// Go back to what was good last, else to the default; give up a switch that is under way
    Revert(SaidAsked),
    /// Keep a switch that waits for confirmation
    Confirm(SaidAsked),
    /// Give up a switch that has not been made yet
    Cancel(SaidAsked),
    /// List the connections that the switch of an interface waits for, and why they would end
    Drain {
        /// Name of the record
        interface: String,
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },
    /// List switches of an interface that are over
    Journal {
        /// Name of the record
        interface: String,
        /// The last so many
        #[arg(long, default_value_t = 20)]
        limit: u32,
        /// Only those that ended then or later, as 2030-12-31T23:59:59Z
        #[arg(long, value_name = "TIME")]
        since: Option<jiff::Timestamp>,
    },
}

/// A word about the switch of an interface.
#[derive(Debug, Args)]
pub(super) struct SaidAsked {
    /// Name of the record
    interface: String,
    /// Why, for people and the journal
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
}

pub(super) async fn run(client: &Client, output: Output, verb: PersonalityVerb) -> Result<ExitCode, Failure> {
    match verb {
        PersonalityVerb::Create { file } => {
            let (documents, others) = definition::of_kind(&file, KIND)?;
            for document in documents {
                let answer = client.send(Method::POST, "/v1/personalities", &document).await?;
                show_kept(output, &answer.body)?;
            }
            left_out(output, others)?;
        }
        PersonalityVerb::List { name } => list(client, output, name.as_deref()).await?,
        PersonalityVerb::Show { personality } => {
            let view = client.get(&path(&personality)).await?.body;
            match output.format() {
                Format::Yaml => documents(output, KIND, &[view])?,
                Format::Json => output.line(&output::pretty(&view)?)?,
                Format::Table => output.show(&view, describe)?,
            }
        }
        PersonalityVerb::Delete { personalities } => {
            for personality in personalities {
                client.ask(Method::DELETE, &path(&personality), None, None).await?;
                output.done(&format!("{personality} deleted"))?;
            }
        }
        PersonalityVerb::Switch(asked) => return switch::run(client, output, &asked).await,
        PersonalityVerb::Revert(asked) => return revert(client, output, &asked).await,
        PersonalityVerb::Confirm(asked) => {
            let view = say(client, &asked, "confirm").await?;
            return follow::ended(output, &view);
        }
        PersonalityVerb::Cancel(asked) => {
            let view = say(client, &asked, "cancel").await?;
            output.show(&view, |view: &OperationView| {
                format!("{}: the switch to {} is given up; it has {}", view.interface, view.to, view.from)
            })?;
        }
        PersonalityVerb::Drain { interface, limit } => drain::run(client, output, &interface, limit).await?,
        PersonalityVerb::Journal { interface, limit, since } => {
            journal(client, output, &interface, limit, since).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn path(personality: &str) -> String {
    format!("/v1/personalities/{}", client::step(personality))
}

async fn say(client: &Client, asked: &SaidAsked, what: &str) -> Result<Value, Failure> {
    let path = format!("{}/{what}", interface::path(&asked.interface));
    Ok(client.send(Method::POST, &path, &json!({"why": asked.why.clone().unwrap_or_default()})).await?.body)
}

/// Follows the way back; of a switch that was given up, being back is what was ordered.
async fn revert(client: &Client, output: Output, asked: &SaidAsked) -> Result<ExitCode, Failure> {
    let began = say(client, asked, "revert").await?;
    follow::follow_back(client, output, began).await
}

fn show_kept(output: Output, view: &Value) -> Result<(), Failure> {
    match output.format() {
        Format::Table => output.show(view, |view: &PersonalityView| {
            let [to, from] = view.compiled_rules;
            format!("{} kept: {to} rules towards the interface, {from} from it", view.version)
        }),
        Format::Json => output.line(&output::pretty(view)?),
        Format::Yaml => documents(output, KIND, std::slice::from_ref(view)),
    }
}

async fn list(client: &Client, output: Output, name: Option<&str>) -> Result<(), Failure> {
    let all = interface::pages(client, "/v1/personalities", "personalities", &[("name", name)]).await?;
    match output.format() {
        Format::Yaml => documents(output, KIND, &all),
        Format::Table | Format::Json => output.show(&Value::Array(all), |all: &Vec<PersonalityView>| {
            let rows = all.iter().map(|view| {
                [
                    view.version.to_string(),
                    view.digest.0.chars().take(12).collect(),
                    view.compiled_rules.iter().sum::<usize>().to_string(),
                    view.created_at.to_string(),
                    origin(&view.origin),
                    used_by(view),
                ]
            });
            table(["VERSION", "DIGEST", "RULES", "CREATED", "ORIGIN", "USED BY"], rows)
        }),
    }
}

fn used_by(view: &PersonalityView) -> String {
    view.used_by.iter().cloned().collect::<Vec<_>>().join(", ")
}

fn describe(view: &PersonalityView) -> String {
    let [to, from] = view.compiled_rules;
    let mut text = pairs(&[
        ("version", view.version.to_string()),
        ("digest", view.digest.0.clone()),
        ("created", view.created_at.to_string()),
        ("origin", origin(&view.origin)),
        ("compiled rules", format!("{to} towards the interface, {from} from it")),
        ("used by", used_by(view)),
    ]);
    let definition = serde_json::to_value(&view.definition).unwrap_or_default();
    text.push_str(&section("definition", &output::yaml(&definition).unwrap_or_default()));
    text
}

async fn journal(
    client: &Client,
    output: Output,
    interface: &str,
    limit: u32,
    since: Option<jiff::Timestamp>,
) -> Result<(), Failure> {
    let limit = limit.to_string();
    let since = since.map(|since| since.to_string());
    let path = format!("{}/journal", interface::path(interface));
    let parameters = [("limit", Some(limit.as_str())), ("since", since.as_deref())];
    let answer = client.get(&client::query(&path, parameters)).await?.body;
    output.show(&answer, |journal: &SwitchJournal| {
        let rows = journal.entries.iter().map(row);
        table(["ENDED", "FROM", "TO", "RESULT", "TOOK", "BLOCKED", "KEPT", "CUT", "BY", "WHY"], rows)
    })
}

/// A number that is not known where nobody counted.
fn counted(number: Option<u64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

fn row(entry: &JournalEntry) -> [String; 10] {
    let took = u64::try_from(entry.ended_at.duration_since(entry.began_at).as_micros()).unwrap_or_default();
    let why = match &entry.failure {
        Some(failure) if entry.why.is_empty() => failure.clone(),
        Some(failure) => format!("{} ({failure})", entry.why),
        None => entry.why.clone(),
    };
    [
        entry.ended_at.to_string(),
        entry.from.to_string(),
        entry.to.to_string(),
        entry.outcome.words().to_owned(),
        follow::time(took),
        follow::time(entry.blocked_us),
        counted(entry.flows.map(|flows| flows.kept)),
        counted(follow::cut(entry)),
        entry.by.clone(),
        why,
    ]
}
