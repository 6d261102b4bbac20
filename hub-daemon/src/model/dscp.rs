//! Code points of differentiated services (RFC 2474), by name or number.

use crate::document::parts::Scalar;

/// A code point, 0 to 63.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dscp(u8);

/// A text that is no code point.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("dscp `{0}`: use a name like EF, AF41, CS1, LE, or a number from 0 to 63")]
pub struct DscpError(String);

impl Dscp {
    /// The number.
    pub fn number(self) -> u8 {
        self.0
    }

    /// Reads a name (RFC 2474, 2597, 3246, 5865, 8622) or a number.
    pub fn parse(written: &Scalar) -> Result<Self, DscpError> {
        let text = written.to_string();
        let name = text.to_ascii_uppercase();
        let number = match name.as_str() {
            "EF" => Some(46),
            "VA" | "VOICE-ADMIT" => Some(44),
            "LE" => Some(1),
            "DF" | "BE" => Some(0),
            _ => class(&name).or_else(|| name.parse().ok().filter(|number| *number < 64)),
        };
        number.map(Self).ok_or(DscpError(text))
    }
}

/// `CS0` to `CS7`, `AF11` to `AF43`.
fn class(name: &str) -> Option<u8> {
    let digit = |text: &str, range: std::ops::RangeInclusive<u8>| {
        text.parse::<u8>().ok().filter(|digit| text.len() == 1 && range.contains(digit))
    };
    if let Some(number) = name.strip_prefix("CS") {
        return Some(digit(number, 0..=7)? * 8);
    }
    let (class, drop) = name.strip_prefix("AF")?.split_at_checked(1)?;
    Some(digit(class, 1..=4)? * 8 + digit(drop, 1..=3)? * 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_read() {
        for (text, number) in
            [("EF", 46), ("af11", 10), ("AF43", 38), ("CS0", 0), ("CS7", 56), ("LE", 1), ("63", 63)]
        {
            assert_eq!(Dscp::parse(&text.into()), Ok(Dscp(number)), "{text}");
        }
        assert_eq!(Dscp::parse(&34.into()), Ok(Dscp(34)));
        for text in ["64", "AF50", "AF14", "CS8", "AF1", "CS", "voice", "", "AF+1", "-1"] {
            assert!(Dscp::parse(&text.into()).unwrap_err().to_string().contains("AF41"), "{text}");
        }
    }
}
