//! No Rust file is longer than a reader's patience.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{command::text, places::Places};

const LIMIT: usize = 400;

pub(super) fn check(places: &Places) -> Result<()> {
    let files = rust_files(places.root())?;
    let mut long = Vec::new();
    for file in files {
        let path = places.root().join(&file);
        // A file that is deleted but still known to git has no lines.
        if !path.exists() {
            continue;
        }
        let content = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let lines = content.lines().count();
        if lines > LIMIT {
            long.push(format!("{} has {lines} lines", file.display()));
        }
    }
    if !long.is_empty() {
        bail!("at most {LIMIT} lines per file: {}", long.join(", "));
    }
    Ok(())
}

fn rust_files(root: &Path) -> Result<Vec<PathBuf>> {
    let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "*.rs"];
    let names = text(Command::new("git").args(list).current_dir(root))?;
    Ok(names.split_terminator('\0').map(PathBuf::from).collect())
}
