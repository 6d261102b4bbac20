//! Segments: the words that packets follow to policies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aya::Ebpf;
use aya::maps::{Array, IterableMap as _, MapData, MapError, PerCpuArray, PerCpuHashMap, PerCpuValues};
use hub_common::candidate::{CandidateHits, CandidateKey};
use hub_common::event::Reason;
use hub_common::open::OPEN_NONE;
use hub_common::segment::{
    SEGMENT_QUARANTINE, STATE_ACTIVE, STATE_BLOCK, STATE_DRAIN, STATE_EMPTY, Segment as Entry,
};
use hub_common::stats::{DropKey, Hits, SegmentCounters, WOULD_DROP};
use jiff::Timestamp;

use super::ends::Ends;
use super::policies::{Built, Policies};
use super::{MapFault, grace, take};
use crate::desired::shared_map::SharedMap;
use crate::desired::{Segment, SegmentState, Trial};
use crate::kernel::batch::Store;
use crate::kernel::clock::Clock;
use crate::kernel::load::Capacities;
use crate::model::policy::Policy;
use crate::model::{PersonaId, SegmentId};
use crate::reconcile::{Failure, Report};

const NAME: &str = "segments";
/// A far moment in seconds since 1970, whose tick says whether the wall clock was set.
const MARK_SECONDS: i64 = 7_258_118_400;

/// What a segment's entry holds.
struct Live {
    entry: Entry,
    built: Option<Built>,
    /// What the slots were built from; `None` for what an earlier run left.
    policy: Option<Arc<Policy>>,
    persona: Option<PersonaId>,
    /// The policy on trial and what it was built from.
    candidate: Option<Built>,
    trial: Option<Trial>,
    ends: Ends,
}

/// The segment map with the policies behind it.
pub struct Segments {
    map: Array<MapData, Entry>,
    /// Packets follow a word of an entry, so its words are written in order behind what they lead to.
    store: Store<Entry>,
    counters: PerCpuArray<MapData, SegmentCounters>,
    drops: PerCpuHashMap<MapData, DropKey, Hits>,
    flows_begun: PerCpuArray<MapData, [u64; 2]>,
    answers: PerCpuHashMap<MapData, CandidateKey, CandidateHits>,
    policies: Policies,
    live: BTreeMap<SegmentId, Live>,
    /// What every segment was made equal to, and the clock's mark then; `None` if one of them was not.
    settled: Option<(SharedMap<SegmentId, Segment>, u64)>,
    /// Every number from here on was never a segment's, so nothing was counted for it.
    unused: u32,
    cpus: usize,
}

impl Segments {
    /// Takes the maps of an object and reads the segments that an earlier run left.
    pub fn new(ebpf: &mut Ebpf, capacities: &Capacities, adopted: bool) -> Result<Self, MapFault> {
        let map: Array<_, Entry> = take(ebpf, "SEGMENTS")?;
        let mut found = BTreeMap::new();
        if adopted {
            for id in 1..=capacities.segments {
                let entry = map.get(&id, 0).map_err(|source| MapFault::Kernel { map: "SEGMENTS", source })?;
                if entry.state != STATE_EMPTY {
                    found.insert(SegmentId(id), entry);
                }
            }
        }
        let words = found
            .iter()
            .flat_map(|(id, entry): (_, &Entry)| [(*id, entry.policy), (*id, entry.candidate)])
            .filter(|(_, word)| *word != 0);
        let policies = Policies::new(ebpf, words, adopted)?;
        let live = found
            .into_iter()
            .map(|(id, entry)| {
                let candidate = (entry.candidate != 0).then(|| policies.find(entry.candidate)).flatten();
                let built = policies.find(entry.policy);
                let ends = Ends::default();
                (id, Live { built, entry, policy: None, persona: None, candidate, trial: None, ends })
            })
            .collect();
        let cpus = aya::util::nr_cpus()
            .map_err(|(_, source)| MapFault::Kernel { map: "COUNTERS", source: source.into() })?;
        let counters = take(ebpf, "COUNTERS")?;
        let (drops, flows_begun) = (take(ebpf, "DROPS")?, take(ebpf, "FLOWS_BEGUN")?);
        let answers = take(ebpf, "CANDIDATE_HITS")?;
        let unused = if adopted { u32::MAX } else { 0 };
        let settled = None;
        let store = Store::open(map.map());
        Ok(Self { map, store, counters, drops, flows_begun, answers, policies, live, settled, unused, cpus })
    }

