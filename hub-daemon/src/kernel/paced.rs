//! Reads how long packets wait for their time of departure.

use std::collections::BTreeMap;

use hub_common::segment::policy_slot;
use nix::time::{ClockId, clock_gettime};

use super::maps::{Maps, at};
use super::reader::ReadError;
use crate::model::SegmentId;
use crate::view::Snapshot;

/// How long a packet that came at this moment would wait, in microseconds, by persona and direction; only
/// personas whose packets wait so.
pub(crate) fn waits(maps: &Maps, snapshot: &Snapshot) -> Result<BTreeMap<SegmentId, [u64; 2]>, ReadError> {
    let mut waits = BTreeMap::new();
    if !snapshot.qos.paces() {
        return Ok(waits);
    }
    let limited = snapshot.personas.values().filter(|persona| persona.definition.qos.is_some());
    for segment in limited.map(|persona| persona.segment) {
        let word = at(&maps.slots.segments, "SEGMENTS", segment.0)?.map_or(0, |entry| entry.policy);
        let slot = policy_slot(word);
        let Some(shape) = at(&maps.shapes, "SHAPES", slot)?.filter(|shape| slot != 0 && shape.paced != 0)
        else {
            continue;
        };
        let Some(state) = at(&maps.policers, "POLICERS", segment.0)? else { continue };
        let now = now_ns();
        let mut wait = [0; 2];
        for (direction, (wait, next)) in wait.iter_mut().zip(state.next_ns).enumerate() {
            if shape.paced >> direction & 1 != 0 {
                *wait = next.saturating_sub(now) / 1_000;
            }
        }
        waits.insert(segment, wait);
    }
    Ok(waits)
}

/// The clock of `bpf_ktime_get_ns`.
fn now_ns() -> u64 {
    let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC) else { return 0 };
    let seconds = u64::try_from(now.tv_sec()).unwrap_or_default();
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec()).unwrap_or_default())
}
