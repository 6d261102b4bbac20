//! The live maps and programs, opened by the names they are pinned under.

use std::io;
use std::path::Path;

use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuHashMap};
use aya::programs::{ProgramError, SchedClassifier};
use hub_common::application::Signature;
use hub_common::candidate::{CandidateHits, CandidateKey};
use hub_common::detect::DetectionKey;
use hub_common::flow::{Flow, FlowKey};
use hub_common::outcome::Outcome;
use hub_common::rule::Rule;
use hub_common::segment::{Policy, Segment, Settings, policy_slot};
use hub_common::set::QuarantineKey;
use hub_common::shape::{Histogram, Policer, Shape};
use hub_common::stats::{DropKey, Hits, HookTotals, RuleHits, SegmentCounters};

use super::batch::from_map;
use super::reader::ReadError;
use super::sums::Sums;

/// Every map that is read.
pub(crate) struct Maps {
    pub(crate) settings: Array<MapData, Settings>,
    pub(crate) slots: RuleSlots,
    pub(crate) sums: Sums,
    pub(crate) counters: PerCpuArray<MapData, SegmentCounters>,
    pub(crate) drops: PerCpuHashMap<MapData, DropKey, Hits>,
    pub(crate) rule_hits: PerCpuArray<MapData, RuleHits>,
    pub(crate) quarantine: HashMap<MapData, QuarantineKey, u64>,
    pub(crate) times: PerCpuHashMap<MapData, u32, Histogram>,
    pub(crate) signatures: Array<MapData, Signature>,
    pub(crate) shapes: Array<MapData, Shape>,
    pub(crate) policers: Array<MapData, Policer>,
    pub(crate) totals: PerCpuArray<MapData, HookTotals>,
    pub(crate) reasons: PerCpuArray<MapData, u64>,
    pub(crate) flows: HashMap<MapData, FlowKey, Flow>,
    pub(crate) flows_new: HashMap<MapData, FlowKey, Flow>,
    pub(crate) flows_begun: PerCpuArray<MapData, [u64; 3]>,
    pub(crate) detections: HashMap<MapData, DetectionKey, u64>,
    pub(crate) answer: Array<MapData, Outcome>,
    pub(crate) candidate_hits: PerCpuHashMap<MapData, CandidateKey, CandidateHits>,
    pub(crate) candidate_lost: PerCpuArray<MapData, u64>,
}

impl Maps {
    pub(crate) fn open(pins: &Path) -> Result<Self, ReadError> {
        Ok(Self {
            settings: array(pins, "SETTINGS")?,
            slots: RuleSlots::open(pins)?,
            sums: Sums::open(pins)?,
            counters: open(pins, "COUNTERS")?,
            drops: open(pins, "DROPS")?,
            rule_hits: open(pins, "RULE_HITS")?,
            times: open(pins, "RTTS")?,
            signatures: array(pins, "SIGNATURE_TABLE")?,
            shapes: array(pins, "SHAPES")?,
            policers: array(pins, "POLICERS")?,
            quarantine: open(pins, "QUARANTINE")?,
            totals: open(pins, "TOTALS")?,
            reasons: open(pins, "REASONS")?,
            flows: open(pins, "FLOWS")?,
            flows_new: open(pins, "FLOWS_NEW")?,
            flows_begun: open(pins, "FLOWS_BEGUN")?,
            detections: open(pins, "DETECTIONS")?,
            answer: array(pins, "ANSWER")?,
            candidate_hits: open(pins, "CANDIDATE_HITS")?,
            candidate_lost: open(pins, "CANDIDATE_LOST")?,
        })
    }
}

/// The maps that say what a rule slot means.
pub(crate) struct RuleSlots {
    pub(crate) segments: Array<MapData, Segment>,
    pub(crate) policies: Array<MapData, Policy>,
    pub(crate) rules: Array<MapData, Rule>,
}

impl RuleSlots {
    pub(crate) fn open(pins: &Path) -> Result<Self, ReadError> {
        Ok(Self {
            segments: array(pins, "SEGMENTS")?,
            policies: array(pins, "POLICIES")?,
            rules: array(pins, "RULES")?,
        })
    }

    /// The policy that a segment points at, if it has one.
    pub(crate) fn policy_of(&self, segment: u32) -> Result<Option<Policy>, ReadError> {
        match at(&self.segments, "SEGMENTS", segment)? {
            Some(segment) if segment.policy != 0 => self.policy(segment.policy),
            Some(_) | None => Ok(None),
        }
    }

    /// The policy of a word, unless its slot holds another one by now.
    pub(crate) fn policy(&self, word: u32) -> Result<Option<Policy>, ReadError> {
        let policy = at(&self.policies, "POLICIES", policy_slot(word))?;
        Ok(policy.filter(|policy| policy.word == word))
    }

    /// The rule in a slot, if the policy owns the slot.
    pub(crate) fn rule(&self, policy: &Policy, slot: u32) -> Result<Option<Rule>, ReadError> {
        let runs = [(policy.ingress_first, policy.ingress_count), (policy.egress_first, policy.egress_count)];
        if runs.into_iter().any(|(first, count)| slot.checked_sub(first).is_some_and(|at| at < count)) {
            at(&self.rules, "RULES", slot)
        } else {
            Ok(None)
        }
    }
}

/// An element of an array, or `None` beyond its end.
pub(crate) fn at<V: Pod>(
    array: &Array<MapData, V>,
    map: &'static str,
    index: u32,
) -> Result<Option<V>, ReadError> {
    present(array.get(&index, 0), map)
}

/// A value, or `None` if there is none under its key.
pub(crate) fn present<V>(value: Result<V, MapError>, map: &'static str) -> Result<Option<V>, ReadError> {
    match value {
        Ok(value) => Ok(Some(value)),
        Err(MapError::OutOfBounds { .. } | MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(failed(map, error)),
    }
}

/// Opens an array.
pub(crate) fn array<V: Pod>(pins: &Path, map: &'static str) -> Result<Array<MapData, V>, ReadError> {
    open(pins, map)
}

/// Opens a map as the kind and with the sizes that the type says.
pub(crate) fn open<T: TryFrom<Map, Error = MapError>>(
    pins: &Path,
    map: &'static str,
) -> Result<T, ReadError> {
    MapData::from_pin(pins.join(map))
        .and_then(Map::from_map_data)
        .and_then(T::try_from)
        .map_err(|error| failed(map, error))
}

/// Opens a TC program.
pub(crate) fn program(pins: &Path, program: &'static str) -> Result<SchedClassifier, ReadError> {
    let opened = SchedClassifier::from_pin(pins.join("prog").join(program));
    opened.map_err(|error| ReadError::Map { map: program, source: from_program(error) })
}

pub(crate) fn failed(map: &'static str, error: MapError) -> ReadError {
    ReadError::Map { map, source: from_map(error) }
}

/// What the kernel said, out of aya's error.
pub(crate) fn from_program(error: ProgramError) -> io::Error {
    if let ProgramError::SyscallError(error) = error { error.io_error } else { io::Error::other(error) }
}
