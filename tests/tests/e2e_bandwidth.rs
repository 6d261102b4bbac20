//! Bandwidth of a persona over several interfaces, and of fast ones: HTB, both families, both directions.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::net::IpAddr;
use std::time::Duration;

use hub_tests::effort::{Effort, figure};
use hub_tests::lab::speed::{arrived, iperf, is_within, ping, quantile};
use hub_tests::lab::world::{FAMILIES, member_at, outside_at};
use hub_tests::lab::{Space, World};
use hub_tests::root;
use serde_json::{Value, json};

/// What a persona over two ports has in each direction, in megabits per second.
const RATE: f64 = 20.0;
const LATENCY_MS: f64 = 50.0;

/// Who sends to whom.
type Way<'a> = (&'a Space, &'a Space, IpAddr);

/// `p0` is behind `seg0` and `seg1`, and has a peer behind `seg2`: two interfaces each way.
fn spread(fields: &Value) -> World {
    let world = World::new(3);
    let range = |number: usize| json!([format!("10.100.{number}.0/24"), format!("fd00:100:{number}::/64")]);
    let both =
        [range(0), range(1)].iter().flat_map(|range| range.as_array().unwrap().clone()).collect::<Value>();
    let placed = |number: usize| json!({"name": format!("seg{number}"), "prefixes": range(number)});
    let mut definition = json!({
        "name": "p0",
        "ip_range": both,
        "interfaces": [placed(0), placed(1)],
        "qos": {"bandwidth": "20Mbps", "latency": "50ms"},
        "peers": ["p2"],
    });
    for (key, value) in fields.as_object().unwrap() {
        definition[key] = value.clone();
    }
    world.hub.send("POST", "/v1/personas", &definition).expect(201);
    world.hub.send("POST", "/v1/personas", &World::definition(2, &json!({"peers": ["p0"]}))).expect(201);
    world.active("p0");
    world.active("p2");
    world
}

/// Ways into the persona, or out of it: by each of the two interfaces of the direction.
fn ways(world: &World, inward: bool, v4: bool) -> [Way<'_>; 2] {
    let (members, outside) = (&world.members, &world.outside);
    if inward {
        [0, 1].map(|number| (outside, &members[number], member_at(number, v4)))
    } else {
        [(&members[0], outside, outside_at(v4)), (&members[1], &members[2], member_at(2, v4))]
    }
}

/// What both ways have at the same time, in megabits per second.
fn at_once(ways: [Way<'_>; 2], measure: impl Fn(Way<'_>, u16) -> f64 + Sync) -> [f64; 2] {
    let [first, second] = ways;
    std::thread::scope(|scope| {
        let beside = scope.spawn(|| measure(second, 5_212));
        [measure(first, 5_211), beside.join().unwrap()]
    })
}

/// Megabits per second of TCP within so many seconds, after the first one. By CUBIC, whatever the machine prefers:
/// it heeds losses. BBR does not, and sends a fifth more than any queue of this size takes.
fn transfer((from, to, target): Way<'_>, port: u16, seconds: u64) -> f64 {
    let end = iperf(from, to, target, port, &format!("--congestion cubic --omit 1 --time {seconds}"));
    end["sum_received"]["bits_per_second"].as_f64().unwrap() / 1e6
}

fn flood((from, to, target): Way<'_>, port: u16) -> f64 {
    arrived(from, to, target, port, "--udp --bitrate 40M --length 1200 --time 6")
}

