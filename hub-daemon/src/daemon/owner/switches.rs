//! Switches are stored before the kernel hears of them, and written into their journal when they are over:
//! `switches.jsonl` in the state folder, one line for each, only ever added to. A full one is put aside, and the oldest
//! of those goes. Whatever a crash leaves of that, no line is lost or there twice.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::Owner;
use crate::model::SegmentId;
use crate::outputs::switches::{KEPT, full};
use crate::systems::personality::operation::JournalEntry;

/// Where the last lines are looked for, from the end: what was written before a crash is not written twice.
const TAIL: u64 = 1024 * 1024;

/// Bytes of a full journal.
const LIMIT: u64 = 16 * 1024 * 1024;

/// The journal of switches.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    limit: u64,
    /// The file, and the identities in its last lines.
    open: Option<(File, BTreeSet<String>)>,
}

impl Journal {
    /// The journal at this path; the file is made with the first line.
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), limit: LIMIT, open: None }
    }

    /// Adds lines; when it returns, they are on the disk.
    fn append(&mut self, entries: &[Arc<JournalEntry>]) -> io::Result<()> {
        if self.open.is_none() {
            self.open = Some(open(&self.path)?);
        }
        if let Some((file, known)) = &mut self.open
            && file.metadata()?.len() >= self.limit
        {
            match put_aside(&self.path).and_then(|()| begin(&self.path)) {
                Ok(next) => *file = next,
                Err(error) => {
                    tracing::warn!(%error, path = %self.path.display(), "a full journal of switches cannot be put aside");
                    let known = std::mem::take(known);
                    self.open = Some((begin(&self.path)?, known));
                }
            }
        }
        let Some((file, known)) = &mut self.open else { return Ok(()) };
        let mut text = Vec::new();
        for entry in entries.iter().filter(|entry| !known.contains(&entry.id.0)) {
            serde_json::to_writer(&mut text, entry.as_ref())?;
            text.push(b'\n');
        }
        let written = file.write_all(&text).and_then(|()| file.sync_data());
        if written.is_err() {
            // A line may be there in part: it is looked at again before the next one.
            self.open = None;
            return written;
        }
        // Only what a crash may have left is in doubt.
        known.clear();
        Ok(())
    }
}

/// Opens the journal; a line that was not finished is ended, so that the next one stands by itself.
fn open(path: &Path) -> io::Result<(File, BTreeSet<String>)> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = begin(path)?;
    let tail = tail(&mut file)?;
    if !tail.is_empty() && !tail.ends_with(b"\n") {
        file.write_all(b"\n")?;
    }
    let mut known = identities(&tail);
    // What was written last may have been put aside since.
    match File::open(full(path, 1)) {
        Ok(mut file) => known.extend(identities(&self::tail(&mut file)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok((file, known))
}

fn begin(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).read(true).append(true).open(path)
}

/// The last bytes of a file.
fn tail(file: &mut File) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    Ok(tail)
}

/// Identities of switches in whole lines.
fn identities(lines: &[u8]) -> BTreeSet<String> {
    let lines = lines.split(|byte| *byte == b'\n');
    let known = lines.filter_map(|line| serde_json::from_slice::<JournalEntry>(line).ok());
    known.map(|entry| entry.id.0).collect()
}

