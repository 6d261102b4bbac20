//! Segments: the words that packets follow to policies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{Array, MapData, PerCpuArray, PerCpuHashMap, PerCpuValues};
use hub_common::candidate::{CandidateHits, CandidateKey};
use hub_common::event::Reason;
use hub_common::segment::{
    SEGMENT_DRAIN_REJECT, SEGMENT_GATED, SEGMENT_QUARANTINE, SEGMENT_SHAPED, STATE_ACTIVE, STATE_BLOCK,
    STATE_DRAIN, STATE_EMPTY, Segment as Entry,
};
use hub_common::stats::{DropKey, Hits, SegmentCounters, WOULD_DROP};

use super::policies::Policies;
use super::shapes::compiled;
use super::standing::{Slot, Standing, Wish};
use super::{MapFault, grace, take};
use crate::desired::{Desired, Segment, SegmentState, Trial};
use crate::kernel::clock::Clock;
use crate::kernel::load::Capacities;
use crate::model::{PersonaId, SegmentId};
use crate::reconcile::{Failure, Report};

const NAME: &str = "segments";

/// What a segment's entry holds.
struct Live {
    entry: Entry,
    /// Its policies; `None` for one without, which an earlier run may have left.
    standing: Standing,
    persona: Option<PersonaId>,
    trial: Option<Trial>,
    /// Flags of the entry that hold once no packet is on its way.
    flags: u32,
}

