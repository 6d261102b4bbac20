//! Quality of service in the data path: the class and mark of a packet, the hard cap, and how long
//! handshakes take.
//!
//! The queues themselves are the kernel's: in HTB a packet only carries the number of its class, in `fq` the
//! time at which it may leave.

crate::shared! {
    /// What a persona's packets get; it lies at the slot of its policy, and is written before a segment points
    /// there. Zero for a policy without. Index 0 is towards members, 1 from members.
    pub struct Shape {
        /// Nanoseconds per byte, times 2^[`COST_BITS`]; 0 for no cap.
        pub cost: [u64; 2],
        /// How far the cap may be ahead of time, in nanoseconds; with `paced`, how long a packet may wait.
        pub burst_ns: [u64; 2],
        /// Rate of the class in bits per second: of two classes that fit a packet the slower one is taken.
        pub rate_bps: [u64; 2],
        /// Minor number of the persona's HTB class, 0 for none; see [`leaf`].
        pub class: [u16; 2],
        /// Code point plus 1, 0 to leave it.
        pub dscp: u8,
        /// Class of traffic that no rule says anything of: 0 is served first.
        pub priority: u8,
        /// 1 when rules of the persona name code points or classes.
        pub has_rules: u8,
        /// Bits by direction: packets carry the time at which the cap lets them go, and `fq` holds them until
        /// then.
        pub paced: u8,
    }

    /// State of a persona's caps: when the bytes that passed would have passed at the rate.
    pub struct Policer {
        /// `bpf_ktime_get_ns` by direction, as in [`Shape`].
        pub next_ns: [u64; 2],
    }

    /// Round-trip times of TCP handshakes, one per CPU.
    pub struct Histogram {
        /// Handshakes that took less than 2^index microseconds and no less than the bucket before.
        pub buckets: [u64; RTT_BUCKETS],
        /// Sum of all of them.
        pub sum_us: u64,
    }
}

/// Buckets of a [`Histogram`]; the last one also holds what took longer, 8 seconds and more.
pub const RTT_BUCKETS: usize = 24;
/// Fraction bits of [`Shape::cost`].
pub const COST_BITS: u32 = 24;
/// Towards members: index into [`Shape`].
pub const INGRESS: usize = 0;
/// From members: index into [`Shape`].
pub const EGRESS: usize = 1;
/// Classes of traffic inside a persona.
pub const PRIORITIES: u8 = 4;
/// Major number of the hub's HTB: `tc` shows `177:`.
pub const QUEUE_MAJOR: u32 = 0x0177 << 16;
/// Segments from here on have no class: minor numbers have 16 bits.
pub const SHAPED_SEGMENTS: u32 = 4_096;

/// Minor number of the class of a segment and direction.
#[inline(always)]
pub const fn class(segment: u32, direction: usize) -> u16 {
    ((segment * 16 + if direction == EGRESS { 8 } else { 0 }) & 0xffff) as u16
}

/// Minor number of the leaf below a class.
#[inline(always)]
pub const fn leaf(class: u16, priority: u8) -> u16 {
    class.wrapping_add(1).wrapping_add((priority & (PRIORITIES - 1)) as u16)
}

/// The segment and direction that a minor number belongs to, and the priority of a leaf.
pub const fn owner(minor: u16) -> (u32, usize, Option<u8>) {
    let direction = if minor & 8 == 0 { INGRESS } else { EGRESS };
    let priority = (minor & 7) as u8;
    let leaf = if priority >= 1 && priority <= PRIORITIES { Some(priority - 1) } else { None };
    ((minor >> 4) as u32, direction, leaf)
}

/// [`Shape::cost`] of a rate.
pub const fn cost(rate_bps: u64) -> u64 {
    let wide = (8_000_000_000_u128 << COST_BITS) / if rate_bps == 0 { 1 } else { rate_bps as u128 };
    wide as u64
}

/// Time that a packet takes at a rate.
#[inline(always)]
pub const fn cost_ns(cost: u64, bytes: u32) -> u64 {
    // 64 KiB at 8 kbit/s are 2^60.
    cost.wrapping_mul(bytes as u64) >> COST_BITS
}

/// Where the cap's time goes if a packet passes now, or nothing if it does not: a cap may be behind by so long.
#[inline(always)]
pub const fn admit(next_ns: u64, now_ns: u64, cost_ns: u64, behind_ns: u64) -> Option<u64> {
    let start = if next_ns > now_ns { next_ns } else { now_ns };
    if start - now_ns > behind_ns { None } else { Some(start.wrapping_add(cost_ns)) }
}

/// How far behind a cap may be for a packet to pass that must not wait: it ends within the burst, as in a token
/// bucket, so that a flood of long packets leaves short ones their way. No packet needs more than half of the
/// burst, so that those pass that are longer than it, and put the cap into debt.
#[inline(always)]
pub const fn behind_ns(burst_ns: u64, cost_ns: u64) -> u64 {
    let half = burst_ns / 2;
    burst_ns - if cost_ns < half { cost_ns } else { half }
}

/// What a class of traffic may use of a burst where classes wait in queues behind the cap: each leaves an eighth to
/// those before it, so that they find room while it floods.
#[inline(always)]
pub const fn burst_of(burst_ns: u64, priority: u8) -> u64 {
    burst_ns - burst_ns / 8 * (priority & (PRIORITIES - 1)) as u64
}

