//! The hub is a good router: it counts hops down, tells of packets that are too big, and lets errors about
//! live connections through.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use hub_tests::lab::Outcome::{Answered, Refused, Silent};
use hub_tests::lab::World;
use hub_tests::lab::world::{FAMILIES, gateway, gateway_outside, member_at, outside_at};
use hub_tests::packet::{Datagram, Transport, flags, ip};
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
        let frame = error.frame_between(world.outside.mac("eth0"), world.router.mac("up0"));
        world.outside.wiretap("eth0").send(&frame);
    }
    hub_tests::lab::wait_until("both forged errors are dropped", Duration::from_secs(5), || {
        world.dropped("p0", "icmp_error") == before + 2
    });
}

#[test]
fn a_trace_shows_the_hub_and_then_the_host_behind_it() {
    if !root() {
        return;
    }
    let world = World::new(1);
    // As traceroute does: datagrams to a port where nobody listens, with more and more hops.
    world.create(0, &json!({"protocols": ["udp"]}));
    let wire = world.members[0].wiretap("eth0");
    let trace = |hops: u32| {
        let socket = world.members[0].within(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        socket.set_ttl(hops).unwrap();
        socket.connect((outside_at(true), 33_434)).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket.send(b"trace").unwrap();
        socket
    };
    let _first = trace(1);
    let is_told = |frame: &[u8]| {
        let from_hub = frame.get(26..30) == Some(&[10, 100, 0, 1]);
        from_hub && frame.get(23) == Some(&1) && frame.get(34..36) == Some(&[11, 0])
    };
    assert!(wire.find(LIMIT, is_told), "no time exceeded by the hub");
    let refused = trace(2).recv(&mut [0; 8]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

/// The address of a network that means all its hosts (/24), or all its routers (/64).
fn everyones(of: IpAddr) -> IpAddr {
    match of {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() | 0xff).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    }
}

#[test]
fn services_of_the_hub_are_not_to_be_had_by_addresses_of_all_hosts() {
    if !root() {
        return;
    }
    let world = World::new(1);
    world.create(0, &json!({}));
    let service = world.router.within(|| UdpSocket::bind("[::]:4000").unwrap());
    let hears = |within| {
        service.set_read_timeout(Some(within)).unwrap();
        let mut bytes = [0; 32];
        let heard = service.recv(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes[..heard]).into_owned())
    };
    let (member, outside) = (&world.members[0], &world.outside);
    let [from_member, from_outside] = [member.wiretap("eth0"), outside.wiretap("eth0")];
    for v4 in FAMILIES {
        let ask = |from: IpAddr, to: IpAddr, word: &str| {
            Datagram::udp((from, 4_001), (to, 4_000)).with_payload(word.as_bytes())
        };
        // Hosts of the uplink's network reach it so.
        let packet = ask(outside_at(v4), everyones(gateway_outside(v4)), "outside");
        from_outside.send(&packet.frame_between(outside.mac("eth0"), world.router.mac("up0")));
        assert_eq!(hears(LIMIT).as_deref(), Some("outside"));
        let before = world.dropped("p0", "multicast");
        for gate in [gateway(0, v4), gateway_outside(v4)] {
            let packet = ask(member_at(0, v4), everyones(gate), "member");
            for to in [world.router.mac("seg0"), [0xff; 6]] {
                from_member.send(&packet.frame_between(member.mac("eth0"), to));
            }
        }
        assert_eq!(hears(Duration::from_millis(350)), None);
        assert_eq!(world.dropped("p0", "multicast"), before + 4);
    }
}

#[test]
fn members_behind_one_port_are_told_of_no_shorter_way() {
    if !root() {
        return;
    }
    let world = World::new(1);
    let member = &world.members[0];
    world.create(0, &json!({}));
    let wire = member.wiretap("eth0");
    let hub = world.router.mac("seg0");
    for v4 in FAMILIES {
        let (me, other) = (member_at(0, v4), ip(if v4 { "10.100.0.77" } else { "fd00:100:0::77" }));
        member.ip(&format!(
            "address add {other}/{} dev eth0{}",
            if v4 { 32 } else { 128 },
            if v4 { "" } else { " nodad" }
        ));
        let packet = Datagram::udp((me, 4_000), (other, 9)).with_payload(b"by the hub");
        wire.send(&packet.frame_between(member.mac("eth0"), hub));
        let is_told = |frame: &[u8]| match me {
            IpAddr::V4(_) => {
                frame.get(12..14) == Some(&[8, 0]) && frame.get(23) == Some(&1) && frame.get(34) == Some(&5)
            }
            IpAddr::V6(_) => {
                frame.get(12..14) == Some(&[0x86, 0xdd])
                    && frame.get(20) == Some(&58)
                    && frame.get(54) == Some(&137)
            }
        };
        let (mut told, mut arrived) = (false, false);
        wire.find(Duration::from_secs(2), |frame| {
            told |= is_told(frame);
            arrived |=
                frame.get(6..12) == Some(&hub[..]) && frame.windows(10).any(|bytes| bytes == b"by the hub");
            false
        });
        assert!(arrived, "the hub does not forward to {other}");
        assert!(!told, "the hub told of a shorter way to {other}");
    }
    // The kernel has no switch for those of IPv6.
    let hooks = world.hub.get("/v1/counters").expect(200)["hooks"].clone();
    let out = hooks.as_array().unwrap().iter().find(|hook| hook["hook"] == "tc_out").unwrap();
    let refused = out["reasons"].as_array().unwrap().iter().find(|pair| pair[0] == "router_advertisement");
    assert!(refused.is_some_and(|pair| pair[1].as_u64() > Some(0)), "{out:#}");
}

/// Port unreachable by `from`, about a packet that `to` has sent.
fn unreachable(from: IpAddr, to: IpAddr, quoted: &Datagram) -> Datagram {
    let (kind, code) = if from.is_ipv4() { (3, 3) } else { (1, 4) };
    Datagram::new(from, to, Transport::Icmp { kind, code, rest: [0; 4], payload: quoted.bytes() })
}
