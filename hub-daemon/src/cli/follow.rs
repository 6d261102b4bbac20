//! Follows switches that were ordered to their end, with the question to the person at the terminal.

use std::io::{self, BufRead as _};
use std::process::ExitCode;
use std::time::Duration;

use axum::http::Method;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::arguments::Format;
use super::client::{self, Client};
use super::events::{Records, typed};
use super::exit::{Failure, count};
use super::interface::{self, checks};
use super::output::{self, Output};
use super::table::section;
use crate::systems::personality::operation::{JournalEntry, Outcome};
use crate::systems::personality::switch::Phase;
use crate::view::switch::OperationView;

/// Pause before a stream that broke is opened again, and how often in a row.
const AGAIN: Duration = Duration::from_millis(500);
const ATTEMPTS: u32 = 40;

/// Follows a switch until it is over, or waits for somebody else to confirm it.
pub(super) async fn follow(
    client: &Client,
    output: Output,
    began: Value,
    is_terminal: bool,
) -> Result<Value, Failure> {
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

/// Follows the switches of a group to their ends, one after the other: they end together.
pub(super) async fn follow_all(
    client: &Client,
    output: Output,
    began: Vec<Value>,
    is_terminal: bool,
) -> Result<GroupEnd, Failure> {
    let mut answers = Vec::new();
    for began in began {
        let view: OperationView = serde_json::from_value(began.clone()).map_err(Failure::answer)?;
        output.done(&format!("{}:", view.interface))?;
        answers.push(follow(client, output, began, is_terminal).await?);
    }
    Ok(GroupEnd(answers))
}

/// How the switches of a group ended.
pub(super) struct GroupEnd(Vec<Value>);

impl GroupEnd {
    /// Says how each ended: exit code 0 if all did as they were ordered.
    pub(super) fn told(self, output: Output) -> Result<ExitCode, Failure> {
        if output.format() != Format::Table {
            output.show(&Value::Array(self.0.clone()), |_views: &Value| String::new())?;
        }
        let mut failures = Vec::new();
        for answer in &self.0 {
            match said(output, answer) {
                Ok(()) => {}
                Err(Failure::Refused(why)) => failures.push(why),
                Err(failure) => return Err(failure),
            }
        }
        if failures.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(Failure::Refused(failures.join("\n"))) }
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
        let waiting = view.flows.map(|flows| (flows.active, flows.idle));
        if let Some((active, idle)) = waiting.filter(|_| view.phase == Some(Phase::Drain))
            && self.waiting != waiting
        {
            self.waiting = waiting;
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
    if output.format() != Format::Table {
        output.show(answer, |_view: &Value| String::new())?;
    }
    said(output, answer).map(|()| ExitCode::SUCCESS)
}

/// Says how a switch ended, to people; one that did not end as it was ordered is a failure.
fn said(output: Output, answer: &Value) -> Result<(), Failure> {
    let view: OperationView = serde_json::from_value(answer.clone()).map_err(Failure::answer)?;
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
    Ok(())
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

/// Connections that a switch cut, if they were counted.
pub(super) fn cut(entry: &JournalEntry) -> Option<u64> {
    if entry.outcome == Outcome::Committed {
        entry.flows.map(|flows| flows.active + flows.idle)
    } else {
        Some(0)
    }
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
