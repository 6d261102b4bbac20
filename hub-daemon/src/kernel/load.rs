//! Loads the programs with maps that outlive the daemon.
//!
//! Maps are pinned under `<bpffs>/hub/v<layout>`; a map that is there already is adopted, so flows and
//! policies survive a restart. The kernel does not check that an adopted map has the shape the programs
//! expect, so this module does. A map with another number of entries is made anew in `new`, gets the entries, and
//! takes the place of the one of before: see [`carry`]. One of another layout begins empty if programs fill it again;
//! else everything begins anew, a cold start.

pub(crate) mod anew;
pub mod carry;
mod copy;
mod decide;
mod fits;
mod shapes;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aya::maps::MapInfo;
use aya::programs::{ProgramError, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfError, EbpfLoader};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

pub(crate) use self::carry::entries;
use self::carry::{Carry, gone_is_well};
use self::decide::{Fate, Plan};
pub use self::shapes::Capacities;
use self::shapes::{Form, Kind, Shape};
use super::batch::from_map;

/// Counts incompatible changes of map layouts.
pub const LAYOUT: u32 = 1;

/// Folder below the pins where maps are made that are to take the places of others.
const STAGE: &str = "new";
/// Folder below the pins of maps that programs of before still use.
const OLD: &str = "old";
/// Folders below the pins.
pub(crate) const FOLDERS: [&str; 6] = ["prog", "link", "clsact", STAGE, OLD, anew::ANEW];
/// The map that is there as long as the data path is.
const MARK: &str = "SEGMENTS";
/// Half-open connections.
const OPENING: &str = "FLOWS_NEW";

/// The kernel object, or nothing where it was not built.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("HUB_EBPF_OBJECT_PATH"));