    /// Segments that are no longer to look for addresses in quarantine.
    pub fn stop_quarantine(&self, wanted: &SharedMap<SegmentId, Segment>) -> BTreeSet<SegmentId> {
        let asks = |flags: u32| flags & SEGMENT_QUARANTINE != 0;
        let looking = self.live.iter().filter(|(_, live)| asks(live.entry.flags)).map(|(id, _)| *id);
        looking.filter(|id| wanted.get(id).is_some_and(|segment| !asks(segment.flags))).collect()
    }

    /// Puts segments that are missing or different. One store changes a segment's policy. Segments in `held`
    /// have addresses in quarantine, and go on looking for them whatever their rules say by now. Those that are
    /// as the last pass wanted them are looked at only if the clock was set since.
    pub fn put(
        &mut self,
        wanted: &SharedMap<SegmentId, Segment>,
        held: &BTreeSet<SegmentId>,
        clock: &Clock,
        failed: &mut BTreeSet<PersonaId>,
    ) -> Report {
        let mut report = Report { table: NAME, ..Report::default() };
        let mark = clock.deadline_tick(Timestamp::from_second(MARK_SECONDS).ok());
        let settled = self.settled.take().filter(|(_, before)| before.abs_diff(mark) <= 1);
        let mark = settled.as_ref().map_or(mark, |(_, before)| *before);
        let mut order: Vec<_> = match &settled {
            None => wanted.iter().collect(),
            Some((before, _)) => {
                let changed = before.changes(wanted).filter_map(|(id, _, segment)| Some((id, segment?)));
                let stopping = self.stop_quarantine(wanted);
                let stopping = wanted.iter().filter(|(id, _)| !stopping.is_empty() && stopping.contains(id));
                changed.chain(stopping).collect()
            }
        };
        // What ends first has the least time to lose.
        order.sort_by_key(|(_, segment)| (segment.expires.is_none(), segment.expires));
        for (id, segment) in order {
            let kept = if held.contains(id) { self.quarantine_flag(*id) } else { 0 };
            match self.put_one(*id, segment, kept, clock) {
                Ok(changed) => report.put += usize::from(changed),
                Err(error) => {
                    failed.insert(segment.persona.clone());
                    report.failures.push(Failure {
                        object: format!("segment {id}"),
                        error: error.to_string(),
                        persona: Some(segment.persona.clone()),
                    });
                }
            }
        }
        self.settled = report.failures.is_empty().then(|| (wanted.clone(), mark));
        report
    }

    fn quarantine_flag(&self, id: SegmentId) -> u32 {
        self.live.get(&id).map_or(0, |live| live.entry.flags & SEGMENT_QUARANTINE)
    }

    /// Whether a persona had routes of its own: its rule is taken away after its segment changed, and until then
    /// packets of its members say nothing about the routes of others.
    fn kept_routed(&self, id: SegmentId, persona: &PersonaId) -> u32 {
        let same = |live: &&Live| live.persona.as_ref().is_none_or(|held| held == persona);
        self.live.get(&id).filter(same).map_or(0, |live| live.entry.routed)
    }

