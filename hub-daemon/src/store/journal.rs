//! The journal beside the state file: one line of JSON for each change since the file was written.
//!
//! A line is synced before the change is answered. Lines are numbered, and the file says which of them it
//! holds already: what the journal has twice is skipped, and where a number is missing it ends. A line that
//! is torn was never answered, so it never happened.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::{StoreError, failed};
use crate::hub::changes::Changes;
use crate::hub::state::State;

/// One line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<T> {
    sequence: u64,
    changes: T,
}

/// Adds a line; when it returns, the line is on the disk. `length` is that of the journal as it should be:
/// one that somebody else changed is not written to.
pub(super) fn append(path: &Path, length: u64, sequence: u64, changes: &Changes) -> io::Result<u64> {
    let mut text = serde_json::to_vec(&Line { sequence, changes })?;
    text.push(b'\n');
    let mut file = OpenOptions::new().append(true).create(length == 0).open(path)?;
    if file.metadata()?.len() != length {
        return Err(io::Error::other("somebody else changed it"));
    }
    let written = file.write_all(&text).and_then(|()| file.sync_data());
    if let Err(error) = written {
        // Who is told that a change was refused must not find it after the next start.
        file.set_len(length).and_then(|()| file.sync_data())?;
        return Err(error);
    }
    if length == 0
        && let Some(folder) = path.parent()
    {
        File::open(folder)?.sync_all()?;
    }
    Ok(length + text.len() as u64)
}

/// Makes in `state` the changes that come after `sequence`, and counts them there. Says why it ended before
/// the last line, if it did; a line that is whole and says what only another version knows is an error.
pub(super) fn replay(
    path: &Path,
    state: &mut State,
    sequence: &mut u64,
) -> Result<Option<String>, StoreError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", path)(error)),
    };
    let mut trouble = None;
    let mut all = Vec::new();
    let (mut rest, mut number) = (text.as_slice(), 0);
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, after) = rest.split_at(end + 1);
        number += 1;
        let line: Line<Changes> = match serde_json::from_slice(line) {
            Ok(line) => line,
            Err(error) if serde_json::from_slice::<Line<IgnoredAny>>(line).is_ok() => {
                let why = format!("line {number}: {error}");
                return Err(StoreError::Foreign { path: path.to_owned(), why });
            }
            Err(error) => {
                trouble = Some(format!("line {number} is unreadable ({error})"));
                break;
            }
        };
        if line.sequence > *sequence + 1 {
            trouble = Some(format!("changes {} to {} are missing", *sequence + 1, line.sequence - 1));
            break;
        }
        if line.sequence > *sequence {
            *sequence = line.sequence;
            all.push(line.changes);
        }
        rest = after;
    }
    state.change(all);
    Ok(trouble)
}

#[cfg(test)]
mod tests;
