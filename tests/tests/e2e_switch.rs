//! An interface's personality is switched while traffic flows, or put back.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::net::IpAddr;
use std::time::Duration;

use hub_tests::lab::Outcome::{Answered, Refused};
use hub_tests::lab::world::FAMILIES;
use hub_tests::lab::{Server, World, echoes, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

/// Ports that the two personalities let in: one both, one each of them alone.
const BOTH: u16 = 7_000;
const OPEN_ONLY: u16 = 7_001;
const SHUT_ONLY: u16 = 7_002;

const LINES: &str = "
subnets:
  front: {cidr: [10.20.0.0/24, \"fd00:20::/64\"], gateway: [10.20.0.1, \"fd00:20::1\"]}
";

fn address(v4: bool) -> IpAddr {
    if v4 { [10, 20, 0, 5].into() } else { "fd00:20::5".parse().unwrap() }
}

fn personality(name: &str, ports: &[u16], more: &Value) -> Value {
    let mut document = json!({
        "name": name,
        "ip_addresses": ["10.20.0.5/24", "fd00:20::5/64"],
        "subnet_id": "front",
        "firewall_rules": [
            {"protocol": "tcp", "port": ports, "action": "allow"},
            {"protocol": "icmp", "action": "allow"},
        ],
        "default_action": "reject",
        "drain": {"timeout": "1s"},
    });
    for (key, value) in more.as_object().unwrap() {
        document[key] = value.clone();
    }
    document
}

/// A resource whose interface has the personality `open`; `shut` is there, too.
fn world() -> (World, Server) {
    let world = World::with(1, LINES);
    let post = |path: &str, body: &Value| world.hub.send("POST", path, body).expect(201);
    post("/v1/personalities", &personality("open", &[BOTH, OPEN_ONLY], &json!({})));
    post("/v1/personalities", &personality("shut", &[BOTH, SHUT_ONLY], &json!({})));
    let namespace = world.members[0].name().to_owned();
    let record = json!({
        "name": "web", "interface": "eth0", "namespace": namespace, "port": "seg0",
        "personality": "open", "default": "open",
    });
    post("/v1/interfaces", &record);
    wait_until("the interface is active", Duration::from_secs(10), || state(&world) == "active");
    let server = world.members[0].serve(&[BOTH, OPEN_ONLY, SHUT_ONLY]);
    for v4 in FAMILIES {
        world.outside.expect_tcp(address(v4), OPEN_ONLY, Answered);
        world.outside.expect_tcp(address(v4), SHUT_ONLY, Refused);
    }
    (world, server)
}

fn view(world: &World) -> Value {
    world.hub.get("/v1/interfaces/web").body
}

fn state(world: &World) -> String {
    view(world)["state"].as_str().unwrap_or_default().to_owned()
}

/// Whose rules new connections meet.
fn expect(world: &World, open: bool) {
    for v4 in FAMILIES {
        let (answers, refuses) = if open { (OPEN_ONLY, SHUT_ONLY) } else { (SHUT_ONLY, OPEN_ONLY) };
        world.outside.expect_tcp(address(v4), BOTH, Answered);
        world.outside.expect_tcp(address(v4), answers, Answered);
        world.outside.expect_tcp(address(v4), refuses, Refused);
    }
}

fn switch(world: &World, to: &str, words: &[&str]) -> hub_tests::lab::Output {
    let arguments = [&["personality", "switch", "web", to], words].concat();
    world.hub.hubctl(&arguments)
}

#[test]
fn a_switch_changes_all_of_it_and_what_both_allow_goes_on() {
    if !root() {
        return;
    }
    let (world, _server) = world();
    let mut kept = FAMILIES.map(|v4| world.outside.connect(address(v4), BOTH));
    let mut cut = FAMILIES.map(|v4| world.outside.connect(address(v4), OPEN_ONLY));
    switch(&world, "shut", &["--why", "test"]).expect_success();
    assert_eq!(view(&world)["current"], "shut@1");
    expect(&world, false);
    for (kept, cut) in kept.iter_mut().zip(&mut cut) {
        assert!(echoes(kept, Duration::from_secs(2)), "a connection that both allow goes on");
        assert!(!echoes(cut, Duration::from_secs(2)), "one that is forbidden now does not");
    }
    wait_until("the other end is told, too", Duration::from_secs(2), || {
        let left = format!("ss -Htn state established 'sport = :{OPEN_ONLY}'");
        world.members[0].sh(&left).trim().is_empty()
    });
    switch(&world, "open", &[]).expect_success();
    expect(&world, true);
    assert!(kept.iter_mut().all(|stream| echoes(stream, Duration::from_secs(2))));
    let journal = world.hub.hubctl(&["personality", "journal", "web", "--json"]).expect_success();
    let entries: Value = serde_json::from_str(&journal).unwrap();
    let texts = entries.to_string();
    assert!(texts.contains("\"to\":\"shut@1\"") && texts.contains("\"to\":\"open@1\""), "{texts}");
}

#[test]
fn a_check_that_fails_puts_the_old_one_back() {
    if !root() {
        return;
    }
    let (world, _server) = world();
    // Nobody listens there.
    let health = json!({"health": {"targets": [{"tcp": "192.0.2.10:9"}]}});
    let bad = personality("bad", &[BOTH, SHUT_ONLY], &health);
    world.hub.send("POST", "/v1/personalities", &bad).expect(201);
    world.hub.send("POST", "/v1/interfaces/web/switch", &json!({"personality": "bad"})).expect(202);
    wait_until("it is checked", Duration::from_secs(20), || state(&world) == "verifying");
    expect(&world, false);
    wait_until("it is over", Duration::from_mins(1), || state(&world) == "active");
    let journal = world.hub.hubctl(&["personality", "journal", "web", "--json"]).expect_success();
    assert!(journal.contains("tcp 192.0.2.10:9"), "it says which check failed: {journal}");
    assert_eq!(view(&world)["current"], "open@1");
    expect(&world, true);
}

#[test]
fn what_is_not_confirmed_goes_back_also_without_the_daemon() {
    if !root() {
        return;
    }
    let (mut world, _server) = world();
    let order = json!({"personality": "shut", "confirm_within": "5s", "drain": {"timeout": "0s"}});
    world.hub.send("POST", "/v1/interfaces/web/switch", &order).expect(202);
    wait_until("it waits", Duration::from_secs(20), || state(&world) == "awaiting_confirm");
    expect(&world, false);
    world.hub.process().kill();
    // The lease outlives the hub's own deadline by its grace.
    wait_until("the data path goes back by itself", Duration::from_secs(30), || {
        world.outside.tcp(address(true), OPEN_ONLY, Duration::from_millis(500)) == Answered
    });
    expect(&world, true);
    world.hub.restart();
    wait_until("the hub knows", Duration::from_secs(40), || {
        view(&world)["current"] == "open@1" && state(&world) == "active"
    });
    expect(&world, true);
}

#[test]
fn a_killed_hub_finds_the_interface_as_it_was_switched() {
    if !root() {
        return;
    }
    let (mut world, _server) = world();
    switch(&world, "shut", &[]).expect_success();
    world.hub.process().kill();
    expect(&world, false);
    world.hub.restart();
    expect(&world, false);
    assert_eq!(view(&world)["current"], "shut@1");
    let gone = world.hub.send("DELETE", "/v1/interfaces/web", &Value::Null);
    assert!(gone.status < 300, "{gone:?}");
    wait_until("nothing is left in the namespace", Duration::from_secs(10), || {
        let addresses = world.members[0].sh("ip -o addr show dev eth0");
        let rules = world.members[0].sh("ip rule; ip -6 rule");
        !addresses.contains("10.20.0.5") && !rules.contains("proto 177")
    });
    for v4 in FAMILIES {
        let now = world.outside.tcp(address(v4), BOTH, Duration::from_millis(500));
        assert_ne!(now, Answered, "nobody is there any more");
    }
}

#[test]
fn the_session_that_orders_a_switch_goes_on_whatever_it_goes_to() {
    if !root() {
        return;
    }
    let (world, _server) = world();
    for v4 in FAMILIES {
        let mut session = world.outside.connect(address(v4), OPEN_ONLY);
        let mut other = world.outside.connect(address(v4), OPEN_ONLY);
        let [client, server] = [session.local_addr(), session.peer_addr()].map(Result::unwrap);
        let ends = format!("{} {} {} {}", client.ip(), client.port(), server.ip(), server.port());
        let arguments = ["personality", "switch", "web", "shut"];
        world.hub.hubctl_in(&[("SSH_CONNECTION", &ends)], &arguments).expect_success();
        expect(&world, false);
        assert!(echoes(&mut session, Duration::from_secs(2)), "{ends}");
        assert!(!echoes(&mut other, Duration::from_secs(2)), "the same port, and another connection");
        switch(&world, "open", &[]).expect_success();
    }
}
