//! Endpoints: the hub makes a veth pair into a member's namespace, and everything else follows.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::net::IpAddr;

use hub_tests::lab::Outcome::{Answered, Silent};
use hub_tests::lab::world::{FAMILIES, outside_at};
use hub_tests::lab::{Space, World};
use hub_tests::root;
use serde_json::json;

/// Two members of one persona and one of another, by endpoints alone.
fn office(world: &mut World) -> [Space; 3] {
    let guests = ["ann", "bob", "eve"].map(|name| world.lab.space(name));
    let endpoint = |name: &str, space: &Space, last: u8| {
        json!({"name": name, "namespace": space.name(),
            "address": [format!("10.77.0.{last}"), format!("fd00:77::{last}")]})
    };
    let rules = json!([
        {"protocol": "tcp", "port": 80, "action": "allow"},
        {"protocol": "tcp", "port": 22, "source": "192.0.2.0/24", "action": "allow"},
    ]);
    let office = json!({
        "name": "office", "ip_range": ["10.77.0.0/24", "fd00:77::/64"], "security_policies": rules,
        "endpoints": [endpoint("ann", &guests[0], 10), endpoint("bob", &guests[1], 11)],
    });
    let other = json!({
        "name": "other", "ip_range": ["10.78.0.0/24", "fd00:78::/64"],
        "endpoints": [{"name": "eve", "namespace": guests[2].name(), "interface": "net0"}],
    });
    for definition in [office, other] {
        let view = world.hub.send("POST", "/v1/personas", &definition).expect(201);
        assert_eq!(view["state"], "active", "{view:#}");
    }
    guests
}

fn office_at(last: u8, v4: bool) -> IpAddr {
    let text = if v4 { format!("10.77.0.{last}") } else { format!("fd00:77::{last}") };
    text.parse().unwrap()
}

#[test]
fn members_reach_the_outside_and_each_other_by_the_rules() {
    if !root() {
        return;
    }
    let mut world = World::new(0);
    let [ann, bob, eve] = office(&mut world);
    let _far = world.outside.serve(&[443]);
    let _near = bob.serve(&[22, 80, 81]);
    for v4 in FAMILIES {
        for guest in [&ann, &bob, &eve] {
            guest.expect_ping(outside_at(v4), Answered);
            guest.expect_tcp(outside_at(v4), 443, Answered);
        }
        let there = office_at(11, v4);
        ann.expect_tcp(there, 80, Answered);
        ann.expect_tcp(there, 81, Silent);
        ann.expect_tcp(there, 22, Silent);
        world.outside.expect_tcp(there, 80, Answered);
        world.outside.expect_tcp(there, 22, if v4 { Answered } else { Silent });
        eve.expect_tcp(there, 80, Silent);
        eve.expect_ping(there, Silent);
    }
    assert!(eve.ip("-oneline link show").contains("net0"));
    assert!(world.dropped("office", "inter_persona") >= 4);
}

#[test]
fn down_leaves_nothing_when_the_daemon_is_dead() {
    if !root() {
        return;
    }
    let mut world = World::new(1);
    let script = "ip -oneline link show | cut -d' ' -f1-3; ip -oneline address show | sed 's/valid_lft.*//'
        ip rule show; ip -6 rule show; ip route show table all; ip -6 route show table all";
    let switches = "cd /proc/sys/net; cat ipv4/ip_forward ipv4/conf/all/send_redirects \
        ipv6/conf/all/forwarding ipv4/conf/seg0/rp_filter ipv4/conf/seg0/send_redirects";
    // The daemon has programs on its ports and the switches of a router so far; a namespace without a hub
    // shows them as they were.
    let before = world.router.sh(script);
    let switches_before = world.members[0].sh(&switches.replace("seg0", "eth0"));
    let [ann, ..] = office(&mut world);
    world.create(0, &json!({}));
    ann.expect_ping(outside_at(true), Answered);
    world.hub.process().kill();
    let folder = world.lab.folder().display().to_string();
    let said = world.hub.hubctl(&[
        "down",
        "--bpffs",
        &format!("{folder}/bpf"),
        "--runtime-dir",
        &format!("{folder}/run"),
    ]);
    let said = said.expect_success();
    assert_eq!(world.router.sh(script), before, "{said}");
    assert_eq!(world.router.sh(switches), switches_before);
    assert!(!ann.ip("-oneline link show").contains("eth0"));
    let programs = world.router.sh("ip -details link show up0; tc filter show dev up0 ingress");
    assert!(!programs.contains("prog") && !programs.contains("hub_tc"), "{programs}");
    let net = world.router.sh("bpftool net show");
    assert!(!net.contains("hub_"), "{net}");
    let pinned = world.router.sh(&format!("find {folder}/bpf -mindepth 1 ! -name '*.debug'"));
    assert_eq!(pinned, "");
}
