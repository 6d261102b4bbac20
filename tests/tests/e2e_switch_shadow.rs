//! Until the flip nobody sees that another personality is prepared: the same packets are on the wires of member and
//! host, with the same addresses, sizes of life and code points, and routes lead where they led. Named exceptions
//! are the questions whether somebody has an address that is to come.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hub_tests::effort::figure;
use hub_tests::lab::Outcome::Answered;
use hub_tests::lab::resource::Which::{Open, Shut};
use hub_tests::lab::resource::{BOTH, OPEN_ONLY, Resource, SWITCH, marked, resource_at};
use hub_tests::lab::world::{FAMILIES, gateway_outside, outside_at};
use hub_tests::lab::{Server, Wire, echoes, wait_until};
use hub_tests::root;
use serde_json::json;

/// A port outside.
const OUT: u16 = 7_100;

/// What of a packet must not change: addresses, protocol, ports of servers, time to live, code point; of ARP and
/// of neighbour discovery what is asked.
type Shape = (&'static str, String, String, u8, u8, u8);

/// The shape of a frame; `None` is for what interfaces say of themselves all the time.
fn shape(frame: &[u8]) -> Option<Shape> {
    let v4 = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&frame[at..at + 4]).unwrap()).to_string();
    let v6 = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&frame[at..at + 16]).unwrap()).to_string();
    match frame.get(12..14)? {
        [8, 0] if frame.len() >= 34 => Some(("IPv4", v4(26), v4(30), frame[23], frame[22], frame[15] >> 2)),
        [8, 6] if frame.len() >= 42 => Some(("ARP", v4(28), v4(38), frame[21], 0, 0)),
        [0x86, 0xdd] if frame.len() >= 54 => {
            let code = ((frame[14] & 15) << 2) | (frame[15] >> 6);
            let (from, to) = (v6(22), v6(38));
            let next = frame[20];
            let kind = if next == 58 { frame.get(54).copied().unwrap_or(0) } else { 0 };
            // Groups and link-local addresses come with interfaces; so does what asks for routers.
            let own =
                to.starts_with("ff02::2") || to.starts_with("ff02::16") || [133, 134, 143].contains(&kind);
            let found = [135, 136].contains(&kind);
            match (own || next == 0, found) {
                (true, _) => None,
                (false, true) => Some(("ND", from, v6(62), kind, 0, 0)),
                (false, false) => Some(("IPv6", from, to, next, frame[21], code)),
            }
        }
        _ => Some(("other", String::new(), String::new(), frame[12], frame[13], 0)),
    }
}

/// Shapes on a wire until it is told to stop.
fn shapes(wire: &Wire, stop: &AtomicBool) -> BTreeSet<Shape> {
    let mut shapes = BTreeSet::new();
    while !stop.load(Ordering::Relaxed) {
        wire.find(Duration::from_millis(20), |frame| {
            shapes.extend(shape(frame));
            stop.load(Ordering::Relaxed)
        });
    }
    shapes
}

/// Everything that is said in each of the times that are compared, also what checks ask.
fn talk(resource: &Resource) {
    let (member, outside) = (&resource.world.members[0], &resource.world.outside);
    for v4 in FAMILIES {
        outside.expect_tcp(resource_at(v4), BOTH, Answered);
        outside.expect_udp(resource_at(v4), BOTH, Answered);
        outside.expect_ping(resource_at(v4), Answered);
        member.expect_tcp(outside_at(v4), OUT, Answered);
        member.expect_udp(outside_at(v4), OUT, Answered);
        member.expect_ping(outside_at(v4), Answered);
        member.expect_ping(gateway_outside(v4), Answered);
    }
    for gateway in ["10.20.0.1", "fd00:20::1"] {
        member.expect_ping(gateway.parse().unwrap(), Answered);
    }
    for v4 in FAMILIES {
        member.expect_udp(Open.server(v4).parse().unwrap(), 53, Answered);
    }
}

/// What the member's host does with packets: routes that they take, and sources that are chosen.
fn ways(resource: &Resource) -> String {
    let member = &resource.world.members[0];
    let targets = ["192.0.2.10", marked(true), "10.20.0.1", "10.20.0.77", "203.0.113.9"];
    let v4 = targets.map(|target| member.sh(&format!("ip route get {target}")));
    let targets = ["2001:db8:2::10", marked(false), "fd00:20::1", "fd00:20::77", "2001:db8:cb::9"];
    let v6 = targets.map(|target| member.sh(&format!("ip -6 route get {target}")));
    // The kernel says how old what it found is.
    v4.into_iter().chain(v6).map(|text| text.lines().next().unwrap_or_default().to_owned() + "\n").collect()
}

