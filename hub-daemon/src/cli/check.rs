//! `hubctl check`: documents judged without a daemon, by the same code: each by itself, then all together
//! by a hub that holds nothing else.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::exit::{Failure, count};
use super::output::Output;
use crate::command::Command;
use crate::document::source;
use crate::hub::Hub;
use crate::inputs::reload::FileProblem;
use crate::model::config::Config;
use crate::model::id::IdSource;

pub(super) fn run(output: Output, paths: &[PathBuf]) -> Result<(), Failure> {
    let files = files(paths)?;
    let problems = problems(&files, Timestamp::now())?;
    if problems.is_empty() {
        return output.done(&format!("{} checked; nothing wrong", count(files.len(), "file")));
    }
    Err(Failure::Documents(problems))
}

/// Every problem of these files.
fn problems(files: &[PathBuf], now: Timestamp) -> Result<Vec<FileProblem>, Failure> {
    let (mut sources, mut diagnostics) = (Vec::new(), Vec::new());
    for file in files {
        let text =
            std::fs::read_to_string(file).map_err(|error| Failure::local("read", file.display(), error))?;
        match source::parse(file, &text) {
            Ok(source) => sources.push(source),
            Err(found) => diagnostics.extend(found),
        }
    }
    if diagnostics.is_empty() {
        let command = Command::Documents(source::documents(&sources));
        let mut hub = Hub::new(Config::default(), IdSource::new(0));
        if let Err(rejection) = hub.handle(command, now) {
            diagnostics = source::explain(&sources, &rejection);
        }
    }
    Ok(diagnostics.iter().map(FileProblem::from).collect())
}

/// The files named, and those with a YAML name in the folders named, in order of their names.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let failed = |source| Failure::local("read the folder", path.display(), source);
        let entries: Result<Vec<_>, _> = std::fs::read_dir(path).map_err(failed)?.collect();
        let mut found: Vec<PathBuf> =
            entries.map_err(failed)?.into_iter().map(|entry| entry.path()).collect();
        found.retain(|path| path.is_file() && is_yaml(path));
        found.sort();
        files.extend(found);
    }
    Ok(files)
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}
