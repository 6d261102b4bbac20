//! Switches of personalities that are over: counted for metrics, and read from their journal.
//!
//! The hub's task counts each as it is written; the journal is read by whoever asks, from its end, and on in the files
//! that it was before.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use crate::systems::personality::operation::{JournalEntry, Outcome};
use crate::systems::personality::switch::Phase;

/// The journal of switches in the state folder.
pub const FILE: &str = "switches.jsonl";
/// Full journals that are kept beside the one that is written: `switches.jsonl.1` is the last of them.
pub const KEPT: u32 = 4;
/// Interfaces and results that are counted apart; the first of them makes room for another one.
const RESULTS: usize = 50_000;
/// Bytes of the journal that are read at once.
const BLOCK: u64 = 64 * 1_024;
/// Upper bounds of what times are counted by, in seconds.
const BOUNDS: [f64; 12] = [0.001, 0.002, 0.005, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, f64::INFINITY];

/// What became of switches.
#[derive(Debug)]
pub struct SwitchLog {
    path: PathBuf,
    ended: watch::Sender<Ended>,
}

/// Counts of switches that are over, since the daemon started.
#[derive(Clone, Debug, Default)]
pub struct Ended {
    /// How many, by interface and how they ended.
    pub results: BTreeMap<(String, Outcome), u64>,
    /// How long new connections were refused.
    pub blocked: Times,
    /// How long the kernel took for what makes other personalities decide, on the way there and back.
    pub flips: Times,
    /// How long each phase took.
    pub phases: BTreeMap<Phase, Times>,
}

/// A distribution of times.
#[derive(Clone, Debug, Default)]
pub struct Times {
    /// All of them together.
    pub sum_seconds: f64,
    /// How many.
    pub count: u64,
    buckets: [u64; BOUNDS.len()],
}

impl Times {
    fn add(&mut self, microseconds: u64) {
        let seconds = Duration::from_micros(microseconds).as_secs_f64();
        self.sum_seconds += seconds;
        self.count += 1;
        let place = BOUNDS.iter().position(|bound| seconds <= *bound);
        if let Some(bucket) = place.and_then(|place| self.buckets.get_mut(place)) {
            *bucket += 1;
        }
    }

    /// Upper bounds in seconds, each with how many are below it and above the one before.
    pub fn buckets(&self) -> Vec<(f64, u64)> {
        BOUNDS.into_iter().zip(self.buckets).collect()
    }
}

impl Ended {
    fn add(&mut self, entry: &JournalEntry) {
        *self.results.entry((entry.interface.clone(), entry.outcome)).or_default() += 1;
        if self.results.len() > RESULTS {
            self.results.pop_first();
        }
        if entry.phases.iter().any(|done| done.phase == Phase::Drain) {
            self.blocked.add(entry.blocked_us);
        }
        for done in &entry.phases {
            self.phases.entry(done.phase).or_default().add(done.took_us);
        }
    }
}

impl SwitchLog {
    /// What is in this folder; nothing is counted yet.
    pub fn new(folder: &Path) -> Self {
        Self { path: folder.join(FILE), ended: watch::Sender::default() }
    }

    /// Where the journal is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Counts switches that are over.
    pub fn count(&self, entries: &[Arc<JournalEntry>]) {
        self.ended.send_modify(|ended| entries.iter().for_each(|entry| ended.add(entry)));
    }

    /// Counts a flip that took so long from the store to the rule.
    pub fn flipped(&self, took: Duration) {
        let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.ended.send_modify(|ended| ended.flips.add(microseconds));
    }

    /// What was counted.
    pub fn ended(&self) -> Ended {
        self.ended.borrow().clone()
    }

    /// The last switches of an interface, at most `limit` that ended at `since` or later, the oldest first.
    /// A journal that is not there is empty; a line that is torn is left out. Blocks.
    pub fn journal(
        &self,
        interface: &str,
        since: Option<Timestamp>,
        limit: usize,
    ) -> io::Result<Vec<JournalEntry>> {
        let (mut entries, mut read) = (VecDeque::new(), BTreeSet::new());
        for number in 0..=KEPT {
            let file = match File::open(full(&self.path, number)) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            // One that became full meanwhile has another name, and was read.
            let metadata = file.metadata()?;
            if !read.insert((metadata.dev(), metadata.ino())) {
                continue;
            }
            let mut lines = Backwards::new(file)?;
            while let Some(line) = lines.next()? {
                let Ok(entry) = serde_json::from_slice::<JournalEntry>(&line) else { continue };
                if entries.len() >= limit || since.is_some_and(|since| entry.ended_at < since) {
                    return Ok(entries.into());
                }
                if entry.interface == interface {
                    entries.push_front(entry);
                }
            }
        }
        Ok(entries.into())
    }
}