    fn put_one(
        &mut self,
        id: SegmentId,
        segment: &Segment,
        kept_flags: u32,
        clock: &Clock,
    ) -> Result<bool, MapFault> {
        let live = self.live.get(&id);
        let same_policy = live
            .and_then(|live| live.policy.as_ref())
            .is_some_and(|policy| Arc::ptr_eq(policy, &segment.policy) || *policy == segment.policy);
        // Deadlines of rules are compiled in: a step of the clock makes another policy of the same one.
        let ends = Ends::new(&segment.policy, clock);
        let same_policy = same_policy && live.is_some_and(|live| live.ends.is_close(&ends));
        // The deadlines that the policy was built with, not those of this moment: drift must not add up.
        let kept_ends = live.filter(|_| same_policy).map(|live| live.ends.clone());
        let built = match live {
            Some(live) if same_policy => live.built,
            _ => Some(self.policies.build(id, &segment.policy, &ends, clock)?),
        };
        let same_candidate = live.is_some_and(|live| live.trial == segment.candidate)
            && live.is_some_and(|live| live.policy.is_some());
        let candidate = match (live, &segment.candidate) {
            (Some(live), _) if same_candidate => live.candidate,
            (Some(Live { policy: Some(_), entry, .. }), Some(trial)) => {
                self.end_candidate(id, *entry)?;
                self.build_candidate(id, &trial.policy, clock)
            }
            // One that an earlier run left goes on with its counts.
            (_, Some(trial)) => self.build_candidate(id, &trial.policy, clock),
            (_, None) => None,
        };
        let entry = Entry {
            candidate: candidate.map_or(0, |built| built.word),
            expires_tick: clock.deadline_tick(segment.expires),
            policy: built.map_or(0, |built| built.word),
            state: match segment.state {
                SegmentState::Active => STATE_ACTIVE,
                SegmentState::Drain => STATE_DRAIN,
                SegmentState::Block => STATE_BLOCK,
            },
            flags: segment.flags | kept_flags,
            drain_tick: segment.drains.map_or(0, |drains| clock.deadline_tick(Some(drains)).max(1)),
            set_generation: segment.set_generation,
            routed: u32::from(segment.routed) | self.kept_routed(id, &segment.persona),
            ..Entry::ZERO
        }
        .with_open(built.map_or([OPEN_NONE; 4], |built| built.open));
        let live = self.live.get(&id);
        if live.is_some_and(|live| same_policy && close(&live.entry, &entry)) {
            return Ok(false);
        }
        let is_new =
            live.is_none_or(|live| live.persona.as_ref().is_some_and(|persona| *persona != segment.persona));
        let was_used = id.0 < self.unused;
        self.unused = self.unused.max(id.0.saturating_add(1));
        let counted = if is_new && was_used { self.forget_counts(id) } else { Ok(()) };
        let stored = counted.and_then(|()| self.set(id, entry));
        if let Err(error) = stored {
            let unused = [built.filter(|_| !same_policy), candidate.filter(|_| !same_candidate)];
            unused.into_iter().flatten().for_each(|built| self.policies.retire(built));
            return Err(error);
        }
        let now = Live {
            entry,
            built,
            policy: Some(Arc::clone(&segment.policy)),
            persona: Some(segment.persona.clone()),
            candidate,
            trial: segment.candidate.clone(),
            ends: kept_ends.unwrap_or(ends),
        };
        if let Some(old) = self.live.insert(id, now) {
            let gone = [old.built.filter(|_| !same_policy), old.candidate.filter(|_| !same_candidate)];
            gone.into_iter().flatten().for_each(|built| self.policies.retire(built));
        }
        Ok(true)
    }

    fn set(&self, id: SegmentId, entry: Entry) -> Result<(), MapFault> {
        let stored = self.store.set(self.map.map(), id.0, &[entry]);
        stored.map_err(|error| MapFault::Kernel { map: "SEGMENTS", source: MapError::IoError(error) })
    }

    /// Builds a policy on trial. Without room there is no trial, and the persona is as well off as before.
    fn build_candidate(&mut self, id: SegmentId, policy: &Policy, clock: &Clock) -> Option<Built> {
        self.policies
            .build_on_trial(policy, clock)
            .inspect_err(|error| tracing::warn!(segment = %id, %error, "candidate is not judged"))
            .ok()
    }

    /// Makes room for another candidate: no packet is judged by the old one when its counts go.
    fn end_candidate(&mut self, id: SegmentId, entry: Entry) -> Result<(), MapFault> {
        if entry.candidate != 0 {
            let without = Entry { candidate: 0, ..entry };
            self.set(id, without)?;
            grace::wait();
        }
        self.forget_answers(id);
        Ok(())
    }

