//! What a rule says beside what it matches.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::policy::{Action, Terms};
use super::super::problems::Problems;
use super::super::rate::RateLimit;
use super::super::{connections, span};
use crate::document::rule::RuleDocument;

/// How long a quarantine lasts.
const QUARANTINE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(30 * 24);

pub(super) fn terms(problems: &mut Problems, base: &str, document: &RuleDocument) -> Terms {
    let limits = document.action == Action::RateLimit;
    for (name, given) in [
        ("rate", document.rate.is_some()),
        ("burst", document.burst.is_some()),
        ("limit", document.limit.is_some()),
        ("per", document.per.is_some()),
    ] {
        if given && !limits {
            problems.add(format!("{base}/{name}"), "needs `action: rate_limit`");
        }
    }
    let rate = if limits { RateLimit::read(problems, base, document) } else { None };
    let mut quarantine = None;
    if document.action == Action::Quarantine {
        let pointer = format!("{base}/ttl");
        match &document.ttl {
            None => problems.add(pointer, "quarantine needs a ttl: give one like 10m"),
            Some(text) => {
                let parsed =
                    span::parse(text).map_err(|error| error.to_string().replacen("duration", "ttl", 1));
                quarantine = problems.take(&pointer, parsed);
                if quarantine.is_some_and(|time| !QUARANTINE.contains(&time)) {
                    problems.add(pointer, format!("ttl `{text}`: a quarantine lasts 1s to 30d"));
                }
            }
        }
    }
    let connections = connections::read(problems, base, document.max_connections_per_source);
    if document.max_connections_per_source.is_some() && !limits && document.action != Action::Allow {
        let detail = "needs `action: allow` or `rate_limit`: only what passes is counted";
        problems.add(format!("{base}/max_connections_per_source"), detail);
    }
    Terms { ends: None, rate, quarantine, connections }
}
