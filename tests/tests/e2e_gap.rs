//! The kernel changes faster than the hub can follow: nothing passes meanwhile, and the hub catches up.

#![expect(clippy::indexing_slicing, reason = "a helper that cannot go on fails the test that called it")]

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use hub_tests::effort::{Effort, figure};
use hub_tests::lab::Outcome::Answered;
use hub_tests::lab::world::{FAMILIES, gateway, member_at, outside_at};
use hub_tests::lab::{Stopwatch, Wire, World, patience, wait_until};
use hub_tests::packet::{Datagram, ip};
use hub_tests::root;
use nix::sys::signal::Signal;
use serde_json::json;

/// Times that the interface is made anew in everyday runs and in long ones.
const ROUNDS: [u64; 2] = [50, 1_000];
/// From the interface being up to its programs; the machine may be busy.
const ENFORCED: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(10);
const MAC: [u8; 6] = [2, 0, 0, 0, 7, 1];
const MEMBER_MAC: [u8; 6] = [2, 0, 0, 0, 7, 2];

#[test]
fn nothing_passes_a_port_without_programs() {
    if !root() {
        return;
    }
    let mut world = World::new(1);
    let deny = json!([{"protocol": "any", "direction": "both", "action": "deny"}]);
    world.create(0, &json!({"security_policies": deny, "strict": true}));
    // Whoever is not judged is forwarded at once.
    let mac = world.outside.mac("eth0").map(|byte| format!("{byte:02x}")).join(":");
    for v4 in FAMILIES {
        world.router.ip(&format!("neigh replace {} lladdr {mac} dev up0 nud permanent", outside_at(v4)));
    }
    world.router.sh("for f in all default; do echo 0 >/proc/sys/net/ipv4/conf/$f/rp_filter; done");
    let far = world.outside.wiretap("eth0");
    let frames = frames();
    let (mut sent, mut passed, mut latest, mut times) = (0_u64, 0_u64, Duration::ZERO, Vec::new());
    let mut rounds = 0;
    for round in Effort::new(ROUNDS[0], ROUNDS[1]).rounds() {
        world.router.ip("link delete seg0");
        wait_until("the gate is closed", PATIENCE, || world.router.gates("seg0") == 2);
        let (wire, watch) = make(&world);
        let judged = judged(&world);
        while !judged() {
            assert!(watch.elapsed() < PATIENCE * patience(), "round {round}: no programs");
            sent += frames.iter().filter(|frame| wire.try_send(frame)).count() as u64;
        }
        latest = latest.max(watch.elapsed());
        times.push(watch.elapsed());
        for _ in 0..20 {
            sent += frames.iter().filter(|frame| wire.try_send(frame)).count() as u64;
        }
        wait_until("the gate is open", PATIENCE, || world.router.gates("seg0") == 0);
        sent += frames.iter().filter(|frame| wire.try_send(frame)).count() as u64;
        while far.find(Duration::from_millis(1), |frame| is_ours(&frames, frame)) {
            passed += 1;
        }
        rounds = round + 1;
    }
    times.sort();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    figure(
        "R15",
        &format!(
            "made anew {rounds} times, {sent} forbidden and forged packets meanwhile, {passed} passed; programs \
             after {} ms (median), {} ms (latest)",
            median.as_millis(),
            latest.as_millis()
        ),
    );
    assert_eq!(passed, 0);
    assert!(sent > rounds * 50, "{sent}");
    assert!(median <= ENFORCED * patience(), "{times:?}");

    // A hub that is stopped closes no gate. What claims to be a member's is stopped on its way out all the
    // same; forged senders are not. This also shows that the test would see a packet that passes.
    world.hub.process().signal(Signal::SIGSTOP);
    world.router.ip("link delete seg0");
    let (wire, _watch) = make(&world);
    for (number, frame) in frames.iter().enumerate() {
        let is_forged = number % 2 == 1;
        wire.send(frame);
        let passes = far.find(Duration::from_millis(300), |seen| is_ours(std::slice::from_ref(frame), seen));
        assert_eq!(passes, is_forged, "frame {number}");
    }
    world.hub.process().signal(Signal::SIGCONT);
    // Its status may be from before it was stopped, when there was another port of this name.
    let judged = judged(&world);
    wait_until("the port is judged again", PATIENCE, || judged() && world.router.gates("seg0") == 0);

    // What is allowed passes again.
    world.replace(0, &json!({}));
    for v4 in FAMILIES {
        world.members[0].ip("neigh flush dev eth0");
        world.members[0].expect_ping(outside_at(v4), Answered);
    }
}

