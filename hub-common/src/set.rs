//! Addresses that are looked up by persona: elements of its sets, and those in quarantine.
//!
//! Both kinds of entry hold the tick at which they end, so that they end without the daemon.

use crate::address::Address;

crate::shared! {
    /// A prefix of a set: the key of a longest-prefix map, its first 64 bits always compared.
    pub struct SetKey {
        /// Segment whose set it is.
        pub segment: u32,
        /// [`set_number`] of the set's name.
        pub set: u32,
        /// First address, host bits zero.
        pub address: Address,
    }

    /// An address that a persona does not talk to.
    pub struct QuarantineKey {
        /// The segment; 0 for all of them.
        pub segment: u32,
        /// Zero.
        pub pad: u32,
        /// The address.
        pub address: Address,
    }
}

/// Bits of a [`SetKey`] in front of the address.
pub const SET_KEY_BITS: u32 = 64;

/// The number of a set: the 32-bit FNV-1a hash of its name, so that it is the same in every run.
pub const fn set_number(name: &str) -> u32 {
    let bytes = name.as_bytes();
    let mut hash: u32 = 0x811c_9dc5;
    let mut rest = bytes;
    while let [first, others @ ..] = rest {
        hash = (hash ^ *first as u32).wrapping_mul(0x0100_0193);
        rest = others;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_published_function() {
        assert_eq!(set_number(""), 0x811c_9dc5);
        assert_eq!(set_number("foobar"), 0xbf9c_f968);
    }
}
