//! How lives end: limits, warnings, drains, and a wall clock that is set.

use std::time::Duration;

use jiff::SignedDuration;

use super::*;
use crate::command::{Clocks, Elements};
use crate::document::persona::PersonaDocument;

fn temporary(fields: Value) -> Value {
    with(persona("a", "10.1.0.0/24"), fields)
}

fn delete(script: &mut Script, drain: u64) -> Reply {
    let drain = Some(Duration::from_secs(drain));
    let command = Command::Delete { persona: "a".into(), if_generation: None, drain };
    script.hub.handle(command, script.now).unwrap()
}

fn set_clock(script: &mut Script, seconds: i64) {
    script.now += seconds.seconds();
    let by = SignedDuration::from_secs(seconds);
    script.hub.handle(Command::ClockSet(by), script.now).unwrap();
}

#[test]
fn a_life_is_extended_up_to_its_limit() {
    let mut script = Script::new();
    script.create(temporary(json!({"ttl": "1h", "max_ttl": "2h"}))).unwrap();
    script.pass(3_000);
    let until = |time: &str| temporary(json!({"expiration": format!("2030-01-01T{time}Z"), "max_ttl": "2h"}));
    assert!(script.replace("a", until("02:00:00")).is_ok());
    let (kind, text) = refusal(script.replace("a", until("02:00:01")));
    assert!(kind == RejectionKind::Invalid && text.contains("at most 2030-01-01T02:00:00Z"), "{text}");
    let raised = temporary(json!({"ttl": "1h", "max_ttl": "9h"}));
    assert!(refusal(script.replace("a", raised)).1.contains("/max_ttl max_ttl may be shortened"));
    script.pass(3_600);
    assert_eq!(script.view("a").state, PersonaState::Provisioning.min(PersonaState::Pending));
    script.pass(600);
    assert_eq!(script.view("a").state, PersonaState::Expired);
}

#[test]
fn the_hub_has_a_default_and_a_limit() {
    let mut config = Config::default();
    config.life.max_ttl = Some(Duration::from_hours(3));
    let mut script = Script::with(config.clone());
    assert!(refusal(script.create(temporary(json!({})))).1.contains("give `ttl` or `expiration`"));
    assert!(script.create(temporary(json!({"ttl": "4h"}))).is_err());
    config.life.default_ttl = Some(Duration::from_hours(1));
    let mut script = Script::with(config);
    let view = script.create(temporary(json!({}))).unwrap();
    assert_eq!(view.expires_at, Some(script.now + 1.hour()));
    script.pass(60);
    let changed = script.replace("a", temporary(json!({"protocols": ["tcp"]}))).unwrap();
    assert_eq!(changed.expires_at, view.expires_at, "a change is no new life");
}

#[test]
fn a_wrong_end_is_told_with_all_that_is_wrong_otherwise() {
    let mut config = Config::default();
    config.life.max_ttl = Some(Duration::from_hours(3));
    let mut script = Script::with(config);
    let wrong = |fields: Value| {
        let document: PersonaDocument =
            serde_json::from_value(with(persona("-", "10.1.0.0/24"), fields)).unwrap();
        Command::Create { document: Box::new(document) }
    };
    let pointers = |script: &mut Script, command: Command| {
        let rejection = script.hub.handle(command, script.now).unwrap_err();
        let found = rejection.problems.into_iter().map(|problem| problem.pointer);
        (rejection.kind, found.collect::<Vec<_>>())
    };
    for (fields, end) in [
        (json!({"expiration": "2029-12-31T23:59:59Z"}), "/expiration"),
        (json!({"expiration": "2030-01-01T03:00:01Z"}), "/expiration"),
        (json!({"ttl": "4h"}), "/ttl"),
        (json!({}), "/ttl"),
        (json!({"ttl": "1h", "max_ttl": "4h"}), "/max_ttl"),
    ] {
        let found = pointers(&mut script, wrong(with(fields.clone(), json!({"mtu": 9}))));
        assert_eq!(
            found,
            (RejectionKind::Invalid, vec!["/name".into(), "/mtu".into(), end.into()]),
            "{fields}"
        );
        // Where the range cannot be chosen, too.
        let found =
            pointers(&mut script, wrong(with(fields.clone(), json!({"name": "a", "ip_range": "auto"}))));
        assert_eq!(found, (RejectionKind::Invalid, vec!["/ip_range".into(), end.into()]), "{fields}");
    }
    let twice = wrong(json!({"ttl": "soon", "mtu": 9}));
    assert_eq!(pointers(&mut script, twice).1, ["/name", "/ttl", "/mtu"], "told once");
    script.create(temporary(json!({"ttl": "1h", "max_ttl": "2h"}))).unwrap();
    let document = with(persona("a", "10.1.0.0/24"), json!({"mtu": 9, "max_ttl": "3h", "ttl": "1h"}));
    let document: Box<PersonaDocument> = serde_json::from_value(document).unwrap();
    let raised = Command::Replace { persona: "a".into(), document, if_generation: None };
    assert_eq!(pointers(&mut script, raised).1, ["/mtu", "/max_ttl"]);
}

