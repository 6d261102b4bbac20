//! Bandwidth and latency as real clients feel them: HTB on the ports, both families, both directions.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use hub_tests::effort::{Effort, figure};
use hub_tests::lab::Outcome::Answered;
use hub_tests::lab::speed::{arrived, goodput, goodput_within, iperf, is_within, ping, quantile};
use hub_tests::lab::world::{FAMILIES, member_at, outside_at};
use hub_tests::lab::{Space, World};
use hub_tests::root;
use serde_json::json;

#[test]
fn tcp_gets_its_bandwidth_in_both_directions_and_families() {
    if !root() {
        return;
    }
    let world = World::new(2);
    let qos = |rate: &str| json!({"qos": {"bandwidth": rate, "latency": "50ms"}});
    world.create(0, &qos("20Mbps"));
    world.create(1, &qos("30Mbps"));
    let rates = [20.0, 30.0];
    for v4 in FAMILIES {
        // One persona receives while the other sends: neither disturbs the other.
        for sender in 0..2 {
            let receiver = 1 - sender;
            // A machine that stands still loses time, and never makes anything faster: a good one of three.
            let found = (0..3).any(|_| {
                let (sent, received) = transfers(&world, sender, receiver, v4);
                assert!(sent < rates[sender] * 1.05 && received < rates[receiver] * 1.05);
                is_within(sent, rates[sender], 5.0) && is_within(received, rates[receiver], 5.0)
            });
            assert!(found, "p{sender} does not send, or p{receiver} does not receive, what it should");
        }
    }
}

#[test]
fn personas_whose_addresses_are_translated_keep_their_bandwidth() {
    if !root() {
        return;
    }
    let world = World::new(2);
    let twin = &world.members[1];
    world.make_twin(1, 0);
    world.create(0, &json!({}));
    let qos = json!({"bandwidth": "20Mbps", "latency": "50ms"});
    let mut definition = World::definition(1, &json!({"qos": qos, "egress": {"nat": "masquerade_all"}}));
    definition["ip_range"] = World::definition(0, &json!({}))["ip_range"].clone();
    let view = world.hub.send("POST", "/v1/personas", &definition).expect(201);
    world.active("p1");
    let seconds = Effort::new(5, 10).amount();
    for v4 in FAMILIES {
        let (native, zero, host) =
            if v4 { ("10.100.0.0/24", "0/24", "10") } else { ("fd00:100::/64", "/64", "10") };
        let range = view["virtual_ranges"][native].as_str().unwrap();
        let known: IpAddr = format!("{}{host}", range.strip_suffix(zero).unwrap()).parse().unwrap();
        let mut seen = Vec::new();
        // As above: a good one of three, and none above.
        let found = (0..3).any(|_| {
            let received = goodput_within(&world.outside, twin, known, 5_201, seconds);
            let sent = goodput_within(twin, &world.outside, outside_at(v4), 5_202, seconds);
            seen.push((received, sent));
            assert!(received < 21.0 && sent < 21.0, "{seen:?}");
            is_within(received, 20.0, 5.0) && is_within(sent, 20.0, 5.0)
        });
        assert!(found, "received and sent, v4 {v4}: {seen:?}");
    }
}

/// Megabits per second that one member sends while another receives.
fn transfers(world: &World, sender: usize, receiver: usize, v4: bool) -> (f64, f64) {
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| goodput(&world.members[sender], &world.outside, outside_at(v4), 5_201));
        let member = &world.members[receiver];
        let received = goodput(&world.outside, member, member_at(receiver, v4), 5_201);
        (sending.join().unwrap(), received)
    })
}

/// Latency of the flooded persona in milliseconds.
const LATENCY_MS: f64 = 20.0;
/// What a ping may take beyond the latency and beyond what the slowest take while nothing flows, in milliseconds.
const GRACE_MS: f64 = 2.0;

/// What a flood at three times the bandwidth of `p0` comes to: megabits per second that arrive of it and of `p1`'s
/// TCP the same way, and what pings to `p0` and `p2` take meanwhile, in milliseconds.
fn flood(world: &World, inward: bool, v4: bool) -> (f64, f64, Vec<f64>, Vec<f64>) {
    let ends = |number: usize| {
        let (member, outside) = (&world.members[number], &world.outside);
        if inward { (outside, member, member_at(number, v4)) } else { (member, outside, outside_at(v4)) }
    };
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let (from, to, target) = ends(0);
            arrived(from, to, target, 5_202, "--udp --bitrate 60M --length 1200 --time 14")
        });
        let other = scope.spawn(|| {
            let (from, to, target) = ends(1);
            goodput(from, to, target, 5_201)
        });
        std::thread::sleep(Duration::from_secs(2));
        let flooded = ping(&world.outside, member_at(0, v4), 100);
        let idle = ping(&world.outside, member_at(2, v4), 40);
        (flood.join().unwrap(), other.join().unwrap(), flooded, idle)
    })
}