/// The segment map with the policies behind it.
pub struct Segments {
    map: Array<MapData, Entry>,
    counters: PerCpuArray<MapData, SegmentCounters>,
    drops: PerCpuHashMap<MapData, DropKey, Hits>,
    flows_begun: PerCpuArray<MapData, [u64; 3]>,
    answers: PerCpuHashMap<MapData, CandidateKey, CandidateHits>,
    policies: Policies,
    live: BTreeMap<SegmentId, Live>,
    /// Segments that lose flags after a grace period.
    late: BTreeSet<SegmentId>,
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
                let entry = map.get(&id, 0).map_err(kernel)?;
                if entry.state != STATE_EMPTY {
                    found.insert(SegmentId(id), entry);
                }
            }
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
        let late = BTreeSet::new();
        Ok(Self { map, counters, drops, flows_begun, answers, policies, live, late, unused, cpus })
    }

    /// Whether a segment is no longer to look for addresses in quarantine.
    pub fn stop_quarantine(&self, wanted: &BTreeMap<SegmentId, Segment>) -> bool {
        let asks = |flags: u32| flags & SEGMENT_QUARANTINE != 0;
        self.live.iter().any(|(id, live)| {
            asks(live.entry.flags) && wanted.get(id).is_some_and(|segment| !asks(segment.flags))
        })
    }

    /// Puts segments that are missing or different. One store changes a segment's policy, with everything that hangs
    /// on it. Segments in `held` have addresses in quarantine, and go on looking for them whatever their rules say by
    /// now.
    pub fn put(
        &mut self,
        desired: &Desired,
        held: &BTreeSet<SegmentId>,
        clock: &Clock,
        failed: &mut BTreeSet<PersonaId>,
    ) -> Report {
        let mut report = Report { table: NAME, ..Report::default() };
        self.announce_shapes(desired);
        // What ends first has the least time to lose.
        let mut order: Vec<_> = desired.segments.iter().collect();
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
        report
    }

    /// Changes over segments whose policies on trial became the wanted ones, and says how long each store took.
    /// What fails here fails in [`Self::put`] again, which reports it.
    pub fn flip(
        &mut self,
        desired: &Desired,
        held: &BTreeSet<SegmentId>,
        clock: &Clock,
    ) -> Vec<(SegmentId, Duration)> {
        let turns = self.live.iter().filter_map(|(id, live)| {
            let segment = desired.segments.get(id)?;
            let is_other = |slot: &Arc<Slot>| slot.is(&segment.policy);
            let turns = live.standing.candidate.as_ref().is_some_and(is_other)
                && !live.standing.live.as_ref().is_some_and(is_other);
            turns.then_some((*id, segment))
        });
        let turns: Vec<_> = turns.collect();
        let mut took = Vec::new();
        for (id, segment) in turns {
            let begun = tokio::time::Instant::now();
            if self.put_one(id, desired, segment, held, clock).is_ok_and(|changed| changed) {
                took.push((id, begun.elapsed()));
            }
        }
        took
    }

    /// Has packets of segments that had no shape look for one, before a policy comes that has one: nobody meets its
    /// rules without it.
    fn announce_shapes(&mut self, desired: &Desired) {
        let mut announced = false;
        for (id, live) in &mut self.live {
            let comes = live.entry.flags & SEGMENT_SHAPED == 0 && desired.shapes.contains_key(id);
            let entry = Entry { flags: live.entry.flags | SEGMENT_SHAPED, ..live.entry };
            if comes && self.map.set(id.0, entry, 0).is_ok() {
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
        if let Err(error) = ended.and_then(|()| self.map.set(id.0, entry, 0).map_err(kernel)) {
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
            self.map.set(id.0, without, 0).map_err(kernel)?;
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
    pub fn delete(&mut self, wanted: &BTreeMap<SegmentId, Segment>) -> Report {
        let mut report = Report { table: NAME, ..Report::default() };
        let gone: Vec<SegmentId> = self.live.keys().filter(|id| !wanted.contains_key(id)).copied().collect();
        for id in gone {
            match self.map.set(id.0, Entry::ZERO, 0) {
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
                Err(source) => report.failures.push(Failure {
                    object: format!("segment {id}"),
                    error: MapFault::Kernel { map: "SEGMENTS", source }.to_string(),
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
    pub fn orphans(&self, wanted: &BTreeMap<SegmentId, Segment>) -> Vec<String> {
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
            let entry = Entry { flags: live.flags, ..live.entry };
            if self.map.set(id.0, entry, 0).is_ok() {
                live.entry = entry;
            }
        }
    }
}

/// The entry of a segment with these policies.
fn compose(live: Option<&Live>, standing: &Standing, wish: &Wish<'_>, held: &BTreeSet<SegmentId>) -> Entry {
    let Wish { segment, clock, id, .. } = wish;
    let transition = segment.transition.unwrap_or_default();
    let trial = segment.candidate.as_ref();
    let candidate = standing.candidate.as_ref().map_or(0, |slot| slot.built.word);
    let gated = transition.gate && candidate != 0;
    let is_seen = gated || trial.is_some_and(|trial| !trial.held);
    let flag = |set: bool, flag: u32| if set { flag } else { 0 };
    let had = |flag: u32| live.map_or(0, |live| live.entry.flags & flag);
    // What a policy that is leaving has is looked for until no packet is on its way with it.
    let shaped = flag(standing.is_shaped(), SEGMENT_SHAPED)
        | flag(live.is_some_and(|live| live.standing.is_shaped()), had(SEGMENT_SHAPED));
    Entry {
        candidate: if is_seen { candidate } else { 0 },
        expires_tick: clock.deadline_tick(segment.expires),
        policy: standing.live.as_ref().map_or(0, |slot| slot.built.word),
        state: match segment.state {
            SegmentState::Active if transition.refuse_all => STATE_DRAIN,
            SegmentState::Active => STATE_ACTIVE,
            SegmentState::Drain => STATE_DRAIN,
            SegmentState::Block => STATE_BLOCK,
        },
        flags: segment.flags
            | shaped
            | flag(held.contains(id), had(SEGMENT_QUARANTINE))
            | flag(gated, SEGMENT_GATED)
            | flag(transition.reject, SEGMENT_DRAIN_REJECT),
        drain_tick: segment.drains.map_or(0, |drains| clock.deadline_tick(Some(drains)).max(1)),
        set_generation: segment.set_generation,
        lease_policy: standing.lease.as_ref().map_or(0, |slot| slot.built.word),
        lease_tick: segment.lease.as_ref().map_or(0, |lease| clock.deadline_tick(Some(lease.until)).max(1)),
    }
}

/// Whether two entries mean the same. Deadlines are recomputed from two clocks at every pass and may differ
/// by the tick in which they were read.
fn close(a: &Entry, b: &Entry) -> bool {
    let rest = |entry: &Entry| Entry {
        expires_tick: 0,
        drain_tick: u64::from(entry.drain_tick != 0),
        lease_tick: u64::from(entry.lease_tick != 0),
        ..*entry
    };
    rest(a) == rest(b)
        && a.expires_tick.abs_diff(b.expires_tick) <= 1
        && a.drain_tick.abs_diff(b.drain_tick) <= 1
        && a.lease_tick.abs_diff(b.lease_tick) <= 1
}

fn kernel(source: aya::maps::MapError) -> MapFault {
    MapFault::Kernel { map: "SEGMENTS", source }
}
