//! Ranges that several personas have.

use std::collections::BTreeMap;

use hub_common::segment::SEGMENT_TRANSLATED;
use ipnet::IpNet;

use super::*;
use crate::desired::{Translation, View};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// A persona with a port of its own.
fn behind(name: &str, range: &str, port: &str) -> Value {
    with(persona(name, range), json!({"interfaces": [port]}))
}

fn pairs(ranges: &[(&str, &str)]) -> BTreeMap<IpNet, IpNet> {
    ranges.iter().map(|(one, other)| (net(one), net(other))).collect()
}

#[test]
fn whoever_comes_later_is_known_by_another_range() {
    let mut script = Script::new();
    script.create(behind("a", "10.1.0.0/16", "eth1")).unwrap();
    let b = script.create(behind("b", "10.1.2.0/24", "eth2")).unwrap();
    let c = script.create(behind("c", "10.1.0.0/16", "eth3")).unwrap();
    assert_eq!(b.virtual_ranges, pairs(&[("10.1.2.0/24", "100.64.0.0/24")]));
    assert_eq!(script.view("a").aliases, pairs(&[("10.1.0.0/16", "100.65.0.0/16")]));
    assert_eq!(c.virtual_ranges, pairs(&[("10.1.0.0/16", "100.66.0.0/16")]));
    let desired = script.desired();
    assert_eq!(desired.prefixes[&net("10.1.0.0/16")], script.view("a").segment);
    assert_eq!(desired.prefixes[&net("100.64.0.0/24")], b.segment);
    assert_eq!(desired.segments[&b.segment].flags, SEGMENT_TRANSLATED);
    assert_eq!(desired.segments[&script.view("a").segment].flags, 0);
    let known = |segment, other| Translation { segment, view: View::Member, other: net(other) };
    let wanted = BTreeMap::from([
        (known(b.segment, "10.1.2.0/24"), net("100.64.0.0/24")),
        (known(b.segment, "100.65.0.0/16"), net("10.1.0.0/16")),
        (known(c.segment, "10.1.0.0/16"), net("100.66.0.0/16")),
        (known(c.segment, "100.65.0.0/16"), net("10.1.0.0/16")),
    ]);
    assert_eq!(desired.translations, wanted.into());
}

#[test]
fn a_virtual_range_stays_for_life_and_over_restarts() {
    let mut script = Script::new();
    script.create(behind("a", "fd00::/64", "eth1")).unwrap();
    let before = script.create(behind("b", "fd00::/64", "eth2")).unwrap().virtual_ranges;
    let alias = script.view("a").aliases;
    assert_eq!((before.len(), alias.len()), (1, 1));
    let state = script.hub.state();
    script.hub = Hub::restore(Config::default(), IdSource::new(2), state, script.now);
    assert_eq!((&script.view("b").virtual_ranges, &script.view("a").aliases), (&before, &alias));
    let changed = with(behind("b", "fd00::/64", "eth2"), json!({"protocols": ["tcp"]}));
    assert_eq!(script.replace("b", changed).unwrap().virtual_ranges, before);
    let changed = with(behind("a", "fd00::/64", "eth1"), json!({"protocols": ["tcp"]}));
    assert_eq!(script.replace("a", changed).unwrap().aliases, alias);
    script.delete("a").unwrap();
    assert_eq!(script.view("b").virtual_ranges, before, "though its own range is free");
    let third = script.create(behind("c", "fd00::/64", "eth3")).unwrap();
    assert!(third.virtual_ranges.is_empty(), "nobody holds the range in the hub");
    assert_eq!(script.view("c").aliases.len(), 1, "b has to dial it");
}

#[test]
fn an_overlap_that_cannot_be_translated_is_refused() {
    let config = Config { overlap_pool: vec![net("100.64.0.0/24")], ..Config::default() };
    let mut script = Script::with(config);
    script.create(behind("a", "10.1.0.0/24", "eth1")).unwrap();
    let reject = with(behind("b", "10.1.0.0/24", "eth2"), json!({"overlap": "reject"}));
    for (document, wanted) in [
        (persona("b", "10.1.0.0/24"), "overlaps 10.1.0.0/24 of persona `a`"),
        (reject, "overlaps 10.1.0.0/24 of persona `a`"),
        (behind("b", "10.1.0.0/23", "eth2"), "overlap_pool has no free /23"),
    ] {
        let (kind, text) = refusal(script.create(document));
        assert!(kind == RejectionKind::Conflict && text.contains(wanted), "{text}");
    }
    let external = |prefix: &str| json!({"egress": {"nat": {"static": prefix}}});
    script.create(with(persona("b", "10.2.0.0/24"), external("192.0.2.0/24"))).unwrap();
    let (kind, text) = refusal(script.create(persona("c", "192.0.2.0/24")));
    assert!(kind == RejectionKind::Conflict && text.contains("of persona `b`"), "{text}");
}
