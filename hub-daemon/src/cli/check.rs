//! `hubctl check`: documents judged without a daemon.

use std::path::{Path, PathBuf};

use super::definition;
use super::exit::{Failure, count};
use super::output::Output;
use crate::document::persona::PersonaDocument;
use crate::inputs::reload::FileProblem;
use crate::inputs::rest::{DecodeError, decode};

pub(super) fn run(output: Output, paths: &[PathBuf]) -> Result<(), Failure> {
    let files = files(paths)?;
    let problems = problems(&files)?;
    if problems.is_empty() {
        return output.done(&format!("{} checked; nothing wrong", count(files.len(), "file")));
    }
    Err(Failure::Documents(problems))
}

/// Every problem of these files. The one place to change when documents can be checked as a set.
fn problems(files: &[PathBuf]) -> Result<Vec<FileProblem>, Failure> {
    let mut problems = Vec::new();
    for file in files {
        let documents = match definition::read(file) {
            Ok(documents) => documents,
            Err(Failure::Documents(found)) => {
                problems.extend(found);
                continue;
            }
            Err(other) => return Err(other),
        };
        for document in documents {
            let text = serde_json::to_vec(&document).map_err(Failure::answer)?;
            if let Err(DecodeError::Document(rejection)) = decode::<PersonaDocument>(&text) {
                problems.extend(rejection.problems.into_iter().map(|problem| FileProblem {
                    file: file.clone(),
                    pointer: problem.pointer,
                    detail: problem.detail,
                    ..FileProblem::default()
                }));
            }
        }
    }
    Ok(problems)
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
