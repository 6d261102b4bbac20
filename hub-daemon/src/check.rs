//! Judges files as the daemon would, without one: `hubd check`, `hubctl check`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::command::Command;
use crate::document::hub::{self, unreadable};
use crate::document::snippet::Diagnostic;
use crate::document::{source, text};
use crate::hub::Hub;
use crate::model::config::Config;
use crate::model::id::IdSource;

/// Name of the configuration file; every other file holds documents.
const CONFIG: &str = "hub.yaml";

/// Checks files, and the YAML files of folders with what is below them, as one set: each by itself, then
/// the documents against each other and the configuration among them. Returns the number of files,
/// and lint.
pub fn check(paths: &[PathBuf]) -> Result<(usize, Vec<String>), Vec<Diagnostic>> {
    let mut files = Vec::new();
    let mut problems = Vec::new();
    for path in paths {
        if let Err(error) = gather(path, &mut files) {
            problems.push(unreadable(path, &error));
        }
    }
    let mut config = Config::default();
    let mut sources = Vec::new();
    let mut warnings = Vec::new();
    for file in &files {
        let read = fs::read(file).map_err(|error| vec![unreadable(file, &error)]);
        let text = match read.and_then(|bytes| text::decode(file, bytes)) {
            Ok(text) => text,
            Err(found) => {
                problems.extend(found);
                continue;
            }
        };
        if file.file_name().is_some_and(|name| name == CONFIG) {
            match hub::parse(file, &text) {
                Ok(read) => config = read,
                Err(found) => problems.extend(found),
            }
            continue;
        }
        match source::parse(file, &text) {
            Ok(source) => sources.push(source),
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() {
        source::templates(&sources)?;
        let documents = source::documents(&sources);
        let (mut hub, now) = (Hub::new(config, IdSource::new(0)), Timestamp::now());
        match hub.handle(Command::Documents(documents), now) {
            Ok(_) => warnings = lint(&mut hub, now),
            Err(rejection) => problems.extend(source::explain(&sources, &rejection)),
        }
    }
    if problems.is_empty() { Ok((files.len(), warnings)) } else { Err(problems) }
}

/// Legal, but probably not meant.
fn lint(hub: &mut Hub, now: Timestamp) -> Vec<String> {
    let snapshot = hub.snapshot(now);
    let personas = snapshot.personas.values();
    let named = personas.flat_map(|persona| {
        persona.warnings.iter().map(|warning| format!("persona `{}`: {warning}", persona.definition.name))
    });
    named.collect()
}

fn gather(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let mut entries: Vec<PathBuf> =
        fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    entries.sort();
    for entry in entries {
        let is_yaml = entry.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if entry.is_dir() || is_yaml {
            gather(&entry, files)?;
        }
    }
    Ok(())
}
