//! When a persona ends, as its document says.

use std::time::Duration;

use jiff::Timestamp;

use super::span;
use crate::command::Problem;

/// The end of a persona's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// It stays until it is deleted.
    Never,
    /// At a moment.
    At(Timestamp),
    /// So long after its admission.
    After(Duration),
}

/// Why an end cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpiryError {
    /// Not RFC 3339.
    #[error("expiration `{0}`: use RFC 3339 with an offset, for example 2030-12-31T23:59:59Z")]
    Format(String),
    /// Over already.
    #[error("expiration_in_past: `{written}` is before {now}; give a later time, or a ttl like 4h")]
    Past {
        /// What the document says.
        written: String,
        /// The time of the check, to the second.
        now: String,
    },
    /// Later than its limit.
    #[error("`{0}` is later than max_ttl `{1}` allows: at most {2}")]
    Late(String, String, String),
    /// Later than a clock can say.
    #[error("ttl `{0}`: ends after the year 9999; use a shorter one")]
    Far(String),
}

impl Expiry {
    /// Reads `expiration` and `ttl`, of which at most one may be there.
    pub fn parse(expiration: Option<&str>, ttl: Option<&str>) -> Result<Self, Problem> {
        match (expiration, ttl) {
            (None, None) => Ok(Self::Never),
            (Some(_), Some(_)) => {
                Err(Problem::new("/ttl", "`ttl` and `expiration` are both given: keep one of them"))
            }
            (None, Some(ttl)) => span::parse(ttl)
                .map(Self::After)
                .map_err(|error| Problem::new("/ttl", error.to_string().replacen("duration", "ttl", 1))),
            (Some(text), None) => text.parse().map(Self::At).map_err(|_format| {
                Problem::new("/expiration", ExpiryError::Format(text.to_owned()).to_string())
            }),
        }
    }

    /// The moment it ends for a persona admitted `now`.
    pub fn resolve(self, now: Timestamp) -> Result<Option<Timestamp>, Problem> {
        match self {
            Self::Never => Ok(None),
            Self::At(end) if end > now => Ok(Some(end)),
            Self::At(end) => {
                let past = ExpiryError::Past { written: end.to_string(), now: seconds(now) };
                Err(Problem::new("/expiration", past.to_string()))
            }
            Self::After(life) => now.checked_add(life).map(Some).map_err(|_range| {
                Problem::new("/ttl", ExpiryError::Far(format!("{}s", life.as_secs())).to_string())
            }),
        }
    }
}

fn seconds(time: Timestamp) -> String {
    time.round(jiff::Unit::Second).unwrap_or(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_required() {
        assert!(Expiry::parse(Some("2030-12-31T23:59:59Z"), None).is_ok());
        assert!(Expiry::parse(Some("2030-12-31T23:59:59+02:00"), None).is_ok());
        for text in ["2030-12-31T23:59:59", "2030-12-31", "tomorrow", "1767225600"] {
            assert!(Expiry::parse(Some(text), None).unwrap_err().detail.contains("RFC 3339"), "{text}");
        }
    }

    #[test]
    fn the_deadline_itself_is_past() {
        let end: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        let problem = Expiry::At(end).resolve(end).unwrap_err();
        assert!(problem.detail.starts_with("expiration_in_past"), "{}", problem.detail);
    }
}
