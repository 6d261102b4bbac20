//! Limits among several: caps, borrowing, peers, many lives; and what is told when packets are late.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::net::UdpSocket;
use std::time::Duration;

use hub_tests::lab::Outcome::Answered;
use hub_tests::lab::speed::{arrived, goodput, iperf, is_within, ping, quantile};
use hub_tests::lab::world::{FAMILIES, member_at, outside_at};
use hub_tests::lab::{World, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

#[test]
fn police_drops_at_once_and_makes_nothing_wait() {
    if !root() {
        return;
    }
    let world = World::new(1);
    let before = world.queues();
    world.create(0, &json!({"qos": {"bandwidth": "10Mbps", "police": true}}));
    assert_eq!(world.queues(), before, "nothing is queued");
    for v4 in FAMILIES {
        let (rate, times) = std::thread::scope(|scope| {
            let flood = scope.spawn(|| {
                let words = "--udp --bitrate 30M --length 1200 --time 5";
                arrived(&world.outside, &world.members[0], member_at(0, v4), 5_205, words)
            });
            std::thread::sleep(Duration::from_secs(2));
            let times = ping(&world.outside, member_at(0, v4), 40);
            (flood.join().unwrap(), times)
        });
        assert!((7.0..10.4).contains(&rate), "{rate} Mbit/s");
        // Most are dropped with the flood; those that pass were never held.
        assert!(quantile(&times, 50) < 10.0, "{times:?}");
        // From members as well.
        let words = "--udp --bitrate 30M --length 1200 --time 4";
        let sent = arrived(&world.members[0], &world.outside, outside_at(v4), 5_206, words);
        assert!((7.0..10.4).contains(&sent), "{sent} Mbit/s");
    }
    let counts = world.hub.get("/v1/personas/p0/counters").expect(200);
    let drops = counts["drops"].as_array().unwrap();
    for direction in ["ingress", "egress"] {
        let found = drops.iter().find(|drop| drop["reason"] == "policed" && drop["direction"] == direction);
        let packets = found.map_or(0, |drop| drop["packets"].as_u64().unwrap());
        assert!(packets > 2_000, "{direction}: {counts:#}");
    }
}

/// Megabits per second that both members send at the same time; without the second, it is silent.
fn sending(world: &World, v4: bool, second: bool) -> [f64; 2] {
    let send = |number: usize| {
        let end = iperf(
            &world.members[number],
            &world.outside,
            outside_at(v4),
            5_207 + number as u16,
            "--omit 2 --time 6",
        );
        end["sum_received"]["bits_per_second"].as_f64().unwrap() / 1e6
    };
    std::thread::scope(|scope| {
        let other = second.then(|| scope.spawn(|| send(1)));
        [send(0), other.map_or(0.0, |other| other.join().unwrap())]
    })
}

#[test]
fn what_a_link_leaves_idle_is_borrowed_and_shared_when_it_is_wanted() {
    if !root() {
        return;
    }
    let world = World::with_uplink(2, "bandwidth: 20Mbps");
    for (number, rate) in [(0, "5Mbps"), (1, "10Mbps")] {
        let qos = json!({"bandwidth": {"egress": rate}, "ceil": {"egress": "16Mbps"}});
        world.create(number, &json!({"qos": qos}));
    }
    for v4 in FAMILIES {
        // A machine that stands still loses time, and never makes anything faster: a good one of three.
        let found = (0..3).any(|_| {
            let [alone, _] = sending(&world, v4, false);
            assert!(alone < 16.0 * 1.05, "{alone} Mbit/s are more than the ceil");
            is_within(alone, 16.0, 6.0)
        });
        assert!(found, "p0 does not borrow what p1 leaves");
        let found = (0..3).any(|_| {
            let [first, second] = sending(&world, v4, true);
            let sum = first + second;
            assert!(sum < 20.0 * 1.05, "{first} and {second} Mbit/s are more than the link");
            first > 4.7 && second > 9.4 && sum > 17.5
        });
        assert!(found, "not everybody has what is his");
    }
}

#[test]
fn between_two_personas_the_slower_limit_holds() {
    if !root() {
        return;
    }
    let world = World::new(2);
    let rates = [("30Mbps", "20Mbps"), ("10Mbps", "15Mbps")];
    for (number, (ingress, egress)) in rates.into_iter().enumerate() {
        let peer = format!("p{}", 1 - number);
        let qos = json!({"bandwidth": {"ingress": ingress, "egress": egress}});
        world.hub.send(
            "POST",
            "/v1/personas",
            &World::definition(number, &json!({"qos": qos, "peers": [peer]})),
        );
    }
    world.active("p0");
    world.active("p1");
    for v4 in FAMILIES {
        for (sender, wanted) in [(0, 10.0), (1, 15.0)] {
            let receiver = 1 - sender;
            let found = (0..3).any(|_| {
                let (from, to) = (&world.members[sender], &world.members[receiver]);
                let found = goodput(from, to, member_at(receiver, v4), 5_209);
                assert!(found < wanted * 1.05, "{found} Mbit/s from p{sender}");
                is_within(found, wanted, 5.0)
            });
            assert!(found, "p{sender} does not get {wanted} Mbit/s to p{receiver}");
        }
    }
}

#[test]
fn lives_with_queues_leave_none_behind() {
    if !root() {
        return;
    }
    let asked = std::env::var("HUB_TEST_CYCLES").ok();
    let cycles: usize = asked.map_or(200, |text| text.parse().expect("HUB_TEST_CYCLES is a number"));
    let world = World::new(2);
    let qos = json!({"bandwidth": "10Mbps", "ceil": "20Mbps", "latency": "10ms"});
    let voice = json!([{"protocol": "udp", "port": 5060, "action": "allow", "priority": "voice"}]);
    let fields = json!({"qos": qos, "security_policies": voice});
    // One that stays, so that the root of the uplink is shared.
    world.create(1, &json!({"qos": {"bandwidth": "5Mbps"}}));
    let before = world.queues();
    let classes = || world.router.sh("for dev in up0 seg0 seg1; do tc class show dev $dev; done | wc -l");
    let few: usize = classes().trim().parse().unwrap();
    for cycle in 0..cycles {
        world.create(0, &fields);
        if cycle % 20 == 0 {
            assert!(world.queues().matches("ceil 20").count() >= 4, "cycle {cycle}");
        }
        world.hub.send("DELETE", "/v1/personas/p0", &Value::Null);
    }
    wait_until("the queues are gone", Duration::from_secs(20), || world.queues() == before);
    assert_eq!(classes().trim().parse::<usize>().unwrap(), few);
}

/// Opens a connection whose SYN-ACK waits behind two datagrams for more than half a second, and is not sent
/// again before that: what is sent again is not timed.
fn shake_slowly(world: &World, v4: bool) {
    let member = &world.members[0];
    member.sh("tc qdisc add dev eth0 root tbf rate 16kbit burst 1600 limit 20000");
    member.within(|| {
        let socket = UdpSocket::bind((member_at(0, v4), 0)).unwrap();
        for _ in 0..2 {
            socket.send_to(&[0; 1_372], (outside_at(v4), 9)).unwrap();
        }
    });
    assert_eq!(world.outside.tcp(member_at(0, v4), 80, Duration::from_secs(20)), Answered);
    member.sh("tc qdisc del dev eth0 root");
    // The alerts look once a second.
    std::thread::sleep(Duration::from_millis(1_500));
}

#[test]
fn slow_handshakes_and_long_queues_are_told() {
    if !root() {
        return;
    }
    let world = World::new(1);
    let alerts = json!([
        {"metric": "rtt_p95", "value": "300ms"},
        {"metric": "queue_delay", "of": "ingress", "value": "50ms", "clear": 20},
    ]);
    world.create(0, &json!({"qos": {"bandwidth": "5Mbps", "latency": "300ms"}, "alerts": alerts}));
    let _server = world.members[0].serve(&[80]);
    let patience = Duration::from_secs(30);
    let state = |alert: &str| {
        let alerts = world.hub.get("/v1/alerts").expect(200);
        let found = alerts.as_array().unwrap().iter().find(|one| one["alert"] == alert);
        found.map_or_else(String::new, |one| one["state"].as_str().unwrap().to_owned())
    };
    let conditions = || world.hub.get("/v1/personas/p0").body["conditions"].to_string();
    wait_until("alerts look", patience, || state("rtt_p95") == "ok" && state("queue_delay") == "ok");
    for v4 in FAMILIES {
        wait_until("the persona is late", Duration::from_mins(1), || {
            shake_slowly(&world, v4);
            conditions().contains("LatencyExceeded")
        });
        wait_until("the alert fires", patience, || state("rtt_p95") == "firing");
        // Of more than forty, one is less than five of a hundred.
        for _ in 0..50 {
            world.outside.expect_tcp(member_at(0, v4), 80, Answered);
        }
        wait_until("the persona is late no more", patience, || !conditions().contains("LatencyExceeded"));
        wait_until("the alert ends", patience, || state("rtt_p95") != "firing");
    }
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let words = "--udp --bitrate 15M --length 1200 --time 8";
            iperf(&world.outside, &world.members[0], member_at(0, false), 5_210, words)
        });
        wait_until("packets wait for long", patience, || state("queue_delay") == "firing");
        let metrics = world.router.sh("curl -s http://127.0.0.1:9178/metrics");
        let row = "hub_persona_queue_delay_seconds{persona=\"p0\",direction=\"ingress\"} ";
        assert!(metrics.contains(row), "{metrics}");
        flood.join().unwrap();
    });
    wait_until("nothing waits", patience, || state("queue_delay") == "resolved");
}

