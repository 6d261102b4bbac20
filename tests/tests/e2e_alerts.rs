//! Alerts end to end: real traffic crosses a threshold, and everybody who should know is told once.
#![expect(clippy::unwrap_used, reason = "a helper that cannot go on fails the test that called it")]

use std::cell::RefCell;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use hub_tests::lab::Outcome::{Answered, Silent};
use hub_tests::lab::world::{FAMILIES, member_at, outside_at};
use hub_tests::lab::{Background, World, command, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);
const SECRET: &str = "not so secret";

/// What a webhook took: body and signature, in order.
struct Sent {
    from: mpsc::Receiver<(String, String)>,
    taken: RefCell<Vec<(String, String)>>,
}

/// Takes alerts on a port of the hub's own namespace; the first try of each is refused.
fn receiver(world: &World) -> Sent {
    let listener = world.router.within(|| TcpListener::bind("127.0.0.1:9999").unwrap());
    let (to, from) = mpsc::channel();
    let mut seen: Vec<String> = Vec::new();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let (mut length, mut signature, mut line) = (0, String::new(), String::new());
            while stream.read_line(&mut line).unwrap_or(0) > 2 {
                let lower = line.trim().to_lowercase();
                if let Some(value) = lower.strip_prefix("content-length: ") {
                    length = value.parse().unwrap();
                } else if let Some(value) = lower.strip_prefix("x-hub-signature-256: ") {
                    value.clone_into(&mut signature);
                }
                line.clear();
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            let body = String::from_utf8(body).unwrap();
            let again = seen.contains(&body);
            let status = if again { 200 } else { 503 };
            stream
                .get_mut()
                .write_all(format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n").as_bytes())
                .unwrap();
            if again {
                // The test may be over.
                to.send((body, signature)).ok();
            } else {
                seen.push(body);
            }
        }
    });
    Sent { from, taken: RefCell::default() }
}

/// Alerts that the receiver took, in order.
fn taken(sent: &Sent) -> Vec<(String, String)> {
    sent.taken.borrow_mut().extend(sent.from.try_iter());
    sent.taken.borrow().clone()
}

/// Sends datagrams to member 0 until it is dropped, some 400 a second in both families.
struct Flood(Arc<AtomicBool>);

