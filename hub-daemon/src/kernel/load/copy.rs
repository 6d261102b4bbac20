//! The entries of a map in another one of the same layout.
//!
//! The first copy goes into a map that no program knows. Programs go on with the old one for a while, and those that
//! follow have the new one by then; so what came or changed in the old one since is put where the new one has nothing
//! of its own.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;

use aya::maps::{MapData, MapType};

use super::fits::index;
use super::shapes::Kind;
use crate::kernel::batch::from_map;
use crate::kernel::batch::raw::{How, Raw};

/// Entries that are put together.
const CHUNK: usize = 1_024;
const FULL: i32 = libc::E2BIG;

/// What the last look at an old map saw.
#[derive(Debug, Default)]
pub(super) struct Noted {
    /// Connections whose last packet came before this tick were copied.
    copied_tick: u64,
    /// The last tick that was seen.
    last_tick: u64,
    /// Values by key, and of counts the sums over all CPUs; `None` if the map was not looked at by this daemon.
    values: Option<BTreeMap<Vec<u8>, Vec<u8>>>,
}

/// Copies all entries, as far as there is room, into a map that is empty and that nobody uses: of connections, the ones
/// with the last packets. Says how many found none.
pub(super) fn all(kind: Kind, old: &MapData, new: &MapData, noted: &mut Noted) -> io::Result<u64> {
    let (from, to) = (Raw::of(old)?, Raw::of(new)?);
    let info = new.info().map_err(from_map)?;
    let room = info.max_entries();
    let is_array = matches!(info.map_type().map_err(from_map)?, MapType::Array | MapType::PerCpuArray);
    let least = if kind == Kind::Flows { least_tick(&from, room, noted)? } else { 0 };
    let mut values = BTreeMap::new();
    let mut target = Target { to, keys: Vec::new(), values: Vec::new(), count: 0, left_out: 0 };
    let mut result = Ok(());
    from.entries(|key, value| {
        if is_array && value.iter().all(|byte| *byte == 0) {
            return ControlFlow::Continue(());
        }
        if is_array && index(key) >= room || kind == Kind::Flows && tick(value) < least {
            target.left_out += 1;
            return ControlFlow::Continue(());
        }
        if let Some(note) = note(kind, &from, value) {
            values.insert(key.to_vec(), note);
        }
        result = target.put(key, value);
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    result.and_then(|()| target.flush())?;
    noted.values = Some(values);
    Ok(target.left_out)
}

/// Puts what came into an old map or changed there since the last look, where the new one does not know better. What
/// is in `beside` is left alone: it has moved there.
pub(super) fn since(
    kind: Kind,
    old: &MapData,
    new: &MapData,
    beside: Option<&MapData>,
    noted: &mut Noted,
) -> io::Result<()> {
    let (from, to) = (Raw::of(old)?, Raw::of(new)?);
    match kind {
        Kind::Flows => flows(&from, &to, beside, noted),
        Kind::Counts(words) => counts(&from, &to, words, noted),
        Kind::State | Kind::Memory => notes(kind, &from, &to, noted),
        Kind::Policy | Kind::Hops | Kind::Moment => Ok(()),
    }
}

/// Entries that are put together.
struct Target<'a> {
    to: Raw<'a>,
    keys: Vec<u8>,
    values: Vec<u8>,
    count: usize,
    left_out: u64,
}

impl Target<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.keys.extend_from_slice(key);
        self.values.extend_from_slice(value);
        self.count += 1;
        if self.count < CHUNK { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> io::Result<()> {
        let (put, result) = self.to.put(&self.keys, &self.values);
        let rest = self.count.saturating_sub(put) as u64;
        self.keys.clear();
        self.values.clear();
        self.count = 0;
        match result {
            Err(error) if error.raw_os_error() == Some(FULL) => {
                self.left_out += rest;
                Ok(())
            }
            result => result,
        }
    }
}

/// The tick from which on as many connections as there is room for had their last packets.
fn least_tick(from: &Raw<'_>, room: u32, noted: &mut Noted) -> io::Result<u64> {
    let mut ticks = Vec::new();
    from.entries(|_, value| {
        ticks.push(tick(value));
        ControlFlow::Continue(())
    })?;
    // Whatever changes from here on has a later tick, or this one.
    noted.copied_tick = ticks.iter().copied().max().unwrap_or_default();
    noted.last_tick = noted.copied_tick;
    Ok(match ticks.len().checked_sub(room as usize) {
        Some(surplus @ 1..) => *ticks.select_nth_unstable(surplus).1,
        _ => 0,
    })
}

fn flows(from: &Raw<'_>, to: &Raw<'_>, beside: Option<&MapData>, noted: &mut Noted) -> io::Result<()> {
    let beside = beside.map(Raw::of).transpose()?;
    let (since, mut last) = (noted.copied_tick, noted.last_tick);
    let mut there = vec![0; to.value_bytes()];
    each(from, |key, value| {
        last = last.max(tick(value));
        if tick(value) < since || moved(beside.as_ref(), key)? {
            return Ok(());
        }
        if !to.get(key, &mut there)? {
            put(to, key, value, How::IfMissing)
        } else if tick(value) > tick(&there) {
            put(to, key, value, How::Any)
        } else {
            Ok(())
        }
    })?;
    (noted.copied_tick, noted.last_tick) = (noted.last_tick, last);
    Ok(())
}

fn moved(beside: Option<&Raw<'_>>, key: &[u8]) -> io::Result<bool> {
    beside.map_or(Ok(false), |beside| beside.get(key, &mut vec![0; beside.value_bytes()]))
}

/// Adds what was counted. Who counts at the same moment may be missed, by a packet or two.
fn counts(from: &Raw<'_>, to: &Raw<'_>, words: usize, noted: &mut Noted) -> io::Result<()> {
    let Some(before) = &mut noted.values else {
        // Up to where was counted is not known, so what follows is.
        let mut values = BTreeMap::new();
        each(from, |key, value| {
            values.insert(key.to_vec(), sums(from, value));
            Ok(())
        })?;
        noted.values = Some(values);
        return Ok(());
    };
    let mut there = vec![0; to.value_bytes()];
    each(from, |key, value| {
        let now = sums(from, value);
        let is_zero = now.iter().all(|byte| *byte == 0);
        if is_zero || before.get(key) == Some(&now) {
            return Ok(());
        }
        let zeros = vec![0; now.len()];
        let was = before.get(key).unwrap_or(&zeros);
        if to.get(key, &mut there)? {
            let places = there.chunks_exact_mut(8).zip(now.chunks_exact(8).zip(was.chunks_exact(8)));
            for (place, (now, was)) in places.take(words) {
                let sum = word(place).wrapping_add(word(now).wrapping_sub(word(was)));
                place.copy_from_slice(&sum.to_ne_bytes());
            }
            put(to, key, &there, How::Any)?;
        } else {
            put(to, key, value, How::IfMissing)?;
        }
        before.insert(key.to_vec(), now);
        Ok(())
    })
}

fn notes(kind: Kind, from: &Raw<'_>, to: &Raw<'_>, noted: &mut Noted) -> io::Result<()> {
    let is_known = noted.values.is_some();
    let before = noted.values.get_or_insert_default();
    each(from, |key, value| {
        let Some(now) = note(kind, from, value) else { return Ok(()) };
        match before.get(key) {
            // It may have gone from the new one for good.
            Some(was) if *was == now => return Ok(()),
            Some(_) => put(to, key, value, How::Any)?,
            None if is_known => put(to, key, value, How::Any)?,
            None => put(to, key, value, How::IfMissing)?,
        }
        before.insert(key.to_vec(), now);
        Ok(())
    })
}

/// What is remembered of a value until the next look.
fn note(kind: Kind, from: &Raw<'_>, value: &[u8]) -> Option<Vec<u8>> {
    match kind {
        Kind::Counts(_) => Some(sums(from, value)),
        Kind::State | Kind::Memory => Some(value.to_vec()),
        Kind::Policy | Kind::Flows | Kind::Hops | Kind::Moment => None,
    }
}

/// The words of a value, each the sum over all CPUs.
fn sums(from: &Raw<'_>, value: &[u8]) -> Vec<u8> {
    let mut sums = vec![0; from.stride()];
    for of_cpu in value.chunks_exact(from.stride()) {
        for (sum, word_of_cpu) in sums.chunks_exact_mut(8).zip(of_cpu.chunks_exact(8)) {
            let added = word(sum).wrapping_add(word(word_of_cpu));
            sum.copy_from_slice(&added.to_ne_bytes());
        }
    }
    sums
}

/// Calls `work` with every entry until it fails.
fn each(from: &Raw<'_>, mut work: impl FnMut(&[u8], &[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut result = Ok(());
    from.entries(|key, value| {
        result = work(key, value);
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    result
}

/// Puts an entry unless there is one or no room.
fn put(to: &Raw<'_>, key: &[u8], value: &[u8], how: How) -> io::Result<()> {
    match to.set(key, value, how) {
        Err(error) if [Some(libc::EEXIST), Some(FULL)].contains(&error.raw_os_error()) => Ok(()),
        result => result,
    }
}

/// When the last packet of a connection came.
fn tick(flow: &[u8]) -> u64 {
    flow.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

fn word(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests;