/// The journal that was full so many files ago; 0 is the one that is written.
pub fn full(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// Lines of a file, the last first.
struct Backwards {
    file: File,
    /// Where what was read begins.
    at: u64,
    /// What was read and is not given out.
    rest: Vec<u8>,
}

impl Backwards {
    fn new(mut file: File) -> io::Result<Self> {
        let at = file.seek(SeekFrom::End(0))?;
        Ok(Self { file, at, rest: Vec::new() })
    }

    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') {
                let line = self.rest.split_off(end + 1);
                self.rest.truncate(end);
                return Ok(Some(line));
            }
            if self.at == 0 {
                let line = std::mem::take(&mut self.rest);
                return Ok((!line.is_empty()).then_some(line));
            }
            let length = self.at.min(BLOCK);
            self.at -= length;
            self.file.seek(SeekFrom::Start(self.at))?;
            let mut block = vec![0; usize::try_from(length).unwrap_or_default()];
            self.file.read_exact(&mut block)?;
            block.append(&mut self.rest);
            self.rest = block;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: u32, interface: &str, outcome: &str) -> JournalEntry {
        let ended = format!("2030-01-01T00:{:02}:{:02}Z", id / 60, id % 60);
        serde_json::from_value(serde_json::json!({"id": id.to_string(), "interface": interface, "by": "ana",
            "why": "x".repeat(5_000), "from": "a@1", "to": "b@1", "differences": [], "began_at": ended,
            "ended_at": ended, "phases": [{"phase": "flip", "began_at": ended, "took_us": 1_500}],
            "blocked_us": 0, "flows": {"active": 0, "idle": 0, "kept": 0}, "checks": [], "outcome": outcome}))
        .unwrap()
    }

    #[test]
    fn the_last_lines_of_an_interface_are_read_over_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let log = SwitchLog::new(folder.path());
        assert!(log.journal("i0", None, 10).unwrap().is_empty());
        let mut text = String::new();
        for id in 0..100 {
            let name = format!("i{}", id % 2);
            text += &(serde_json::to_string(&entry(id, &name, "committed")).unwrap() + "\n");
            text += "{\"id\": \"torn\n";
        }
        std::fs::write(log.path(), text).unwrap();
        let ids = |since: Option<&str>, limit| {
            let since = since.map(|time| time.parse().unwrap());
            let found = log.journal("i1", since, limit).unwrap();
            found.iter().map(|entry| entry.id.0.clone()).collect::<Vec<_>>()
        };
        assert_eq!(ids(None, 3), ["95", "97", "99"]);
        assert_eq!(ids(None, 1_000).len(), 50);
        assert_eq!(ids(Some("2030-01-01T00:01:36Z"), 10), ["97", "99"]);

        // It goes on in the files that were full before, one of which a crash left out.
        let line = |id: u32| serde_json::to_string(&entry(id, "i1", "committed")).unwrap() + "\n";
        std::fs::rename(log.path(), full(log.path(), 3)).unwrap();
        std::fs::write(full(log.path(), 1), line(101) + &line(102)).unwrap();
        assert_eq!(ids(None, 3), ["99", "101", "102"], "none is written yet");
        std::fs::write(log.path(), line(103)).unwrap();
        assert_eq!(ids(None, 4), ["99", "101", "102", "103"]);
        assert_eq!(ids(None, 1), ["103"]);
        assert_eq!(ids(Some("2030-01-01T00:01:39Z"), 10), ["99", "101", "102", "103"]);
        // While it is read it becomes full: no line is read twice.
        std::fs::hard_link(log.path(), full(log.path(), 2)).unwrap();
        assert_eq!(ids(None, 1_000).len(), 50 + 3);
    }

    #[test]
    fn switches_are_counted_by_interface_and_result() {
        let log = SwitchLog::new(Path::new("/nonexistent"));
        let ended = [entry(1, "i0", "committed"), entry(2, "i0", "committed"), entry(3, "i0", "aborted")];
        log.count(&ended.map(Arc::new));
        let ended = log.ended();
        assert_eq!(ended.results[&("i0".to_owned(), Outcome::Committed)], 2);
        assert_eq!((ended.phases[&Phase::Flip].count, ended.blocked.count), (3, 0));
        assert_eq!(ended.phases[&Phase::Flip].buckets()[1], (0.002, 3));
        log.flipped(Duration::from_micros(300));
        assert_eq!(log.ended().flips.buckets()[0], (0.001, 1));
    }
}
