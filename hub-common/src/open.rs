//! Open ports: what a policy lets pass by protocol and target port alone.
//!
//! A connection whose packets and whose answers are both allowed by ports alone needs no flow: each packet
//! can be judged by itself. Whether a persona uses that is its policy's choice: without it all its sets are
//! [`OPEN_NONE`].

use crate::packet::protocol;

crate::shared! {
    /// A set of ports, one bit each, shared by all policies that have the same.
    pub struct PortSet {
        /// Bit `port % 64` of word `port / 64`.
        pub words: [u64; PORT_SET_WORDS],
    }
}

/// Words of a port set.
pub const PORT_SET_WORDS: usize = 1_024;
/// No port is open: rules must be asked.
pub const OPEN_NONE: u8 = 0;
/// All ports are open.
pub const OPEN_ALL: u8 = 1;
/// The set in slot N of the table is named by this plus N.
pub const OPEN_FIRST: u8 = 2;

/// Place in [`crate::segment::Policy::open`] of TCP towards members.
pub const OPEN_TCP_INGRESS: usize = 0;
/// Place of UDP towards members.
pub const OPEN_UDP_INGRESS: usize = 1;
/// Place of TCP from members.
pub const OPEN_TCP_EGRESS: usize = 2;
/// Place of UDP from members.
pub const OPEN_UDP_EGRESS: usize = 3;

/// Whether a protocol has port sets.
#[inline(always)]
pub const fn has_open_ports(protocol: u8) -> bool {
    matches!(protocol, protocol::TCP | protocol::UDP)
}

impl PortSet {
    /// Whether the port is in the set.
    ///
    /// VERIFIER(6.1): the compiler knows that 16 bits need no mask; the verifier forgets it with a number on the
    /// stack. One that nothing is known of keeps its mask.
    #[inline(always)]
    #[expect(clippy::indexing_slicing, reason = "a port has 1,024 possible words")]
    pub fn holds(&self, port: u16) -> bool {
        let word = core::hint::black_box(u32::from(port)) >> 6;
        self.words[word as usize & (PORT_SET_WORDS - 1)] >> (port & 63) & 1 == 1
    }

    /// The set of the ports in `ranges`, first and last each.
    #[expect(clippy::indexing_slicing, reason = "a port has 1,024 possible words")]
    pub fn of(ranges: &[[u16; 2]]) -> Self {
        let mut set = Self::ZERO;
        for [first, last] in ranges {
            for port in *first..=*last {
                set.words[port as usize >> 6] |= 1 << (port & 63);
            }
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_hold_their_ranges_and_no_more() {
        let set = PortSet::of(&[[0, 0], [63, 64], [443, 443], [65_535, 65_535]]);
        let held: Vec<u16> = (0..=u16::MAX).filter(|port| set.holds(*port)).collect();
        assert_eq!(held, [0, 63, 64, 443, 65_535]);
        assert!(!PortSet::ZERO.holds(80) && PortSet::of(&[[0, u16::MAX]]).holds(80));
    }
}
