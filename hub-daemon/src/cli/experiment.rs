//! `hubctl experiment`: begins, shows, changes and ends experiments.

use std::process::ExitCode;

use axum::http::Method;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::client::{self, Client};
use super::exit::Failure;
use super::follow::follow_all;
use super::output::Output;
use super::switch::{HowAsked, LabelsAsked, is_terminal};
use super::table::{pairs, section, table};
use crate::inputs::rest::{ExperimentDocument, ExperimentList, GroupInterfaces};
use crate::systems::experiment::Stage;
use crate::systems::experiment::compare::Compared;
use crate::view::experiment::{ArmView, ExperimentView};

const PATH: &str = "/v1/experiments";

#[derive(Debug, Subcommand)]
pub(super) enum ExperimentVerb {
    /// Switch a part of some interfaces, all of that part or none, and measure both parts
    Start(StartAsked),
    /// List experiments
    List,
    /// Show both sides, what was counted on each, and how B compares with A
    Show {
        /// Its name
        name: String,
    },
    /// Have more or fewer of its interfaces on side B; more only adds some
    Percent {
        /// Its name
        name: String,
        /// So many of a hundred
        #[arg(value_parser = clap::value_parser!(u8).range(1..=99))]
        percent: u8,
        #[command(flatten)]
        said: SaidAsked,
    },
    /// End it: all of its interfaces get the personality of one side
    End {
        /// Its name
        name: String,
        /// The side: a is what they had before
        #[arg(long, value_enum)]
        keep: Keep,
        #[command(flatten)]
        said: SaidAsked,
    },
    /// Forget experiments that are over
    Delete {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
    },
}

/// A new experiment.
#[derive(Debug, Args)]
pub(super) struct StartAsked {
    /// Its name
    name: String,
    /// The personality of side B: NAME for the last version, or NAME@VERSION; `{interface}` stands for the name
    /// of each record
    personality: String,
    /// Names of interface records
    #[arg(value_name = "INTERFACE", required_unless_present = "labels", conflicts_with = "labels")]
    interfaces: Vec<String>,
    #[command(flatten)]
    group: LabelsAsked,
    /// Switch so many of a hundred of them: each by the hash of salt and its name
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=99))]
    percent: u8,
    /// Another salt chooses others; the name of the experiment unless said otherwise
    #[arg(long, value_name = "TEXT")]
    salt: Option<String>,
    #[command(flatten)]
    how: HowAsked,
}

/// How those are switched that change sides.
#[derive(Debug, Args)]
pub(super) struct SaidAsked {
    /// Why, for people and the journal
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
    /// Flip at once: nothing is drained, and nothing is compared with before
    #[arg(long)]
    urgent: bool,
}

impl SaidAsked {
    /// The body of a request that says this and one thing more.
    fn with(&self, name: &str, value: &Value) -> Value {
        let mut document = json!({name: value, "urgent": self.urgent});
        if let (Some(fields), Some(why)) = (document.as_object_mut(), &self.why) {
            fields.insert("why".to_owned(), json!(why));
        }
        document
    }
}

/// A side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Keep {
    /// What they had before
    A,
    /// What a part of them got
    B,
}

