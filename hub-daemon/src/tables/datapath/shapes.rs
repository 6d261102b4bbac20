//! What the data path gives to packets of each segment beside a verdict: class, code point, hard cap.
//!
//! A shape is an immutable value: the other of a segment's two slots is written, then one word says which is
//! live. A pass that did so waits for a grace period before the next may write again.

use std::collections::BTreeMap;

use aya::Ebpf;
use aya::maps::{Array, MapData, PerCpuHashMap};
use hub_common::shape::{self, Histogram, SHAPED_SEGMENTS, Shape as Entry, ShapeSlot};

use super::{MapFault, failure, take};
use crate::desired::queues::Shape;
use crate::desired::shared_map::SharedMap;
use crate::kernel::load::Capacities;
use crate::model::SegmentId;
use crate::reconcile::Report;

const NAME: &str = "shapes";
/// A cap may be this far ahead of its rate: what a rate allows in this time may come at once.
const BURST_NS: u64 = 20_000_000;

/// The maps of shapes.
pub struct Shapes {
    map: Array<MapData, Entry>,
    slots: Array<MapData, ShapeSlot>,
    times: PerCpuHashMap<MapData, u32, Histogram>,
    live: BTreeMap<SegmentId, (u32, Entry)>,
    retired: bool,
}

impl Shapes {
    /// Takes the maps of an object and reads what an earlier run left.
    pub fn new(ebpf: &mut Ebpf, capacities: &Capacities, adopted: bool) -> Result<Self, MapFault> {
        let map: Array<_, Entry> = take(ebpf, "SHAPES")?;
        let slots: Array<_, ShapeSlot> = take(ebpf, "SHAPE_SLOTS")?;
        let mut live = BTreeMap::new();
        for segment in (1..=capacities.segments).filter(|_| adopted) {
            let slot = slots.get(&segment, 0).map_err(|source| kernel("SHAPE_SLOTS", source))?.index;
            if slot != 0 {
                let entry = map.get(&slot, 0).map_err(|source| kernel("SHAPES", source))?;
                live.insert(SegmentId(segment), (slot, entry));
            }
        }
        Ok(Self { map, slots, times: take(ebpf, "RTTS")?, live, retired: false })
    }

    /// Puts shapes that are missing or different.
    pub fn put(&mut self, wanted: &SharedMap<SegmentId, Shape>) -> Report {
        let mut report = Report { table: NAME, ..Report::default() };
        for (id, shape) in wanted {
            let entry = entry(*id, shape);
            let was = self.live.get(id);
            if was.is_some_and(|(_, live)| *live == entry) {
                continue;
            }
            let first = id.0 * 2;
            let slot = if was.is_some_and(|(slot, _)| *slot == first) { first + 1 } else { first };
            let written = self.map.set(slot, entry, 0).map_err(|source| kernel("SHAPES", source));
            match written.and_then(|()| self.point(*id, slot)) {
                Ok(()) => {
                    report.put += 1;
                    self.live.insert(*id, (slot, entry));
                }
                Err(error) => report.failures.extend(failure(NAME, &error).failures),
            }
        }
        report
    }

    /// Takes shapes away that are no longer wanted. Times of handshakes stay as long as a segment.
    pub fn delete(
        &mut self,
        wanted: &SharedMap<SegmentId, Shape>,
        segments: impl Fn(&SegmentId) -> bool,
    ) -> Report {
        let mut report = Report { table: NAME, ..Report::default() };
        let gone: Vec<SegmentId> = self.live.keys().filter(|id| !wanted.contains_key(id)).copied().collect();
        for id in gone {
            match self.point(id, 0) {
                Ok(()) => {
                    report.deleted += 1;
                    self.live.remove(&id);
                }
                Err(error) => report.failures.extend(failure(NAME, &error).failures),
            }
        }
        let timed: Vec<u32> = self.times.keys().flatten().collect();
        for id in timed.into_iter().filter(|id| !segments(&SegmentId(*id))) {
            // It may have gone meanwhile.
            drop(self.times.remove(&id));
        }
        report
    }

    fn point(&mut self, id: SegmentId, index: u32) -> Result<(), MapFault> {
        self.retired = true;
        self.slots.set(id.0, ShapeSlot { index, pad: 0 }, 0).map_err(|source| kernel("SHAPE_SLOTS", source))
    }

    /// Whether a slot was left that packets may still read.
    pub fn has_retired(&self) -> bool {
        self.retired
    }

    /// Lets slots be written again; call after a grace period.
    pub fn reuse(&mut self) {
        self.retired = false;
    }
}

fn entry(id: SegmentId, shape: &Shape) -> Entry {
    let each = |direction: usize| {
        let of = |values: &[Option<u64>; 2]| values.get(direction).copied().flatten();
        let rate = of(&shape.rate_bps).filter(|_| id.0 < SHAPED_SEGMENTS);
        let class = rate.map_or(0, |_| shape::class(id.0, direction));
        let wait = of(&shape.wait_us);
        let ahead_ns = wait.map_or(BURST_NS, |wait_us| wait_us.saturating_mul(1_000));
        let cost = of(&shape.cap_bps).map_or(0, shape::cost);
        (cost, rate.unwrap_or_default(), class, wait.is_some(), ahead_ns)
    };
    let (ingress, egress) = (each(shape::INGRESS), each(shape::EGRESS));
    Entry {
        cost: [ingress.0, egress.0],
        burst_ns: [ingress.4, egress.4],
        rate_bps: [ingress.1, egress.1],
        class: [ingress.2, egress.2],
        dscp: shape.dscp.map_or(0, |dscp| dscp + 1),
        priority: shape.priority,
        has_rules: u8::from(shape.has_rules),
        paced: u8::from(ingress.3) | u8::from(egress.3) << shape::EGRESS,
    }
}

fn kernel(map: &'static str, source: aya::maps::MapError) -> MapFault {
    MapFault::Kernel { map, source }
}
