//! `hubctl personality switch`: orders a switch of one interface or several, and follows it to its end.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use axum::http::Method;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::arguments::Format;
use super::client::Client;
use super::exit::Failure;
use super::follow::{ended, follow, follow_all};
use super::interface;
use super::output::Output;
use super::table::{cell, pairs, section, table};
use crate::datapath_view::Impacts;
use crate::document::personality::{DrainDocument, OnTimeoutDocument, ScopeDocument};
use crate::inputs::rest::{GroupDocument, GroupInterfaces, SwitchDocument};
use crate::view::switch::OperationView;

/// How long a switch waits for the person at the terminal.
const CONFIRM: &str = "120s";

/// What to switch, and how.
#[derive(Debug, Args)]
pub(super) struct SwitchAsked {
    /// Names of interface records, and at last the personality: NAME for the last version, or NAME@VERSION. In
    /// the personality `{interface}` stands for the name of each record
    #[arg(required = true, value_name = "INTERFACE... PERSONALITY")]
    names: Vec<String>,
    #[command(flatten)]
    group: LabelsAsked,
    /// Switch so many of a hundred of them: each by the hash of its name, so that more only adds some
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=100))]
    percent: Option<u8>,
    /// Another salt chooses others
    #[arg(long, value_name = "TEXT", requires = "percent")]
    salt: Option<String>,
    #[command(flatten)]
    how: HowAsked,
    /// Go back this long after the flip, as 30m; holds without the daemon
    #[arg(long = "for", value_name = "TIME")]
    lasts: Option<String>,
    /// Do not follow it
    #[arg(long)]
    detach: bool,
}

/// Interfaces by what their records say.
#[derive(Debug, Args)]
pub(super) struct LabelsAsked {
    /// In place of names: every interface whose record has this label; may be given several times
    #[arg(short, long = "label", visible_alias = "labels", value_name = "KEY=VALUE")]
    pub(super) labels: Vec<String>,
}

impl LabelsAsked {
    /// The labels, if any are given.
    pub(super) fn read(&self) -> Result<Option<BTreeMap<String, String>>, Failure> {
        let pair = |text: &String| match text.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(Failure::Usage(format!("--label `{text}`: use KEY=VALUE"))),
        };
        let labels: Result<BTreeMap<_, _>, Failure> = self.labels.iter().map(pair).collect();
        labels.map(|labels| Some(labels).filter(|labels| !labels.is_empty()))
    }
}

/// How to switch.
#[derive(Debug, Args)]
pub(super) struct HowAsked {
    /// Only say what it would do
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Go back unless it is confirmed within this time; on a terminal 120s unless said otherwise
    #[arg(long, value_name = "TIME", conflicts_with = "no_confirm")]
    confirm: Option<String>,
    /// Do not wait for confirmation, also on a terminal
    #[arg(long)]
    no_confirm: bool,
    /// Why, for people and the journal
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
    /// Flip at once: nothing is drained, and nothing is compared with before
    #[arg(long, conflicts_with_all = ["drain", "scope", "on_timeout"])]
    urgent: bool,
    /// How long connections have to end, as 30s; 0s gives them none
    #[arg(long, value_name = "TIME")]
    drain: Option<String>,
    /// Which connections are waited for
    #[arg(long, value_enum)]
    scope: Option<Scope>,
    /// What happens when their time is over
    #[arg(long, value_enum)]
    on_timeout: Option<OnTimeout>,
}

/// Which connections are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scope {
    /// Those that the switch breaks
    Impacted,
    /// All of them
    All,
}

/// What happens when the time of connections is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OnTimeout {
    /// Go on
    Force,
    /// Give the switch up
    Abort,
}

impl HowAsked {
    /// The order of a switch to a personality; `asks` if somebody is there to confirm it.
    pub(super) fn document(&self, personality: &str, asks: bool) -> SwitchDocument {
        let drain = DrainDocument {
            timeout: self.drain.clone(),
            scope: self.scope.map(|scope| match scope {
                Scope::Impacted => ScopeDocument::Impacted,
                Scope::All => ScopeDocument::All,
            }),
            on_timeout: self.on_timeout.map(|what| match what {
                OnTimeout::Force => OnTimeoutDocument::Force,
                OnTimeout::Abort => OnTimeoutDocument::Abort,
            }),
            ..DrainDocument::default()
        };
        let asks = asks && !self.no_confirm;
        SwitchDocument {
            personality: Some(personality.to_owned()),
            why: self.why.clone(),
            dry_run: self.dry_run.then_some(true),
            urgent: self.urgent.then_some(true),
            drain: (drain != DrainDocument::default()).then_some(drain),
            confirm_within: self.confirm.clone().or_else(|| asks.then(|| CONFIRM.to_owned())),
            lasts: None,
        }
    }
}

