//! Quality of service as tables: what each persona's packets get, and the queues they wait in.
//!
//! The queues of an interface are one HTB with a class for the link, below it one for each persona and
//! direction, below that one for each class of traffic, each with a FIFO. What has no class is not limited.
//! Or they are one `fq`, which holds each packet until the time that the data path wrote on it.

use hub_common::shape::{self, PRIORITIES};

/// What a persona's packets get. Index 0 is towards members, 1 from members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Bits per second above which packets are dropped at once.
    pub cap_bps: [Option<u64>; 2],
    /// What the cap lets pass at once, as the time that it takes at the cap, in microseconds; the hub's own choice
    /// where nothing is said.
    pub burst_us: [Option<u64>; 2],
    /// How long packets above the cap wait in an `fq` before they are dropped, in microseconds.
    pub wait_us: [Option<u64>; 2],
    /// Bits per second of the queues.
    pub rate_bps: [Option<u64>; 2],
    /// Code point of all packets.
    pub dscp: Option<u8>,
    /// Class of packets that no rule gives another; 0 is served first.
    pub priority: u8,
    /// Whether rules name code points or classes.
    pub has_rules: bool,
}

/// Names a queue, those that others are below first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueueKey {
    /// Name of the interface.
    pub interface: String,
    /// What it is there.
    pub place: QueuePlace,
}

/// Where a queue is in the tree of an interface. Numbers are minor numbers of classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum QueuePlace {
    /// The HTB or `fq` itself.
    Root,
    /// A class.
    Class(u16),
    /// The FIFO of a class.
    Fifo(u16),
}

/// What a queue should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// An HTB.
    Root,
    /// An `fq`.
    Pacer,
    /// A class.
    Class(Class),
    /// A FIFO.
    Fifo(Fifo),
}

/// A class of HTB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// Minor number of the class above, 0 for none.
    pub parent: u16,
    /// What it gets, in bits per second on the wire.
    pub rate_bps: u64,
    /// What it may borrow up to.
    pub ceil_bps: u64,
    /// Order among those that borrow; 0 comes first.
    pub priority: u8,
}

/// A queue with room for a number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fifo {
    /// Room.
    pub limit_bytes: u32,
    /// Super-packets are cut into packets of at most this length first: where one would fill the room.
    pub cut_bytes: Option<u32>,
}

/// Minor number of the class of a link.
pub const LINK_CLASS: u16 = 1;
/// Bits per second of a link whose bandwidth nobody told: what is idle there never ends.
pub const LINK_BPS: u64 = 100_000_000_000;
/// Room from which on super-packets need not be cut: four of them.
const WHOLE_BYTES: u64 = 4 * 65_536;
/// Ethernet header.
const LINK_HEADER_BYTES: u32 = 14;
/// IPv4 header: what a document calls bandwidth is what IP carries, so that TCP gets about that.
const IP_HEADER_BYTES: u32 = 20;
/// A tag before the queue.
const TAG_BYTES: u32 = 8;
/// What several interfaces may have together is so much above the bandwidth, one part in this many: enough for what
/// TCP sends again, so that on one of them alone its queue decides and not the cap.
const MARGIN: u64 = 50;
/// Times that the cap of several interfaces holds the room of a queue and its burst: TCP sends up to twice the room
/// while it finds out, and a class of traffic may use five eighths.
const ROOMS: u64 = 3;
/// What a class of HTB sends at once after a pause, in microseconds.
const BURST_US: u64 = 10_000;
/// Part of the rate that every class of traffic has to itself, so that none starves: one in this many.
const SHARE: u64 = 32;

/// Bits per second of whole IP packets, of what IP carries in packets of full length.
pub fn with_ip_headers(bps: u64, mtu: u32) -> u64 {
    bps + bps / u64::from(mtu.max(576) - IP_HEADER_BYTES) * u64::from(IP_HEADER_BYTES)
}

/// Bandwidth of one persona and direction, as its queues need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Minor number of its class.
    pub class: u16,
    /// Bits per second of what IP carries in packets of full length.
    pub rate_bps: u64,
    /// The same for what may be borrowed.
    pub ceil_bps: u64,
    /// Longest wait in microseconds.
    pub latency_us: u64,
    /// Classes of traffic in use, one bit each.
    pub priorities: u8,
}

impl Plan {
    /// Cap of all interfaces together, in bits per second of whole IP packets, and its burst in microseconds, where
    /// packets have at most `mtu` bytes.
    pub fn together(&self, mtu: u32) -> (u64, u64) {
        let bps = with_ip_headers(self.ceil_bps, mtu);
        let packet_us = (u64::from(mtu) * 8_000_000).div_ceil(self.rate_bps.max(1));
        let room_us = self.latency_us.max(2 * packet_us) + packet_us.max(BURST_US);
        (bps.saturating_add(bps / MARGIN), ROOMS * room_us)
    }