#[test]
fn several_interfaces_share_a_bandwidth() {
    if !root() {
        return;
    }
    let world = spread(&json!({}));
    let seconds = Effort::new(4, 10).amount();
    for v4 in FAMILIES {
        for inward in [true, false] {
            let before = world.dropped("p0", "policed");
            // A machine that stands still loses time, and never makes anything faster: a good one of three.
            let good = |what: &str, least: f64, measure: &(dyn Fn(Way<'_>, u16) -> f64 + Sync)| {
                let found = (0..3).any(|_| {
                    let [first, second] = at_once(ways(&world, inward, v4), measure);
                    let sum = first + second;
                    figure(
                        "P9",
                        &format!(
                            "{what} by two interfaces, IPv4 {v4}, inward {inward}: {first:.1} + {second:.1}"
                        ),
                    );
                    assert!(sum < RATE * 1.05, "{what}: {first} and {second} Mbit/s");
                    sum > RATE * least && first.min(second) > RATE / 10.0
                });
                assert!(found, "{what}, IPv4 {v4}, inward {inward}: the two do not have the bandwidth");
            };
            good("floods", 0.93, &flood);
            assert!(world.dropped("p0", "policed") > before + 1_000);
            good("TCP", 0.85, &|way, port| transfer(way, port, seconds));
        }
    }
}

#[test]
fn one_of_several_interfaces_has_all_of_the_bandwidth_and_its_queue() {
    if !root() {
        return;
    }
    let world = spread(&json!({}));
    let seconds = Effort::new(4, 10).amount();
    for v4 in FAMILIES {
        for inward in [true, false] {
            let way = ways(&world, inward, v4)[1];
            let before = world.dropped("p0", "policed");
            let found = (0..3).any(|_| {
                let rate = transfer(way, 5_213, seconds);
                figure("P9", &format!("TCP by one of two interfaces, IPv4 {v4}, inward {inward}: {rate:.2}"));
                assert!(rate < RATE * 1.05, "{rate} Mbit/s");
                is_within(rate, RATE, 5.0)
            });
            assert!(found, "TCP, IPv4 {v4}, inward {inward}: see the figures");
            assert_eq!(world.dropped("p0", "policed"), before, "the queue decides, not the cap");
            // Beside a flood packets wait as in the queue of an only interface.
            let (from, _, target) = way;
            let quiet = quantile(&ping(from, target, 40), 99);
            let found = (0..3).any(|_| {
                let times = std::thread::scope(|scope| {
                    let flooding = scope.spawn(|| flood(way, 5_214));
                    std::thread::sleep(Duration::from_secs(2));
                    let times = ping(from, target, 40);
                    assert!(flooding.join().unwrap() < RATE * 1.05);
                    times
                });
                let [waited, longest] = [50, 99].map(|percent| quantile(&times, percent));
                figure(
                    "P10",
                    &format!("{} pings, {waited:.1}, 99 of 100 no longer than {longest:.1} ms", times.len()),
                );
                assert!(waited > quiet + LATENCY_MS / 10.0, "nothing waits: {times:?}");
                times.len() > 36 && longest <= LATENCY_MS + quiet + 2.0
            });
            assert!(found, "IPv4 {v4}, inward {inward}: pings wait for longer than the latency");
        }
    }
}

/// Port of a conversation.
const SPEECH: u16 = 5_221;

#[test]
fn speech_goes_before_bulk_where_interfaces_share_a_bandwidth() {
    if !root() {
        return;
    }
    let rule = |protocol: &str, class: &str| json!({"direction": "both", "protocol": protocol, "action": "allow", "priority": class});
    let spoken = ["tcp", "udp"].map(|protocol| {
        let mut rule = rule(protocol, "voice");
        rule["port"] = json!(SPEECH);
        rule
    });
    let [tcp, udp] = spoken;
    let world = spread(&json!({"security_policies": [tcp, udp, rule("icmp", "voice"), rule("any", "bulk")]}));
    let seconds = Effort::new(6, 20).amount();
    let speak = |(from, to, target): Way<'_>| {
        let end =
            iperf(from, to, target, SPEECH, &format!("--udp --bitrate 1M --length 200 --time {seconds}"));
        ["lost_packets", "packets"].map(|name| end["sum"][name].as_u64().unwrap())
    };
    let bulk = |(from, to, target): Way<'_>, port: u16| {
        arrived(from, to, target, port, &format!("--udp --bitrate 40M --length 1200 --time {}", seconds + 3))
    };
    for v4 in FAMILIES {
        for inward in [true, false] {
            let both = ways(&world, inward, v4);
            let before = world.dropped("p0", "policed");
            let (flooded, [lost, said], times) = std::thread::scope(|scope| {
                let flooding = scope.spawn(|| at_once(both, bulk));
                std::thread::sleep(Duration::from_secs(2));
                let speaking = scope.spawn(|| speak(both[0]));
                let times = ping(both[1].0, both[1].2, 40);
                (flooding.join().unwrap(), speaking.join().unwrap(), times)
            });
            let [first, second] = flooded;
            let longest = quantile(&times, 90);
            figure(
                "P9",
                &format!(
                    "speech beside {first:.1} + {second:.1} Mbit/s of bulk, IPv4 {v4}, inward {inward}: {lost} of \
                     {said} packets lost, {} of 40 pings answered, 90 of 100 within {longest:.1} ms",
                    times.len()
                ),
            );
            assert!(first + second < RATE * 1.05, "bulk: {first} and {second} Mbit/s");
            assert!(world.dropped("p0", "policed") > before + 1_000, "nothing was capped");
            assert!(said > 1_000 && lost == 0, "{lost} of {said} packets of speech are lost");
            assert!(times.len() == 40 && longest < 5.0, "speech waits: {times:?}");
        }
    }
}

#[test]
fn tcp_gets_high_bandwidths_too() {
    if !root() {
        return;
    }
    let seconds = Effort::new(3, 10).amount();
    let world = World::new(2);
    let rates = [200.0, 500.0];
    for (number, rate) in rates.iter().enumerate() {
        world.create(number, &json!({"qos": {"bandwidth": format!("{rate}Mbps")}}));
    }
    let outside = &world.outside;
    for v4 in FAMILIES {
        // One persona receives while the other sends.
        for sender in 0..2 {
            let receiver = 1 - sender;
            let mut seen = Vec::new();
            // A machine that stands still loses time, and never makes anything faster: a good one of three.
            let found = (0..3).any(|_| {
                let [sent, received] = std::thread::scope(|scope| {
                    let sends = (&world.members[sender], outside, outside_at(v4));
                    let sending = scope.spawn(move || transfer(sends, 5_215, seconds));
                    let receives = (outside, &world.members[receiver], member_at(receiver, v4));
                    let received = transfer(receives, 5_216, seconds);
                    [sending.join().unwrap(), received]
                });
                seen.push((sent, received));
                assert!(sent < rates[sender] * 1.05 && received < rates[receiver] * 1.05, "{seen:?}");
                is_within(sent, rates[sender], 5.0) && is_within(received, rates[receiver], 5.0)
            });
            figure(
                "P9",
                &format!("IPv4 {v4}, p{sender} sends, p{receiver} receives: {seen:.1?} of {rates:?} Mbit/s"),
            );
            assert!(found, "IPv4 {v4}, p{sender} sends, p{receiver} receives: {seen:?}");
        }
    }
}
