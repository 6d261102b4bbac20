//! Bandwidth: bits per second, decimal multiples, bits unless `B`.

use crate::document::parts::Scalar;

/// Bits per second, at least [`Bandwidth::MIN_BPS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bandwidth(u64);

/// Why a text is no bandwidth.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BandwidthError {
    /// The unit is missing a letter, or means bits to one tool and bytes to another.
    #[error("bandwidth `{0}`: use a unit like 100Mbps")]
    Unit(String),
    /// Ki, Mi, Gi.
    #[error("bandwidth `{0}`: use decimal multiples, for example 100Mbps or 12.5MB/s")]
    Binary(String),
    /// Not a number in front of the unit.
    #[error("bandwidth `{0}`: start with a number, for example 100Mbps")]
    Number(String),
    /// Zero, or too little to send one packet per second.
    #[error("bandwidth `{0}`: use at least 8kbps")]
    Small(String),
    /// More than there is.
    #[error("bandwidth `{0}`: use at most 10Tbps")]
    Large(String),
}

impl Bandwidth {
    /// Least bandwidth in bits per second.
    pub const MIN_BPS: u64 = 8_000;
    /// Greatest bandwidth in bits per second.
    pub const MAX_BPS: u64 = 10_000_000_000_000;

    /// Bits per second.
    pub fn bps(self) -> u64 {
        self.0
    }

    /// Reads a number of bits per second, or a text with a unit.
    pub fn parse(written: &Scalar) -> Result<Self, BandwidthError> {
        let text = written.to_string();
        let bps = match written {
            Scalar::Number(number) => u128::from(*number),
            Scalar::Text(_) => bits(&text)?,
        };
        match u64::try_from(bps) {
            Ok(bps) if bps < Self::MIN_BPS => Err(BandwidthError::Small(text)),
            Ok(bps) if bps <= Self::MAX_BPS => Ok(Self(bps)),
            _ => Err(BandwidthError::Large(text)),
        }
    }
}

fn bits(text: &str) -> Result<u128, BandwidthError> {
    let split = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let broken = || BandwidthError::Number(text.to_owned());
    if whole.is_empty() || whole.len() > 15 || fraction.len() > 9 || number.ends_with('.') {
        return Err(broken());
    }
    let digits: u128 = format!("{whole}{fraction}").parse().map_err(|_digits| broken())?;
    let scale = 10_u128.pow(fraction.len() as u32);
    Ok(digits * factor(unit.trim_start(), text)? / scale)
}

/// Bits that one of a unit is. `mbps` is refused: `tc` takes it for megabytes.
fn factor(unit: &str, text: &str) -> Result<u128, BandwidthError> {
    let wrong = || BandwidthError::Unit(text.to_owned());
    let mut letters = unit.chars();
    let (multiple, lower, rest) = match letters.next() {
        Some('k') => (1_000, true, letters.as_str()),
        Some('K') => (1_000, false, letters.as_str()),
        Some('m') => (1_000_000, true, letters.as_str()),
        Some('M') => (1_000_000, false, letters.as_str()),
        Some('g') => (1_000_000_000, true, letters.as_str()),
        Some('G') => (1_000_000_000, false, letters.as_str()),
        Some('t') => (1_000_000_000_000, true, letters.as_str()),
        Some('T') => (1_000_000_000_000, false, letters.as_str()),
        _ => (1, false, unit),
    };
    if rest.starts_with('i') {
        return Err(BandwidthError::Binary(text.to_owned()));
    }
    match rest {
        "bit" | "bit/s" | "bits" | "bits/s" => Ok(multiple),
        "bps" | "b/s" if !lower || multiple == 1_000 => Ok(multiple),
        "B/s" | "Bps" if !lower || multiple == 1_000 => Ok(multiple * 8),
        "" if unit.is_empty() => Ok(1),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<u64, String> {
        Bandwidth::parse(&text.into()).map(Bandwidth::bps).map_err(|error| error.to_string())
    }

    #[test]
    fn units_are_bits_unless_a_capital_b() {
        for (text, bps) in [
            ("100Mbps", 100_000_000),
            ("1.5Gbit", 1_500_000_000),
            ("12.5MB/s", 100_000_000),
            ("9600kbit", 9_600_000),
            ("64kbps", 64_000),
            ("1 Gbit/s", 1_000_000_000),
            ("1000000", 1_000_000),
        ] {
            assert_eq!(parse(text), Ok(bps), "{text}");
        }
    }

    #[test]
    fn doubtful_units_are_refused_with_a_hint() {
        for text in ["100mb", "100Mb", "100MB", "100mbps", "100 parsec"] {
            assert_eq!(parse(text), Err(format!("bandwidth `{text}`: use a unit like 100Mbps")));
        }
        assert!(parse("10Mibit").unwrap_err().contains("decimal"));
        assert!(parse("0").unwrap_err().contains("at least"));
        assert!(parse("99999Tbps").unwrap_err().contains("at most"));
        assert!(parse("-5Mbps").unwrap_err().contains("start with a number"));
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in ".{0,24}") {
            if let Ok(bps) = parse(&text) {
                prop_assert!((Bandwidth::MIN_BPS..=Bandwidth::MAX_BPS).contains(&bps));
            }
        }
    }
}
