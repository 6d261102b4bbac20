//! Answers that come by another way than through the hub: real routes, real clients.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use hub_tests::lab::world::{FAMILIES, member_at, outside_at};
use hub_tests::lab::{World, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

/// Longer than the half-open ones last and the daemon waits until it is quiet, on a busy machine too.
const PATIENCE: Duration = Duration::from_mins(2);

fn said(world: &World) -> String {
    let status = world.hub.get("/v1/status").expect(200);
    let all = status["conditions"].as_array().unwrap().iter();
    all.filter(|one| one["reason"] == "AsymmetricReturn").map(Value::to_string).collect()
}

/// What Prometheus is told of persona `p0`, if anything.
fn measured(world: &World) -> Option<u64> {
    let metrics = world.router.sh("curl --silent --max-time 5 http://127.0.0.1:9178/metrics");
    let line = metrics.lines().find(|line| line.starts_with("hub_persona_asymmetric_flows{persona=\"p0\"}"));
    line.map(|line| line.split_whitespace().last().unwrap().parse().unwrap())
}

fn prefix(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}

#[test]
fn answers_by_another_way_are_reported_until_they_come_back() {
    if !root() {
        return;
    }
    let world = World::with(1, "timeouts: {opening: 15s}");
    world.create(0, &json!({}));
    let _outside = world.outside.serve(&[8_080]);
    let open = |v4: bool| -> Vec<TcpStream> {
        (0..4).map(|_| world.members[0].connect(outside_at(v4), 8_080)).collect()
    };
    for v4 in FAMILIES {
        drop(open(v4));
    }
    // A cable beside the hub, which the outside prefers.
    for space in [&world.outside, &world.members[0]] {
        space.sh("sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0");
    }
    world.outside.wire(
        ("side", &["172.31.0.1/30", "fd31::1/64"]),
        (&world.members[0], "side", &["172.31.0.2/30", "fd31::2/64"]),
    );
    assert_eq!(said(&world), "", "what came through the hub is no cause");
    assert_eq!(measured(&world), None);
    let routes = [(true, "172.31.0.2"), (false, "fd31::2")]
        .map(|(v4, via)| format!("{} via {via} dev side", prefix(member_at(0, v4))));
    for route in &routes {
        world.outside.ip(&format!("route add {route}"));
    }
    let held = FAMILIES.map(open);
    wait_until("both families are counted", PATIENCE, || said(&world).contains("`p0`: 8 TCP connections"));
    assert!(said(&world).contains("masquerade"));
    assert_eq!(measured(&world), Some(8));
    for route in &routes {
        world.outside.ip(&format!("route del {route}"));
    }
    drop(held);
    wait_until("it is over", PATIENCE, || said(&world).is_empty());
    assert_eq!(measured(&world), None);
}
