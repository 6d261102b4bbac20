//! Journals beside a state file: what is torn or garbage is told and never panics, and nobody is there afterwards
//! whom neither the file nor a whole line of the journal names. What only another version knows is left as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use hub_daemon::command::{Command, FileDocument};
use hub_daemon::hub::Hub;
use hub_daemon::hub::changes::Resting;
use hub_daemon::hub::state::{JOURNALED, State};
use hub_daemon::model::config::Config;
use hub_daemon::model::id::IdSource;
use hub_daemon::store::{Store, StoreError};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::seeds::personas;

/// Number of the last change that the state file holds.
const HELD: u64 = 7;
const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// Personas by id, with their names.
type Names = BTreeMap<String, String>;

/// In memory where that can be: a disk takes a hundred times as long for a case.
fn folder() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let base = if memory.is_dir() { memory } else { std::env::temp_dir() };
    base.join(format!("hub-fuzz-journal-{}", std::process::id()))
}

/// Personas of the examples, the smallest first.
fn examples() -> Vec<FileDocument> {
    let mut all = personas();
    all.sort_by_key(|file| serde_json::to_vec(&file.document).unwrap().len());
    all
}

/// A hub with three small personas.
fn before() -> Hub {
    let mut hub = Hub::new(Config::default(), IdSource::new(1));
    // Some need what others have.
    let taken =
        |file: FileDocument| hub.handle(Command::Create { document: Box::new(file.document) }, NOW).is_ok();
    assert_eq!(examples().into_iter().map(taken).filter(|taken| *taken).take(3).count(), 3);
    hub.saved();
    hub
}

/// The state file: as it is read, and its text.
fn file() -> (State, Vec<u8>) {
    let state = State { version: JOURNALED, sequence: HELD, ..before().state() };
    let text = serde_json::to_vec(&state).unwrap();
    (state, text)
}

/// Journals of 1 to 8 lines: personas made, changed and removed, now and then with lines that the file holds.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    std::fs::create_dir_all(folder()).unwrap();
    std::fs::write(folder().join("state.json"), &file_once().1).unwrap();
    let all = examples();
    let mut hub = before();
    let resting = Resting::default();
    let mut lines: Vec<Vec<u8>> = Vec::new();
    let mut number = HELD;
    let names: Vec<String> = all.iter().map(|file| file.document.name.clone()).collect();
    for round in 0..2 {
        for (index, file) in all.iter().enumerate() {
            let persona = names[index].clone();
            let command = if index % 3 == 1 {
                Command::Delete { persona, if_generation: None, drain: None }
            } else if hub.state().personas.iter().any(|held| held.definition.name == persona) {
                let mut document = Box::new(file.document.clone());
                document.labels.get_or_insert_default().insert("round".to_owned(), round.to_string());
                Command::Replace { persona, document, if_generation: None }
            } else {
                Command::Create { document: Box::new(file.document.clone()) }
            };
            if hub.handle(command, NOW).is_ok() {
                number += 1;
                let line = json!({"sequence": number, "changes": hub.changes(&resting)});
                lines.push((line.to_string() + "\n").into_bytes());
                hub.saved();
            }
        }
    }
    assert!(lines.len() > 8, "{} changes", lines.len());
    let held = json!({"sequence": HELD, "changes": {"removed": []}}).to_string() + "\n";
    let from_start = (1..=8).map(|length| lines[..length].concat());
    let again = (1..=4).map(|length| [held.clone().into_bytes(), lines[..length].concat()].concat());
    from_start.chain(again).collect()
}

/// Takes the bytes for a journal; whether all of it was good and changed something.
pub(crate) fn replay(bytes: &[u8]) -> bool {
    let journal = folder().join("state.journal");
    std::fs::write(&journal, bytes).unwrap();
    let loaded = match Store::new(folder()).load() {
        Ok(loaded) => loaded,
        Err(StoreError::Foreign { path, .. }) => {
            assert_eq!((path, std::fs::read(&journal).unwrap().as_slice()), (journal, bytes));
            return false;
        }
        Err(error) => panic!("{error}"),
    };
    let (state, _) = file_once();
    let named = |state: &State| -> Names {
        state.personas.iter().map(|held| (held.id.to_string(), held.definition.name.clone())).collect()
    };
    let (held, found) = (named(state), named(&loaded.state));
    let (told, removed) = whole_lines(bytes);
    for (id, name) in &found {
        assert!(
            held.get(id) == Some(name) || told.contains(&(id.clone(), name.clone())),
            "nobody spoke of {name}"
        );
    }
    for id in held.keys().filter(|id| !removed.contains(*id)) {
        assert!(found.contains_key(id), "nobody removed {id}");
    }
    if !bytes.ends_with(b"\n") && !bytes.contains(&b'\n') {
        assert_eq!(found, held, "a line without an end never happened");
    }
    let changed = loaded.state.personas != state.personas;
    if changed {
        let hub = Hub::restore(Config::default(), IdSource::new(1), loaded.state, NOW);
        drop(hub.desired(NOW));
    }
    loaded.trouble.is_none() && changed
}

fn file_once() -> &'static (State, Vec<u8>) {
    static FILE: std::sync::OnceLock<(State, Vec<u8>)> = std::sync::OnceLock::new();
    FILE.get_or_init(file)
}

/// Whom whole lines name as made or changed, and whom as removed, up to the first that is not JSON.
fn whole_lines(bytes: &[u8]) -> (BTreeSet<(String, String)>, BTreeSet<String>) {
    let (mut told, mut removed) = (BTreeSet::new(), BTreeSet::new());
    let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    // What follows the last line's end is no line.
    lines.pop();
    for line in lines {
        let Ok(line) = serde_json::from_slice::<Value>(line) else { break };
        let list = |name: &str| line["changes"][name].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        told.extend(
            list("personas").iter().map(|held| (text(&held["id"]), text(&held["definition"]["name"]))),
        );
        removed.extend(list("removed").iter().map(text));
    }
    (told, removed)
}

/// Removes the files.
pub(crate) fn forget() {
    std::fs::remove_dir_all(folder()).unwrap();
}