#[test]
fn warnings_come_in_time_and_go_with_an_extension() {
    let mut script = Script::new();
    script.create(temporary(json!({"ttl": "10h"}))).unwrap();
    script.reconciled(&[]);
    let ends = |script: &mut Script| {
        let reasons = script.reasons("a").into_iter();
        reasons.filter(|reason| reason.starts_with("Ends")).collect::<Vec<_>>()
    };
    assert_eq!(script.hub.deadline(), Some(script.now + 9.hours()));
    script.pass(9 * 3_600);
    assert_eq!(ends(&mut script), ["EndsSoon"]);
    assert_eq!(script.hub.deadline(), Some(script.now + 59.minutes()));
    script.pass(59 * 60);
    assert_eq!(ends(&mut script), ["EndsInAMinute"]);
    assert_eq!(script.hub.deadline(), Some(script.now + 1.minute()));
    script.replace("a", temporary(json!({"ttl": "20h"}))).unwrap();
    assert!(ends(&mut script).is_empty());
}

#[test]
fn a_drain_refuses_newcomers_from_the_deadline_on() {
    let mut script = Script::new();
    let view = script.create(temporary(json!({"ttl": "1h", "on_expiry": "drain:30s"}))).unwrap();
    script.reconciled(&[]);
    let end = view.expires_at.unwrap();
    let segment = script.desired().segments[&view.segment].clone();
    assert_eq!((segment.drains, segment.expires), (Some(end), Some(end + 30.seconds())));
    script.pass(3_600);
    assert_eq!(script.view("a").state, PersonaState::Expiring);
    assert_eq!(script.desired().segments[&view.segment].state, SegmentState::Active);
    let (kind, text) = refusal(script.replace("a", temporary(json!({"ttl": "9h"}))));
    assert!(kind == RejectionKind::Conflict && text.contains("never comes back"), "{text}");
    script.pass(30);
    assert_eq!(script.view("a").state, PersonaState::Expired);
    assert_eq!(script.desired().segments[&view.segment].state, SegmentState::Block);
}

#[test]
fn a_deletion_that_drains_ends_by_itself() {
    let mut script = Script::new();
    let view = script.create(temporary(json!({"ttl": "1h"}))).unwrap();
    script.reconciled(&[]);
    let Reply::Updated(answer) = delete(&mut script, 30) else { panic!("it drains") };
    assert_eq!(answer.state, PersonaState::Deleting);
    let segment = script.desired().segments[&view.segment].clone();
    assert_eq!((segment.state, segment.expires), (SegmentState::Drain, Some(script.now + 30.seconds())));
    assert!(refusal(script.replace("a", temporary(json!({"ttl": "9h"})))).1.contains("deleting"));
    let state = serde_json::from_str(&serde_json::to_string(&script.hub.state()).unwrap()).unwrap();
    script.hub = Hub::restore(Config::default(), IdSource::new(2), state, script.now);
    assert_eq!(script.view("a").state, PersonaState::Deleting, "another daemon");
    script.pass(30);
    assert!(script.hub.snapshot(script.now).personas.is_empty());
    assert!(script.desired().segments.is_empty());
}

#[test]
fn a_clock_that_goes_back_makes_no_life_longer() {
    let mut script = Script::new();
    let view = script.create(temporary(json!({"ttl": "1h"}))).unwrap();
    script.pass(1_800);
    set_clock(&mut script, -7_200);
    let left = |script: &Script| script.desired().segments[&view.segment].expires.unwrap() - script.now;
    assert_eq!(left(&script).get_seconds(), 1_800);
    // Back and forth again, all is as before.
    set_clock(&mut script, 7_200);
    assert_eq!(script.desired().segments[&view.segment].expires, view.expires_at);
    set_clock(&mut script, -7_200);
    let state = serde_json::from_str(&serde_json::to_string(&script.hub.state()).unwrap()).unwrap();
    script.hub = Hub::restore(Config::default(), IdSource::new(2), state, script.now);
    script.pass(1_799);
    assert!(script.view("a").state != PersonaState::Expired);
    script.pass(1);
    assert_eq!(script.view("a").state, PersonaState::Expired);
}

