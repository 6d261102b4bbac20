//! Interfaces of the hub itself: their personality judges the subnet behind them, by whatever name they are known.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::net::IpAddr;

use hub_tests::lab::Outcome::{Answered, Refused, Silent};
use hub_tests::lab::own::{BEYOND, BOTH, OPEN_ONLY, Own, SHUT_ONLY, SOON};
use hub_tests::lab::world::{FAMILIES, gateway, member_at};
use hub_tests::lab::{World, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

/// What routers of the subnet bring from beyond it has a source that is not of the subnet.
#[track_caller]
fn expect_forged(own: &Own) {
    for (v4, beyond) in FAMILIES.into_iter().zip(BEYOND) {
        own.world.members[1].ip(&format!("address add {beyond} dev lo"));
        let before = own.dropped("spoof");
        let ping = format!("ping -n -c 1 -W 1 -I {} {beyond}", gateway(1, v4));
        assert!(!own.world.router.succeeds(&ping, SOON), "{ping}");
        assert!(own.dropped("spoof") > before);
    }
}

/// Whose rules and routes hold; the port has this name.
#[track_caller]
fn expect(own: &Own, open: bool, port: &str) {
    let world = &own.world;
    let (answers, refuses, router) =
        if open { (OPEN_ONLY, SHUT_ONLY, 20) } else { (SHUT_ONLY, OPEN_ONLY, 21) };
    for (v4, beyond) in FAMILIES.into_iter().zip(BEYOND) {
        let there = member_at(1, v4);
        world.outside.expect_tcp(there, BOTH, Answered);
        world.outside.expect_tcp(there, answers, Answered);
        world.outside.expect_tcp(there, refuses, Refused);
        let way = world.router.sh(&format!("ip route get {beyond} from {}", gateway(1, v4)));
        let by = if v4 { format!("via 10.100.1.{router} ") } else { format!("via fd00:100:1::{router} ") };
        assert!(way.contains(&by) && way.contains(&format!("dev {port} ")), "{way}");
        // What has another source goes the host's own ways; what it sends to the subnet is judged all the same.
        let own = world.router.try_sh(&format!("ip route get {beyond}"), SOON);
        assert!(!own.stdout.contains(port), "{}", own.stdout);
        world.router.expect_tcp(there, answers, Answered);
        world.router.expect_tcp(there, refuses, Silent);
    }
}

#[test]
fn an_interface_of_the_hub_is_switched_and_reverted_and_outlives_the_daemon() {
    if !root() {
        return;
    }
    let mut own = Own::new(|_| json!("seg1"));
    expect(&own, true, "seg1");
    own.switch("shut");
    expect(&own, false, "seg1");
    expect_forged(&own);
    own.world.hub.process().kill();
    expect(&own, false, "seg1");
    own.world.hub.restart();
    own.settles();
    assert_eq!(own.view()["current"], "shut@1");
    expect(&own, false, "seg1");
    own.world.hub.hubctl(&["personality", "revert", "own"]).expect_success();
    own.settles();
    expect(&own, true, "seg1");
    own.world.hub.send("DELETE", "/v1/interfaces/own", &Value::Null).expect(204);
    wait_until("nothing is left", SOON, || {
        let rules = own.world.router.sh("ip rule; ip -6 rule; ip -o address show dev seg1");
        !rules.contains("1771") && !rules.contains("10.100.1.1/24")
    });
}

/// Known by something else than its name, it is found under each name that it gets, and when it is made anew.
fn expect_followed(own: &Own, made_anew: impl Fn(&World)) {
    expect(own, true, "seg1");
    own.switch("shut");
    expect(own, false, "seg1");
    for words in ["link set seg1 down", "link set seg1 name moved1", "link set moved1 up"] {
        own.world.router.ip(words);
    }
    own.settles();
    expect(own, false, "moved1");
    own.switch("open");
    expect(own, true, "moved1");
    own.world.router.ip("link delete moved1");
    made_anew(&own.world);
    own.settles();
    expect(own, true, "seg1");
}

/// Joins the second member to the hub again, by a port without a MAC of its own choice.
fn join(world: &World, mac: &str) {
    let addresses: Vec<String> = FAMILIES
        .into_iter()
        .flat_map(|v4| {
            let prefix = if v4 { 24 } else { 64 };
            let others: [IpAddr; 2] = if v4 {
                ["10.100.1.20", "10.100.1.21"].map(|address| address.parse().unwrap())
            } else {
                ["fd00:100:1::20", "fd00:100:1::21"].map(|address| address.parse().unwrap())
            };
            [member_at(1, v4)].into_iter().chain(others).map(move |address| format!("{address}/{prefix}"))
        })
        .collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    world.router.wire(("seg1", &[]), (&world.members[1], "eth0", &addresses));
    for v4 in FAMILIES {
        world.members[1].ip(&format!("route add default via {}", gateway(1, v4)));
    }
    world.router.ip(&format!("link set seg1 address {mac}"));
}

#[test]
fn an_interface_of_the_hub_known_by_its_mac_is_followed() {
    if !root() {
        return;
    }
    let mac = |world: &World| {
        let said = world.router.sh("ip -j link show dev seg1");
        let links: Value = serde_json::from_str(&said).unwrap();
        links[0]["address"].as_str().unwrap().to_owned()
    };
    let own = Own::new(|world| json!({"mac": mac(world)}));
    let mac = mac(&own.world);
    expect_followed(&own, |world| join(world, &mac));
}

#[test]
fn an_interface_of_the_hub_known_by_another_name_is_followed() {
    if !root() {
        return;
    }
    let name = |world: &World| {
        world.router.ip("link property add dev seg1 altname downstairs");
    };
    let own = Own::new(|world| {
        name(world);
        json!({"altname": "downstairs"})
    });
    expect_followed(&own, |world| {
        join(world, "02:00:00:00:77:01");
        name(world);
    });
}
