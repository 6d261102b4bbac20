//! What the data path gives to packets of each segment beside a verdict: class, code point, hard cap. A shape lies at
//! the slot of its policy: see [`super::policies`].

use aya::Ebpf;
use aya::maps::{MapData, PerCpuHashMap};
use hub_common::shape::{self, Histogram, SHAPED_SEGMENTS, Shape as Entry};

use super::{MapFault, take};
use crate::desired::Segment;
use crate::desired::queues::Shape;
use crate::desired::shared_map::SharedMap;
use crate::model::SegmentId;

/// A cap may be this far ahead of its rate: what a rate allows in this time may come at once.
const BURST_NS: u64 = 20_000_000;
/// The same where classes of traffic wait in queues: the last one may use five eighths, see [`shape::burst_of`].
const CLASSES_BURST_NS: u64 = BURST_NS / 5 * 8;

/// Times of handshakes, which the data path makes.
pub struct Times(PerCpuHashMap<MapData, u32, Histogram>);

impl Times {
    /// Takes the map of an object.
    pub fn new(ebpf: &mut Ebpf) -> Result<Self, MapFault> {
        Ok(Self(take(ebpf, "RTTS")?))
    }

    /// Forgets those of segments that are gone.
    pub fn delete(&mut self, segments: &SharedMap<SegmentId, Segment>) {
        let timed: Vec<u32> = self.0.keys().flatten().collect();
        for id in timed.into_iter().filter(|id| !segments.contains_key(&SegmentId(*id))) {
            // It may have gone meanwhile.
            drop(self.0.remove(&id));
        }
    }
}

/// A shape as packets read it; zero for none.
pub fn compiled(id: SegmentId, shape: Option<&Shape>) -> Entry {
    shape.map_or(Entry::ZERO, |shape| entry(id, shape))
}

fn entry(id: SegmentId, shape: &Shape) -> Entry {
    let each = |direction: usize| {
        let of = |values: &[Option<u64>; 2]| values.get(direction).copied().flatten();
        let rate = of(&shape.rate_bps).filter(|_| id.0 < SHAPED_SEGMENTS);
        let class = rate.map_or(0, |_| shape::class(id.0, direction));
        let wait = of(&shape.wait_us);
        let burst_ns = if class == 0 { BURST_NS } else { CLASSES_BURST_NS };
        let ahead_ns = wait.or(of(&shape.burst_us)).map_or(burst_ns, |time_us| time_us.saturating_mul(1_000));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cap_beside_queues_leaves_the_last_class_the_burst_of_one_without() {
        let burst = |rate_bps, burst_us| {
            let shape = Shape { cap_bps: [Some(8_000_000); 2], rate_bps, burst_us, ..Shape::default() };
            compiled(SegmentId(1), Some(&shape)).burst_ns
        };
        assert_eq!(burst([None; 2], [None; 2]), [BURST_NS; 2]);
        let beside = burst([Some(8_000_000), None], [None; 2]);
        assert_eq!(shape::burst_of(beside[0], shape::PRIORITIES - 1), BURST_NS);
        assert_eq!(beside[1], BURST_NS);
        assert_eq!(burst([Some(8_000_000); 2], [Some(120_000), None])[0], 120_000_000);
    }
}
