//! What a payload says, read step by step.

use super::{
    Features, Found, HELLO_EXTENSIONS, KIND_DNS, KIND_HTTP, KIND_OTHER, KIND_QUIC, KIND_SMTP, KIND_SSH,
    KIND_TLS, NAME_BYTES, OFFER_BYTES, OFFERS, PAYLOAD_BYTES, Payload, SEARCH_STEP,
};

pub(super) const MASK: usize = PAYLOAD_BYTES - 1;
/// A search has come to the end.
pub const NOT_FOUND: u32 = u32::MAX;
const HOST: u64 = u64::from_be_bytes([0, 0, b'\n', b'h', b'o', b's', b't', b':']);
const WINDOW: u64 = (1 << 48) - 1;

/// FNV-1a, by which names of protocols are compared.
#[inline(always)]
const fn hashed(hash: u64, byte: u8) -> u64 {
    (hash ^ byte as u64).wrapping_mul(0x0100_0000_01b3)
}

const HASH_OF_NOTHING: u64 = 0xcbf2_9ce4_8422_2325;

/// The hash of a protocol's name (ALPN).
pub fn offer(name: &[u8]) -> u64 {
    name.iter().fold(HASH_OF_NOTHING, |hash, byte| hashed(hash, *byte))
}

/// A capital letter as a small one.
// VERIFIER(6.18): without a branch, which loops over names would walk twice at each letter.
#[inline(always)]
pub(super) const fn small(byte: u8) -> u8 {
    let above = (byte as u32).wrapping_sub(b'A' as u32);
    let is_capital = (above.wrapping_sub(26) & !above) >> 31;
    byte | (is_capital << 5) as u8
}

impl Payload {
    /// The byte at a place, if it is there.
    #[inline(always)]
    fn at(&self, place: u32) -> Option<u8> {
        if place < self.length { Some(self.bytes[place as usize & MASK]) } else { None }
    }

    #[inline(always)]
    fn two_at(&self, place: u32) -> Option<u32> {
        Some(u32::from(self.at(place)?) << 8 | u32::from(self.at(place + 1)?))
    }

    /// The first eight bytes, those that are not there zero.
    #[inline(always)]
    fn start(&self) -> u64 {
        let b = &self.bytes;
        let start = u64::from_be_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
        if self.length >= 8 { start } else { start & !(u64::MAX >> (self.length * 8)) }
    }
}

/// Whether the first eight bytes begin with a text.
#[inline(always)]
const fn begins(start: u64, with: &[u8]) -> bool {
    let mut wanted = 0;
    let mut at = 0;
    while at < with.len() {
        wanted = wanted << 8 | with[at] as u64;
        at += 1;
    }
    start >> (64 - 8 * with.len()) == wanted
}

/// What kind of payload it is; sets kind and method.
#[inline(always)]
pub fn recognise(payload: &Payload, is_tcp: bool, features: &mut Features) {
    features.kind = if is_tcp { of_tcp(payload, features) } else { of_udp(payload) };
}

#[inline(always)]
fn of_tcp(payload: &Payload, features: &mut Features) -> u8 {
    let start = payload.start();
    // RFC 8446 section 5.1: a handshake record, then section 4: a client hello.
    if start & 0xffff_0000_00ff_0000 == 0x1603_0000_0001_0000 {
        return KIND_TLS;
    }
    if begins(start, b"SSH-") {
        return KIND_SSH;
    }
    if begins(start, b"220 ") || begins(start, b"220-") || begins(start, b"EHLO ") || begins(start, b"HELO ")
    {
        return KIND_SMTP;
    }
    features.method = method(start);
    if features.method != 0 { KIND_HTTP } else { KIND_OTHER }
}

#[inline(always)]
const fn method(start: u64) -> u8 {
    if begins(start, b"GET ") {
        1
    } else if begins(start, b"HEAD ") {
        2
    } else if begins(start, b"POST ") {
        3
    } else if begins(start, b"PUT ") {
        4
    } else if begins(start, b"DELETE ") {
        5
    } else if begins(start, b"CONNECT ") {
        6
    } else if begins(start, b"OPTIONS ") {
        7
    } else if begins(start, b"TRACE ") {
        8
    } else if begins(start, b"PATCH ") {
        9
    } else {
        0
    }
}

