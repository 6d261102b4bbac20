//! Loads the programs with maps that outlive the daemon.
//!
//! Maps are pinned under `<bpffs>/hub/v<layout>`; a map that is there already is adopted, so flows and
//! policies survive a restart. The kernel does not check that an adopted map has the shape the programs
//! expect, so this module does: a different shape or capacity is a cold start.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aya::maps::MapInfo;
use aya::programs::{ProgramError, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfError, EbpfLoader};
use hub_common::address::Address;
use hub_common::adjacency::{Adjacency, V6Hop};
use hub_common::application::Signature;
use hub_common::candidate::{CandidateHits, CandidateKey};
use hub_common::detect::{Bar, BarKey, DetectionKey, DetectorSet, Watch, WatchKey};
use hub_common::event::{HOOKS, REASON_SLOTS};
use hub_common::flow::{Flow, FlowKey, SharedHop};
use hub_common::limit::{Limit, LimitSource};
use hub_common::limits;
use hub_common::nets::NetLine;
use hub_common::open::PortSet;
use hub_common::outcome::Outcome;
use hub_common::packet::{FragmentKey, FragmentPorts};
use hub_common::rule::Rule;
use hub_common::segment::{Failsafe, Gateway, Peer, Policy, Port, Segment, Settings};
use hub_common::set::{QuarantineKey, SetKey};
use hub_common::shape::{Histogram, Policer};
use hub_common::stats::{DropKey, Hits, HookTotals, RuleHits, SegmentCounters, Sum};
use hub_common::trace::{TRACE_SLOTS, TraceFilter, TraceGate};
use hub_common::translation::{Masquerade, Prefix, TranslationKey, Uplink};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

/// Counts incompatible changes of map layouts.
pub const LAYOUT: u32 = 1;

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
    /// A map does not hold what was expected.
    #[error("open map {map}: {source}")]
    Map {
        /// Name of the map.
        map: &'static str,
        /// What aya said.
        source: aya::maps::MapError,
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

/// Entries of the maps whose size operators choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacities {
    /// Personas, expired ones in quarantine included.
    pub segments: u32,
    /// Compiled rules of all personas.
    pub rules: u32,
    /// Connections that saw a reply.
    pub flows: u32,
    /// Half-open connections.
    pub opening_flows: u32,
    /// IPv4 blocks: one for each /16 and /24 that holds longer prefixes.
    pub v4_blocks: u32,
    /// IPv6 prefixes.
    pub v6_prefixes: u32,
    /// Pairs of personas that may talk.
    pub peers: u32,
}

impl Default for Capacities {
    fn default() -> Self {
        Self {
            segments: limits::SEGMENTS,
            rules: limits::RULES,
            flows: limits::FLOWS,
            opening_flows: limits::FLOWS_NEW,
            v4_blocks: limits::V4_BLOCKS,
            v6_prefixes: limits::V6_PREFIXES,
            peers: limits::PEERS,
        }
    }
}