impl Flood {
    fn start(world: &World) -> Self {
        let going = Arc::new(AtomicBool::new(true));
        let sockets = world.outside.within(|| {
            FAMILIES.map(|v4| {
                let socket = UdpSocket::bind((outside_at(v4), 0)).unwrap();
                socket.connect((member_at(0, v4), 9)).unwrap();
                socket
            })
        });
        let go_on = Arc::clone(&going);
        std::thread::spawn(move || {
            while go_on.load(Ordering::Relaxed) {
                for socket in &sockets {
                    // Refused by the member while it passes; that is no matter here.
                    socket.send(&[0; 500]).ok();
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self(going)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

fn state(world: &World, alert: &str) -> String {
    let alerts = world.hub.get("/v1/alerts").expect(200);
    let found = alerts.as_array().unwrap().iter().find(|one| one["alert"] == alert);
    found.map_or_else(String::new, |one| one["state"].as_str().unwrap().to_owned())
}

fn firing(world: &World, labels: &str) -> Option<String> {
    let text = world.router.sh("curl --silent --fail http://127.0.0.1:9178/metrics");
    let line = text.lines().find(|line| line.starts_with(&format!("hub_alert_firing{{{labels}}}")))?;
    line.split_whitespace().last().map(str::to_owned)
}

#[test]
fn a_crossed_threshold_is_told_once_and_so_is_its_end() {
    if !root() {
        return;
    }
    let secret = std::env::temp_dir().join(format!("hubtest-secret-{}", std::process::id()));
    std::fs::write(&secret, SECRET).unwrap();
    let hooks = format!(
        "webhooks:\n  - url: http://127.0.0.1:9999/alerts\n    secret_file: {}\n\
         alerts:\n  - {{name: all, metric: ingress_pps, value: 20, clear: 5}}\n",
        secret.display()
    );
    let mut world = World::with(1, &hooks);
    let sent = receiver(&world);
    world.create(
        0,
        &json!({"alerts": [
            {"name": "busy", "metric": "ingress_bps", "value": "80kbps", "clear": "20kbps", "for": "2s"},
            {"name": "never", "metric": "drops", "value": 1_000_000},
        ]}),
    );
    let log = world.lab.folder().join("followed");
    let follow = format!(
        "curl --silent --no-buffer --unix-socket {}/api.sock http://hub/v1/events?type=alert --output {}",
        world.hub.folder().display(),
        log.display()
    );
    let follower: Background = world.router.background(&follow);
    wait_until("the stream is open", PATIENCE, || log.exists());
    wait_until("alerts are looked at", PATIENCE, || state(&world, "busy") == "ok");

    let flood = Flood::start(&world);
    wait_until("it is pending first", PATIENCE, || state(&world, "busy") == "pending");
    wait_until("it fires", PATIENCE, || state(&world, "busy") == "firing");
    assert_eq!(firing(&world, r#"persona="p0",alert="busy""#).as_deref(), Some("1"));
    assert_eq!(firing(&world, r#"persona="p0",alert="never""#).as_deref(), Some("0"));
    assert_eq!(firing(&world, r#"persona="",alert="all""#).as_deref(), Some("1"));
    wait_until("the webhook took both", PATIENCE, || taken(&sent).len() == 2);
    wait_until("the stream has both", PATIENCE, || {
        std::fs::read_to_string(&log).unwrap().matches("event: alert").count() == 2
    });
    let listed = world.hub.hubctl(&["alerts"]).expect_success();
    assert!(
        listed.contains("busy") && listed.contains("firing") && listed.contains("ingress_bps > 80000"),
        "{listed}"
    );

    drop(follower);
    world.hub.process().kill();
    world.hub.restart();
    wait_until("it fires still", PATIENCE, || state(&world, "busy") == "firing");
    let looks = |world: &World| world.hub.get("/v1/alerts").expect(200)[1]["value"].clone();
    wait_until("it has looked again", PATIENCE, || looks(&world).is_number());
    drop(flood);
    wait_until("it ends", PATIENCE, || state(&world, "busy") == "resolved");
    wait_until("the webhook took the ends", PATIENCE, || taken(&sent).len() == 4);
    let told: Vec<(String, String)> = taken(&sent)
        .iter()
        .map(|(body, _)| serde_json::from_str::<Value>(body).unwrap())
        .map(|body| (body["alert"].as_str().unwrap().into(), body["state"].as_str().unwrap().into()))
        .collect();
    for alert in ["busy", "all"] {
        let states: Vec<&str> = told.iter().filter(|one| one.0 == alert).map(|one| one.1.as_str()).collect();
        assert_eq!(states, ["firing", "resolved"], "{told:?}");
    }
    for (body, signature) in taken(&sent) {
        assert_eq!(signature, signed(&body), "{body}");
    }
    std::fs::remove_file(secret).unwrap();
}

/// The signature as another program makes it.
fn signed(body: &str) -> String {
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(["dgst", "-sha256", "-hmac", SECRET, "-r"]);
    let said = command(&mut openssl, body, PATIENCE).expect_success();
    format!("sha256={}", said.split_whitespace().next().unwrap())
}

#[test]
fn detections_and_drops_are_watched_and_bad_thresholds_are_refused() {
    if !root() {
        return;
    }
    let world = World::new(1);
    let rule = json!([{"protocol": "udp", "port": 9, "action": "deny"}]);
    world.create(
        0,
        &json!({
            "security_policies": rule,
            "detectors": {"flow_rate": {"threshold": 5, "window": "1h"}},
            "alerts": [
                {"name": "refused", "metric": "drops", "of": "rule_deny", "value": 10},
                {"name": "rule", "metric": "rule_hits", "of": 0, "value": 10},
                {"name": "attack", "metric": "detections", "of": "flow_rate", "op": ">=", "value": 1},
            ],
        }),
    );
    wait_until("alerts are looked at", PATIENCE, || state(&world, "attack") == "ok");
    let flood = Flood::start(&world);
    for alert in ["refused", "rule", "attack"] {
        wait_until(alert, PATIENCE, || state(&world, alert) == "firing");
    }
    drop(flood);
    let log = world.hub.log();
    let told = log.lines().filter(|line| line.contains("WARN") && line.contains("alert=\"refused\""));
    assert_eq!(told.count(), 1, "once, while it fires: {log}");
    wait_until("drops end", PATIENCE, || state(&world, "refused") == "resolved");
    assert_eq!(state(&world, "attack"), "firing", "detections count for a minute");
    let bad = World::definition(0, &json!({"alerts": [{"metric": "drops", "of": "fate", "value": 1}]}));
    let refused = world.hub.send("PUT", "/v1/personas/p0", &bad).expect(422);
    assert_eq!(refused["errors"][0]["pointer"], "/alerts/0/of", "{refused:#}");
    world.hub.request("DELETE", "/v1/personas/p0", &[], "");
    wait_until("alerts go with their persona", PATIENCE, || {
        world.hub.get("/v1/alerts").expect(200).as_array().unwrap().is_empty()
    });
    assert!(world.hub.log().contains("watched no more"));
}

#[test]
fn a_rule_raises_an_alert_whatever_is_decided_behind_it() {
    if !root() {
        return;
    }
    let world = World::new(1);
    let _server = world.members[0].serve(&[80]);
    let rules = json!([
        {"name": "telnet-tried", "protocol": "tcp", "port": 23, "action": "alert"},
        {"name": "anything", "protocol": "tcp", "action": "log"},
        {"protocol": "tcp", "port": [80, "8000-8010"], "source": ["0.0.0.0/0", "192.0.2.0/24", "::/0"], "action": "alert"},
        {"name": "never", "protocol": "udp", "port": 9, "action": "alert"},
        {"protocol": "tcp", "port": 80, "action": "allow"},
    ]);
    world.create(0, &json!({"security_policies": rules}));
    let log = world.lab.folder().join("followed");
    let _follower: Background = world.router.background(&format!(
        "curl --silent --no-buffer --unix-socket {} http://hub/v1/events?type=alert --output {}",
        world.hub.socket().display(),
        log.display()
    ));
    for alert in ["telnet-tried", "rule-2", "never"] {
        wait_until("alerts are looked at", PATIENCE, || state(&world, alert) == "ok");
    }
    let looked = |world: &World| {
        let alerts = world.hub.get("/v1/alerts").expect(200);
        alerts.as_array().unwrap().iter().all(|alert| alert["value"].is_number())
    };
    wait_until("there are values", PATIENCE, || looked(&world));
    for v4 in FAMILIES {
        world.outside.expect_tcp(member_at(0, v4), 23, Silent);
    }
    wait_until("the refused one fires", PATIENCE, || state(&world, "telnet-tried") == "firing");
    assert_eq!(state(&world, "rule-2"), "ok", "nobody tried that one");
    for v4 in FAMILIES {
        world.outside.expect_tcp(member_at(0, v4), 80, Answered);
    }
    wait_until("the allowed one fires", PATIENCE, || state(&world, "rule-2") == "firing");
    assert_eq!(firing(&world, r#"persona="p0",alert="telnet-tried""#).as_deref(), Some("1"));
    assert_eq!(firing(&world, r#"persona="p0",alert="never""#).as_deref(), Some("0"));
    let counters = world.hub.get("/v1/personas/p0/counters").expect(200);
    let hits = |rule: u64| {
        let all = counters["rules"].as_array().unwrap();
        all.iter().find(|one| one["rule"] == rule).unwrap()["packets"].as_u64().unwrap()
    };
    assert!(hits(0) >= 2, "{counters:#}");
    assert_eq!(
        (hits(2), hits(4), hits(3)),
        (2, 2, 0),
        "a packet that two prefixes match is one: {counters:#}"
    );
    assert_eq!(hits(1), hits(0) + 2, "every reporting rule counts what it matched: {counters:#}");
    // More of the same tells nothing more, nor does an edit that moves the rule.
    let mut moved = rules.as_array().unwrap().clone();
    moved.insert(0, json!({"protocol": "tcp", "port": 25, "action": "deny"}));
    world.replace(0, &json!({"security_policies": moved}));
    world.outside.expect_tcp(member_at(0, true), 23, Silent);
    let value = || {
        let alerts = world.hub.get("/v1/alerts").expect(200);
        let all = alerts.as_array().unwrap().clone();
        all.into_iter().find(|one| one["alert"] == "telnet-tried").unwrap()
    };
    wait_until("it is looked at", PATIENCE, || {
        value()["of"] == "1" && value()["value"].as_f64() >= Some(3.0)
    });
    let told = std::fs::read_to_string(&log).unwrap();
    let telnet: Vec<&str> = told.lines().filter(|line| line.contains("telnet-tried")).collect();
    assert_eq!(telnet.len(), 1, "{told}");
    assert!(telnet[0].contains("\"state\":\"firing\"") && telnet[0].contains("within a minute"), "{told}");
    let twice = World::definition(0, &json!({"security_policies": [rules[0], rules[0]]}));
    let refused = world.hub.send("PUT", "/v1/personas/p0", &twice).expect(422);
    assert_eq!(refused["errors"][0]["pointer"], "/security_policies/1/name", "{refused:#}");
}
