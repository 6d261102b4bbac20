//! Bandwidth and latency by departure times, where the kernel has `fq`; and what is said where it has not.

use std::time::Duration;

use hub_tests::lab::speed::{goodput, iperf, ping, quantile};
use hub_tests::lab::world::{FAMILIES, member_at, outside_at};
use hub_tests::lab::{Config, Lab, World, patience, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

const EDT: &str = "qos: {engine: edt}";
const HTB: &str = "qos: {engine: htb}";
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether the kernel has `fq`. Says so when a test does not apply.
#[expect(clippy::print_stderr, reason = "the reader of the test's output is told what was left out")]
fn has_fq(wanted: bool) -> bool {
    if !root() {
        return false;
    }
    let mut lab = Lab::new();
    let found = lab.space("probe").succeeds("tc qdisc add dev lo root fq", PATIENCE);
    if found != wanted {
        eprintln!("not applicable: this kernel has {} queue `fq`", if found { "the" } else { "no" });
    }
    found == wanted
}

/// `hub.yaml` of a [`World`] with this many members.
fn config(members: usize, lines: &str) -> Config {
    let mut config = Config::default().interface("up0", "uplink");
    for number in 0..members {
        config = config.interface(&format!("seg{number}"), "segment");
    }
    config.with(lines)
}

/// Queues of the hub's ports, without counts.
fn queues(world: &World) -> String {
    world.router.sh("(tc qdisc show dev up0; tc qdisc show dev seg0; tc class show dev seg0) |
         sed -E 's/direct_packets_stat [0-9]+ //; s/(tbf|leaf) [0-9a-f]+:/\\1/; /^class tbf/d' | sort")
}

#[test]
fn without_fq_the_hub_does_not_start_and_says_why() {
    if !has_fq(false) {
        return;
    }
    let mut world = World::new(1);
    world.create(0, &json!({"qos": {"bandwidth": "10Mbps"}}));
    let before = queues(&world);
    assert_eq!(world.hub.get("/v1/status").body["qos_engine"], "htb");
    world.hub.process().stop();
    world.hub.configure(&config(1, EDT));
    world.hub.launch();
    wait_until("hubd gives up", PATIENCE, || !world.hub.process().is_running());
    let log = world.hub.log();
    let last = log.lines().last().unwrap_or_default();
    assert!(last.contains("qos.engine `edt`: this kernel has no queue `fq`"), "{last}");
    assert!(last.contains("use `qos.engine: htb`"), "{last}");
    assert_eq!(queues(&world), before, "nothing was touched");
    world.hub.configure(&config(1, "qos: {engine: auto}"));
    world.hub.restart();
    assert_eq!(queues(&world), before);
}

#[test]
fn the_engine_is_shown_and_a_change_of_it_replaces_the_queues() {
    if !has_fq(true) {
        return;
    }
    let mut world = World::with(1, EDT);
    let none = queues(&world);
    let voice = json!([{"protocol": "udp", "port": 5060, "action": "allow", "priority": "voice"}]);
    let qos = json!({"qos": {"bandwidth": "10Mbps", "ceil": "20Mbps"}, "security_policies": voice});
    world.create(0, &qos);
    let paced = queues(&world);
    assert_eq!(paced.matches("qdisc fq 177: root").count(), 2, "{paced}");
    assert!(!paced.contains("htb"), "{paced}");
    let conditions = world.hub.get("/v1/personas/p0").body["conditions"].to_string();
    assert!(conditions.contains("QosSimplified") && !conditions.contains("QosPoliced"), "{conditions}");
    assert_eq!(world.hub.get("/v1/status").body["qos_engine"], "edt");
    assert!(world.hub.hubctl(&["status"]).expect_success().contains("edt"));
    let metrics = world.router.sh("curl -s http://127.0.0.1:9178/metrics");
    assert!(metrics.contains("hub_qos_engine{engine=\"edt\"} 1"), "{metrics}");
    assert!(world.hub.log().contains("engine of bandwidths"));
    world.hub.process().kill();
    assert_eq!(queues(&world), paced, "the queues go on without the daemon");
    world.hub.restart();
    assert_eq!(queues(&world), paced, "and are adopted as they are");
    world.router.sh("tc qdisc del dev seg0 root");
    wait_until("the queue is put back", PATIENCE, || queues(&world) == paced);
    world.hub.process().stop();
    world.hub.configure(&config(1, HTB));
    world.hub.restart();
    wait_until("HTB takes over", PATIENCE, || {
        let shown = queues(&world);
        shown.matches("qdisc htb 177: root").count() == 2
            && shown.contains("177:11 ")
            && !shown.contains("fq")
    });
    world.hub.process().stop();
    world.hub.configure(&config(1, EDT));
    world.hub.restart();
    wait_until("fq takes over", PATIENCE, || queues(&world) == paced);
    world.hub.send("DELETE", "/v1/personas/p0", &Value::Null);
    wait_until("the queues are gone", PATIENCE, || queues(&world) == none);
}

#[test]
fn departure_times_keep_bandwidth_and_latency_in_both_families() {
    if !has_fq(true) {
        return;
    }
    let world = World::with(2, EDT);
    // Where everything takes longer, senders pause and timers are late: only what is above tells anything.
    let (least, longest) = if patience() > 1 { (1.0, 250.0) } else { (7.6, 32.0) };
    for number in 0..2 {
        world.create(number, &json!({"qos": {"bandwidth": "8Mbps", "latency": "30ms"}}));
    }
    let quiet = ping(&world.outside, member_at(0, true), 20);
    for v4 in FAMILIES {
        let received = goodput(&world.outside, &world.members[0], member_at(0, v4), 5_301);
        let sent = goodput(&world.members[0], &world.outside, outside_at(v4), 5_302);
        assert!(
            [received, sent].iter().all(|rate| (least..8.4).contains(rate)),
            "{received} and {sent} Mbit/s"
        );
        let (arrived, flooded, other) = std::thread::scope(|scope| {
            let flood = scope.spawn(|| {
                let words = "--udp --bitrate 16M --length 1200 --time 8";
                let end = iperf(&world.outside, &world.members[0], member_at(0, v4), 5_303, words);
                let sum = &end["sum"];
                sum["bits_per_second"].as_f64().unwrap() * (100.0 - sum["lost_percent"].as_f64().unwrap())
                    / 1e8
            });
            std::thread::sleep(Duration::from_secs(2));
            let flooded = ping(&world.outside, member_at(0, v4), 60);
            let other = ping(&world.outside, member_at(1, v4), 20);
            (flood.join().unwrap(), flooded, other)
        });
        let [usual, waited, undisturbed] =
            [(&quiet, 50), (&flooded, 90), (&other, 90)].map(|(times, percent)| quantile(times, percent));
        assert!((least..8.2).contains(&arrived), "{arrived} Mbit/s");
        assert!((10.0..=longest + usual).contains(&waited), "{flooded:?}");
        assert!(other.len() == 20 && undisturbed < waited / 2.0, "{other:?}");
    }
    // What finds no room is a drop of the data path, with its reason.
    assert!(world.dropped("p0", "policed") > 50);
    let all = world.router.sh("tc -s qdisc show dev seg0");
    assert!(all.contains("throttled") && !all.contains("flows_plimit"), "{all}");
}
