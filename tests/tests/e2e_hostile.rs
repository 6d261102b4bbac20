//! What an attacker, or a careless operator, may try: policies that would cut off the host, and floods of
//! new flows.

#![expect(
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "fields of JSON values are made by naming them; figures for people"
)]

use std::time::Duration;

use hub_tests::effort::{Effort, figure};
use hub_tests::generate::Random;
use hub_tests::lab::Outcome::Answered;
use hub_tests::lab::world::{FAMILIES, gateway_outside, member_at, outside_at};
use hub_tests::lab::{Stopwatch, World, echoes};
use hub_tests::packet::{Datagram, Transport, flags};
use hub_tests::root;
use serde_json::{Value, json};

/// Ports of the host that must stay reachable: ssh, and an API.
const PORTS: [u16; 2] = [22, 8443];
/// Policies in everyday runs and in long ones.
const POLICIES: [u64; 2] = [50, 1_000];
const PATIENCE: Duration = Duration::from_secs(5);

#[test]
fn no_policy_locks_the_operator_out() {
    if !root() {
        return;
    }
    let world = World::with(1, "failsafe:\n  ports: [tcp/22, tcp/8443]");
    let _host = world.router.serve(&PORTS);
    let watch = Stopwatch::start();
    // One connection lives through everything; others begin under each policy.
    let mut session = FAMILIES.map(|v4| world.outside.connect(gateway_outside(v4), PORTS[0]));
    let (mut accepted, mut refused) = (0_u64, 0_u64);
    for seed in Effort::new(POLICIES[0], POLICIES[1]).rounds() {
        let definition = hostile(&mut Random::new(seed));
        let answer = world.hub.send("POST", "/v1/personas", &definition);
        match answer.status {
            201 => accepted += 1,
            409 | 422 => refused += 1,
            status => panic!("seed {seed}: {status} {:#}", answer.body),
        }
        for v4 in FAMILIES {
            for port in PORTS {
                world.outside.expect_tcp(gateway_outside(v4), port, Answered);
            }
        }
        assert!(session.iter_mut().all(|tcp| echoes(tcp, PATIENCE)), "seed {seed}: {definition:#}");
        if answer.status == 201 {
            assert_eq!(world.hub.send("DELETE", "/v1/personas/hostile", &Value::Null).status, 204);
        }
    }
    let count = accepted + refused;
    figure(
        "R6",
        &format!(
            "failsafe reachable under {count} of {count} policies ({accepted} in force, {refused} refused), {:.0} s",
            watch.elapsed().as_secs_f64()
        ),
    );
    assert!(accepted * 4 > count, "too few policies came into force: {accepted} of {count}");
}

/// A persona of somebody who wants everybody out, or does not know what he does.
fn hostile(random: &mut Random) -> Value {
    let ranges: &[&[&str]] = &[
        &["10.100.0.0/24", "fd00:100::/64"],
        &["10.0.0.0/8", "fd00::/16"],
        &["192.0.2.128/25", "2001:db8:2:0:8000::/65"],
        &["192.0.2.0/24"],
        &["192.0.2.10/32", "2001:db8:2::10/128"],
        &["192.0.2.1/32"],
        &["2001:db8:2::/64"],
        &["192.0.0.0/16", "2001:db8::/32"],
        &["128.0.0.0/1"],
        &["0.0.0.0/0", "::/0"],
    ];
    let weighted: Vec<(usize, &[&str])> =
        ranges.iter().enumerate().map(|(number, range)| (if number == 0 { 10 } else { 2 }, *range)).collect();
    let mut definition = json!({
        "name": "hostile",
        "ip_range": random.one_of(&weighted),
        "security_policies": (0..random.below(12)).map(|_| rule(random)).collect::<Vec<_>>(),
        "default_action": random.pick(&["deny", "reject"]),
        "strict": random.chance(70),
        "protocols": random.pick(&[json!(["tcp"]), json!(["udp"]), json!(["icmp"]), json!(["tcp", "udp", "icmp"])]),
    });
    let interfaces =
        random.one_of(&[(8, Some("seg0")), (2, None), (2, Some("up0")), (1, Some("lo")), (1, Some("eth9"))]);
    if let Some(interface) = interfaces {
        definition["interfaces"] = json!([interface]);
    }
    match random.below(5) {
        0 => definition["egress"] = json!({"deny": ["0.0.0.0/0", "::/0"]}),
        1 => definition["egress"] = json!({"next_hop": ["192.0.2.10", "2001:db8:2::10"]}),
        _ => {}
    }
    definition
}

fn rule(random: &mut Random) -> Value {
    let mut rule = json!({
        "action": random.pick(&["deny", "reject"]),
        "direction": random.pick(&["ingress", "egress", "both"]),
        "protocol": random.one_of(&[(3, "any"), (4, "tcp"), (1, "udp")]),
    });
    if rule["protocol"] != "any" && random.chance(70) {
        rule["port"] =
            random.pick(&[json!(22), json!(8443), json!([22, 8443]), json!("1-65535")]).unwrap_or_default();
    }
    match random.below(6) {
        0 => rule["source"] = json!("192.0.2.0/24"),
        1 => rule["source"] = json!("2001:db8:2::/64"),
        2 => rule["destination"] = json!("192.0.2.1/32"),
        3 => rule["destination"] = json!("0.0.0.0/0"),
        _ => {}
    }
    rule
}

