//! Those who are rejected are told at once; those who are denied are not.

use std::time::Duration;

use hub_tests::lab::Outcome::{Answered, Refused, Silent, Unreachable};
use hub_tests::lab::world::{FAMILIES, member_at, outside_at, with_port};
use hub_tests::lab::{Stopwatch, World};
use hub_tests::root;
use serde_json::json;

/// A refusal takes far less than any time-out of a client.
const AT_ONCE: Duration = Duration::from_millis(900);

#[test]
fn rejected_clients_are_refused_at_once() {
    if !root() {
        return;
    }
    let world = World::new(1);
    let _inside = world.members[0].serve(&[80, 90, 7_001]);
    let rules = json!([
        {"protocol": "tcp", "port": 80, "action": "allow"},
        {"protocol": "tcp", "port": 90, "action": "deny"},
        {"protocol": "tcp", "action": "reject"},
        {"protocol": "udp", "port": 7001, "action": "reject"},
        {"protocol": "icmp", "icmp_type": "echo-request", "action": "reject"},
        {"protocol": "icmpv6", "icmp_type": "echo-request", "action": "reject"},
    ]);
    world.create(0, &json!({"security_policies": rules}));
    for v4 in FAMILIES {
        let there = member_at(0, v4);
        world.outside.expect_tcp(there, 80, Answered);
        world.outside.expect_tcp(there, 90, Silent);
        let clock = Stopwatch::start();
        world.outside.expect_tcp(there, 22, Refused);
        assert!(clock.elapsed() < AT_ONCE, "{:?}", clock.elapsed());
        // Linux tells a UDP client of "administratively prohibited" as an unreachable host or, in
        // IPv6, as a lack of permission.
        world.outside.expect_udp(there, 7_001, Unreachable);
        world.outside.expect_ping(there, Unreachable);
        let said = world.outside.try_sh(
            &format!("curl --silent --show-error --max-time 3 {}", with_port(there, 22)),
            Duration::from_secs(5),
        );
        assert!(said.stderr.contains("refused") || said.stderr.contains("connect to"), "{}", said.stderr);
        assert_eq!(said.status.and_then(|status| status.code()), Some(7), "{}", said.stderr);
        let question = format!("tcp {} {} --in up0", outside_at(v4), with_port(there, 22));
        let (answer, passes) = world.why(&question);
        assert!(!passes && answer["verdict"] == "reject", "{answer:#}");
        assert_eq!(answer["rules"][0]["rule"], 2, "{answer:#}");
    }
    assert!(world.dropped("p0", "rule_reject") >= 8);
    assert!(world.total("replied") >= 8);
}

#[test]
fn members_are_refused_by_their_own_rules() {
    if !root() {
        return;
    }
    let world = World::new(1);
    let _outside = world.outside.serve(&[25, 443]);
    let rules = json!([{"direction": "egress", "protocol": "tcp", "port": 25, "action": "reject"}]);
    world.create(0, &json!({"security_policies": rules, "default_action": "reject"}));
    for v4 in FAMILIES {
        world.members[0].expect_tcp(outside_at(v4), 25, Refused);
    }
}

#[test]
fn the_default_may_be_to_reject() {
    if !root() {
        return;
    }
    let world = World::new(1);
    let _inside = world.members[0].serve(&[80]);
    let rules = json!([{"protocol": "tcp", "port": 80, "action": "allow"}]);
    world.create(0, &json!({"security_policies": rules, "default_action": "reject"}));
    for v4 in FAMILIES {
        world.outside.expect_tcp(member_at(0, v4), 80, Answered);
        world.outside.expect_tcp(member_at(0, v4), 81, Refused);
        world.outside.expect_ping(member_at(0, v4), Answered);
    }
    assert!(world.dropped("p0", "default_deny") >= 2);
}
