//! Personas are islands: nothing crosses between them, none reaches the hub, none lies about who it is.

use std::net::IpAddr;
use std::time::Duration;

use hub_tests::lab::Outcome::{Answered, Silent};
use hub_tests::lab::world::{FAMILIES, gateway, gateway_outside, member_at, outside_at, with_port};
use hub_tests::lab::{Space, World, echoes};
use hub_tests::packet::{Datagram, Extension, Fragment, Transport, ip};
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
        first.expect_ping(gateway(1, v4), Silent);
        first.expect_ping(gateway(0, v4), Answered);
        let crossed = wire.find(Duration::from_millis(50), is_from(member_at(0, v4)));
        assert!(!crossed, "a frame of {} arrived at {there}", member_at(0, v4));
        let question = format!("tcp {} {} --in seg0", member_at(0, v4), with_port(there, 80));
        let (answer, passes) = world.why(&question);
        assert!(!passes && answer["reason"] == "inter_persona", "{answer:#}");
        world.outside.expect_tcp(there, 80, Answered);
    }
    // Per family: a SYN or more, a datagram, a ping, two first fragments, a ping to the gateway.
    assert!(world.dropped("p1", "inter_persona") >= 12, "{}", world.dropped("p1", "inter_persona"));
}

/// What no frame of a member's may carry to another persona's wire, whatever the frame is.
const MARK: &[u8] = b"from the other persona";

/// An Ethernet frame.
fn ethernet(target: [u8; 6], source: [u8; 6], ethertype: [u8; 2], payload: &[u8]) -> Vec<u8> {
    [&target[..], &source, &ethertype, payload].concat()
}

/// An ARP message for the protocol address `asked`, with room for the mark behind it.
fn arp(operation: u8, from: ([u8; 6], IpAddr), asked: IpAddr) -> Vec<u8> {
    let (IpAddr::V4(sender), IpAddr::V4(asked)) = (from.1, asked) else { panic!("ARP is of IPv4") };
    let head = [0, 1, 8, 0, 6, 4, 0, operation];
    [&head[..], &from.0, &sender.octets(), &[0; 6], &asked.octets(), MARK].concat()
}

/// Neighbour discovery about an address, to a group or to a host.
fn neighbour(kind: u8, source: IpAddr, target: IpAddr, about: IpAddr, mac: [u8; 6]) -> Datagram {
    let IpAddr::V6(about) = about else { panic!("neighbour discovery is of IPv6") };
    // Source or target link-layer address, and options that nobody knows with the mark in them.
    let option = [if kind == 135 { 1 } else { 2 }, 1];
    let unknown = [&[253, 3][..], MARK].concat();
    let payload = [&about.octets()[..], &option, &mac, &unknown].concat();
    Datagram::icmp(source, target, kind, 0, [0x20, 0, 0, 0]).with_payload(&payload).with_ttl(255)
}

/// Everything that a member may try on its port to get a frame onto another persona's wire: addresses of link and
/// network are those of the other member, of groups, of everybody.
fn attempts(own: [u8; 6], macs: [[u8; 6]; 2], v4: bool) -> Vec<Vec<u8>> {
    let (me, there, gate) = (member_at(0, v4), member_at(1, v4), gateway(1, v4));
    let everybody = [0xff; 6];
    let group = [0x33, 0x33, 0, 0, 0, 1];
    let udp = |target: IpAddr| Datagram::udp((me, 4_000), (target, 53)).with_payload(MARK);
    let mut messages = Vec::new();
    let mut packets = vec![udp(there), udp(gate)];
    if v4 {
        for asked in [there, gate, me] {
            messages.push(arp(1, (own, me), asked));
            // In the other's name, and as an answer that nobody asked for.
            messages.push(arp(2, (own, asked), asked));
        }
        let groups = ["255.255.255.255", "10.100.1.255", "10.100.0.255", "224.0.0.1", "224.0.0.251"];
        packets.extend(groups.map(|target| udp(ip(target))));
        // Record route, time stamps, router alert, loose and strict source routes, padding.
        let routes = [7_u8, 131, 137].map(|kind| vec![kind, 7, 4, 10, 100, 1, 10]);
        let others = [vec![68, 8, 5, 0, 0, 0, 0, 0], vec![148, 4, 0, 0], vec![1, 1, 1, 0]];
        packets.extend(routes.iter().chain(&others).map(|options| udp(there).with_options(options)));
    } else {
        let all = ip("ff02::1");
        for about in [there, gate] {
            packets.push(neighbour(135, me, ip("ff02::1:ff00:10"), about, own));
            packets.push(neighbour(135, me, there, about, own));
            packets.push(neighbour(136, me, all, about, own));
            packets.push(neighbour(136, about, there, about, own));
        }
        packets.push(Datagram::icmp(me, all, 134, 0, [64, 0, 7, 8]).with_payload(&[&[0; 8], MARK].concat()));
        packets.extend(["ff02::1", "ff02::fb", "ff05::2", "ff0e::1"].map(|target| udp(ip(target))));
        let headers = [
            Extension::padding(0, 1),
            Extension::router_alert(),
            Extension::padding(60, 2),
            Extension::routing(0),
            Extension::routing(4),
            Extension::authentication(),
            Extension::fragment(7, Fragment { position: 0, more: false }),
        ];
        packets.extend(headers.map(|header| udp(there).with_extension(header)));
    }
    packets.extend(udp(there).with_payload(&MARK.repeat(8)).fragments(64));
    messages.extend(packets.iter().map(Datagram::bytes));
    let ethertype = |message: &[u8]| match message.first() {
        Some(0) => [0x08, 0x06],
        Some(first) if first >> 4 == 4 => [0x08, 0x00],
        _ => [0x86, 0xdd],
    };
    let to = [macs[0], macs[1], everybody, group];
    let frames =
        messages.iter().flat_map(|message| to.map(|mac| ethernet(mac, own, ethertype(message), message)));
    frames.collect()
}