#[test]
fn handshakes_are_timed_without_any_quality_of_service() {
    if !root() {
        return;
    }
    let world = World::new(1);
    world.create(0, &json!({"alerts": [{"metric": "rtt_p95", "value": "30s"}]}));
    let (member, outside) = (&world.members[0], &world.outside);
    let _servers = (member.serve(&[80]), outside.serve(&[80]));
    for v4 in FAMILIES {
        for _ in 0..3 {
            outside.expect_tcp(member_at(0, v4), 80, Answered);
            member.expect_tcp(outside_at(v4), 80, Answered);
        }
    }
    let counts = world.hub.get("/v1/personas/p0/counters").expect(200);
    assert_eq!(counts["handshakes"]["count"], 12, "{counts:#}");
    let metrics = world.router.sh("curl -s http://127.0.0.1:9178/metrics");
    assert!(metrics.contains("hub_persona_handshake_seconds_count{persona=\"p0\"} 12"), "{metrics}");
    wait_until("the alert looks", Duration::from_secs(30), || {
        let alerts = world.hub.get("/v1/alerts").expect(200);
        alerts.as_array().unwrap().iter().any(|one| one["alert"] == "rtt_p95" && one["state"] == "ok")
    });
    // Without a latency nothing is late.
    assert_eq!(world.hub.get("/v1/personas/p0").body["conditions"], json!([]));
}
