//! The store of a hub with many personas: changes one by one, and every way in which a machine may end.

use std::fs;

use jiff::Timestamp;
use tempfile::TempDir;

use crate::command::Command;
use crate::document::read::persona_from_value;
use crate::hub::Hub;
use crate::hub::state::State;
use crate::model::config::Config;
use crate::model::id::IdSource;
use crate::store::{FILE, JOURNAL, OLD_JOURNAL, Store};

/// A hub and its store, in a folder of its own.
struct Kept {
    hub: Hub,
    store: Store,
    folder: TempDir,
}

impl Kept {
    /// Eight personas, stored whole: from here on there is a journal.
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let hub = Hub::new(Config::default(), IdSource::new(3));
        let mut kept = Self { hub, store: store(folder.path()), folder };
        for index in 0..8 {
            kept.create(index);
        }
        kept.store.keep(&mut kept.hub).unwrap();
        kept
    }

    fn create(&mut self, index: u8) {
        let document = serde_json::json!({
            "name": format!("n{index}"), "ip_range": format!("10.0.{index}.0/24"), "ttl": "1h",
        });
        let document = Box::new(persona_from_value(document).unwrap());
        self.hub.handle(Command::Create { document }, Timestamp::now()).unwrap();
    }

    fn delete(&mut self, index: u8) {
        let command = Command::Delete { persona: format!("n{index}"), if_generation: None, drain: None };
        self.hub.handle(command, Timestamp::now()).unwrap();
    }

    /// Stores a change, and returns the state with it.
    fn change(&mut self, index: u8) -> State {
        self.create(index);
        self.store.keep(&mut self.hub).unwrap();
        self.hub.state()
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.store.path(name)).unwrap()
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.store.path(name), bytes).unwrap();
    }

    /// What a daemon finds that starts now.
    fn found(&self) -> (State, Option<String>) {
        let loaded = store(self.folder.path()).load().unwrap();
        (loaded.state, loaded.trouble)
    }
}

fn store(folder: &std::path::Path) -> Store {
    Store { journaled_from: 1, ..Store::new(folder) }
}

#[test]
fn a_change_is_written_beside_the_file_and_read_with_it() {
    let mut kept = Kept::new();
    let whole = kept.bytes(FILE);
    kept.change(8);
    kept.delete(3);
    kept.store.keep(&mut kept.hub).unwrap();
    assert_eq!(kept.bytes(FILE), whole, "the file stays as it was");
    assert_eq!(kept.bytes(JOURNAL).split(|byte| *byte == b'\n').count(), 3);
    assert_eq!(kept.found(), (kept.hub.state(), None));
}

#[test]
fn a_journal_torn_at_any_byte_costs_nothing_that_was_answered() {
    let mut kept = Kept::new();
    let first = kept.change(8);
    let answered = kept.bytes(JOURNAL).len();
    let second = kept.change(9);
    let whole = kept.bytes(JOURNAL);
    for length in answered..whole.len() {
        kept.write(JOURNAL, &whole[..length]);
        assert_eq!(kept.found(), (first.clone(), None), "{length} bytes");
        let mut zeros = whole.clone();
        zeros[length..].fill(0);
        kept.write(JOURNAL, &zeros);
        assert_eq!(kept.found(), (first.clone(), None), "zeros from byte {length}");
    }
    kept.write(JOURNAL, &whole);
    assert_eq!(kept.found(), (second, None));
}

#[test]
fn a_restart_goes_on_behind_a_torn_journal() {
    let mut kept = Kept::new();
    kept.change(8);
    let whole = kept.bytes(JOURNAL);
    kept.write(JOURNAL, &[&whole[..], &whole[..20]].concat());
    kept.store = store(kept.folder.path());
    kept.store.load().unwrap();
    kept.change(9);
    kept.change(10);
    assert_eq!(kept.found(), (kept.hub.state(), None));
}

#[test]
fn a_torn_file_is_made_up_for_by_the_one_before_and_both_journals() {
    let mut kept = Kept::new();
    kept.change(8);
    // The next change is the last in this journal.
    (kept.store.room, kept.store.whole) = (1, 1);
    kept.change(9);
    assert!(kept.store.path(OLD_JOURNAL).exists(), "the journal began again");
    kept.change(10);
    let state = kept.hub.state();
    assert_eq!(kept.found(), (state.clone(), None));
    let file = kept.bytes(FILE);
    kept.write(FILE, &file[..file.len() / 2]);
    let (found, trouble) = kept.found();
    assert_eq!(found, state);
    assert!(trouble.unwrap().contains("the save before it was taken"));
}

#[test]
fn a_change_that_another_version_made_is_not_left_out() {
    let mut kept = Kept::new();
    kept.change(8);
    kept.change(9);
    let text = String::from_utf8(kept.bytes(JOURNAL)).unwrap();
    let at = text.rfind(r#""changes":{"#).unwrap() + r#""changes":{"#.len();
    let later = format!("{}\"novelty\":[1],{}", &text[..at], &text[at..]);
    kept.write(JOURNAL, later.as_bytes());
    let said = store(kept.folder.path()).load().unwrap_err().to_string();
    assert!(
        said.contains("state.journal is whole") && said.contains("line 2: unknown field `novelty`"),
        "{said}"
    );
    assert_eq!(kept.bytes(JOURNAL), later.as_bytes());
    kept.write(JOURNAL, text.as_bytes());
    assert_eq!(kept.found(), (kept.hub.state(), None));
}

#[test]
fn what_cannot_follow_ends_the_journal_and_is_told() {
    let mut kept = Kept::new();
    let first = kept.change(8);
    let answered = kept.bytes(JOURNAL).len();
    kept.change(9);
    kept.change(10);
    let whole = kept.bytes(JOURNAL);
    let third = whole[answered..].iter().position(|byte| *byte == b'\n').unwrap() + answered + 1;
    kept.write(JOURNAL, &[&whole[..answered], &whole[third..]].concat());
    let (found, trouble) = kept.found();
    assert_eq!(found, first);
    assert!(trouble.unwrap().contains("are missing"));
    let mut broken = whole;
    broken[answered] = b'?';
    kept.write(JOURNAL, &broken);
    let (found, trouble) = kept.found();
    assert_eq!(found, first);
    assert!(trouble.unwrap().contains("line 2 is unreadable"));
}

#[test]
fn a_journal_that_somebody_changed_is_left_for_a_whole_file() {
    let mut kept = Kept::new();
    kept.change(8);
    kept.write(JOURNAL, b"");
    kept.change(9);
    assert_eq!(kept.found(), (kept.hub.state(), None));
    fs::remove_dir_all(kept.folder.path()).unwrap();
    kept.change(10);
    assert_eq!(kept.found(), (kept.hub.state(), None));
}
