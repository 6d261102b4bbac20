//! Packet bytes in words of four, as they lie there: the compiler takes byte by byte what it takes for bytes.

use crate::packet::Frame;

impl Frame {
    /// The `N` words at `offset`, or `None` where the readable part ends before them.
    #[inline(always)]
    pub(crate) fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let at = self.start + offset;
        if at + 4 * N > self.end {
            return None;
        }
        let mut words = [0; N];
        let mut done = 0;
        while done < N {
            // SAFETY: start..end is the packet's memory and the words lie in it; see `read`.
            words[done] = unsafe { *((at + 4 * done) as *const u32) };
            done += 1;
        }
        Some(words)
    }

    /// Overwrites `N` words at `offset`; false where the readable part ends before them.
    #[inline(always)]
    pub(crate) fn put_words<const N: usize>(&self, offset: usize, words: [u32; N]) -> bool {
        let at = self.start + offset;
        if at + 4 * N > self.end {
            return false;
        }
        let mut done = 0;
        while done < N {
            // SAFETY: as in `words`; the program owns the packet while it runs.
            unsafe { *((at + 4 * done) as *mut u32) = words[done] };
            done += 1;
        }
        true
    }

    /// Whether the frame begins with this MAC address; false where the readable part ends before its end.
    #[inline(always)]
    pub(crate) fn is_to(&self, mac: &[u8; 6]) -> bool {
        if self.start + 6 > self.end {
            return false;
        }
        let wanted = mac.as_ptr() as usize;
        word(self.start) == word(wanted) && half(self.start + 4) == half(wanted + 4)
    }
}

#[inline(always)]
fn word(at: usize) -> u32 {
    // SAFETY: both callers' six bytes are theirs to read: the frame's first, and an array.
    unsafe { *(at as *const u32) }
}

#[inline(always)]
fn half(at: usize) -> u16 {
    // SAFETY: as in `word`.
    unsafe { *(at as *const u16) }
}
