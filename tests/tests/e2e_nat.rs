//! Towards uplinks members carry the hub's address, or addresses of an external range.
#![expect(clippy::unwrap_used, reason = "a helper that cannot go on fails the test that called it")]

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use hub_tests::lab::Outcome::{Answered, Refused, Silent};
use hub_tests::lab::world::{FAMILIES, gateway, gateway_outside, member_at, outside_at};
use hub_tests::lab::{Config, Space, World, echoes, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(10);

/// A world whose host outside knows no way back to members.
fn closed(members: usize, lines: &str) -> World {
    let world = World::with(members, lines);
    for v4 in FAMILIES {
        world.outside.ip(&format!("{} route del default", if v4 { "-4" } else { "-6" }));
    }
    world
}

/// Who a server outside thinks connected.
fn peer_seen(world: &World, client: &Space, target: IpAddr) -> IpAddr {
    let listener = world.outside.within(|| TcpListener::bind(SocketAddr::new(target, 8_080)).unwrap());
    let _stream = client.within(|| TcpStream::connect((target, 8_080)).unwrap());
    listener.accept().unwrap().1.ip()
}

#[test]
fn masqueraded_members_reach_hosts_that_know_no_way_back() {
    if !root() {
        return;
    }
    let world = closed(2, "");
    let [first, second] = [&world.members[0], &world.members[1]];
    world.create(0, &json!({"egress": {"nat": "masquerade_all"}}));
    world.create(1, &json!({"egress": {"nat": "masquerade"}}));
    for space in [first, second, &world.outside] {
        space.sh("ethtool --offload eth0 tx off gro off");
    }
    let _far = world.outside.serve(&[80]);
    for v4 in FAMILIES {
        let far = outside_at(v4);
        for _ in 0..3 {
            first.expect_ping(far, Answered);
            first.expect_tcp(far, 80, Answered);
            first.expect_udp(far, 80, Answered);
        }
        assert_eq!(peer_seen(&world, first, far), gateway_outside(v4));
        // What an error quotes has been translated back, or the socket would not hear of it.
        first.expect_udp(far, 9, Refused);
        first.expect_tcp(far, 9, Refused);
        assert!(first.succeeds(&format!("ping -n -c 2 -i 0.2 -W 2 -s 4001 {far}"), LIMIT), "fragments");
        let said = first.try_sh(&format!("ping -n -c 1 -W 1 -t 1 {far}"), LIMIT).stdout;
        assert!(said.contains(&format!("From {}", gateway(0, v4))) && said.contains("xceeded"), "{said}");
        // The hub's own connections and its answers stay its own.
        world.router.expect_ping(far, Answered);
        world.router.expect_tcp(far, 80, Answered);
        world.outside.expect_ping(gateway_outside(v4), Answered);
        // IPv6 is translated only where that is asked for.
        second.expect_ping(far, if v4 { Answered } else { Silent });
    }
    for space in [first, second, &world.outside] {
        let wrong = space.sh("nstat -asz | grep -i csum");
        assert!(wrong.lines().all(|line| line.split_whitespace().nth(1) == Some("0")), "{wrong}");
    }
}

#[test]
fn masqueraded_connections_survive_the_daemon() {
    if !root() {
        return;
    }
    let mut world = closed(1, "");
    let member = world.members[0].clone();
    world.create(0, &json!({"egress": {"nat": "masquerade_all"}}));
    let _far = world.outside.serve(&[80]);
    let mut streams = FAMILIES.map(|v4| member.connect(outside_at(v4), 80));
    for _ in 0..2 {
        world.hub.process().kill();
        assert!(streams.iter_mut().all(|stream| echoes(stream, LIMIT)));
        world.hub.restart();
        assert!(streams.iter_mut().all(|stream| echoes(stream, LIMIT)));
    }
    for v4 in FAMILIES {
        member.expect_tcp(outside_at(v4), 80, Answered);
    }
}

#[test]
fn an_uplink_that_goes_is_forgotten() {
    if !root() {
        return;
    }
    let mut world = closed(1, "");
    let config = Config::default().interface("up0", "uplink").interface("spare0", "uplink");
    world.hub.process().stop();
    world.hub.configure(&config.interface("seg0", "segment"));
    world.hub.restart();
    world.create(0, &json!({"egress": {"nat": "masquerade_all"}}));
    let map = world.lab.folder().join("bpf/hub/v1/UPLINKS").display().to_string();
    let known = || {
        let shown = world.router.sh(&format!("bpftool --json map dump pinned {map}"));
        serde_json::from_str::<Value>(&shown).unwrap().as_array().unwrap().len()
    };
    for _ in 0..3 {
        world.router.sh("ip link add spare0 type veth peer name spare1 && ip link set spare0 up");
        wait_until("the uplink is known", Duration::from_secs(10), || known() == 2);
        world.router.ip("link delete spare0");
        wait_until("it is forgotten", Duration::from_secs(10), || known() == 1);
    }
}

#[test]
fn connections_from_outside_to_a_members_own_address_are_answered_from_it() {
    if !root() {
        return;
    }
    let world = World::new(1);
    let member = &world.members[0];
    let rules = json!([
        {"protocol": "tcp", "port": 23, "action": "reject"},
        {"protocol": "tcp", "action": "allow"},
    ]);
    world.create(0, &json!({"egress": {"nat": "masquerade_all"}, "security_policies": rules}));
    let _near = (member.serve(&[80]), world.router.serve(&[8_080]));
    for v4 in FAMILIES {
        world.outside.expect_tcp(member_at(0, v4), 80, Answered);
        // What the hub refuses, and what it says at its own address in the range, it says from there too.
        world.outside.expect_tcp(member_at(0, v4), 23, Refused);
        world.outside.expect_ping(gateway(0, v4), Answered);
        world.outside.expect_tcp(gateway(0, v4), 8_080, Answered);
        world.outside.expect_udp(member_at(0, v4), 80, Answered);
        world.outside.expect_udp(member_at(0, v4), 9, Refused);
        world.outside.expect_ping(member_at(0, v4), Answered);
    }
}

#[test]
fn a_connection_without_a_free_port_is_refused_and_counted() {
    if !root() {
        return;
    }
    let world = closed(2, "masquerade_ports: 61000-61001\ntimeouts: {one_way: 2s}\n");
    let _far = world.outside.serve(&[80, 81]);
    for number in 0..2 {
        world.create(number, &json!({"egress": {"nat": "masquerade"}}));
    }
    let send = |member: &Space, port: u16| {
        let socket = member.within(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        socket.connect((outside_at(true), port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
        socket.send(b"one").unwrap();
        let answered = socket.recv(&mut [0; 8]).is_ok();
        (socket, answered)
    };
    let [first, second] = [&world.members[0], &world.members[1]];
    let kept = [send(first, 80), send(second, 80)];
    assert!(kept.iter().all(|(_, answered)| *answered), "two ports for two connections");
    assert!(!send(first, 80).1, "a third towards the same service has none");
    assert!(send(first, 81).1, "towards another service ports are free");
    assert_eq!(world.dropped("p0", "no_translation"), 1);
}

#[test]
fn a_static_range_replaces_addresses_one_to_one() {
    if !root() {
        return;
    }
    let world = closed(1, "");
    let member = &world.members[0];
    let external = ["198.51.100.0/24", "2001:db8:51::/64"];
    world.create(0, &json!({"egress": {"nat": {"static": external}}}));
    for prefix in external {
        let v4 = prefix.contains('.');
        world.outside.ip(&format!("route add {prefix} via {}", gateway_outside(v4)));
    }
    for space in [member, &world.outside] {
        space.sh("ethtool --offload eth0 tx off gro off");
    }
    let _servers = [member.serve(&[80]), world.outside.serve(&[80])];
    for v4 in FAMILIES {
        let outward: IpAddr = if v4 { "198.51.100.10" } else { "2001:db8:51::10" }.parse().unwrap();
        let far = outside_at(v4);
        assert_eq!(peer_seen(&world, member, far), outward);
        for (space, target) in [(member, far), (&world.outside, outward)] {
            space.expect_ping(target, Answered);
            space.expect_tcp(target, 80, Answered);
            space.expect_udp(target, 80, Answered);
            space.expect_udp(target, 9, Refused);
            assert!(space.succeeds(&format!("ping -n -c 1 -W 2 -s 4001 {target}"), LIMIT), "fragments");
        }
        world.router.expect_ping(member_at(0, v4), Answered);
    }
    for space in [member, &world.outside] {
        let wrong = space.sh("nstat -asz | grep -i csum");
        assert!(wrong.lines().all(|line| line.split_whitespace().nth(1) == Some("0")), "{wrong}");
    }
    let other =
        json!({"name": "other", "ip_range": "10.5.0.0/24", "egress": {"nat": {"static": external[0]}}});
    let refusal = world.hub.send("POST", "/v1/personas", &other).expect(409);
    assert!(refusal.to_string().contains("/egress/nat/static"), "{refusal:#}");
}

#[test]
fn tcp_learns_of_the_mtu_of_a_persona() {
    if !root() {
        return;
    }
    let mut world = World::new(1);
    let guest = world.lab.space("guest");
    world.create(0, &json!({"mtu": 1_300}));
    let definition = json!({"name": "small", "ip_range": ["10.77.0.0/24", "fd00:77::/64"], "mtu": 1_400,
        "endpoints": [{"name": "one", "namespace": guest.name()}]});
    world.hub.send("POST", "/v1/personas", &definition).expect(201);
    assert!(guest.ip("link show dev eth0").contains("mtu 1400"));
    let _servers = [world.members[0].serve(&[80]), world.outside.serve(&[80])];
    for v4 in FAMILIES {
        let headers = if v4 { 40 } else { 60 };
        // What each end may send is what the other end's SYN said: `ss` shows it less 12 bytes of options.
        for (space, target, mtu) in [
            (&world.outside, member_at(0, v4), 1_300),
            (&world.members[0], outside_at(v4), 1_300),
            (&guest, outside_at(v4), 1_400),
        ] {
            let mut stream = space.connect(target, 80);
            assert!(echoes(&mut stream, LIMIT));
            let said = space.sh("ss -tinH state established dport = 80");
            let mss: u32 = said
                .split_whitespace()
                .find_map(|word| word.strip_prefix("mss:")?.parse().ok())
                .unwrap_or_else(|| panic!("{said}"));
            assert!(mss <= mtu - headers && mss + 12 >= mtu - headers, "{target}: {said}");
        }
    }
    wait_until("no fault", LIMIT, || world.hub.get("/v1/personas/small").body["state"] == "active");
}
