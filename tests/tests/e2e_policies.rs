//! Rules with a time, a set, a tier, a limit or a quarantine, and rules that only watch, with real clients.
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::net::IpAddr;
use std::time::Duration;

use hub_tests::lab::Outcome::{Answered, Silent};
use hub_tests::lab::world::{FAMILIES, member_at, outside_at, with_port};
use hub_tests::lab::{World, seconds, slowness, wait_until};
use hub_tests::root;
use jiff::{SignedDuration, Timestamp};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

fn world(fields: &Value) -> World {
    let world = World::new(1);
    world.create(0, fields);
    world
}

/// Packets that rules of the persona judged, by position.
fn hits(world: &World, rule: u16, field: &str) -> u64 {
    let counters = world.hub.get("/v1/personas/p0/counters").expect(200);
    let rules = counters["rules"].as_array().unwrap().iter();
    let own = rules.filter(|count| count["rule"] == rule && count["baseline"] != json!(true));
    own.map(|count| count[field].as_u64().unwrap_or(0)).sum()
}

#[test]
fn a_rule_ends_at_its_time_also_without_the_daemon() {
    if !root() {
        return;
    }
    let mut world = world(&json!({}));
    let _inside = world.members[0].serve(&[80, 81]);
    let end = Timestamp::now() + Duration::from_secs(4);
    world.replace(
        0,
        &json!({"security_policies": [
            {"name": "visit", "protocol": "tcp", "port": 80, "action": "allow", "expires_at": end.to_string()},
            {"protocol": "tcp", "port": 81, "action": "allow"},
        ]}),
    );
    for v4 in FAMILIES {
        world.outside.expect_tcp(member_at(0, v4), 80, Answered);
    }
    world.hub.process().kill();
    wait_until("the rule has ended", PATIENCE, || Timestamp::now() > end);
    for v4 in FAMILIES {
        world.outside.expect_tcp(member_at(0, v4), 80, Silent);
        world.outside.expect_tcp(member_at(0, v4), 81, Answered);
    }
    world.hub.restart();
    wait_until("it is said that the rule has ended", PATIENCE, || {
        let view = world.hub.get("/v1/personas/p0").body;
        view["conditions"].as_array().is_some_and(|all| all.iter().any(|one| one["reason"] == "RuleExpired"))
    });
    world.outside.expect_tcp(member_at(0, true), 80, Silent);
}

#[test]
fn audit_evaluates_everything_and_drops_nothing() {
    if !root() {
        return;
    }
    let rules = json!([
        {"name": "no", "protocol": "tcp", "port": 22, "action": "deny"},
        {"name": "yes", "protocol": "tcp", "port": 80, "action": "allow"},
    ]);
    let world = world(&json!({"enforcement": "audit", "security_policies": rules}));
    let _inside = world.members[0].serve(&[22, 80, 443]);
    for v4 in FAMILIES {
        let there = member_at(0, v4);
        world.outside.expect_tcp(there, 22, Answered);
        world.outside.expect_tcp(there, 80, Answered);
        world.outside.expect_tcp(there, 443, Answered);
        let question = format!("tcp {} {} --in up0", outside_at(v4), with_port(there, 22));
        let (answer, passes) = world.why(&question);
        assert!(passes && answer["rules"][0]["would_drop"] == "rule_deny", "{answer:#}");
    }
    assert_eq!((hits(&world, 0, "would_drop"), hits(&world, 1, "would_drop")), (2, 0));
    let counters = world.hub.get("/v1/personas/p0/counters").expect(200);
    let would = |reason: &str| -> u64 {
        let all = counters["would_drop"].as_array().unwrap().iter();
        all.filter(|drop| drop["reason"] == reason).map(|drop| drop["packets"].as_u64().unwrap()).sum()
    };
    assert_eq!((would("rule_deny"), would("default_deny")), (2, 2), "{counters:#}");
    let metrics = world.router.sh("curl --silent --fail http://127.0.0.1:9178/metrics");
    assert!(metrics.contains("hub_persona_would_drop_total{persona=\"p0\""), "{metrics}");
    // In force again, what was only counted is dropped; off, nobody is asked.
    world.replace(0, &json!({"security_policies": rules}));
    world.outside.expect_tcp(member_at(0, true), 22, Silent);
    world.replace(0, &json!({"enforcement": "off", "security_policies": rules}));
    let before = hits(&world, 0, "packets");
    world.outside.expect_tcp(member_at(0, true), 22, Answered);
    assert_eq!(hits(&world, 0, "packets"), before);
}

