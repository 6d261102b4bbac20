//! `hubctl personality switch`: orders a switch, and follows it to its end.

use std::io::{self, BufRead as _, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use axum::http::Method;
use clap::{Args, ValueEnum};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::arguments::Format;
use super::client::{self, Client};
use super::events::{Records, typed};
use super::exit::{Failure, count};
use super::interface::{self, checks};
use super::output::{self, Output};
use super::table::{cell, pairs, section, table};
use crate::datapath_view::Impacts;
use crate::document::personality::{DrainDocument, OnTimeoutDocument, ScopeDocument};
use crate::inputs::rest::SwitchDocument;
use crate::systems::personality::operation::{JournalEntry, Outcome};
use crate::systems::personality::switch::Phase;
use crate::view::switch::OperationView;

/// How long a switch waits for the person at the terminal.
const CONFIRM: &str = "120s";
/// Pause before a stream that broke is opened again, and how often in a row.
const AGAIN: Duration = Duration::from_millis(500);
const ATTEMPTS: u32 = 40;

/// What to switch, and how.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(super) struct SwitchAsked {
    /// Name of the interface's record
    interface: String,
    /// NAME for the last version, or NAME@VERSION
    personality: String,
    /// Only say what it would do
    #[arg(long)]
    dry_run: bool,
    /// Go back this long after the flip, as 30m; holds without the daemon
    #[arg(long = "for", value_name = "TIME")]
    lasts: Option<String>,
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
    /// Do not follow it
    #[arg(long)]
    detach: bool,
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

impl SwitchAsked {
    fn document(&self, is_terminal: bool) -> SwitchDocument {
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
        let asks = is_terminal && !self.no_confirm && !self.detach;
        SwitchDocument {
            personality: Some(self.personality.clone()),
            why: self.why.clone(),
            dry_run: self.dry_run.then_some(true),
            urgent: self.urgent.then_some(true),
            drain: (drain != DrainDocument::default()).then_some(drain),
            confirm_within: self.confirm.clone().or_else(|| asks.then(|| CONFIRM.to_owned())),
            lasts: self.lasts.clone(),
        }
    }
}

pub(super) async fn run(client: &Client, output: Output, asked: &SwitchAsked) -> Result<ExitCode, Failure> {
    let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    let is_terminal = is_terminal && output.format() == Format::Table;
    let document = serde_json::to_value(asked.document(is_terminal)).map_err(Failure::answer)?;
    let path = format!("{}/switch", interface::path(&asked.interface));
    let answer = client.send(Method::POST, &path, &document).await?.body;
    if asked.dry_run {
        output.show(&answer, plan)?;
        return Ok(ExitCode::SUCCESS);
    }
    if asked.detach {
        output.show(&answer, |view: &OperationView| {
            format!("switch {} to {} is under way", view.id.0, view.to)
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let view = follow(client, output, answer, is_terminal).await?;
    ended(output, &view)
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
        let why = match impacted.rule {
            Some(rule) => format!("rule {rule}"),
            None if impacted.survives => "default".to_owned(),
            None => "default, protocol or address".to_owned(),
        };
        [
            if impacted.survives { "goes on" } else { "ends" }.to_owned(),
            flow.protocol.clone(),
            std::net::SocketAddr::new(flow.source, flow.source_port).to_string(),
            std::net::SocketAddr::new(flow.target, flow.target_port).to_string(),
            format!("{:.1} s", flow.idle_seconds),
            why,
        ]
    });
    if !impacts.flows.is_empty() {
        let columns = ["FATE", "PROTOCOL", "SOURCE", "TARGET", "IDLE", "BY"];
        text.push('\n');
        text.push_str(&table(columns, rows));
    }
    text
}

/// Follows a switch until it is over, or waits for somebody else to confirm it.
async fn follow(client: &Client, output: Output, began: Value, is_terminal: bool) -> Result<Value, Failure> {
    let mut last: OperationView = serde_json::from_value(began.clone()).map_err(Failure::answer)?;
    let mut answer = began;
    let mut shown = Shown::default();
    let mut asked = false;
    let mut attempts = 0;
    let path = format!("/v1/operations/{}", client::step(&last.id.0));
    loop {
        shown.show(output, &last)?;
        if last.outcome.is_some() {
            return Ok(answer);
        }
        if last.phase == Some(Phase::AwaitConfirm) && !asked {
            if !is_terminal {
                return Ok(answer);
            }
            asked = true;
            confirm(client, output, &last).await?;
        }
        match change(client, &path, &last).await {
            Ok(Some(next)) => {
                attempts = 0;
                last = serde_json::from_value(next.clone()).map_err(Failure::answer)?;
                answer = next;
            }
            Err(failure @ Failure::Problem(_)) => return Err(failure),
            Err(failure) if attempts >= ATTEMPTS => return Err(failure),
            // The hub may start anew: it goes on with the switch, or back.
            Ok(None) | Err(_) => {
                attempts += 1;
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// The next state of a switch that is not this one; none if the stream ends before.
async fn change(client: &Client, path: &str, last: &OperationView) -> Result<Option<Value>, Failure> {
    let mut body = client.open(Method::GET, &format!("{path}/events"), None, None).await?.into_body();
    let mut records = Records::default();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(Failure::answer)?;
        records.take(frame.data_ref().map_or(&[], |data| data));
        while let Some(record) = records.next() {
            let view: OperationView = typed(&record)?;
            if view != *last {
                return Ok(Some(serde_json::to_value(view).map_err(Failure::answer)?));
            }
        }
    }
    Ok(None)
}

/// Asks the person at the terminal. No answer is an answer: the switch goes back by itself.
async fn confirm(client: &Client, output: Output, view: &OperationView) -> Result<(), Failure> {
    let until = view.deadline.map_or_else(String::new, |until| format!(", or it goes back at {until}"));
    output.bytes(format!("{} has {}: keep it? [y/n]{until} ", view.interface, view.to).as_bytes())?;
    let interface = view.interface.clone();
    let deadline = view.deadline;
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line).map(|_bytes| line)
    });
    let left = deadline.map_or(Duration::MAX, |until| {
        Duration::try_from(until.duration_since(jiff::Timestamp::now())).unwrap_or_default()
    });
    let Ok(Ok(Ok(line))) = tokio::time::timeout(left, read).await else { return Ok(()) };
    let what = match line.trim() {
        "y" | "yes" => "confirm",
        _ => "revert",
    };
    let path = format!("{}/{what}", interface::path(&interface));
    match client.send(Method::POST, &path, &json!({})).await {
        // It went back while the question stood.
        Ok(_) | Err(Failure::Problem(_)) => Ok(()),
        Err(failure) => Err(failure),
    }
}

/// What was shown of a switch.
#[derive(Debug, Default)]
struct Shown {
    phases: usize,
    waiting: Option<(u64, u64)>,
}

impl Shown {
    /// Shows people what is new.
    fn show(&mut self, output: Output, view: &OperationView) -> Result<(), Failure> {
        for done in view.phases.iter().skip(self.phases) {
            output.done(&format!("{:<20} {}", done.phase.words(), time(done.took_us)))?;
        }
        self.phases = view.phases.len();
        let waiting = (view.flows.active, view.flows.idle);
        if view.phase == Some(Phase::Drain) && self.waiting != Some(waiting) {
            self.waiting = Some(waiting);
            let (active, idle) = waiting;
            output.done(&format!(
                "{:<20} {} active, {idle} idle",
                "drain",
                count(active as usize, "connection")
            ))?;
        }
        Ok(())
    }
}

/// Says how a switch ended: exit code 0 if as it was ordered.
pub(super) fn ended(output: Output, answer: &Value) -> Result<ExitCode, Failure> {
    let view: OperationView = serde_json::from_value(answer.clone()).map_err(Failure::answer)?;
    if output.format() != Format::Table {
        output.show(answer, |_view: &Value| String::new())?;
    }
    let why = view.failure.clone().unwrap_or_else(|| "the hub does not say why".to_owned());
    let (name, from, to) = (&view.interface, &view.from, &view.to);
    match view.outcome {
        None => {
            let until = view.deadline.map_or_else(String::new, |until| format!(" until {until}"));
            output
                .done(&format!("{name} has {to}; it waits for `hubctl personality confirm {name}`{until}"))?;
        }
        Some(Outcome::Committed) => output.done(&format!("{name} has {to}"))?,
        Some(outcome) => {
            let what = match outcome {
                Outcome::FellBack => "has its default personality".to_owned(),
                Outcome::Degraded => "has none that works: only failsafe ports are open".to_owned(),
                Outcome::Committed | Outcome::Aborted | Outcome::RolledBack => {
                    format!("has {from} as before")
                }
            };
            let failed = checks(&view.checks.into_iter().filter(|check| !check.passed).collect::<Vec<_>>());
            output.done(section("checks that failed", &failed).trim_start())?;
            return Err(Failure::Refused(format!(
                "the switch to {to} was {}: {why}; {name} {what}",
                outcome.words()
            )));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Follows a way back. What gives up another switch has been done when that one is over without it.
pub(super) async fn follow_back(client: &Client, output: Output, began: Value) -> Result<ExitCode, Failure> {
    let view: OperationView = serde_json::from_value(began.clone()).map_err(Failure::answer)?;
    let gives_up = view.failure.is_some();
    let answer = follow(client, output, began, false).await?;
    if !gives_up {
        return ended(output, &answer);
    }
    let view: OperationView = serde_json::from_value(answer.clone()).map_err(Failure::answer)?;
    if matches!(view.outcome, Some(Outcome::Aborted | Outcome::RolledBack)) {
        let said = format!("{} has {} as before", view.interface, view.from);
        match output.format() {
            Format::Table => output.line(&said)?,
            Format::Json | Format::Yaml => output.line(&output::pretty(&answer)?)?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    ended(output, &answer)
}

/// Connections that a switch cut.
pub(super) fn cut(entry: &JournalEntry) -> u64 {
    if entry.outcome == Outcome::Committed { entry.flows.active + entry.flows.idle } else { 0 }
}

/// A time for people.
pub(super) fn time(microseconds: u64) -> String {
    match microseconds {
        0..1_000 => format!("{microseconds} us"),
        1_000..1_000_000 => format!("{}.{} ms", microseconds / 1_000, microseconds % 1_000 / 100),
        _ => format!("{}.{} s", microseconds / 1_000_000, microseconds % 1_000_000 / 100_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        assert_eq!([time(7), time(1_500), time(2_340_000)], ["7 us", "1.5 ms", "2.3 s"]);
    }
}