#[inline(always)]
fn of_udp(payload: &Payload) -> u8 {
    // RFC 1035 section 4.1.1: a query with one question and no answer.
    let flags = payload.two_at(2);
    let is_query = flags.is_some_and(|flags| flags & 0xf800 == 0);
    if is_query
        && payload.two_at(4) == Some(1)
        && payload.two_at(6) == Some(0)
        && payload.two_at(8) == Some(0)
    {
        return KIND_DNS;
    }
    // RFC 9000 section 17.2: a long header with the fixed bit, and a version.
    let long = payload.at(0).is_some_and(|first| first & 0xc0 == 0xc0);
    if long && (payload.two_at(1) != Some(0) || payload.two_at(3) != Some(0)) {
        KIND_QUIC
    } else {
        KIND_OTHER
    }
}

/// Where the extensions of a client's hello begin, and where they end.
#[inline(always)]
pub fn hello(payload: &Payload) -> Option<[u32; 2]> {
    // Record (5), handshake (4), version (2), random (32).
    let session = payload.at(43)?;
    let suites = 44 + u32::from(session);
    let compression = suites + 2 + payload.two_at(suites)?;
    let extensions = compression + 1 + u32::from(payload.at(compression)?);
    let first = extensions + 2;
    Some([first, first + payload.two_at(extensions)?])
}

/// Looks at one extension of a hello; answers where the next one begins, or [`NOT_FOUND`].
#[inline(always)]
pub fn extension(payload: &Payload, place: u32, end: u32, found: &mut Found) -> u32 {
    if place >= end {
        return NOT_FOUND;
    }
    let (Some(kind), Some(length)) = (payload.two_at(place), payload.two_at(place + 2)) else {
        return NOT_FOUND;
    };
    let inside = place + 4;
    // RFC 6066 section 3: a list of names, of which the first is a host's.
    if kind == 0 && payload.at(inside + 2) == Some(0) {
        found.letters = payload.two_at(inside + 3).unwrap_or(0);
        found.name_at = inside + 5;
    }
    // RFC 7301 section 3.1: a list of protocols.
    if kind == 16 {
        (found.offers_at, found.offers_end) = (inside + 2, inside + length);
    }
    inside + length
}

/// Takes the name that was found, if it is there whole.
#[inline(always)]
pub fn take_name(payload: &Payload, found: &Found, features: &mut Features) {
    let (place, letters) = (found.name_at, found.letters);
    if letters == 0 || letters > NAME_BYTES as u32 || place.saturating_add(letters) > payload.length {
        return;
    }
    let mut at = 0;
    while at < NAME_BYTES as u32 {
        if at >= letters {
            break;
        }
        let letter = small(payload.bytes[(place + at) as usize & MASK]);
        put(features, letters - 1 - at, letter);
        at += 1;
    }
    features.name_bytes = letters;
}

#[inline(always)]
pub(super) fn put(features: &mut Features, place: u32, letter: u8) {
    features.name[(place >> 3) as usize & (NAME_BYTES / 8 - 1)] |= u64::from(letter) << ((place & 7) * 8);
}

/// Takes one of the protocols offered, that which `found` is at, and moves on.
#[inline(always)]
pub fn take_offer(payload: &Payload, index: u32, found: &mut Found, features: &mut Features) {
    let place = found.offers_at;
    let Some(length) = payload.at(place).filter(|_| place < found.offers_end) else { return };
    let length = u32::from(length);
    found.offers_at = place + 1 + length;
    let mut hash = HASH_OF_NOTHING;
    let mut at = 0;
    while at < OFFER_BYTES as u32 {
        if at >= length {
            features.offers[index as usize & (OFFERS - 1)] = hash;
            return;
        }
        let Some(byte) = payload.at(place + 1 + at) else { return };
        hash = hashed(hash, byte);
        at += 1;
    }
    if length == OFFER_BYTES as u32 {
        features.offers[index as usize & (OFFERS - 1)] = hash;
    }
}

/// Looks for the host in a request, [`SEARCH_STEP`] bytes from `place` on. `window` is what was seen last, 0 at first.
/// Answers where the value begins, or [`NOT_FOUND`].
#[inline(always)]
pub fn search_host(payload: &Payload, place: u32, window: &mut u64) -> u32 {
    let mut at = 0;
    while at < SEARCH_STEP as u32 {
        let Some(byte) = payload.at(place + at) else { return NOT_FOUND };
        *window = (*window << 8 | u64::from(small(byte))) & WINDOW;
        at += 1;
        if *window == HOST {
            return place + at;
        }
    }
    NOT_FOUND
}

