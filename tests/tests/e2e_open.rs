//! Personas that track what needs it: connections that rules allow both ways by their ports have no flow.
#![expect(clippy::indexing_slicing, reason = "a helper that cannot go on fails the test that called it")]

use std::time::Duration;

use hub_tests::lab::Outcome::{Answered, Silent};
use hub_tests::lab::world::{FAMILIES, member_at, outside_at, with_port};
use hub_tests::lab::{World, echoes, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

const SECOND: Duration = Duration::from_secs(1);

/// A web server that may also begin connections of its own.
fn web() -> Value {
    json!({
        "tracking": "needed",
        "security_policies": [{"protocol": "tcp", "port": 80, "action": "allow"}],
    })
}

fn flows(world: &World) -> usize {
    let flows = world.hub.get("/v1/flows").expect(200);
    flows["flows"].as_array().unwrap_or_else(|| panic!("{flows:#}")).len()
}

#[test]
fn open_connections_leave_no_flows_and_are_counted() {
    if !root() {
        return;
    }
    let world = World::new(1);
    world.create(0, &web());
    let _inside = world.members[0].serve(&[80, 81]);
    for v4 in FAMILIES {
        let there = member_at(0, v4);
        let mut stream = world.outside.connect(there, 80);
        for _ in 0..20 {
            assert!(echoes(&mut stream, SECOND), "v4 {v4}");
        }
        world.outside.expect_tcp(there, 81, Silent);
        let (answer, passes) =
            world.why(&format!("tcp {} {} --in up0", outside_at(v4), with_port(there, 80)));
        assert!(passes, "{answer:#}");
        assert_eq!(answer["rules"][0]["rule"], 0, "{answer:#}");
        assert!(answer["explanation"].as_str().unwrap().contains("one by one"), "{answer:#}");
    }
    assert_eq!(flows(&world), 0, "{:#}", world.hub.get("/v1/flows").body);
    assert!(world.total("redirected") >= 40, "{:#}", world.hub.get("/v1/counters").body);
    let counters = world.hub.get("/v1/personas/p0/counters").expect(200);
    assert!(counters["ingress"]["packets"].as_u64() >= Some(40), "{counters:#}");
}

#[test]
fn what_is_open_one_way_only_is_tracked() {
    if !root() {
        return;
    }
    let world = World::new(1);
    world.create(0, &web());
    let _outside = world.outside.serve(&[443]);
    for v4 in FAMILIES {
        let mut stream = world.members[0].connect(outside_at(v4), 443);
        assert!(echoes(&mut stream, SECOND));
        // Its answers go to a port that nobody opened.
        assert!(flows(&world) >= 1);
    }
}

#[test]
fn a_rule_that_closes_a_port_ends_its_connections_at_once() {
    if !root() {
        return;
    }
    let world = World::new(1);
    world.create(0, &web());
    let _inside = world.members[0].serve(&[80]);
    let mut streams = FAMILIES.map(|v4| world.outside.connect(member_at(0, v4), 80));
    assert!(streams.iter_mut().all(|stream| echoes(stream, SECOND)));
    world.replace(
        0,
        &json!({
            "tracking": "needed",
            "security_policies": [{"protocol": "tcp", "port": 81, "action": "allow"}],
        }),
    );
    assert!(!streams.iter_mut().any(|stream| echoes(stream, SECOND / 2)));
    world.replace(0, &web());
    assert!(streams.iter_mut().all(|stream| echoes(stream, 5 * SECOND)));
}

#[test]
fn errors_about_open_connections_reach_their_senders() {
    if !root() {
        return;
    }
    let world = World::new(1);
    world.create(0, &json!({"tracking": "needed", "protocols": ["udp", "icmp"]}));
    for v4 in FAMILIES {
        // Nobody listens: the member's kernel says so, and the sender hears it.
        world.outside.expect_udp(member_at(0, v4), 5_353, hub_tests::lab::Outcome::Refused);
        world.members[0].expect_udp(outside_at(v4), 5_353, hub_tests::lab::Outcome::Refused);
    }
    assert_eq!(flows(&world), 0, "{:#}", world.hub.get("/v1/flows").body);
}

#[test]
fn an_open_port_ends_with_its_persona_and_survives_a_restart() {
    if !root() {
        return;
    }
    let mut world = World::new(1);
    world.create(0, &web());
    let _inside = world.members[0].serve(&[80]);
    let mut streams = FAMILIES.map(|v4| world.outside.connect(member_at(0, v4), 80));
    world.hub.process().kill();
    assert!(streams.iter_mut().all(|stream| echoes(stream, SECOND)), "without the daemon");
    world.hub.restart();
    world.active("p0");
    assert!(streams.iter_mut().all(|stream| echoes(stream, SECOND)), "after its return");
    world.replace(0, &json!({"tracking": "needed"}));
    world.hub.send("DELETE", "/v1/personas/p0", &Value::Null).expect(204);
    assert!(!streams.iter_mut().any(|stream| echoes(stream, SECOND / 2)));
}

#[test]
fn next_hops_are_not_shared_where_others_route_by_rules() {
    if !root() {
        return;
    }
    let world = World::new(1);
    world.create(0, &web());
    let _inside = world.members[0].serve(&[80]);
    let there = member_at(0, true);
    world.outside.expect_tcp(there, 80, Answered);
    world.router.ip("rule add from 192.0.2.10 priority 900 blackhole");
    // The rule binds also what was forwarded before it came.
    wait_until("the foreign rule binds", 5 * SECOND, || world.outside.tcp(there, 80, SECOND / 2) == Silent);
    world.router.ip("rule del from 192.0.2.10 priority 900 blackhole");
    wait_until("the way is free again", 5 * SECOND, || world.outside.tcp(there, 80, SECOND) == Answered);
}