pub(super) async fn run(client: &Client, output: Output, verb: ExperimentVerb) -> Result<ExitCode, Failure> {
    match verb {
        ExperimentVerb::Start(asked) => return start(client, output, &asked).await,
        ExperimentVerb::List => {
            let answer = client.get(PATH).await?.body;
            output.show(&answer, |list: &ExperimentList| {
                let columns = ["NAME", "STAGE", "PERCENT", "A", "B", "CREATED", "WHY"];
                table(columns, list.experiments.iter().map(row))
            })?;
        }
        ExperimentVerb::Show { name } => {
            output.show(&client.get(&path(&name)).await?.body, describe)?;
        }
        ExperimentVerb::Percent { name, percent, said } => {
            let document = said.with("percent", &json!(percent));
            let began = client.send(Method::PATCH, &path(&name), &document).await?.body;
            return settled(client, output, &name, began).await;
        }
        ExperimentVerb::End { name, keep, said } => {
            let keep = match keep {
                Keep::A => "a",
                Keep::B => "b",
            };
            let document = said.with("keep", &json!(keep));
            let began = client.send(Method::POST, &format!("{}/end", path(&name)), &document).await?.body;
            return settled(client, output, &name, began).await;
        }
        ExperimentVerb::Delete { names } => {
            for name in names {
                client.ask(Method::DELETE, &path(&name), None, None).await?;
                output.done(&format!("{name} deleted"))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn path(name: &str) -> String {
    format!("{PATH}/{}", client::step(name))
}

async fn start(client: &Client, output: Output, asked: &StartAsked) -> Result<ExitCode, Failure> {
    let names = Some(asked.interfaces.clone()).filter(|names| !names.is_empty());
    let document = ExperimentDocument {
        name: asked.name.clone(),
        interfaces: names.map(GroupInterfaces::Names),
        labels: asked.group.read()?,
        percent: asked.percent,
        salt: asked.salt.clone(),
        switch: asked.how.document(&asked.personality, is_terminal(output)),
    };
    let document = serde_json::to_value(document).map_err(Failure::answer)?;
    let began = client.send(Method::POST, PATH, &document).await?.body;
    if asked.how.dry_run {
        output.show(&began, describe)?;
        return Ok(ExitCode::SUCCESS);
    }
    settled(client, output, &asked.name, began).await
}

/// Follows the switches of an experiment to their ends, and shows it then.
async fn settled(client: &Client, output: Output, name: &str, began: Value) -> Result<ExitCode, Failure> {
    let view: ExperimentView = serde_json::from_value(began).map_err(Failure::answer)?;
    let mut operations = Vec::new();
    for operation in &view.operations {
        let path = format!("/v1/operations/{}", client::step(&operation.0));
        operations.push(client.get(&path).await?.body);
    }
    follow_all(client, output, operations, is_terminal(output)).await?;
    let answer = client.get(&path(name)).await?.body;
    output.show(&answer, describe)?;
    let view: ExperimentView = serde_json::from_value(answer).map_err(Failure::answer)?;
    match view.failure {
        Some(failure) if view.stage == Stage::Failed => {
            Err(Failure::Refused(format!("{name} failed: {failure}")))
        }
        Some(failure) => Err(Failure::Refused(format!("the sides of {name} stay as they are: {failure}"))),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn row(view: &ExperimentView) -> [String; 7] {
    [
        view.name.clone(),
        view.stage.name().to_owned(),
        view.percent.to_string(),
        view.a.interfaces.len().to_string(),
        view.b.interfaces.len().to_string(),
        view.created_at.to_string(),
        view.why.clone(),
    ]
}

fn describe(view: &ExperimentView) -> String {
    let time = |time: Option<jiff::Timestamp>| time.map(|time| time.to_string()).unwrap_or_default();
    let mut said = pairs(&[
        ("name", view.name.clone()),
        ("stage", view.stage.name().to_owned()),
        ("percent", view.percent.to_string()),
        ("salt", view.salt.clone()),
        ("created", view.created_at.to_string()),
        ("began", time(view.began_at)),
        ("ended", time(view.ended_at)),
        ("kept", view.kept.map(|arm| arm.name().to_owned()).unwrap_or_default()),
        ("failure", view.failure.clone().unwrap_or_default()),
        ("by", view.by.clone()),
        ("why", view.why.clone()),
    ]);
    said.push_str(&section("sides", &sides(view)));
    said.push_str(&section("B compared with A", &compared(&view.comparison)));
    said
}

fn sides(view: &ExperimentView) -> String {
    let rows = [("a", &view.a), ("b", &view.b)].into_iter().flat_map(|(arm, side)| {
        side.interfaces.iter().map(move |member| {
            let left = if member.left { "has another one: not counted" } else { "" };
            let seconds = format!("{} s", member.observed_ms / 1_000);
            [
                arm.to_owned(),
                member.interface.clone(),
                member.personality.to_string(),
                seconds,
                left.to_owned(),
            ]
        })
    });
    let mut text = table(["SIDE", "INTERFACE", "PERSONALITY", "OBSERVED", ""], rows);
    for (arm, side) in [("a", &view.a), ("b", &view.b)] {
        text.push_str(&handshakes(arm, side));
    }
    text
}

fn handshakes(arm: &str, side: &ArmView) -> String {
    match (side.handshake_p50_below_us, side.handshake_p95_below_us) {
        (Some(p50), Some(p95)) => {
            format!(
                "\n{arm}: half of the handshakes took less than {p50} us, 95 of a hundred less than {p95} us"
            )
        }
        _ => String::new(),
    }
}

fn compared(all: &[Compared]) -> String {
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
    let rows = all.iter().map(|compared| {
        let [a, b] = compared.interfaces;
        let interval = compared.interval.map(|[low, high]| format!("{low:.4} to {high:.4}"));
        [
            compared.metric.clone(),
            number(compared.a),
            number(compared.b),
            number(compared.ratio),
            number(compared.difference),
            interval.unwrap_or_else(|| "-".to_owned()),
            format!("{a}/{b}"),
            number(compared.p_value),
            compared.verdict.words().to_owned(),
        ]
    });
    table(["NUMBER", "A", "B", "B/A", "B-A", "99 IN 100", "INTERFACES", "P", "VERDICT"], rows)
}
