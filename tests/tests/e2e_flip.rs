//! A segment changes from one policy to another by one store: ports, code points of the persona and those of rules
//! change together, what both allow goes on unharmed, and what the other forbids ends with word to both sides.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aya::maps::{Array, Map, MapData};
use hub_common::segment::{POLICY_RESET_CUT, Policy, Segment};
use hub_tests::effort::{Effort, figure};
use hub_tests::lab::world::{FAMILIES, member_at, outside_at};
use hub_tests::lab::{Stream, World, echoes, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

/// Stores in everyday runs and in long ones.
const STORES: [u64; 2] = [2_000, 200_000];
/// Replacements of the definition.
const REPLACED: [u64; 2] = [60, 5_000];
/// Ports of UDP: allowed by both, by the first only, by the second only, and by both for a paced stream.
const BOTH: u16 = 7_000;
const FIRST: u16 = 7_001;
const SECOND: u16 = 7_002;
const PACED: u16 = 7_003;
/// A port of TCP that both allow.
const KEPT: u16 = 7_004;

/// A policy with a code point for everything, and one for a port that only it allows.
fn policy(dscp: &str, own: u16, own_dscp: &str) -> Value {
    let rule = |protocol: &str, port: u16| json!({"protocol": protocol, "port": port, "action": "allow"});
    let mut special = rule("udp", own);
    special["dscp"] = own_dscp.into();
    json!({"qos": {"dscp": dscp}, "security_policies": [
        special, rule("udp", BOTH), rule("udp", PACED), rule("tcp", KEPT),
    ]})
}

fn first() -> Value {
    policy("AF11", FIRST, "CS1")
}

fn second() -> Value {
    policy("AF21", SECOND, "CS2")
}

/// What packets to a port bear under one of the policies.
const MARKS: [(u16, u8); 8] = [
    (BOTH, 10),
    (PACED, 10),
    (FIRST, 8),
    (BOTH, 18),
    (PACED, 18),
    (SECOND, 16),
    // Echoes of the paced stream and TCP go the other way, or are not looked at.
    (KEPT, 10),
    (KEPT, 18),
];

fn map<V: aya::Pod>(world: &World, name: &str) -> Array<MapData, V> {
    let data = MapData::from_pin(world.hub.folder().join("bpf/hub/v1").join(name)).unwrap();
    Map::from_map_data(data).unwrap().try_into().unwrap()
}

/// Port and code point of a datagram to the member.
fn mark(frame: &[u8], member: IpAddr) -> Option<(u16, u8)> {
    let IpAddr::V4(member) = member else { return None };
    let ours =
        frame.len() >= 42 && frame[12..14] == [8, 0] && frame[23] == 17 && frame[30..34] == member.octets();
    ours.then(|| (u16::from_be_bytes([frame[36], frame[37]]), frame[15] >> 2))
}

#[test]
fn every_packet_bears_the_mark_of_the_rules_that_let_it_pass() {
    if !root() {
        return;
    }
    let world = World::new(1);
    world.create(0, &first());
    let member = member_at(0, true);
    let _server = world.members[0].serve(&[KEPT]);
    let mut connection = world.outside.connect(member, KEPT);
    let wire = world.members[0].wiretap("eth0");
    let done = AtomicBool::new(false);
    let stream = Stream::start(&world.outside, &world.members[0], member, PACED, Duration::from_millis(1));
    let (flips, seen) = std::thread::scope(|scope| {
        let stop = Stop(&done);
        let watcher = scope.spawn(|| {
            let mut seen = BTreeMap::<(u16, u8), u64>::new();
            wire.find(Duration::from_hours(1), |frame| {
                if let Some(mark) = mark(frame, member) {
                    *seen.entry(mark).or_default() += 1;
                }
                done.load(Ordering::Relaxed)
            });
            seen
        });
        for port in [BOTH, FIRST, SECOND] {
            let socket = world.outside.within(|| UdpSocket::bind("0.0.0.0:0").unwrap());
            let done = &done;
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    // A full queue is no matter.
                    socket.send_to(b"flip", (member, port)).ok();
                }
            });
        }
        let mut flips = stores(&world);
        for round in Effort::new(REPLACED[0], REPLACED[1]).rounds() {
            world.replace(0, &if round.is_multiple_of(2) { second() } else { first() });
            assert!(echoes(&mut connection, Duration::from_secs(5)), "after {flips} flips");
            flips += 1;
        }
        drop(stop);
        (flips, watcher.join().unwrap())
    });
    let stream = stream.finish();
    let mixed: Vec<_> = seen.iter().filter(|(mark, _)| !MARKS.contains(mark)).collect();
    let total: u64 = seen.values().sum();
    let lost = stream.sent - stream.arrived.len() as u64;
    figure(
        "S21",
        &format!(
            "{flips} flips, {total} packets looked at, {} mixed; of {} paced datagrams {lost} lost; one TCP \
             connection kept",
            mixed.len(),
            stream.sent
        ),
    );
    assert!(mixed.is_empty(), "port and code point of no policy: {mixed:?}\n{seen:?}");
    for mark in &MARKS[..6] {
        assert!(seen.get(mark).is_some_and(|count| *count > 100), "{mark:?} of {seen:?}");
    }
    assert_eq!(lost, 0);
}