/// Has a full journal be the first of those that are put aside. Each step leaves every line in one file; a number that
/// is free, since there were fewer or a crash came in between, is filled, else the oldest goes.
fn put_aside(path: &Path) -> io::Result<()> {
    let is_free = |number: &u32| !full(path, *number).exists();
    let free = (1..=KEPT).find(is_free).unwrap_or(KEPT);
    for number in (0..free).rev() {
        fs::rename(full(path, number), full(path, number + 1))?;
    }
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

impl Owner {
    /// Stores switches that went on, before a pass makes it true. Where it cannot be stored, a hub that starts
    /// anew goes back further than need be, and is as whole.
    pub(super) fn keep_switches(&mut self) {
        if self.hub.must_be_stored() {
            self.keep();
        }
        self.write_switches();
    }

    /// Stores what time changed. Nobody asked for it who could be refused.
    pub(super) fn keep(&mut self) {
        if let Err(error) = self.store.keep(&mut self.hub) {
            tracing::error!(%error, "state cannot be stored");
            self.hub.set_condition("StateNotStored", Some(error.to_string()));
        }
    }

    /// Says how long other policies took to decide, and counts those of interfaces.
    pub(super) fn flipped(&self, flips: &[(SegmentId, Duration)]) {
        for (segment, took) in flips {
            tracing::info!(%segment, took_us = took.as_micros(), "changed over to the policy that waited");
            let known = self.channels.snapshot.borrow();
            if known.interfaces.values().any(|view| view.segment == *segment) {
                self.switch_log.flipped(*took);
            }
        }
    }

    /// Writes switches that are over into the journal.
    pub(super) fn write_switches(&mut self) {
        let count = self.hub.unwritten().len();
        if count == 0 {
            return;
        }
        match self.switches.append(self.hub.unwritten()) {
            Ok(()) => {
                self.switch_log.count(self.hub.unwritten());
                self.hub.written(count);
                self.hub.set_condition("JournalNotWritten", None);
            }
            Err(error) => {
                tracing::error!(%error, path = %self.switches.path.display(), "the journal of switches cannot be written");
                let message = format!("{}: {error}", self.switches.path.display());
                self.hub.set_condition("JournalNotWritten", Some(message));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outputs::switches::FILE;

    fn entry(id: &str) -> Arc<JournalEntry> {
        let text = serde_json::json!({"id": id, "interface": "i0", "by": "ana", "why": "", "from": "a@1",
            "to": "b@1", "differences": [], "began_at": "2030-01-01T00:00:00Z",
            "ended_at": "2030-01-01T00:00:01Z", "phases": [], "blocked_us": 0,
            "flows": {"active": 0, "idle": 0, "kept": 0}, "checks": [], "outcome": "committed"});
        Arc::new(serde_json::from_value(text).unwrap())
    }

    #[test]
    fn lines_are_added_once_and_a_torn_one_stands_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let read = || fs::read_to_string(&path).unwrap();
        let mut journal = Journal::new(&path);
        journal.append(&[entry("1"), entry("2")]).unwrap();
        journal.append(&[entry("3")]).unwrap();
        assert_eq!(read().lines().count(), 3);
        let torn = format!("{}{{\"id\": \"4", read());
        fs::write(&path, torn).unwrap();
        let mut journal = Journal::new(&path);
        journal.append(&[entry("3"), entry("4")]).unwrap();
        let text = read();
        let ids: Vec<String> = text
            .lines()
            .filter_map(|line| serde_json::from_str::<JournalEntry>(line).ok())
            .map(|entry| entry.id.0)
            .collect();
        assert_eq!((ids.join(","), text.lines().count()), ("1,2,3,4".to_owned(), 5));
    }

    /// Identities in a journal, by file: the oldest first.
    fn all(path: &Path) -> Vec<String> {
        let files = (0..=KEPT + 1).rev().filter_map(|number| fs::read(full(path, number)).ok());
        let lines =
            files.map(|bytes| bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>());
        let entries = lines.flatten().filter_map(|line| serde_json::from_slice::<JournalEntry>(&line).ok());
        entries.map(|entry| entry.id.0).collect()
    }

    fn numbers(ids: std::ops::Range<u32>) -> Vec<String> {
        ids.map(|id| id.to_string()).collect()
    }

    #[test]
    fn a_full_journal_is_put_aside_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let mut journal = Journal { limit: 1_000, ..Journal::new(&path) };
        let append = |journal: &mut Journal, id: u32| journal.append(&[entry(&id.to_string())]).unwrap();
        // Lines of one length.
        append(&mut journal, 10);
        let line = fs::metadata(&path).unwrap().len();
        let of_one = u32::try_from(1_000_u64.div_ceil(line)).unwrap();
        (11..10 + of_one).for_each(|id| append(&mut journal, id));
        assert!(!full(&path, 1).exists());
        append(&mut journal, 10 + of_one);
        assert_eq!(fs::read_to_string(full(&path, 1)).unwrap().lines().count(), of_one as usize);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
        // All of them full, and one more.
        let (first, end) = (10 + of_one, 10 + of_one * (KEPT + 1) + 1);
        (first + 1..end).for_each(|id| append(&mut journal, id));
        assert_eq!(all(&path), numbers(first..end), "only the oldest are gone");
        assert!(full(&path, KEPT).exists() && !full(&path, KEPT + 1).exists());

        // A hub that died before it stored that lines are written writes none twice, put aside or not.
        let mut journal = Journal { limit: 1_000, ..Journal::new(&path) };
        let again: Vec<_> = numbers(end - 3..end + 1).iter().map(|id| entry(id)).collect();
        journal.append(&again).unwrap();
        assert_eq!(all(&path), numbers(first..end + 1));

        // One that died while it put files aside: whichever step was the last, nothing is lost by it.
        let before = all(&path);
        fs::remove_file(full(&path, KEPT)).unwrap();
        let kept = all(&path);
        assert_eq!(kept, before[before.len() - kept.len()..]);
        fs::rename(full(&path, 3), full(&path, 4)).unwrap();
        fs::rename(full(&path, 2), full(&path, 3)).unwrap();
        assert_eq!(all(&path), kept);
        put_aside(&path).unwrap();
        assert_eq!(all(&path), kept);
        assert!(full(&path, 1).exists() && full(&path, 2).exists() && !path.exists());
        let mut journal = Journal { limit: 1_000, ..Journal::new(&path) };
        append(&mut journal, end + 1);
        let last = numbers(end + 1..end + 2);
        assert_eq!(all(&path), [kept, last].concat());
    }
}
