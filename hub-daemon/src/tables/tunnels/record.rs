//! What is remembered of tunnels: `RUNTIME_DIR/tunnels/NAME.json`, from before one is made until it is gone.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::desired::Namespace;
use crate::kernel::wireguard::WireguardError;
use crate::kernel::wireguard::process::TUNNELS;

/// One tunnel.
#[derive(Serialize, Deserialize)]
pub(super) struct Record {
    /// Where the tunnel is; `None` is the hub's own namespace.
    pub(super) namespace: Option<Namespace>,
}

/// All tunnels that are remembered.
pub(super) fn all(runtime_dir: &Path) -> Result<BTreeMap<String, Record>, WireguardError> {
    let folder = runtime_dir.join(TUNNELS);
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        other => other.map_err(|source| WireguardError::Record { path: folder, source })?,
    };
    let names = entries.flatten().filter_map(|entry| {
        let path = entry.path();
        let is_record = path.extension().is_some_and(|extension| extension == "json");
        path.file_stem().filter(|_| is_record)?.to_str().map(str::to_owned)
    });
    let mut found = BTreeMap::new();
    for name in names {
        if let Some(record) = find(runtime_dir, &name)? {
            found.insert(name, record);
        }
    }
    Ok(found)
}

/// A tunnel, if it is remembered.
pub(super) fn find(runtime_dir: &Path, name: &str) -> Result<Option<Record>, WireguardError> {
    let path = file(runtime_dir, name);
    let text = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|source| WireguardError::Record { path: path.clone(), source })?,
    };
    let record = serde_json::from_slice(&text);
    record.map(Some).map_err(|error| WireguardError::Record { path, source: error.into() })
}

/// Remembers a tunnel. Whole or not at all: a hub that dies meanwhile leaves no half of a file.
pub(super) fn write(
    runtime_dir: &Path,
    name: &str,
    namespace: Option<&Namespace>,
) -> Result<(), WireguardError> {
    let path = file(runtime_dir, name);
    let other = path.with_extension("json.part");
    let record = Record { namespace: namespace.cloned() };
    let written = || {
        fs::create_dir_all(runtime_dir.join(TUNNELS))?;
        fs::write(&other, serde_json::to_vec(&record)?)?;
        fs::rename(&other, &path)
    };
    written().map_err(|source| WireguardError::Record { path: path.clone(), source })
}

/// Forgets a tunnel.
pub(super) fn remove(runtime_dir: &Path, name: &str) -> Result<(), WireguardError> {
    let path = file(runtime_dir, name);
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(WireguardError::Record { path, source })
        }
        Ok(()) | Err(_) => {
            // The last one turns out the light.
            fs::remove_dir(runtime_dir.join(TUNNELS)).ok();
            Ok(())
        }
    }
}

fn file(runtime_dir: &Path, name: &str) -> PathBuf {
    runtime_dir.join(TUNNELS).join(format!("{name}.json"))
}