/// Name, key bytes, value bytes and entries of a map.
type Shape = (&'static str, usize, usize, u32);

impl Capacities {
    /// Every map, by the name it is pinned under.
    pub(crate) fn maps(&self) -> [Shape; 60] {
        let segments = self.segments.saturating_add(1);
        let drops = limits::DROPS.max(self.segments.saturating_mul(4));
        // Each persona may bring a gateway address of either family.
        let locals = limits::LOCALS.max(self.segments.saturating_mul(2));
        let (index, address) = (size_of::<u32>(), size_of::<Address>());
        [
            ("SETTINGS", index, size_of::<Settings>(), 1),
            ("PORTS", index, size_of::<Port>(), limits::PORTS),
            ("TUNNELS", index, size_of::<Port>(), limits::TUNNELS),
            ("SEGMENTS", index, size_of::<Segment>(), segments),
            ("POLICIES", index, size_of::<Policy>(), self.policies()),
            ("RULES", index, size_of::<Rule>(), self.rules),
            ("SIGNATURE_TABLE", index, size_of::<Signature>(), limits::SIGNATURES),
            ("PORT_SETS", index, size_of::<PortSet>(), limits::PORT_SETS),
            ("HOPS", index, size_of::<SharedHop>(), limits::HOPS),
            ("V4_HOPS", index, size_of::<u64>(), limits::V4_HOPS),
            ("V6_HOPS", index, size_of::<V6Hop>(), limits::V6_HOPS),
            ("ADJACENCIES", index, size_of::<Adjacency>(), limits::ADJACENCIES),
            ("LOCAL_BITS", index, size_of::<u64>(), limits::LOCAL_WORDS),
            ("V4_ROOT", index, size_of::<u32>(), 65_536),
            ("V4_BLOCKS", index, 256 * size_of::<u32>(), self.v4_blocks),
            ("V6_PREFIXES", address + 4, size_of::<u32>(), self.v6_prefixes),
            ("NETS", index, size_of::<NetLine>(), limits::NET_LINES + 1),
            ("LOCALS", address, size_of::<u32>(), locals),
            ("GATEWAYS", size_of::<Gateway>(), size_of::<u32>(), limits::GATEWAYS),
            ("FAILSAFE", size_of::<Failsafe>(), size_of::<u32>(), limits::FAILSAFE),
            ("PEERS", size_of::<Peer>(), size_of::<u32>(), self.peers),
            ("FLOWS", size_of::<FlowKey>(), size_of::<Flow>(), self.flows),
            ("FLOWS_NEW", size_of::<FlowKey>(), size_of::<Flow>(), self.opening_flows),
            ("FRAGMENTS", size_of::<FragmentKey>(), size_of::<FragmentPorts>(), limits::FRAGMENTS),
            ("TRANSLATIONS", size_of::<TranslationKey>() + 4, size_of::<Prefix>(), limits::TRANSLATIONS),
            ("UPLINKS", index, size_of::<Uplink>(), limits::UPLINKS),
            ("MASQUERADES", size_of::<FlowKey>(), size_of::<Masquerade>(), limits::MASQUERADES),
            ("MTUS", index, size_of::<u32>(), segments),
            ("COUNTERS", index, size_of::<SegmentCounters>(), segments),
            ("DROPS", size_of::<DropKey>(), size_of::<Hits>(), drops),
            ("RULE_HITS", index, size_of::<RuleHits>(), self.rules),
            ("SUMS", index, size_of::<Sum>(), limits::SUMS),
            ("SETS", size_of::<SetKey>() + 4, size_of::<u64>(), limits::SET_ELEMENTS),
            ("SET_HOSTS", size_of::<SetKey>(), size_of::<u64>(), limits::SET_ELEMENTS),
            ("QUARANTINE", size_of::<QuarantineKey>(), size_of::<u64>(), limits::QUARANTINED),
            ("LIMITS", index, size_of::<Limit>(), limits::RATE_LIMITS),
            ("LIMIT_SOURCES", size_of::<LimitSource>(), size_of::<u64>(), limits::RATE_SOURCES),
            ("CONNECTIONS", size_of::<LimitSource>(), size_of::<u64>(), limits::CONNECTION_SOURCES),
            ("CONNECTION_MAX", index, size_of::<u32>(), segments),
            ("TOTALS", index, size_of::<HookTotals>(), HOOKS),
            ("REASONS", index, size_of::<u64>(), HOOKS * REASON_SLOTS),
            ("EVENT_GATE", index, size_of::<u64>(), REASON_SLOTS),
            ("WATCHED", index, size_of::<u32>(), segments),
            ("DETECTOR_SETS", index, size_of::<DetectorSet>(), limits::DETECTOR_SETS),
            ("WATCHES", size_of::<WatchKey>(), size_of::<Watch>(), limits::WATCHES),
            ("BARS", size_of::<BarKey>(), size_of::<Bar>(), limits::BARS),
            ("DETECTIONS", size_of::<DetectionKey>(), size_of::<u64>(), limits::DETECTIONS),
            ("FLOWS_BEGUN", index, 3 * size_of::<u64>(), segments),
            ("REPLY_GATE", index, 2 * size_of::<u64>(), 1),
            ("SHAPES", index, size_of::<hub_common::shape::Shape>(), self.policies()),
            ("POLICERS", index, size_of::<Policer>(), segments),
            ("RTTS", index, size_of::<Histogram>(), segments),
            ("EVENTS", 0, 0, limits::EVENT_BYTES),
            ("ANSWER", index, size_of::<Outcome>(), 1),
            ("CLOCK", index, 2 * size_of::<u64>(), 1),
            ("TRACES", index, size_of::<TraceFilter>(), TRACE_SLOTS),
            ("TRACE_GATES", index, size_of::<TraceGate>(), TRACE_SLOTS),
            ("CANDIDATE_HITS", size_of::<CandidateKey>(), size_of::<CandidateHits>(), limits::CANDIDATE_HITS),
            ("CANDIDATE_SEEN", size_of::<FlowKey>(), 2 * index, limits::CANDIDATE_SEEN),
            ("CANDIDATE_LOST", index, size_of::<u64>(), 1),
        ]
    }

    /// Policies alive at once: an update builds beside.
    pub fn policies(&self) -> u32 {
        self.segments.saturating_mul(2)
    }
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
    /// Why maps of an earlier run were not adopted, if there were any.
    pub cold_start: Option<String>,
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
pub fn load(bpffs: &Path, capacities: &Capacities) -> Result<Loaded, LoadError> {
    if OBJECT.is_empty() {
        return Err(LoadError::NoObject);
    }
    let pins = pins(bpffs);
    let failed = |source: io::Error| LoadError::Bpffs { path: pins.clone(), source };
    let (mut loaded, adopted, cold_start) = match try_load(&pins, capacities) {
        Ok(Adoption::Whole(ebpf)) => (ebpf, true, None),
        Ok(Adoption::Nothing(ebpf)) => (ebpf, false, None),
        Ok(Adoption::Misfit(why)) => {
            // Links stay until their ports are attached anew: traffic is judged by the old programs meanwhile.
            remove_maps(&pins).map_err(failed)?;
            match try_load(&pins, capacities)? {
                Adoption::Whole(ebpf) | Adoption::Nothing(ebpf) => (ebpf, false, Some(why)),
                Adoption::Misfit(why) => return Err(failed(io::Error::other(why))),
            }
        }
        Err(error) => return Err(error),
    };
    load_programs(&mut loaded, &pins)?;
    Ok(Loaded { ebpf: loaded, pins, adopted, cold_start })
}

enum Adoption {
    Whole(Ebpf),
    Nothing(Ebpf),
    Misfit(String),
}

fn try_load(pins: &Path, capacities: &Capacities) -> Result<Adoption, LoadError> {
    fs::create_dir_all(pins.join("prog"))
        .and_then(|()| fs::create_dir_all(pins.join("link")))
        .map_err(|source| LoadError::Bpffs { path: pins.to_owned(), source })?;
    let maps = capacities.maps();
    let there = maps.iter().filter(|(name, ..)| pins.join(name).exists()).count();
    if there != 0 && there != maps.len() {
        return Ok(Adoption::Misfit(format!("{there} of {} maps are pinned", maps.len())));
    }
    if let Some(why) = maps.iter().find_map(|shape| misfit(pins, shape)) {
        return Ok(Adoption::Misfit(why));
    }
    let mut loader = EbpfLoader::new();
    for (name, _, _, entries) in maps {
        loader.map_max_entries(name, entries);
        loader.map_pin_path(name, pins.join(name));
    }
    let ebpf = loader.load(OBJECT)?;
    Ok(if there == 0 { Adoption::Nothing(ebpf) } else { Adoption::Whole(ebpf) })
}

/// What is different about a pinned map, if there is one and anything is.
fn misfit(pins: &Path, (name, key, value, entries): &Shape) -> Option<String> {
    let pinned = MapInfo::from_pin(pins.join(name)).ok()?;
    let found = (pinned.key_size() as usize, pinned.value_size() as usize, pinned.max_entries());
    let wanted = (*key, *value, *entries);
    (found != wanted).then(|| format!("map {name} has (key, value, entries) {found:?}, wanted {wanted:?}"))
}

fn remove_maps(pins: &Path) -> io::Result<()> {
    for (name, ..) in Capacities::default().maps() {
        match fs::remove_file(pins.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn load_programs(ebpf: &mut Ebpf, pins: &Path) -> Result<(), LoadError> {
    for name in CLASSIFIERS {
        let program = classifier(ebpf, name)?;
        program.load().map_err(|source| LoadError::Program { program: name, source })?;
        let path = pins.join("prog").join(name);
        // A pin of an earlier run names the program of then.
        drop(fs::remove_file(&path));
        program.pin(&path).map_err(|source| LoadError::Pin { program: name, source })?;
    }
    for name in XDP_PROGRAMS {
        xdp(ebpf, name)?.load().map_err(|source| LoadError::Program { program: name, source })?;
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