impl SwitchAsked {
    /// The personality, and the group of interfaces if more than one may be meant.
    fn group(&self, switch: SwitchDocument, interfaces: &[String]) -> Result<Option<GroupDocument>, Failure> {
        let labels = self.group.read()?;
        let (percent, salt) = (self.percent, self.salt.clone());
        match (labels, interfaces) {
            (Some(_), [_, ..]) => Err(usage("give names of interfaces or --label, not both")),
            (None, []) => Err(usage("an interface is missing: give names, or --label")),
            (None, [_]) if percent.is_none() => Ok(None),
            (None, names) => {
                let interfaces = Some(GroupInterfaces::Names(names.to_vec()));
                Ok(Some(GroupDocument { interfaces, percent, salt, switch, ..GroupDocument::default() }))
            }
            (labels, []) => Ok(Some(GroupDocument { labels, percent, salt, switch, interfaces: None })),
        }
    }
}

fn usage(detail: &str) -> Failure {
    Failure::Usage(detail.to_owned())
}

/// Whether a person is there to be asked.
pub(super) fn is_terminal(output: Output) -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal() && output.format() == Format::Table
}

pub(super) async fn run(client: &Client, output: Output, asked: &SwitchAsked) -> Result<ExitCode, Failure> {
    let Some((personality, interfaces)) = asked.names.split_last() else {
        return Err(usage("a personality is missing"));
    };
    let is_terminal = is_terminal(output);
    let document = asked.how.document(personality, is_terminal && !asked.detach);
    let document = SwitchDocument { lasts: asked.lasts.clone(), ..document };
    match (asked.group(document.clone(), interfaces)?, interfaces) {
        (Some(group), _) => switch_all(client, output, asked, &group, is_terminal).await,
        (None, [interface, ..]) => switch_one(client, output, asked, interface, &document, is_terminal).await,
        (None, []) => Err(usage("an interface is missing")),
    }
}

async fn switch_one(
    client: &Client,
    output: Output,
    asked: &SwitchAsked,
    interface: &str,
    document: &SwitchDocument,
    is_terminal: bool,
) -> Result<ExitCode, Failure> {
    let document = serde_json::to_value(document).map_err(Failure::answer)?;
    let path = format!("{}/switch", interface::path(interface));
    let answer = client.send(Method::POST, &path, &document).await?.body;
    if asked.how.dry_run {
        output.show(&answer, plan)?;
        return Ok(ExitCode::SUCCESS);
    }
    if asked.detach {
        output.show(&answer, under_way)?;
        return Ok(ExitCode::SUCCESS);
    }
    let view = follow(client, output, answer, is_terminal).await?;
    ended(output, &view)
}

async fn switch_all(
    client: &Client,
    output: Output,
    asked: &SwitchAsked,
    group: &GroupDocument,
    is_terminal: bool,
) -> Result<ExitCode, Failure> {
    let document = serde_json::to_value(group).map_err(Failure::answer)?;
    let answer = client.send(Method::POST, "/v1/switches", &document).await?.body;
    if asked.how.dry_run {
        let plans = answer.get("plans").cloned().unwrap_or_default();
        output.show(&plans, |plans: &Vec<Value>| plans.iter().map(plan).collect::<Vec<_>>().join("\n\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let operations = answer.get("operations").and_then(Value::as_array).cloned().unwrap_or_default();
    if asked.detach {
        output.show(&json!(operations), |views: &Vec<OperationView>| {
            views.iter().map(under_way).collect::<Vec<_>>().join("\n")
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let ended = follow_all(client, output, operations, is_terminal).await?;
    ended.told(output)
}

fn under_way(view: &OperationView) -> String {
    format!("switch {} of {} to {} is under way", view.id.0, view.interface, view.to)
}

/// What a switch would do, for people.
fn plan(plan: &Value) -> String {
    let field = |name: &str| cell(plan.get(name));
    let lines = |name: &str| {
        let items = plan.get(name).and_then(Value::as_array);
        items.into_iter().flatten().map(|item| cell(Some(item))).collect::<Vec<_>>().join("\n")
    };
    let mut text = pairs(&[
        ("interface", field("interface")),
        ("from", field("from")),
        ("to", field("to")),
        ("addresses added", field("addresses_added")),
        ("addresses removed", field("addresses_removed")),
    ]);
    let connections = plan.get("connections").cloned();
    let impacts = connections.and_then(|connections| serde_json::from_value::<Impacts>(connections).ok());
    text.push_str(&section("connections", &impacts.as_ref().map(connections_of).unwrap_or_default()));
    text.push_str(&section("differences", &lines("differences")));
    text.push_str(&section("checks", &lines("checks")));
    text
}

/// What a switch would mean for connections, for people.
fn connections_of(impacts: &Impacts) -> String {
    let mut text = format!(
        "{} in use and {} idle would end, {} go on",
        impacts.breaks_active,
        impacts.breaks_idle,
        impacts.survives_active + impacts.survives_idle
    );
    let rows = impacts.flows.iter().map(|impacted| {
        let flow = &impacted.flow;
        [
            if impacted.survives { "goes on" } else { "ends" }.to_owned(),
            flow.protocol.clone(),
            std::net::SocketAddr::new(flow.source, flow.source_port).to_string(),
            std::net::SocketAddr::new(flow.target, flow.target_port).to_string(),
            format!("{:.1} s", flow.idle_seconds),
            impacted.why(),
        ]
    });
    if !impacts.flows.is_empty() {
        let columns = ["FATE", "PROTOCOL", "SOURCE", "TARGET", "IDLE", "BY"];
        text.push('\n');
        text.push_str(&table(columns, rows));
    }
    text
}
