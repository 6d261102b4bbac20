//! Whole maps in few calls: the batch commands of bpf(2), which aya does not offer.
//!
//! A hash map is walked bucket by bucket, so entries that come and go meanwhile are seen or not, and no entry
//! is seen twice. Kernels and map kinds without the commands are walked key by key, to the same effect but
//! slower, and there an entry may be seen again when its neighbour was removed meanwhile.
//!
//! Every pointer handed to the kernel goes to a buffer that is sized here, from what the kernel
//! says of the map.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::Pod;
use aya::maps::{MapData, MapError, MapType};
use hub_common::shared::Zero;
use nix::errno::Errno;

mod mapped;
pub mod raw;
#[cfg(test)]
mod tests;
mod walk;

pub use mapped::Store;
use walk::{Form, Walk, one_by_one};

/// Largest key of a map, and room for the kernel's own position in it.
const KEY_BYTES: usize = 64;
/// `ENOTSUPP`: what some kernels answer to a command that a map kind lacks.
const NOT_SUPPORTED: i32 = 524;

/// Flag of arrays whose memory may be mapped.
const BPF_F_MMAPABLE: u32 = 1 << 10;

const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_MAP_GET_NEXT_KEY: libc::c_long = 4;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;
const BPF_MAP_DELETE_BATCH: libc::c_long = 27;

