//! Next hops by neighbour: what [`hub_common::adjacency`] says, in maps.
//!
//! Only for senders whose packets are routed like all others': what is left that a route depends on is the
//! target and the port of arrival, and both are part of a word's place.

use core::ptr::{read_volatile, write_volatile};

use hub_common::address::{Address, halves, is_v4};
use hub_common::adjacency::{
    Adjacency, V6_HOP_WRITER, V6Hop, first_line, is_free, line, place, v6_line, v6_place, v6_word, word,
};
use hub_common::flow::Hop;
use hub_common::limits;
use hub_common::outcome::Scratch;
use hub_common::segment::Settings;

use crate::atomic;
use crate::maps::{ADJACENCIES, V4_HOPS, V6_HOPS};
use crate::rewrite::Exit;

/// Lines that are tried for a neighbour.
const TRIES: u32 = 4;
/// Instead of a line's number.
const NO_LINE: u32 = u32::MAX;

/// The next hop towards an IPv4 address, if it is of this generation; it may be old.
#[inline(always)]
pub(crate) fn find(target: u32, ingress: u32, settings: &Settings) -> Option<Exit> {
    let generation = settings.route_generation;
    let word = V4_HOPS.get_ptr(place(target, ingress))?;
    // SAFETY: a map value; one word.
    let number = line(unsafe { read_volatile(word) }, target, generation)?;
    exit_of(number, None, ingress, generation)
}

/// As [`find`] towards an IPv6 address.
#[inline(always)]
pub(crate) fn find_v6(target: &Address, ingress: u32, settings: &Settings) -> Option<Exit> {
    let generation = settings.route_generation;
    let (network, host) = halves(target);
    let at = V6_HOPS.get_ptr(v6_place(target, ingress))?;
    // SAFETY: a map value. While a place changes hands its word is another one: where it is the same before and
    // after, the target is its own, or one with the same word.
    let (word, held, after) = unsafe {
        let word = &raw const (*at).word;
        (read_volatile(word), read_volatile(&raw const (*at).host), read_volatile(word))
    };
    if held != host || after != word {
        return None;
    }
    exit_of(v6_line(word, generation)?, Some(network), ingress, generation)
}

/// What a line says, if it is of this generation, port of arrival and, if any is asked for, owner.
#[inline(always)]
fn exit_of(number: u32, owner: Option<u64>, ingress: u32, generation: u32) -> Option<Exit> {
    let line = ADJACENCIES.get_ptr(number)?;
    // SAFETY: a map value. The generation is zeroed before and written after the rest: reading it first
    // and last finds a copy that was overtaken by a writer.
    let (exit, held, after) = unsafe {
        let exit = Exit::read(&raw const (*line).hop);
        let held = if owner.is_some() { read_volatile(&raw const (*line).owner) } else { 0 };
        (exit, held, read_volatile(&raw const (*line).hop.generation))
    };
    let fits = exit.generation == generation
        && after == generation
        && exit.ingress_ifindex == ingress
        && owner.is_none_or(|owner| owner == held);
    fits.then_some(exit)
}

/// Notes the next hop that was found for a packet. False where the neighbour has no line: then no word says
/// anything about the target.
#[inline(always)]
pub(crate) fn share(scratch: &Scratch) -> bool {
    let (hop, target) = (&scratch.outcome.hop, &scratch.packet.target);
    let (network, host) = halves(target);
    let v4 = is_v4(target);
    let owner = if v4 { u64::from(scratch.outcome.neighbour) } else { network };
    // VERIFIER(6.18): what an `Option` does not hold is stored on the stack, and was never written.
    let found = if owner == 0 { NO_LINE } else { own_line(owner, hop) };
    if v4 {
        note(found, host as u32, hop);
    } else {
        note_v6(found, target, host, hop);
    }
    found != NO_LINE
}

#[inline(always)]
fn note(found: u32, target: u32, hop: &Hop) {
    let Some(at) = V4_HOPS.get_ptr_mut(place(target, hop.ingress_ifindex)) else { return };
    let new = if found == NO_LINE { 0 } else { word(target, hop.generation, found) };
    // SAFETY: a live map value; one word.
    let old = unsafe { read_volatile(at) };
    if new != old && (found != NO_LINE || line(old, target, hop.generation).is_some()) {
        // SAFETY: as above.
        unsafe { write_volatile(at, new) };
    }
}

#[inline(always)]
fn note_v6(found: u32, target: &Address, host: u64, hop: &Hop) {
    let Some(at) = V6_HOPS.get_ptr_mut(v6_place(target, hop.ingress_ifindex)) else { return };
    let new = if found == NO_LINE { 0 } else { v6_word(hop.generation, found) };
    // SAFETY: a live map value; words that others read are written one at a time.
    let at = unsafe { &mut *at };
    if found != NO_LINE || at.host == host {
        put(at, host, new);
    }
}

/// Makes a place that of a target, unless it is so or somebody is writing it.
#[inline(always)]
fn put(at: &mut V6Hop, host: u64, word: u64) {
    let old = atomic::read(&at.word);
    if (old == word && at.host == host)
        || old == V6_HOP_WRITER
        || !atomic::exchange(&mut at.word, old, V6_HOP_WRITER)
    {
        return;
    }
    // SAFETY: fields of a live map value.
    unsafe {
        write_volatile(&raw mut at.host, host);
        write_volatile(&raw mut at.word, word);
    }
}

/// The line of an owner, confirmed at this tick: its own or a free one, or [`NO_LINE`].
#[inline(always)]
fn own_line(owner: u64, hop: &Hop) -> u32 {
    let first = first_line(owner, hop);
    let mut at = 0;
    while at < TRIES {
        let number = first.wrapping_add(at) & (limits::ADJACENCIES - 1);
        let Some(line) = ADJACENCIES.get_ptr_mut(number) else { return NO_LINE };
        // SAFETY: a live map value. A line of the hop's generation keeps what is compared as long as it is one.
        let line = unsafe { &mut *line };
        if line.is(owner, hop) {
            // SAFETY: a field of the line; one word.
            unsafe { write_volatile(&raw mut line.hop.checked_tick, hop.checked_tick) };
            return number;
        }
        at += 1;
    }
    at = 0;
    while at < TRIES {
        let number = first.wrapping_add(at) & (limits::ADJACENCIES - 1);
        let Some(line) = ADJACENCIES.get_ptr_mut(number) else { return NO_LINE };
        // SAFETY: as above; one program at a time has a line for writing.
        if take(unsafe { &mut *line }, owner, hop) {
            return number;
        }
        at += 1;
    }
    NO_LINE
}

/// Makes a line that of an owner, unless it is somebody's or being written.
#[inline(always)]
fn take(line: &mut Adjacency, owner: u64, hop: &Hop) -> bool {
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
        line.owner = owner;
        super::commit::store_hop(&mut line.hop, hop);
    }
    // SAFETY: as above.
    unsafe { write_volatile(&raw mut line.writer, 0) };
    free
}