#[test]
fn a_flood_waits_no_longer_than_the_latency() {
    if !root() {
        return;
    }
    let world = World::new(3);
    for (number, latency) in [(0, "20ms"), (1, "50ms"), (2, "20ms")] {
        world.create(number, &json!({"qos": {"bandwidth": "20Mbps", "latency": latency}}));
    }
    for v4 in FAMILIES {
        let quiet = ping(&world.outside, member_at(0, v4), 100);
        let [usual, late] = [50, 99].map(|percent| quantile(&quiet, percent));
        for inward in [true, false] {
            // A machine that stands still makes packets late and rates small, never the other way: a good one of three.
            let good = (0..3).any(|_| {
                let (rate, other, flooded, idle) = flood(&world, inward, v4);
                let [waited, longest] = [50, 99].map(|percent| quantile(&flooded, percent));
                let undisturbed = quantile(&idle, 90);
                figure(
                    "P10",
                    &format!(
                        "IPv4 {v4}, inward {inward}: {rate:.1} of 60 Mbit/s arrive; pings wait {waited:.1} ms, 99 of \
                         100 no longer than {longest:.1} (idle {late:.1}); another's TCP {other:.2} of 20 Mbit/s, \
                         its pings {undisturbed:.1} ms"
                    ),
                );
                assert!(rate < 20.2 && other < 21.0, "{rate} and {other} Mbit/s");
                assert!(waited - usual > LATENCY_MS / 2.0, "nothing waits: {flooded:?}");
                rate > 17.0
                    && flooded.len() > 95
                    && longest <= LATENCY_MS + late + GRACE_MS
                    && is_within(other, 20.0, 5.0)
                    && idle.len() == 40
                    && undisturbed <= late + GRACE_MS
            });
            assert!(good, "IPv4 {v4}, inward {inward}: see the figures");
        }
    }
    let counts = world.hub.get("/v1/personas/p0/counters").expect(200);
    let metrics = world.router.sh("curl -s http://127.0.0.1:9178/metrics");
    for (direction, interface) in [("ingress", "seg0"), ("egress", "up0")] {
        let mut queues = counts["queues"].as_array().unwrap().iter();
        let queue = queues.find(|queue| queue["direction"] == direction && queue["interface"] == interface);
        let queue = queue.unwrap_or_else(|| panic!("{counts:#}"));
        assert!(queue["drops"].as_u64().unwrap() > 1_000, "{queue:#}");
        let drops = format!(
            "hub_persona_queue_drops_total{{persona=\"p0\",direction=\"{direction}\",interface=\"{interface}\""
        );
        assert!(metrics.contains(&drops), "{metrics}");
    }
}

/// Who sends a flood to whom, and the addresses of the receiver and of the sender.
type Way<'a> = (&'a Space, &'a Space, IpAddr, IpAddr);

/// What pings take beside a flood at three times the bandwidth, in milliseconds. The way of the flood has speech of
/// both: questions of who sends it, and answers to the other one.
fn speech((from, to, target, source): Way<'_>) -> [Vec<f64>; 2] {
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            // What waits counts as the sender's: one socket alone would not fill a queue with room for 100 ms.
            let words = "--udp --parallel 4 --bitrate 8M --length 1200 --time 8";
            iperf(from, to, target, 5_204, words)
        });
        std::thread::sleep(Duration::from_secs(2));
        let times = [ping(from, target, 40), ping(to, source, 40)];
        flood.join().unwrap();
        times
    })
}

