//! Counters: what the programs add to and the daemon reads.

crate::shared! {
    /// Packets and bytes from the IP header on.
    pub struct Hits {
        /// Packets.
        pub packets: u64,
        /// Bytes.
        pub bytes: u64,
    }

    /// Totals of one persona, one line per CPU. Ingress is towards its members.
    pub struct SegmentCounters {
        /// Passed towards members.
        pub ingress: Hits,
        /// Passed from members.
        pub egress: Hits,
        /// Dropped on the way to members.
        pub ingress_dropped: Hits,
        /// Dropped on the way from members.
        pub egress_dropped: Hits,
    }

    /// Totals of one hook. `received` equals the sum of the others: packets in = packets out + drops.
    pub struct HookTotals {
        /// Packets that entered the program.
        pub received: u64,
        /// Sent out through another port by the program.
        pub redirected: u64,
        /// Judged and allowed, then left to the kernel to forward or deliver.
        pub passed: u64,
        /// Not the hub's to judge: left to the kernel, or to the next hook, untouched.
        pub skipped: u64,
        /// Answered by the program (reject).
        pub replied: u64,
        /// Dropped; equals the sum of the hook's reason counters less `replied`.
        pub dropped: u64,
        /// Events that the ring had no room for.
        pub events_lost: u64,
        /// Drops that the per-persona reason table had no room for.
        pub drops_unattributed: u64,
    }

    /// Key of the per-persona drop counters.
    pub struct DropKey {
        /// Segment.
        pub segment: u32,
        /// A reason number.
        pub reason: u16,
        /// 0 towards members, 1 from members; 2 and 3 count packets that only would be dropped.
        pub direction: u16,
    }

    /// What all CPUs counted in one element of a map, word by word.
    pub struct Sum {
        /// The words of a value of the map; the others are zero.
        pub words: [u64; SUM_WORDS],
    }

    /// What one rule decided.
    pub struct RuleHits {
        /// Packets and bytes that it judged.
        pub judged: Hits,
        /// Packets among them that passed only because the persona's rules watch.
        pub would_drop: u64,
    }
}

/// Words of a [`Sum`].
pub const SUM_WORDS: usize = 8;
/// Says to the program that sums which map it is about: `COUNTERS`.
pub const SUM_COUNTERS: u32 = 0;
/// `FLOWS_BEGUN`.
pub const SUM_FLOWS_BEGUN: u32 = 1;
/// `RULE_HITS`.
pub const SUM_RULE_HITS: u32 = 2;

/// Added to the direction of a [`DropKey`] that counts packets which only would be dropped.
pub const WOULD_DROP: u16 = 2;
