//! Segments: the words that packets follow to policies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aya::Ebpf;
use aya::maps::{Array, IterableMap as _, MapData, PerCpuArray, PerCpuHashMap, PerCpuValues};
use hub_common::candidate::{CandidateHits, CandidateKey};
use hub_common::event::Reason;
use hub_common::segment::{SEGMENT_QUARANTINE, SEGMENT_SHAPED, STATE_EMPTY, Segment as Entry};
use hub_common::stats::{DropKey, Hits, SegmentCounters, WOULD_DROP};
use jiff::Timestamp;

use super::entry::{close, compose, set};
use super::policies::Policies;
use super::shapes::compiled;
use super::standing::{Slot, Standing, Wish};
use super::{MapFault, fault, grace, take};
use crate::desired::queues::Shape;
use crate::desired::shared_map::SharedMap;
use crate::desired::{Desired, Segment, Trial};
use crate::kernel::batch::{self, Store};
use crate::kernel::clock::Clock;
use crate::kernel::load::Capacities;
use crate::model::{PersonaId, SegmentId};
use crate::reconcile::{Failure, Report};

const NAME: &str = "segments";
/// A far moment in seconds since 1970, whose tick says whether the wall clock was set.
const MARK_SECONDS: i64 = 7_258_118_400;

/// What a segment's entry holds.
pub(super) struct Live {
    pub(super) entry: Entry,
    /// Its policies; `None` for one without, which an earlier run may have left.
    pub(super) standing: Standing,
    pub(super) persona: Option<PersonaId>,
    trial: Option<Trial>,
    /// Flags of the entry that hold once no packet is on its way.
    flags: u32,
}

/// What every segment was made equal to, and the clock's mark then.
struct Settled {
    segments: SharedMap<SegmentId, Segment>,
    shapes: [SharedMap<SegmentId, Shape>; 2],
    mark: u64,
}

