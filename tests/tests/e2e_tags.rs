//! Tags, pieces and long chains of headers through real veths: what arrives is what the model lets pass, by
//! XDP and by TC, whether the sender writes its tags into the frame or beside it.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use hub_common::rule::{ACTION_DENY, RULE_PROTOCOL, RULE_TARGET_PORT, Rule};
use hub_tests::effort::{Effort, figure};
use hub_tests::lab::Outcome::Answered;
use hub_tests::lab::world::{FAMILIES, member_at, outside_at};
use hub_tests::lab::{Config, Stopwatch, Wire, World, has_vlans};
use hub_tests::model::{Entry, Life, Model, Policy, Prefix, Role, Segment, Verdict};
use hub_tests::packet::{Datagram, Extension, Fragment, Transport};
use hub_tests::root;
use serde_json::json;

const SEGMENT_PORT: u32 = 1;
const UPLINK: u32 = 2;
const ALLOWED: u16 = 4_001;
const DENIED: u16 = 4_002;
/// Times that every shape is sent, in everyday runs and in long ones.
const ROUNDS: [u64; 2] = [2, 500];
const SILENCE: Duration = Duration::from_millis(350);

#[test]
fn tags_and_pieces_are_judged_alike_by_both_hooks() {
    if !root() {
        return;
    }
    let watch = Stopwatch::start();
    let has_devices = has_vlans();
    let (mut sent, mut passed, mut rounds) = (0, 0, 0);
    for xdp in ["off", "on"] {
        let world = world(xdp);
        for insert in ["on", "off"] {
            // Beside the frame, or in it.
            let settings = format!("tx-vlan-hw-insert {insert} tx-vlan-stag-hw-insert {insert}");
            world.members[0].sh(&format!("ethtool --offload eth0 {settings}"));
            let effort = Effort::new(ROUNDS[0], ROUNDS[1] / 4);
            for round in effort.rounds() {
                // XDP of a veth never sees a tag beside a frame: README.md says what to switch off.
                let by_devices = has_devices && (xdp == "off" || insert == "off");
                let shapes = shapes(round, by_devices);
                let (arrived, expected) = judge(&world, &shapes);
                let names =
                    |set: &BTreeSet<usize>| set.iter().map(|at| shapes[*at].name.clone()).collect::<Vec<_>>();
                assert_eq!(names(&arrived), names(&expected), "xdp {xdp}, tags beside the frame: {insert}");
                assert!(expected.len() >= 8 && shapes.len() - expected.len() >= 12, "too few of a kind");
                sent += shapes.len();
                passed += arrived.len();
                rounds += 1;
            }
        }
        let redirected = world.total("redirected");
        assert!(redirected > 0, "nothing went the fast way");
        assert!(reasons(&world, "vlan") > 0);
    }
    figure(
        "R16",
        &format!(
            "{sent} frames in {rounds} rounds by TC and by XDP, tags {}: {passed} passed and {} did not, as the model \
             says, {:.0} s",
            if has_devices { "in and beside frames" } else { "in frames (no VLAN devices here)" },
            sent - passed,
            watch.elapsed().as_secs_f64()
        ),
    );
}

