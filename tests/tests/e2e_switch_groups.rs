//! Interfaces in namespaces of several resources are switched as one: all of them or none, also when the hub dies in
//! between, and one after the other within a moment.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hub_tests::effort::figure;
use hub_tests::lab::Outcome::{Answered, Refused};
use hub_tests::lab::resource::SWITCH;
use hub_tests::lab::world::{FAMILIES, outside_at};
use hub_tests::lab::{Server, World, patience, wait_until, wall_ns};
use hub_tests::root;
use serde_json::{Value, json};

/// Interfaces.
const ALL: [usize; 2] = [0, 1];
/// Ports that the two personalities let in: one both, one each of them alone.
const BOTH: u16 = 7_000;
const OPEN_ONLY: u16 = 7_001;
const SHUT_ONLY: u16 = 7_002;
/// Where the streams go.
const STREAM: u16 = 7_100;
/// From the flip of the first to that of the last.
const APART: Duration = Duration::from_millis(5);
/// One of so many must be good: somebody else may have the processors meanwhile.
const TIMES: usize = 8;

const LINES: &str = "
subnets:
  front: {cidr: [10.20.0.0/24, \"fd00:20::/64\"], gateway: [10.20.0.1, \"fd00:20::1\"]}
";

fn at(number: usize, v4: bool) -> IpAddr {
    let host = 5 + number as u8;
    if v4 { [10, 20, 0, host].into() } else { format!("fd00:20::{host}").parse().unwrap() }
}

/// One for both interfaces.
fn personality(name: &str, port: u16, more: &Value) -> Value {
    let mut document = json!({
        "name": name,
        "ip_addresses": ["10.20.0.{label:host}/24", "fd00:20::{label:host}/64"],
        "subnet_id": "front",
        "firewall_rules": [
            {"protocol": "tcp", "port": [BOTH, port], "action": "allow"},
            {"protocol": "icmp", "action": "allow"},
        ],
        "default_action": "reject",
        "qos_settings": {"dscp": if port == OPEN_ONLY { "AF11" } else { "AF21" }},
        "drain": {"timeout": "0s"},
    });
    for (key, value) in more.as_object().unwrap() {
        document[key] = value.clone();
    }
    document
}

/// Two resources that have the personality `open` and know `shut`.
struct Group {
    _servers: Vec<Server>,
    world: World,
}

impl Group {
    fn new() -> Self {
        let world = World::with(ALL.len(), LINES);
        let group = Self { _servers: Vec::new(), world };
        group.keep(&personality("open", OPEN_ONLY, &json!({})));
        group.keep(&personality("shut", SHUT_ONLY, &json!({})));
        let servers = ALL.map(|number| {
            let member = &group.world.members[number];
            let record = json!({
                "name": format!("web-{number}"), "interface": "eth0", "namespace": member.name(),
                "port": format!("seg{number}"), "personality": "open",
                "labels": {"role": "web", "host": (5 + number).to_string()},
            });
            group.world.hub.send("POST", "/v1/interfaces", &record).expect(201);
            member.serve(&[BOTH, OPEN_ONLY, SHUT_ONLY])
        });
        group.settle();
        group.expect(OPEN_ONLY);
        Self { _servers: servers.into(), ..group }
    }

    fn keep(&self, definition: &Value) {
        self.world.hub.send("POST", "/v1/personalities", definition).expect(201);
    }

    fn view(&self, number: usize) -> Value {
        self.world.hub.get(&format!("/v1/interfaces/web-{number}")).body
    }

    #[track_caller]
    fn settle(&self) {
        wait_until("no switch is under way", SWITCH * 3, || {
            ALL.iter().all(|number| {
                let view = self.view(*number);
                view["state"] == "active" && view["operation"].is_null()
            })
        });
    }

    /// Orders a switch of both: the personality that each goes to.
    fn order(&self, to: [&str; 2]) -> Vec<String> {
        let interfaces = json!({"web-0": to[0], "web-1": to[1]});
        let order = json!({"interfaces": interfaces, "switch": {"why": "as one"}});
        let began = self.world.hub.send("POST", "/v1/switches", &order).expect(202);
        let operations = began["operations"].as_array().unwrap();
        operations.iter().map(|operation| operation["id"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until switches are over, and says how they ended.
    #[track_caller]
    fn finish(&self, operations: &[String]) -> Vec<Value> {
        let ended = |id: &String| self.world.hub.get(&format!("/v1/operations/{id}")).body;
        wait_until("the switches are over", SWITCH * 3, || {
            operations.iter().all(|id| !ended(id)["outcome"].is_null())
        });
        operations.iter().map(ended).collect()
    }

    /// Switches both, and expects this end of each.
    #[track_caller]
    fn switch(&self, to: [&str; 2], outcome: &str) -> Vec<Value> {
        let ends = self.finish(&self.order(to));
        assert!(ends.iter().all(|end| end["outcome"] == outcome), "{ends:#?}");
        ends
    }

    /// Whose rules new connections to both meet.
    #[track_caller]
    fn expect(&self, port: u16) {
        for number in ALL {
            for v4 in FAMILIES {
                let there = at(number, v4);
                wait_until("it is served", SWITCH, || {
                    self.world.outside.tcp(there, BOTH, Duration::from_secs(1)) == Answered
                });
                self.world.outside.expect_tcp(there, port, Answered);
                self.world.outside.expect_tcp(there, OPEN_ONLY + SHUT_ONLY - port, Refused);
            }
        }
    }
}

#[test]
fn all_are_switched_or_none() {
    if !root() {
        return;
    }
    let group = Group::new();
    group.switch(["shut", "shut"], "committed");
    group.expect(SHUT_ONLY);
    group.switch(["open", "open"], "committed");
    group.expect(OPEN_ONLY);

    // What the kernel of one refuses: a router that is the interface itself.
    let route = json!([{"destination": "198.51.100.0/24", "via": "10.20.0.6"}]);
    group.keep(&personality("no-route", SHUT_ONLY, &json!({"routing_table": route})));
    let ends = group.switch(["shut", "no-route"], "aborted");
    assert!(ends[0]["failure"].as_str().unwrap().contains("web-1"), "{ends:#?}");
    for end in &ends {
        let phases = end["phases"].as_array().unwrap();
        assert!(!phases.iter().any(|done| done["phase"] == "flip"), "{end:#}");
    }
    group.settle();
    group.expect(OPEN_ONLY);

    // What does not work after the flip: nobody listens there.
    let health = json!({"health": {"targets": [{"tcp": "192.0.2.10:9"}]}});
    group.keep(&personality("no-target", SHUT_ONLY, &health));
    let began = group.order(["shut", "no-target"]);
    wait_until("the one that works waits for the other", SWITCH, || {
        ALL.iter().all(|number| group.view(*number)["state"] == "verifying")
    });
    group.expect(SHUT_ONLY);
    let ends = group.finish(&began);
    assert!(ends.iter().all(|end| end["outcome"] == "rolled_back"), "{ends:#?}");
    group.settle();
    group.expect(OPEN_ONLY);
    for number in ALL {
        assert_eq!(group.view(number)["current"], "open@1");
    }
}

#[test]
fn a_hub_that_dies_between_flip_and_verify_leaves_all_old() {
    if !root() {
        return;
    }
    let mut group = Group::new();
    let health = json!({"health": {"targets": [{"tcp": "192.0.2.10:9"}]}});
    group.keep(&personality("no-target", SHUT_ONLY, &health));
    group.order(["shut", "no-target"]);
    wait_until("both have flipped", SWITCH, || {
        ALL.iter().all(|number| group.view(*number)["state"] == "verifying")
    });
    group.world.hub.process().kill();
    group.expect(SHUT_ONLY);
    group.world.hub.restart();
    wait_until("both go back", SWITCH * 2, || {
        ALL.iter().all(|number| {
            let view = group.view(*number);
            view["current"] == "open@1" && view["state"] == "active"
        })
    });
    group.expect(OPEN_ONLY);
}

/// Sends from an interface until it is told to stop.
fn send(group: &Group, number: usize, v4: bool, done: &AtomicBool) {
    let any = if v4 { IpAddr::from([0; 4]) } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = group.world.members[number].within(|| UdpSocket::bind((any, 0)).unwrap());
    while !done.load(Ordering::Relaxed) {
        socket.send_to(b"group", (outside_at(v4), STREAM)).ok();
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// Of which interface a frame of the streams is, and its code point.
fn stamp(frame: &[u8]) -> Option<((usize, bool), u8)> {
    let (v4, source, code, port) = match frame.get(12..14)? {
        [8, 0] if frame.len() >= 42 && frame[23] == 17 => {
            (true, IpAddr::from(<[u8; 4]>::try_from(&frame[26..30]).unwrap()), frame[15] >> 2, 36)
        }
        [0x86, 0xdd] if frame.len() >= 62 && frame[20] == 17 => {
            let source = <[u8; 16]>::try_from(&frame[22..38]).unwrap();
            (false, IpAddr::from(source), ((frame[14] & 15) << 2) | (frame[15] >> 6), 56)
        }
        _ => return None,
    };
    let ours = frame[port..port + 2] == STREAM.to_be_bytes();
    let number = ALL.into_iter().find(|number| at(*number, v4) == source)?;
    ours.then_some(((number, v4), code))
}

#[test]
fn the_flips_of_a_group_are_a_moment_apart() {
    if !root() {
        return;
    }
    let group = Group::new();
    let wire = group.world.outside.wiretap("eth0");
    let streams = ALL.map(|number| FAMILIES.map(|v4| (number, v4))).concat();
    let done = AtomicBool::new(false);
    let mut times = Vec::new();
    std::thread::scope(|scope| {
        let _stop = Stop(&done);
        for (number, v4) in streams.clone() {
            let (group, done) = (&group, &done);
            scope.spawn(move || send(group, number, v4, done));
        }
        while times.len() < TIMES && !times.iter().any(|time| *time < APART * patience()) {
            let (to, code) = if times.len().is_multiple_of(2) { ("shut", 18) } else { ("open", 10) };
            let began = group.order([to, to]);
            // When each stream met the other personality first.
            let mut flipped = std::collections::BTreeMap::new();
            let all = wire.find(SWITCH, |frame| {
                if let Some((stream, seen)) = stamp(frame)
                    && seen == code
                {
                    flipped.entry(stream).or_insert_with(wall_ns);
                }
                flipped.len() == streams.len()
            });
            assert!(all, "{flipped:?}");
            let (first, last) = (flipped.values().min().unwrap(), flipped.values().max().unwrap());
            times.push(Duration::from_nanos(last - first));
            let ends = group.finish(&began);
            assert!(ends.iter().all(|end| end["outcome"] == "committed"), "{ends:#?}");
            // What is left on the wire is of that switch.
            while wire
                .find(Duration::from_millis(20), |frame| stamp(frame).is_some_and(|(_, seen)| seen != code))
            {
            }
        }
    });
    figure(
        "S32",
        &format!("from the first packet of the new in one stream to that in the last of four: {times:.1?}"),
    );
    assert!(times.iter().any(|time| *time < APART * patience()), "{times:?}");
}

/// Tells senders to end, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
