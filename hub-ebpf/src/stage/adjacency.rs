//! Next hops by neighbour: what [`hub_common::adjacency`] says, in maps.
//!
//! Only for senders whose packets are routed like all others': what is left that a route depends on is the
//! target and the port of arrival, and both are part of a word's place.

use core::ptr::{read_volatile, write_volatile};

use hub_common::adjacency::{Adjacency, first_line, is_free, line, place, word};
use hub_common::flow::Hop;
use hub_common::limits;
use hub_common::outcome::Scratch;
use hub_common::segment::Settings;

use crate::atomic;
use crate::maps::{ADJACENCIES, V4_HOPS};
use crate::rewrite::Exit;

/// Lines that are tried for a neighbour.
const TRIES: u32 = 4;

/// The next hop towards an IPv4 address, if it is of this generation; it may be old.
#[inline(always)]
pub(crate) fn find(target: u32, ingress: u32, settings: &Settings) -> Option<Exit> {
    let generation = settings.route_generation;
    let word = V4_HOPS.get_ptr(place(target, ingress))?;
    // SAFETY: a map value; one word.
    let number = line(unsafe { read_volatile(word) }, target, generation)?;
    let line = ADJACENCIES.get_ptr(number)?;
    // SAFETY: a map value. The generation is zeroed before and written after the rest: reading it first
    // and last finds a copy that was overtaken by a writer.
    let (exit, after) =
        unsafe { (Exit::read(&raw const (*line).hop), read_volatile(&raw const (*line).hop.generation)) };
    let fits = exit.generation == generation && after == generation && exit.ingress_ifindex == ingress;
    fits.then_some(exit)
}

/// Notes the next hop that was found for a packet to an IPv4 address. False where its neighbour has no line:
/// then no word says anything about the address.
#[inline(always)]
pub(crate) fn share(scratch: &Scratch, target: u32) -> bool {
    let hop = &scratch.outcome.hop;
    let Some(at) = V4_HOPS.get_ptr_mut(place(target, hop.ingress_ifindex)) else { return false };
    let found = own_line(scratch.outcome.neighbour, hop);
    let new = found.map_or(0, |number| word(target, hop.generation, number));
    // SAFETY: a live map value; one word.
    let old = unsafe { read_volatile(at) };
    if new != old && (found.is_some() || line(old, target, hop.generation).is_some()) {
        // SAFETY: as above.
        unsafe { write_volatile(at, new) };
    }
    found.is_some()
}

/// The line of a neighbour, confirmed at this tick: its own or a free one.
#[inline(always)]
fn own_line(neighbour: u32, hop: &Hop) -> Option<u32> {
    let first = first_line(neighbour, hop);
    let mut at = 0;
    while at < TRIES {
        let number = first.wrapping_add(at) & (limits::ADJACENCIES - 1);
        let line = ADJACENCIES.get_ptr_mut(number)?;
        // SAFETY: a live map value. A line of the hop's generation keeps what is compared as long as it is one.
        let line = unsafe { &mut *line };
        if line.is(neighbour, hop) {
            // SAFETY: a field of the line; one word.
            unsafe { write_volatile(&raw mut line.hop.checked_tick, hop.checked_tick) };
            return Some(number);
        }
        at += 1;
    }
    at = 0;
    while at < TRIES {
        let number = first.wrapping_add(at) & (limits::ADJACENCIES - 1);
        let line = ADJACENCIES.get_ptr_mut(number)?;
        // SAFETY: as above; one program at a time has a line for writing.
        if take(unsafe { &mut *line }, neighbour, hop) {
            return Some(number);
        }
        at += 1;
    }
    None
}

/// Makes a line that of a neighbour, unless it is somebody's or being written.
#[inline(always)]
fn take(line: &mut Adjacency, neighbour: u32, hop: &Hop) -> bool {
    // SAFETY: a field of the line; one word.
    let is_free =
        |line: &Adjacency| is_free(unsafe { read_volatile(&raw const line.hop.generation) }, hop.generation);
    if !is_free(line) || !atomic::claim(&mut line.writer) {
        return false;
    }
    // Somebody else may have been here before.
    let free = is_free(line);
    if free {
        // SAFETY: as above.
        unsafe { write_volatile(&raw mut line.hop.generation, 0) };
        line.neighbour = neighbour;
        super::commit::store_hop(&mut line.hop, hop);
    }
    // SAFETY: as above.
    unsafe { write_volatile(&raw mut line.writer, 0) };
    free
}