/// Bucket of a time.
#[inline(always)]
pub const fn bucket(time_us: u64) -> usize {
    // Written as comparisons: the count of leading zeros is a call on the BPF target.
    let mut index = 0;
    while index + 1 < RTT_BUCKETS && time_us >= 1 << index {
        index += 1;
    }
    index
}

impl Histogram {
    /// Number of handshakes.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Time within which this many of a thousand handshakes were done, in microseconds; 0 without any.
    /// Between the bounds of a bucket it is a straight line.
    pub fn quantile_us(&self, per_mille: u64) -> u64 {
        let wanted = (self.count() * per_mille).div_ceil(1_000);
        let mut before = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            if *count > 0 && before + count >= wanted {
                let low = if index == 0 { 0 } else { 1 << (index - 1) };
                return low + ((1_u64 << index) - low) * (wanted - before) / count;
            }
            before += count;
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minor_numbers_name_segment_direction_and_priority() {
        for segment in [1, 2, SHAPED_SEGMENTS - 1] {
            for direction in [INGRESS, EGRESS] {
                assert_eq!(owner(class(segment, direction)), (segment, direction, None));
                for priority in 0..PRIORITIES {
                    let minor = leaf(class(segment, direction), priority);
                    assert_eq!(owner(minor), (segment, direction, Some(priority)));
                }
            }
        }
    }

    #[test]
    fn a_cap_lets_its_rate_and_its_burst_pass() {
        let cost = cost_ns(cost(8_000_000), 1_000);
        assert_eq!(cost, 1_000_000);
        let (mut next, mut passed) = (0, 0);
        for step in 0..10_000_u64 {
            let now = 1_000_000_000 + step * 100_000;
            if let Some(after) = admit(next, now, cost, behind_ns(10_000_000, cost)) {
                next = after;
                passed += 1;
            }
        }
        // One second at 1 packet per millisecond, and ten milliseconds ahead.
        assert!((1_009..=1_012).contains(&passed), "{passed}");
    }

    #[test]
    fn a_flood_of_long_packets_leaves_short_ones_their_way() {
        let (long, short, burst) = (960_000, 67_200, 10_000_000);
        let (mut next, mut floods, mut pings) = (0, 0, 0);
        for step in 0..100_000_u64 {
            // Three long ones at once each millisecond, a short one behind them.
            let now = 1_000_000_000 + step * 1_000_000;
            for cost in [long, long, long] {
                if let Some(after) = admit(next, now, cost, behind_ns(burst, cost)) {
                    (next, floods) = (after, floods + 1);
                }
            }
            if step % 50 == 0
                && let Some(after) = admit(next, now, short, behind_ns(burst, short))
            {
                (next, pings) = (after, pings + 1);
            }
        }
        assert!(pings > 1_800, "{pings} of 2,000");
        assert!((103_000..=104_200).contains(&floods), "{floods}");
    }

    #[test]
    fn a_flood_leaves_room_to_classes_before_its_own() {
        let (cost, burst) = (1_000_000, 40_000_000);
        let (mut next, mut bulk, mut voice) = (0, 0, 0);
        for step in 0..10_000_u64 {
            let now = 1_000_000_000 + step * 1_000_000;
            // Twice what fits, and behind it every other time one of another class.
            for priority in [3, 3, 0].into_iter().take(if step % 2 == 0 { 3 } else { 2 }) {
                let behind = behind_ns(burst_of(burst, priority), cost);
                if let Some(after) = admit(next, now, cost, behind) {
                    next = after;
                    if priority == 0 { voice += 1 } else { bulk += 1 }
                }
            }
        }
        assert_eq!(voice, 5_000, "all of them");
        assert!((5_000..5_050).contains(&bulk), "what is left, and the burst: {bulk}");
    }

    #[test]
    fn what_is_longer_than_the_burst_passes_and_is_a_debt() {
        let behind = behind_ns(100, 500);
        assert_eq!(admit(0, 1_000, 500, behind), Some(1_500));
        assert_eq!(admit(1_500, 1_450, 500, behind), Some(2_000));
        assert_eq!(admit(1_500, 1_449, 500, behind), None);
    }

    #[test]
    fn costs_are_right_over_all_rates() {
        assert_eq!(cost_ns(cost(8_000), 65_535), 65_535_000_000);
        assert_eq!(cost_ns(cost(10_000_000_000_000), 65_535), 52);
    }

    #[test]
    fn times_have_buckets_and_buckets_have_quantiles() {
        assert_eq!([0, 1, 2, 3, 4, 1_000].map(bucket), [0, 1, 2, 2, 3, 10]);
        assert_eq!(bucket(u64::MAX), RTT_BUCKETS - 1);
        let mut histogram = Histogram::ZERO;
        assert_eq!(histogram.quantile_us(950), 0);
        histogram.buckets[10] = 90;
        histogram.buckets[13] = 10;
        assert_eq!(histogram.quantile_us(500), 512 + 512 * 50 / 90);
        assert_eq!(histogram.quantile_us(950), 4_096 + 4_096 * 5 / 10);
    }
}
