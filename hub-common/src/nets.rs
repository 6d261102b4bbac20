//! IPv6 prefixes by hash: lines of a table in front of the trie that has them all.
//!
//! A /64 that belongs to one segment has an entry of its own, and so has a /48. Whatever else there is makes
//! the entry one that says "ask the trie". Addresses are looked for as /64, then as /48; what neither finds
//! belongs to nobody, unless the header says that there are prefixes shorter than /48.

use crate::address::Address;
use crate::limits::NET_LINES;

crate::shared! {
    /// Five entries, one cache line. In the header, which is the last line, the first key holds `NETS_*` bits.
    pub struct NetLine {
        /// [`network`]s and [`site`]s; 0 is free. Without a free last place, what is not here is in the trie.
        pub keys: [u64; NETS_PER_LINE],
        /// The segment of each key; 0 asks the trie.
        pub segments: [u32; NETS_PER_LINE],
        /// Zero.
        pub pad: u32,
    }
}

/// Entries of a line.
pub const NETS_PER_LINE: usize = 5;
/// In the header: there are entries of /48 prefixes.
pub const NETS_SITES: u64 = 1;
/// In the header: there are prefixes shorter than /48.
pub const NETS_SHORTER: u64 = 2;

/// The first 64 bits of an address, as an entry's key.
#[inline(always)]
pub const fn network(address: &Address) -> u64 {
    match address.first_chunk() {
        Some(bytes) => u64::from_be_bytes(*bytes),
        None => 0,
    }
}

/// The key of the /48 of a network: no address that has a segment begins with these 16 bits.
#[inline(always)]
pub const fn site(network: u64) -> u64 {
    network >> 16 | 0xffff << 48
}

/// Whether the table can hold a network: not the one of `::`, nor one of groups, to which no prefix belongs.
#[inline(always)]
pub const fn is_kept(network: u64) -> bool {
    network != 0 && network >> 56 != 0xff
}

/// The line that a key is in.
#[inline(always)]
pub const fn line(key: u64) -> u32 {
    const BITS: u32 = NET_LINES.trailing_zeros();
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - BITS)) as u32
}