/// What ends the name of a host: the end of a line, a colon, a space.
const ENDS_OF_HOST: u64 = 1 << b'\r' | 1 << b'\n' | 1 << b':' | 1 << b' ';

/// Finds the host of a request from where its value begins: to a colon, a space or the end of the line.
#[inline(always)]
pub fn find_host(payload: &Payload, place: u32, found: &mut Found) {
    let mut first = place;
    // RFC 9112 section 5: white space before the value means nothing; more than two is not looked at.
    if payload.at(first) == Some(b' ') {
        first += 1;
    }
    if payload.at(first) == Some(b' ') {
        first += 1;
    }
    found.name_at = first;
    let mut letters = 0;
    while letters <= NAME_BYTES as u32 {
        // Cut off: what follows might change the name.
        let Some(byte) = payload.at(first + letters) else { return };
        if byte < 64 && ENDS_OF_HOST >> byte & 1 == 1 {
            break;
        }
        letters += 1;
    }
    found.letters = letters;
}

/// First label of the name that a DNS question asks for.
pub const QUESTION: u32 = 12;
/// Labels of a name that are looked at: as many as [`NAME_BYTES`] hold.
pub const LABELS: u32 = NAME_BYTES as u32 / 2 + 1;

/// Where the label behind that at `place` begins: `place` itself where the name ends, [`NOT_FOUND`] where it is cut.
#[inline(always)]
pub fn next_label(payload: &Payload, place: u32) -> u32 {
    match payload.at(place) {
        Some(0) => place,
        // RFC 1035 section 4.1.4: a pointer has no place in a question.
        Some(length @ 1..=63) => place + 1 + u32::from(length),
        Some(_) | None => NOT_FOUND,
    }
}

/// Finds the name of a question that ends at `end`. As it is taken, lengths of labels are in it: see [`part_label`].
#[inline(always)]
pub fn find_question(end: u32, found: &mut Found) {
    found.name_at = QUESTION + 1;
    found.letters = end.wrapping_sub(QUESTION + 1);
}

/// Puts a dot in place of the length of the label at `place`, in a name that was taken.
#[inline(always)]
pub fn part_label(payload: &Payload, place: u32, features: &mut Features) {
    let Some(length) = payload.at(place) else { return };
    // From the end of the name on.
    let behind = features.name_bytes.wrapping_sub(place.wrapping_sub(QUESTION));
    if behind < NAME_BYTES as u32 {
        let word = (behind >> 3) as usize & (NAME_BYTES / 8 - 1);
        features.name[word] ^= u64::from(small(length) ^ b'.') << ((behind & 7) * 8);
    }
}

/// Everything that a payload says.
pub fn features(payload: &Payload, is_tcp: bool) -> Features {
    let (mut features, mut found) = (Features::ZERO, Found::ZERO);
    recognise(payload, is_tcp, &mut features);
    match features.kind {
        KIND_TLS => {
            let Some([mut place, end]) = hello(payload) else { return features };
            for _ in 0..HELLO_EXTENSIONS {
                place = extension(payload, place, end, &mut found);
                if place == NOT_FOUND {
                    break;
                }
            }
            for index in 0..OFFERS as u32 {
                take_offer(payload, index, &mut found, &mut features);
            }
        }
        KIND_HTTP => {
            let mut window = 0;
            for step in 0..PAYLOAD_BYTES / SEARCH_STEP {
                let place = search_host(payload, (step * SEARCH_STEP) as u32, &mut window);
                if place != NOT_FOUND {
                    find_host(payload, place, &mut found);
                    break;
                }
            }
        }
        KIND_DNS => {
            let end = name_end(|place| next_label(payload, place));
            if end == NOT_FOUND {
                return features;
            }
            find_question(end, &mut found);
            take_name(payload, &found, &mut features);
            let mut place = next_label(payload, QUESTION);
            while place < end {
                part_label(payload, place, &mut features);
                place = next_label(payload, place);
            }
            return features;
        }
        _ => {}
    }
    take_name(payload, &found, &mut features);
    features
}

/// Where the name of a question ends, or [`NOT_FOUND`] for one that is cut, empty or too long.
#[inline(always)]
pub fn name_end(next: impl Fn(u32) -> u32) -> u32 {
    let mut place = QUESTION;
    let mut label = 0;
    while label < LABELS {
        let behind = next(place);
        if behind == place || behind > QUESTION + 1 + NAME_BYTES as u32 {
            break;
        }
        place = behind;
        label += 1;
    }
    if place > QUESTION && next(place) == place { place } else { NOT_FOUND }
}
