//! Small files in the state folder: alerts that are not over, and those that webhooks have not told yet.

use std::io::{self, Write as _};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What an earlier run left; nothing where there is no file, or none that can be read.
pub(super) fn load<T: Default + DeserializeOwned>(file: &Path) -> T {
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return T::default(),
        Err(error) => {
            tracing::error!(%error, file = %file.display(), "alerts of before cannot be read");
            return T::default();
        }
    };
    serde_json::from_slice(&text).unwrap_or_else(|error| {
        tracing::error!(%error, file = %file.display(), "alerts of before cannot be read");
        T::default()
    })
}

/// Writes beside and renames, so that a crash leaves the file of before.
pub(super) fn save<T: Serialize + ?Sized>(file: &Path, kept: &T) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let next = file.with_extension("next");
    let mut out = std::fs::File::create(&next)?;
    out.write_all(&serde_json::to_vec(kept)?)?;
    out.sync_all()?;
    std::fs::rename(&next, file)
}
