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
use hub_tests::lab::{Background, Config, Space, World, wait_until};
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

/// Waits until the counters of a persona have stood still, and returns them.
fn settled(world: &World, persona: &str) -> Value {
    let read = || world.hub.get(&format!("/v1/personas/{persona}/counters")).expect(200);
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

/// Who sends to a member, and who counts it.
struct Way<'a> {
    from: &'a Space,
    /// Address that is dialled.
    dialled: IpAddr,
    /// Addresses of the sender and of the member on the member's wire.
    ends: [IpAddr; 2],
    /// Personas with the direction of what goes towards the member and of what comes back.
    counted: &'a [(&'a str, [&'a str; 2])],
    /// Whether there is an entry for the connection.
    is_tracked: bool,
}

/// Towards members and back.
const INWARD: [&str; 2] = ["ingress", "egress"];
const OUTWARD: [&str; 2] = ["egress", "ingress"];

/// From outside to the member of `p0`.
fn inward(world: &World, v4: bool) -> Way<'_> {
    let (dialled, from) = (member_at(0, v4), &world.outside);
    let ends = [outside_at(v4), dialled];
    Way { from, dialled, ends, counted: &[("p0", INWARD)], is_tracked: true }
}

/// A transfer to a member, with what the capture at its `wire` says about it.
fn transfer(world: &World, way: &Way<'_>, wire: &Capture) {
    let counters = || way.counted.iter().map(|(persona, _)| settled(world, persona)).collect::<Vec<_>>();
    let before = counters();
    let send = format!("head -c 3000000 /dev/zero | nc -q 5 -w 20 {} 7000", way.dialled);
    way.from.try_sh(&send, PATIENCE).expect_success();
    let after = counters();
    // Entries of connections that ended go soon.
    let flows = world.hub.get("/v1/flows?limit=1000").expect(200);
    let flows = flows["flows"].as_array().unwrap();
    let [you, me] = way.ends;
    let family = if me.is_ipv4() { "ip" } else { "ipv6" };
    let towards = wire.sum(&format!("{family}.src == {you} && {family}.dst == {me} && tcp.port == 7000"));
    let back = wire.sum(&format!("{family}.src == {me} && {family}.dst == {you} && tcp.port == 7000"));
    assert!(towards.0 > 2_000, "3 MB are more than 2,000 packets of a wire: {towards:?}");
    for (((persona, ways), before), after) in way.counted.iter().zip(before).zip(after) {
        let grown = ways.map(|direction| {
            let ((packets, bytes), (p, b)) = (pair(&after[direction]), pair(&before[direction]));
            (packets - p, bytes - b)
        });
        assert_eq!(grown, [towards, back], "{persona} towards {me} and back");
    }
    let address = |text: &Value| text.as_str().unwrap().parse::<IpAddr>().unwrap();
    let ours = |flow: &&Value| address(&flow["target"]) == way.dialled && flow["target_port"] == 7000;
    let flow: Vec<&Value> = flows.iter().filter(ours).collect();
    assert_eq!(flow.len(), usize::from(way.is_tracked), "{flows:#?}");
    for flow in flow {
        assert_eq!(pair(&flow["sent"]), towards, "of the flow to {me}");
        assert_eq!(pair(&flow["received"]), back, "of the flow to {me}");
    }
}

/// Has a member take TCP on port 7000.
fn serve(member: &Space) -> Background {
    let server = member.background("sh -c 'while true; do nc -l -p 7000 -6 > /dev/null; done'");
    wait_until("the server listens", PATIENCE, || {
        member.succeeds("ss -Hltn 'sport = :7000' | grep -q LISTEN", PATIENCE)
    });
    server
}

/// Rules that let port 7000 in.
fn open() -> Value {
    json!([{"protocol": "tcp", "port": 7000, "action": "allow"}])
}

/// A world whose member takes TCP on port 7000; super-packets reach the hub from outside if `bulk`.
fn world(bulk: bool) -> (World, Background) {
    world_with(bulk, "")
}

/// The same, with further lines in `hub.yaml`.
fn world_with(bulk: bool, lines: &str) -> (World, Background) {
    let world = World::with(1, lines);
    offloads(&world.outside, "eth0", bulk);
    // What the hub sends to the member and what the member sends is cut to packets of a wire: the hub sees
    // super-packets on the way in, the capture behind it does not.
    offloads(&world.router, "seg0", false);
    offloads(&world.members[0], "eth0", false);
    world.create(0, &json!({"security_policies": open()}));
    let server = serve(&world.members[0]);
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
        transfer(&world, &inward(&world, v4), &wire);
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
        transfer(&world, &inward(&world, v4), &wire);
        let handed = sender.sum("tcp.dstport == 7000").0;
        let carried = wire.sum("tcp.dstport == 7000").0;
        assert!(handed * 2 < carried, "the hub was handed super-packets: {handed} became {carried}");
    }
}

#[test]
fn open_ports_are_counted_to_the_byte() {
    if !root() {
        return;
    }
    for bulk in [false, true] {
        for v4 in FAMILIES {
            let (world, _server) = world(bulk);
            world.replace(0, &json!({"security_policies": open(), "tracking": "needed"}));
            let wire = Capture::start(&world, &world.members[0], "eth0", "tcp port 7000");
            transfer(&world, &Way { is_tracked: false, ..inward(&world, v4) }, &wire);
        }
    }
}

