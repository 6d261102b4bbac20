//! Walks through maps: in batches, or a call or two for each entry.

use std::io;
use std::ops::ControlFlow;

use aya::Pod;
use aya::maps::MapData;
use hub_common::shared::Zero;

use super::{
    BPF_MAP_GET_NEXT_KEY, BPF_MAP_LOOKUP_BATCH, BPF_MAP_LOOKUP_ELEM, Batch, Element, KEY_BYTES, Token, call,
    fd, from_map, is_unsupported,
};

/// Entries asked for at once; doubled when a bucket holds more.
const CHUNK: usize = 1_024;

/// How many of a walk's items make a key, and how many make what the kernel gives as its value.
///
/// Whoever makes one vouches that the bytes of so many are those of the map.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub(super) key: usize,
    pub(super) value: usize,
}

/// Calls `each` with every entry until it breaks off.
pub(super) fn all<K: Pod + Zero, V: Pod + Zero>(
    map: &MapData,
    form: Form,
    each: &mut impl FnMut(&[K], &[V]) -> ControlFlow<()>,
) -> io::Result<()> {
    let mut walk = Walk::<K, V>::new(map, form, None);
    loop {
        match walk.next(usize::MAX) {
            Err(error) if walk.position.is_none() && is_unsupported(&error) => {
                return one_by_one(map, form, &[], usize::MAX, each);
            }
            Err(error) => return Err(error),
            Ok(()) => {}
        }
        if walk.deliver(each).is_break() || walk.ended {
            return Ok(());
        }
    }
}

/// Buffers of a walk through a map.
pub(super) struct Walk<'a, K, V> {
    map: &'a MapData,
    form: Form,
    keys: Vec<K>,
    values: Vec<V>,
    position: Option<Token>,
    count: usize,
    ended: bool,
}

impl<'a, K: Pod + Zero, V: Pod + Zero> Walk<'a, K, V> {
    pub(super) fn new(map: &'a MapData, form: Form, position: Option<Token>) -> Self {
        let (keys, values) = (Vec::new(), Vec::new());
        let mut walk = Self { map, form, keys, values, position, count: 0, ended: false };
        walk.grow(CHUNK);
        walk
    }

    /// Entries that were read last.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Whether there are no more.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Entries that there is room for.
    fn room(&self) -> usize {
        self.keys.len() / self.form.key.max(1)
    }

    fn grow(&mut self, room: usize) {
        self.keys.resize(room * self.form.key, K::ZERO);
        self.values.resize(room * self.form.value, V::ZERO);
    }

    /// Reads the next entries, at most `most`.
    pub(super) fn next(&mut self, most: usize) -> io::Result<()> {
        loop {
            let mut out = self.position.unwrap_or(Token([0; KEY_BYTES]));
            let mut batch = Batch {
                from: self.position.as_ref().map_or(0, |token| token.0.as_ptr().addr() as u64),
                to: out.0.as_mut_ptr().addr() as u64,
                keys: self.keys.as_mut_ptr().addr() as u64,
                values: self.values.as_mut_ptr().addr() as u64,
                count: u32::try_from(self.room().min(most)).unwrap_or(u32::MAX),
                map_fd: fd(self.map),
                ..Batch::default()
            };
            // SAFETY: `keys` and `values` have room for `count` entries of the sizes that the form says, and
            // the positions for its largest key; all of them outlive the call.
            let result = unsafe { call(BPF_MAP_LOOKUP_BATCH, &mut batch) };
            match result {
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    self.grow(self.room() * 2);
                    continue;
                }
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => continue,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => self.ended = true,
                Err(error) => return Err(error),
                Ok(()) => {}
            }
            self.count = (batch.count as usize).min(self.room());
            self.position = Some(out);
            return Ok(());
        }
    }

    /// Calls `each` with what was read.
    pub(super) fn deliver(&self, each: &mut impl FnMut(&[K], &[V]) -> ControlFlow<()>) -> ControlFlow<()> {
        let keys = self.keys.chunks_exact(self.form.key);
        keys.zip(self.values.chunks_exact(self.form.value))
            .take(self.count)
            .try_for_each(|(key, values)| each(key, values))
    }
}

/// As the walk in batches, a call or two for each entry; from behind the key `start` on, if it is one. `most` and the
/// map's size bound the walk.
pub(super) fn one_by_one<K: Pod + Zero, V: Pod + Zero>(
    map: &MapData,
    form: Form,
    start: &[K],
    most: usize,
    each: &mut impl FnMut(&[K], &[V]) -> ControlFlow<()>,
) -> io::Result<()> {
    let room = map.info().map_err(from_map)?.max_entries() as usize;
    let mut previous = (!start.is_empty()).then(|| start.to_vec());
    let mut values = vec![V::ZERO; form.value];
    for _ in 0..most.min(room) {
        let mut key = vec![K::ZERO; form.key];
        let mut next = Element {
            map_fd: fd(map),
            key: previous.as_ref().map_or(0, |key| key.as_ptr().addr() as u64),
            value: key.as_mut_ptr().addr() as u64,
            ..Element::default()
        };
        // SAFETY: both keys have the size that the map has, as the form says.
        match unsafe { call(BPF_MAP_GET_NEXT_KEY, &mut next) } {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
            result => result?,
        }
        let mut look_up = Element {
            map_fd: fd(map),
            key: key.as_ptr().addr() as u64,
            value: values.as_mut_ptr().addr() as u64,
            ..Element::default()
        };
        // SAFETY: as above, and `values` holds one value for each possible CPU where the map has them.
        let found = unsafe { call(BPF_MAP_LOOKUP_ELEM, &mut look_up) };
        let key = previous.insert(key);
        match found {
            // Removed since the walk met its key.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => continue,
            result => result?,
        }
        if each(key, &values).is_break() {
            break;
        }
    }
    Ok(())
}