/// New flows of the attacker for each packet of an established one.
const FLOOD: u64 = 200;
/// Established flows of UDP, each of which must survive.
const ESTABLISHED: u64 = 200;
/// Established connections of TCP, likewise.
const STREAMS: u64 = 50;
/// Seconds of the attack in everyday runs and in long ones.
const SECONDS: [u64; 2] = [5, 60];

#[test]
fn a_flood_of_new_flows_evicts_nobody() {
    if !root() {
        return;
    }
    // Tables that the flood fills many times over.
    let world = World::with(2, "limits: {flows: 4096, opening_flows: 4096}");
    let allow = json!({"security_policies": [
        {"protocol": "udp", "action": "allow"},
        {"protocol": "tcp", "action": "allow"},
    ]});
    world.create(0, &allow);
    world.create(1, &allow);
    let _victim = world.members[0].serve(&[7000]);
    let _neighbour = world.members[1].serve(&[7000]);
    let established: Vec<std::net::UdpSocket> =
        (0..ESTABLISHED).map(|number| flow(&world, 0, number.is_multiple_of(2))).collect();
    assert!(established.iter().all(answers), "the flows begin before the flood");
    let connect = |number: u64| world.outside.connect(member_at(0, number.is_multiple_of(2)), 7000);
    let mut streams: Vec<_> = (0..STREAMS).map(connect).collect();
    let patience = Duration::from_secs(2);
    assert!(
        streams.iter_mut().all(|stream| echoes(stream, patience)),
        "the connections begin before the flood"
    );

    let wire = world.outside.wiretap("eth0");
    let (near, far) = (world.outside.mac("eth0"), world.router.mac("up0"));
    let mut random = Random::new(7);
    let watch = Stopwatch::start();
    let seconds = if hub_tests::effort::is_long() { SECONDS[1] } else { SECONDS[0] };
    let (mut flood, mut good, mut lost, mut new, mut refused) = (0_u64, 0_u64, 0_u64, 0_u64, 0_u64);
    while watch.elapsed() < Duration::from_secs(seconds) {
        for number in 0..FLOOD {
            let frame = spoofed(&mut random, number, near, far);
            flood += u64::from(wire.try_send(&frame));
        }
        let alive = if good.is_multiple_of(2) {
            answers(&established[(good / 2 % ESTABLISHED) as usize])
        } else {
            echoes(&mut streams[(good / 2 % STREAMS) as usize], patience)
        };
        good += 1;
        lost += u64::from(!alive);
        if good.is_multiple_of(4) {
            new += 1;
            refused += u64::from(!answers(&flow(&world, 1, new.is_multiple_of(2))));
        }
    }
    figure(
        "R7",
        &format!(
            "{flood} new flows of the attacker in {seconds} s, {:.0} for each of {good} packets of established \
             flows, {lost} lost; {refused} of {new} new flows of the neighbour lost",
            flood as f64 / good as f64
        ),
    );
    assert!(flood > 4 * 4096 && flood >= good * FLOOD * 9 / 10, "{flood} of {good}");
    assert_eq!(lost, 0, "of {good}");
    // Every one, whichever had its turn during the flood.
    assert!(established.iter().all(answers) && streams.iter_mut().all(|stream| echoes(stream, patience)));
    assert!(refused * 100 <= new, "{refused} of {new} new flows of the neighbour failed");
}

/// A connected socket of the host outside towards a member.
fn flow(world: &World, member: usize, v4: bool) -> std::net::UdpSocket {
    let socket = world.outside.within(|| {
        let any = if v4 { outside_at(true) } else { outside_at(false) };
        std::net::UdpSocket::bind((any, 0)).expect("a free port")
    });
    socket.connect((member_at(member, v4), 7000)).expect("a route");
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a time");
    socket
}

fn answers(socket: &std::net::UdpSocket) -> bool {
    socket.send(b"x").is_ok() && socket.recv(&mut [0; 8]).is_ok()
}

/// A first packet of a flow that nobody has seen, from an address that is nobody's: of UDP and TCP, in both families.
fn spoofed(random: &mut Random, number: u64, near: [u8; 6], far: [u8; 6]) -> Vec<u8> {
    let (v4, udp) = (number.is_multiple_of(2), (number / 2).is_multiple_of(2));
    let bits = random.next();
    let source = if v4 {
        std::net::Ipv4Addr::from(0xc612_0000 | bits as u32 & 0x1_ffff).into()
    } else {
        std::net::Ipv6Addr::from(0x2001_0db8_0077_0000_u128 << 64 | u128::from(bits)).into()
    };
    let port = (bits >> 32) as u16 | 1;
    // Nobody listens at the one, and the other is answered.
    let target = if (number / 4).is_multiple_of(2) { 9 } else { 7_000 };
    let transport = if udp { Transport::udp(port, 9) } else { Transport::tcp(port, target, flags::SYN) };
    Datagram::new(source, member_at(0, v4), transport).frame_between(near, far)
}