/// `union bpf_attr` for the batch commands.
#[repr(C)]
#[derive(Default)]
struct Batch {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// `union bpf_attr` for the commands on one element; `value` is `next_key` where one is asked for.
#[repr(C)]
#[derive(Default)]
struct Element {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// A key, or the kernel's position in a map.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Token([u8; KEY_BYTES]);

/// Calls `each` with every entry until it breaks off; per-CPU maps have a value for each possible CPU.
pub fn entries<K: Pod + Zero, V: Pod + Zero>(
    map: &MapData,
    mut each: impl FnMut(&K, &[V]) -> ControlFlow<()>,
) -> io::Result<()> {
    let form = Form { key: 1, value: width::<K, V>(map)? };
    walk::all(map, form, &mut |keys: &[K], values: &[V]| match keys {
        [key] => each(key, values),
        _ => ControlFlow::Continue(()),
    })
}

/// Calls `each` with `count` elements of an array from index `first` on, or as many as there are.
pub fn range<V: Pod + Zero>(
    map: &MapData,
    first: u32,
    count: u32,
    mut each: impl FnMut(u32, &[V]),
) -> io::Result<()> {
    let info = map.info().map_err(from_map)?;
    // The kernel begins anew behind the end of an array.
    let count = count.min(info.max_entries().saturating_sub(first)) as usize;
    if count != 0 && info.map_flags() & BPF_F_MMAPABLE != 0 {
        check_single::<u32, V>(map)?;
        return mapped::range(map, first, count, each);
    }
    let form = Form { key: 1, value: width::<u32, V>(map)? };
    let mut each = |keys: &[u32], values: &[V]| {
        if let [key] = keys {
            each(*key, values);
        }
        ControlFlow::Continue(())
    };
    let start = first.checked_sub(1);
    // An array's position is the index before.
    let mut walk = Walk::<u32, V>::new(map, form, start.map(|index| Token::from(&index)));
    let mut left = count;
    while left > 0 && !walk.has_ended() {
        match walk.next(left) {
            Err(error) if left == count && is_unsupported(&error) => {
                return one_by_one(map, form, start.as_slice(), left, &mut each);
            }
            Err(error) => return Err(error),
            Ok(()) => {}
        }
        left = left.saturating_sub(walk.count());
        // `each` never breaks off.
        let _goes_on = walk.deliver(&mut each);
    }
    Ok(())
}

/// Puts entries into a map that has one value for all CPUs. After an error the entries before it are there;
/// returns how many those are, with the error.
pub fn put<K: Pod, V: Pod>(map: &MapData, entries: &[(K, V)]) -> (usize, io::Result<()>) {
    if let Err(error) = check_single::<K, V>(map) {
        return (0, Err(error));
    }
    // The kernel wants keys and values apart.
    let (keys, values): (Vec<K>, Vec<V>) = entries.iter().copied().unzip();
    let mut batch = Batch {
        keys: keys.as_ptr().addr() as u64,
        values: values.as_ptr().addr() as u64,
        count: u32::try_from(entries.len()).unwrap_or(u32::MAX),
        map_fd: fd(map),
        ..Batch::default()
    };
    if entries.len() > 1 {
        // SAFETY: `keys` and `values` hold `count` entries of the sizes that the map has, checked above.
        match unsafe { call(BPF_MAP_UPDATE_BATCH, &mut batch) } {
            Err(error) if is_unsupported(&error) => {}
            Ok(()) => return (entries.len(), Ok(())),
            // Refused as a whole, the kernel leaves the count as it was.
            Err(error) => {
                return (Some(batch.count as usize).filter(|n| *n < entries.len()).unwrap_or(0), Err(error));
            }
        }
    }
    for (index, (key, value)) in keys.iter().zip(&values).enumerate() {
        let mut element = Element {
            map_fd: fd(map),
            key: (&raw const *key).addr() as u64,
            value: (&raw const *value).addr() as u64,
            ..Element::default()
        };
        // SAFETY: key and value have the sizes that the map has, checked above.
        if let Err(error) = unsafe { call(BPF_MAP_UPDATE_ELEM, &mut element) } {
            return (index, Err(error));
        }
    }
    (entries.len(), Ok(()))
}

/// Removes entries by key; keys that are gone already do not matter. Returns how many it removed.
pub fn remove<K: Pod>(map: &MapData, keys: &[K]) -> io::Result<usize> {
    check_key::<K>(map)?;
    let (mut rest, mut removed) = (keys, 0);
    while !rest.is_empty() {
        let mut batch = Batch {
            keys: rest.as_ptr().addr() as u64,
            count: u32::try_from(rest.len()).unwrap_or(u32::MAX),
            map_fd: fd(map),
            ..Batch::default()
        };
        // SAFETY: `keys` holds `count` keys of the size that the map has, checked above.
        let result = unsafe { call(BPF_MAP_DELETE_BATCH, &mut batch) };
        let done = batch.count as usize;
        match result {
            Err(error) if is_unsupported(&error) => return Ok(removed + remove_one_by_one(map, rest)?),
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => return Err(error),
            // It stopped at a key that is gone.
            Err(_) => rest = rest.get(done + 1..).unwrap_or_default(),
            Ok(()) => rest = rest.get(done.max(1)..).unwrap_or_default(),
        }
        removed += done;
    }
    Ok(removed)
}

fn remove_one_by_one<K: Pod>(map: &MapData, keys: &[K]) -> io::Result<usize> {
    let mut removed = 0;
    for key in keys {
        let mut element =
            Element { map_fd: fd(map), key: (&raw const *key).addr() as u64, ..Element::default() };
        // SAFETY: the caller checked that keys have the size that the map has.
        match unsafe { call(BPF_MAP_DELETE_ELEM, &mut element) } {
            Ok(()) => removed += 1,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(removed)
}

/// Calls bpf(2).
///
/// # Safety
/// Addresses in `attribute` are zero or lead to as many bytes as the command reads or writes there.
unsafe fn call<T>(command: libc::c_long, attribute: &mut T) -> io::Result<()> {
    // SAFETY: the caller vouches for what `attribute` leads to; its own size is passed with it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attribute, size_of::<T>()) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Number of values per entry, after checking that the map's sizes are those of the types.
fn width<K: Pod, V: Pod>(map: &MapData) -> io::Result<usize> {
    check_key::<K>(map)?;
    let info = map.info().map_err(from_map)?;
    if info.value_size() as usize != size_of::<V>() {
        return Err(misfit("value", info.value_size(), size_of::<V>()));
    }
    if !matches!(
        info.map_type().map_err(from_map)?,
        MapType::PerCpuHash | MapType::PerCpuArray | MapType::LruPerCpuHash
    ) {
        return Ok(1);
    }
    // The kernel rounds a CPU's value up to eight bytes; ours are multiples of it.
    if !size_of::<V>().is_multiple_of(8) {
        return Err(misfit("value of a CPU", info.value_size(), size_of::<V>().next_multiple_of(8)));
    }
    aya::util::nr_cpus().map_err(|(_, error)| error)
}

fn check_single<K: Pod, V: Pod>(map: &MapData) -> io::Result<()> {
    match width::<K, V>(map)? {
        1 => Ok(()),
        cpus => Err(misfit("value of all CPUs", u32::try_from(cpus).unwrap_or(u32::MAX), 1)),
    }
}

fn check_key<K: Pod>(map: &MapData) -> io::Result<()> {
    let bytes = map.info().map_err(from_map)?.key_size();
    if bytes as usize == size_of::<K>() && size_of::<K>() <= KEY_BYTES {
        Ok(())
    } else {
        Err(misfit("key", bytes, size_of::<K>()))
    }
}

fn misfit(what: &str, found: u32, wanted: usize) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the {what} has {found} bytes, not {wanted}: the map is of another version"),
    )
}

/// What the kernel said, out of aya's error.
pub fn from_map(error: MapError) -> io::Error {
    if let MapError::SyscallError(error) = error { error.io_error } else { io::Error::other(error) }
}

fn is_unsupported(error: &io::Error) -> bool {
    let unsupported = [libc::EINVAL, Errno::ENOTSUP as i32, NOT_SUPPORTED];
    error.raw_os_error().is_some_and(|code| unsupported.contains(&code))
}

fn fd(map: &MapData) -> u32 {
    map.fd().as_fd().as_raw_fd().cast_unsigned()
}

impl From<&u32> for Token {
    fn from(index: &u32) -> Self {
        let mut bytes = [0; KEY_BYTES];
        for (to, from) in bytes.iter_mut().zip(index.to_ne_bytes()) {
            *to = from;
        }
        Self(bytes)
    }
}
