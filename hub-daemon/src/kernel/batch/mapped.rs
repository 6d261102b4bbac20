//! Elements of an array in memory that the kernel shares, without a call or a copy by the kernel for each.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

use aya::Pod;
use aya::maps::MapData;

/// Calls `each` with `count` elements from index `first` on, which the array has; for arrays with
/// `BPF_F_MMAPABLE` whose values are of this type.
pub(super) fn range<V: Pod>(
    map: &MapData,
    first: u32,
    count: usize,
    mut each: impl FnMut(u32, &[V]),
) -> io::Result<()> {
    let mapped = Mapped::open(map, first as usize + count, size_of::<V>(), libc::PROT_READ)?;
    for index in (first..).take(count) {
        let value = mapped.get(index as usize).ok_or(io::ErrorKind::InvalidInput)?;
        each(index, &[value]);
    }
    Ok(())
}

/// An array that is written through memory; where it has none to share, by calls.
pub struct Store<V> {
    mapped: Option<Mapped>,
    values: PhantomData<V>,
}

impl<V: Pod> Store<V> {
    /// Maps the whole of an array whose values are of this type.
    pub fn open(map: &MapData) -> Self {
        let open = || {
            super::check_single::<u32, V>(map)?;
            let info = map.info().map_err(super::from_map)?;
            let has_memory = info.map_flags() & super::BPF_F_MMAPABLE != 0;
            if !has_memory || !size_of::<V>().is_multiple_of(8) || align_of::<V>() > 8 {
                return Ok(None);
            }
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            Mapped::open(map, info.max_entries() as usize, size_of::<V>(), protection).map(Some)
        };
        let mapped = open().unwrap_or_else(|error: io::Error| {
            tracing::debug!(%error, "an array is written by calls");
            None
        });
        Self { mapped, values: PhantomData }
    }

    /// Writes elements from index `first` on. Whoever sees a word sees all that was written before it, and of one
    /// element words that were written are before words that were not, as when the kernel copies it.
    pub fn set(&self, map: &MapData, first: u32, values: &[V]) -> io::Result<()> {
        let Some(mapped) = &self.mapped else {
            let entries: Vec<(u32, V)> = (first..).zip(values.iter().copied()).collect();
            return super::put(map, &entries).1;
        };
        for (index, value) in (first as usize..).zip(values) {
            mapped.set(index, value)?;
        }
        Ok(())
    }
}

/// The first elements of an array.
struct Mapped {
    memory: NonNull<libc::c_void>,
    length: usize,
    elements: usize,
    value_bytes: usize,
}

// SAFETY: the memory is the process's, whichever thread looks at it.
unsafe impl Send for Mapped {}

impl Mapped {
    /// Maps the first `elements`, of so many bytes each.
    fn open(map: &MapData, elements: usize, value_bytes: usize, protection: i32) -> io::Result<Self> {
        let length = elements * value_bytes.next_multiple_of(8);
        let fd = map.fd().as_fd().as_raw_fd();
        // SAFETY: a mapping of its own at a place that the kernel chooses.
        let memory = unsafe { libc::mmap(ptr::null_mut(), length, protection, libc::MAP_SHARED, fd, 0) };
        match NonNull::new(memory) {
            Some(memory) if memory.as_ptr() != libc::MAP_FAILED => {
                Ok(Self { memory, length, elements, value_bytes })
            }
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// A copy of an element, which may be mixed with another if it is being written.
    fn get<V: Pod>(&self, index: usize) -> Option<V> {
        if index >= self.elements || size_of::<V>() != self.value_bytes || align_of::<V>() > 8 {
            return None;
        }
        let start = index * self.value_bytes.next_multiple_of(8);
        // SAFETY: `start` is before the end of the mapping, by the length that it was made with.
        let place = unsafe { self.memory.cast::<u8>().add(start) };
        // SAFETY: a whole value lies there, at a multiple of eight bytes; `V` is any bytes; others may write.
        Some(unsafe { place.cast::<V>().read_volatile() })
    }

    /// Writes an element word by word, in order, while packets may read it.
    fn set<V: Pod>(&self, index: usize, value: &V) -> io::Result<()> {
        if index >= self.elements || size_of::<V>() != self.value_bytes {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: `index` is before the end of the mapping, by the length that it was made with.
        let place = unsafe { self.memory.cast::<u8>().add(index * self.value_bytes) };
        for word in 0..self.value_bytes / 8 {
            // SAFETY: a value has this many words of eight bytes.
            let value = unsafe { ptr::from_ref(value).cast::<u64>().add(word) };
            // SAFETY: any eight bytes are a number.
            let value = unsafe { value.read_unaligned() };
            // SAFETY: the same word of the element; elements are multiples of eight bytes from a page on.
            let place = unsafe { place.cast::<u64>().add(word) };
            // SAFETY: the mapping is to be written, holds the word whole, and outlives the reference.
            let place = unsafe { AtomicU64::from_ptr(place.as_ptr()) };
            place.store(value, Ordering::Release);
        }
        Ok(())
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and copies were given out only.
        let unmapped = unsafe { libc::munmap(self.memory.as_ptr(), self.length) };
        debug_assert_eq!(unmapped, 0, "an address and length that mmap gave");
    }
}