#[test]
fn no_frame_of_a_member_is_seen_on_the_wire_of_another_persona() {
    if !root() {
        return;
    }
    let world = World::new(2);
    world.create(0, &json!({}));
    world.create(1, &json!({}));
    let own = world.members[0].mac("eth0");
    let macs = [world.router.mac("seg0"), world.members[1].mac("eth0")];
    let port = world.members[0].wiretap("eth0");
    for v4 in FAMILIES {
        let wire = world.members[1].wiretap("eth0");
        let frames = attempts(own, macs, v4);
        assert!(frames.len() > 60, "{}", frames.len());
        for frame in &frames {
            port.send(frame);
        }
        // What comes last comes after all that the hub let through, and shows that the wire is watched.
        let mut crossed = Vec::new();
        world.outside.udp(member_at(1, v4), 9, Duration::from_millis(350));
        let (mut is_last, mut is_theirs) = (is_from(outside_at(v4)), is_from(member_at(0, v4)));
        let watched = wire.find(Duration::from_secs(5), |frame| {
            let is_mark = frame.windows(MARK.len()).any(|window| window == MARK);
            let is_own = frame.get(6..12) == Some(&own[..]);
            if is_mark || is_own || is_theirs(frame) {
                crossed.push(frame.to_vec());
            }
            is_last(frame)
        });
        assert!(watched, "the wire shows nothing");
        assert_eq!(crossed, Vec::<Vec<u8>>::new(), "IPv4 {v4}: of {} frames these crossed", frames.len());
        assert!(!wire.find(Duration::from_millis(50), is_theirs));
    }
    // Each packet with a right header that asked for the other's address was refused as what it was.
    for reason in ["inter_persona", "spoof", "multicast", "source_route", "router_advertisement"] {
        let hooks = world.hub.get("/v1/counters").expect(200)["hooks"].clone();
        let pairs = hooks.as_array().unwrap().iter().flat_map(|hook| hook["reasons"].as_array().unwrap());
        let count: u64 = pairs.filter(|pair| pair[0] == reason).map(|pair| pair[1].as_u64().unwrap()).sum();
        assert!(count > 0, "nothing was dropped as {reason}: {hooks:#}");
    }
}

/// Whether a frame says which link address an address has.
fn is_answer(asked: IpAddr) -> impl FnMut(&[u8]) -> bool {
    move |frame: &[u8]| match asked {
        IpAddr::V4(v4) => {
            frame.get(12..14) == Some(&[8, 6])
                && frame.get(20..22) == Some(&[0, 2])
                && frame.get(28..32) == Some(&v4.octets())
        }
        IpAddr::V6(v6) => {
            frame.get(12..14) == Some(&[0x86, 0xdd])
                && frame.get(54) == Some(&136)
                && frame.get(62..78) == Some(&v6.octets())
        }
    }
}

/// A question to everybody on the link, or to the hub alone.
fn question(hub: Option<[u8; 6]>, own: [u8; 6], me: IpAddr, asked: IpAddr) -> Vec<u8> {
    match asked {
        IpAddr::V4(_) => ethernet(hub.unwrap_or([0xff; 6]), own, [8, 6], &arp(1, (own, me), asked)),
        IpAddr::V6(v6) => {
            let [.., a, b, c] = v6.octets();
            let group = ip(&format!("ff02::1:ff{a:02x}:{b:02x}{c:02x}"));
            let target = if hub.is_some() { asked } else { group };
            let message = neighbour(135, me, target, asked, own).bytes();
            ethernet(hub.unwrap_or([0x33, 0x33, 0xff, a, b, c]), own, [0x86, 0xdd], &message)
        }
    }
}

