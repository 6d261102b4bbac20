//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

#![expect(
    clippy::indexing_slicing,
    reason = "bounds are constants; a panic that can be reached does not load"
)]

/// Adds 16-bit words to a running sum; an odd last byte counts as the high half of a word.
#[inline(always)]
pub fn add_bytes(mut sum: u32, bytes: &[u8]) -> u32 {
    let mut at = 0;
    while at + 1 < bytes.len() {
        sum += u16::from_be_bytes([bytes[at], bytes[at + 1]]) as u32;
        at += 2;
    }
    if at < bytes.len() {
        sum += (bytes[at] as u32) << 8;
    }
    sum
}

/// Folds a running sum into 16 bits, without the final complement.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

/// The checksum field for a running sum.
#[inline(always)]
pub const fn finish(sum: u32) -> u16 {
    !fold(sum)
}

/// The checksum after one 16-bit word changed from `old` to `new`.
#[inline(always)]
pub const fn replace(checksum: u16, old: u16, new: u16) -> u16 {
    finish((!checksum) as u32 + (!old) as u32 + new as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn replacing_equals_computing_anew(mut words in prop::collection::vec(any::<u16>(), 2..40), at in 0usize..40, new: u16) {
            let at = at % words.len();
            // An IP header is never all zero: the one case where RFC 1624 has two answers.
            words[(at + 1) % 2] |= 1;
            let bytes = |w: &[u16]| w.iter().flat_map(|w| w.to_be_bytes()).collect::<Vec<u8>>();
            let old = finish(add_bytes(0, &bytes(&words)));
            let updated = replace(old, words[at], new);
            words[at] = new;
            let whole = add_bytes(updated as u32, &bytes(&words));
            prop_assert_eq!(fold(whole), 0xffff);
        }
    }
}
