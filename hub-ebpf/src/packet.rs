//! The only bounds check: packet bytes by value, for XDP and TC alike.

use hub_common::parse::Bytes;

/// The readable part of a frame, and its whole length.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    /// Address of the first byte.
    pub(crate) start: usize,
    /// Address after the last readable byte.
    pub(crate) end: usize,
    /// Bytes of the whole frame, also those beyond `end`.
    pub(crate) bytes: usize,
}

impl Bytes for Frame {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let at = self.start + offset;
        if at + N > self.end {
            return None;
        }
        let mut bytes = [0; N];
        let mut done = 0;
        while done + 8 <= N {
            // SAFETY: start..end is the packet's memory and at..at+N lies in it. The BPF machine reads
            // packet words at any address; a byte-wise read would be eight instructions for each.
            let word = unsafe { *((at + done) as *const u64) };
            bytes[done..done + 8].copy_from_slice(&word.to_ne_bytes());
            done += 8;
        }
        while done + 4 <= N {
            // SAFETY: as above.
            let word = unsafe { *((at + done) as *const u32) };
            bytes[done..done + 4].copy_from_slice(&word.to_ne_bytes());
            done += 4;
        }
        while done + 2 <= N {
            // SAFETY: as above.
            let word = unsafe { *((at + done) as *const u16) };
            bytes[done..done + 2].copy_from_slice(&word.to_ne_bytes());
            done += 2;
        }
        if done < N {
            // SAFETY: as above.
            bytes[done] = unsafe { *((at + done) as *const u8) };
        }
        Some(bytes)
    }

    #[inline(always)]
    fn frame_bytes(&self) -> usize {
        self.bytes
    }
}

impl Frame {
    /// Overwrites `N` bytes, an even number, at `offset`; false where the readable part ends before them.
    ///
    /// In words as programs read them: a processor hands on what was stored just before only to a read of no more.
    #[inline(always)]
    pub(crate) fn write<const N: usize>(&self, offset: usize, bytes: [u8; N]) -> bool {
        let at = self.start + offset;
        if at + N > self.end {
            return false;
        }
        let mut done = 0;
        while done + 4 <= N {
            let word = [bytes[done], bytes[done + 1], bytes[done + 2], bytes[done + 3]];
            // SAFETY: as in `read`; the program owns the packet while it runs.
            unsafe { *((at + done) as *mut u32) = u32::from_ne_bytes(word) };
            done += 4;
        }
        while done + 2 <= N {
            // SAFETY: as in `read`; the program owns the packet while it runs.
            unsafe { *((at + done) as *mut u16) = u16::from_ne_bytes([bytes[done], bytes[done + 1]]) };
            done += 2;
        }
        true
    }
}
