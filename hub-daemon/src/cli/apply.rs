//! `hubctl apply FILE…`, `confirm` and `revert`: files of personas as one change, which may go back.

use std::path::PathBuf;

use axum::http::Method;

use super::client::Client;
use super::exit::{Failure, count};
use super::output::Output;
use crate::command::{Problem, Rejection, RejectionKind};
use crate::document::snippet::Diagnostic;
use crate::document::source::{self, Source};
use crate::inputs::reload::FileProblem;
use crate::inputs::rest::problem::ProblemDetails;
use crate::inputs::rest::{Applied, ApplyDocument};

pub(super) async fn apply(
    client: &Client,
    output: Output,
    files: &[PathBuf],
    confirm: Option<String>,
) -> Result<(), Failure> {
    let sources = read(files)?;
    let documents = source::documents(&sources);
    if documents.personas.len() < documents.len() {
        let problem = "only personas are applied: create personalities and interfaces, or put them into the \
                       folder of documents";
        return Err(Failure::Usage(problem.to_owned()));
    }
    let personas = documents.personas.iter();
    let personas: Result<Vec<_>, _> = personas.map(|file| serde_json::to_value(&file.document)).collect();
    let asked = ApplyDocument { personas: personas.map_err(Failure::answer)?, confirm };
    let body = serde_json::to_value(&asked).map_err(Failure::answer)?;
    let answer =
        client.send(Method::POST, "/v1/apply", &body).await.map_err(|failure| in_place(&sources, failure))?;
    output.show(&answer.body, describe)
}

pub(super) async fn confirm(client: &Client, output: Output) -> Result<(), Failure> {
    client.ask(Method::POST, "/v1/confirm", None, None).await?;
    output.done("confirmed: the change stays")
}

pub(super) async fn revert(client: &Client, output: Output) -> Result<(), Failure> {
    client.ask(Method::POST, "/v1/revert", None, None).await?;
    output.done("reverted: everything is as before the change")
}

fn read(files: &[PathBuf]) -> Result<Vec<Source>, Failure> {
    let mut sources = Vec::new();
    let mut problems: Vec<Diagnostic> = Vec::new();
    for file in files {
        let text =
            std::fs::read_to_string(file).map_err(|source| Failure::local("read", file.display(), source))?;
        match source::parse(file, &text) {
            Ok(source) => sources.push(source),
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() {
        return Ok(sources);
    }
    Err(Failure::Documents(problems.iter().map(FileProblem::from).collect()))
}

/// Shows a refusal at the lines of the files that it is about.
fn in_place(sources: &[Source], failure: Failure) -> Failure {
    let Failure::Problem(problem) = &failure else { return failure };
    let ProblemDetails { errors, .. } = problem.as_ref();
    let within = |pointer: &str| pointer.strip_prefix("/personas").map(str::to_owned);
    let problems: Option<Vec<Problem>> = errors
        .iter()
        .map(|error| Some(Problem::new(within(&error.pointer)?, error.detail.clone())))
        .collect();
    match problems {
        Some(problems) if !problems.is_empty() => {
            let rejection = Rejection { kind: RejectionKind::Invalid, problems };
            let placed = source::explain(sources, &rejection);
            Failure::Documents(placed.iter().map(FileProblem::from).collect())
        }
        Some(_) | None => failure,
    }
}

fn describe(applied: &Applied) -> String {
    let mut lines: Vec<String> = applied.created.iter().map(|name| format!("+ {name}")).collect();
    lines.extend(applied.updated.iter().map(|name| format!("~ {name}")));
    let changed = applied.created.len() + applied.updated.len();
    lines.push(if changed == 0 {
        "nothing changed".to_owned()
    } else {
        format!("{} changed", count(changed, "persona"))
    });
    if let Some(until) = applied.confirm_until {
        lines.push(format!("goes back at {until} unless you say `hubctl confirm`"));
    }
    lines.join("\n")
}
