//! What the outside may read of quality of service: times of handshakes, and what waits in queues.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

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

/// Names of the classes of traffic, by number.
pub const PRIORITIES: [&str; 4] = ["voice", "video", "normal", "bulk"];