/// A member and a host outside, on wires of 9,000 bytes.
fn world(xdp: &str) -> World {
    let mut world = World::new(1);
    for space in [&world.members[0], &world.outside] {
        // XDP takes frames as wires bring them.
        space.sh("ethtool --offload eth0 tx off gro on; ip link set eth0 mtu 9000");
    }
    world.router.sh("ip link set up0 mtu 9000; ip link set seg0 mtu 9000");
    if has_vlans() {
        world.members[0].sh("ip link add link eth0 name tag type vlan id 7; ip link set tag up
            ip link add link eth0 name outer type vlan proto 802.1ad id 8; ip link set outer up
            ip link add link outer name inner type vlan id 9; ip link set inner up");
    }
    let ports = [("up0", "uplink"), ("seg0", "segment")];
    let lines = ports.map(|(name, role)| format!("  - {{name: {name}, role: {role}, xdp: {xdp}}}\n"));
    world.hub.process().kill();
    world.hub.configure(&Config::default().with(&format!("interfaces:\n{}", lines.concat())));
    world.hub.restart();
    // Where XDP looks, tags stay in frames as far as the port has a say.
    let offload = world.router.sh("ethtool --show-features seg0 | grep rx-vlan-offload");
    assert_eq!(offload.contains(": off"), xdp == "on", "{offload}");
    let deny = json!([
        {"direction": "egress", "protocol": "udp", "port": DENIED, "action": "deny"},
        {"direction": "egress", "protocol": "udp", "action": "allow"},
    ]);
    world.create(0, &json!({"security_policies": deny}));
    let attached = world.hub.get("/v1/status").expect(200);
    assert_eq!(attached["attachments"].to_string().contains("xdp_in"), xdp == "on", "{attached:#}");
    // Neighbours are known from here on.
    for v4 in FAMILIES {
        world.members[0].expect_ping(outside_at(v4), Answered);
    }
    world
}

/// The same hub for the model.
fn model() -> Model {
    let protocols: BTreeSet<u8> = (0..=255).collect();
    let rule = Rule {
        protocol: 17,
        target_port: [DENIED; 2],
        action: ACTION_DENY,
        flags: RULE_PROTOCOL | RULE_TARGET_PORT,
        ..Rule::ZERO
    };
    let policy =
        Policy { egress_default: protocols.clone(), protocols, egress: vec![rule], ..Policy::default() };
    let (expires_tick, drains_tick) = (u64::MAX, u64::MAX);
    let segment = Segment {
        policy: Some(policy),
        version: 1,
        life: Life::Active,
        expires_tick,
        drains_tick,
        capped: false,
        set_generation: 0,
        connections: None,
    };
    let mut model = Model::default();
    model.segments.insert(1, segment);
    model.prefixes = FAMILIES
        .map(|v4| Prefix { address: member_at(0, v4), bits: if v4 { 24 } else { 64 }, segment: 1 })
        .into();
    model.ports.extend([(SEGMENT_PORT, Role::Segment(1)), (UPLINK, Role::Uplink)]);
    model
}

/// A frame, by which of the member's devices it leaves, and the tags that the device adds.
struct Shape {
    name: String,
    by: &'static str,
    device_tags: Vec<(u16, u16)>,
    datagram: Datagram,
}

/// Sends all shapes; which arrived, and which should have.
fn judge(world: &World, shapes: &[Shape]) -> (BTreeSet<usize>, BTreeSet<usize>) {
    let member = &world.members[0];
    let wires: Vec<(&str, Wire)> = shapes
        .iter()
        .map(|shape| shape.by)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .map(|by| (by, member.wiretap(by)))
        .collect();
    let far = world.outside.wiretap("eth0");
    let macs = [world.router.mac("seg0"), member.mac("eth0")].concat();
    let mut model = model();
    let mut expected = BTreeSet::new();
    for (number, shape) in shapes.iter().enumerate() {
        let mut tagged = shape.datagram.clone();
        for (ethertype, id) in shape.device_tags.iter().rev() {
            tagged = tagged.with_tag(*ethertype, *id);
        }
        if model.judge(Entry::In(SEGMENT_PORT), &tagged.frame(), 1_000) == Verdict::Pass {
            expected.insert(number);
        }
        let mut frame = shape.datagram.frame();
        frame[..12].copy_from_slice(&macs);
        wires.iter().find(|(name, _)| *name == shape.by).unwrap().1.send(&frame);
    }
    let mut arrived = BTreeSet::new();
    let mut note = |frame: &[u8]| {
        let found = (0..shapes.len()).find(|number| holds(frame, mark(*number)));
        arrived.extend(found);
        arrived.is_superset(&expected)
    };
    far.find(Duration::from_secs(10), &mut note);
    // What should not pass has had time to.
    far.find(SILENCE, |frame| {
        note(frame);
        false
    });
    (arrived, expected)
}

fn mark(number: usize) -> [u8; 8] {
    let [high, low] = (number as u16).to_be_bytes();
    [b'h', b'u', b'b', high, low, b'R', b'1', b'6']
}

fn holds(frame: &[u8], mark: [u8; 8]) -> bool {
    frame.windows(mark.len()).any(|bytes| bytes == mark)
}

/// Reads how often a reason was met.
fn reasons(world: &World, reason: &str) -> u64 {
    let counters = world.hub.get("/v1/counters").expect(200);
    let hooks = counters["hooks"].as_array().unwrap();
    let all = hooks.iter().flat_map(|hook| hook["reasons"].as_array().unwrap());
    all.filter(|pair| pair[0] == reason).map(|pair| pair[1].as_u64().unwrap()).sum()
}

/// Every shape, allowed and denied, in both families; each carries its mark.
fn shapes(round: u64, has_devices: bool) -> Vec<Shape> {
    let mut all = Vec::new();
    for v4 in FAMILIES {
        for port in [ALLOWED, DENIED] {
            let own = 10_000 + (round % 20_000) as u16;
            let end = |address: IpAddr, port: u16| (address, port);
            let plain = Datagram::udp(end(member_at(0, v4), own), end(outside_at(v4), port));
            let mut add = |name: &str, by: &'static str, device_tags: &[(u16, u16)], datagram: Datagram| {
                all.push(Shape {
                    name: format!("{name}, port {port}, IPv4: {v4}"),
                    by,
                    device_tags: device_tags.to_vec(),
                    datagram,
                });
            };
            add("plain", "eth0", &[], plain.clone());
            add("one tag", "eth0", &[], plain.clone().with_tag(0x8100, 7));
            add("two tags", "eth0", &[], plain.clone().with_tag(0x8100, 7).with_tag(0x88a8, 8));
            add("priority tag", "eth0", &[], plain.clone().with_tag(0x8100, 0));
            add("tag of a device", "tag", &[(0x8100, 7)], plain.clone());
            add("tags of two devices", "inner", &[(0x88a8, 8), (0x8100, 9)], plain.clone());
            // XDP of veth has buffers of 3,520 bytes.
            add("a buffer", "eth0", &[], plain.clone().with_payload(&[3; 3_450]));
            add("more than a buffer", "eth0", &[], plain.clone().with_payload(&[3; 3_490]));
            add("jumbo", "eth0", &[], plain.clone().with_payload(&[3; 8_000]));
            add("tagged jumbo", "tag", &[(0x8100, 7)], plain.clone().with_payload(&[3; 8_000]));
            let id = 1_000 + 8 * round as u32 + u32::from(port - ALLOWED);
            add("first piece", "eth0", &[], piece(plain.clone(), id, Fragment { position: 0, more: true }));
            add("last piece", "eth0", &[], piece(plain.clone(), id, Fragment { position: 9, more: false }));
            add(
                "piece alone",
                "eth0",
                &[],
                piece(plain.clone(), id + 4, Fragment { position: 9, more: false }),
            );
            if !v4 {
                // The kernel forwards no hop-by-hop header that is mostly padding.
                let known = [Extension::router_alert(), Extension::padding(60, 2)];
                for (extension, kind) in known.into_iter().zip([0, 60]) {
                    let with = plain.clone().with_extension(extension);
                    add(&format!("extension {kind}"), "eth0", &[], with);
                }
                let late = plain.clone().with_extension(Extension::padding(60, 1));
                add("late hop-by-hop", "eth0", &[], late.with_extension(Extension::padding(0, 1)));
                add("routing 0", "eth0", &[], plain.clone().with_extension(Extension::routing(0)));
                let many = (0..9).fold(plain, |packet, _| packet.with_extension(Extension::padding(60, 1)));
                add("nine extensions", "eth0", &[], many);
            }
        }
    }
    all.retain(|shape| has_devices || shape.device_tags.is_empty());
    for (number, shape) in all.iter_mut().enumerate() {
        let payload = shape.datagram.transport.payload();
        if payload.len() < 64 {
            payload.resize(64, 0);
        }
        payload[..8].copy_from_slice(&mark(number));
    }
    all
}

/// A piece of a datagram; later ones carry no header of the transport.
fn piece(mut datagram: Datagram, id: u32, fragment: Fragment) -> Datagram {
    if fragment.position > 0 {
        datagram.transport = Transport::Raw { protocol: 17, payload: Vec::new() };
    }
    if datagram.source.is_ipv4() {
        datagram.fragment = fragment;
        return datagram.with_id(id);
    }
    datagram.with_extension(Extension::fragment(id, fragment))
}
