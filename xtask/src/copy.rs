//! Copies of this workspace to change and build: below `target`, so that nothing changes under them meanwhile.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::places::Places;

/// Makes a copy in a folder of `target`, instead of the one that was there.
pub(crate) fn of_workspace(places: &Places, name: &str) -> Result<PathBuf> {
    let folder = places.target().join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    for entry in fs::read_dir(places.root())? {
        let entry = entry?;
        let name = entry.file_name();
        match name.to_str() {
            Some("target" | ".git") | None => {}
            Some(_) if entry.file_type()?.is_dir() => copy(&entry.path(), &folder.join(&name))?,
            Some(_) => {
                fs::copy(entry.path(), folder.join(&name))
                    .with_context(|| format!("copy {}", entry.path().display()))?;
            }
        }
    }
    Ok(folder)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
