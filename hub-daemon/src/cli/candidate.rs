//! `hubctl persona try`: a definition on trial, and where it would judge differently.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::Method;
use clap::{Args, ValueHint};
use serde_json::Value;

use super::client::{self, Client};
use super::definition;
use super::exit::Failure;
use super::output::Output;
use super::persona::{path, show_change};
use super::table::{section, table};
use crate::datapath_view::{Difference, Opinion};
use crate::inputs::rest::CandidateReport;
use crate::model::span;

/// What to try.
#[derive(Debug, Args)]
pub(super) struct TryAsked {
    /// YAML or JSON with one document, whose name says which persona; - is standard input
    #[arg(value_hint = ValueHint::FilePath, required_unless_present = "persona", conflicts_with = "persona")]
    file: Option<PathBuf>,
    /// Show the trial of this persona instead of beginning one
    #[arg(long)]
    persona: Option<String>,
    /// How long the trial lasts
    #[arg(long = "for", default_value = "60s", value_name = "TIME")]
    time: String,
    /// Do not wait for the end of the trial
    #[arg(long, conflicts_with_all = ["persona", "accept", "stop"])]
    detach: bool,
    /// Make the candidate of --persona its definition
    #[arg(long, requires = "persona", conflicts_with = "stop")]
    accept: bool,
    /// End the trial of --persona and forget it
    #[arg(long, requires = "persona")]
    stop: bool,
}

pub(super) async fn run(client: &Client, output: Output, asked: &TryAsked) -> Result<(), Failure> {
    match (&asked.persona, &asked.file) {
        (Some(persona), _) if asked.accept => {
            let path = format!("{}/accept", candidate(persona));
            let answer = client.ask(Method::POST, &path, None, None).await?;
            show_change(output, &answer.body, "replaced by its candidate")
        }
        (Some(persona), _) if asked.stop => {
            client.ask(Method::DELETE, &candidate(persona), None, None).await?;
            output.done(&format!("{persona} has no candidate any more"))
        }
        (Some(persona), _) => show(client, output, persona).await,
        (None, Some(file)) => begin(client, output, asked, file).await,
        (None, None) => Err(Failure::Usage("name a file, or --persona".to_owned())),
    }
}

async fn begin(client: &Client, output: Output, asked: &TryAsked, file: &Path) -> Result<(), Failure> {
    let life = span::parse(&asked.time).map_err(|error| Failure::Usage(error.to_string()))?;
    let documents = definition::read(file)?;
    let [document] = documents.as_slice() else {
        return Err(Failure::Usage(format!("{}: one document is tried at a time", file.display())));
    };
    let Some(persona) = document.get("name").and_then(Value::as_str) else {
        return Err(Failure::Usage(format!("{}: the document has no name", file.display())));
    };
    let path = client::query(&candidate(persona), [("for", Some(asked.time.as_str()))]);
    client.send(Method::PUT, &path, document).await?;
    if !asked.detach {
        tokio::time::sleep(life + Duration::from_millis(300)).await;
    }
    show(client, output, persona).await
}

fn candidate(persona: &str) -> String {
    format!("{}/candidate", path(persona))
}

async fn show(client: &Client, output: Output, persona: &str) -> Result<(), Failure> {
    let answer = client.get(&candidate(persona)).await?;
    output.show(&answer.body, describe)
}

fn describe(report: &CandidateReport) -> String {
    let (candidate, counts) = (&report.candidate, &report.counts);
    let state = if candidate.running { "on trial until" } else { "was on trial until" };
    let differ = counts.judged - counts.agreed.min(counts.judged);
    let mut text = format!(
        "candidate of {} {state} {}: {} judged, {} alike, {differ} different",
        report.persona, candidate.ends_at, counts.judged, counts.agreed
    );
    if counts.lost > 0 {
        write!(text, ", {} not counted for want of room", counts.lost).expect("a String takes all text");
    }
    if counts.differences.is_empty() {
        return text;
    }
    let rows = counts.differences.iter().map(|difference| {
        [
            difference.direction.clone(),
            opinion(&difference.live),
            opinion(&difference.candidate),
            difference.count.packets.to_string(),
            samples(difference),
        ]
    });
    text.push_str(&section(
        "differences",
        &table(["DIRECTION", "LIVE", "CANDIDATE", "PACKETS", "LAST"], rows),
    ));
    text
}

fn opinion(opinion: &Opinion) -> String {
    match (&opinion.rule, &opinion.reason) {
        (Some(rule), _) => format!("{} by rule {rule}", opinion.verdict),
        (None, Some(reason)) => format!("{} ({reason})", opinion.verdict),
        (None, None) => format!("{} by default", opinion.verdict),
    }
}

fn samples(difference: &Difference) -> String {
    let one = |sample: &crate::datapath_view::Sample| {
        let end = |address, port| std::net::SocketAddr::new(address, port).to_string();
        let source = end(sample.source, sample.source_port);
        format!("{} {source} > {}", sample.protocol, end(sample.target, sample.target_port))
    };
    difference.samples.first().map(one).unwrap_or_default()
}