#[test]
fn counters_follow_their_rules_through_edits_and_restarts() {
    if !root() {
        return;
    }
    let web = json!({"name": "web", "protocol": "tcp", "port": 80, "action": "allow"});
    let mut world = world(&json!({"security_policies": [web]}));
    let _inside = world.members[0].serve(&[80]);
    for v4 in FAMILIES {
        world.outside.expect_tcp(member_at(0, v4), 80, Answered);
    }
    assert_eq!(hits(&world, 0, "packets"), 2);
    let first = json!({"protocol": "tcp", "port": 23, "action": "deny"});
    world.replace(0, &json!({"security_policies": [first, web]}));
    assert_eq!((hits(&world, 0, "packets"), hits(&world, 1, "packets")), (0, 2));
    world.hub.process().kill();
    world.hub.restart();
    world.active("p0");
    assert_eq!(hits(&world, 1, "packets"), 2);
    world.outside.expect_tcp(member_at(0, true), 80, Answered);
    assert_eq!(hits(&world, 1, "packets"), 3);
}

#[test]
fn elements_of_sets_come_and_go_at_run_time() {
    if !root() {
        return;
    }
    let world = world(&json!({
        "sets": {"staff": {"entries": ["198.51.100.0/24"], "ttl": "1h"}},
        "security_policies": [{"protocol": "tcp", "port": 80, "source": "@staff", "action": "allow"}],
    }));
    let _inside = world.members[0].serve(&[80]);
    let generation = |world: &World| world.hub.get("/v1/personas/p0").expect(200)["generation"].clone();
    let before = generation(&world);
    for v4 in FAMILIES {
        let (there, here) = (member_at(0, v4), outside_at(v4).to_string());
        world.outside.expect_tcp(there, 80, Silent);
        world.hub.hubctl(&["persona", "set", "add", "p0", "staff", &here]).expect_success();
        world.outside.expect_tcp(there, 80, Answered);
        let body = json!({"entries": [here]});
        world.hub.send("DELETE", "/v1/personas/p0/sets/staff/entries", &body).expect(204);
        world.outside.expect_tcp(there, 80, Silent);
        // An element ends by itself.
        let body = json!({"entries": [here], "ttl": "3s"});
        world.hub.send("POST", "/v1/personas/p0/sets/staff/entries", &body).expect(204);
        world.outside.expect_tcp(there, 80, Answered);
        wait_until("the element has left the set", PATIENCE, || {
            let sets = world.hub.get("/v1/personas/p0/sets").expect(200);
            sets["staff"]["elements"].as_array().unwrap().len() == 1
        });
        world.outside.expect_tcp(there, 80, Silent);
    }
    assert_eq!(generation(&world), before, "the definition did not change");
    let body = json!({"entries": ["198.51.100.0/24"]});
    world.hub.send("DELETE", "/v1/personas/p0/sets/staff/entries", &body).expect(409);
    let many: Vec<String> = (0..16_384).map(|n| format!("10.{}.{}.1", n / 256, n % 256)).collect();
    let full = world.hub.send("POST", "/v1/personas/p0/sets/staff/entries", &json!({"entries": many}));
    full.expect(507);
}

#[test]
fn rules_of_the_hub_come_first() {
    if !root() {
        return;
    }
    let world = World::with(
        1,
        "baseline:\n\
         - {protocol: tcp, port: 23, action: deny}\n\
         - {protocol: tcp, port: 9100, action: allow, final: true}\n\
         - {protocol: tcp, port: 8080, action: allow}\n\
         - {protocol: tcp, port: '8000-8999', action: deny}\n",
    );
    world.create(
        0,
        &json!({"security_policies": [
            {"protocol": "tcp", "port": [23, 80, 8080, 8081], "action": "allow"},
        ]}),
    );
    let _inside = world.members[0].serve(&[23, 80, 8080, 8081, 9100]);
    for v4 in FAMILIES {
        let there = member_at(0, v4);
        world.outside.expect_tcp(there, 23, Silent);
        world.outside.expect_tcp(there, 80, Answered);
        world.outside.expect_tcp(there, 8080, Answered);
        world.outside.expect_tcp(there, 8081, Silent);
        world.outside.expect_tcp(there, 9100, Answered);
        let (answer, passes) =
            world.why(&format!("tcp {} {} --in up0", outside_at(v4), with_port(there, 23)));
        assert!(!passes && answer["rules"][0]["written"] == "hub.yaml", "{answer:#}");
    }
    // An allow that is not final leaves the rest to the persona.
    world.replace(0, &json!({"security_policies": [{"protocol": "tcp", "port": 80, "action": "allow"}]}));
    world.outside.expect_tcp(member_at(0, true), 8080, Silent);
    world.outside.expect_tcp(member_at(0, true), 9100, Answered);
}

