//! The hub is a good router: it counts hops down, tells of packets that are too big, and lets errors about
//! live connections through.

use std::net::IpAddr;
use std::time::Duration;

use hub_tests::lab::Outcome::{Answered, Refused, Silent};
use hub_tests::lab::World;
use hub_tests::lab::world::{FAMILIES, gateway, gateway_outside, member_at, outside_at};
use hub_tests::packet::{Datagram, Transport, flags};
use hub_tests::root;
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn hops_are_counted_down_and_the_last_one_is_told() {
    if !root() {
        return;
    }
    let world = World::new(1);
    let member = &world.members[0];
    world.create(0, &json!({}));
    for v4 in FAMILIES {
        let far = outside_at(v4);
        let said = member.try_sh(&format!("ping -n -c 1 -W 1 -t 1 {far}"), LIMIT).stdout;
        assert!(said.contains(&format!("From {}", gateway(0, v4))), "{said}");
        assert!(said.contains("xceeded"), "{said}");
        let said =
            world.outside.try_sh(&format!("ping -n -c 1 -W 1 -t 1 {}", member_at(0, v4)), LIMIT).stdout;
        assert!(
            said.contains(&format!("From {}", gateway_outside(v4))) && said.contains("xceeded"),
            "{said}"
        );
        // The answer has gone through the hub, by a redirect or not: one hop less.
        for _ in 0..2 {
            let said = member.sh(&format!("ping -n -c 1 -W 2 {far}"));
            assert!(said.contains("ttl=63"), "{said}");
        }
    }
}

#[test]
fn senders_learn_of_smaller_links() {
    if !root() {
        return;
    }
    let world = World::new(1);
    let (member, outside) = (&world.members[0], &world.outside);
    world.create(0, &json!({}));
    let _outside = outside.serve(&[80]);
    // A live flow first, so that its next hop with the old MTU is cached.
    for v4 in FAMILIES {
        member.expect_ping(outside_at(v4), Answered);
    }
    world.router.ip("link set up0 mtu 1400");
    outside.ip("link set eth0 mtu 1400");
    for v4 in FAMILIES {
        let far = outside_at(v4);
        let said = member.try_sh(&format!("ping -n -c 2 -i 0.2 -W 1 -M do -s 1420 {far}"), LIMIT);
        let said = said.stdout + &said.stderr;
        assert!(said.contains("1400"), "no word of the smaller MTU: {said}");
        let route = member.sh(&format!("ip route get {far}"));
        assert!(route.contains("mtu 1400"), "{route}");
        // What may be fragmented arrives in pieces.
        if v4 {
            assert!(member.succeeds(&format!("ping -n -c 1 -W 2 -M dont -s 1420 {far}"), LIMIT));
        }
        let mut stream = member.connect(far, 80);
        assert!(hub_tests::lab::echoes(&mut stream, LIMIT));
    }
}

#[test]
fn errors_about_live_connections_pass_and_others_do_not() {
    if !root() {
        return;
    }
    let world = World::new(1);
    let member = &world.members[0];
    // No ICMP is permitted; errors about a permitted flow come in all the same.
    let _outside = world.outside.serve(&[80]);
    world.create(0, &json!({"protocols": ["tcp", "udp"]}));
    for v4 in FAMILIES {
        member.expect_udp(outside_at(v4), 9, Refused);
        world.outside.expect_ping(member_at(0, v4), Silent);
    }
    // An error about a connection that nobody has.
    let before = world.dropped("p0", "icmp_error");
    for v4 in FAMILIES {
        let (far, here) = (outside_at(v4), member_at(0, v4));
        let quoted = Datagram::new(here, far, Transport::tcp(50_000, 81, flags::SYN));
        let error = unreachable(far, here, &quoted);
        let mut frame = error.frame();
        frame[..6].copy_from_slice(&world.router.mac("up0"));
        frame[6..12].copy_from_slice(&world.outside.mac("eth0"));
        world.outside.wiretap("eth0").send(&frame);
    }
    hub_tests::lab::wait_until("both forged errors are dropped", Duration::from_secs(5), || {
        world.dropped("p0", "icmp_error") == before + 2
    });
}

#[test]
fn traceroute_shows_the_hub_and_the_host_behind_it() {
    if !root() {
        return;
    }
    let world = World::new(1);
    world.create(0, &json!({"protocols": ["udp", "icmp"]}));
    for v4 in FAMILIES {
        let far = outside_at(v4);
        let said = world.members[0].sh(&format!("tracepath -n -m 4 {far}"));
        let hub = said.lines().any(|line| line.contains(&gateway(0, v4).to_string()));
        let host = said.lines().any(|line| line.contains(&far.to_string()) && line.contains("reached"));
        assert!(hub && host, "{said}");
    }
}

/// Port unreachable by `from`, about a packet that `to` has sent.
fn unreachable(from: IpAddr, to: IpAddr, quoted: &Datagram) -> Datagram {
    let (kind, code) = if from.is_ipv4() { (3, 3) } else { (1, 4) };
    Datagram::new(from, to, Transport::Icmp { kind, code, rest: [0; 4], payload: quoted.bytes() })
}
