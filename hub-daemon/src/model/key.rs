//! `Idempotency-Key`: what tells a request that is sent again from another one.

use jiff::SignedDuration;
use ring::digest::{SHA256, digest};

use super::personality::hexadecimal;

/// How long a key is remembered.
pub const KEY_TIME: SignedDuration = SignedDuration::from_hours(24);
/// Most keys remembered; the oldest goes first.
pub const KEYS: usize = 4_096;

/// A key with what it was used for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The key, as the client chose it.
    pub text: String,
    /// SHA-256 of the request's body, in hexadecimal digits.
    pub body: String,
}

impl Key {
    /// A key of a request with this body.
    pub fn new(text: String, body: &[u8]) -> Self {
        Self { text, body: hexadecimal(digest(&SHA256, body).as_ref()) }
    }
}
