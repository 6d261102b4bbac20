//! The state file: what was created at run time survives a restart.
//!
//! A save is written beside, synced, and put in place by a rename, so that the file is always whole. The
//! save before is kept as `state.json.old` for the day when a disk loses data that it said it had.
//!
//! With many personas only what changed is written, into a journal, until that is as long as the file; then
//! the file is written anew, and the journal begins again. The one before stays beside the older file.

mod journal;

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::hub::Hub;
use crate::hub::changes::Resting;
use crate::hub::state::{JOURNALED, State, VERSION};

const FILE: &str = "state.json";
const OLD: &str = "state.json.old";
const NEXT: &str = "state.json.new";
const BROKEN: &str = "state.json.broken";
const JOURNAL: &str = "state.journal";
const OLD_JOURNAL: &str = "state.journal.old";
const BROKEN_JOURNAL: &str = "state.journal.broken";
/// With fewer personas the file is written whole every time: it is as fast, and easier to look at.
const JOURNALED_FROM: usize = 256;
/// How long a journal may become in bytes, where the file is shorter.
const JOURNAL_BYTES: u64 = 1024 * 1024;

/// Why state could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("{intent} {path}: {source}", path = path.display())]
    File {
        /// What was tried.
        intent: &'static str,
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The state has no JSON form.
    #[error("write the state as JSON: {0}")]
    Form(serde_json::Error),
    /// Another version wrote it.
    #[error(
        "{path} has version {found}, this hubd knows {JOURNALED}: run the hubd that wrote it, or move the file away",
        path = path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
    /// It is whole, and says what this version does not know. Without it, what another version was told would be
    /// forgotten, or be done by halves.
    #[error(
        "{path} is whole, but this hubd does not know its form ({why}): run the hubd that wrote it, or move the file away",
        path = path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is not known.
        why: String,
    },
}

/// State as it was read.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The state; empty if there is none.
    pub state: State,
    /// What was wrong and what was done about it; for a condition of the hub.
    pub trouble: Option<String>,
}

/// The folder with the state file.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    /// From how many personas on changes go into the journal.
    journaled_from: usize,
    /// A journal may be this long in bytes, where the file is shorter.
    room: u64,
    /// Number of the last change that is stored; 0 before there ever was a journal.
    sequence: u64,
    /// Length of the file in bytes.
    whole: u64,
    /// Length of the journal in bytes; `None` if the next save must be whole.
    journal: Option<u64>,
    /// What rests, as it is stored.
    resting: Resting,
}