#[test]
fn filters_of_clsact_count_to_the_byte() {
    if !root() {
        return;
    }
    for bulk in [false, true] {
        for v4 in FAMILIES {
            let (world, _server) = world_with(bulk, "attach: {tc: clsact}");
            for port in ["up0", "seg0"] {
                assert!(world.router.hangs_on_filters(port), "{port}");
            }
            let wire = Capture::start(&world, &world.members[0], "eth0", "tcp port 7000");
            transfer(&world, &inward(&world, v4), &wire);
        }
    }
}

#[test]
fn what_xdp_forwards_is_counted_to_the_byte() {
    if !root() {
        return;
    }
    for tracking in ["all", "needed"] {
        for v4 in FAMILIES {
            let (mut world, _server) = world(false);
            // XDP takes frames as a wire brings them, and the far end of a veth takes what XDP redirects with GRO on.
            for space in [&world.members[0], &world.outside] {
                space.sh("ethtool --offload eth0 tx off gro on");
            }
            let config = Config::default()
                .interface("up0", "uplink\n    xdp: on")
                .interface("seg0", "segment\n    xdp: on");
            world.hub.process().stop();
            world.hub.configure(&config);
            world.hub.restart();
            world.replace(0, &json!({"security_policies": open(), "tracking": tracking}));
            let redirected = |world: &World| {
                let counters = world.hub.get("/v1/counters").expect(200);
                let hooks = counters["hooks"].as_array().unwrap().iter();
                let xdp = hooks.filter(|hook| hook["hook"] == "xdp_in");
                xdp.map(|hook| hook["redirected"].as_u64().unwrap()).sum::<u64>()
            };
            let before = redirected(&world);
            // The member's end puts packets together; what the sender's end shows is as it is on a wire.
            let wire = Capture::start(&world, &world.outside, "eth0", "tcp port 7000");
            let is_tracked = tracking == "all";
            transfer(&world, &Way { is_tracked, ..inward(&world, v4) }, &wire);
            let packets = redirected(&world) - before;
            assert!(packets > 2_000, "XDP forwarded {packets} packets only");
        }
    }
}

#[test]
fn translated_packets_are_counted_to_the_byte() {
    if !root() {
        return;
    }
    for v4 in FAMILIES {
        let world = World::new(2);
        let twin = &world.members[1];
        for (space, interface) in [(&world.outside, "eth0"), (&world.router, "seg1"), (twin, "eth0")] {
            offloads(space, interface, false);
        }
        world.make_twin(1, 0);
        world.create(0, &json!({"security_policies": open()}));
        let ranges = World::definition(0, &json!({}))["ip_range"].clone();
        let view = world.create(1, &json!({"security_policies": open(), "ip_range": ranges}));
        let native = if v4 { "10.100.0.0/24" } else { "fd00:100::/64" };
        let range = view["virtual_ranges"][native].as_str().unwrap_or_else(|| panic!("{view:#}"));
        // Host bits stay.
        let dialled: IpAddr = match (range.split_once('/').unwrap().0.parse().unwrap(), member_at(0, v4)) {
            (IpAddr::V4(base), IpAddr::V4(host)) => {
                std::net::Ipv4Addr::from_bits(base.to_bits() | host.to_bits() & 0xff).into()
            }
            (IpAddr::V6(base), IpAddr::V6(host)) => {
                std::net::Ipv6Addr::from_bits(base.to_bits() | host.to_bits() & u128::from(u64::MAX)).into()
            }
            (base, host) => panic!("{base} stands for {host}"),
        };
        let _servers = [serve(&world.members[0]), serve(twin)];
        let wire = Capture::start(&world, twin, "eth0", "tcp port 7000");
        let way = Way { dialled, counted: &[("p1", INWARD)], ..inward(&world, v4) };
        transfer(&world, &way, &wire);
        let other = settled(&world, "p0");
        assert_eq!(pair(&other["ingress"]), (0, 0), "of the other twin: {other:#}");
    }
}

#[test]
fn between_peers_both_count_the_same_to_the_byte() {
    if !root() {
        return;
    }
    for tracking in ["all", "needed"] {
        let world = World::new(2);
        for (space, interface) in
            [(&world.members[1], "eth0"), (&world.router, "seg0"), (&world.members[0], "eth0")]
        {
            offloads(space, interface, false);
        }
        // Between two personas ports are open where both say so: that of the server, and any that clients have.
        let rules = json!([{"protocol": "tcp", "port": "1024-65535", "action": "allow"}]);
        for number in 0..2 {
            let peer = format!("p{}", 1 - number);
            world.create(number, &json!({"security_policies": rules, "peers": [peer], "tracking": tracking}));
        }
        let _server = serve(&world.members[0]);
        for v4 in FAMILIES {
            let wire = Capture::start(&world, &world.members[0], "eth0", "tcp port 7000");
            let way = Way {
                from: &world.members[1],
                dialled: member_at(0, v4),
                ends: [member_at(1, v4), member_at(0, v4)],
                counted: &[("p0", INWARD), ("p1", OUTWARD)],
                is_tracked: tracking == "all",
            };
            transfer(&world, &way, &wire);
        }
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
    let counters = settled(&world, "p0");
    let on_wire = sent.sum("udp.dstport == 53");
    assert_eq!(on_wire.0, 70);
    assert_eq!(pair(&counters["ingress_dropped"]), on_wire, "{counters:#}");
    let drops = counters["drops"].as_array().unwrap();
    let denied = drops.iter().find(|drop| drop["reason"] == "rule_deny").unwrap();
    assert_eq!(pair(denied), on_wire, "{counters:#}");
    assert_eq!(pair(&counters["rules"][0]), on_wire, "{counters:#}");
    assert_eq!(counters["flows"], json!({"ingress": 0, "egress": 0}), "{counters:#}");
}
