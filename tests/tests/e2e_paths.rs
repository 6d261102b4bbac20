//! Each persona has its own way out, and none leaks by the default route.

use std::time::Duration;

use hub_tests::lab::Outcome::Answered;
use hub_tests::lab::world::{FAMILIES, gateway, member_at, outside_at};
use hub_tests::lab::{World, wait_until};
use hub_tests::root;
use serde_json::json;

const TARGETS: [&str; 2] = ["203.0.113.1", "2001:db8:99::1"];

#[test]
fn two_personas_reach_the_same_prefix_by_routers_of_their_own() {
    if !root() {
        return;
    }
    let mut world = World::new(2);
    // The second router is behind an interface that is no port of the hub.
    let other = world.lab.space("other");
    world.router.wire(
        ("side0", &["198.51.100.1/24", "2001:db8:3::1/64"]),
        (&other, "eth0", &["198.51.100.10/24", "2001:db8:3::10/64"]),
    );
    for via in ["198.51.100.1", "2001:db8:3::1"] {
        other.ip(&format!("route add default via {via}"));
    }
    for router in [&world.outside, &other] {
        for target in TARGETS {
            router.ip(&format!("address add {target} dev lo"));
        }
        router.sh("nft 'add table inet count; add chain inet count in { type filter hook input priority 0; }
                  add rule inet count in ip daddr 203.0.113.1 counter
                  add rule inet count in ip6 daddr 2001:db8:99::1 counter'");
    }
    world.create(0, &json!({"egress": {"next_hop": ["192.0.2.10", "2001:db8:2::10"]}}));
    world.create(1, &json!({"egress": {"next_hop": ["198.51.100.10", "2001:db8:3::10"]}}));
    let counts = |space: &hub_tests::lab::Space| -> Vec<String> {
        let listed = space.sh("nft list chain inet count in");
        let words = listed.lines().filter(|line| line.contains("daddr"));
        let count =
            |line: &str| line.split_whitespace().skip_while(|word| *word != "packets").nth(1).map(Into::into);
        words.filter_map(count).collect()
    };
    for target in TARGETS {
        world.members[0].expect_ping(target.parse().unwrap(), Answered);
    }
    assert_eq!((counts(&world.outside), counts(&other)), (vec!["1".into(); 2], vec!["0".into(); 2]));
    for target in TARGETS {
        world.members[1].expect_ping(target.parse().unwrap(), Answered);
    }
    assert_eq!((counts(&world.outside), counts(&other)), (vec!["1".into(); 2], vec!["1".into(); 2]));
    for v4 in FAMILIES {
        world.members[1].expect_ping(gateway(1, v4), Answered);
    }
    // While there is no way to its router, it does not leave by that of others.
    for v4 in FAMILIES {
        world.router.ip(&format!("route add default via {}", outside_at(v4)));
    }
    world.router.ip("link set side0 down");
    for target in TARGETS {
        assert_ne!(world.members[1].ping(target.parse().unwrap(), Duration::from_secs(1)), Answered);
        world.members[0].expect_ping(target.parse().unwrap(), Answered);
    }
    assert_eq!((counts(&world.outside), counts(&other)), (vec!["2".into(); 2], vec!["1".into(); 2]));
    world.router.ip("link set side0 up");
    world.router.ip("-6 address replace 2001:db8:3::1/64 dev side0 nodad");
    wait_until("its router is reached again", Duration::from_secs(20), || {
        TARGETS
            .iter()
            .all(|target| world.members[1].ping(target.parse().unwrap(), Duration::from_secs(1)) == Answered)
    });
}

#[test]
fn packets_to_a_persona_without_its_port_do_not_leak_by_the_default_route() {
    if !root() {
        return;
    }
    let world = World::new(1);
    for v4 in FAMILIES {
        world.router.ip(&format!("route add default via {}", outside_at(v4)));
    }
    world.create(0, &json!({}));
    world.router.ip("link set seg0 down");
    let wire = world.outside.wiretap("eth0");
    let sent_back = world.router.mac("up0");
    for v4 in FAMILIES {
        let there = member_at(0, v4);
        assert_ne!(world.outside.ping(there, Duration::from_millis(300)), Answered);
        let target = match there {
            std::net::IpAddr::V4(address) => address.octets().to_vec(),
            std::net::IpAddr::V6(address) => address.octets().to_vec(),
        };
        let at = if v4 { 30 } else { 38 };
        let leaked = wire.find(Duration::from_millis(50), |frame| {
            frame.get(6..12) == Some(&sent_back) && frame.get(at..at + target.len()) == Some(&target[..])
        });
        assert!(!leaked, "a packet to {there} went out again");
    }
}
