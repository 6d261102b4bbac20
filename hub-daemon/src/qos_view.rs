//! What the outside may read of quality of service: times of handshakes, and what waits in queues.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::SegmentId;

/// Times of TCP handshakes of a persona, from the first SYN to the ACK that ends it, as the hub sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HandshakeTimes {
    /// Handshakes timed.
    pub count: u64,
    /// Sum of their times in microseconds.
    pub sum_us: u64,
    /// Half of them took no longer, in microseconds; between the bounds of buckets it is a straight line.
    pub p50_us: u64,
    /// 95 of a hundred took no longer.
    pub p95_us: u64,
    /// 99 of a hundred took no longer.
    pub p99_us: u64,
    /// Handshakes by time: element N took less than 2^N microseconds and no less than those before.
    pub buckets: Vec<u64>,
}

/// The queue of one class of traffic of a persona on one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QueueCounts {
    /// Name of the interface.
    pub interface: String,
    /// `ingress` or `egress`.
    pub direction: String,
    /// `voice`, `video`, `normal` or `bulk`.
    pub priority: String,
    /// Bytes that wait.
    pub backlog_bytes: u64,
    /// How long they will at the persona's bandwidth, in microseconds.
    pub delay_us: u64,
    /// Packets that left.
    pub packets: u64,
    /// Bytes that left, Ethernet headers included.
    pub bytes: u64,
    /// Packets dropped because there was no room.
    pub drops: u64,
}

/// How long packets of each persona wait for their bandwidth in microseconds, towards members and from them:
/// where they wait longest. `paced` is what waits for its time of departure.
pub fn delays(
    queues: &BTreeMap<SegmentId, Vec<QueueCounts>>,
    paced: BTreeMap<SegmentId, [u64; 2]>,
) -> BTreeMap<SegmentId, [u64; 2]> {
    let mut delays = paced;
    for (segment, queues) in queues {
        let [ingress, egress] = delays.entry(*segment).or_default();
        for queue in queues {
            let slot = if queue.direction == "egress" { &mut *egress } else { &mut *ingress };
            *slot = queue.delay_us.max(*slot);
        }
    }
    delays
}

/// Names of the classes of traffic, by number.
pub const PRIORITIES: [&str; 4] = ["voice", "video", "normal", "bulk"];
