//! Lengths of time as people write them: `50ms`, `4h`, `2d12h`.

use std::time::Duration;

/// Why a text is no length of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpanError {
    /// Not numbers with units.
    #[error("duration `{0}`: use a number and a unit, for example 50ms, 30s, 10m, 4h or 2d")]
    Format(String),
    /// Nothing, or longer than a hundred years.
    #[error("duration `{0}`: use more than nothing and at most 36500d")]
    Range(String),
}

const MAX: Duration = Duration::from_hours(36_500 * 24);

/// Reads a length of time; never zero.
pub fn parse(text: &str) -> Result<Duration, SpanError> {
    let wrong = || SpanError::Format(text.to_owned());
    let outside = || SpanError::Range(text.to_owned());
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let number: u64 = number.parse().map_err(|_digits| wrong())?;
        let nanos: u64 = match unit {
            "ns" => 1,
            "us" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" | "min" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000,
            "w" => 604_800_000_000_000,
            _ => return Err(wrong()),
        };
        let part = u128::from(number) * u128::from(nanos);
        if part > MAX.as_nanos() {
            return Err(outside());
        }
        total += Duration::new((part / 1_000_000_000) as u64, (part % 1_000_000_000) as u32);
        rest = tail.trim_start();
    }
    if total.is_zero() || total > MAX { Err(outside()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts_add_up() {
        assert_eq!(parse("50ms"), Ok(Duration::from_millis(50)));
        assert_eq!(parse("2d12h"), Ok(Duration::from_hours(60)));
        assert_eq!(parse("1h 30m"), Ok(Duration::from_mins(90)));
    }

    #[test]
    fn nonsense_is_refused_with_examples() {
        for text in ["", "4", "h", "4 parsecs", "-4h", "4.5h", "4hh"] {
            assert!(parse(text).unwrap_err().to_string().contains("for example 50ms"), "{text}");
        }
        assert!(parse("0s").unwrap_err().to_string().contains("more than nothing"));
        assert!(parse("40000d").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in ".{0,24}") {
            prop_assert!(parse(&text).map_or(true, |span| !span.is_zero() && span <= MAX));
        }
    }
}
