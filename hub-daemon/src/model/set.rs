//! Named sets of prefixes, which rules refer to.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hub_common::limits::{ELEMENTS_PER_SET, SETS_PER_PERSONA};
use hub_common::set::set_number;
use ipnet::IpNet;
use jiff::Timestamp;

use super::problems::Problems;
use super::{names, prefix, span};
use crate::document::persona::PersonaDocument;
use crate::document::persona::SetDocument;

/// Elements of a set with the end of each; `None` stays for good.
pub type Elements = BTreeMap<IpNet, Option<Timestamp>>;

/// A set as its document has it; elements may be added at run time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// Prefixes that are always in it.
    pub entries: Arc<Elements>,
    /// How long an element stays that is added without a life of its own.
    pub ttl: Option<Duration>,
}

/// Reads the sets of a persona.
pub(super) fn sets(
    problems: &mut Problems,
    written: Option<&BTreeMap<String, SetDocument>>,
) -> BTreeMap<String, Set> {
    let mut sets = BTreeMap::new();
    let Some(written) = written else { return sets };
    if written.len() > SETS_PER_PERSONA {
        problems.add("/sets", format!("{} sets: use at most {SETS_PER_PERSONA}", written.len()));
    }
    let mut numbers: BTreeMap<u32, &str> = BTreeMap::new();
    for (name, document) in written {
        let base = format!("/sets/{}", name.replace('~', "~0").replace('/', "~1"));
        problems.take(&base, names::set(name));
        if let Some(other) = numbers.insert(set_number(name), name) {
            problems.add(&base, format!("set `{name}` cannot be told from `{other}`: give it another name"));
        }
        let entries = document.entries.as_deref().unwrap_or_default();
        if entries.len() > ELEMENTS_PER_SET {
            let detail = format!("{} entries: use at most {ELEMENTS_PER_SET}", entries.len());
            problems.add(format!("{base}/entries"), detail);
            continue;
        }
        let entries = entries.iter().enumerate().filter_map(|(index, text)| {
            problems.take(&format!("{base}/entries/{index}"), prefix::matched(text))
        });
        let entries = Arc::new(entries.map(|prefix| (prefix, None)).collect());
        let ttl = document.ttl.as_ref().and_then(|text| {
            let parsed = span::parse(text).map_err(|error| error.to_string().replacen("duration", "ttl", 1));
            problems.take(&format!("{base}/ttl"), parsed)
        });
        sets.insert(name.clone(), Set { entries, ttl });
    }
    sets
}

/// Refuses names of sets that there are not.
pub(super) fn known(problems: &mut Problems, document: &PersonaDocument, sets: &BTreeMap<String, Set>) {
    for (index, rule) in document.security_policies.iter().flatten().enumerate() {
        for (field, written) in [("source", &rule.source), ("destination", &rule.destination)] {
            let base = format!("/security_policies/{index}/{field}");
            for (pointer, text) in written.iter().flat_map(|written| written.pointed(&base)) {
                if text.strip_prefix('@').is_some_and(|name| !sets.contains_key(name)) {
                    let detail = format!("there is no set `{text}`: define it under `sets`, or use a prefix");
                    problems.add(pointer, detail);
                }
            }
        }
    }
}

/// Whether elements have an address at a time.
pub fn holds(elements: &Elements, address: IpAddr, now: Timestamp) -> bool {
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let prefixes = (0..=longest).filter_map(|length| IpNet::new(address, length).ok());
    let mut found = prefixes.filter_map(|prefix| elements.get(&prefix.trunc()));
    found.any(|end| end.is_none_or(|end| end > now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_its_prefixes_contain_until_they_end() {
        let now: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        let elements: Elements = [
            ("10.0.0.0/8".parse().unwrap(), None),
            ("192.0.2.1/32".parse().unwrap(), Some(now)),
            ("fd00::/16".parse().unwrap(), "2030-01-02T00:00:00Z".parse().ok()),
        ]
        .into();
        let has = |address: &str| holds(&elements, address.parse().unwrap(), now);
        assert!(has("10.1.2.3") && has("fd00:1::2"));
        assert!(!has("192.0.2.1") && !has("11.0.0.1") && !has("fd01::1"));
        assert!(!holds(&Elements::new(), "10.1.2.3".parse().unwrap(), now));
    }
}