    /// The queues on an interface whose packets have at most `mtu` bytes.
    pub fn queues(&self, mtu: u32) -> Vec<(QueuePlace, Queue)> {
        let mtu = mtu.max(576);
        let headers = u64::from(LINK_HEADER_BYTES + IP_HEADER_BYTES);
        let wire = |bps: u64| bps + bps / u64::from(mtu - IP_HEADER_BYTES) * headers;
        let (rate_bps, ceil_bps) = (wire(self.rate_bps), wire(self.ceil_bps));
        let own = Class { parent: LINK_CLASS, rate_bps, ceil_bps, priority: 0 };
        let mut queues = vec![(QueuePlace::Class(self.class), Queue::Class(own))];
        let longest = mtu + LINK_HEADER_BYTES;
        let limit = (rate_bps / 8 * self.latency_us / 1_000_000).max(2 * u64::from(longest));
        let fifo = Fifo {
            limit_bytes: u32::try_from(limit).unwrap_or(u32::MAX),
            cut_bytes: (limit < WHOLE_BYTES).then_some(longest + TAG_BYTES),
        };
        let share = if self.priorities.count_ones() > 1 { (rate_bps / SHARE).max(8_000) } else { rate_bps };
        for priority in (0..PRIORITIES).filter(|priority| self.priorities >> priority & 1 == 1) {
            let minor = shape::leaf(self.class, priority);
            let class = Class { parent: self.class, rate_bps: share, ceil_bps, priority };
            queues.push((QueuePlace::Class(minor), Queue::Class(class)));
            queues.push((QueuePlace::Fifo(minor), Queue::Fifo(fifo)));
        }
        queues
    }
}

impl QueuePlace {
    /// The segment that a queue belongs to; those of the link belong to none.
    pub fn segment(self) -> Option<u32> {
        match self {
            Self::Root | Self::Class(LINK_CLASS) | Self::Fifo(LINK_CLASS) => None,
            Self::Class(minor) | Self::Fifo(minor) => Some(shape::owner(minor).0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan =
        Plan { class: 16, rate_bps: 10_000_000, ceil_bps: 10_000_000, latency_us: 50_000, priorities: 4 };

    #[test]
    fn the_room_is_rate_times_latency() {
        let queues = PLAN.queues(1_500);
        assert_eq!(queues.len(), 3);
        let Some((QueuePlace::Fifo(19), Queue::Fifo(fifo))) = queues.get(2) else { panic!("{queues:?}") };
        // 10 Mbit/s for 50 ms, and 34 bytes of headers for each 1,480.
        assert_eq!(*fifo, Fifo { limit_bytes: 63_935, cut_bytes: Some(1_522) });
        let fast = Plan { rate_bps: 1_000_000_000, ..PLAN }.queues(1_500);
        assert!(matches!(fast.get(2), Some((_, Queue::Fifo(Fifo { cut_bytes: None, .. })))), "{fast:?}");
        let slow = Plan { rate_bps: 8_000, ..PLAN }.queues(1_500);
        assert!(matches!(slow.get(2), Some((_, Queue::Fifo(Fifo { limit_bytes: 3_028, .. })))), "{slow:?}");
    }

    #[test]
    fn several_interfaces_have_a_little_more_than_one_and_room_for_what_waits() {
        // 10 Mbit/s of what IP carries and its headers and a fiftieth; three times 50 ms and the burst of 10.
        assert_eq!(PLAN.together(1_500), (10_337_822, 180_000));
        // What borrows does so in sum.
        let borrows = Plan { ceil_bps: 20_000_000, ..PLAN };
        assert_eq!(borrows.together(1_500).0, 20_675_665);
        // Two packets of 1.5 s wait, and one is a burst.
        let slow = Plan { rate_bps: 8_000, ceil_bps: 8_000, ..PLAN };
        assert_eq!(slow.together(1_500).1, 13_500_000);
    }

    #[test]
    fn classes_of_traffic_share_what_the_persona_has() {
        let queues = Plan { priorities: 0b1101, ..PLAN }.queues(1_500);
        let classes: Vec<(u16, Class)> = queues
            .iter()
            .filter_map(|(place, queue)| match (place, queue) {
                (QueuePlace::Class(minor), Queue::Class(class)) => Some((*minor, *class)),
                _ => None,
            })
            .collect();
        let seen: Vec<_> =
            classes.iter().map(|(minor, class)| (*minor, class.parent, class.priority)).collect();
        assert_eq!(seen, [(16, 1, 0), (17, 16, 0), (19, 16, 2), (20, 16, 3)]);
        let rates: Vec<u64> = classes.iter().map(|(_, class)| class.rate_bps).collect();
        assert_eq!(rates, [10_229_704, 319_678, 319_678, 319_678]);
        assert!(classes.iter().all(|(_, class)| class.ceil_bps == 10_229_704));
    }
}
