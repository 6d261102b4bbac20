//! Next hops of targets in eight bytes each, of IPv6 targets in sixteen: most of the many addresses behind a hub
//! are behind few neighbours.
//!
//! A word says for one target and one port of arrival which neighbour is next, and under which route generation
//! that was found. Within a generation a neighbour's line never becomes another's, so that a word whose
//! generation is the current one is right for as long; a change of routes makes all words void at once. IPv6
//! targets share a line only within a /64: the line tells it, so that a place need not.

use crate::address::{Address, fold};
use crate::flow::Hop;
use crate::limits::{V4_HOP_BITS, V4_HOPS, V6_HOPS};

crate::shared! {
    /// A neighbour that packets leave to, as the kernel's FIB said.
    pub struct Adjacency {
        /// How they leave. Its generation is 0 while the line changes hands.
        pub hop: Hop,
        /// Whose line it is: the neighbour's IPv4 address, bytes as in a packet; for IPv6 targets the upper half
        /// of their addresses.
        pub owner: u64,
        /// 1 while somebody writes the line; others leave it alone meanwhile.
        pub writer: u32,
        /// Zero: a line is one cache line long.
        pub pad: [u32; 5],
    }

    /// The word of an IPv6 target.
    pub struct V6Hop {
        /// Lower half of the target.
        pub host: u64,
        /// Generation in the upper half, number of a line in the lower one. [`V6_HOP_WRITER`] while somebody
        /// writes the place; others leave it alone meanwhile.
        pub word: u64,
    }
}

/// The word of a place that is being written: it names no line.
pub const V6_HOP_WRITER: u64 = u64::MAX;

/// Bits of a target that its place does not tell.
const RANGE_BITS: u32 = 32 - V4_HOP_BITS;
/// Bits of a line's number in a word: what generation and range leave.
const LINE_BITS: u32 = 32 - RANGE_BITS;

/// Place of a target's word. With the port and the bits in the word it tells the target.
#[inline(always)]
pub const fn place(target: u32, ingress_ifindex: u32) -> u32 {
    let others =
        (target >> V4_HOP_BITS ^ ingress_ifindex.wrapping_mul(0x85eb_ca6b)).wrapping_mul(0x9e37_79b1);
    target.wrapping_add(others >> RANGE_BITS) & (V4_HOPS - 1)
}

/// The word of a target whose neighbour has this line.
#[inline(always)]
pub const fn word(target: u32, generation: u32, line: u32) -> u64 {
    name(target, generation) << LINE_BITS | line as u64
}

/// The line in a word, if the word is of this target and generation.
#[inline(always)]
pub const fn line(word: u64, target: u32, generation: u32) -> Option<u32> {
    if word >> LINE_BITS == name(target, generation) {
        Some(word as u32 & ((1 << LINE_BITS) - 1))
    } else {
        None
    }
}

/// Place of an IPv6 target's word.
#[inline(always)]
pub fn v6_place(target: &Address, ingress_ifindex: u32) -> u32 {
    const BITS: u32 = V6_HOPS.trailing_zeros();
    let others = ingress_ifindex.wrapping_mul(0x9e37_79b1);
    fold(target, BITS).wrapping_add(others >> (32 - BITS)) & (V6_HOPS - 1)
}

/// The word of an IPv6 target whose line has this number.
#[inline(always)]
pub const fn v6_word(generation: u32, line: u32) -> u64 {
    (generation as u64) << 32 | line as u64
}

/// The line in the word of an IPv6 target, if it is of this generation.
#[inline(always)]
pub const fn v6_line(word: u64, generation: u32) -> Option<u32> {
    if word >> 32 == generation as u64 { Some(word as u32) } else { None }
}

#[inline(always)]
const fn name(target: u32, generation: u32) -> u64 {
    (generation as u64) << RANGE_BITS | (target >> V4_HOP_BITS) as u64
}

/// Whether a line of one generation may be given away in another: not to who has not heard of a change yet.
#[inline(always)]
pub const fn is_free(line: u32, generation: u32) -> bool {
    line == 0 || generation.wrapping_sub(line).cast_signed() > 0
}

/// Where to begin to look for the line of an owner.
#[inline(always)]
pub const fn first_line(owner: u64, hop: &Hop) -> u32 {
    let others = hop.ifindex.wrapping_mul(0x85eb_ca6b) ^ hop.ingress_ifindex.rotate_left(16);
    let mixed = (owner ^ others as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as u32
}

impl Adjacency {
    /// Whether this line is that of an owner: everything that packets need is the same.
    #[inline(always)]
    pub fn is(&self, owner: u64, hop: &Hop) -> bool {
        let own = &self.hop;
        self.owner == owner
            && own.generation == hop.generation
            && own.ifindex == hop.ifindex
            && own.ingress_ifindex == hop.ingress_ifindex
            && own.mtu_bytes == hop.mtu_bytes
            && own.target_mac == hop.target_mac
            && own.source_mac == hop.source_mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::ADJACENCIES;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_word_is_of_one_target_only(
            target: u32, near in 0u32..64, other: u32, ingress in 1u32..100_000, generation in 1u32..,
            number in 0..ADJACENCIES,
        ) {
            let word = word(target, generation, number);
            prop_assert_eq!(line(word, target, generation), Some(number));
            prop_assert_eq!(line(word, target, generation.wrapping_add(1)), None);
            for other in [other, target ^ near, target ^ near << V4_HOP_BITS] {
                let same_place = place(target, ingress) == place(other, ingress);
                let taken = same_place && line(word, other, generation).is_some();
                prop_assert_eq!(taken, other == target);
            }
        }
    }

    #[test]
    fn a_word_of_an_ipv6_target_is_of_one_generation() {
        for (generation, number) in [(1, 0), (7, ADJACENCIES - 1), (u32::MAX, 5)] {
            let word = v6_word(generation, number);
            assert_eq!(v6_line(word, generation), Some(number));
            assert_eq!(v6_line(word, generation.wrapping_add(1)), None);
        }
        assert!((1..100).all(|generation| v6_line(0, generation).is_none()));
        let named = v6_line(V6_HOP_WRITER, u32::MAX);
        assert!(named.is_none_or(|number| number >= ADJACENCIES), "no line while it is written");
    }

    #[test]
    fn ipv6_targets_in_a_row_have_places_in_a_row() {
        let place = |host: u64| v6_place(&(0x2001_0db8_u128 << 96 | u128::from(host)).to_be_bytes(), 7);
        for host in 1..1_000 {
            assert_eq!(place(host + 1), (place(host) + 1) % V6_HOPS);
        }
    }

    #[test]
    fn words_have_room_and_an_empty_one_is_of_nobody() {
        const { assert!(ADJACENCIES <= 1 << LINE_BITS) };
        assert_eq!((size_of::<Adjacency>(), size_of::<V6Hop>()), (64, 16));
        assert!((1..100).all(|generation| line(0, 0, generation).is_none()));
    }

    #[test]
    fn lines_go_to_later_generations_only() {
        assert!(is_free(0, 1) && is_free(1, 2) && is_free(u32::MAX, 1));
        assert!(!is_free(2, 2) && !is_free(2, 1) && !is_free(1, u32::MAX));
    }
}