/// Tells whether the programs are on the port that there is now: their link is pinned, or before Linux 6.6 their filter
/// is there.
fn judged(world: &World) -> impl Fn() -> bool {
    let index = world.router.interface("seg0");
    let pin = world.lab.folder().join(format!("bpf/hub/v1/link/{index}-hub_tc_in"));
    let router = world.router.clone();
    let has_links = !router.hangs_on_filters("up0");
    move || {
        let filters = || router.try_sh("tc filter show dev seg0 ingress", PATIENCE).stdout;
        if has_links { pin.exists() } else { filters().contains("hub_tc_in") }
    }
}

/// Makes the port and the member's end, both up; the time counts from then.
fn make(world: &World) -> (Wire, Stopwatch) {
    let mac = |bytes: [u8; 6]| bytes.map(|byte| format!("{byte:02x}")).join(":");
    let member = &world.members[0];
    let (hub, far) = (mac(MAC), mac(MEMBER_MAC));
    world.router.ip(&format!(
        "link add seg0 address {hub} type veth peer name eth0 address {far} netns {}",
        member.name()
    ));
    let mut script = String::new();
    for v4 in FAMILIES {
        let length = if v4 { 24 } else { 64 };
        write!(script, "ip address add {}/{length} dev eth0;", member_at(0, v4)).expect("a string");
    }
    script.push_str("ip link set eth0 up;");
    for v4 in FAMILIES {
        write!(script, "ip route add default via {};", gateway(0, v4)).expect("a string");
    }
    member.sh(&script);
    let wire = member.wiretap("eth0");
    world.router.ip("link set seg0 up");
    (wire, Stopwatch::start())
}

/// What the member may not send, and what nobody may send from there: forged senders of other networks.
fn frames() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for v4 in FAMILIES {
        let forged: IpAddr = if v4 { ip("198.51.100.7") } else { ip("2001:db8:77::7") };
        for source in [member_at(0, v4), forged] {
            let datagram = Datagram::udp((source, 4_000), (outside_at(v4), 4_001));
            frames.push(datagram.frame_between(MEMBER_MAC, MAC));
        }
    }
    frames
}

/// Whether a frame carries one of these addresses as its source.
fn is_ours(frames: &[Vec<u8>], frame: &[u8]) -> bool {
    let source = |frame: &[u8]| match frame.get(12..14) {
        Some([0x08, 0x00]) => frame.get(26..30).map(<[u8]>::to_vec),
        Some([0x86, 0xdd]) => frame.get(22..38).map(<[u8]>::to_vec),
        _ => None,
    };
    source(frame).is_some_and(|found| frames.iter().any(|ours| source(ours).as_ref() == Some(&found)))
}

/// Routes in one go, far more than the hub's socket has room for while nobody reads it.
const ROUTES: u32 = 100_000;
const RESYNC: Duration = Duration::from_secs(5);

#[test]
fn a_storm_of_routes_is_caught_up_with() {
    if !root() {
        return;
    }
    let mut world = World::new(1);
    world.create(0, &json!({}));
    let batch = world.lab.folder().join("routes");
    let lines = (0..ROUTES).fold(String::new(), |mut lines, number| {
        let [_, b, c, d] = number.to_be_bytes();
        writeln!(lines, "route add blackhole 11.{b}.{c}.{d}/32 table 777").expect("a string");
        lines
    });
    std::fs::write(&batch, lines).expect("a file");
    let router = world.router.clone();
    let ours = || !router.sh("ip route show 10.100.0.0/24 proto 177 dev seg0").trim().is_empty();
    assert!(ours());
    let storm = Stopwatch::start();
    world.hub.process().signal(Signal::SIGSTOP);
    world.router.try_sh(&format!("ip -batch {}", batch.display()), Duration::from_mins(1)).expect_success();
    // The message about this one is lost as well.
    world.router.sh("ip route del 10.100.0.0/24 proto 177 dev seg0");
    let seconds = storm.elapsed();
    world.hub.process().signal(Signal::SIGCONT);
    let watch = Stopwatch::start();
    wait_until("the hub has caught up", RESYNC * 4, ours);
    let late = watch.elapsed();
    let resyncs = world.hub.log().matches("kernel messages were lost").count();
    figure(
        "R15",
        &format!(
            "{ROUTES} routes in {:.1} s, messages were lost {resyncs} times, in step again after {:.2} s",
            seconds.as_secs_f64(),
            late.as_secs_f64()
        ),
    );
    assert!(resyncs > 0, "the storm was too small");
    assert!(late <= RESYNC * patience(), "{late:?}");
    for v4 in FAMILIES {
        world.outside.expect_ping(member_at(0, v4), Answered);
    }
}
