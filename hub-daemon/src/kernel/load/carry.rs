//! Maps that were made anew beside those that programs of before still use.
//!
//! Such an old map stays pinned as `<pins>/old/<name>-<id>` until no program uses it any more, so that a daemon that
//! follows finds it if this one dies. Until then, what programs of before put into it is put into the new one, too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use aya::maps::{MapData, MapInfo};
use aya::programs::{ProgramError, loaded_programs};

use super::copy::{self, Noted};
use super::decide::Fate;
use super::shapes::{Form, Kind, Shape};
use super::{LoadError, OLD, OPENING, STAGE};
use crate::kernel::batch::from_map;

/// Old maps whose entries are still to be seen to.
#[derive(Debug, Default)]
pub struct Carry {
    folder: PathBuf,
    sources: Vec<Source>,
    /// Connections that are confirmed, for the ones that move there from the half-open ones.
    flows: Option<MapData>,
}

#[derive(Debug)]
struct Source {
    shape: Shape,
    id: u32,
    old: MapData,
    new: MapData,
    pin: PathBuf,
    noted: Noted,
}

/// Copies the maps that are to be carried into those that wait in the stage, and says what found no room.
pub(super) fn copy(
    pins: &Path,
    shapes: &[Shape],
    fates: &BTreeMap<&'static str, Fate>,
) -> Result<(Vec<Copied>, Vec<String>), LoadError> {
    let (mut copies, mut lost) = (Vec::new(), Vec::new());
    for shape in shapes.iter().filter(|shape| fates.get(shape.name) == Some(&Fate::Carried)) {
        let name = shape.name;
        let failed = |source| LoadError::Carry { map: name, source };
        let open = |path: PathBuf| MapData::from_pin(path).map_err(from_map).map_err(failed);
        let (old, new) = (open(pins.join(name))?, open(pins.join(STAGE).join(name))?);
        let mut noted = Noted::default();
        let left_out = copy::all(shape.kind, &old, &new, &mut noted).map_err(failed)?;
        if left_out > 0 {
            lost.push(format!("map {name} has no room for {left_out} of the entries that it had"));
        }
        copies.push(Copied { shape: *shape, old, noted });
    }
    Ok((copies, lost))
}

/// A map whose entries are in the stage.
pub(super) struct Copied {
    shape: Shape,
    old: MapData,
    noted: Noted,
}

impl Carry {
    /// Puts maps from the stage into the places of those of before. A name always leads to one of the two.
    pub(super) fn switch(
        pins: &Path,
        shapes: &[Shape],
        fates: &BTreeMap<&'static str, Fate>,
        copies: Vec<Copied>,
    ) -> io::Result<Self> {
        let folder = pins.join(OLD);
        let mut sources = Vec::new();
        for Copied { shape, old, noted } in copies {
            // What the daemon alone writes is in both as it was.
            if shape.kind == Kind::Policy {
                continue;
            }
            let id = old.info().map_err(from_map)?.id();
            let pin = folder.join(format!("{}-{id}", shape.name));
            match old.pin(&pin) {
                Ok(()) => {}
                Err(_) if pin.exists() => {}
                Err(error) => return Err(io::Error::other(error)),
            }
            sources.push((shape, id, old, pin, noted));
        }
        for shape in shapes.iter().filter(|shape| fates.get(shape.name) != Some(&Fate::Adopted)) {
            fs::rename(pins.join(STAGE).join(shape.name), pins.join(shape.name))?;
        }
        let open = |name: &str| MapData::from_pin(pins.join(name)).map_err(from_map);
        let mut found = Self { folder, sources: Vec::new(), flows: None };
        for (shape, id, old, pin, noted) in sources {
            found.sources.push(Source { shape, id, old, new: open(shape.name)?, pin, noted });
        }
        found.find(pins, shapes)?;
        if found.sources.is_empty() {
            fs::remove_dir(&found.folder)?;
        } else {
            found.flows = Some(open("FLOWS")?);
        }
        Ok(found)
    }

