//! Identities, and where they come from.

use std::fmt;
use std::sync::Arc;

use ipnet::Ipv6Net;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use ulid::Ulid;
use utoipa::ToSchema;

/// Identity of a persona: a ULID, so ids sort by creation time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String)]
pub struct PersonaId(pub Arc<str>);

impl fmt::Display for PersonaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Index of a persona in the data path, from 1; 0 for a persona that never got there.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(transparent)]
pub struct SegmentId(pub u32);

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Makes ids from the time and a seed; the same seed and times give the same ids.
#[derive(Clone, Debug)]
pub struct IdSource {
    state: u64,
    last: Ulid,
}

impl IdSource {
    /// A source of ids. Two runs of the daemon must not share a seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed, last: Ulid::nil() }
    }

    /// The next id, greater than every one before, also when the clock is set back.
    pub fn next(&mut self, now: Timestamp) -> PersonaId {
        let milliseconds = u64::try_from(now.as_millisecond()).unwrap_or_default();
        let random = u128::from(self.random()) << 64 | u128::from(self.random());
        let fresh = Ulid::from_parts(milliseconds, random);
        self.last = if fresh > self.last { fresh } else { Ulid(self.last.0.wrapping_add(1)) };
        PersonaId(self.last.to_string().into())
    }

    /// A random prefix of unique local addresses (RFC 4193 section 3.2).
    pub fn unique_local(&mut self) -> Ipv6Net {
        let global = u128::from(self.random() >> 24);
        Ipv6Net::new_assert((0xfd << 120 | global << 80).into(), 48)
    }

    /// splitmix64: every state once, well mixed.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_their_making() {
        let mut source = IdSource::new(7);
        let second = Timestamp::from_second(1_900_000_000).unwrap();
        let mut ids: Vec<_> = (0..100).map(|_| source.next(second)).collect();
        ids.push(source.next(Timestamp::UNIX_EPOCH));
        assert!(ids.is_sorted_by(|a, b| a < b));
    }
}
