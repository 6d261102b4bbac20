//! How long a persona lives, and what its end does to connections.

use std::time::Duration;

use jiff::Timestamp;

use super::expiry::{Expiry, ExpiryError};
use super::problems::Problems;
use super::span;
use crate::command::Problem;
use crate::document::hub::LifeDocument;
use crate::document::persona::PersonaDocument;

/// Longest drain, at the end of a life and at a deletion.
pub const DRAIN_MAX: Duration = Duration::from_mins(5);

/// What happens at the deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExpiry {
    /// No packet passes any more; connections of TCP are reset.
    #[default]
    Cut,
    /// Connections that exist go on for so long; others are refused.
    Drain(Duration),
}

/// Why a drain cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OnExpiryError {
    /// Neither form.
    #[error("on_expiry `{0}`: use `cut`, or `drain:` with a time of at most 5m, for example drain:30s")]
    Form(String),
}

impl OnExpiry {
    /// Reads `cut` or `drain:30s`.
    pub fn parse(text: &str) -> Result<Self, OnExpiryError> {
        let wrong = || OnExpiryError::Form(text.to_owned());
        match text.split_once(':') {
            None if text == "cut" => Ok(Self::Cut),
            Some(("drain", time)) => drain(time).map(Self::Drain).ok_or_else(wrong),
            _ => Err(wrong()),
        }
    }

    /// How long connections go on after the deadline.
    pub fn drain(self) -> Duration {
        match self {
            Self::Cut => Duration::ZERO,
            Self::Drain(time) => time,
        }
    }
}

/// Reads the time of a drain.
pub fn drain(text: &str) -> Option<Duration> {
    span::parse(text).ok().filter(|time| *time <= DRAIN_MAX)
}

/// Reads `max_ttl` and `on_expiry`.
pub fn read(problems: &mut Problems, document: &PersonaDocument) -> (Option<Duration>, OnExpiry) {
    let max = document.max_ttl.as_deref().and_then(|text| {
        let parsed = span::parse(text).map_err(|error| error.to_string().replacen("duration", "max_ttl", 1));
        problems.take("/max_ttl", parsed)
    });
    let on_expiry = document.on_expiry.as_deref().map(OnExpiry::parse);
    let on_expiry = on_expiry.and_then(|parsed| problems.take("/on_expiry", parsed));
    (max, on_expiry.unwrap_or_default())
}

/// The hub's limits of a persona's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Life of a persona that names no end.
    pub default_ttl: Option<Duration>,
    /// Longest life from admission on.
    pub max_ttl: Option<Duration>,
}

/// Reads `life` of `hub.yaml`.
pub fn limits(problems: &mut Problems, document: &LifeDocument) -> Limits {
    let mut read = |name: &str, written: &Option<String>| {
        let text = written.as_deref()?;
        problems.take(&format!("/life/{name}"), span::parse(text))
    };
    let default_ttl = read("default_ttl", &document.default_ttl);
    let max_ttl = read("max_ttl", &document.max_ttl);
    if let (Some(default), Some(max)) = (default_ttl, max_ttl)
        && default > max
    {
        problems.add("/life/default_ttl", "longer than `max_ttl`: shorten it");
    }
    Limits { default_ttl, max_ttl }
}

/// What a life is measured by.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// The hub's limits.
    pub hub: Limits,
    /// The persona's own longest life.
    pub max_ttl: Option<Duration>,
    /// When it was admitted.
    pub created_at: Timestamp,
}

impl Measure {
    /// The deadline of an end as written, counted from `now`.
    pub fn deadline(&self, expiry: Expiry, now: Timestamp) -> Result<Option<Timestamp>, Vec<Problem>> {
        let expiry = match (expiry, self.hub.default_ttl) {
            (Expiry::Never, Some(default)) => {
                Expiry::After(self.max_ttl.map_or(default, |max| max.min(default)))
            }
            (expiry, _) => expiry,
        };
        match expiry.resolve(now) {
            Ok(end) => self.check(expiry, end).map(|()| end),
            Err(problem) => Err(self.above().into_iter().chain([problem]).collect()),
        }
    }

