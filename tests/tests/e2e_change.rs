//! A policy changes under load: nothing allowed is lost, nothing forbidden goes on, no packet sees a mix.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::io::Write as _;
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hub_tests::lab::Outcome::Silent;
use hub_tests::lab::world::{FAMILIES, member_at};
use hub_tests::lab::{Stream, World, echoes, patience, wait_until, wall_ns};
use hub_tests::root;
use serde_json::{Value, json};

/// Replacements of the policy in each test.
const CHANGES: u16 = 100;

fn allow(ports: &Value) -> Value {
    json!([{"protocol": "udp", "port": ports, "action": "allow"}, {"protocol": "tcp", "action": "allow"}])
}

/// Datagrams to a port that reached the member, by its own count.
fn arrived(world: &World, port: u16) -> u64 {
    let listed = world.members[0].sh("nft list chain inet count in");
    let line = listed.lines().find(|line| line.contains(&format!("dport {port} "))).unwrap();
    line.split_whitespace().skip_while(|word| *word != "packets").nth(1).unwrap().parse().unwrap()
}

/// Datagrams of a stream that arrived while the policy changed, at the least.
const ENOUGH: usize = 5 * CHANGES as usize;

#[test]
fn an_allowed_stream_loses_nothing_over_a_hundred_changes() {
    if !root() {
        return;
    }
    let world = World::new(1);
    world.create(0, &json!({"security_policies": allow(&json!([5201, 5202]))}));
    let streams = FAMILIES.map(|v4| {
        let port = if v4 { 5201 } else { 5202 };
        let pause = Duration::from_micros(300);
        (v4, Stream::start(&world.outside, &world.members[0], member_at(0, v4), port, pause))
    });
    let begin = wall_ns();
    for change in 0..CHANGES {
        world.replace(0, &json!({"security_policies": allow(&json!([5201, 5202, 6000 + change]))}));
    }
    let end = wall_ns();
    for (v4, stream) in streams {
        let seen = stream.finish();
        let meanwhile = seen.arrived.iter().filter(|sent| (begin..end).contains(sent)).count();
        assert!(meanwhile > ENOUGH, "IPv4 {v4}: {meanwhile} arrived while the policy changed");
        let whole = (seen.sent, seen.sent);
        assert_eq!((seen.arrived.len() as u64, seen.returned), whole, "IPv4 {v4}: there and back");
    }
    let counters = world.hub.get("/v1/personas/p0/counters").expect(200);
    assert_eq!(counters["ingress_dropped"]["packets"], 0, "{counters:#}");
    assert_eq!(counters["egress_dropped"]["packets"], 0, "{counters:#}");
}

/// Bytes that are written to a connection at once: some segments.
const WRITE: [u8; 4_000] = [0; 4_000];
/// A connection that stands still for so long is dead.
const DEAD: Duration = Duration::from_secs(20);

/// Writes to a connection until it is told to stop, and counts the bytes.
fn write(mut stream: TcpStream, written: &AtomicU64, done: &AtomicBool) {
    stream.set_write_timeout(Some(DEAD * patience())).unwrap();
    while !done.load(Ordering::Relaxed) {
        stream.write_all(&WRITE).unwrap();
        written.fetch_add(WRITE.len() as u64, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Reads the next connection to its end; how many bytes.
fn read(listener: &TcpListener) -> u64 {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(DEAD * patience())).unwrap();
    std::io::copy(&mut stream, &mut std::io::sink()).unwrap()
}

/// Segments that the sender sent again and the receiver did not have already. A busy machine delays
/// acknowledgements, so that a sender repeats what was not lost; the receiver says so (RFC 2883).
fn lost_segments(world: &World) -> i64 {
    let said = world.outside.sh("nstat --zeros --noupdate --ignore TcpRetransSegs TcpExtTCPDSACKRecv");
    let count = |name: &str| -> i64 {
        let line = said.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (count("TcpRetransSegs") - count("TcpExtTCPDSACKRecv")).max(0)
}

#[test]
fn an_allowed_connection_loses_no_segment_over_a_hundred_changes() {
    if !root() {
        return;
    }
    let world = World::new(1);
    world.create(0, &json!({"security_policies": allow(&json!([5201]))}));
    let listener = world.members[0].within(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, 5201)).unwrap());
    for v4 in FAMILIES {
        let before = lost_segments(&world);
        let stream = world.outside.connect(member_at(0, v4), 5201);
        let (sum, done) = (AtomicU64::new(0), AtomicBool::new(false));
        let came = std::thread::scope(|scope| {
            let reader = scope.spawn(|| read(&listener));
            scope.spawn(|| write(stream, &sum, &done));
            let stop = Stop(&done);
            for change in 0..CHANGES {
                let before = sum.load(Ordering::Relaxed);
                world.replace(0, &json!({"security_policies": allow(&json!([5201, 6000 + change]))}));
                wait_until("the connection goes on", DEAD, || {
                    sum.load(Ordering::Relaxed) >= before + 5 * WRITE.len() as u64
                });
            }
            drop(stop);
            reader.join().unwrap()
        });
        let written = sum.into_inner();
        assert_eq!(came, written, "to {}", member_at(0, v4));
        assert_eq!(lost_segments(&world) - before, 0, "of {written} bytes to {}", member_at(0, v4));
        let counters = world.hub.get("/v1/personas/p0/counters").expect(200);
        assert_eq!(counters["ingress_dropped"]["packets"], 0, "{counters:#}");
        assert_eq!(counters["egress_dropped"]["packets"], 0, "{counters:#}");
    }
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
    // Counted where they arrive: a socket's buffer may overflow.
    world.members[0].sh(
        "nft 'add table inet count; add chain inet count in { type filter hook input priority 0; }
              add rule inet count in udp dport 7001 counter
              add rule inet count in udp dport 7002 counter
              add rule inet count in udp dport 7003 counter drop'",
    );
    let _sockets =
        world.members[0].within(|| [7001_u16, 7002].map(|port| UdpSocket::bind(("0.0.0.0", port)).unwrap()));
    let (sent, done) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let there = |port: u16| SocketAddr::new(member_at(0, true), port);
            while !done.load(Ordering::Relaxed) {
                let socket = world.outside.within(|| UdpSocket::bind("0.0.0.0:0").unwrap());
                for _ in 0..20 {
                    for port in [7001, 7002, 7003] {
                        socket.send_to(b"x", there(port)).unwrap();
                    }
                    sent.fetch_add(1, Ordering::Relaxed);
                    std::thread::yield_now();
                }
            }
        });
        let _stop = Stop(&done);
        for change in 0..CHANGES {
            world.replace(0, &deny(7001 + change % 2));
        }
    });
    let sent = sent.into_inner();
    wait_until("every packet to the port that both policies allow", Duration::from_secs(5), || {
        arrived(&world, 7003) == sent
    });
    let [first, second] = [7001, 7002].map(|port| arrived(&world, port));
    assert!(sent > 1_000 && first > 0 && second > 0, "{sent} {first} {second}");
    // The port that both policies allow is never refused, whichever moment it is.
    assert_eq!(world.dropped("p0", "default_deny") + world.dropped("p0", "no_policy"), 0);
    // A pair is two packets, and the flip may come between them: at most one per change.
    let off = (first + second).abs_diff(sent);
    assert!(off <= u64::from(CHANGES), "{sent} pairs: {first} + {second} arrived");
}

