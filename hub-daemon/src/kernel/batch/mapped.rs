//! Elements of an array out of memory that the kernel shares, without a copy by the kernel of each.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::ptr::{self, NonNull};

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
    let mapped = Mapped::open(map, first as usize + count, size_of::<V>())?;
    for index in (first..).take(count) {
        let value = mapped.get(index as usize).ok_or(io::ErrorKind::InvalidInput)?;
        each(index, &[value]);
    }
    Ok(())
}

/// The first elements of an array.
struct Mapped {
    memory: NonNull<libc::c_void>,
    length: usize,
    elements: usize,
    value_bytes: usize,
}

impl Mapped {
    /// Maps the first `elements`, of so many bytes each.
    fn open(map: &MapData, elements: usize, value_bytes: usize) -> io::Result<Self> {
        let length = elements * value_bytes.next_multiple_of(8);
        let fd = map.fd().as_fd().as_raw_fd();
        // SAFETY: a mapping of its own at a place that the kernel chooses, to be read only.
        let memory = unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, fd, 0) };
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
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and copies were given out only.
        let unmapped = unsafe { libc::munmap(self.memory.as_ptr(), self.length) };
        debug_assert_eq!(unmapped, 0, "an address and length that mmap gave");
    }
}
