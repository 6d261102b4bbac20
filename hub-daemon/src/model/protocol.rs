//! IP protocols by name and number, and sets of them.

use crate::document::parts::Scalar;

/// Names with their numbers (IANA); the first name of a number is the one shown.
const NAMES: &[(&str, u8)] = &[
    ("icmp", 1),
    ("igmp", 2),
    ("ipip", 4),
    ("tcp", 6),
    ("egp", 8),
    ("udp", 17),
    ("dccp", 33),
    ("ipv6", 41),
    ("rsvp", 46),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmpv6", 58),
    ("ipv6-icmp", 58),
    ("icmp6", 58),
    ("eigrp", 88),
    ("ospf", 89),
    ("pim", 103),
    ("vrrp", 112),
    ("l2tp", 115),
    ("sctp", 132),
    ("udplite", 136),
];

/// ICMP for IPv4.
pub const ICMP: u8 = 1;
/// ICMP for IPv6.
pub const ICMPV6: u8 = 58;
/// UDP.
pub const UDP: u8 = 17;
/// TCP.
pub const TCP: u8 = 6;

/// A protocol as a rule or a list names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// All of them.
    Any,
    /// ICMP of whichever family the persona has.
    Icmp,
    /// One number; `Number(1)` is ICMP for IPv4 alone.
    Number(u8),
}

/// Why a text is no protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "protocol `{0}`: use a name like tcp, udp, icmp, icmpv6, sctp, gre, esp, ah or ipip, or a number 0 to 255"
)]
pub struct ProtocolError(String);

impl Protocol {
    /// Reads a name or a number.
    pub fn parse(written: &Scalar) -> Result<Self, ProtocolError> {
        let wrong = || ProtocolError(written.to_string());
        let text = match written {
            Scalar::Number(number) => {
                return u8::try_from(*number).map(Self::Number).map_err(|_range| wrong());
            }
            Scalar::Text(text) => text.trim().to_ascii_lowercase(),
        };
        match text.as_str() {
            "any" | "all" => return Ok(Self::Any),
            "icmp" => return Ok(Self::Icmp),
            _ => {}
        }
        number(&text).map(Self::Number).ok_or_else(wrong)
    }
}

/// Number of a protocol, by name or number, in any case.
pub fn number(text: &str) -> Option<u8> {
    let text = text.trim().to_ascii_lowercase();
    let named = NAMES.iter().find(|(name, _)| *name == text).map(|(_, number)| *number);
    named.or_else(|| text.parse().ok())
}

/// The name of a protocol number, or the number as text.
pub fn name(number: u8) -> String {
    match NAMES.iter().find(|(_, known)| *known == number) {
        Some((name, _)) => (*name).to_owned(),
        None => number.to_string(),
    }
}

/// Whether the protocol carries ports at the place where TCP has them.
pub fn has_ports(number: u8) -> bool {
    hub_common::rule::has_ports(number)
}

/// A set of protocol numbers, in the form of the data path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProtocolSet([u32; 8]);

impl ProtocolSet {
    /// No protocol.
    pub const NONE: Self = Self([0; 8]);
    /// Every protocol.
    pub const ALL: Self = Self([u32::MAX; 8]);

    /// Adds a protocol.
    pub fn insert(&mut self, number: u8) {
        for (word, bits) in self.0.iter_mut().enumerate() {
            if word == usize::from(number >> 5) {
                *bits |= 1 << (number & 31);
            }
        }
    }

    /// Whether a protocol is in it.
    pub fn contains(&self, number: u8) -> bool {
        hub_common::segment::has_protocol(&self.0, number)
    }

    /// Its members, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).filter(|number| self.contains(*number))
    }

    /// What is in this set and not in the other.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut rest = *self;
        for (bits, gone) in rest.0.iter_mut().zip(other.0) {
            *bits &= !gone;
        }
        rest
    }

    /// One bit for each protocol, as `hub_common::segment::Policy` has them.
    pub fn words(&self) -> [u32; 8] {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_known_by_name_and_number() {
        let numbers = ["tcp", "UDP", "ipv6-icmp", "47", "256", "nothing"].map(number);
        assert_eq!(numbers, [Some(6), Some(17), Some(58), Some(47), None, None]);
        assert_eq!([6, 58, 200].map(name), ["tcp", "icmpv6", "200"]);
    }

    #[test]
    fn names_and_numbers_are_read() {
        for (text, number) in
            [("tcp", 6), ("UDP", 17), ("icmpv6", 58), ("sctp", 132), ("ipip", 4), ("47", 47)]
        {
            assert_eq!(Protocol::parse(&text.into()), Ok(Protocol::Number(number)), "{text}");
        }
        assert_eq!(Protocol::parse(&Scalar::Number(255)), Ok(Protocol::Number(255)));
        assert!(Protocol::parse(&Scalar::Number(256)).is_err());
        assert!(Protocol::parse(&"tpc".into()).unwrap_err().to_string().contains("use a name like tcp"));
    }

    #[test]
    fn sets_hold_what_was_put_in() {
        let mut set = ProtocolSet::NONE;
        set.insert(6);
        set.insert(255);
        assert_eq!(set.iter().collect::<Vec<_>>(), [6, 255]);
        assert_eq!(ProtocolSet::ALL.without(&set).iter().count(), 254);
    }
}
