//! What was saved is read, whatever broke.

use super::*;
use tempfile::TempDir;

/// An empty store, in a folder that goes with the first value.
fn fresh() -> (TempDir, Store) {
    let folder = TempDir::new().unwrap();
    let store = Store::new(folder.path());
    (folder, store)
}

fn state(resting: u32) -> State {
    let resting = [(crate::model::SegmentId(resting), jiff::Timestamp::UNIX_EPOCH)].into();
    State { version: VERSION, resting, ..State::default() }
}

#[test]
fn what_was_saved_is_read() {
    let (_folder, mut store) = fresh();
    assert_eq!(store.load().unwrap().state, State::default());
    store.save(state(1)).unwrap();
    store.save(state(2)).unwrap();
    let loaded = store.load().unwrap();
    assert_eq!((loaded.state, loaded.trouble), (state(2), None));
}

#[test]
fn what_is_on_the_disk_is_not_refused_for_a_journal_that_cannot_be_begun() {
    let (_folder, mut store) = fresh();
    fs::write(store.path(JOURNAL), "").unwrap();
    // A file cannot take the place of a folder.
    fs::create_dir(store.path(OLD_JOURNAL)).unwrap();
    store.save(state(1)).unwrap();
    assert_eq!(store.journal, None, "the next change writes everything");
    fs::remove_dir(store.path(OLD_JOURNAL)).unwrap();
    store.save(state(2)).unwrap();
    assert_eq!((store.journal, store.load().unwrap().state), (Some(0), state(2)));
}

#[test]
fn a_torn_file_falls_back_to_the_save_before() {
    let (_folder, mut store) = fresh();
    store.save(state(1)).unwrap();
    store.save(state(2)).unwrap();
    let text = fs::read(store.path(FILE)).unwrap();
    fs::write(store.path(FILE), &text[..text.len() / 2]).unwrap();
    let loaded = store.load().unwrap();
    assert_eq!(loaded.state, state(1));
    assert!(loaded.trouble.unwrap().contains("the save before it was taken"));
    assert!(store.path(BROKEN).exists(), "the torn file is kept");
    store.save(state(3)).unwrap();
    assert_eq!(store.load().unwrap().state, state(3));
}

#[test]
fn a_file_torn_at_any_byte_costs_nothing_that_was_saved_before() {
    let (_folder, mut store) = fresh();
    store.save(state(1)).unwrap();
    store.save(state(2)).unwrap();
    let whole = fs::read(store.path(FILE)).unwrap();
    assert!(whole.len() > 20, "{} bytes", whole.len());
    for length in 0..whole.len() {
        fs::write(store.path(FILE), &whole[..length]).unwrap();
        let loaded = store.load().unwrap();
        assert_eq!(loaded.state, state(1), "{length} bytes");
        assert!(loaded.trouble.unwrap().contains("the save before it was taken"), "{length} bytes");
        // A start reads again after it was killed in the middle.
        assert_eq!(store.load().unwrap().state, state(1), "{length} bytes, again");
    }
    // Blocks that were never written read as zeros.
    for length in 0..whole.len() {
        let mut torn = whole.clone();
        torn[length..].fill(0);
        fs::write(store.path(FILE), &torn).unwrap();
        assert_eq!(store.load().unwrap().state, state(1), "zeros from byte {length}");
    }
}

#[test]
fn a_save_torn_at_any_byte_before_its_rename_is_never_read() {
    let (_folder, mut store) = fresh();
    store.save(state(1)).unwrap();
    let whole = serde_json::to_vec(&state(2)).unwrap();
    for length in 0..=whole.len() {
        fs::write(store.path(NEXT), &whole[..length]).unwrap();
        let loaded = store.load().unwrap();
        assert_eq!((loaded.state, loaded.trouble), (state(1), None), "{length} bytes");
    }
}

#[test]
fn nothing_readable_starts_empty_and_says_so() {
    let (_folder, mut store) = fresh();
    store.save(state(1)).unwrap();
    store.save(state(2)).unwrap();
    fs::write(store.path(FILE), b"").unwrap();
    fs::write(store.path(OLD), b"{").unwrap();
    let loaded = store.load().unwrap();
    assert_eq!(loaded.state, State::default());
    assert!(loaded.trouble.unwrap().contains("unreadable too"));
}

#[test]
fn a_later_version_is_not_overwritten() {
    let (_folder, mut store) = fresh();
    store.save(State { version: JOURNALED + 1, ..State::default() }).unwrap();
    assert!(matches!(store.load(), Err(StoreError::Version { found: 3, .. })));
}

#[test]
fn what_another_version_says_is_neither_put_aside_nor_overwritten() {
    let (_folder, mut store) = fresh();
    store.save(state(1)).unwrap();
    store.save(state(2)).unwrap();
    let text = fs::read_to_string(store.path(FILE)).unwrap();
    let later = text.replacen('{', r#"{"novelty":[1],"#, 1);
    fs::write(store.path(FILE), &later).unwrap();
    let said = store.load().unwrap_err().to_string();
    assert!(said.contains("state.json is whole") && said.contains("unknown field `novelty`"), "{said}");
    assert!(said.contains("run the hubd that wrote it"), "{said}");
    assert_eq!(fs::read_to_string(store.path(FILE)).unwrap(), later);
    assert!(!store.path(BROKEN).exists());
    // The version that wrote it goes on with all of it.
    fs::write(store.path(FILE), text).unwrap();
    assert_eq!(store.load().unwrap().state, state(2));
}
