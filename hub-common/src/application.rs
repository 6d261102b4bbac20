//! What the first bytes of a connection say about its application.
//!
//! [`features`] reads them once: the kind of protocol, and the name that it asks for. A [`Signature`] is compared
//! with those, and with bytes at a place. What is not seen: names in encrypted hellos (ECH), in QUIC, and in hellos
//! of which the first packet does not hold the name.
//!
//! VERIFIER(6.18): loops are short and in functions of their own, and every index is masked: the kernel walks each
//! turn of a loop once for every way into it.

#![expect(
    clippy::indexing_slicing,
    reason = "bounds are constants; a panic that can be reached does not load"
)]

/// Bytes that are looked at; a power of two.
pub const PAYLOAD_BYTES: usize = 1_024;
/// Longest name that is compared in bytes.
pub const NAME_BYTES: usize = 64;
/// Protocols that a hello offers (ALPN) of which so many are looked at.
pub const OFFERS: usize = 4;
/// Longest of those in bytes.
const OFFER_BYTES: usize = 16;
/// Extensions of a hello that are looked at.
pub const HELLO_EXTENSIONS: u32 = 32;
/// Bytes that one step of a search looks at.
pub const SEARCH_STEP: usize = 32;

/// Signatures that a connection is remembered to bear.
pub const HEARD_SIGNATURES: usize = 7;
/// No rule asked.
pub const HEARD_NOT_ASKED: u8 = 0;
/// It has not said anything yet, and rules wait for it.
pub const HEARD_WAITS: u8 = 1;
/// It has spoken.
pub const HEARD_SPOKEN: u8 = 2;

/// Nothing that is known here.
pub const KIND_OTHER: u8 = 0;
/// TLS: a client's hello.
pub const KIND_TLS: u8 = 1;
/// HTTP/1: a request.
pub const KIND_HTTP: u8 = 2;
/// SSH: a banner, of either end.
pub const KIND_SSH: u8 = 3;
/// SMTP: a banner, or a greeting.
pub const KIND_SMTP: u8 = 4;
/// DNS: one question.
pub const KIND_DNS: u8 = 5;
/// QUIC: a long header. What is in it is encrypted.
pub const KIND_QUIC: u8 = 6;

/// Names of the kinds, by number.
pub const KINDS: [&str; 7] = ["other", "tls", "http", "ssh", "smtp", "dns", "quic"];
/// Methods of HTTP, by number from 1 on.
pub const METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

mod read;

pub use read::*;
use read::{MASK, put, small};

crate::shared! {
    /// The first bytes that one end of a connection sends, after the transport header.
    pub struct Payload {
        /// The bytes; those behind `length` mean nothing.
        pub bytes: [u8; PAYLOAD_BYTES],
        /// How many there are, at most [`PAYLOAD_BYTES`].
        pub length: u32,
        /// Zero.
        pub pad: u32,
    }

    /// What was read.
    pub struct Features {
        /// The name asked for, last letter first, in small letters, eight to a word, zeros behind it.
        pub name: [u64; NAME_BYTES / 8],
        /// Hashes of the protocols offered.
        pub offers: [u64; OFFERS],
        /// Letters of the name; 0 for none, or one that is too long.
        pub name_bytes: u32,
        /// One of `KIND_*`.
        pub kind: u8,
        /// Position in [`METHODS`] plus 1, 0 for none.
        pub method: u8,
        /// Zero.
        pub pad: [u8; 2],
    }

    /// What was heard of one connection.
    pub struct Heard {
        /// Slots plus 1 of signatures that it bears, 0 behind the last; more than fit are left out.
        pub signatures: [u8; HEARD_SIGNATURES],
        /// One of `HEARD_*`.
        pub state: u8,
    }

    /// Working space of what is read of one payload, one per CPU and hook.
    pub struct Hearing {
        /// The payload.
        pub payload: Payload,
        /// What it says.
        pub features: Features,
        /// Where what it says is.
        pub found: Found,
        /// What was seen last of a search.
        pub window: u64,
    }

    /// Where names are in a payload.
    pub struct Found {
        /// Where the name of the host begins.
        pub name_at: u32,
        /// Its letters, 0 for none.
        pub letters: u32,
        /// Where the next protocol that is offered stands.
        pub offers_at: u32,
        /// Where they end.
        pub offers_end: u32,
    }

    /// What the first bytes of an application look like. A part that is zero says nothing.
    pub struct Signature {
        /// The name, in the form of [`Features::name`].
        pub name: [u64; NAME_BYTES / 8],
        /// Which bits of the name are compared.
        pub name_mask: [u64; NAME_BYTES / 8],
        /// Hash of a protocol that must be among those offered.
        pub offer: u64,
        /// Connections that began before this tick were not asked for it.
        pub born_tick: u64,
        /// Bytes at `raw_at`, the first one lowest.
        pub raw: [u64; 2],
        /// Which bits of them are compared.
        pub raw_mask: [u64; 2],
        /// Where they are, from the start of the payload.
        pub raw_at: u32,
        /// How many there are.
        pub raw_bytes: u32,
        /// Letters that a name must have at least.
        pub name_least: u32,
        /// One of `KIND_*`.
        pub kind: u8,
        /// As in [`Features::method`].
        pub method: u8,
        /// 1 where there is a signature in the next slot.
        pub more: u8,
        /// Zero.
        pub pad: u8,
    }
}

