//! Whatever is configured, the operator can still log in.

use std::time::Duration;

use hub_tests::lab::Outcome::{Answered, Silent};
use hub_tests::lab::world::{FAMILIES, gateway_outside, member_at};
use hub_tests::lab::{World, wait_until};
use hub_tests::root;
use serde_json::json;

#[test]
fn a_hostile_persona_over_the_uplink_does_not_lock_the_operator_out() {
    if !root() {
        return;
    }
    let world = World::new(1);
    let _login = world.router.serve(&[22]);
    let deny = json!([
        {"protocol": "any", "direction": "both", "action": "deny"},
    ]);
    let hostile = json!({
        "ip_range": ["192.0.2.0/24", "2001:db8:2::/64"],
        "security_policies": deny, "strict": true, "interfaces": ["seg0"],
    });
    let answer = world.hub.send("POST", "/v1/personas", &World::definition(0, &hostile));
    // Refused, or admitted without harm: the operator is let in.
    assert!([201, 409, 422].contains(&answer.status), "{} {:#}", answer.status, answer.body);
    for v4 in FAMILIES {
        world.outside.expect_tcp(gateway_outside(v4), 22, Answered);
    }
}

#[test]
fn policies_of_members_do_not_touch_the_login() {
    if !root() {
        return;
    }
    let world = World::new(1);
    let _login = world.router.serve(&[22]);
    let _inside = world.members[0].serve(&[22]);
    let deny = json!([{"protocol": "any", "direction": "both", "action": "deny"}]);
    world.create(0, &json!({"security_policies": deny, "strict": true}));
    for v4 in FAMILIES {
        world.outside.expect_tcp(gateway_outside(v4), 22, Answered);
        world.outside.expect_tcp(member_at(0, v4), 22, Silent);
        world.members[0].expect_tcp(gateway_outside(v4), 22, Silent);
    }
}

/// The persona is there first; then the operator renumbers the uplink into its range.
#[test]
fn an_uplink_that_moves_into_a_personas_range_does_not_either() {
    if !root() {
        return;
    }
    let world = World::new(1);
    let _login = world.router.serve(&[22, 8080]);
    let deny = json!([{"protocol": "any", "direction": "both", "action": "deny"}]);
    let ranges = json!(["198.51.100.0/24", "fd00:51::/64"]);
    world.create(0, &json!({"ip_range": ranges, "security_policies": deny, "strict": true}));
    for (here, there, length) in [("198.51.100.77", "198.51.100.10", 24), ("fd00:51::77", "fd00:51::10", 64)]
    {
        world.router.ip(&format!("address add {here}/{length} dev up0"));
        world.outside.ip(&format!("address add {there}/{length} dev eth0"));
        let here = here.parse().unwrap();
        wait_until("the operator gets in", Duration::from_secs(2), || {
            world.outside.tcp(here, 22, Duration::from_millis(500)) == Answered
        });
        world.outside.expect_tcp(here, 8_080, Silent);
    }
}
