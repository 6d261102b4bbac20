//! Ranges out of pools.

use std::time::Duration;

use super::*;
use crate::model::pool::Pool;
use crate::systems::persona::names;

fn pool(prefixes: &[&str], quarantine: u64) -> Pool {
    let prefixes = prefixes.iter().map(|text| text.parse().unwrap()).collect();
    Pool { prefixes, quarantine: Duration::from_secs(quarantine) }
}

fn pooled() -> Script {
    let mut config = Config::default();
    config.pools.insert("lab".into(), pool(&["10.9.0.0/24", "fd09::/60"], 60));
    config.pools.insert("other".into(), pool(&["10.8.0.0/24"], 0));
    Script::with(config)
}

fn restored(script: &Script) -> Script {
    let state = serde_json::from_str(&serde_json::to_string(&script.hub.state()).unwrap()).unwrap();
    let hub = Hub::restore(script.hub.config().clone(), IdSource::new(2), state, script.now);
    Script { hub, now: script.now }
}

#[test]
fn the_hub_chooses_and_keeps_what_it_chose() {
    let mut script = pooled();
    let both = json!({"name": "a", "ip_range": ["auto/26@lab", "auto6@lab"]});
    let view = script.create(both.clone()).unwrap();
    assert_eq!(view.ranges, ["10.9.0.0/26", "fd09::/64"]);
    script.reconciled(&[]);
    for (host, address) in [("10-9-0-5", "10.9.0.5"), ("fd09--5", "fd09::5")] {
        let name = names::resolve(&script.hub.snapshot(script.now), &format!("{host}.a.hub"));
        assert_eq!(name.map(|name| name.addresses), Some(vec![address.parse().unwrap()]), "{host}");
    }
    assert_eq!(script.desired().prefixes.len(), 2);
    assert_eq!(script.create(persona("b", "auto/26@lab")).unwrap().ranges, ["10.9.0.64/26"]);
    assert_eq!(script.create(persona("c", "auto")).unwrap().ranges, ["10.8.0.0/24"], "any pool with room");
    let changed = script.replace("a", with(both, json!({"protocols": ["tcp"]}))).unwrap();
    assert_eq!(changed.ranges, view.ranges);
    let mut after = restored(&script);
    assert_eq!(after.view("a").ranges, view.ranges);
    assert_eq!(after.create(persona("d", "auto/26@lab")).unwrap().ranges, ["10.9.0.128/26"]);
    let order = json!({"name": "a", "ip_range": ["auto/28", "auto/26@lab", "auto6@lab"]});
    let ranges = after.replace("a", order).unwrap().ranges;
    assert_eq!(ranges, ["10.9.0.192/28", "10.9.0.0/26", "fd09::/64"], "what it had stays");
}

#[test]
fn ranges_rest_before_somebody_else_gets_them() {
    let mut script = pooled();
    let asked = |name: &str| persona(name, "auto/25@lab");
    script.create(asked("a")).unwrap();
    script.create(with(asked("b"), json!({"ttl": "10s"}))).unwrap();
    script.delete("a").unwrap();
    script.pass(10);
    let (kind, text) = refusal(script.create(asked("c")));
    assert!(kind == RejectionKind::Full && text.contains("2 ranges rest"), "{text}");
    script.pass(49);
    let mut script = restored(&script);
    assert!(script.create(asked("c")).is_err(), "59 s after the deletion, another daemon");
    script.pass(1);
    assert_eq!(script.create(asked("c")).unwrap().ranges, ["10.9.0.0/25"]);
    assert!(script.create(asked("d")).is_err(), "50 s after the end");
    script.pass(10);
    assert_eq!(script.create(asked("d")).unwrap().ranges, ["10.9.0.128/25"]);
    script.replace("d", persona("d", "auto/26@lab")).unwrap_err();
    let pools = script.hub.snapshot(script.now).pools;
    assert_eq!((pools[0].allotted.len(), pools[0].resting.len()), (2, 0));
    assert!((pools[0].used_ipv4 - 1.0).abs() < 1e-9 && pools[0].used_ipv6 == 0.0);
}

#[test]
fn what_cannot_be_chosen_is_said() {
    let mut script = pooled();
    let foreign_routes = vec!["10.8.0.0/25".parse().unwrap()];
    script.inventory(Inventory { foreign_routes, ..Inventory::default() });
    assert_eq!(script.create(persona("a", "auto/26@other")).unwrap().ranges, ["10.8.0.128/26"]);
    for (range, kind, wanted) in [
        ("auto@none", RejectionKind::Invalid, "/ip_range there is no pool `none`"),
        ("auto6@other", RejectionKind::Invalid, "pool `other` has no IPv6 prefix"),
        ("auto/16", RejectionKind::Full, "no free IPv4 /16"),
        ("10.9.0.0/28", RejectionKind::Conflict, "of pool `lab`: use `auto`"),
    ] {
        let (found, text) = refusal(script.create(persona("b", range)));
        assert!(found == kind && text.contains(wanted), "{range}: {text}");
    }
}

#[test]
fn documents_in_one_change_never_get_each_others_ranges() {
    let mut script = pooled();
    script.documents(&[persona("b", "auto/26@lab")]).unwrap();
    let held = script.view("b").ranges;
    // `a` is admitted before `b`, which changes too.
    let changed = with(persona("b", "auto/26@lab"), json!({"protocols": ["tcp"]}));
    script.documents(&[persona("a", "auto/26@lab"), changed]).unwrap();
    assert_eq!(script.view("b").ranges, held);
    assert_ne!(script.view("a").ranges, held);
}

#[test]
fn ranges_of_a_change_that_goes_back_rest() {
    use crate::command::Deadline;

    let mut script = pooled();
    script.create(persona("kept", "auto/26@lab")).unwrap();
    let until = script.now + SignedDuration::from_secs(60);
    let deadline = Deadline { until, boot_id: "a".into(), boot_ns: 1 };
    // One comes, one gets another range, and one that came meanwhile ends before the change goes back.
    let documents = [
        persona("new", "auto/26@lab"),
        persona("kept", "auto/27@lab"),
        with(persona("short", "auto/26@lab"), json!({"ttl": "10s"})),
    ];
    let documents = documents.into_iter().map(|value| persona_from_value(value).unwrap()).collect();
    script.hub.handle(Command::Apply { documents, confirm: Some(deadline) }, script.now).unwrap();
    let ranges = ["new", "kept", "short"].map(|name| script.view(name).ranges[0].clone());
    script.pass(10);
    script.hub.handle(Command::Revert { why: "time".into() }, script.now).unwrap();
    assert_eq!(script.view("kept").ranges, ["10.9.0.0/26"]);
    let resting = script
        .hub
        .snapshot(script.now)
        .pools
        .iter()
        .flat_map(|pool| pool.resting.clone())
        .collect::<Vec<_>>();
    for range in &ranges {
        assert!(resting.contains(range), "{range} of {ranges:?} does not rest: {resting:?}");
    }
    script.pass(60);
    assert!(script.create(persona("other", "auto/25@lab")).is_ok(), "they have rested");
}
