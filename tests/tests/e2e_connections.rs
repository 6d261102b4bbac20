//! How many connections a source has at once: real clients, a daemon that restarts, counts that went wrong.

use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use hub_tests::lab::Outcome::{Answered, Refused};
use hub_tests::lab::world::{FAMILIES, member_at, outside_at};
use hub_tests::lab::{World, echoes, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

/// Longer than three counts of the daemon, on a busy machine too.
const PATIENCE: Duration = Duration::from_mins(1);

fn world(fields: &Value) -> World {
    let world = World::new(1);
    world.create(0, fields);
    world
}

/// Connections that the test goes on to use.
fn hold(world: &World, target: IpAddr, port: u16, number: usize) -> Vec<TcpStream> {
    (0..number).map(|_| world.outside.connect(target, port)).collect()
}

#[track_caller]
fn expect_full(world: &World, target: IpAddr, port: u16) {
    let before = world.dropped("p0", "connection_limit");
    let outcome = world.outside.tcp(target, port, Duration::from_millis(300));
    assert_ne!(outcome, Answered, "{target} port {port}");
    assert!(world.dropped("p0", "connection_limit") > before, "{target} port {port}");
}

#[test]
fn a_source_has_its_connections_and_no_more_over_a_restart() {
    if !root() {
        return;
    }
    let mut world = world(&json!({
        "max_connections_per_source": 3,
        "security_policies": [{"protocol": "tcp", "port": 80, "action": "allow"}],
    }));
    let _inside = world.members[0].serve(&[80]);
    for v4 in FAMILIES {
        let there = member_at(0, v4);
        let mut held = hold(&world, there, 80, 3);
        expect_full(&world, there, 80);
        world.hub.process().kill();
        world.hub.restart();
        expect_full(&world, there, 80);
        assert!(held.iter_mut().all(|stream| echoes(stream, PATIENCE)), "those that exist go on");
        let question = format!("tcp {} {}", outside_at(v4), hub_tests::lab::world::with_port(there, 80));
        let (answer, passes) = world.why(&question);
        assert!(!passes && answer["reason"] == "connection_limit", "{answer:#}");
        assert!(answer["explanation"].as_str().unwrap().contains("max_connections_per_source"));
        held.pop();
        wait_until("what was closed makes room", PATIENCE, || {
            world.outside.tcp(there, 80, Duration::from_millis(500)) == Answered
        });
        // A member opens what it likes.
        drop(held);
        let _outside = world.outside.serve(&[8_080]);
        let out: Vec<_> = (0..5).map(|_| world.members[0].tcp(outside_at(v4), 8_080, PATIENCE)).collect();
        assert_eq!(out, [Answered; 5]);
    }
}

#[test]
fn a_rule_has_a_limit_of_its_own_and_the_default_action_answers() {
    if !root() {
        return;
    }
    let world = world(&json!({
        "default_action": "reject",
        "tracking": "needed",
        "security_policies": [
            {"protocol": "tcp", "port": 80, "action": "allow", "max_connections_per_source": 1},
            {"protocol": "tcp", "port": 81, "action": "allow"},
        ],
    }));
    let _inside = world.members[0].serve(&[80, 81]);
    for v4 in FAMILIES {
        let there = member_at(0, v4);
        let held = hold(&world, there, 80, 1);
        world.outside.expect_tcp(there, 80, Refused);
        world.outside.expect_tcp(there, 81, Answered);
        drop(held);
        wait_until("what was closed makes room", PATIENCE, || {
            world.outside.tcp(there, 80, Duration::from_millis(500)) == Answered
        });
    }
    let shown = world.hub.hubctl(&["persona", "show", "p0"]).expect_success();
    assert!(shown.contains("p0"), "{shown}");
    for (fields, pointer) in [
        (json!({"max_connections_per_source": 0}), "/max_connections_per_source"),
        (
            json!({"security_policies": [{"action": "deny", "max_connections_per_source": 1}]}),
            "/security_policies/0/max_connections_per_source",
        ),
    ] {
        let definition = World::definition(0, &fields);
        let answer = world.hub.send("PUT", "/v1/personas/p0", &definition).expect(422);
        assert!(answer.to_string().contains(pointer), "{answer:#}");
    }
}

#[test]
fn half_open_connections_that_are_over_are_found_by_the_daemon() {
    if !root() {
        return;
    }
    let world = World::with(1, "timeouts: {opening: 5s}");
    world.create(
        0,
        &json!({
            "max_connections_per_source": 2,
            "security_policies": [{"protocol": "tcp", "port": 80, "action": "allow"}],
        }),
    );
    for v4 in FAMILIES {
        let there = member_at(0, v4);
        // The members' network answers nothing: the connections stay half open, and nobody ends them.
        world.members[0].sh("nft add table inet quiet; nft add chain inet quiet in '{ type filter hook input priority 0; }'; nft add rule inet quiet in tcp dport 80 drop");
        for _ in 0..2 {
            assert_ne!(world.outside.tcp(there, 80, Duration::from_millis(200)), Answered);
        }
        expect_full(&world, there, 80);
        world.members[0].sh("nft delete table inet quiet");
        let _inside = world.members[0].serve(&[80]);
        wait_until("the half-open ones are counted no more", PATIENCE, || {
            world.outside.tcp(there, 80, Duration::from_millis(500)) == Answered
        });
    }
}