#[test]
fn a_rate_limit_lets_its_rate_pass() {
    if !root() {
        return;
    }
    let world = world(&json!({"security_policies": [
        {"protocol": "tcp", "port": 80, "action": "rate_limit", "rate": "1/s", "burst": 3, "per": "source"},
    ]}));
    let _inside = world.members[0].serve(&[80]);
    for v4 in FAMILIES {
        let there = member_at(0, v4);
        let before = world.dropped("p0", "rate_limit");
        let outcomes: Vec<_> =
            (0..8).map(|_| world.outside.tcp(there, 80, Duration::from_millis(200))).collect();
        let passed = outcomes.iter().filter(|outcome| **outcome == Answered).count();
        assert!((3..8).contains(&passed), "{outcomes:?}");
        assert!(world.dropped("p0", "rate_limit") > before);
        wait_until("the bucket fills again", PATIENCE, || {
            world.outside.tcp(there, 80, Duration::from_millis(500)) == Answered
        });
    }
}

#[test]
fn a_quarantined_source_is_listed_and_can_be_lifted() {
    if !root() {
        return;
    }
    let world = world(&json!({"security_policies": [
        {"protocol": "tcp", "port": 23, "action": "quarantine", "ttl": "10m"},
        {"protocol": "tcp", "port": 80, "action": "allow"},
    ]}));
    let _inside = world.members[0].serve(&[23, 80]);
    for v4 in FAMILIES {
        let (there, here) = (member_at(0, v4), outside_at(v4));
        world.outside.expect_tcp(there, 80, Answered);
        world.outside.expect_tcp(there, 23, Silent);
        world.outside.expect_tcp(there, 80, Silent);
        assert!(world.dropped("p0", "quarantine") >= 2);
        let listed = world.hub.get("/v1/personas/p0/quarantine").expect(200);
        assert!(listed.as_array().unwrap().iter().any(|entry| entry["address"] == json!(here)), "{listed:#}");
        world.hub.hubctl(&["persona", "quarantine", "lift", "p0", &here.to_string()]).expect_success();
        wait_until("it is let in", PATIENCE, || {
            world.outside.tcp(there, 80, Duration::from_millis(500)) == Answered
        });
        // An operator may keep an address out for a while.
        let body = json!({"address": here, "ttl": "4s"});
        world.hub.send("POST", "/v1/personas/p0/quarantine", &body).expect(204);
        world.outside.expect_tcp(there, 80, Silent);
        wait_until("the time is over", PATIENCE, || {
            world.outside.tcp(there, 80, Duration::from_millis(500)) == Answered
        });
    }
}

/// When an address comes free of a persona's quarantine, if it is in it.
fn comes_free(world: &World, persona: &str, address: IpAddr) -> Option<Timestamp> {
    let listed = world.hub.get(&format!("/v1/personas/{persona}/quarantine")).expect(200);
    let entry = listed.as_array().unwrap().iter().find(|entry| entry["address"] == json!(address))?;
    Some(entry["expires_at"].as_str().unwrap().parse().unwrap())
}

/// When an address leaves the set of `p0`, if it is in it.
fn leaves(world: &World, address: IpAddr) -> Option<Timestamp> {
    let prefix = format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 });
    let sets = world.hub.get("/v1/personas/p0/sets").expect(200);
    let elements = sets["staff"]["elements"].as_array().unwrap();
    let element = elements.iter().find(|element| element["prefix"] == json!(prefix))?;
    Some(element["expires_at"].as_str().unwrap().parse().unwrap())
}

/// Whether it is the same time, but for the ticks that the data path counts in.
fn is_same(one: Timestamp, other: Timestamp) -> bool {
    one.duration_since(other).abs() < SignedDuration::from_secs(1)
}

