//! Detectors: sets that are never changed in place, and which set each segment has.
//!
//! Segments with equal settings share a set. A set that no segment has is used again after a grace period.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{Array, HashMap, IterableMap as _, MapData};
use hub_common::detect::{
    DetectionKey, Detector, DetectorSet, RESPONSE_ALERT, RESPONSE_DROP, RESPONSE_QUARANTINE, Setting as Entry,
};
use hub_common::limits::DETECTOR_SETS;

use super::slots::Slots;
use super::{MapFault, failure, fault, take};
use crate::desired::Desired;
use crate::desired::shared_map::SharedMap;
use crate::kernel::batch;
use crate::kernel::clock::Clock;
use crate::kernel::load::Capacities;
use crate::model::SegmentId;
use crate::model::detector::{Detectors, Response};
use crate::reconcile::Report;

const NAME: &str = "detectors";

/// The maps of detectors that the daemon writes.
pub struct DetectorMaps {
    sets: Array<MapData, DetectorSet>,
    watched: Array<MapData, u32>,
    fired: HashMap<MapData, DetectionKey, u64>,
    slots: Slots,
    /// Slot of each set in use.
    places: BTreeMap<Detectors, u32>,
    live: BTreeMap<SegmentId, Detectors>,
    /// Segments that an earlier run watched and this one did not yet put.
    found: BTreeSet<SegmentId>,
    /// Slots that packets may still read.
    retired: Vec<u32>,
}

impl DetectorMaps {
    /// Takes the maps of an object. Sets of an earlier run are kept until a pass has replaced them.
    pub fn new(ebpf: &mut Ebpf, capacities: &Capacities, adopted: bool) -> Result<Self, MapFault> {
        let watched: Array<_, u32> = take(ebpf, "WATCHED")?;
        let mut slots = Slots::new(1, DETECTOR_SETS);
        let (mut retired, mut found) = (Vec::new(), BTreeSet::new());
        if adopted {
            batch::range(watched.map(), 1, capacities.segments, |id, named: &[u32]| {
                for slot in named.iter().copied().filter(|slot| *slot != 0) {
                    found.insert(SegmentId(id));
                    retired.extend(slots.claim(slot, 1).then_some(slot));
                }
            })
            .map_err(fault("WATCHED"))?;
        }
        let (sets, fired) = (take(ebpf, "DETECTOR_SETS")?, take(ebpf, "DETECTIONS")?);
        let (places, live) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { sets, watched, fired, slots, places, live, found, retired })
    }

    /// Puts sets that are missing, and the words that lead to them.
    pub fn put(&mut self, wanted: &SharedMap<SegmentId, Detectors>, clock: &Clock) -> Report {
        let mut report = Report { table: NAME, ..Report::default() };
        for (id, detectors) in wanted {
            if self.live.get(id) == Some(detectors) {
                continue;
            }
            match self.put_one(*id, detectors, clock) {
                Ok(()) => report.put += 1,
                Err(error) => report.failures.extend(failure(NAME, &error).failures),
            }
        }
        report
    }

    fn put_one(&mut self, id: SegmentId, detectors: &Detectors, clock: &Clock) -> Result<(), MapFault> {
        let slot = if let Some(slot) = self.places.get(detectors) {
            *slot
        } else {
            let full = MapFault::Full { map: "DETECTOR_SETS", capacity: self.slots.capacity() };
            let slot = self.slots.take(1).ok_or(full)?;
            if let Err(source) = self.sets.set(slot, compile(detectors, clock), 0) {
                self.slots.give(slot, 1);
                return Err(MapFault::Kernel { map: "DETECTOR_SETS", source });
            }
            self.places.insert(detectors.clone(), slot);
            slot
        };
        self.watched.set(id.0, slot, 0).map_err(|source| MapFault::Kernel { map: "WATCHED", source })?;
        self.found.remove(&id);
        self.live.insert(id, detectors.clone());
        Ok(())
    }

    /// Forgets segments that are watched no more, and retires sets that nobody has.
    pub fn delete(&mut self, desired: &Desired) -> Report {
        let mut report = Report { table: NAME, ..Report::default() };
        let known = self.live.keys().chain(&self.found);
        let gone: Vec<SegmentId> = known.filter(|id| !desired.detectors.contains_key(id)).copied().collect();
        for id in gone {
            if let Err(source) = self.watched.set(id.0, 0, 0) {
                let error = MapFault::Kernel { map: "WATCHED", source };
                report.failures.extend(failure(NAME, &error).failures);
                continue;
            }
            self.live.remove(&id);
            self.found.remove(&id);
            report.deleted += 1;
            if !desired.segments.contains_key(&id) {
                self.forget_counts(id);
            }
        }
        let live: BTreeSet<&Detectors> = self.live.values().collect();
        let retired = &mut self.retired;
        self.places.retain(|detectors, slot| {
            let used = live.contains(detectors);
            if !used {
                retired.push(*slot);
            }
            used
        });
        report
    }

    /// Another persona may get the number.
    fn forget_counts(&mut self, id: SegmentId) {
        for detector in Detector::ALL {
            // Most never fired.
            drop(self.fired.remove(&DetectionKey { segment: id.0, detector: detector as u32 }));
        }
    }

    /// Whether slots wait for a grace period.
    pub fn has_retired(&self) -> bool {
        !self.retired.is_empty()
    }

    /// Frees retired slots; call after a grace period.
    pub fn reuse(&mut self) {
        for slot in self.retired.drain(..) {
            self.slots.give(slot, 1);
        }
    }
}

fn compile(detectors: &Detectors, clock: &Clock) -> DetectorSet {
    let ticks = |span: Duration| u32::try_from(clock.ticks(span)).unwrap_or(u32::MAX).max(1);
    let mut set = DetectorSet::ZERO;
    for (detector, setting) in detectors.iter() {
        let (response, quarantine_ticks) = match setting.response {
            Response::Alert => (RESPONSE_ALERT, 0),
            Response::Drop => (RESPONSE_DROP, 0),
            Response::Quarantine(ttl) => (RESPONSE_QUARANTINE, ticks(ttl)),
        };
        if let Some(place) = set.settings.get_mut(detector as usize) {
            let window_ticks = ticks(setting.window);
            *place = Entry { threshold: setting.threshold, window_ticks, response, quarantine_ticks };
        }
    }
    set
}