impl Heard {
    /// Whether the connection bears the signature of a rule (slot plus 1).
    #[inline(always)]
    pub fn bears(&self, signature: u8) -> bool {
        let mut at = 0;
        let mut found = false;
        while at < HEARD_SIGNATURES {
            found |= self.signatures[at] == signature;
            at += 1;
        }
        found
    }

    /// Notes one more signature (slot plus 1), if there is room.
    #[inline(always)]
    pub fn add(&mut self, signature: u8) {
        let mut at = 0;
        while at < HEARD_SIGNATURES {
            if self.signatures[at] == 0 {
                self.signatures[at] = signature;
                return;
            }
            at += 1;
        }
    }
}

impl Signature {
    /// Whether it asks for the same as another one, whichever slots they have.
    pub fn asks_as(&self, other: &Self) -> bool {
        Self { born_tick: other.born_tick, more: other.more, ..*self } == *other
    }

    /// Whether a payload with these features has everything that the signature asks for.
    #[inline(always)]
    pub fn fits(&self, features: &Features, payload: &Payload) -> bool {
        if (self.kind != KIND_OTHER && self.kind != features.kind)
            || (self.method != 0 && self.method != features.method)
            || features.name_bytes < self.name_least
        {
            return false;
        }
        let mut differs = 0;
        let mut word = 0;
        while word < NAME_BYTES / 8 {
            differs |= (self.name[word] ^ features.name[word]) & self.name_mask[word];
            word += 1;
        }
        if differs != 0 {
            return false;
        }
        let offers = &features.offers;
        let offered = self.offer == 0
            || offers[0] == self.offer
            || offers[1] == self.offer
            || offers[2] == self.offer
            || offers[3] == self.offer;
        offered && (self.raw_bytes == 0 || self.raw_fits(payload))
    }

    #[inline(always)]
    fn raw_fits(&self, payload: &Payload) -> bool {
        if self.raw_at.wrapping_add(self.raw_bytes) > payload.length {
            return false;
        }
        let mut differs = 0;
        let mut at = 0;
        while at < 16 {
            let byte = payload.bytes[(self.raw_at as usize + at) & MASK];
            let shift = (at & 7) * 8;
            let (want, mask) = (self.raw[at >> 3] >> shift, self.raw_mask[at >> 3] >> shift);
            differs |= (u64::from(byte) ^ want) & mask & 0xff;
            at += 1;
        }
        differs == 0
    }

    /// Asks for a name, or with `below` for any name that ends with a dot and this one.
    ///
    /// Returns `None` for a name that is too long to be compared.
    pub fn named(mut self, name: &str, below: bool) -> Option<Self> {
        let letters = name.len() + usize::from(below);
        if letters == 0 || letters > NAME_BYTES {
            return None;
        }
        let mut wanted = Features::ZERO;
        for (place, letter) in name.bytes().rev().enumerate() {
            put(&mut wanted, place as u32, small(letter));
        }
        if below {
            put(&mut wanted, name.len() as u32, b'.');
        }
        self.name = wanted.name;
        // A whole name is followed by nothing.
        let compared = if below { letters } else { (letters + 1).min(NAME_BYTES) };
        for place in 0..compared {
            self.name_mask[place / 8] |= 0xff << (place % 8 * 8);
        }
        self.name_least = (letters + usize::from(below)) as u32;
        Some(self)
    }

    /// Asks for bytes at a place; `None` for more than 16, none, or a place behind what is looked at.
    pub fn with_bytes(mut self, at: u32, bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() || bytes.len() > 16 || at as usize + bytes.len() > PAYLOAD_BYTES {
            return None;
        }
        for (place, byte) in bytes.iter().enumerate() {
            self.raw[place / 8] |= u64::from(*byte) << (place % 8 * 8);
            self.raw_mask[place / 8] |= 0xff << (place % 8 * 8);
        }
        (self.raw_at, self.raw_bytes) = (at, bytes.len() as u32);
        Some(self)
    }
}

#[cfg(test)]
mod tests;