#[test]
fn what_was_put_in_for_a_while_outlives_the_daemon_and_ends_without_it() {
    if !root() {
        return;
    }
    let mut world = World::new(2);
    let web = json!({"protocol": "tcp", "port": 80, "action": "allow"});
    let mut of_staff = web.clone();
    of_staff["source"] = json!("@staff");
    world.create(0, &json!({"sets": {"staff": {}}, "security_policies": [of_staff]}));
    world.create(1, &json!({"security_policies": [web]}));
    let _inside = [0, 1].map(|number| world.members[number].serve(&[80]));
    // The set of one persona lets the host outside in, the quarantine of the other keeps it out.
    let expect = |world: &World, by_set, by_quarantine| {
        for v4 in FAMILIES {
            world.outside.expect_tcp(member_at(0, v4), 80, by_set);
            world.outside.expect_tcp(member_at(1, v4), 80, by_quarantine);
        }
    };
    expect(&world, Silent, Answered);
    let ttl = seconds(30);
    for here in FAMILIES.map(|v4| outside_at(v4).to_string()) {
        world.hub.hubctl(&["persona", "set", "add", "p0", "staff", &here, "--ttl", &ttl]).expect_success();
        world.hub.hubctl(&["persona", "quarantine", "add", "p1", &here, "--ttl", &ttl]).expect_success();
    }
    expect(&world, Answered, Silent);
    let ends = |world: &World| {
        let here = FAMILIES.map(outside_at);
        [here.map(|here| leaves(world, here)), here.map(|here| comes_free(world, "p1", here))].concat()
    };
    let before: Vec<Timestamp> = ends(&world).into_iter().map(Option::unwrap).collect();
    // Killed, it leaves its maps to the next one; without them that one has its state alone.
    for are_maps_there in [true, false] {
        world.hub.process().kill();
        if are_maps_there {
            expect(&world, Answered, Silent);
        } else {
            let folder = world.lab.folder().display().to_string();
            let (maps, run) = (format!("{folder}/bpf"), format!("{folder}/run"));
            world.hub.hubctl(&["down", "--bpffs", &maps, "--runtime-dir", &run]).expect_success();
        }
        world.hub.restart();
        let after = ends(&world);
        for (after, before) in after.into_iter().zip(&before) {
            assert!(after.is_some_and(|after| is_same(after, *before)), "{before} became {after:?}");
        }
        expect(&world, Answered, Silent);
    }
    world.hub.process().signal(Signal::SIGSTOP);
    assert!(before.iter().all(|end| Timestamp::now() < *end), "the machine is too busy for this test");
    wait_until("the time of all is over", PATIENCE * 2, || before.iter().all(|end| *end < Timestamp::now()));
    expect(&world, Silent, Answered);
    world.hub.process().signal(Signal::SIGCONT);
    wait_until("nothing of it is listed", PATIENCE, || ends(&world).iter().all(Option::is_none));
    expect(&world, Silent, Answered);
}

#[test]
fn an_operator_ends_what_a_rule_put_into_quarantine_by_name_alone() {
    if !root() {
        return;
    }
    let rules = json!([
        {"protocol": "tcp", "port": 23, "action": "quarantine", "ttl": "10m"},
        {"protocol": "tcp", "port": 80, "action": "allow"},
    ]);
    let world = world(&json!({"security_policies": rules}));
    let _inside = world.members[0].serve(&[23, 80]);
    let isolate = |here: IpAddr, ttl: &str| {
        let body = json!({"address": here, "ttl": ttl});
        world.hub.send("POST", "/v1/personas/p0/quarantine", &body).expect(204);
    };
    let lift = |there: IpAddr, here: IpAddr| {
        world.hub.hubctl(&["persona", "quarantine", "lift", "p0", &here.to_string()]).expect_success();
        wait_until("it is let in", PATIENCE, || {
            world.outside.tcp(there, 80, Duration::from_millis(500)) == Answered
        });
        assert_eq!(comes_free(&world, "p0", here), None);
    };
    for v4 in FAMILIES {
        let (there, here) = (member_at(0, v4), outside_at(v4));
        world.outside.expect_tcp(there, 80, Answered);
        world.outside.expect_tcp(there, 23, Silent);
        let by_rule = comes_free(&world, "p0", here).unwrap();
        // A shorter time of the operator's ends before that of the rule.
        isolate(here, &seconds(2));
        let end = Timestamp::now() + Duration::from_secs(2) * slowness();
        world.outside.expect_tcp(there, 80, Silent);
        wait_until("the operator's time is over", PATIENCE, || Timestamp::now() > end);
        // When this returns, the kernel has whatever the hub wants since.
        world.replace(0, &json!({"security_policies": rules, "labels": {"family": v4.to_string()}}));
        let listed = comes_free(&world, "p0", here);
        assert!(listed.is_some_and(|end| is_same(end, by_rule)), "until {by_rule}: {listed:?}");
        world.outside.expect_tcp(there, 80, Silent);
        lift(there, here);
        // It can be lifted as well while both keep it out.
        world.outside.expect_tcp(there, 23, Silent);
        isolate(here, "1m");
        world.outside.expect_tcp(there, 80, Silent);
        lift(there, here);
    }
}