    /// Counts of a candidate begin at zero.
    fn forget_answers(&mut self, id: SegmentId) {
        let keys: Vec<CandidateKey> =
            self.answers.keys().flatten().filter(|key| key.segment == id.0).collect();
        for key in keys {
            // Gone already is as good.
            drop(self.answers.remove(&key));
        }
    }

    /// Counters of a number that another persona had begin at zero.
    fn forget_counts(&mut self, id: SegmentId) -> Result<(), MapFault> {
        self.forget_answers(id);
        let zeros = PerCpuValues::try_from(vec![SegmentCounters::ZERO; self.cpus])
            .map_err(|source| MapFault::Kernel { map: "COUNTERS", source: source.into() })?;
        self.counters.set(id.0, zeros, 0).map_err(|source| MapFault::Kernel { map: "COUNTERS", source })?;
        let zeros = PerCpuValues::try_from(vec![[0; 2]; self.cpus])
            .map_err(|source| MapFault::Kernel { map: "FLOWS_BEGUN", source: source.into() })?;
        self.flows_begun
            .set(id.0, zeros, 0)
            .map_err(|source| MapFault::Kernel { map: "FLOWS_BEGUN", source })?;
        for reason in Reason::ALL {
            for direction in 0..2 * WOULD_DROP {
                let key = DropKey { segment: id.0, reason: *reason as u16, direction };
                // Most were never made.
                drop(self.drops.remove(&key));
            }
        }
        Ok(())
    }

    /// Empties segments that are no longer wanted.
    pub fn delete(&mut self, wanted: &SharedMap<SegmentId, Segment>) -> Report {
        let mut report = Report { table: NAME, ..Report::default() };
        // Every segment that is wanted is there after a pass without failures.
        if self.settled.is_some() && self.live.len() == wanted.len() {
            return report;
        }
        let gone: Vec<SegmentId> = self.live.keys().filter(|id| !wanted.contains_key(id)).copied().collect();
        for id in gone {
            match self.set(id, Entry::ZERO) {
                Ok(()) => {
                    report.deleted += 1;
                    self.policies.forget(id);
                    if let Some(Live { built, candidate, .. }) = self.live.remove(&id) {
                        let gone = [built, candidate].into_iter().flatten();
                        gone.for_each(|built| self.policies.retire(built));
                    }
                }
                Err(error) => report.failures.push(Failure {
                    object: format!("segment {id}"),
                    error: error.to_string(),
                    persona: None,
                }),
            }
        }
        report
    }

    /// Whether packets meet this segment as a persona's: also when its last change failed.
    pub fn holds(&self, id: SegmentId, persona: &PersonaId) -> bool {
        self.live.get(&id).is_some_and(|live| live.persona.as_ref().is_none_or(|held| held == persona))
    }

    /// Names segments that nobody wants.
    pub fn orphans(&self, wanted: &SharedMap<SegmentId, Segment>) -> Vec<String> {
        let unwanted = self.live.keys().filter(|id| !wanted.contains_key(id));
        unwanted.map(|id| format!("segment {id}")).collect()
    }

    /// Whether there is a segment of this number.
    pub fn has(&self, id: SegmentId) -> bool {
        self.live.contains_key(&id)
    }

    /// Whether slots wait for a grace period.
    pub fn has_retired(&self) -> bool {
        self.policies.has_retired()
    }

    /// Frees retired slots; call after a grace period.
    pub fn reuse(&mut self) {
        self.policies.reuse();
    }
}

/// Whether two entries mean the same. Deadlines are recomputed from two clocks at every pass and may differ
/// by the tick in which they were read.
fn close(a: &Entry, b: &Entry) -> bool {
    let rest = |entry: &Entry| Entry {
        expires_tick: 0,
        open_until_tick: 0,
        drain_tick: u64::from(entry.drain_tick != 0),
        ..*entry
    };
    rest(a) == rest(b)
        && a.expires_tick.abs_diff(b.expires_tick) <= 1
        && a.drain_tick.abs_diff(b.drain_tick) <= 1
}
