//! A candidate policy is judged on the same packets as the live one, counted exactly, and decides nothing.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use hub_tests::lab::Outcome::Answered;
use hub_tests::lab::world::{FAMILIES, member_at, outside_at};
use hub_tests::lab::{World, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

const CANDIDATE: &str = "/v1/personas/p0/candidate";

fn live() -> Value {
    json!({"security_policies": [
        {"protocol": "udp", "port": 7000, "action": "allow"},
        {"protocol": "udp", "port": 7001, "action": "deny"},
        {"protocol": "tcp", "port": 80, "action": "allow"},
    ]})
}

fn candidate() -> Value {
    World::definition(
        0,
        &json!({"security_policies": [
            {"protocol": "udp", "port": 7001, "action": "allow"},
            {"protocol": "udp", "port": 7000, "action": "deny"},
            {"protocol": "tcp", "port": 80, "action": "allow"},
            {"protocol": "udp", "port": 7002, "action": "reject"},
        ]}),
    )
}

/// A connection from outside.
struct Sender {
    socket: UdpSocket,
    target: SocketAddr,
}

impl Sender {
    fn new(world: &World, v4: bool, port: u16) -> Self {
        let any: SocketAddr = if v4 { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
        let socket = world.outside.within(|| UdpSocket::bind(any).unwrap());
        Self { socket, target: SocketAddr::new(member_at(0, v4), port) }
    }

    fn send(&self, datagrams: usize) {
        for _ in 0..datagrams {
            self.socket.send_to(b"x", self.target).unwrap();
        }
    }
}

fn begin(world: &World, time: &str) {
    world.hub.send("PUT", &format!("{CANDIDATE}?for={time}"), &candidate()).expect(200);
}

fn report(world: &World) -> Value {
    world.hub.get(CANDIDATE).expect(200)
}

/// Waits until this many judgements were counted, and shows them.
fn judged(world: &World, count: u64) -> Value {
    wait_until(&format!("{count} judgements"), Duration::from_secs(10), || report(world)["judged"] == count);
    report(world)
}

/// Packets judged one way by rule `live` and another by rule `candidate`.
fn differing(report: &Value, live: &Value, candidate: &Value) -> u64 {
    let fits = |difference: &&Value| {
        difference["live"]["rule"] == *live && difference["candidate"]["rule"] == *candidate
    };
    let all = report["differences"].as_array().unwrap();
    all.iter().filter(fits).map(|difference| difference["packets"].as_u64().unwrap()).sum()
}

#[test]
fn differences_are_counted_exactly_and_no_verdict_changes() {
    if !root() {
        return;
    }
    let world = World::new(1);
    world.create(0, &live());
    let _server = world.members[0].serve(&[80]);
    for v4 in FAMILIES {
        let old = Sender::new(&world, v4, 7000);
        old.send(5);
        let dropped = |reason: &str| world.dropped("p0", reason);
        let (denied, by_default, rejected) =
            (dropped("rule_deny"), dropped("default_deny"), dropped("rule_reject"));
        begin(&world, "60s");
        assert_eq!(report(&world)["judged"], 0, "another trial begins at zero");
        // A live connection is judged once, new ones once each.
        old.send(5);
        for _ in 0..3 {
            Sender::new(&world, v4, 7000).send(2);
        }
        // What is dropped asks rules every time.
        Sender::new(&world, v4, 7001).send(4);
        Sender::new(&world, v4, 7002).send(2);
        for _ in 0..2 {
            world.outside.expect_tcp(member_at(0, v4), 80, Answered);
        }
        let report = judged(&world, 12);
        assert_eq!((&report["agreed"], &report["lost"]), (&json!(2), &json!(0)), "{report:#}");
        assert_eq!(differing(&report, &json!(0), &json!(1)), 4, "{report:#}");
        assert_eq!(differing(&report, &json!(1), &json!(0)), 4, "{report:#}");
        assert_eq!(differing(&report, &Value::Null, &json!(3)), 2, "{report:#}");
        assert_eq!(report["differences"].as_array().unwrap().len(), 3);
        for difference in report["differences"].as_array().unwrap() {
            assert_eq!(difference["direction"], "ingress");
            let sample = &difference["samples"][0];
            assert_eq!(sample["source"], outside_at(v4).to_string());
            assert_eq!(sample["target"], member_at(0, v4).to_string());
        }
        let verdicts = |rule: u64| {
            let found = report["differences"].as_array().unwrap().iter();
            let found = found.filter(|d| d["candidate"]["rule"] == rule);
            found.map(|d| (d["live"]["verdict"].clone(), d["candidate"]["verdict"].clone())).next().unwrap()
        };
        assert_eq!(verdicts(1), (json!("pass"), json!("drop")));
        assert_eq!(verdicts(0), (json!("drop"), json!("pass")));
        assert_eq!(verdicts(3), (json!("drop"), json!("reject")));
        // What became of the packets is what the live policy says.
        assert_eq!(dropped("rule_deny") - denied, 4);
        assert_eq!(dropped("default_deny") - by_default, 2);
        assert_eq!(dropped("rule_reject") - rejected, 0);
    }
}

#[test]
fn an_equal_candidate_has_no_differences_and_egress_is_judged_too() {
    if !root() {
        return;
    }
    let world = World::new(1);
    world.create(0, &live());
    let same = World::definition(0, &live());
    world.hub.send("PUT", &format!("{CANDIDATE}?for=60s"), &same).expect(200);
    Sender::new(&world, true, 7001).send(3);
    let outward = world.members[0].within(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    for _ in 0..3 {
        outward.send_to(b"x", (outside_at(true), 9)).unwrap();
    }
    // Three dropped, and one connection from the member.
    let report = judged(&world, 4);
    assert_eq!(report["agreed"], 4, "{report:#}");
    assert_eq!(report["differences"], json!([]));
}

#[test]
fn a_trial_ends_by_itself_survives_a_crash_and_is_accepted() {
    if !root() {
        return;
    }
    let mut world = World::new(1);
    world.create(0, &live());
    begin(&world, "2s");
    Sender::new(&world, true, 7001).send(1);
    judged(&world, 1);
    wait_until("the trial is over", Duration::from_secs(10), || report(&world)["running"] == false);
    std::thread::sleep(Duration::from_millis(300));
    Sender::new(&world, true, 7001).send(3);
    wait_until("they are dropped", Duration::from_secs(5), || world.dropped("p0", "rule_deny") == 4);
    assert_eq!(report(&world)["judged"], 1, "nothing is judged after the end");

    begin(&world, "10m");
    Sender::new(&world, false, 7001).send(2);
    judged(&world, 2);
    world.hub.process().kill();
    Sender::new(&world, false, 7001).send(2);
    world.hub.restart();
    wait_until("the restarted daemon has a pass behind it", Duration::from_secs(10), || {
        world.hub.get("/v1/status").body["reconciled_at"].is_string()
    });
    Sender::new(&world, false, 7001).send(2);
    let kept = judged(&world, 6);
    assert_eq!((&kept["running"], differing(&kept, &json!(1), &json!(0))), (&json!(true), 6), "{kept:#}");

    let shown = world.hub.hubctl(&["persona", "try", "--persona", "p0"]).expect_success();
    assert!(shown.contains("6 judged") && shown.contains("pass by rule 0"), "{shown}");
    world.hub.hubctl(&["persona", "try", "--persona", "p0", "--accept"]).expect_success();
    world.hub.get(CANDIDATE).expect(404);
    let before = world.dropped("p0", "rule_deny");
    Sender::new(&world, true, 7001).send(3);
    Sender::new(&world, true, 7000).send(2);
    wait_until("the candidate is live", Duration::from_secs(5), || {
        world.dropped("p0", "rule_deny") == before + 2
    });
}

#[test]
fn hubctl_tries_a_file_and_a_wrong_one_changes_nothing() {
    if !root() {
        return;
    }
    let world = World::new(1);
    let view = world.create(0, &live());
    let file = world.lab.folder().join("candidate.yaml");
    let write = |document: &Value| std::fs::write(&file, serde_json::to_string(document).unwrap()).unwrap();
    let name = file.display().to_string();
    write(&World::definition(0, &json!({"ip_range": "10.9.0.0/24"})));
    let refused = world.hub.hubctl(&["persona", "try", &name]);
    assert_eq!(refused.status.unwrap().code(), Some(5), "{}", refused.stderr);
    assert!(refused.stderr.contains("/ip_range"), "{}", refused.stderr);
    world.hub.get(CANDIDATE).expect(404);
    write(&candidate());
    let sender = Sender::new(&world, true, 7001);
    let said = std::thread::scope(|scope| {
        let trial =
            scope.spawn(|| world.hub.hubctl(&["persona", "try", &name, "--for", "3s"]).expect_success());
        wait_until("the trial runs", Duration::from_secs(10), || world.hub.get(CANDIDATE).status == 200);
        sender.send(7);
        trial.join().unwrap()
    });
    assert!(said.contains("7 judged, 0 alike, 7 different"), "{said}");
    assert_eq!(world.hub.get("/v1/personas/p0").body["definition"], view["definition"]);
}
