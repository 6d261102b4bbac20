//! Personas are islands: nothing crosses between them, none reaches the hub, none lies about who it is.

use std::net::IpAddr;
use std::time::Duration;

use hub_tests::lab::Outcome::{Answered, Silent};
use hub_tests::lab::world::{FAMILIES, gateway, gateway_outside, member_at, outside_at, with_port};
use hub_tests::lab::{Space, World, echoes};
use hub_tests::packet::{Datagram, Transport, ip};
use hub_tests::root;
use serde_json::json;

/// Whether frames carry this address as their sender.
fn is_from(address: IpAddr) -> impl FnMut(&[u8]) -> bool {
    move |frame: &[u8]| match address {
        IpAddr::V4(v4) => frame.get(12..14) == Some(&[8, 0]) && frame.get(26..30) == Some(&v4.octets()),
        IpAddr::V6(v6) => frame.get(12..14) == Some(&[0x86, 0xdd]) && frame.get(22..38) == Some(&v6.octets()),
    }
}

fn ping_big(space: &Space, target: IpAddr) -> bool {
    space.succeeds(&format!("ping -n -c 2 -i 0.1 -W 0.4 -s 4000 {target}"), Duration::from_secs(10))
}

#[test]
fn nothing_crosses_between_personas_without_a_peering() {
    if !root() {
        return;
    }
    let world = World::new(2);
    let [first, second] = [&world.members[0], &world.members[1]];
    let _there = second.serve(&[80]);
    world.create(0, &json!({}));
    world.create(1, &json!({}));
    for v4 in FAMILIES {
        let there = member_at(1, v4);
        let wire = second.wiretap("eth0");
        first.expect_tcp(there, 80, Silent);
        first.expect_udp(there, 80, Silent);
        first.expect_ping(there, Silent);
        assert!(!ping_big(first, there), "fragments");
        first.expect_ping(gateway(1, v4), Answered);
        let crossed = wire.find(Duration::from_millis(50), is_from(member_at(0, v4)));
        assert!(!crossed, "a frame of {} arrived at {there}", member_at(0, v4));
        let question = format!("tcp {} {} --in seg0", member_at(0, v4), with_port(there, 80));
        let (answer, passes) = world.why(&question);
        assert!(!passes && answer["reason"] == "inter_persona", "{answer:#}");
        world.outside.expect_tcp(there, 80, Answered);
    }
    // Per family: a SYN or more, a datagram, a ping, two first fragments.
    assert!(world.dropped("p1", "inter_persona") >= 10, "{}", world.dropped("p1", "inter_persona"));
}

#[test]
fn peers_talk_when_each_names_the_other() {
    if !root() {
        return;
    }
    let world = World::new(2);
    let [first, second] = [&world.members[0], &world.members[1]];
    let _there = second.serve(&[80]);
    world.create(0, &json!({"peers": ["p1"]}));
    world.create(1, &json!({}));
    let there = member_at(1, true);
    first.expect_tcp(there, 80, Silent);
    let rules = json!([{"protocol": "tcp", "port": 80, "action": "allow"}]);
    world.replace(1, &json!({"peers": ["p0"], "security_policies": rules}));
    for v4 in FAMILIES {
        let there = member_at(1, v4);
        first.expect_tcp(there, 80, Answered);
        first.expect_udp(there, 80, Answered);
        first.expect_ping(there, Answered);
        assert!(ping_big(first, there), "fragments");
        // Its own rules hold between peers as well.
        first.expect_tcp(there, 81, Silent);
    }
    let mut stream = first.connect(there, 80);
    assert!(echoes(&mut stream, Duration::from_secs(5)));
    world.replace(0, &json!({}));
    assert!(!echoes(&mut stream, Duration::from_millis(400)), "a connection outlived the peering");
    first.expect_tcp(there, 80, Silent);
}

#[test]
fn members_do_not_reach_services_of_the_hub() {
    if !root() {
        return;
    }
    let world = World::new(1);
    let member = &world.members[0];
    let _services = world.router.serve(&[22, 8080]);
    world.create(0, &json!({}));
    for v4 in FAMILIES {
        for hub in [gateway(0, v4), gateway_outside(v4)] {
            for port in [22, 8080] {
                member.expect_tcp(hub, port, Silent);
                member.expect_udp(hub, port, Silent);
            }
            member.expect_ping(hub, Answered);
        }
        world.outside.expect_tcp(gateway_outside(v4), 8080, Answered);
    }
    assert!(world.dropped("p0", "hub_local") >= 16);
    // Metrics listen on the loopback address alone.
    assert_eq!(world.router.sh("ss -Hltn 'sport = :9178' | awk '{print $4}'").trim(), "127.0.0.1:9178");
}

#[test]
fn forged_senders_are_dropped_on_both_sides() {
    if !root() {
        return;
    }
    let world = World::new(2);
    world.create(0, &json!({}));
    world.create(1, &json!({}));
    let datagram = |source: &str, target: IpAddr| {
        let transport = Transport::udp(4_000, 53);
        Datagram::new(ip(source), target, transport)
    };
    let addressed = |datagram: &Datagram, space: &Space, port: &str| {
        let mut frame = datagram.frame();
        frame[..6].copy_from_slice(&world.router.mac(port));
        frame[6..12].copy_from_slice(&space.mac("eth0"));
        frame
    };
    let far = world.outside.wiretap("eth0");
    let inside = world.members[0].wiretap("eth0");
    for (v4, sources) in [
        (true, ["10.100.1.10", "198.51.100.7", "192.0.2.1", "10.100.0.1"]),
        (false, ["fd00:100:1::10", "2001:db8:9::7", "2001:db8:2::1", "fd00:100::1"]),
    ] {
        for source in sources {
            inside.send(&addressed(&datagram(source, outside_at(v4)), &world.members[0], "seg0"));
            assert!(!far.find(Duration::from_millis(30), is_from(ip(source))), "{source}");
        }
        // From outside, in the name of a member.
        let member = member_at(1, v4);
        far.send(&addressed(&datagram(&member.to_string(), member_at(0, v4)), &world.outside, "up0"));
        assert!(!inside.find(Duration::from_millis(30), is_from(member)));
    }
    assert_eq!(world.dropped("p0", "spoof"), 8);
    assert_eq!(world.dropped("p1", "spoof"), 2);
}

#[test]
fn neighbours_are_found_whatever_the_policy() {
    if !root() {
        return;
    }
    let world = World::new(1);
    let member = &world.members[0];
    let deny = json!([{"protocol": "any", "direction": "both", "action": "deny"}]);
    world.create(0, &json!({"security_policies": deny, "strict": true}));
    for v4 in FAMILIES {
        member.sh("ip neighbour flush dev eth0");
        member.expect_ping(gateway(0, v4), Silent);
        let shown = member.sh(&format!("ip neighbour show {}", gateway(0, v4)));
        assert!(shown.contains("lladdr"), "{} was not resolved: {shown}", gateway(0, v4));
    }
}
