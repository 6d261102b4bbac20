//! Detectors end to end: a real scanner is found, honest clients are not.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::time::Duration;

use hub_tests::lab::Outcome::{Answered, Silent};
use hub_tests::lab::world::{FAMILIES, member_at, outside_at};
use hub_tests::lab::{World, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_mins(1);

/// Detectors of member 0's persona that fired, with how often.
fn detections(world: &World) -> Vec<(String, u64)> {
    let counters = world.hub.get("/v1/personas/p0/counters").expect(200);
    let fired = counters["detections"].as_array().unwrap();
    fired
        .iter()
        .map(|one| (one["detector"].as_str().unwrap().to_owned(), one["times"].as_u64().unwrap()))
        .collect()
}

#[test]
fn a_scan_is_reported_once_and_its_source_refused() {
    if !root() {
        return;
    }
    for v4 in FAMILIES {
        let world = World::new(1);
        world.create(
            0,
            &json!({"detectors": {"port_scan": {"threshold": 20, "action": "quarantine", "ttl": "1h"}}}),
        );
        let _service = world.members[0].serve(&[8080]);
        let there = member_at(0, v4);
        world.outside.expect_tcp(there, 8080, Answered);
        let follow = world.hub.folder().join("followed");
        let _follower = world.router.background(&format!(
            "curl --silent --no-buffer --unix-socket {}/api.sock http://hub/v1/events?type=packet \
             --output {}",
            world.hub.folder().display(),
            follow.display()
        ));
        wait_until("the stream is open", PATIENCE, || follow.exists());
        let six = if v4 { "" } else { "-6" };
        let scan = format!("nmap {six} -n -Pn -sS --max-retries 0 -p 1-200 {there}");
        world.outside.try_sh(&scan, PATIENCE).expect_success();
        assert_eq!(detections(&world), [("port_scan".to_owned(), 1)]);
        assert!(world.dropped("p0", "quarantine") >= 100, "the rest of the scan is refused");
        world.outside.expect_tcp(there, 8080, Silent);
        let (answer, passes) = world.why(&format!("udp {} {there} --in up0", outside_at(v4)));
        assert!(!passes && answer["reason"] == "quarantine", "{answer:#}");
        // Its entry stays when no detector puts any more in.
        world.hub.send("PATCH", "/v1/personas/p0", &json!({"detectors": null})).expect(200);
        world.outside.expect_tcp(there, 8080, Silent);
        let here = outside_at(v4);
        let listed = world.hub.get("/v1/personas/p0/quarantine").expect(200);
        assert!(listed.as_array().unwrap().iter().any(|entry| entry["address"] == json!(here)), "{listed:#}");
        world.hub.hubctl(&["persona", "quarantine", "lift", "p0", &here.to_string()]).expect_success();
        wait_until("it is let in", PATIENCE, || {
            world.outside.tcp(there, 8080, Duration::from_millis(500)) == Answered
        });

        let events = || std::fs::read_to_string(&follow).unwrap_or_default();
        wait_until("the event comes", PATIENCE, || events().contains("port_scan"));
        let lines = events();
        let fired: Vec<Value> = lines
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .filter_map(|data| serde_json::from_str(data).ok())
            .filter(|event: &Value| event["action"] == "detect")
            .collect();
        assert_eq!(fired.len(), 1, "{fired:#?}");
        assert_eq!(fired[0]["detector"], "port_scan");
        assert_eq!(fired[0]["response"], "quarantine");
        assert_eq!(fired[0]["source"], outside_at(v4).to_string());
        assert_eq!(fired[0]["target_persona"], "p0");
    }
}

#[test]
fn other_scans_of_a_real_scanner_are_found() {
    if !root() {
        return;
    }
    let world = World::new(1);
    world.create(
        0,
        &json!({
            "ip_range": ["10.100.0.0/24", "fd00:100:0::/64"],
            "detectors": {"port_scan": {}, "host_sweep": {"threshold": 30}, "tcp_flags": {}},
        }),
    );
    let there = member_at(0, true);
    // FIN has no flow, Xmas and NULL have flags that no stack sends.
    for (kind, fired) in [("-sF", "port_scan"), ("-sN", "tcp_flags"), ("-sU", "port_scan")] {
        let before = detections(&world).iter().find(|one| one.0 == fired).map_or(0, |one| one.1);
        let scan = format!("nmap -n -Pn {kind} --max-retries 0 --min-rate 500 -p 2000-2100 {there}");
        world.outside.try_sh(&scan, PATIENCE).expect_success();
        let after = detections(&world).iter().find(|one| one.0 == fired).map_or(0, |one| one.1);
        // Windows of ten seconds: the scan before may hide this one in its own.
        assert!(after > before || (kind == "-sU" && before > 0), "{kind}: {:?}", detections(&world));
    }
    world.outside.try_sh("nmap -n -sn -PS80 --max-retries 0 10.100.0.0/25", PATIENCE).expect_success();
    assert!(detections(&world).iter().any(|(name, _)| name == "host_sweep"), "{:?}", detections(&world));
}

#[test]
fn honest_clients_set_off_nothing() {
    if !root() {
        return;
    }
    let world = World::new(1);
    world.create(0, &json!({"detectors": "default"}));
    let page = world.lab.folder().join("page");
    let head = "HTTP/1.0 200 OK\r\nContent-Length: 200000\r\n\r\n";
    std::fs::write(&page, [head.as_bytes(), &vec![b'x'; 200_000]].concat()).unwrap();
    // A request ends with an empty line.
    let answer =
        format!(r#"while read -r line && [ "${{#line}}" -gt 1 ]; do :; done; cat {}"#, page.display());
    let script = world.lab.folder().join("answer");
    std::fs::write(&script, answer).unwrap();
    let _pages = world.members[0].background(&format!(
        "socat TCP6-LISTEN:8000,fork,reuseaddr,ipv6only=0,backlog=64 'EXEC:sh {}'",
        script.display()
    ));
    let _perf = world.members[0].background("iperf3 --server --port 5201");
    for v4 in FAMILIES {
        let there = member_at(0, v4);
        let name = if v4 { there.to_string() } else { format!("[{there}]") };
        let fetch = format!("curl --silent --fail --globoff --output /dev/null http://{name}:8000/page");
        wait_until("the page is served", PATIENCE, || world.outside.succeeds(&fetch, PATIENCE));
        world
            .outside
            .try_sh(&format!("for n in $(seq 60); do {fetch} || exit 1; done"), PATIENCE)
            .expect_success();
        // One that has business with many members.
        for number in 100..150 {
            let (other, length) = if v4 {
                (format!("10.100.0.{number}"), "32")
            } else {
                (format!("fd00:100:0::{number}"), "128")
            };
            let option = if v4 { "" } else { " nodad" };
            let address = |verb, option| {
                world.members[0].sh(&format!("ip address {verb} {other}/{length} dev eth0{option}"));
            };
            address("add", option);
            let name = if v4 { other.clone() } else { format!("[{other}]") };
            let fetch = format!("curl --silent --fail --globoff --output /dev/null http://{name}:8000/page");
            world.outside.try_sh(&fetch, PATIENCE).expect_success();
            // Servers of UDP would answer from it.
            address("del", "");
        }
        for mode in ["", "--reverse", "--udp --bitrate 50M", "--parallel 8"] {
            let perf = format!("iperf3 --client {there} --port 5201 --time 1 {mode}");
            world.outside.try_sh(&perf, PATIENCE).expect_success();
        }
        world.outside.try_sh(&format!("ping -q -n -c 50 -i 0.02 {there}"), PATIENCE).expect_success();
        world.outside.try_sh(&format!("ping -q -n -c 20 -i 0.02 -s 4000 {there}"), PATIENCE).expect_success();
    }
    for v4 in FAMILIES {
        let there = outside_at(v4);
        world.members[0].try_sh(&format!("ping -q -n -c 50 -i 0.02 {there}"), PATIENCE).expect_success();
    }
    assert_eq!(detections(&world), []);
    let counters = world.hub.get("/v1/personas/p0/counters").expect(200);
    assert!(counters["flows"]["ingress"].as_u64().unwrap() > 120, "they were looked at: {counters:#}");
}

#[test]
fn detectors_are_changed_and_outlive_the_daemon() {
    if !root() {
        return;
    }
    let mut world = World::new(1);
    let few = json!({"detectors": {"flow_rate": {"threshold": 10, "window": "1h", "action": "drop"}}});
    world.create(0, &few);
    let there = member_at(0, true);
    let knock = |world: &World| {
        let knocks = "for n in $(seq 15); do nc -u -w 0 10.100.0.10 $((3000 + n)) < /dev/null; \
                      echo x > /dev/udp/10.100.0.10/4000; done";
        world.outside.try_sh(&format!("bash -c '{knocks}'"), PATIENCE).expect_success();
    };
    knock(&world);
    assert_eq!(detections(&world), [("flow_rate".to_owned(), 1)]);
    assert!(world.dropped("p0", "flow_rate") >= 3);
    world.hub.process().kill();
    world.hub.restart();
    assert_eq!(detections(&world), [("flow_rate".to_owned(), 1)], "what was counted stays");
    world.outside.expect_ping(there, Silent);
    world.replace(0, &json!({}));
    world.outside.expect_ping(there, Answered);
    let refused = world.hub.send(
        "PUT",
        "/v1/personas/p0",
        &World::definition(0, &json!({"detectors": {"spoof": {"action": "drop"}}})),
    );
    assert_eq!(refused.expect(422)["errors"][0]["pointer"], "/detectors/spoof/action");
}
