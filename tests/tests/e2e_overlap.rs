//! Two personas with the very same ranges: both work at once, reach each other and are reached from outside,
//! each by the range that others know it by.
#![expect(clippy::unwrap_used, reason = "a helper that cannot go on fails the test that called it")]

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use hub_tests::lab::Outcome::{Answered, Silent};
use hub_tests::lab::world::{FAMILIES, gateway, member_at, outside_at, with_port};
use hub_tests::lab::{World, echoes};
use hub_tests::root;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(10);

/// Twins: member 1 has the addresses of member 0.
fn twins(fields: &Value) -> (World, [[IpAddr; 2]; 2]) {
    let world = World::new(2);
    let twin = &world.members[1];
    twin.ip("addr flush dev eth0 scope global");
    for v4 in FAMILIES {
        let length = if v4 { 24 } else { 64 };
        twin.ip(&format!("addr add {}/{length} dev eth0 nodad", member_at(0, v4)));
        twin.ip(&format!("route replace default via {}", gateway(0, v4)));
    }
    let definition = |number: usize| {
        let mut definition = World::definition(number, fields);
        definition["ip_range"] = World::definition(0, &json!({}))["ip_range"].clone();
        definition["peers"] = json!([format!("p{}", 1 - number)]);
        definition
    };
    world.hub.send("POST", "/v1/personas", &definition(0)).expect(201);
    let view = world.hub.send("POST", "/v1/personas", &definition(1)).expect(201);
    world.active("p0");
    world.active("p1");
    let aliases = &world.hub.get("/v1/personas/p0").expect(200)["aliases"];
    let known = FAMILIES.map(|v4| [known_as(aliases, v4), known_as(&view["virtual_ranges"], v4)]);
    (world, known)
}

/// The address of the member in the range that stands for its own.
fn known_as(ranges: &Value, v4: bool) -> IpAddr {
    let native = if v4 { "10.100.0.0/24" } else { "fd00:100::/64" };
    let range = ranges[native].as_str().unwrap_or_else(|| panic!("{ranges:#}"));
    let base = range.split('/').next().unwrap().parse().unwrap();
    match base {
        IpAddr::V4(base) => IpAddr::V4((base.to_bits() + 10).into()),
        IpAddr::V6(base) => IpAddr::V6((base.to_bits() + 0x10).into()),
    }
}

#[test]
fn twins_reach_each_other_and_the_outside_reaches_both() {
    if !root() {
        return;
    }
    let (world, known) = twins(&json!({}));
    assert_eq!(known[0].map(|address| address.to_string()), ["100.64.1.10", "100.64.0.10"]);
    assert!(known[1].iter().all(|address| address.to_string().starts_with("fd")), "{known:?}");
    let [first, second] = [&world.members[0], &world.members[1]];
    let _servers = [first.serve(&[80]), second.serve(&[80]), world.outside.serve(&[80])];
    for (v4, [alias, other]) in FAMILIES.into_iter().zip(known) {
        let native = member_at(0, v4);
        for (space, target) in [
            (first, other),
            (second, alias),
            (&world.outside, native),
            (&world.outside, other),
            (first, outside_at(v4)),
            (second, outside_at(v4)),
        ] {
            space.expect_ping(target, Answered);
            space.expect_tcp(target, 80, Answered);
            space.expect_udp(target, 80, Answered);
            let big = format!("ping -n -c 2 -i 0.2 -W 2 -s 4000 {target}");
            assert!(space.succeeds(&big, LIMIT), "fragments from {} to {target}", space.name());
        }
        // The hub itself.
        world.router.expect_ping(native, Answered);
        world.router.expect_ping(other, Answered);
        second.expect_ping(gateway(0, v4), Answered);
        // Its own virtual range is for others.
        second.expect_ping(other, Silent);
    }
    assert!(world.dropped("p1", "no_translation") >= 2);
    assert_eq!(world.dropped("p0", "spoof") + world.dropped("p1", "spoof"), 0);
}
