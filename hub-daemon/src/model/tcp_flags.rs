//! TCP flags that a rule looks at.

use crate::document::parts::TcpFlagsDocument;

/// Flags looked at, and the value they must have; bits of the TCP flags byte (RFC 9293 section 3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFlags {
    mask: u8,
    value: u8,
}

/// Why a text names no TCP flags.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TcpFlagsError {
    /// No such flag.
    #[error("TCP flag `{0}`: use fin, syn, rst, psh, ack, urg, ece or cwr, with ! for unset")]
    Unknown(String),
    /// Set and unset at once.
    #[error("TCP flag `{0}` is asked to be set and unset: keep one of them")]
    Both(String),
    /// Nothing to look at.
    #[error("no TCP flag is named: use for example `syn,!ack`")]
    Empty,
}

const NAMES: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"];

impl TcpFlags {
    /// Reads `syn,!ack` or the two lists.
    pub fn parse(written: &TcpFlagsDocument) -> Result<Self, TcpFlagsError> {
        let mut flags = Self::default();
        match written {
            TcpFlagsDocument::Text(text) => {
                for part in text.split([',', ' ', '+']).map(str::trim).filter(|part| !part.is_empty()) {
                    match part.strip_prefix('!') {
                        Some(name) => flags.look(name, false)?,
                        None => flags.look(part, true)?,
                    }
                }
            }
            TcpFlagsDocument::Lists(lists) => {
                lists.set.iter().try_for_each(|name| flags.look(name, true))?;
                lists.unset.iter().try_for_each(|name| flags.look(name, false))?;
            }
        }
        if flags.mask == 0 { Err(TcpFlagsError::Empty) } else { Ok(flags) }
    }

    /// Bits looked at, and their value.
    pub fn bits(self) -> (u8, u8) {
        (self.mask, self.value)
    }

    /// Whether every packet that `other` matches is matched.
    pub fn covers(self, other: Self) -> bool {
        self.mask & other.mask == self.mask && other.value & self.mask == self.value
    }

    fn look(&mut self, name: &str, set: bool) -> Result<(), TcpFlagsError> {
        let lower = name.trim().to_ascii_lowercase();
        let position = NAMES.iter().position(|known| *known == lower);
        let bit = 1_u8 << position.ok_or_else(|| TcpFlagsError::Unknown(name.to_owned()))?;
        if self.mask & bit != 0 && (self.value & bit != 0) != set {
            return Err(TcpFlagsError::Both(lower));
        }
        self.mask |= bit;
        self.value |= if set { bit } else { 0 };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::parts::TcpFlagsLists;

    #[test]
    fn both_forms_mean_the_same() {
        let text = TcpFlags::parse(&TcpFlagsDocument::Text("syn,!ack".into())).unwrap();
        let lists = TcpFlagsLists { set: vec!["SYN".into()], unset: vec!["ack".into()] };
        assert_eq!(text, TcpFlags::parse(&TcpFlagsDocument::Lists(lists)).unwrap());
        assert_eq!(text.bits(), (0x12, 0x02));
    }

    #[test]
    fn contradictions_are_refused() {
        let parse = |text: &str| TcpFlags::parse(&TcpFlagsDocument::Text(text.into()));
        assert!(parse("syn,!syn").unwrap_err().to_string().contains("set and unset"));
        assert!(parse("sin").unwrap_err().to_string().contains("use fin, syn"));
        assert_eq!(parse(""), Err(TcpFlagsError::Empty));
    }
}