/// The segment map with the policies behind it.
pub struct Segments {
    map: Array<MapData, Entry>,
    /// Packets follow a word of an entry, so its words are written in order behind what they lead to.
    store: Store<Entry>,
    counters: PerCpuArray<MapData, SegmentCounters>,
    drops: PerCpuHashMap<MapData, DropKey, Hits>,
    flows_begun: PerCpuArray<MapData, [u64; 3]>,
    answers: PerCpuHashMap<MapData, CandidateKey, CandidateHits>,
    policies: Policies,
    live: BTreeMap<SegmentId, Live>,
    /// Segments that lose flags after a grace period.
    late: BTreeSet<SegmentId>,
    /// `None` if one of them was not.
    settled: Option<Settled>,
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
            batch::range(map.map(), 1, capacities.segments, |id, entries: &[Entry]| {
                let used = entries.first().filter(|entry| entry.state != STATE_EMPTY);
                found.extend(used.map(|entry| (SegmentId(id), *entry)));
            })
            .map_err(fault("SEGMENTS"))?;
        }
        let words = found.iter().flat_map(|(id, entry)| {
            (0..).zip(Standing::words(entry)).map(|(series, word)| ((*id, series), word))
        });
        let policies = Policies::new(ebpf, words.filter(|(_, word)| *word != 0), adopted)?;
        let live = found
            .into_iter()
            .map(|(id, entry)| {
                let standing = Standing::found(&entry, |word| policies.find(word));
                (id, Live { standing, entry, persona: None, trial: None, flags: entry.flags })
            })
            .collect();
        let cpus = aya::util::nr_cpus()
            .map_err(|(_, source)| MapFault::Kernel { map: "COUNTERS", source: source.into() })?;
        let counters = take(ebpf, "COUNTERS")?;
        let (drops, flows_begun) = (take(ebpf, "DROPS")?, take(ebpf, "FLOWS_BEGUN")?);
        let answers = take(ebpf, "CANDIDATE_HITS")?;
        let unused = if adopted { u32::MAX } else { 0 };
        let store = Store::open(map.map());
        Ok(Self {
            map,
            store,
            counters,
            drops,
            flows_begun,
            answers,
            policies,
            live,
            late: BTreeSet::new(),
            settled: None,
            unused,
            cpus,
        })
    }

    /// Segments that are no longer to look for addresses in quarantine.
    pub fn stop_quarantine(&self, wanted: &SharedMap<SegmentId, Segment>) -> BTreeSet<SegmentId> {
        let asks = |flags: u32| flags & SEGMENT_QUARANTINE != 0;
        let looking = self.live.iter().filter(|(_, live)| asks(live.entry.flags)).map(|(id, _)| *id);
        looking.filter(|id| wanted.get(id).is_some_and(|segment| !asks(segment.flags))).collect()
    }

    /// Puts segments that are missing or different. One store changes a segment's policy, with everything that hangs
    /// on it. Segments in `held` have addresses in quarantine, and go on looking for them whatever their rules say by
    /// now. Those that are as the last pass wanted them are looked at only if the clock was set since.
    pub fn put(
        &mut self,
        desired: &Desired,
        held: &BTreeSet<SegmentId>,
        clock: &Clock,
        failed: &mut BTreeSet<PersonaId>,
    ) -> Report {
        let mut report = Report { table: NAME, ..Report::default() };
        self.announce_shapes(desired);
        let wanted = &desired.segments;
        let mark = clock.deadline_tick(Timestamp::from_second(MARK_SECONDS).ok());
        let shapes = [desired.shapes.clone(), desired.trial_shapes.clone()];
        let settled = self.settled.take();
        let settled = settled.filter(|before| before.mark.abs_diff(mark) <= 1 && before.shapes == shapes);
        let mark = settled.as_ref().map_or(mark, |before| before.mark);
        let mut order: Vec<_> = match &settled {
            None => wanted.iter().collect(),
            Some(before) => {
                let changed = before.segments.changes(wanted);
                let changed = changed.filter_map(|(id, _, segment)| Some((id, segment?)));
                let stopping = self.stop_quarantine(wanted);
                let stopping = wanted.iter().filter(|(id, _)| !stopping.is_empty() && stopping.contains(id));
                changed.chain(stopping).collect()
            }
        };
        // What ends first has the least time to lose.
        order.sort_by_key(|(_, segment)| (segment.expires.is_none(), segment.expires));
        for (id, segment) in order {
            match self.put_one(*id, desired, segment, held, clock) {
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
        let segments = wanted.clone();
        self.settled = report.failures.is_empty().then_some(Settled { segments, shapes, mark });
        report
    }

    /// Changes over segments whose policies on trial became the wanted ones, and says which.
    /// What fails here fails in [`Self::put`] again, which reports it.
    pub fn flip(&mut self, desired: &Desired, held: &BTreeSet<SegmentId>, clock: &Clock) -> Vec<SegmentId> {
        let turns = self.live.iter().filter_map(|(id, live)| {
            let segment = desired.segments.get(id)?;
            let is_other = |slot: &Arc<Slot>| slot.is(&segment.policy);
            let turns = live.standing.candidate.as_ref().is_some_and(is_other)
                && !live.standing.live.as_ref().is_some_and(is_other);
            turns.then_some((*id, segment))
        });
        let turns: Vec<_> = turns.collect();
        let mut flipped = Vec::new();
        for (id, segment) in turns {
            if self.put_one(id, desired, segment, held, clock).is_ok_and(|changed| changed) {
                flipped.push(id);
            }
        }
        flipped
    }

    /// Has packets of segments that had no shape look for one, before a policy comes that has one: nobody meets its
    /// rules without it.
    fn announce_shapes(&mut self, desired: &Desired) {
        let mut announced = false;
        for id in desired.shapes.keys() {
            let Some(live) = self.live.get_mut(id).filter(|live| live.entry.flags & SEGMENT_SHAPED == 0)
            else {
                continue;
            };
            let entry = Entry { flags: live.entry.flags | SEGMENT_SHAPED, ..live.entry };
            let entry = entry.with_open(live.standing.open());
            if set(&self.store, &self.map, *id, entry).is_ok() {
                live.entry = entry;
                announced = true;
            }
        }
        if announced {
            grace::wait();
        }
    }

    fn put_one(
        &mut self,
        id: SegmentId,
        desired: &Desired,
        segment: &Segment,
        held: &BTreeSet<SegmentId>,
        clock: &Clock,
    ) -> Result<bool, MapFault> {
        let live = self.live.get(&id);
        let none = Standing::default();
        let before = live.map_or(&none, |live| &live.standing);
        let same_trial = live.is_some_and(|live| live.trial == segment.candidate);
        // One that an earlier run left goes on with its counts.
        let counted = before.live.as_ref().is_some_and(|slot| slot.policy.is_some());
        let wish = Wish {
            id,
            segment,
            shape: compiled(id, desired.shapes.get(&id)),
            trial_shape: compiled(id, desired.trial_shapes.get(&id)),
            same_trial: same_trial && counted,
            clock,
        };
        let (standing, built) = before.next(&mut self.policies, &wish)?;
        let entry = compose(live, &standing, &wish, held);
        let same_slots = *before == standing;
        if live.is_some_and(|live| same_slots && wish.same_trial && close(&live.entry, &entry)) {
            return Ok(false);
        }
        let old = live.map(|live| live.entry);
        let is_new =
            live.is_none_or(|live| live.persona.as_ref().is_some_and(|persona| *persona != segment.persona));
        let was_used = id.0 < self.unused;
        self.unused = self.unused.max(id.0.saturating_add(1));
        let begins =
            segment.candidate.as_ref().is_some_and(|trial| !trial.held) && !wish.same_trial && counted;
        let forgotten = if is_new && was_used { self.forget_counts(id) } else { Ok(()) };
        let ended =
            forgotten.and_then(|()| old.filter(|_| begins).map_or(Ok(()), |old| self.end_candidate(id, old)));
        if let Err(error) = ended.and_then(|()| set(&self.store, &self.map, id, entry)) {
            for slot in built {
                self.policies.retire(slot.built);
            }
            return Err(error);
        }
        let flags = if entry.flags & SEGMENT_SHAPED != 0 && !standing.is_shaped() {
            self.late.insert(id);
            (entry.flags & !SEGMENT_SHAPED) | segment.flags
        } else {
            entry.flags
        };
        if !same_slots {
            self.policies.keep(id, &standing.policies());
        }
        let now = Live {
            entry,
            standing,
            persona: Some(segment.persona.clone()),
            trial: segment.candidate.clone(),
            flags,
        };
        if let Some(Live { standing: before, .. }) = self.live.get(&id) {
            for slot in before.without(&now.standing) {
                self.policies.retire(slot.built);
            }
        }
        self.live.insert(id, now);
        Ok(true)
    }

    /// Makes room for another candidate: no packet is judged by the old one when its counts go.
    fn end_candidate(&mut self, id: SegmentId, entry: Entry) -> Result<(), MapFault> {
        if entry.judged() != 0 {
            let without = Entry { candidate: 0, ..entry };
            set(&self.store, &self.map, id, without)?;
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
        let zeros = PerCpuValues::try_from(vec![[0; 3]; self.cpus])
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
            match set(&self.store, &self.map, id, Entry::ZERO) {
                Ok(()) => {
                    report.deleted += 1;
                    self.policies.forget(id);
                    if let Some(Live { standing, .. }) = self.live.remove(&id) {
                        let gone = standing.without(&Standing::default());
                        for slot in gone {
                            self.policies.retire(slot.built);
                        }
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
        self.policies.has_retired() || !self.late.is_empty()
    }

    /// Frees retired slots, and has packets no longer look for what went with them; call after a grace period.
    pub fn reuse(&mut self) {
        self.policies.reuse();
        for id in std::mem::take(&mut self.late) {
            let Some(live) = self.live.get_mut(&id) else { continue };
            let entry = Entry { flags: live.flags, ..live.entry }.with_open(live.standing.open());
            if set(&self.store, &self.map, id, entry).is_ok() {
                live.entry = entry;
            }
        }
    }
}
