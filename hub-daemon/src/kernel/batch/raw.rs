//! Entries as the bytes that they are, for whoever moves them without a look inside.

use std::io;
use std::ops::ControlFlow;

use aya::maps::{MapData, MapType};

use super::walk::{self, Form};
use super::{
    BPF_MAP_LOOKUP_ELEM, BPF_MAP_UPDATE_BATCH, BPF_MAP_UPDATE_ELEM, Batch, Element, KEY_BYTES, call, fd,
    from_map, is_unsupported,
};

/// Whether an entry that is there already is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Put it whether there is one under its key or not.
    Any,
    /// Put it where there is none; `EEXIST` says that there is one.
    IfMissing,
}

/// A map, with what the kernel gives and takes for an entry, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Raw<'a> {
    map: &'a MapData,
    key: usize,
    value: usize,
    stride: usize,
}

impl<'a> Raw<'a> {
    /// A map with keys and values.
    pub fn of(map: &'a MapData) -> io::Result<Self> {
        let info = map.info().map_err(from_map)?;
        let (key, value) = (info.key_size() as usize, info.value_size() as usize);
        if key == 0 || key > KEY_BYTES || value == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the map has no entries to walk"));
        }
        let kind = info.map_type().map_err(from_map)?;
        if !matches!(kind, MapType::PerCpuHash | MapType::PerCpuArray | MapType::LruPerCpuHash) {
            return Ok(Self { map, key, value, stride: value });
        }
        let stride = value.next_multiple_of(8);
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        Ok(Self { map, key, value: stride * cpus, stride })
    }

    /// Bytes of a value; where each CPU has one, of all of them.
    pub fn value_bytes(&self) -> usize {
        self.value
    }

    /// Bytes of one CPU's value with what fills it up, or of the only one.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Calls `each` with key and value of every entry until it breaks off.
    pub fn entries(&self, mut each: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>) -> io::Result<()> {
        walk::all(self.map, Form { key: self.key, value: self.value }, &mut each)
    }

    /// Puts entries whose keys lie one behind the other, and their values likewise. After an error the entries
    /// before it are there; returns how many those are, with the error.
    pub fn put(&self, keys: &[u8], values: &[u8]) -> (usize, io::Result<()>) {
        let count = (keys.len() / self.key).min(values.len() / self.value);
        if count == 0 {
            return (0, Ok(()));
        }
        let mut batch = Batch {
            keys: keys.as_ptr().addr() as u64,
            values: values.as_ptr().addr() as u64,
            count: u32::try_from(count).unwrap_or(u32::MAX),
            map_fd: fd(self.map),
            ..Batch::default()
        };
        // SAFETY: `keys` and `values` hold `count` entries of the sizes that the map has, as counted above.
        match unsafe { call(BPF_MAP_UPDATE_BATCH, &mut batch) } {
            Err(error) if is_unsupported(&error) => {}
            Ok(()) => return (count, Ok(())),
            // Refused as a whole, the kernel leaves the count as it was.
            Err(error) => {
                return (Some(batch.count as usize).filter(|n| *n < count).unwrap_or(0), Err(error));
            }
        }
        let pairs = keys.chunks_exact(self.key).zip(values.chunks_exact(self.value));
        for (index, (key, value)) in pairs.enumerate() {
            if let Err(error) = self.set(key, value, How::Any) {
                return (index, Err(error));
            }
        }
        (count, Ok(()))
    }

    /// Puts one entry.
    pub fn set(&self, key: &[u8], value: &[u8], how: How) -> io::Result<()> {
        self.check(key, value)?;
        let mut element = Element {
            map_fd: fd(self.map),
            key: key.as_ptr().addr() as u64,
            value: value.as_ptr().addr() as u64,
            flags: u64::from(how == How::IfMissing),
            ..Element::default()
        };
        // SAFETY: key and value have the sizes that the map has, checked above.
        unsafe { call(BPF_MAP_UPDATE_ELEM, &mut element) }
    }

    /// Reads a value; false if there is none under the key.
    pub fn get(&self, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
        self.check(key, value)?;
        let mut element = Element {
            map_fd: fd(self.map),
            key: key.as_ptr().addr() as u64,
            value: value.as_mut_ptr().addr() as u64,
            ..Element::default()
        };
        // SAFETY: key and value have the sizes that the map has, checked above.
        match unsafe { call(BPF_MAP_LOOKUP_ELEM, &mut element) } {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            result => result.map(|()| true),
        }
    }

    fn check(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let fits = key.len() == self.key && value.len() == self.value;
        if fits { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }
}
