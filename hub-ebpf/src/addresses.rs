//! What addresses are: a segment's, or the hub's own.

use core::ptr::read_volatile;

use aya_ebpf::btf_maps::lpm_trie::Key;
use hub_common::address::Address;
use hub_common::limits;
use hub_common::nets::{self, NETS_SHORTER, NETS_SITES};
use hub_common::segment::V4_BLOCK;

use crate::maps::{LOCAL_BITS, LOCALS, NETS, V4_BLOCKS, V4_ROOT, V6_PREFIXES};

/// The segment of an address, 0 for none.
#[inline(always)]
pub(crate) fn segment_of(address: &Address) -> u32 {
    if !hub_common::address::is_v4(address) {
        let low = address.last_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        return hub_segment_v6(nets::network(address), low);
    }
    segment_of_v4(u32::from_be_bytes([address[12], address[13], address[14], address[15]]))
}

/// The segment of an IPv6 address in two halves, 0 for none.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn hub_segment_v6(network: u64, low: u64) -> u32 {
    if nets::is_kept(network) {
        let mut found = kept(network);
        if found == NOT_KEPT {
            let Some(header) = NETS.get(limits::NET_LINES) else { return 0 };
            if header.keys[0] & NETS_SITES != 0 {
                found = kept(nets::site(network));
            }
            if found == NOT_KEPT && header.keys[0] & NETS_SHORTER == 0 {
                return 0;
            }
        }
        if found != NOT_KEPT && found != ASK_TRIE {
            return found;
        }
    }
    let address = (u128::from(network) << 64 | u128::from(low)).to_be_bytes();
    V6_PREFIXES.get(&Key::new(128, address)).copied().unwrap_or(0)
}

const ASK_TRIE: u32 = 0;
const NOT_KEPT: u32 = u32::MAX;

/// The segment of a key in the hash table, [`ASK_TRIE`] or [`NOT_KEPT`].
#[inline(always)]
fn kept(key: u64) -> u32 {
    let Some(line) = NETS.get_ptr(nets::line(key)) else { return ASK_TRIE };
    let mut at = 0;
    while at < nets::NETS_PER_LINE {
        // SAFETY: a map value. An entry changes hands with the segment "ask" first and the key before the new
        // segment: where the key is the same before and after, the segment is its own.
        let (before, segment, after) = unsafe {
            let place = &raw const (*line).keys[at];
            (read_volatile(place), read_volatile(&raw const (*line).segments[at]), read_volatile(place))
        };
        if before == key {
            return if after == key { segment } else { ASK_TRIE };
        }
        at += 1;
    }
    // SAFETY: as above.
    let last = unsafe { read_volatile(&raw const (*line).keys[nets::NETS_PER_LINE - 1]) };
    if last == 0 { NOT_KEPT } else { ASK_TRIE }
}

/// The segment of an IPv4 address, 0 for none.
#[inline(always)]
pub(crate) fn segment_of_v4(address: u32) -> u32 {
    let Some(entry) = V4_ROOT.get(address >> 16) else { return 0 };
    block_entry(block_entry(*entry, (address >> 8) as u8), address as u8)
}

/// Whether the address is the hub's own.
#[inline(always)]
pub(crate) fn is_local(address: &Address) -> bool {
    // SAFETY: the value is not looked at.
    may_be_local(hub_common::address::scatter(address, LOCAL_BITS_BITS))
        && unsafe { LOCALS.get(*address) }.is_some()
}

/// Whether the IPv4 address is the hub's own.
#[inline(always)]
pub(crate) fn is_local_v4(address: u32) -> bool {
    may_be_local(hub_common::address::scatter_v4(address, LOCAL_BITS_BITS))
        // SAFETY: the value is not looked at.
        && unsafe { LOCALS.get(hub_common::address::mapped(address.to_be_bytes())) }.is_some()
}

const LOCAL_BITS_BITS: u32 = limits::LOCAL_WORDS.trailing_zeros() + 6;

#[inline(always)]
fn may_be_local(place: u32) -> bool {
    LOCAL_BITS.get(place >> 6).is_some_and(|word| word >> (place & 63) & 1 == 1)
}

/// Follows an entry that names a block; any other entry is its own answer.
#[inline(always)]
fn block_entry(entry: u32, index: u8) -> u32 {
    if entry & V4_BLOCK == 0 {
        return entry;
    }
    V4_BLOCKS.get(entry & !V4_BLOCK).map_or(0, |block| block[usize::from(index)])
}
