//! Rate limits of rules: a rate, a burst, and what they count.

use hub_common::limit::{LIMIT_BYTES, LIMIT_PACKETS, LIMIT_PER_SOURCE, Limit, TIME_PARTS};

use super::bandwidth::Bandwidth;
use super::problems::Problems;
use crate::document::parts::Scalar;
use crate::document::rule::{LimitDocument, RuleDocument};

/// Most packets or flows per second.
const MAX_PER_SECOND: u64 = 100_000_000;
/// Most packets or flows at once.
const MAX_BURST: u64 = 1_000_000_000;
/// Most bits per second: a byte must cost some time.
const MAX_BPS: u64 = 400_000_000_000;
/// Least burst in bytes: the longest packet that a stack hands over whole.
const MIN_BURST_BYTES: u64 = 65_536;
const SECOND_NS: u64 = 1_000_000_000;

/// How much a rule lets pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RateLimit {
    unit: Unit,
    per_second: u64,
    burst: u64,
    per_packet: bool,
    per_source: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Unit {
    Packets,
    Bytes,
}

/// Why a text is no rate or burst.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum RateError {
    #[error("rate `{0}`: use a number per second like 100/s, or bits like 10Mbps")]
    Format(String),
    #[error("rate `{0}`: use 1/s to {MAX_PER_SECOND}/s")]
    Range(String),
    #[error("rate `{0}`: use at most 400Gbps")]
    Wide(String),
    #[error("burst `{0}`: use a number of packets, at least 1")]
    Count(String),
    #[error("burst `{0}`: use bytes of at least 65536, for example 128kB")]
    Bytes(String),
}

impl RateLimit {
    /// Reads the fields of a rule with `action: rate_limit`; problems point below `base`.
    pub(super) fn read(problems: &mut Problems, base: &str, document: &RuleDocument) -> Option<Self> {
        let Some(written) = &document.rate else {
            problems.add(format!("{base}/rate"), "rate_limit needs a rate: give one like 100/s or 10Mbps");
            return None;
        };
        let (unit, per_second) = problems.take(&format!("{base}/rate"), rate(written))?;
        let burst = match &document.burst {
            Some(written) => problems.take(&format!("{base}/burst"), burst(written, unit))?,
            None if unit == Unit::Packets => per_second,
            None => (per_second / 10).max(MIN_BURST_BYTES),
        };
        let per_packet = match (document.limit, unit) {
            (Some(LimitDocument::Flows), Unit::Bytes) => {
                let detail = "flows have no bits: use a rate like 100/s, or `limit: packets`";
                problems.add(format!("{base}/limit"), detail);
                return None;
            }
            (Some(LimitDocument::Packets), _) | (None, Unit::Bytes) => true,
            (Some(LimitDocument::Flows) | None, Unit::Packets) => false,
        };
        Some(Self { unit, per_second, burst, per_packet, per_source: document.per.is_some() })
    }

    /// The limit as the data path holds it, its bucket full.
    pub fn compiled(self) -> Limit {
        let cost = (SECOND_NS * TIME_PARTS / self.per_second).max(1);
        let (kind, ahead) = match self.unit {
            Unit::Packets => (0, self.burst - 1),
            // The packet that empties the bucket passes whole.
            Unit::Bytes => (LIMIT_BYTES, self.burst),
        };
        let packets = if self.per_packet { LIMIT_PACKETS } else { 0 };
        let source = if self.per_source { LIMIT_PER_SOURCE } else { 0 };
        let tolerance = cost.saturating_mul(ahead);
        Limit { cost, tolerance, flags: kind | packets | source, ..Limit::ZERO }
    }
}

fn rate(written: &Scalar) -> Result<(Unit, u64), RateError> {
    let text = written.to_string();
    let number = text.strip_suffix("/s").or_else(|| text.strip_suffix("pps"));
    if let Some(number) = number.filter(|number| number.bytes().all(|byte| byte.is_ascii_digit())) {
        let number: u64 = number.parse().map_err(|_digits| RateError::Range(text.clone()))?;
        let fits = (1..=MAX_PER_SECOND).contains(&number);
        return if fits { Ok((Unit::Packets, number)) } else { Err(RateError::Range(text)) };
    }
    if matches!(written, Scalar::Number(_)) {
        return Err(RateError::Format(text));
    }
    match Bandwidth::parse(written) {
        Ok(bandwidth) if bandwidth.bps() <= MAX_BPS => Ok((Unit::Bytes, bandwidth.bps() / 8)),
        Ok(_) => Err(RateError::Wide(text)),
        Err(_) => Err(RateError::Format(text)),
    }
}

fn burst(written: &Scalar, unit: Unit) -> Result<u64, RateError> {
    let text = written.to_string();
    if unit == Unit::Packets {
        let number = text.parse().ok().filter(|number| (1..=MAX_BURST).contains(number));
        return number.ok_or(RateError::Count(text));
    }
    let units = [("MB", 1_000_000), ("kB", 1_000), ("B", 1), ("", 1)];
    let found = units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)));
    let bytes = found.and_then(|(number, factor)| number.trim().parse::<u64>().ok()?.checked_mul(factor));
    let bytes = bytes.filter(|bytes| (MIN_BURST_BYTES..=MAX_BURST).contains(bytes));
    bytes.ok_or(RateError::Bytes(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_counts_or_bits() {
        assert_eq!(rate(&"100/s".into()), Ok((Unit::Packets, 100)));
        assert_eq!(rate(&"250pps".into()), Ok((Unit::Packets, 250)));
        assert_eq!(rate(&"8Mbps".into()), Ok((Unit::Bytes, 1_000_000)));
        for wrong in ["0/s", "/s", "fast", "500Gbps", "1000000000/s", "-1/s"] {
            assert!(rate(&wrong.into()).is_err(), "{wrong}");
        }
        assert!(rate(&100.into()).is_err(), "a bare number says neither packets nor bits");
    }

    #[test]
    fn bursts_are_counts_or_bytes() {
        assert_eq!(burst(&5.into(), Unit::Packets), Ok(5));
        assert_eq!(burst(&"128kB".into(), Unit::Bytes), Ok(128_000));
        assert!(burst(&0.into(), Unit::Packets).is_err() && burst(&"1kB".into(), Unit::Bytes).is_err());
    }
}
