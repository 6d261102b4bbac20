//! The folder of documents: read whole, judged whole, taken whole or not at all.

use std::fs;
use std::path::{Path, PathBuf};

use tokio::sync::{mpsc, oneshot};

use crate::command::{Command, Rejection};
use crate::document::hub::unreadable;
use crate::document::snippet::Diagnostic;
use crate::document::source::{self, Source};
use crate::document::text;
use crate::inputs::HubHandle;
use crate::inputs::plan::changes;
use crate::inputs::reload::{FileProblem, ReloadFailure, ReloadMode, ReloadReport, ReloadRequest};

/// Reads every `*.yaml` and `*.yml` in a folder, by name. A folder that is not there holds nothing.
pub fn read(folder: &Path) -> Result<Vec<Source>, Vec<Diagnostic>> {
    let mut paths: Vec<PathBuf> = match fs::read_dir(folder) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).filter(|path| is_document(path)).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(vec![unreadable(folder, &error)]),
    };
    paths.sort();
    let mut sources = Vec::new();
    let mut problems = Vec::new();
    for path in paths {
        let read = fs::read(&path).map_err(|error| vec![unreadable(&path, &error)]);
        let text = read.and_then(|bytes| text::decode(&path, bytes));
        match text.and_then(|text| source::parse(&path, &text)) {
            Ok(source) => sources.push(source),
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() { Ok(sources) } else { Err(problems) }
}

fn is_document(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    !hidden && path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

/// Answers requests to read the folder, one at a time: SIGHUP, `hubctl plan` and `hubctl apply`.
///
/// `failed` takes the text of a refused read.
pub async fn serve(
    folder: PathBuf,
    hub: HubHandle,
    mut requests: mpsc::Receiver<ReloadRequest>,
    failed: mpsc::Sender<String>,
) {
    while let Some(ReloadRequest { mode, answer }) = requests.recv().await {
        let result = reload(&folder, &hub, mode).await;
        match &result {
            Ok(report) if report.applied => {
                tracing::info!(
                    documents = report.documents,
                    changes = report.changes.len(),
                    "documents taken"
                );
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

async fn reload(folder: &Path, hub: &HubHandle, mode: ReloadMode) -> Result<ReloadReport, ReloadFailure> {
    let path = folder.to_owned();
    let sources = tokio::task::spawn_blocking(move || read(&path))
        .await
        .map_err(|error| plain(&error.to_string()))?
        .map_err(|problems| ReloadFailure { problems: problems.iter().map(FileProblem::from).collect() })?;
    let documents = source::documents(&sources);
    let changes = changes(&hub.snapshot.borrow().clone(), &documents);
    let mut report = ReloadReport { documents: documents.len() as u64, applied: false, changes };
    if mode == ReloadMode::Plan {
        return Ok(report);
    }
    let (answer, answered) = oneshot::channel();
    let gone = || plain("the hub is shutting down");
    hub.commands.send((Command::Documents(documents), answer)).await.map_err(|_closed| gone())?;
    match answered.await.map_err(|_closed| gone())? {
        Ok(_) => {
            report.applied = true;
            Ok(report)
        }
        Err(rejection) => Err(refused(&sources, &rejection)),
    }
}

fn refused(sources: &[Source], rejection: &Rejection) -> ReloadFailure {
    ReloadFailure { problems: source::explain(sources, rejection).iter().map(FileProblem::from).collect() }
}

fn plain(detail: &str) -> ReloadFailure {
    ReloadFailure { problems: vec![FileProblem { detail: detail.to_owned(), ..FileProblem::default() }] }
}