impl Store {
    /// The state in this folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            journaled_from: JOURNALED_FROM,
            room: JOURNAL_BYTES,
            sequence: 0,
            whole: 0,
            journal: None,
            resting: Resting::default(),
        }
    }

    /// Stores what changed since the last time, or all of it; when it returns, that is on the disk.
    pub fn keep(&mut self, hub: &mut Hub) -> Result<(), StoreError> {
        let (changed, all) = hub.unsaved();
        // A change that waits for confirmation holds the whole state of before.
        let is_small = changed <= all / 4 && all >= self.journaled_from && hub.pending().is_none();
        let length = self.journal.filter(|_| is_small && self.sequence > 0);
        if length.is_none_or(|length| !self.append(hub, length)) {
            self.sequence += u64::from(self.sequence > 0 || all >= self.journaled_from);
            self.save(hub.state())?;
            self.journal = self.journal.filter(|_| hub.pending().is_none());
            self.resting = hub.resting();
        }
        hub.saved();
        Ok(())
    }

    /// Adds what changed to the journal, and writes the file anew when that is long enough. Where it cannot be
    /// added, everything is to be written instead.
    fn append(&mut self, hub: &Hub, length: u64) -> bool {
        let path = self.path(JOURNAL);
        let changes = hub.changes(&self.resting);
        match journal::append(&path, length, self.sequence + 1, &changes) {
            Ok(length) => self.journal = Some(length),
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "the journal cannot be written");
                return false;
            }
        }
        self.sequence += 1;
        self.resting = hub.resting();
        let length = self.journal.unwrap_or_default();
        if length > self.room.max(self.whole)
            && let Err(error) = self.save(hub.state())
        {
            tracing::warn!(%error, "the journal goes on");
            self.journal = Some(length);
            self.whole = length.saturating_mul(2);
        }
        true
    }

    /// Writes the state; when it returns, the state is on the disk.
    fn save(&mut self, state: State) -> Result<(), StoreError> {
        let version = if self.sequence > 0 { JOURNALED } else { state.version };
        let state = State { version, sequence: self.sequence, ..state };
        let text = serde_json::to_vec(&state).map_err(StoreError::Form)?;
        let (file, old, next) = (self.path(FILE), self.path(OLD), self.path(NEXT));
        fs::create_dir_all(&self.folder).map_err(failed("make folder", &self.folder))?;
        self.journal = None;
        let mut out = File::create(&next).map_err(failed("create", &next))?;
        out.write_all(&text).and_then(|()| out.sync_all()).map_err(failed("write", &next))?;
        if file.exists() {
            if old.exists() {
                fs::remove_file(&old).map_err(failed("remove", &old))?;
            }
            fs::hard_link(&file, &old).map_err(failed("link", &old))?;
        }
        fs::rename(&next, &file).map_err(failed("rename to", &file))?;
        let synced = File::open(&self.folder).and_then(|folder| folder.sync_all());
        synced.map_err(|error| {
            // Who is told that a change was refused must not find it after the next start.
            let undone = if old.exists() { fs::rename(&old, &file) } else { fs::remove_file(&file) };
            undone.err().map_or_else(
                || failed("sync", &self.folder)(error),
                |undo| failed("take back the save that cannot be synced in", &self.folder)(undo),
            )
        })?;
        self.whole = text.len() as u64;
        self.begin_journal();
        Ok(())
    }

    /// Puts the journal of the file before beside that. Where that fails, what is in it is of before the file, and the
    /// next change writes everything again.
    fn begin_journal(&mut self) {
        let (path, old) = (self.path(JOURNAL), self.path(OLD_JOURNAL));
        match fs::rename(&path, &old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %path.display(), "the journal cannot be begun");
            }
            Ok(()) | Err(_) => self.journal = Some(0),
        }
    }

    /// Reads the state. A broken file is put aside and the save before it is taken.
    pub fn load(&mut self) -> Result<Loaded, StoreError> {
        let (file, old, broken) = (self.path(FILE), self.path(OLD), self.path(BROKEN));
        let why = match read(&file)? {
            Read::Good(state) => return self.replay(*state, None, &[JOURNAL]),
            Read::Missing if old.exists() => "is missing".to_owned(),
            Read::Missing => return Ok(Loaded::default()),
            Read::Broken(why) => {
                fs::rename(&file, &broken).map_err(failed("rename to", &broken))?;
                format!("was unreadable ({why}) and is kept as {}", broken.display())
            }
        };
        let (state, instead) = match read(&old)? {
            Read::Good(state) => (*state, "the save before it was taken".to_owned()),
            Read::Missing => (State::default(), "there is no older save: starting without state".to_owned()),
            Read::Broken(why) => (State::default(), format!("the save before is unreadable too ({why})")),
        };
        let trouble = format!("{} {why}; {instead}", file.display());
        self.replay(state, Some(trouble), &[OLD_JOURNAL, JOURNAL])
    }

    /// Makes the changes of journals in a state.
    fn replay(
        &mut self,
        mut state: State,
        trouble: Option<String>,
        journals: &[&str],
    ) -> Result<Loaded, StoreError> {
        let mut troubles: Vec<String> = trouble.into_iter().collect();
        self.sequence = std::mem::take(&mut state.sequence);
        // Without a number there was no journal, and what lies there belongs to another file.
        let journaled = self.sequence > 0;
        for name in journals.iter().filter(|_| journaled) {
            let path = self.path(name);
            let Some(why) = journal::replay(&path, &mut state, &mut self.sequence)? else { continue };
            let broken = self.path(BROKEN_JOURNAL);
            fs::copy(&path, &broken).map_err(failed("copy to", &broken))?;
            let kept = broken.display();
            troubles.push(format!("{}: {why}; what follows is lost, and kept in {kept}", path.display()));
            break;
        }
        if state.version == JOURNALED {
            state.version = VERSION;
        }
        // The next save is whole, so nothing is ever added to what was found.
        self.journal = None;
        let trouble = (!troubles.is_empty()).then(|| troubles.join("; "));
        Ok(Loaded { state, trouble })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

enum Read {
    Good(Box<State>),
    Missing,
    Broken(String),
}

fn read(path: &Path) -> Result<Read, StoreError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Read::Missing),
        Err(error) => return Err(failed("read", path)(error)),
    };
    let value: serde_json::Value = match serde_json::from_slice(&text) {
        Ok(value) => value,
        Err(error) => return Ok(Read::Broken(error.to_string())),
    };
    let version = value.get("version").and_then(serde_json::Value::as_u64);
    if let Some(found) = version.filter(|found| *found > u64::from(JOURNALED)) {
        return Err(StoreError::Version { path: path.to_owned(), found });
    }
    match serde_json::from_value(value) {
        Ok(state) => Ok(Read::Good(Box::new(state))),
        // What a disk lost is no JSON; this is what another version wrote.
        Err(error) if version.is_some() => {
            Err(StoreError::Foreign { path: path.to_owned(), why: error.to_string() })
        }
        Err(error) => Ok(Read::Broken(error.to_string())),
    }
}

fn failed(intent: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::File { intent, path, source }
}

#[cfg(test)]
mod tests;
