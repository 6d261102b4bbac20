//! Bandwidth and latency by departure times, where the kernel has `fq`; and what is said where it has not.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::fmt::Write as _;
use std::time::Duration;

use hub_tests::effort::figure;
use hub_tests::lab::speed::{arrived, goodput, is_within, ping, quantile};
use hub_tests::lab::world::{FAMILIES, member_at, outside_at};
use hub_tests::lab::{Config, Lab, World, patience, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

const EDT: &str = "qos: {engine: edt}";
const HTB: &str = "qos: {engine: htb}";
const AUTO: &str = "qos: {engine: auto}";
/// Personas for which HTB has a class.
const HTB_CLASSES: usize = 4_095;
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether the kernel has `fq`.
fn finds_fq() -> bool {
    Lab::new().space("probe").succeeds("tc qdisc add dev lo root fq", PATIENCE)
}

/// Whether the kernel has `fq` or not, as a test wants it. Says so when the test does not apply.
#[expect(clippy::print_stderr, reason = "the reader of the test's output is told what was left out")]
fn has_fq(wanted: bool) -> bool {
    if !root() {
        return false;
    }
    let found = finds_fq();
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
fn auto_chooses_by_how_many_personas_have_a_bandwidth() {
    if !root() {
        return;
    }
    let with = finds_fq();
    let mut world = World::with(1, AUTO);
    assert_eq!(world.hub.get("/v1/status").body["qos_engine"], "htb");
    for (limited, chosen) in [(HTB_CLASSES + 1, if with { "edt" } else { "htb" }), (HTB_CLASSES, "htb")] {
        world.hub.process().stop();
        let mut yaml = String::new();
        for number in 0..=HTB_CLASSES {
            let (high, low, police) = (64 + number / 256, number % 256, number >= limited);
            writeln!(
                yaml,
                "---\nkind: persona\nname: b{number}\nip_range: 10.{high}.{low}.0/24\n\
                 qos: {{bandwidth: 1Mbps, police: {police}}}"
            )
            .unwrap();
        }
        std::fs::write(world.hub.documents().join("many.yaml"), yaml).unwrap();
        // It says so long before thousands of queues are made.
        world.hub.launch();
        wait_until("the hub answers", PATIENCE, || world.hub.hubctl(&["status"]).success());
        assert_eq!(world.hub.get("/v1/status").body["qos_engine"], chosen, "{limited}");
        let warnings = world.hub.log().matches("more personas have a bandwidth than HTB has classes").count();
        assert_eq!(warnings, usize::from(!with), "{limited}");
    }
}

/// Bandwidth of a persona in megabits per second, and the latency that goes with it in milliseconds: room for twenty
/// packets of full length and more, which one TCP needs to keep its rate.
const PACES: [(f64, f64); 2] = [(5.0, 50.0), (2.0, 120.0)];
/// How far a rate may be from what it should be, in percent.
const CLOSE: f64 = 5.0;
/// What a ping may take beyond the latency and what it takes on a hub that is idle, in milliseconds.
const GRACE_MS: f64 = 2.0;

/// Whether time is even: it is on a machine, and in emulated ones where it passes by instructions. Elsewhere senders
/// pause and timers are late, so that only what is too fast tells anything.
fn is_even() -> bool {
    patience() == 1 || std::env::var_os("HUB_TEST_EVEN").is_some()
}

/// Megabits per second of packets of this length at most, of a bandwidth of what IP carries in packets of 1500 bytes.
fn share(bandwidth: f64, payload: f64, packet: f64) -> f64 {
    bandwidth * 1_500.0 / 1_480.0 * payload / packet
}

/// Fails unless a rate is what it should be; a machine that stands still loses time, and never makes anything faster.
#[track_caller]
fn expect_rate(what: &str, rate: f64, wanted: f64) {
    figure("EDT", &format!("{what}: {rate:.3} of {wanted:.3} Mbit/s"));
    assert!(rate < wanted * (1.0 + CLOSE / 100.0), "{what}: {rate} of {wanted} Mbit/s is too much");
    assert!(!is_even() || is_within(rate, wanted, CLOSE), "{what}: {rate} of {wanted} Mbit/s");
}

#[test]
fn departure_times_keep_bandwidth_and_latency_in_both_families() {
    if !has_fq(true) {
        return;
    }
    let world = World::with(2, EDT);
    world.create(0, &json!({}));
    world.create(1, &json!({}));
    for (bandwidth, latency_ms) in PACES {
        let qos =
            json!({"qos": {"bandwidth": format!("{bandwidth}Mbps"), "latency": format!("{latency_ms}ms")}});
        world.replace(0, &qos);
        world.replace(1, &qos);
        for v4 in FAMILIES {
            let quiet = ping(&world.outside, member_at(0, v4), 40);
            let (arrived, flooded, other) = flood(&world, bandwidth, v4);
            expect_rate(
                "UDP at twice the rate",
                arrived,
                share(bandwidth, 1_200.0, if v4 { 1_228.0 } else { 1_248.0 }),
            );
            judge_waits(&quiet, &flooded, &other, latency_ms);
            let segment = if v4 { 1_448.0 } else { 1_428.0 };
            let wanted = share(bandwidth, segment, 1_500.0);
            let received = goodput(&world.outside, &world.members[0], member_at(0, v4), 5_301);
            expect_rate("TCP towards a member", received, wanted);
            let sent = goodput(&world.members[0], &world.outside, outside_at(v4), 5_302);
            expect_rate("TCP from a member", sent, wanted);
        }
    }
    // What finds no room is a drop of the data path, with its reason.
    assert!(world.dropped("p0", "policed") > 50);
    let all = world.router.sh("tc -s qdisc show dev seg0");
    assert!(all.contains("throttled") && !all.contains("flows_plimit"), "{all}");
}

/// Floods the first member with twice its rate: megabits per second that arrive, and what pings to it and to another
/// persona take meanwhile.
fn flood(world: &World, bandwidth: f64, v4: bool) -> (f64, Vec<f64>, Vec<f64>) {
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let words = format!("--udp --bitrate {}M --length 1200 --time 10", 2.0 * bandwidth);
            arrived(&world.outside, &world.members[0], member_at(0, v4), 5_303, &words)
        });
        std::thread::sleep(Duration::from_secs(2));
        let flooded = ping(&world.outside, member_at(0, v4), 60);
        let other = ping(&world.outside, member_at(1, v4), 20);
        (flood.join().unwrap(), flooded, other)
    })
}

/// Fails unless pings wait behind a flood, for no longer than the latency, and others do not.
#[track_caller]
fn judge_waits(quiet: &[f64], flooded: &[f64], other: &[f64], latency_ms: f64) {
    // The emulated machine is late by itself: by how much, a hub that is idle shows.
    let (usual, late) = (quantile(quiet, 50), quantile(quiet, 90));
    let (waited, undisturbed) = (quantile(flooded, 90), quantile(other, 90));
    figure(
        "EDT",
        &format!(
            "pings in ms: idle {usual} to {late}, flooded {waited} of {latency_ms}, another's {undisturbed}"
        ),
    );
    let most = latency_ms + late + if is_even() { GRACE_MS } else { 200.0 };
    assert!(waited <= most, "more than {most} ms: {flooded:?}, idle {quiet:?}");
    assert!(waited >= latency_ms / 2.0, "nothing waits: {flooded:?}");
    assert!(other.len() == 20 && undisturbed < waited / 2.0, "{other:?}");
}