/// Changes the segment over again and again by one store, as a pass does: both policies are compiled.
fn stores(world: &World) -> u64 {
    let candidate = World::definition(0, &second());
    world.hub.send("PUT", "/v1/personas/p0/candidate?for=3600s", &candidate).expect(200);
    let mut segments = map::<Segment>(world, "SEGMENTS");
    let (mut number, mut found) = (0, Segment::ZERO);
    wait_until("both are compiled", Duration::from_secs(10), || {
        let mut all = (1..10).map(|number| (number, segments.get(&number, 0).unwrap()));
        let both = all.find(|(_, entry)| entry.policy != 0 && entry.candidate != 0);
        (number, found) = both.unwrap_or((number, found));
        both.is_some()
    });
    let (one, other) = (found.policy, found.candidate);
    let mut flips = 0;
    for round in Effort::new(STORES[0], STORES[1]).rounds() {
        let policy = if round.is_multiple_of(2) { other } else { one };
        segments.set(number, Segment { policy, candidate: 0, ..found }, 0).unwrap();
        flips += 1;
        std::thread::sleep(Duration::from_micros(300));
    }
    segments.set(number, found, 0).unwrap();
    world.hub.send("DELETE", "/v1/personas/p0/candidate", &Value::Null).expect(204);
    flips
}

#[test]
fn both_ends_of_a_connection_that_ends_are_told() {
    if !root() {
        return;
    }
    let world = World::new(1);
    for v4 in FAMILIES {
        for from_member in [false, true] {
            let all = json!({"protocol": "tcp", "port": KEPT, "action": "allow"});
            let out = json!({"protocol": "tcp", "port": KEPT, "direction": "egress", "action": "deny"});
            let inward = json!({"protocol": "tcp", "port": KEPT, "action": "deny"});
            world.create(0, &json!({"security_policies": [all]}));
            let (near, far, address) = if from_member {
                (&world.members[0], &world.outside, outside_at(v4))
            } else {
                (&world.outside, &world.members[0], member_at(0, v4))
            };
            let any: IpAddr = if v4 { [0; 4].into() } else { [0; 16].into() };
            let listener = far.within(|| TcpListener::bind((any, KEPT)).unwrap());
            let mut near = near.connect(address, KEPT);
            let (mut far, _) = listener.accept().unwrap();
            for end in [&near, &far] {
                end.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            }
            world.replace(0, &json!({"security_policies": [inward, out]}));
            let mut policies = map::<Policy>(&world, "POLICIES");
            for slot in 1..10 {
                let policy = policies.get(&slot, 0).unwrap();
                policies.set(slot, Policy { flags: policy.flags | POLICY_RESET_CUT, ..policy }, 0).unwrap();
            }
            near.write_all(b"no longer").unwrap();
            for (who, end) in [("who spoke", &mut near), ("who listened", &mut far)] {
                let error = end.read(&mut [0; 8]).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{who}, v4 {v4}, member {from_member}");
            }
            world.hub.send("DELETE", "/v1/personas/p0", &Value::Null);
            wait_until("it is gone", Duration::from_secs(5), || {
                world.hub.get("/v1/personas").body["personas"].as_array().is_none_or(Vec::is_empty)
                    || world.hub.get("/v1/personas/p0").body["state"] != "active"
            });
        }
    }
}

/// Tells the others to end, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