/// What both wires carry while something goes on.
fn during<T>(resource: &Resource, work: impl FnOnce() -> T) -> (T, [BTreeSet<Shape>; 2]) {
    let stop = AtomicBool::new(false);
    let wires = [resource.world.members[0].wiretap("eth0"), resource.world.outside.wiretap("eth0")];
    std::thread::scope(|scope| {
        let _end = Stop(&stop);
        let watchers = wires.each_ref().map(|wire| scope.spawn(|| shapes(wire, &stop)));
        let result = work();
        stop.store(true, Ordering::Relaxed);
        (result, watchers.map(|watcher| watcher.join().unwrap()))
    })
}

#[test]
fn nobody_sees_a_personality_before_the_flip() {
    if !root() {
        return;
    }
    let resource = Resource::new();
    let _out: Server = resource.world.outside.serve(&[OUT]);
    let mut open = FAMILIES.map(|v4| resource.world.outside.connect(resource_at(v4), OPEN_ONLY));
    let before = ways(&resource);
    let rules = resource.world.members[0].sh("ip rule; ip -6 rule");
    // Checks are asked while somebody looks, as they are in preflight.
    let ((), usual) = during(&resource, || {
        talk(&resource);
        wait_until("checks were asked", SWITCH, || {
            resource.view()["checks"].as_array().is_some_and(|checks| !checks.is_empty())
        });
        talk(&resource);
    });
    let (id, prepared) = during(&resource, || {
        let began = resource.order("shut", &json!({"drain": {"timeout": "60s"}})).expect(202);
        assert_eq!(ways(&resource), before, "while it is prepared");
        wait_until("the switch waits for the connections", SWITCH, || {
            resource.view()["operation"]["flows"]["active"] == 2
        });
        for _ in 0..2 {
            talk(&resource);
            assert!(open.iter_mut().all(|open| echoes(open, SWITCH)), "what is to end goes on until then");
            assert_eq!(ways(&resource), before, "while it waits");
            assert_eq!(resource.world.members[0].sh("ip rule; ip -6 rule"), rules, "no rule leads elsewhere");
        }
        assert_eq!(resource.state(), "draining");
        began["id"].as_str().unwrap().to_owned()
    });
    let held = resource.world.members[0].sh("ip -oneline address show dev eth0");
    for v4 in FAMILIES {
        assert!(held.contains(Shut.address(v4)), "what is to come is there: {held}");
    }
    drop(open);
    assert_eq!(resource.finish(&id)["outcome"], "committed");
    assert_ne!(ways(&resource), before, "the flip is seen");
    resource.expect_whole(Shut, "after the flip");
    // Probes of RFC 5227 and RFC 4862 ask for the addresses that are to come from nobody's address.
    let is_probe = |(kind, from, to, number, ..): &&Shape| match *kind {
        "ARP" => from == "0.0.0.0" && to == Shut.address(true),
        "ND" => from == "::" && to == Shut.address(false) && *number == 135,
        _ => false,
    };
    let mut probes = 0;
    for (wire, (usual, prepared)) in ["member", "host"].into_iter().zip(usual.iter().zip(&prepared)) {
        let new: Vec<&Shape> = prepared.difference(usual).filter(|shape| !is_neighbours(shape)).collect();
        let (named, unknown): (Vec<_>, Vec<_>) = new.into_iter().partition(is_probe);
        assert!(unknown.is_empty(), "new on the wire of the {wire}: {unknown:?}\nusual: {usual:?}");
        probes += named.len();
        assert!(
            usual.iter().filter(|shape| !is_neighbours(shape)).all(|shape| prepared.contains(shape)),
            "{wire}"
        );
    }
    assert_eq!(probes, 2, "the member's wire alone carries a question for each address");
    figure(
        "S16",
        &format!(
            "{} and {} shapes of packets, the same before and while a switch is prepared and drains",
            usual[0].len(),
            usual[1].len()
        ),
    );
}

/// Questions for neighbours that both know come and go with their memory.
fn is_neighbours(shape: &Shape) -> bool {
    let (kind, from, to, ..) = shape;
    let known = |text: &str| {
        let own = [Open, Shut].map(|which| FAMILIES.map(|v4| which.address(v4))).concat();
        !own.iter().any(|address| text.contains(address)) && !["0.0.0.0", "::"].contains(&text)
    };
    ["ARP", "ND"].contains(kind) && known(from) && known(to)
}

/// Tells watchers to end, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