#[test]
fn members_find_their_own_gateways_and_no_other_address_of_the_hub() {
    if !root() {
        return;
    }
    let world = World::new(2);
    world.create(0, &json!({"peers": ["p1"]}));
    world.create(1, &json!({"peers": ["p0"]}));
    let own = world.members[0].mac("eth0");
    let hub = world.router.mac("seg0");
    let wire = world.members[0].wiretap("eth0");
    for v4 in FAMILIES {
        let me = member_at(0, v4);
        for to in [None, Some(hub)] {
            for asked in [gateway(1, v4), gateway_outside(v4)] {
                let before = world.dropped("p0", "foreign_gateway");
                wire.send(&question(to, own, me, asked));
                // The hub answers in the order in which it is asked.
                wire.send(&question(to, own, me, gateway(0, v4)));
                let (mut is_wrong, mut is_last) = (is_answer(asked), is_answer(gateway(0, v4)));
                let mut wrong = false;
                let answered = wire.find(Duration::from_secs(5), |frame| {
                    wrong |= is_wrong(frame);
                    is_last(frame)
                });
                assert!(answered, "the hub does not tell where {} is", gateway(0, v4));
                assert!(!wrong, "the hub told a stranger where {asked} is");
                assert_eq!(world.dropped("p0", "foreign_gateway"), before + 1, "{asked}");
            }
        }
    }
    // What the hub knows nothing of, the kernel does not answer for either.
    world.router.ip("route add local 192.0.2.77 dev lo");
    wire.send(&question(None, own, member_at(0, true), ip("192.0.2.77")));
    assert!(!wire.find(Duration::from_millis(350), is_answer(ip("192.0.2.77"))));
    // By their own gateway they reach that of a peer.
    for v4 in FAMILIES {
        world.members[0].expect_ping(gateway(1, v4), Answered);
    }
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
        first.expect_ping(gateway(1, v4), Answered);
        assert!(ping_big(first, there), "fragments");
        // Its own rules hold between peers as well.
        first.expect_tcp(there, 81, Silent);
    }
    let mut stream = first.connect(there, 80);
    assert!(echoes(&mut stream, Duration::from_secs(5)));
    world.replace(0, &json!({}));
    assert!(!echoes(&mut stream, Duration::from_millis(400)), "a connection outlived the peering");
    first.expect_tcp(there, 80, Silent);
    for v4 in FAMILIES {
        first.expect_ping(gateway(1, v4), Silent);
    }
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

/// Ports that are open both ways need no entry in the flow table; the hub is asked for all the same.
#[test]
fn open_ports_of_a_persona_do_not_open_the_hub() {
    if !root() {
        return;
    }
    let world = World::new(2);
    let member = &world.members[0];
    let _services = (world.router.serve(&[8080]), member.serve(&[81]));
    let rules = json!([
        {"protocol": "tcp", "port": [80, 81], "action": "allow"},
        {"protocol": "udp", "port": [80, 81], "action": "allow"},
    ]);
    world.create(0, &json!({"tracking": "needed", "security_policies": rules}));
    world.create(1, &json!({}));
    for v4 in FAMILIES {
        for hub in [gateway(0, v4), gateway_outside(v4), gateway(1, v4)] {
            // By a port that rules open, so that answers would be let in as well.
            for transport in ["", "-u"] {
                let ask = format!("echo hub | nc {transport} -w 1 -p 80 {hub} 8080");
                let said = member.try_sh(&ask, Duration::from_secs(10)).stdout;
                assert_eq!(said, "", "nc {transport} reached {hub}");
            }
        }
        // The host asks its members.
        world.router.expect_tcp(member_at(0, v4), 81, Answered);
        world.router.expect_udp(member_at(0, v4), 81, Answered);
        world.outside.expect_tcp(member_at(0, v4), 81, Answered);
    }
    assert!(world.dropped("p0", "hub_local") >= 12);
    let flows = world.hub.get("/v1/flows").expect(200);
    let all = flows["flows"].as_array().unwrap();
    let from = |flow: &serde_json::Value| flow["source"].as_str().unwrap().parse::<IpAddr>().unwrap();
    assert!(FAMILIES.iter().all(|v4| all.iter().all(|flow| from(flow) != outside_at(*v4))), "{flows:#}");
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
        datagram.frame_between(space.mac("eth0"), world.router.mac(port))
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
