//! Where the hub has put something of personalities, and what it found there.
//!
//! Marks in the kernel tell what is ours in a namespace; this file tells in which namespaces to look, after a
//! restart and for a teardown without a daemon, and which sizes interfaces had before. It is written before
//! anything is put. It outlives the daemon but not a reboot, as do namespaces.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::desired::Namespace;

const FILE: &str = "interfaces.json";

/// One namespace; `None` is the hub's own.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Kept {
    namespace: Option<Namespace>,
    /// Largest packets of before, in bytes, by interface.
    mtus: BTreeMap<String, u32>,
}

/// The file.
pub(super) struct Memory {
    path: PathBuf,
    /// `None` until it was read.
    kept: Option<BTreeMap<Option<Namespace>, BTreeMap<String, u32>>>,
}

/// The file cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("remember interfaces in {path}: {source}", path = path.display())]
pub(super) struct MemoryError {
    /// The file.
    path: PathBuf,
    /// Why not.
    source: io::Error,
}

impl Memory {
    pub(super) fn new(runtime_dir: &Path) -> Self {
        Self { path: runtime_dir.join(FILE), kept: None }
    }

    /// Namespaces where something of ours may be.
    pub(super) fn namespaces(&mut self) -> Result<Vec<Option<Namespace>>, MemoryError> {
        Ok(self.kept()?.keys().cloned().collect())
    }

    /// Something is about to be put in a namespace.
    pub(super) fn enter(&mut self, namespace: Option<&Namespace>) -> Result<(), MemoryError> {
        if self.kept()?.contains_key(&namespace.cloned()) {
            return Ok(());
        }
        self.kept()?.insert(namespace.cloned(), BTreeMap::new());
        self.save()
    }

    /// Nothing of ours is in a namespace any more.
    pub(super) fn leave(&mut self, namespace: Option<&Namespace>) -> Result<(), MemoryError> {
        if self.kept()?.remove(&namespace.cloned()).is_none() { Ok(()) } else { self.save() }
    }

    /// Sizes that interfaces of a namespace had before.
    pub(super) fn mtus(
        &mut self,
        namespace: Option<&Namespace>,
    ) -> Result<BTreeMap<String, u32>, MemoryError> {
        Ok(self.kept()?.get(&namespace.cloned()).cloned().unwrap_or_default())
    }

    /// Remembers the size that an interface has before it is changed, or forgets it.
    pub(super) fn keep_mtu(
        &mut self,
        namespace: Option<&Namespace>,
        interface: &str,
        mtu: Option<u32>,
    ) -> Result<(), MemoryError> {
        let mtus = self.kept()?.entry(namespace.cloned()).or_default();
        let changed = match mtu {
            Some(_) if mtus.contains_key(interface) => false,
            Some(mtu) => mtus.insert(interface.to_owned(), mtu).is_none(),
            None => mtus.remove(interface).is_some(),
        };
        if changed { self.save() } else { Ok(()) }
    }

    fn kept(&mut self) -> Result<&mut BTreeMap<Option<Namespace>, BTreeMap<String, u32>>, MemoryError> {
        let kept = match self.kept.take() {
            Some(kept) => kept,
            None => match std::fs::read(&self.path) {
                Ok(bytes) => {
                    let kept: Vec<Kept> =
                        serde_json::from_slice(&bytes).map_err(|error| self.error(error.into()))?;
                    kept.into_iter().map(|kept| (kept.namespace, kept.mtus)).collect()
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
                Err(error) => return Err(self.error(error)),
            },
        };
        Ok(self.kept.insert(kept))
    }

    fn save(&self) -> Result<(), MemoryError> {
        let kept = self.kept.iter().flatten();
        let kept: Vec<Kept> =
            kept.map(|(namespace, mtus)| Kept { namespace: namespace.clone(), mtus: mtus.clone() }).collect();
        let next = self.path.with_extension("json.next");
        let write = || {
            if let Some(folder) = self.path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            std::fs::write(&next, serde_json::to_vec_pretty(&kept)?)?;
            std::fs::rename(&next, &self.path)
        };
        write().map_err(|source| self.error(source))
    }

    fn error(&self, source: io::Error) -> MemoryError {
        MemoryError { path: self.path.clone(), source }
    }
}
