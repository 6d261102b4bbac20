//! `POST /v1/trace` and `hubctl trace`: every packet with its verdict, first ones and established ones alike.
#![expect(clippy::unwrap_used, reason = "a helper that cannot go on fails the test that called it")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use hub_tests::lab::world::{FAMILIES, member_at, outside_at};
use hub_tests::lab::{Hub, World, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

/// A trace under way.
struct Trace(BufReader<UnixStream>);

impl Trace {
    /// Begins a trace; when it returns, packets are being looked at.
    fn begin(hub: &Hub, question: &Value) -> Self {
        let mut stream = UnixStream::connect(hub.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let body = question.to_string();
        write!(
            stream,
            "POST /v1/trace HTTP/1.1\r\nhost: hub\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut trace = Self(BufReader::new(stream));
        assert!(trace.line().starts_with("HTTP/1.1 200"), "{question}");
        while !trace.line().is_empty() {}
        trace
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Packets up to the end, and what is said there.
    fn finish(mut self) -> (Vec<Value>, Value) {
        let mut packets = Vec::new();
        let mut name = String::new();
        loop {
            let line = self.line();
            if let Some(event) = line.strip_prefix("event: ") {
                event.clone_into(&mut name);
            } else if let Some(data) = line.strip_prefix("data: ") {
                let data: Value = serde_json::from_str(data).unwrap();
                if name == "end" {
                    return (packets, data);
                }
                packets.push(data);
            }
        }
    }
}

/// Datagrams of one connection from outside.
fn send(world: &World, target: IpAddr, port: u16, datagrams: u16) {
    world.outside.within(|| {
        let any: SocketAddr = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
        let socket = UdpSocket::bind(any).unwrap();
        for _ in 0..datagrams {
            socket.send_to(b"x", (target, port)).unwrap();
            // Slower than the limit of events in one tick.
            std::thread::sleep(Duration::from_millis(2));
        }
    });
}

fn rules() -> Value {
    json!({"security_policies": [
        {"protocol": "tcp", "port": 80, "action": "allow"},
        {"protocol": "udp", "port": 7000, "action": "allow"},
        {"protocol": "udp", "port": 7001, "action": "deny"},
    ]})
}

fn count(packets: &[Value], field: &str, value: &str) -> usize {
    packets.iter().filter(|packet| packet[field] == value).count()
}

#[test]
fn every_packet_is_shown_once_with_its_verdict_and_rule() {
    if !root() {
        return;
    }
    let world = World::new(1);
    world.create(0, &rules());
    // Nobody answers, so that only what is sent here passes.
    world.members[0].sh(
        "nft 'add table inet mute; add chain inet mute out { type filter hook output priority 0; }
              add rule inet mute out icmp type destination-unreachable drop
              add rule inet mute out icmpv6 type destination-unreachable drop'",
    );
    for v4 in FAMILIES {
        let target = member_at(0, v4);
        let trace = Trace::begin(&world.hub, &json!({"persona": "p0", "protocol": "udp", "count": 13}));
        send(&world, target, 7000, 10);
        send(&world, target, 7001, 3);
        let (packets, end) = trace.finish();
        assert_eq!((&end["shown"], &end["lost"]), (&json!(13), &json!(0)), "{end}");
        assert_eq!(end["matched"], 13, "{end}");
        assert_eq!(count(&packets, "connection", "new"), 1, "{packets:#?}");
        assert_eq!(count(&packets, "connection", "established"), 9);
        assert_eq!(count(&packets, "verdict", "drop"), 3);
        for packet in &packets {
            assert_eq!(packet["source"], outside_at(v4).to_string());
            assert_eq!((&packet["target_persona"], &packet["rule_persona"]), (&json!("p0"), &json!("p0")));
            assert_eq!(packet["hook"], "tc_in");
            let denied = packet["target_port"] == 7001;
            assert_eq!(packet["rule"], if denied { 2 } else { 1 }, "{packet:#}");
            let reason = if denied { json!("rule_deny") } else { Value::Null };
            assert_eq!(packet["reason"], reason);
            let verdicts: &[&str] = if denied { &["drop"] } else { &["redirect", "stack"] };
            assert!(verdicts.iter().any(|verdict| packet["verdict"] == *verdict), "{packet:#}");
        }
    }
}

#[test]
fn what_does_not_match_is_left_out_and_traces_end_by_themselves() {
    if !root() {
        return;
    }
    let world = World::new(2);
    world.create(0, &rules());
    world.create(1, &rules());
    let drops = Trace::begin(&world.hub, &json!({"drops": true, "protocol": "udp", "seconds": 2}));
    let other = Trace::begin(&world.hub, &json!({"persona": "p1", "seconds": 2}));
    let narrow =
        json!({"target": format!("{}", member_at(0, true)), "port": 7000, "protocol": "udp", "count": 2});
    let narrow = Trace::begin(&world.hub, &narrow);
    send(&world, member_at(0, true), 7001, 4);
    send(&world, member_at(0, false), 7000, 3);
    send(&world, member_at(0, true), 7000, 2);
    let (packets, end) = narrow.finish();
    assert_eq!((packets.len(), &end["lost"]), (2, &json!(0)));
    let (packets, end) = drops.finish();
    assert_eq!((packets.len(), &end["matched"]), (4, &json!(4)), "{packets:#?}");
    assert!(packets.iter().all(|packet| packet["verdict"] == "drop"));
    let (packets, end) = other.finish();
    assert_eq!((packets.len(), &end["matched"]), (0, &json!(0)), "{packets:#?}");
}

#[test]
fn a_flood_is_capped_and_what_is_not_shown_is_counted() {
    if !root() {
        return;
    }
    let world = World::new(1);
    world.create(0, &rules());
    let trace = Trace::begin(&world.hub, &json!({"persona": "p0", "port": 7001, "seconds": 3}));
    let target = SocketAddr::new(member_at(0, true), 7001);
    world.outside.within(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for _ in 0..20_000 {
            socket.send_to(b"x", target).unwrap();
        }
    });
    let (packets, end) = trace.finish();
    let number = |field: &str| end[field].as_u64().unwrap();
    assert_eq!(world.dropped("p0", "rule_deny"), 20_000);
    assert_eq!(number("matched"), 20_000);
    assert_eq!(number("shown"), packets.len() as u64);
    assert_eq!(number("shown") + number("lost"), 20_000, "{end}");
    assert!(number("lost") > 0 && number("shown") > 0, "{end}");
}

#[test]
fn wrong_questions_name_their_fields_and_slots_come_back() {
    if !root() {
        return;
    }
    let mut world = World::new(1);
    world.create(0, &rules());
    let refused = world.hub.send("POST", "/v1/trace", &json!({"source": "nowhere", "seconds": 0}));
    let problem = refused.expect(422);
    let pointers: Vec<&Value> = problem["errors"].as_array().unwrap().iter().map(|e| &e["pointer"]).collect();
    assert_eq!(pointers, [&json!("/source"), &json!("/seconds")]);
    world.hub.send("POST", "/v1/trace", &json!({"persona": "nobody"})).expect(404);

    let question = json!({"persona": "p0", "seconds": 60});
    let traces: Vec<Trace> = (0..8).map(|_| Trace::begin(&world.hub, &question)).collect();
    world.hub.send("POST", "/v1/trace", &question).expect(503);
    drop(traces);
    // A client that left is noticed when there is something to send.
    wait_until("slots are free again", Duration::from_secs(20), || {
        send(&world, member_at(0, true), 7001, 1);
        world.hub.hubctl(&["trace", "--drops", "--count", "1", "--duration", "1s"]).success()
    });

    // A killed daemon takes its traces with it.
    let _lost = Trace::begin(&world.hub, &question);
    world.hub.process().kill();
    world.hub.restart();
    let traces: Vec<Trace> = (0..8).map(|_| Trace::begin(&world.hub, &question)).collect();
    drop(traces);
}

#[test]
fn hubctl_shows_lines_for_people_and_json_for_programs() {
    if !root() {
        return;
    }
    let world = World::new(1);
    world.create(0, &rules());
    for (form, expected) in [("table", " rule 2 of p0 (api"), ("json", "\"rule_persona\":\"p0\"")] {
        let said = std::thread::scope(|scope| {
            let client = scope.spawn(|| {
                let words =
                    ["trace", "-o", form, "--persona", "p0", "--drops", "-n", "2", "--duration", "10s"];
                world.hub.hubctl(&words).expect_success()
            });
            while !client.is_finished() {
                send(&world, member_at(0, true), 7001, 1);
                std::thread::sleep(Duration::from_millis(20));
            }
            client.join().unwrap()
        });
        assert_eq!(said.lines().count(), 3, "{said}");
        assert!(said.contains(expected), "{said}");
    }
}