    /// The deadline of a life whose limit became another one. One without an end of its own ends when the limit says.
    pub fn shortened(
        &self,
        expiry: Expiry,
        end: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, Vec<Problem>> {
        if !matches!(expiry, Expiry::Never) {
            self.check(expiry, end)?;
            return Ok(end);
        }
        let end = self.deadline(expiry, self.created_at)?;
        if end.is_some_and(|end| end <= now) {
            let detail = format!(
                "max_ttl: it was created at {}, and would have ended: use a longer one, or delete it",
                self.created_at
            );
            return Err(vec![Problem::new("/max_ttl", detail)]);
        }
        Ok(end)
    }

    /// Refuses an end later than the limits allow.
    fn check(&self, expiry: Expiry, end: Option<Timestamp>) -> Result<(), Vec<Problem>> {
        let problems: Vec<Problem> = self.above().into_iter().chain(self.late(expiry, end)).collect();
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// Its own limit is above the hub's.
    fn above(&self) -> Option<Problem> {
        let hub = self.hub.max_ttl.filter(|hub| self.max_ttl.is_some_and(|own| own > *hub))?;
        let detail = format!("max_ttl: this hub allows at most {}", in_words(hub));
        Some(Problem::new("/max_ttl", detail))
    }

    /// There is no end, or it is later than the shorter of the limits allows.
    fn late(&self, expiry: Expiry, end: Option<Timestamp>) -> Option<Problem> {
        let max = self.max_ttl.into_iter().chain(self.hub.max_ttl).min()?;
        let latest = self.created_at.checked_add(max).unwrap_or(Timestamp::MAX);
        let pointer = if matches!(expiry, Expiry::At(_)) { "/expiration" } else { "/ttl" };
        match end {
            None => {
                let detail =
                    format!("a persona lives at most {} here: give `ttl` or `expiration`", in_words(max));
                Some(Problem::new(pointer, detail))
            }
            Some(end) if end > latest => {
                let late = ExpiryError::Late(end.to_string(), in_words(max), latest.to_string());
                Some(Problem::new(pointer, late.to_string()))
            }
            Some(_) => None,
        }
    }
}

/// The end that a persona has before its definition changes.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// As its definition says.
    pub expiry: Expiry,
    /// Its own longest life.
    pub max_ttl: Option<Duration>,
    /// When it was admitted.
    pub created_at: Timestamp,
    /// The deadline; none is for ever.
    pub expires_at: Option<Timestamp>,
}

impl Held {
    /// The end of a persona with a definition that was admitted.
    pub fn new(document: &PersonaDocument, created_at: Timestamp, expires_at: Option<Timestamp>) -> Self {
        let (expiry, max_ttl) = written(document);
        Self { expiry: expiry.unwrap_or(Expiry::Never), max_ttl, created_at, expires_at }
    }
}

/// The end that a document gives. Of one that cannot be read nothing can be said; that is told with what else is wrong.
pub fn expiry(document: &PersonaDocument) -> Option<Expiry> {
    Expiry::parse(document.expiration.as_deref(), document.ttl.as_deref()).ok()
}

/// The end and the longest life that a document gives.
fn written(document: &PersonaDocument) -> (Option<Expiry>, Option<Duration>) {
    (expiry(document), document.max_ttl.as_deref().and_then(|text| span::parse(text).ok()))
}

/// When the life of a definition ends. It stays if the definition before has the same end; a `ttl` counts from now.
/// The rest of the document may be wrong. The limit may be raised only where nobody asks over the API.
pub fn end(
    document: &PersonaDocument,
    hub: Limits,
    held: Option<Held>,
    by_api: bool,
    now: Timestamp,
) -> Result<Option<Timestamp>, Vec<Problem>> {
    let (Some(expiry), max_ttl) = written(document) else { return Ok(None) };
    let before = held.and_then(|held| held.max_ttl);
    if by_api && before.is_some_and(|before| max_ttl.is_none_or(|max_ttl| max_ttl > before)) {
        let detail = "max_ttl may be shortened, not raised: keep it, or create another persona";
        let past = expiry.resolve(now).err();
        return Err([Problem::new("/max_ttl", detail)].into_iter().chain(past).collect());
    }
    let measure = Measure { hub, max_ttl, created_at: held.map_or(now, |held| held.created_at) };
    let Some(held) = held.filter(|held| held.expiry == expiry) else { return measure.deadline(expiry, now) };
    match expiry {
        Expiry::At(_) => measure.deadline(expiry, now),
        Expiry::Never | Expiry::After(_) if max_ttl == before => Ok(held.expires_at),
        Expiry::Never | Expiry::After(_) => measure.shortened(expiry, held.expires_at, now),
    }
}

/// When to warn of an end: at a tenth of the life, at least a minute before, and a minute before.
pub fn warnings(created_at: Timestamp, deadline: Timestamp) -> Vec<Timestamp> {
    let life = deadline.duration_since(created_at);
    let minute = jiff::SignedDuration::from_mins(1);
    let mut times: Vec<Timestamp> = [(life / 10).max(minute), minute]
        .into_iter()
        .filter_map(|before| deadline.checked_sub(before).ok())
        .filter(|time| *time > created_at)
        .collect();
    times.dedup();
    times
}

fn in_words(time: Duration) -> String {
    let seconds = time.as_secs();
    let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
    let whole = units.into_iter().find(|(unit, _)| seconds >= *unit && seconds.is_multiple_of(*unit));
    whole.map_or_else(|| format!("{seconds}s"), |(unit, name)| format!("{}{name}", seconds / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2030-01-01T{text}Z").parse().unwrap()
    }

    fn measure(own: Option<u64>, hub: Option<u64>, default: Option<u64>) -> Measure {
        let hours = |hours: Option<u64>| hours.map(Duration::from_hours);
        Measure {
            hub: Limits { default_ttl: hours(default), max_ttl: hours(hub) },
            max_ttl: hours(own),
            created_at: at("00:00:00"),
        }
    }

    #[test]
    fn ends_are_cut_or_drained() {
        assert_eq!(OnExpiry::parse("cut").unwrap(), OnExpiry::Cut);
        assert_eq!(OnExpiry::parse("drain:5m").unwrap().drain(), DRAIN_MAX);
        for text in ["", "drain", "drain:", "drain:6m", "drain:0s", "kill"] {
            assert!(OnExpiry::parse(text).unwrap_err().to_string().contains("drain:30s"), "{text}");
        }
    }

    #[test]
    fn no_life_is_longer_than_its_limit_from_admission_on() {
        let end = |measure: Measure, expiry, now: &str| {
            measure.deadline(expiry, at(now)).map_err(|problems| {
                let texts = problems.iter().map(|problem| format!("{} {}", problem.pointer, problem.detail));
                texts.collect::<Vec<_>>().join("; ")
            })
        };
        let hour = Duration::from_hours(1);
        assert_eq!(end(measure(None, None, None), Expiry::Never, "00:00:00"), Ok(None));
        assert_eq!(
            end(measure(Some(2), None, None), Expiry::After(hour), "01:00:00"),
            Ok(Some(at("02:00:00")))
        );
        let late = end(measure(Some(2), Some(9), None), Expiry::After(hour), "01:00:01").unwrap_err();
        assert!(late.starts_with("/ttl") && late.contains("at most 2030-01-01T02:00:00Z"), "{late}");
        let late = end(measure(None, Some(3), None), Expiry::At(at("03:00:01")), "00:00:00").unwrap_err();
        assert!(late.starts_with("/expiration") && late.contains("3h"), "{late}");
        let none = end(measure(None, Some(3), None), Expiry::Never, "00:00:00").unwrap_err();
        assert!(none.contains("give `ttl`"), "{none}");
        assert_eq!(end(measure(None, Some(3), Some(2)), Expiry::Never, "00:00:00"), Ok(Some(at("02:00:00"))));
        let above = end(measure(Some(4), Some(3), None), Expiry::After(hour), "00:00:00").unwrap_err();
        assert!(above.starts_with("/max_ttl") && !above.contains(';'), "{above}");
        let both = end(measure(Some(4), Some(3), None), Expiry::At(at("05:00:00")), "00:00:00").unwrap_err();
        assert!(both.starts_with("/max_ttl") && both.contains("; /expiration"), "{both}");
        assert!(both.contains("at most 2030-01-01T03:00:00Z"), "{both}");
        let past = end(measure(Some(4), Some(3), None), Expiry::At(at("00:00:00")), "00:00:01").unwrap_err();
        assert!(past.contains("/max_ttl") && past.contains("; /expiration expiration_in_past"), "{past}");
    }

    #[test]
    fn warnings_come_at_a_tenth_and_a_minute_before_the_end() {
        let times = |end: &str| warnings(at("00:00:00"), at(end));
        assert_eq!(times("20:00:00"), [at("18:00:00"), at("19:59:00")]);
        assert_eq!(times("00:05:00"), [at("00:04:00")]);
        assert!(times("00:01:00").is_empty());
    }
}