    /// Adds what a daemon that died left, and removes what is of no use.
    fn find(&mut self, pins: &Path, shapes: &[Shape]) -> io::Result<()> {
        let open = |path: &Path| MapData::from_pin(path).map_err(from_map);
        for pin in entries(&self.folder)? {
            if self.sources.iter().any(|source| source.pin == pin) {
                continue;
            }
            let name = pin.file_name().and_then(|name| name.to_str()?.rsplit_once('-')).map(|(name, _)| name);
            let shape = shapes.iter().find(|shape| Some(shape.name) == name);
            // One that cannot be read now is not one of no use.
            let found = shape.map(|shape| -> io::Result<Option<Source>> {
                let (old, new) = (open(&pin)?, open(&pins.join(shape.name))?);
                let (info, now) = (old.info().map_err(from_map)?, new.info().map_err(from_map)?);
                let fits = Form::of(&info).is_some_and(|form| form.has_layout(&shape.form));
                let (shape, id, noted) = (*shape, info.id(), Noted::default());
                let is_of_use = fits && id != now.id();
                Ok(is_of_use.then(|| Source { shape, id, old, new, pin: pin.clone(), noted }))
            });
            match found.transpose()?.flatten() {
                Some(source) => self.sources.push(source),
                None => fs::remove_file(&pin)?,
            }
        }
        // Connections that are confirmed before half-open ones, which move there.
        self.sources.sort_by_key(|source| source.shape.name == OPENING);
        Ok(())
    }

    /// Puts into the new maps what came into the old ones since the last time.
    pub fn catch_up(&mut self) -> Result<(), LoadError> {
        for Source { shape, old, new, noted, .. } in &mut self.sources {
            let beside = self.flows.as_ref().filter(|_| shape.name == OPENING);
            copy::since(shape.kind, old, new, beside, noted)
                .map_err(|source| LoadError::Carry { map: shape.name, source })?;
        }
        Ok(())
    }

    /// Once no program uses an old map any more, puts over what is left and lets go of it. `grace` returns when no
    /// packet is in a program that began before it was called.
    pub fn settle(&mut self, grace: impl FnOnce()) -> Result<(), LoadError> {
        if self.sources.is_empty() {
            return Ok(());
        }
        let failed = |source| LoadError::Carry { map: OLD, source };
        let used = used_maps().map_err(failed)?;
        if self.sources.iter().any(|source| !used.contains(&source.id)) {
            grace();
        }
        self.catch_up()?;
        let is_over = |source: &mut Source| !used.contains(&source.id);
        for Source { shape, pin, .. } in self.sources.extract_if(.., is_over) {
            tracing::debug!(map = shape.name, "no program uses the map of before");
            fs::remove_file(pin).or_else(gone_is_well).map_err(failed)?;
        }
        if self.sources.is_empty() {
            self.flows = None;
            fs::remove_dir(&self.folder).or_else(gone_is_well).map_err(failed)?;
        }
        Ok(())
    }
}

impl Form {
    /// What the kernel says of a map.
    pub(super) fn of(info: &MapInfo) -> Option<Self> {
        let (key, value) = (info.key_size() as usize, info.value_size() as usize);
        Some(Self { map: info.map_type().ok()?, key, value, entries: info.max_entries() })
    }
}

/// Numbers of the maps that programs use, whoever holds these.
fn used_maps() -> io::Result<BTreeSet<u32>> {
    let mut used = BTreeSet::new();
    for program in loaded_programs() {
        match program.and_then(|program| program.map_ids()) {
            Ok(ids) => used.extend(ids.into_iter().flatten()),
            // It went while it was looked at.
            Err(ProgramError::SyscallError(error)) if error.io_error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    Ok(used)
}

/// Paths of what a folder holds; none if there is no such folder.
pub(crate) fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
    }
}

/// What was to be removed and is not there is removed.
pub(super) fn gone_is_well(error: io::Error) -> io::Result<()> {
    if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
