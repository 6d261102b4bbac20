//! A policy changes under load: nothing allowed is lost, nothing forbidden goes on, no packet sees a mix.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hub_tests::lab::Outcome::Silent;
use hub_tests::lab::world::{FAMILIES, member_at};
use hub_tests::lab::{World, echoes, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

/// Replacements of the policy in each test.
const CHANGES: u16 = 50;

fn allow(ports: &Value) -> Value {
    json!([{"protocol": "udp", "port": ports, "action": "allow"}, {"protocol": "tcp", "action": "allow"}])
}

#[test]
fn an_allowed_stream_loses_nothing_over_fifty_changes() {
    if !root() {
        return;
    }
    let world = World::new(1);
    world.create(0, &json!({"security_policies": allow(&json!([5201]))}));
    let mut server = world.members[0].background("iperf3 --server --one-off");
    wait_until("iperf3 listens", Duration::from_secs(5), || {
        world.members[0].succeeds("ss -Hltn 'sport = :5201' | grep -q LISTEN", Duration::from_secs(2))
    });
    let there = member_at(0, true);
    let said = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let script = format!("iperf3 --json --client {there} --udp --bitrate 20M --length 1000 --time 4");
            world.outside.try_sh(&script, Duration::from_secs(20)).expect_success()
        });
        for change in 0..CHANGES {
            let rules = allow(&json!([5201, 6000 + change]));
            world.replace(0, &json!({"security_policies": rules}));
        }
        client.join().unwrap()
    });
    server.stop();
    let report: Value = serde_json::from_str(&said).unwrap();
    let sum = &report["end"]["sum"];
    assert!(sum["packets"].as_u64().unwrap() > 5_000, "{sum:#}");
    assert_eq!(sum["lost_packets"], 0, "{sum:#}");
    let counters = world.hub.get("/v1/personas/p0/counters").expect(200);
    assert_eq!(counters["ingress_dropped"]["packets"], 0, "{counters:#}");
}

#[test]
fn a_forbidden_connection_is_cut_or_preserved_as_the_persona_says() {
    if !root() {
        return;
    }
    let world = World::new(1);
    let _inside = world.members[0].serve(&[80]);
    let rules = |action: &str| json!([{"protocol": "tcp", "port": 80, "action": action}]);
    for v4 in FAMILIES {
        for (established, lives) in [("reevaluate", false), ("preserve", true)] {
            world.hub.send("DELETE", "/v1/personas/p0", &Value::Null);
            world.create(0, &json!({"security_policies": rules("allow")}));
            let mut stream = world.outside.connect(member_at(0, v4), 80);
            assert!(echoes(&mut stream, Duration::from_secs(5)));
            world.replace(0, &json!({"security_policies": rules("deny"), "established": established}));
            let patience = Duration::from_millis(if lives { 5_000 } else { 400 });
            assert_eq!(echoes(&mut stream, patience), lives, "{established}");
            world.outside.expect_tcp(member_at(0, v4), 80, Silent);
        }
    }
    assert!(world.dropped("p0", "rule_deny") > 0);
}

/// Ports 7001 and 7002 take turns at being denied: never both, never none. Flows begin all the time, so
/// every packet asks the rules; one that saw half of each policy would find both open or both closed.
#[test]
fn no_packet_is_judged_by_a_mix_of_two_policies() {
    if !root() {
        return;
    }
    let world = World::new(1);
    let deny = |port: u16| {
        json!({"security_policies": [
            {"protocol": "udp", "port": port, "action": "deny"},
            // Something that both policies say, far from the first rule.
            {"protocol": "udp", "port": [1, 2, 3, 4, 5, 6, 7, 8], "action": "deny"},
            {"protocol": "udp", "port": [7001, 7002, 7003], "action": "allow"},
        ]})
    };
    world.create(0, &deny(7001));
    let arrived: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
    let (sent, done, silent) = (AtomicU64::new(0), AtomicBool::new(false), AtomicBool::new(false));
    let sockets = world.members[0]
        .within(|| [7001_u16, 7002, 7003].map(|port| UdpSocket::bind(("0.0.0.0", port)).unwrap()));
    std::thread::scope(|scope| {
        for (socket, count) in sockets.iter().zip(&arrived) {
            socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            scope.spawn(|| {
                // The sender goes on for a moment after it was told to stop.
                while !silent.load(Ordering::Relaxed) {
                    while socket.recv(&mut [0; 16]).is_ok() {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        scope.spawn(|| {
            let there = |port: u16| SocketAddr::new(member_at(0, true), port);
            while !done.load(Ordering::Relaxed) {
                let socket = world.outside.within(|| UdpSocket::bind("0.0.0.0:0").unwrap());
                for _ in 0..20 {
                    // What a slow receiver has no room for would look like a drop.
                    let behind = |count: u64| sent.load(Ordering::Relaxed).saturating_sub(count) > 60;
                    let load = |at: usize| arrived[at].load(Ordering::Relaxed);
                    while (behind(load(2)) || behind(load(0) + load(1))) && !done.load(Ordering::Relaxed) {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    for port in [7001, 7002, 7003] {
                        socket.send_to(b"x", there(port)).ok();
                    }
                    sent.fetch_add(1, Ordering::Relaxed);
                    std::thread::yield_now();
                }
            }
            silent.store(true, Ordering::Relaxed);
        });
        for change in 0..CHANGES {
            world.replace(0, &deny(7001 + change % 2));
        }
        done.store(true, Ordering::Relaxed);
    });
    let [first, second, third] = arrived.map(AtomicU64::into_inner);
    let sent = sent.into_inner();
    assert!(sent > 1_000 && first > 0 && second > 0, "{sent} {first} {second}");
    // The port that both policies allow is never refused, whichever moment it is.
    assert_eq!(world.dropped("p0", "default_deny") + world.dropped("p0", "no_policy"), 0);
    assert_eq!(third, sent, "a packet to the port that both policies allow was lost");
    // A pair is two packets, and the flip may come between them: at most one per change.
    let off = (first + second).abs_diff(sent);
    assert!(off <= u64::from(CHANGES), "{sent} pairs: {first} + {second} arrived");
}
