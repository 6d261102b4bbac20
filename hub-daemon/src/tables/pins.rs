//! Pins that no running version uses: folders of other layouts, maps and programs that this version does not
//! have, links on interfaces that are no ports.
//!
//! Only what lies in the hub's own folder of the BPF file system, below `vNUMBER`, is looked at. What goes
//! takes its object along, unless a program that runs still holds it. Nothing is ever put here: the data path
//! pins its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::command::Inventory;
use crate::desired::Desired;
use crate::kernel::load::{self, CLASSIFIERS, Capacities, FOLDERS};
use crate::reconcile::Table;

/// What cannot be read or removed.
#[derive(Debug, thiserror::Error)]
#[error("{intent} {path}: {source}", path = .path.display())]
pub struct PinError {
    intent: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// What a pin is that nobody needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// The folder of another layout.
    Layout,
    /// A map, program or link beside those of the running version.
    Object,
}

/// The pins that nobody needs.
pub struct Pins {
    /// The hub's folder.
    folder: PathBuf,
    /// Folder of the running version.
    own: PathBuf,
    /// Indices of the interfaces that are ports.
    ports: BTreeSet<u32>,
}

impl Pins {
    /// Pins below a BPF file system.
    pub fn new(bpffs: &Path) -> Self {
        Self { folder: bpffs.join("hub"), own: load::pins(bpffs), ports: BTreeSet::new() }
    }

    /// Notes which interfaces are ports: their links are needed.
    pub fn keep(&mut self, desired: &Desired, inventory: &Inventory) {
        let links = desired.ports.keys().filter_map(|name| inventory.links.get(name));
        let tunnels = desired.tunnels.iter().filter_map(|(name, tunnel)| tunnel.index(name));
        self.ports = links.map(|link| link.ifindex).chain(tunnels).collect();
    }

    /// Whether the running version needs what is pinned below its folder under this name.
    fn is_needed(&self, folder: &str, name: &str) -> bool {
        let maps = || Capacities::default().maps().into_iter().any(|map| map.name == name);
        match folder {
            "prog" => CLASSIFIERS.contains(&name),
            "link" => {
                let index = name.split_once('-').and_then(|(index, _)| index.parse().ok());
                index.is_some_and(|index: u32| self.ports.contains(&index))
            }
            _ => FOLDERS.contains(&name) || maps(),
        }
    }
}

impl Table for Pins {
    type Key = PathBuf;
    type Value = Leftover;
    type Found = Leftover;
    type Error = PinError;
    const NAME: &'static str = "pins";

    fn list(&mut self) -> Result<BTreeMap<PathBuf, Leftover>, PinError> {
        let mut found = BTreeMap::new();
        for name in names(&self.folder)? {
            let path = self.folder.join(&name);
            let is_layout = name.strip_prefix('v').is_some_and(|number| number.parse::<u32>().is_ok());
            if is_layout && path != self.own {
                found.insert(path, Leftover::Layout);
            }
        }
        for folder in ["", "prog", "link"] {
            let path = if folder.is_empty() { self.own.clone() } else { self.own.join(folder) };
            let unknown = names(&path)?.into_iter().filter(|name| !self.is_needed(folder, name));
            found.extend(unknown.map(|name| (path.join(name), Leftover::Object)));
        }
        Ok(found)
    }

    fn put(&mut self, _: &PathBuf, _: &Leftover) -> Result<(), PinError> {
        Ok(())
    }

    fn delete(&mut self, path: &PathBuf) -> Result<(), PinError> {
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        match removed {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                Err(PinError { intent: "remove pin", path: path.clone(), source })
            }
            _ => Ok(()),
        }
    }

    fn holds(wanted: &Leftover, found: &Leftover) -> bool {
        wanted == found
    }

    fn describe(path: &PathBuf) -> String {
        format!("pin {}", path.display())
    }
}

/// What a folder holds; nothing if there is none.
fn names(folder: &Path) -> Result<Vec<String>, PinError> {
    let failed = |source| PinError { intent: "list pins in", path: folder.to_owned(), source };
    let paths = load::entries(folder).map_err(failed)?;
    Ok(paths.iter().filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::shared_map::SharedMap;
    use crate::reconcile::{Tracked, reconcile};

    #[test]
    fn only_what_nobody_uses_goes() {
        let folder = tempfile::tempdir().unwrap();
        let bpffs = folder.path();
        let own = load::pins(bpffs);
        let file = |path: PathBuf| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        };
        let kept = ["SEGMENTS", "prog/hub_why", "link/7-hub_tc_in", "clsact/9/x"].map(|name| own.join(name));
        let foreign = [bpffs.join("other/map"), bpffs.join("hub/notes/x"), bpffs.join("hub/vX")];
        let gone = ["OLD_MAP", "prog/old", "link/8-hub_tc_in", "link/odd"].map(|name| own.join(name));
        let older = bpffs.join("hub/v0");
        kept.iter()
            .chain(&foreign)
            .chain(&gone)
            .chain([&older.join("link/3-hub_tc_in")])
            .cloned()
            .for_each(file);
        let mut pins = Pins::new(bpffs);
        pins.ports = [7].into();
        let mut table = Tracked::new(pins);
        let named = table.orphans(&SharedMap::new());
        assert_eq!(named.len(), gone.len() + 1, "{named:#?}");
        assert!(named.contains(&format!("pin {}", older.display())), "{named:#?}");
        let report = reconcile(&mut table, &SharedMap::new());
        assert_eq!((report.deleted, report.failures.len()), (gone.len() + 1, 0));
        assert!(kept.iter().chain(&foreign).all(|path| path.exists()));
        assert!(gone.iter().chain([&older]).all(|path| !path.exists()));
        assert!(table.orphans(&SharedMap::new()).is_empty());
    }
}
