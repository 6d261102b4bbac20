//! Bandwidth and latency as real clients feel them: HTB on the ports, both families, both directions.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::net::IpAddr;
use std::time::Duration;

use hub_tests::effort::figure;
use hub_tests::lab::Outcome::Answered;
use hub_tests::lab::speed::{arrived, goodput, iperf, is_within, ping, quantile};
use hub_tests::lab::world::{FAMILIES, member_at, outside_at};
use hub_tests::lab::{World, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

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
    for v4 in FAMILIES {
        let (native, zero, host) =
            if v4 { ("10.100.0.0/24", "0/24", "10") } else { ("fd00:100::/64", "/64", "10") };
        let range = view["virtual_ranges"][native].as_str().unwrap();
        let known: IpAddr = format!("{}{host}", range.strip_suffix(zero).unwrap()).parse().unwrap();
        let mut seen = Vec::new();
        // As above: a good one of three, and none above.
        let found = (0..3).any(|_| {
            let received = goodput(&world.outside, twin, known, 5_201);
            let sent = goodput(twin, &world.outside, outside_at(v4), 5_202);
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

#[test]
fn code_points_are_written_by_persona_and_rule() {
    if !root() {
        return;
    }
    let world = World::new(1);
    let rule = json!({"protocol": "udp", "port": 5060, "action": "allow", "dscp": "CS5"});
    let all = json!({"protocol": "any", "action": "allow"});
    world.create(0, &json!({"qos": {"dscp": "AF41"}, "security_policies": [rule, all]}));
    let _server = world.members[0].serve(&[5060, 5061]);
    for v4 in FAMILIES {
        for (port, dscp) in [(5060, 40), (5061, 34)] {
            let (inside, outside) = (world.members[0].wiretap("eth0"), world.outside.wiretap("eth0"));
            world.outside.expect_udp(member_at(0, v4), port, Answered);
            // Both ways: the rule marks what belongs to the connection.
            for (wire, target) in [(inside, member_at(0, v4)), (outside, outside_at(v4))] {
                let marked = |frame: &[u8]| code_point(frame, target) == Some(dscp);
                assert!(wire.find(Duration::from_secs(5), marked), "port {port}, v4 {v4}: no {dscp}");
            }
        }
    }
}

/// Code point of a UDP packet to an address, if the frame is one and its IPv4 header sums up.
fn code_point(frame: &[u8], target: IpAddr) -> Option<u8> {
    let ip = frame.get(14..)?;
    match target {
        IpAddr::V4(target) if frame[12..14] == [8, 0] && ip[9] == 17 && ip[16..20] == target.octets() => {
            let words = ip[..20].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
            let sum: u32 = words.sum();
            assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "the header sum is wrong: {ip:x?}");
            Some(ip[1] >> 2)
        }
        IpAddr::V6(target)
            if frame[12..14] == [0x86, 0xdd] && ip[6] == 17 && ip[24..40] == target.octets() =>
        {
            Some((ip[0] & 15) << 2 | ip[1] >> 6)
        }
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

/// Queues of the hub's namespace, without counts and without the numbers that the kernel gives to leaves.
fn queues(world: &World) -> String {
    world.router.sh("for dev in up0 seg0; do tc qdisc show dev $dev; tc class show dev $dev; done |
         sed -E 's/direct_packets_stat [0-9]+ //; s/(tbf|leaf) [0-9a-f]+:/\\1/; /^class tbf/d' | sort")
}

#[test]
fn queues_come_and_go_with_their_personas_and_survive_the_daemon() {
    if !root() {
        return;
    }
    let mut world = World::new(1);
    let before = queues(&world);
    let qos = json!({"qos": {"bandwidth": "10Mbps", "latency": "10ms"}});
    world.create(0, &qos);
    let shaped = queues(&world);
    for part in ["qdisc htb 177: root", "class htb 177:10 ", "class htb 177:18 ", "qdisc tbf"] {
        assert!(shaped.contains(part), "{part} is missing: {shaped}");
    }
    world.hub.process().kill();
    assert_eq!(queues(&world), shaped, "the queues go on without the daemon");
    world.hub.restart();
    assert_eq!(queues(&world), shaped, "and are adopted as they are");
    // Somebody deletes and changes: it is put right.
    world
        .router
        .sh("tc qdisc del dev up0 root; tc class change dev seg0 parent 177:1 classid 177:10 htb rate 1mbit");
    wait_until("the queues are put right", Duration::from_secs(20), || queues(&world) == shaped);
    // Other bandwidths change classes in place; classes of traffic come and go below them.
    let voice = json!([{"protocol": "udp", "port": 5060, "action": "allow", "priority": "voice"}]);
    world.replace(0, &json!({"qos": {"bandwidth": "20Mbps", "ceil": "30Mbps"}, "security_policies": voice}));
    let changed = queues(&world);
    for part in ["177:11 parent 177:10", "177:13 parent 177:10", "ceil 30"] {
        assert!(changed.contains(part), "{part} is missing: {changed}");
    }
    world.replace(0, &qos);
    wait_until("the classes of traffic are gone", Duration::from_secs(10), || queues(&world) == shaped);
    for number in 0..20 {
        world.hub.send("DELETE", "/v1/personas/p0", &Value::Null);
        wait_until("the queues are gone", Duration::from_secs(10), || queues(&world) == before);
        if number < 19 {
            world.create(0, &qos);
        }
    }
    world.create(0, &qos);
    world.hub.process().stop();
    let folder = world.lab.folder().display().to_string();
    let down = ["down", "--bpffs", &format!("{folder}/bpf"), "--runtime-dir", &format!("{folder}/run")];
    world.hub.hubctl(&down).expect_success();
    // Where programs hang on a queue of their own (before Linux 6.6), that one goes with the hub.
    let none: String =
        before.lines().filter(|line| !line.contains("clsact")).map(|line| line.to_owned() + "\n").collect();
    assert_eq!(queues(&world), none);
}

#[test]
fn a_queue_of_somebody_else_stays_and_the_bandwidth_is_capped_all_the_same() {
    if !root() {
        return;
    }
    let world = World::new(1);
    world.router.sh("tc qdisc add dev seg0 root handle 5: tbf rate 1gbit burst 100kb limit 1mb");
    let foreign = world.router.sh("tc qdisc show dev seg0");
    world.create(0, &json!({"qos": {"bandwidth": "10Mbps"}}));
    let conditions = world.hub.get("/v1/personas/p0").body["conditions"].to_string();
    assert!(conditions.contains("ForeignQueue") && conditions.contains("`tbf 5:`"), "{conditions}");
    assert_eq!(world.router.sh("tc qdisc show dev seg0"), foreign);
    assert!(world.router.sh("tc qdisc show dev up0").contains("htb 177:"));
    for v4 in FAMILIES {
        let words = "--udp --bitrate 40M --length 1200 --time 4";
        let end = iperf(&world.outside, &world.members[0], member_at(0, v4), 5_203, words);
        let lost = end["sum"]["lost_percent"].as_f64().unwrap();
        let arrived = end["sum"]["bits_per_second"].as_f64().unwrap() * (100.0 - lost) / 1e8;
        assert!((9.0..10.4).contains(&arrived), "{arrived} Mbit/s");
    }
    assert!(world.dropped("p0", "policed") > 1_000);
    world.router.sh("tc qdisc del dev seg0 root");
    wait_until("queues take over", Duration::from_secs(20), || {
        world.router.sh("tc qdisc show dev seg0").contains("htb 177:")
            && world.hub.get("/v1/personas/p0").body["conditions"] == json!([])
    });
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
        for (from, to, target, source) in [(outside, member, inside, far), (member, outside, far, inside)] {
            for _ in 0..10 {
                from.expect_tcp(target, 80, Answered);
            }
            // The way of the flood has speech of both: questions of who sends it, and answers to the other one.
            let times = std::thread::scope(|scope| {
                let flood = scope.spawn(|| {
                    let words = "--udp --bitrate 30M --length 1200 --time 8";
                    iperf(from, to, target, 5_204, words)
                });
                std::thread::sleep(Duration::from_secs(2));
                let times = [ping(from, target, 40), ping(to, source, 40)];
                flood.join().unwrap();
                times
            });
            // A packet of the flood that is under way takes 1 ms.
            for times in times {
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