#[test]
fn handshakes_are_timed_and_speech_goes_before_bulk() {
    if !root() {
        return;
    }
    let world = World::new(1);
    let rules = json!([
        {"direction": "both", "protocol": "icmp", "action": "allow", "priority": "voice"},
        {"direction": "both", "protocol": "any", "action": "allow", "priority": "bulk"},
    ]);
    world.create(0, &json!({"qos": {"bandwidth": "10Mbps", "latency": "100ms"}, "security_policies": rules}));
    let (member, outside) = (&world.members[0], &world.outside);
    let _servers = (member.serve(&[80]), outside.serve(&[80]));
    for v4 in FAMILIES {
        let (inside, far) = (member_at(0, v4), outside_at(v4));
        for way in [(outside, member, inside, far), (member, outside, far, inside)] {
            let (from, _, target, _) = way;
            for _ in 0..10 {
                from.expect_tcp(target, 80, Answered);
            }
            // A packet of the flood that is under way takes 1 ms.
            for times in speech(way) {
                assert!(
                    times.len() == 40 && quantile(&times, 90) < 5.0,
                    "to {target}, speech waits: {times:?}"
                );
            }
        }
    }
    let counts = world.hub.get("/v1/personas/p0/counters").expect(200);
    let times = &counts["handshakes"];
    assert!(times["count"].as_u64().unwrap() >= 40, "{counts:#}");
    let [p50, p95] = ["p50_us", "p95_us"].map(|name| times[name].as_u64().unwrap());
    assert!(p50 > 0 && p50 <= p95 && p95 < 5_000_000, "{times:#}");
    let shown = world.hub.hubctl(&["counters", "p0"]).expect_success();
    assert!(shown.contains("P95 MS") && shown.contains("voice") && shown.contains("bulk"), "{shown}");
    let metrics = world.router.sh("curl -s http://127.0.0.1:9178/metrics");
    assert!(metrics.contains("hub_persona_handshake_seconds_count{persona=\"p0\"}"), "{metrics}");
    assert!(metrics.contains("hub_persona_latency_exceeded{persona=\"p0\"} "), "{metrics}");
}

#[test]
fn what_no_rule_gives_a_class_has_that_of_the_persona() {
    if !root() {
        return;
    }
    let world = World::new(2);
    // The flood matches a rule without a class towards members, and none at all from them.
    let rules = json!([
        {"direction": "both", "protocol": "icmp", "action": "allow", "priority": "voice"},
        {"protocol": "any", "action": "allow"},
    ]);
    for (number, class) in [(0, "bulk"), (1, "voice")] {
        let qos = json!({"bandwidth": "10Mbps", "latency": "100ms", "priority": class});
        world.create(number, &json!({"qos": qos, "security_policies": rules}));
    }
    let ways = |number: usize, v4: bool| -> [Way<'_>; 2] {
        let (member, outside) = (&world.members[number], &world.outside);
        let (inside, far) = (member_at(number, v4), outside_at(v4));
        [(outside, member, inside, far), (member, outside, far, inside)]
    };
    let of_class = |class: &str, way: Way<'_>| {
        let times = speech(way);
        let [waited, longest] =
            [50, 90].map(|percent| times.each_ref().map(|times| quantile(times, percent)));
        let answered = times.each_ref().map(Vec::len);
        figure(
            "P25",
            &format!(
                "pings to {}, the persona's class is {class}: {answered:?} of 40 answered, {waited:.1?} ms, 90 of 100 \
                 within {longest:.1?}",
                way.2
            ),
        );
        (answered, waited, longest)
    };
    for v4 in FAMILIES {
        for way in ways(0, v4) {
            // A machine that stands still makes packets late, and never early: a good one of three.
            let found = (0..3).any(|_| {
                let (answered, _, longest) = of_class("bulk", way);
                answered == [40; 2] && longest.iter().all(|longest| *longest < 5.0)
            });
            assert!(found, "to {}, speech waits: see the figures", way.2);
        }
        // Where everything is speech, it waits with the flood, unless that begins too late.
        for way in ways(1, v4) {
            let found = (0..3).any(|_| {
                let (_, waited, _) = of_class("voice", way);
                waited.iter().all(|waited| *waited > 50.0)
            });
            assert!(found, "to {}, nothing waits: see the figures", way.2);
        }
    }
    for (number, flooded, classes) in [(0, "bulk", vec!["bulk", "voice"]), (1, "voice", vec!["voice"])] {
        let name = format!("p{number}");
        let counts = world.hub.get(&format!("/v1/personas/{name}/counters")).expect(200);
        for (direction, interface) in [("ingress", &*format!("seg{number}")), ("egress", "up0")] {
            let all = counts["queues"].as_array().unwrap().iter();
            let own = all.filter(|queue| queue["direction"] == direction && queue["interface"] == interface);
            let own: Vec<_> = own.map(|queue| (queue["priority"].as_str().unwrap(), queue)).collect();
            let found: BTreeSet<&str> = own.iter().map(|(class, _)| *class).collect();
            assert_eq!(found, classes.iter().copied().collect(), "{counts:#}");
            for (class, queue) in own {
                let [packets, drops] = ["packets", "drops"].map(|field| queue[field].as_u64().unwrap());
                assert!(packets >= 80 && (drops > 1_000) == (class == flooded), "{queue:#}");
            }
        }
        let shown = world.hub.hubctl(&["counters", &name]).expect_success();
        assert!(classes.iter().all(|class| shown.contains(class)) && !shown.contains("normal"), "{shown}");
    }
}