/// Bandwidths that follow each other: none, other rates, room of other sizes and kinds, classes of traffic.
fn bandwidths() -> [Value; 5] {
    let voice = json!([{"protocol": "udp", "port": 5060, "action": "allow", "priority": "voice"},
                       {"protocol": "any", "action": "allow"}]);
    [
        json!({"qos": {"bandwidth": "50Mbps", "latency": "5ms"}}),
        json!({"qos": {"bandwidth": "80Mbps", "latency": "5ms"}}),
        json!({"qos": {"bandwidth": "80Mbps", "latency": "100ms"}}),
        json!({"qos": {"bandwidth": "60Mbps", "ceil": "90Mbps"}, "security_policies": voice}),
        json!({}),
    ]
}

/// Between two datagrams of a stream; four streams flow.
const PAUSE: Duration = Duration::from_millis(2);

#[test]
fn changes_of_bandwidth_lose_nothing() {
    if !root() {
        return;
    }
    // Interfaces get their queues with the first bandwidth, or with the first persona.
    for (lines, had_one) in [("", true), ("qos: {queues: always}", false)] {
        let world = World::with(3, lines);
        let shaped = json!({"qos": {"bandwidth": "20Mbps", "latency": "20ms"}});
        let delete = || world.hub.send("DELETE", "/v1/personas/p1", &Value::Null);
        world.create(0, &json!({}));
        world.create(2, &json!({}));
        if had_one {
            world.create(1, &shaped);
            assert_eq!(delete().status, 204);
        }
        let members = [0, 2].map(|number| FAMILIES.map(|v4| (number, v4)));
        let streams = members.as_flattened().iter().map(|(number, v4)| {
            let (member, there) = (&world.members[*number], member_at(*number, *v4));
            let port = if *v4 { 7001 } else { 7002 };
            (number, v4, Stream::start(&world.outside, member, there, port, PAUSE))
        });
        let streams: Vec<_> = streams.collect();
        for (change, fields) in bandwidths().iter().cycle().take(CHANGES.into()).enumerate() {
            world.replace(0, fields);
            if change < 5 {
                let counters = world.hub.get("/v1/personas/p0/counters").expect(200);
                let waits = counters["queues"].as_array().is_some_and(|queues| !queues.is_empty());
                assert_eq!(waits, fields["qos"].is_object(), "change {change}: {counters:#}");
            }
            if change % 3 == 0 {
                world.create(1, &shaped);
                assert_eq!(delete().status, 204);
            }
        }
        for (number, v4, stream) in streams {
            let seen = stream.finish();
            let whole = (seen.sent, seen.sent);
            let told = format!("p{number}, IPv4 {v4}, {lines:?}: of {} there and back", seen.sent);
            assert_eq!((seen.arrived.len() as u64, seen.returned), whole, "{told}");
            assert!(seen.sent > 500, "{told}");
        }
    }
}

/// Tells the sender to end, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
