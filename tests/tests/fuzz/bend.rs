//! Bends seeds: bits, bytes, words of a dictionary, pieces of other seeds, cuts.

use hub_tests::generate::Random;

/// What parsers of this hub look for, and numbers at the edges.
const WORDS: [&[u8]; 28] = [
    b"kind: persona\n",
    b"ip_range",
    b"security_policies",
    b"\"version\":",
    b"expiration",
    b"10.0.0.0/8",
    b"fd00::/64",
    b"::ffff:1.2.3.4",
    b"9999-12-31T23:59:60Z",
    b"-1",
    b"18446744073709551616",
    b"1e400",
    b"null",
    b"[[[[[[[[",
    b"{\"a\":{\"a\":",
    b"&a [*a, *a]",
    b"<<: *a\n",
    b"---\n",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\x00",
    b"\\ud800",
    b"\x81\x00\x88\xa8",
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x80",
    b"\xb1\x00\x00\x00",
    b"\x04\x00",
    b"\x08\x00\x00\x00",
];
/// No case is longer.
const LONGEST: usize = 32_768;

/// One seed, or two of them, with a few changes.
pub(crate) fn bend(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = random.pick(seeds).unwrap_or_default();
    for _ in 0..=random.below(6) {
        let at = random.below(bytes.len() + 1);
        let end = at + random.below((bytes.len() - at).min(64) + 1);
        match random.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.byte(),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            4 => {
                let word = random.pick(&WORDS).unwrap_or_default();
                bytes.splice(at..at, word.iter().copied());
            }
            5 => {
                let word = random.pick(&WORDS).unwrap_or_default();
                bytes.splice(at..end, word.iter().copied());
            }
            6 => {
                let other = random.pick(seeds).unwrap_or_default();
                let from = random.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => bytes.truncate(bytes.len() - random.below(bytes.len().min(32) + 1)),
        }
    }
    bytes.truncate(LONGEST);
    bytes
}
