//! Alerts that one receiver has not taken yet. They are kept in a file, so that the next daemon tells them.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};

use super::{AlertEvent, file};
use crate::model::personality::hexadecimal;
use crate::model::webhook::Webhook;

/// Alerts that wait for one receiver.
pub(super) const WAITING: usize = 256;
/// Names of files begin so.
const PREFIX: &str = "webhook-";

/// What waits for one receiver, the oldest first.
#[derive(Debug)]
pub(super) struct Outbox {
    file: PathBuf,
    waiting: VecDeque<AlertEvent>,
}

impl Outbox {
    /// What an earlier daemon left for this receiver.
    pub(super) fn open(folder: &Path, hook: &Webhook) -> Self {
        let file = folder.join(name(hook));
        let waiting = file::load(&file);
        Self { file, waiting }
    }

    /// Removes what waits for receivers that there are no longer.
    pub(super) fn sweep(folder: &Path, hooks: &[Webhook]) {
        let names: Vec<String> = hooks.iter().map(name).collect();
        for entry in folder.read_dir().into_iter().flatten().flatten() {
            let found = entry.file_name().to_string_lossy().into_owned();
            if found.starts_with(PREFIX) && !names.contains(&found) {
                // One that stays is no harm.
                drop(std::fs::remove_file(entry.path()));
            }
        }
    }

    /// Adds an alert; whether there was room.
    pub(super) fn push(&mut self, event: &AlertEvent) -> bool {
        if self.waiting.len() >= WAITING {
            return false;
        }
        self.waiting.push_back(event.clone());
        self.save();
        true
    }

    /// The next one to tell.
    pub(super) fn front(&self) -> Option<&AlertEvent> {
        self.waiting.front()
    }

    /// Forgets the one that was told, or given up.
    pub(super) fn pop(&mut self) {
        self.waiting.pop_front();
        self.save();
    }

    fn save(&self) {
        if let Err(error) = file::save(&self.file, &self.waiting) {
            tracing::error!(%error, file = %self.file.display(), "alerts that wait cannot be stored");
        }
    }
}

/// The file of a receiver: its URL may hold what names of files may not.
fn name(hook: &Webhook) -> String {
    let hash = digest(&SHA256, format!("{:?}", hook.url).as_bytes());
    format!("{PREFIX}{}.json", hexadecimal(hash.as_ref().get(..8).unwrap_or_default()))
}
