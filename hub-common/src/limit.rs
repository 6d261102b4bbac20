//! Limits of rules: a bucket that fills at a rate, as the generic cell rate algorithm (ITU-T I.371) keeps it.
//!
//! A bucket is one number: the time at which it would be full again. Taking moves it on; a packet passes as
//! long as it is not further ahead than the burst. Time is counted in [`TIME_PARTS`] of a nanosecond, so that
//! a byte at 100 Gbit/s has a cost.

use crate::address::Address;

crate::shared! {
    /// The limit of one rule.
    pub struct Limit {
        /// When the bucket is full again. The only field that packets write.
        pub full_at: u64,
        /// Time that one unit takes to fill.
        pub cost: u64,
        /// How far `full_at` may be ahead of a packet that passes.
        pub tolerance: u64,
        /// `LIMIT_*` bits.
        pub flags: u32,
        /// Connections that a source may have at once, 0 for any number.
        pub connections: u32,
    }

    /// What is known of one source: its bucket, or its connections.
    pub struct LimitSource {
        /// Slot of the limit; 0 for all connections to members of a segment.
        pub limit: u32,
        /// Segment whose connections are counted; 0 for a bucket.
        pub segment: u32,
        /// The source.
        pub address: Address,
    }
}

/// Parts of a nanosecond that time is counted in.
pub const TIME_PARTS: u64 = 64;

/// Every packet is held to the limit, not only the first of a flow.
pub const LIMIT_PACKETS: u32 = 1;
/// The unit is a byte from the IP header on, not a packet or flow.
pub const LIMIT_BYTES: u32 = 1 << 1;
/// Each source has a bucket of its own.
pub const LIMIT_PER_SOURCE: u32 = 1 << 2;

impl Limit {
    /// Whether it limits a rate.
    #[inline(always)]
    pub const fn has_rate(&self) -> bool {
        self.cost != 0
    }

    /// Whether a packet passes at this time, its bucket being full again at `full_at`.
    #[inline(always)]
    pub const fn has_room(&self, full_at: u64, now_ns: u64) -> bool {
        full_at <= now_ns.wrapping_mul(TIME_PARTS).saturating_add(self.tolerance)
    }

    /// Time that a frame takes to fill again which is so many packets and bytes on a wire.
    #[inline(always)]
    pub const fn cost_of(&self, packets: u32, bytes: u32) -> u64 {
        if self.flags & LIMIT_BYTES != 0 {
            self.cost.wrapping_mul(bytes as u64)
        } else if self.flags & LIMIT_PACKETS != 0 {
            self.cost.wrapping_mul(packets as u64)
        } else {
            self.cost
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets of `length` that pass when one arrives every `every_ns` for a second.
    fn passed(limit: &Limit, length: u32, every_ns: u64) -> u64 {
        let (mut full_at, mut passed) = (0, 0);
        let start = 1_000_000_000_000;
        for at in 0..1_000_000_000 / every_ns {
            let now_ns = start + at * every_ns;
            if limit.has_room(full_at, now_ns) {
                full_at = full_at.max(now_ns * TIME_PARTS) + limit.cost_of(1, length);
                passed += 1;
            }
        }
        passed
    }

    #[test]
    fn a_second_lets_the_rate_and_one_burst_pass() {
        let cost = 1_000_000_000 / 1_000 * TIME_PARTS;
        let limit = Limit { cost, tolerance: 9 * cost, ..Limit::ZERO };
        assert_eq!(passed(&limit, 100, 10_000), 1_000 + 9);
        assert_eq!(passed(&limit, 100, 2_000_000), 500, "slower than the rate");
    }

    #[test]
    fn bytes_are_weighed() {
        // 8 Mbit/s are 1,000 packets of 1,000 bytes.
        let cost = 1_000 * TIME_PARTS;
        let limit = Limit { cost, tolerance: 10_000 * cost, flags: LIMIT_BYTES, ..Limit::ZERO };
        assert_eq!(passed(&limit, 1_000, 100_000), 1_000 + 10);
    }
}