#[test]
fn a_clock_that_goes_back_while_no_daemon_runs_makes_no_life_longer() {
    let clocks = |hours: i64| {
        let wall_before_boot_ns = hours * 3_600_000_000_000;
        Some(Clocks { boot_id: "a".to_owned(), wall_before_boot_ns })
    };
    let mut script = Script::new();
    script.hub.note_clocks(clocks(9).unwrap());
    let view = script.create(temporary(json!({"ttl": "1h"}))).unwrap();
    script.pass(1_800);
    let again = |script: &mut Script, hours: i64, by: i64| {
        script.now += by.hours();
        let state = serde_json::from_str(&serde_json::to_string(&script.hub.state()).unwrap()).unwrap();
        script.hub = Hub::restore_by(Config::default(), IdSource::new(2), state, clocks(hours), script.now);
    };
    let left = |script: &Script| script.desired().segments[&view.segment].expires.unwrap() - script.now;
    again(&mut script, 7, -2);
    assert_eq!(left(&script).get_seconds(), 1_800);
    // The next daemon finds the clocks as they were.
    again(&mut script, 7, 0);
    assert_eq!(left(&script).get_seconds(), 1_800);
    // Back and forth again, all is as before.
    again(&mut script, 9, 2);
    assert_eq!(script.desired().segments[&view.segment].expires, view.expires_at);
    again(&mut script, 10, 1);
    assert_eq!(script.view("a").state, PersonaState::Expired);
}

#[test]
fn corrections_of_the_clock_move_ends_and_jumps_forward_bring_them() {
    let mut script = Script::new();
    let view = script.create(temporary(json!({"ttl": "1h"}))).unwrap();
    set_clock(&mut script, -60);
    assert_eq!(script.desired().segments[&view.segment].expires, view.expires_at, "a correction");
    set_clock(&mut script, 3_660);
    script.pass(0);
    assert_eq!(script.view("a").state, PersonaState::Expired);
}

#[test]
fn rests_and_drains_count_time_whatever_the_clock_says() {
    let mut script = Script::new();
    let first = script.create(temporary(json!({}))).unwrap();
    script.reconciled(&[]);
    delete(&mut script, 30);
    set_clock(&mut script, 3_600);
    script.pass(29);
    assert_eq!(script.view("a").state, PersonaState::Deleting);
    script.pass(1);
    set_clock(&mut script, -3_600);
    script.pass(59);
    assert_ne!(script.create(temporary(json!({}))).unwrap().segment, first.segment, "its number rests");
    script.pass(1);
    assert_eq!(script.create(persona("b", "10.2.0.0/24")).unwrap().segment, first.segment);
}

#[test]
fn no_change_makes_a_life_longer_that_the_clock_did_not() {
    let mut script = Script::new();
    script.create(temporary(json!({"ttl": "1h", "max_ttl": "4h"}))).unwrap();
    script.pass(1_800);
    set_clock(&mut script, -365 * 24 * 3_600);
    let changed = script.replace("a", temporary(json!({"ttl": "1h", "max_ttl": "4h", "protocols": ["tcp"]})));
    assert_eq!(changed.unwrap().expires_at, Some(script.now + 30.minutes()));
    let (_, text) = refusal(script.replace("a", temporary(json!({"ttl": "4h", "max_ttl": "4h"}))));
    assert!(text.contains("max_ttl"), "its age is what it was: {text}");
    let longer = script.replace("a", temporary(json!({"ttl": "3h", "max_ttl": "4h"})));
    assert_eq!(longer.unwrap().expires_at, Some(script.now + 3.hours()), "that is what was asked for");
    let reasons = |script: &mut Script| script.reasons("a").join(" ");
    script.pass(3 * 3_600 - 60);
    assert!(reasons(&mut script).contains("EndsInAMinute"), "{}", reasons(&mut script));
}

#[test]
fn a_limit_may_become_shorter_and_is_kept() {
    let mut script = Script::new();
    let view = script.create(temporary(json!({"ttl": "4h"}))).unwrap();
    let shorter = |ttl: &str| temporary(json!({"ttl": ttl, "max_ttl": "1h"}));
    let (kind, text) = refusal(script.replace("a", shorter("4h")));
    assert!(kind == RejectionKind::Invalid && text.contains("/ttl") && text.contains("1h"), "{text}");
    assert_eq!(script.view("a").expires_at, view.expires_at);
    assert_eq!(script.replace("a", shorter("1h")).unwrap().expires_at, Some(script.now + 1.hour()));

    let mut config = Config::default();
    config.life.default_ttl = Some(Duration::from_hours(3));
    let mut script = Script::with(config);
    let view = script.create(temporary(json!({}))).unwrap();
    script.pass(1_800);
    let limit = |max_ttl: &str| temporary(json!({"max_ttl": max_ttl}));
    assert!(refusal(script.replace("a", limit("10m"))).1.contains("/max_ttl max_ttl: it was created at"));
    assert_eq!(script.replace("a", limit("1h")).unwrap().expires_at, Some(view.created_at + 1.hour()));
}

