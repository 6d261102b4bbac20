//! The entry of a segment: one cache line, made of what is wanted and of the policies that stand behind it.

use std::collections::BTreeSet;

use aya::maps::{Array, IterableMap as _, MapData, MapError};
use hub_common::segment::{
    SEGMENT_DRAIN_REJECT, SEGMENT_GATED, SEGMENT_QUARANTINE, SEGMENT_SHAPED, STATE_ACTIVE, STATE_BLOCK,
    STATE_DRAIN, Segment as Entry,
};

use super::MapFault;
use super::segments::Live;
use super::standing::{Standing, Wish};
use crate::desired::SegmentState;
use crate::kernel::batch::Store;
use crate::model::SegmentId;

/// The entry of a segment with these policies.
pub(super) fn compose(
    live: Option<&Live>,
    standing: &Standing,
    wish: &Wish<'_>,
    held: &BTreeSet<SegmentId>,
) -> Entry {
    let Wish { segment, clock, id, .. } = wish;
    let transition = segment.transition.unwrap_or_default();
    let trial = segment.candidate.as_ref();
    let candidate = standing.candidate.as_ref().map_or(0, |slot| slot.built.word);
    let gated = transition.gate && candidate != 0;
    let is_seen = gated || trial.is_some_and(|trial| !trial.held);
    let flag = |set: bool, flag: u32| if set { flag } else { 0 };
    let same = |live: &&Live| live.persona.as_ref().is_none_or(|held| *held == segment.persona);
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
        // Until its rule is taken away, which comes after its segment changed, packets of its members say nothing about
        // the routes of others.
        routed: u32::from(segment.routed) | live.filter(same).map_or(0, |live| live.entry.routed),
        ..Entry::ZERO
    }
    .with_open(standing.open())
}

/// Whether two entries mean the same. Deadlines are recomputed from two clocks at every pass and may differ
/// by the tick in which they were read.
pub(super) fn close(a: &Entry, b: &Entry) -> bool {
    let rest = |entry: &Entry| Entry {
        expires_tick: 0,
        open_until_tick: 0,
        drain_tick: u64::from(entry.drain_tick != 0),
        lease_tick: u64::from(entry.lease_tick != 0),
        ..*entry
    };
    rest(a) == rest(b)
        && a.expires_tick.abs_diff(b.expires_tick) <= 1
        && a.drain_tick.abs_diff(b.drain_tick) <= 1
        && a.lease_tick.abs_diff(b.lease_tick) <= 1
}

/// Stores an entry.
pub(super) fn set(
    store: &Store<Entry>,
    map: &Array<MapData, Entry>,
    id: SegmentId,
    entry: Entry,
) -> Result<(), MapFault> {
    store.set(map.map(), id.0, &[entry]).map_err(|error| kernel(MapError::IoError(error)))
}

/// What the kernel said of the map.
pub(super) fn kernel(source: MapError) -> MapFault {
    MapFault::Kernel { map: "SEGMENTS", source }
}
