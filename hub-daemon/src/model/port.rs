//! Transport ports and ranges of them.

use crate::document::parts::Scalar;

/// Ports from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// Why a text is no port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Neither a number nor a range.
    #[error("port `{0}`: use a number 0 to 65535, a range like 80-90, or a list of those")]
    Format(String),
    /// The range runs backwards.
    #[error("port range `{0}` is empty: write the smaller port first")]
    Backwards(String),
}

impl PortRange {
    /// Reads a number or a range like `80-90`.
    pub fn parse(written: &Scalar) -> Result<Self, PortError> {
        let text = written.to_string();
        let wrong = || PortError::Format(text.clone());
        let (first, last) = text.split_once('-').unwrap_or((&text, &text));
        let first: u16 = first.trim().parse().map_err(|_number| wrong())?;
        let last: u16 = last.trim().parse().map_err(|_number| wrong())?;
        if first > last {
            return Err(PortError::Backwards(text));
        }
        Ok(Self { first, last })
    }

    /// First and last port.
    pub fn bounds(self) -> [u16; 2] {
        [self.first, self.last]
    }

    /// Whether every port of the other range is in this one.
    pub fn covers(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ranges_are_read() {
        assert_eq!(PortRange::parse(&80.into()).unwrap().bounds(), [80, 80]);
        assert_eq!(PortRange::parse(&"80-90".into()).unwrap().bounds(), [80, 90]);
        assert_eq!(PortRange::parse(&"443".into()).unwrap().bounds(), [443, 443]);
        for text in ["http", "80-", "-80", "70000", "80-90-100", ""] {
            assert!(PortRange::parse(&text.into()).is_err(), "{text}");
        }
        assert!(PortRange::parse(&"90-80".into()).unwrap_err().to_string().contains("smaller port first"));
    }
}
