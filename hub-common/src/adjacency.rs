//! Next hops of IPv4 targets in eight bytes each: most of the many addresses behind a hub are behind few
//! neighbours.
//!
//! A word says for one target and one port of arrival which neighbour is next, and under which route generation
//! that was found. Within a generation a neighbour's line never becomes another's, so that a word whose
//! generation is the current one is right for as long; a change of routes makes all words void at once.

use crate::flow::Hop;
use crate::limits::{V4_HOP_BITS, V4_HOPS};

crate::shared! {
    /// A neighbour that packets leave to, as the kernel's FIB said.
    pub struct Adjacency {
        /// How they leave. Its generation is 0 while the line changes hands.
        pub hop: Hop,
        /// IPv4 address of the neighbour; bytes as in a packet.
        pub neighbour: u32,
        /// 1 while somebody writes the line; others leave it alone meanwhile.
        pub writer: u32,
        /// Zero: a line is one cache line long.
        pub pad: [u32; 6],
    }
}

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

#[inline(always)]
const fn name(target: u32, generation: u32) -> u64 {
    (generation as u64) << RANGE_BITS | (target >> V4_HOP_BITS) as u64
}

/// Whether a line of one generation may be given away in another: not to who has not heard of a change yet.
#[inline(always)]
pub const fn is_free(line: u32, generation: u32) -> bool {
    line == 0 || generation.wrapping_sub(line).cast_signed() > 0
}

/// Where to begin to look for the line of a neighbour.
#[inline(always)]
pub const fn first_line(neighbour: u32, hop: &Hop) -> u32 {
    let others = hop.ifindex.wrapping_mul(0x85eb_ca6b) ^ hop.ingress_ifindex.rotate_left(16);
    (neighbour.swap_bytes() ^ others).wrapping_mul(0x9e37_79b1) >> 16
}

impl Adjacency {
    /// Whether this line is that of a neighbour: everything that packets need is the same.
    #[inline(always)]
    pub fn is(&self, neighbour: u32, hop: &Hop) -> bool {
        let own = &self.hop;
        self.neighbour == neighbour
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
    fn words_have_room_and_an_empty_one_is_of_nobody() {
        const { assert!(ADJACENCIES <= 1 << LINE_BITS) };
        assert_eq!(size_of::<Adjacency>(), 64);
        assert!((1..100).all(|generation| line(0, 0, generation).is_none()));
    }

    #[test]
    fn lines_go_to_later_generations_only() {
        assert!(is_free(0, 1) && is_free(1, 2) && is_free(u32::MAX, 1));
        assert!(!is_free(2, 2) && !is_free(2, 1) && !is_free(1, u32::MAX));
    }
}
