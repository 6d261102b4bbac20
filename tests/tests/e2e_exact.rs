//! Counters are exact: packets and bytes of personas and flows are what a capture on a wire shows.
//!
//! A packet is what a wire carries. Local stacks hand the hub super-packets of up to 64 KiB (GSO); each counts
//! as the packets that a wire would see, and each of those has headers of its own. The capture is taken behind
//! an interface without offloads, where super-packets have become packets.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::net::IpAddr;
use std::time::Duration;

use hub_tests::lab::world::{FAMILIES, member_at, outside_at, with_port};
use hub_tests::lab::{Background, Space, World, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_mins(1);

/// Packets and bytes from the IP header on.
type Sum = (u64, u64);

/// A capture on an interface, headers only.
struct Capture {
    space: Space,
    file: String,
    _process: Background,
}

impl Capture {
    fn start(world: &World, space: &Space, interface: &str, filter: &str) -> Self {
        let name = format!("{interface}-{}.pcap", space.name());
        let file = world.lab.folder().join(name).display().to_string();
        let command =
            format!("tcpdump -i {interface} --immediate-mode -U -B 65536 -s 128 -w {file} {filter}");
        let process = space.background(&command);
        // The file's header is written when the socket is open.
        wait_until("tcpdump captures", PATIENCE, || {
            std::fs::metadata(&file).is_ok_and(|data| data.len() >= 24)
        });
        Self { space: space.clone(), file, _process: process }
    }

    /// What fits a display filter of tshark.
    fn sum(&self, filter: &str) -> Sum {
        let size = || std::fs::metadata(&self.file).map_or(0, |data| data.len());
        let mut before = size();
        wait_until("tcpdump has written what it saw", PATIENCE, || {
            std::thread::sleep(Duration::from_millis(500));
            let after = size();
            let still = after == before && after > 24;
            before = after;
            still
        });
        // Frame lengths without the Ethernet header: short frames of veth devices have no padding.
        let listed = self.space.try_sh(
            &format!("tshark -n -r {} -Y '{filter}' -T fields -e frame.len 2> /dev/null", self.file),
            PATIENCE,
        );
        let lengths = listed.expect_success();
        let lengths = lengths.lines().map(|line| line.parse::<u64>().unwrap() - 14);
        lengths.fold((0, 0), |(packets, bytes), length| (packets + 1, bytes + length))
    }
}

fn pair(count: &Value) -> Sum {
    (count["packets"].as_u64().unwrap(), count["bytes"].as_u64().unwrap())
}

/// Waits until the counters have stood still, and returns them.
fn settled(world: &World) -> Value {
    let read = || world.hub.get("/v1/personas/p0/counters").expect(200);
    let mut before = read();
    wait_until("counters stand still", PATIENCE, || {
        std::thread::sleep(Duration::from_millis(400));
        let after = read();
        let still = after == before;
        before = after;
        still
    });
    before
}

/// Turns the offloads of an interface that make super-packets, or take them, on or off.
fn offloads(space: &Space, interface: &str, on: bool) {
    let on = if on { "on" } else { "off" };
    space.sh(&format!("ethtool -K {interface} tso {on} gso {on} gro {on} > /dev/null"));
}

/// A transfer from outside to the member, with what the capture at `wire` says about it.
fn transfer(world: &World, v4: bool, wire: &Capture) {
    let there = member_at(0, v4);
    let before = settled(world);
    let send = format!("head -c 3000000 /dev/zero | nc -q 5 -w 20 {there} 7000");
    world.outside.try_sh(&send, PATIENCE).expect_success();
    let after = settled(world);
    let (ip, me, you) = ("ip", there, outside_at(v4));
    let family = if v4 { ip } else { "ipv6" };
    let towards = wire.sum(&format!("{family}.src == {you} && {family}.dst == {me} && tcp.port == 7000"));
    let back = wire.sum(&format!("{family}.src == {me} && {family}.dst == {you} && tcp.port == 7000"));
    let grown = |direction: &str| {
        let ((packets, bytes), (p, b)) = (pair(&after[direction]), pair(&before[direction]));
        (packets - p, bytes - b)
    };
    assert!(towards.0 > 2_000, "3 MB are more than 2,000 packets of a wire: {towards:?}");
    assert_eq!(grown("ingress"), towards, "towards the member, IPv4 {v4}");
    assert_eq!(grown("egress"), back, "from the member, IPv4 {v4}");

    let flows = world.hub.get("/v1/flows?limit=1000").expect(200);
    let flows = flows["flows"].as_array().unwrap();
    let address = |text: &Value| text.as_str().unwrap().parse::<IpAddr>().unwrap();
    let ours = |flow: &&Value| address(&flow["target"]) == me && flow["target_port"] == 7000;
    let flow: Vec<&Value> = flows.iter().filter(ours).collect();
    assert_eq!(flow.len(), 1, "{flows:#?}");
    assert_eq!(pair(&flow[0]["sent"]), towards, "of the flow, IPv4 {v4}");
    assert_eq!(pair(&flow[0]["received"]), back, "of the flow, IPv4 {v4}");
}

/// A world whose member takes TCP on port 7000; super-packets reach the hub from outside if `bulk`.
fn world(bulk: bool) -> (World, Background) {
    let world = World::new(1);
    offloads(&world.outside, "eth0", bulk);
    // What the hub sends to the member and what the member sends is cut to packets of a wire: the hub sees
    // super-packets on the way in, the capture behind it does not.
    offloads(&world.router, "seg0", false);
    offloads(&world.members[0], "eth0", false);
    world.create(0, &json!({"security_policies": [{"protocol": "tcp", "port": 7000, "action": "allow"}]}));
    let server = world.members[0].background("sh -c 'while true; do nc -l -p 7000 -6 > /dev/null; done'");
    wait_until("the server listens", PATIENCE, || {
        world.members[0].succeeds("ss -Hltn 'sport = :7000' | grep -q LISTEN", PATIENCE)
    });
    (world, server)
}

#[test]
fn packets_of_a_wire_are_counted_to_the_byte() {
    if !root() {
        return;
    }
    for v4 in FAMILIES {
        let (world, _server) = world(false);
        let wire = Capture::start(&world, &world.members[0], "eth0", "tcp port 7000");
        transfer(&world, v4, &wire);
    }
}

#[test]
fn super_packets_count_as_the_packets_that_a_wire_sees() {
    if !root() {
        return;
    }
    for v4 in FAMILIES {
        let (world, _server) = world(true);
        let wire = Capture::start(&world, &world.members[0], "eth0", "tcp port 7000");
        let sender = Capture::start(&world, &world.outside, "eth0", "tcp dst port 7000");
        transfer(&world, v4, &wire);
        let handed = sender.sum("tcp.dstport == 7000").0;
        let carried = wire.sum("tcp.dstport == 7000").0;
        assert!(handed * 2 < carried, "the hub was handed super-packets: {handed} became {carried}");
    }
}

#[test]
fn drops_are_counted_to_the_byte() {
    if !root() {
        return;
    }
    let (world, _server) = world(false);
    let sent = Capture::start(&world, &world.outside, "eth0", "udp port 53");
    let there: Vec<String> = FAMILIES.iter().map(|v4| with_port(member_at(0, *v4), 53)).collect();
    let sockets =
        world.outside.within(|| FAMILIES.map(|v4| std::net::UdpSocket::bind((outside_at(v4), 0)).unwrap()));
    world.replace(0, &json!({"security_policies": [{"protocol": "udp", "port": 53, "action": "deny"}]}));
    for size in [0, 1, 100, 1_000, 1_400] {
        for (socket, there) in sockets.iter().zip(&there) {
            for _ in 0..7 {
                socket.send_to(&vec![0; size], there).unwrap();
            }
        }
    }
    let counters = settled(&world);
    let on_wire = sent.sum("udp.dstport == 53");
    assert_eq!(on_wire.0, 70);
    assert_eq!(pair(&counters["ingress_dropped"]), on_wire, "{counters:#}");
    let drops = counters["drops"].as_array().unwrap();
    let denied = drops.iter().find(|drop| drop["reason"] == "rule_deny").unwrap();
    assert_eq!(pair(denied), on_wire, "{counters:#}");
    assert_eq!(pair(&counters["rules"][0]), on_wire, "{counters:#}");
    assert_eq!(counters["flows"], json!({"ingress": 0, "egress": 0}), "{counters:#}");
}