#[test]
fn ends_of_rules_elements_and_quarantine_count_time_whatever_the_clock_says() {
    let mut script = Script::new();
    let rule = |port: u16, end: Value| with(json!({"protocol": "tcp", "port": port, "action": "allow"}), end);
    let rules = [
        rule(22, json!({"ttl": "10m"})),
        rule(80, json!({"expires_at": "2030-01-01T00:10:00Z"})),
        rule(443, json!({"expires_at": "2030-01-01T09:00:00Z"})),
    ];
    let document = temporary(json!({"security_policies": rules, "sets": {"staff": {}}}));
    let view = script.create(document).unwrap();
    let add =
        Elements::Add { entries: vec!["10.9.0.0/24".parse().unwrap()], ttl: Some(Duration::from_mins(10)) };
    let command = Command::Elements { persona: "a".into(), set: "staff".into(), change: add };
    script.hub.handle(command, script.now).unwrap();
    let time = Some(Duration::from_mins(10));
    let command =
        Command::Quarantine { persona: "a".into(), address: "10.9.0.1".parse().unwrap(), until: time };
    script.hub.handle(command, script.now).unwrap();
    let minutes = |script: &Script, end: Timestamp| end.duration_since(script.now).as_mins();
    let ends = |script: &Script| {
        let desired = script.desired();
        let policy = &desired.segments[&view.segment].policy;
        let mut ends: Vec<i64> =
            policy.terms.values().filter_map(|terms| terms.ends).map(|end| minutes(script, end)).collect();
        ends.sort_unstable();
        let elements = desired.sets.iter().flat_map(|(_, set)| set.values().copied().flatten());
        ends.extend(elements.map(|end| minutes(script, end)));
        ends.extend(desired.quarantine.iter().map(|(_, end)| minutes(script, *end)));
        ends
    };
    script.pass(240);
    assert_eq!(ends(&script), [6, 6, 536, 6, 6]);
    set_clock(&mut script, -3_600);
    assert_eq!(ends(&script), [6, 6, 536, 6, 6], "nothing is longer");
    set_clock(&mut script, 3_600);
    assert_eq!(ends(&script), [6, 6, 536, 6, 6]);
    set_clock(&mut script, 300);
    assert_eq!(ends(&script), [1, 6, 531, 6, 6], "what names a moment ends then");
    script.pass(60);
    assert_eq!(ends(&script).len(), 5);
}

#[test]
fn of_equal_routes_the_one_that_ends_first_wins_and_the_next_takes_over() {
    use crate::desired::{RouteKey, Via};
    use crate::model::config::RoutePriority;
    use crate::systems::persona::Record;
    use crate::systems::persona::place::{METRIC_BASE, METRIC_STEP, Placement, routes};

    let mut script = Script::new();
    for (name, range, end) in [
        ("never", "10.1.0.0/24", json!({})),
        ("late", "10.2.0.0/24", json!({"ttl": "9h"})),
        ("soon", "10.3.0.0/24", json!({"ttl": "1h"})),
        ("same", "10.4.0.0/24", json!({"ttl": "1h", "priority": 5})),
    ] {
        script.create(with(persona(name, range), end)).unwrap();
    }
    let target = "192.0.2.0/24".parse().unwrap();
    let order = |script: &Script, priority| {
        let live: Vec<&Record> =
            script.hub.records.values().filter(|record| record.is_live(script.now)).collect();
        let placed: Vec<(&Record, Placement)> = live
            .into_iter()
            .map(|record| {
                let via = Via::Interface(record.persona.name().to_owned());
                let mut placement = Placement::default();
                placement.routes.push((target, via));
                (record, placement)
            })
            .collect();
        let mut desired = Desired::default();
        routes(&mut desired, &placed, priority);
        let of_target = desired.routes.into_iter().filter(|(key, _)| key.target == target);
        of_target.map(|(RouteKey { metric, .. }, route)| (metric, route.via)).collect::<Vec<_>>()
    };
    let ranked = |names: &[&str]| -> Vec<(u32, Via)> {
        let metrics = (METRIC_BASE..).step_by(METRIC_STEP as usize);
        metrics.zip(names.iter().map(|name| Via::Interface((*name).to_owned()))).collect()
    };
    assert_eq!(order(&script, RoutePriority::EarliestExpiry), ranked(&["same", "soon", "late", "never"]));
    assert_eq!(order(&script, RoutePriority::LatestExpiry), ranked(&["never", "late", "same", "soon"]));
    script.pass(3_599);
    assert_eq!(
        order(&script, RoutePriority::EarliestExpiry),
        ranked(&["same", "soon", "late", "never"]),
        "no churn"
    );
    script.pass(1);
    assert_eq!(order(&script, RoutePriority::EarliestExpiry), ranked(&["late", "never"]));
}
