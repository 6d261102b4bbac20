//! The folder of documents: read whole, judged whole, taken whole or not at all.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::log::Log;
use crate::command::{Command, Rejection, Reply};
use crate::document::hub::{parse, unreadable};
use crate::document::snippet::Diagnostic;
use crate::document::source::{self, Source};
use crate::document::text;
use crate::inputs::HubHandle;
use crate::inputs::plan::changes;
use crate::inputs::reload::{FileProblem, ReloadFailure, ReloadMode, ReloadReport, ReloadRequest};
use crate::model::config::Config;
use crate::model::reconfigure::{Difference, difference};

/// Reads every `*.yaml` and `*.yml` in a folder, by name. A folder that is not there holds nothing.
pub fn read(folder: &Path) -> Result<Vec<Source>, Vec<Diagnostic>> {
    let mut sources = Vec::new();
    let mut problems = Vec::new();
    for path in paths(folder).map_err(|error| vec![unreadable(folder, &error)])? {
        let read = fs::read(&path).map_err(|error| vec![unreadable(&path, &error)]);
        let text = read.and_then(|bytes| text::decode(&path, bytes));
        match text.and_then(|text| source::parse(&path, &text)) {
            Ok(source) => sources.push(source),
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() { Ok(sources) } else { Err(problems) }
}

/// How many documents the files of a folder hold at most: none is parsed.
pub fn most(folder: &Path) -> usize {
    let texts = paths(folder).unwrap_or_default().into_iter().flat_map(fs::read);
    let begins =
        |text: Vec<u8>| text.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"---")).count();
    texts.map(|text| begins(text) + 1).sum()
}

fn paths(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths: Vec<PathBuf> = match fs::read_dir(folder) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).filter(|path| is_document(path)).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    paths.sort();
    Ok(paths)
}

fn is_document(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    !hidden && path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

/// Answers requests to read the folder, one at a time: SIGHUP, `hubctl plan` and `hubctl apply`.
///
/// `failed` takes the text of a refused read.
pub async fn serve(
    mut configuration: Configuration,
    hub: HubHandle,
    mut requests: mpsc::Receiver<ReloadRequest>,
    failed: mpsc::Sender<String>,
) {
    while let Some(ReloadRequest { mode, answer }) = requests.recv().await {
        let mut took = Took::default();
        let result = reload(&mut configuration, &hub, mode, &mut took).await;
        match &result {
            Ok(report) if report.applied => {
                tracing::info!(
                    documents = report.documents,
                    changes = report.changes.len(),
                    read_ms = took.read.as_millis() as u64,
                    apply_ms = took.applied.as_millis() as u64,
                    "documents taken"
                );
                if !report.configured.is_empty() {
                    tracing::info!(keys = report.configured.join(", "), "hub.yaml taken");
                }
                if !report.needs_restart.is_empty() {
                    tracing::warn!(
                        keys = report.needs_restart.join(", "),
                        "hub.yaml differs in what needs a restart of hubd"
                    );
                }
            }
            Ok(_) => {}
            Err(failure) => {
                let text: Vec<String> = failure.problems.iter().map(ToString::to_string).collect();
                for line in &text {
                    tracing::error!(problem = line, "documents refused, nothing changed");
                }
                if mode == ReloadMode::Apply {
                    // The owner is gone only at the end.
                    drop(failed.send(text.join("\n")).await);
                }
            }
        }
        // Who asked may have gone.
        drop(answer.send(result));
    }
}

/// How long a reload took: until everything was parsed, then until the kernel held it.
#[derive(Debug, Default)]
struct Took {
    read: Duration,
    applied: Duration,
}

async fn reload(
    configuration: &mut Configuration,
    hub: &HubHandle,
    mode: ReloadMode,
    took: &mut Took,
) -> Result<ReloadReport, ReloadFailure> {
    let began = Instant::now();
    let difference = configuration.read().map_err(|problems| diagnosed(&problems))?;
    let path = configuration.used.documents.clone();
    let sources = tokio::task::spawn_blocking(move || read(&path))
        .await
        .map_err(|error| plain(&error.to_string()))?
        .map_err(|problems| diagnosed(&problems))?;
    let templates = source::templates(&sources).map_err(|problems| diagnosed(&problems))?;
    took.read = began.elapsed();
    let documents = source::documents(&sources);
    let changes = changes(&hub.snapshot.borrow().clone(), &documents.personas);
    let words = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect();
    let mut report = ReloadReport {
        documents: documents.len() as u64,
        applied: false,
        changes,
        configured: words(&difference.taken),
        needs_restart: words(&difference.restart),
    };
    if mode == ReloadMode::Plan {
        return Ok(report);
    }
    let configures = !difference.taken.is_empty();
    if configures {
        ask(hub, Command::Configure(Box::new(difference.next.clone()))).await?.ok();
    }
    match ask(hub, Command::Documents(documents)).await? {
        Ok(_) => {
            ask(hub, Command::Templates(templates)).await?.ok();
            configuration.log.set(difference.next.log);
            took.applied = began.elapsed().saturating_sub(took.read);
            configuration.used = difference.next;
            report.applied = true;
            Ok(report)
        }
        Err(rejection) => {
            // Whole or not at all.
            if configures {
                ask(hub, Command::Configure(Box::new(configuration.used.clone()))).await?.ok();
            }
            Err(refused(&sources, &rejection))
        }
    }
}

async fn ask(hub: &HubHandle, command: Command) -> Result<Result<Reply, Rejection>, ReloadFailure> {
    let (answer, answered) = oneshot::channel();
    let gone = || plain("the hub is shutting down");
    hub.commands.send((command, answer)).await.map_err(|_closed| gone())?;
    answered.await.map_err(|_closed| gone())
}

/// The configuration in use, and where it was read.
#[derive(Debug)]
pub struct Configuration {
    /// The configuration in use.
    pub used: Config,
    /// `hub.yaml`; without one, everything is a default.
    pub file: Option<PathBuf>,
    /// The log, whose level `hub.yaml` says.
    pub log: Log,
}

impl Configuration {
    /// Reads `hub.yaml` again and compares.
    fn read(&self) -> Result<Difference, Vec<Diagnostic>> {
        let Some(path) = &self.file else { return Ok(difference(&self.used, &self.used)) };
        let text = fs::read_to_string(path).map_err(|error| vec![unreadable(path, &error)])?;
        Ok(difference(&self.used, &parse(path, &text)?))
    }
}

fn diagnosed(problems: &[Diagnostic]) -> ReloadFailure {
    ReloadFailure { problems: problems.iter().map(FileProblem::from).collect() }
}

fn refused(sources: &[Source], rejection: &Rejection) -> ReloadFailure {
    ReloadFailure { problems: source::explain(sources, rejection).iter().map(FileProblem::from).collect() }
}

fn plain(detail: &str) -> ReloadFailure {
    ReloadFailure { problems: vec![FileProblem { detail: detail.to_owned(), ..FileProblem::default() }] }
}