/// Why the data path cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The daemon was built without the kernel object.
    #[error("this hubd holds no kernel programs: build it with `cargo xtask build`")]
    NoObject,
    /// The BPF file system cannot be used.
    #[error("bpffs `{path}`: {source}: mount one there, or set `bpffs`")]
    Bpffs {
        /// The folder.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The object or a map was refused.
    #[error("load the kernel object: {0}")]
    Object(#[from] EbpfError),
    /// A program was refused.
    #[error("load program {program}: {source}")]
    Program {
        /// Name of the program.
        program: &'static str,
        /// What the kernel said.
        source: ProgramError,
    },
    /// A program or map is missing in the object.
    #[error("the kernel object has no `{0}`: it was built from other sources")]
    Missing(&'static str),
    /// A map of an earlier run is there, and cannot be read.
    #[error("open map {map}: {source}")]
    Map {
        /// Name of the map.
        map: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// What a map holds cannot be carried over.
    #[error("carry over the entries of {map}: {source}")]
    Carry {
        /// Name of the map.
        map: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A program cannot be pinned.
    #[error("pin program {program}: {source}")]
    Pin {
        /// Name of the program.
        program: &'static str,
        /// What the kernel said.
        source: aya::pin::PinError,
    },
}

/// TC programs.
pub const CLASSIFIERS: [&str; 5] = ["hub_tc_in", "hub_tc_out", "hub_why", "hub_clock", "hub_sum"];
/// XDP programs.
pub const XDP_PROGRAMS: [&str; 1] = ["hub_xdp_in"];

/// The loaded object and where its parts are pinned.
#[derive(Debug)]
pub struct Loaded {
    /// Maps and programs.
    pub ebpf: Ebpf,
    /// Folder of the pinned maps.
    pub pins: PathBuf,
    /// Whether the maps of an earlier run were adopted: flows go on.
    pub adopted: bool,
    /// No connection of before is in the maps: programs of before may still judge by theirs.
    pub is_anew: bool,
    /// What of an earlier run was lost, and why.
    pub cold_start: Option<String>,
    /// Maps of an earlier run that programs still use beside new ones.
    pub carry: Carry,
}

/// Folder of the pinned maps under a BPF file system.
pub fn pins(bpffs: &Path) -> PathBuf {
    bpffs.join("hub").join(format!("v{LAYOUT}"))
}

/// Mounts a BPF file system at `path` unless there is one. Returns whether it did.
pub fn ensure_bpffs(path: &Path) -> Result<bool, LoadError> {
    let failed = |source: io::Error| LoadError::Bpffs { path: path.to_owned(), source };
    fs::create_dir_all(path).map_err(failed)?;
    if statfs(path).map_err(|errno| failed(errno.into()))?.filesystem_type() == BPF_FS_MAGIC {
        return Ok(false);
    }
    mount(Some("bpf"), path, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
        .map_err(|errno| failed(errno.into()))?;
    Ok(true)
}

/// Loads maps and programs, adopting what an earlier run left pinned.
///
/// Until the programs are loaded nothing of before changes, and whenever this ends, what is pinned is whole: the maps of
/// before, those of now, or each of either.
pub fn load(bpffs: &Path, capacities: &Capacities) -> Result<Loaded, LoadError> {
    if OBJECT.is_empty() {
        return Err(LoadError::NoObject);
    }
    let pins = pins(bpffs);
    let failed = |source: io::Error| LoadError::Bpffs { path: pins.clone(), source };
    for folder in ["prog", "link", STAGE, OLD] {
        fs::create_dir_all(pins.join(folder)).map_err(failed)?;
    }
    // Those of a start that did not come to its end.
    remove_all(&pins.join(STAGE)).map_err(failed)?;
    let shapes = capacities.maps();
    let plan = decide::decide(&shapes, &found(&pins, &shapes)?, &|shape| fits::needed(&pins, shape));
    let plan = plan.map_err(failed)?;
    let mut ebpf = load_maps(&pins, &shapes, &plan)?;
    load_programs(&mut ebpf)?;
    let begun = anew::begun(&pins).map_err(failed)?;
    let unfinished = begun
        .is_lost
        .then(|| "a start that began anew was broken off: connections of before it begin anew".to_owned());
    let (adopted, cold_start, carry) = match plan {
        Plan::Each(fates) => {
            let (copies, left_out) = carry::copy(&pins, &shapes, &fates)?;
            let carry = Carry::switch(&pins, &shapes, &fates, copies).map_err(failed)?;
            // Nobody misses what was of use for a moment.
            let is_missed =
                |name: &str| shapes.iter().all(|shape| shape.name != name || shape.kind != Kind::Moment);
            let empty = fates.into_iter().filter_map(|(name, fate)| match fate {
                Fate::Empty(why) if is_missed(name) => Some(format!("{}: it begins empty", why?)),
                Fate::Empty(_) | Fate::Adopted | Fate::Carried => None,
            });
            let lost: Vec<String> = unfinished.into_iter().chain(empty).chain(left_out).collect();
            (true, (!lost.is_empty()).then(|| lost.join("; ")), carry)
        }
        Plan::New | Plan::Cold(_) => {
            let why = if let Plan::Cold(why) = plan {
                Some(format!("{why}: connections begin anew"))
            } else {
                unfinished
            };
            anew::begin(&pins, &shapes, why.is_some()).map_err(failed)?;
            (false, why, Carry::default())
        }
    };
    fs::remove_dir(pins.join(STAGE)).map_err(failed)?;
    pin_programs(&mut ebpf, &pins)?;
    Ok(Loaded { ebpf, pins, adopted, is_anew: !adopted || begun.is_anew, cold_start, carry })
}

/// How the maps that are pinned were made.
fn found(pins: &Path, shapes: &[Shape]) -> Result<BTreeMap<&'static str, Form>, LoadError> {
    let mut found = BTreeMap::new();
    for Shape { name, .. } in shapes {
        match MapInfo::from_pin(pins.join(name)).map_err(from_map) {
            Ok(info) => found.extend(Form::of(&info).map(|form| (*name, form))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // One that cannot be read now is not one that is missing: all connections would be over.
            Err(source) => return Err(LoadError::Map { map: name, source }),
        }
    }
    Ok(found)
}

/// Takes the maps that are adopted, and makes the others in the stage.
fn load_maps(pins: &Path, shapes: &[Shape], plan: &Plan) -> Result<Ebpf, LoadError> {
    let is_adopted =
        |name: &str| matches!(plan, Plan::Each(fates) if fates.get(name) == Some(&Fate::Adopted));
    let mut loader = EbpfLoader::new();
    for Shape { name, form, .. } in shapes {
        let folder = if is_adopted(name) { pins.to_owned() } else { pins.join(STAGE) };
        loader.map_max_entries(name, form.entries);
        loader.map_pin_path(name, folder.join(name));
    }
    Ok(loader.load(OBJECT)?)
}

fn remove_all(folder: &Path) -> io::Result<()> {
    entries(folder)?.into_iter().try_for_each(|path| fs::remove_file(path).or_else(gone_is_well))
}

fn load_programs(ebpf: &mut Ebpf) -> Result<(), LoadError> {
    for name in CLASSIFIERS {
        let loaded = classifier(ebpf, name)?.load();
        loaded.map_err(|source| LoadError::Program { program: name, source })?;
    }
    for name in XDP_PROGRAMS {
        xdp(ebpf, name)?.load().map_err(|source| LoadError::Program { program: name, source })?;
    }
    Ok(())
}

fn pin_programs(ebpf: &mut Ebpf, pins: &Path) -> Result<(), LoadError> {
    for name in CLASSIFIERS {
        let path = pins.join("prog").join(name);
        // A pin of an earlier run names the program of then.
        drop(fs::remove_file(&path));
        classifier(ebpf, name)?.pin(&path).map_err(|source| LoadError::Pin { program: name, source })?;
    }
    Ok(())
}

/// A TC program of the object.
pub fn classifier<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SchedClassifier, LoadError> {
    let program = ebpf.program_mut(name).ok_or(LoadError::Missing(name))?;
    program.try_into().map_err(|source| LoadError::Program { program: name, source })
}

/// An XDP program of the object.
pub fn xdp<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, LoadError> {
    let program = ebpf.program_mut(name).ok_or(LoadError::Missing(name))?;
    program.try_into().map_err(|source| LoadError::Program { program: name, source })
}
