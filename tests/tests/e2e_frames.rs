//! Frames as wires carry them: tags, super-packets, and the same verdicts where XDP runs.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::time::Duration;

use hub_tests::lab::Outcome::{Answered, Refused, Silent};
use hub_tests::lab::world::{FAMILIES, member_at, outside_at};
use hub_tests::lab::{World, wait_until};
use hub_tests::packet::{Datagram, Tag, Transport};
use hub_tests::root;
use serde_json::{Value, json};

#[test]
fn tagged_frames_into_a_segment_port_are_dropped() {
    if !root() {
        return;
    }
    let world = World::new(1);
    world.create(0, &json!({}));
    let (wire, far) = (world.members[0].wiretap("eth0"), world.outside.wiretap("eth0"));
    for v4 in FAMILIES {
        for tags in [vec![0x8100], vec![0x88a8, 0x8100]] {
            let mut datagram = Datagram::new(member_at(0, v4), outside_at(v4), Transport::udp(4_000, 4_001));
            datagram.tags = tags.into_iter().map(|ethertype| Tag { ethertype, id: 7 }).collect();
            wire.send(&datagram.frame_between(world.members[0].mac("eth0"), world.router.mac("seg0")));
        }
    }
    wait_until("four drops", Duration::from_secs(5), || reasons(&world, "vlan") == 4);
    assert!(!far.find(Duration::from_millis(50), |frame| frame.windows(2).any(|pair| pair == [0x0f, 0xa1])));
}

/// Drops of a reason over all hooks.
fn reasons(world: &World, reason: &str) -> u64 {
    let counters = world.hub.get("/v1/counters").expect(200);
    let hooks = counters["hooks"].as_array().unwrap();
    let all = hooks.iter().flat_map(|hook| hook["reasons"].as_array().unwrap());
    all.filter(|pair| pair[0] == reason).map(|pair| pair[1].as_u64().unwrap()).sum()
}

#[test]
fn bulk_tcp_goes_by_redirect_in_super_packets() {
    if !root() {
        return;
    }
    let world = World::new(1);
    world.create(0, &json!({"security_policies": [{"protocol": "tcp", "port": 5201, "action": "allow"}]}));
    let _server = world.members[0].background("iperf3 --server");
    wait_until("iperf3 listens", Duration::from_secs(5), || {
        world.members[0].succeeds("ss -Hltn 'sport = :5201' | grep -q LISTEN", Duration::from_secs(2))
    });
    for v4 in FAMILIES {
        let before = world.total("redirected");
        let script = format!("iperf3 --json --client {} --time 1", member_at(0, v4));
        let said = world.outside.try_sh(&script, Duration::from_secs(15)).expect_success();
        let report: Value = serde_json::from_str(&said).unwrap();
        let bytes = report["end"]["sum_received"]["bytes"].as_u64().unwrap();
        let redirected = world.total("redirected") - before;
        assert!(bytes > 1_000_000 && redirected > 100, "{bytes} bytes in {redirected} redirects");
        // Far fewer than one per 1,448 bytes: the packets stayed whole. Acknowledgements count as well.
        assert!(redirected < bytes / 1_448, "{bytes} bytes in {redirected} redirects");
    }
}

#[test]
fn xdp_gives_the_verdicts_of_tc() {
    if !root() {
        return;
    }
    let verdicts = ["off", "on"].map(|xdp| {
        let world = World::new(2);
        let config = ["up0", "seg0", "seg1"].iter().map(|name| {
            let role = if *name == "up0" { "uplink" } else { "segment" };
            format!("  - {{name: {name}, role: {role}, xdp: {xdp}}}\n")
        });
        let mut world = world;
        // XDP takes frames as a wire brings them: with whole checksums, unlike those between local stacks.
        // The far end of a veth takes frames that XDP redirects only with GRO on.
        for space in world.members.iter().chain([&world.outside]) {
            space.sh("ethtool --offload eth0 tx off gro on");
        }
        let config =
            hub_tests::lab::Config::default().with(&format!("interfaces:\n{}", config.collect::<String>()));
        world.hub.process().kill();
        world.hub.configure(&config);
        world.hub.restart();
        let attached = world.hub.get("/v1/status").expect(200);
        assert_eq!(attached["attachments"].to_string().contains("xdp_in"), xdp == "on", "{attached:#}");
        world.create(
            0,
            &json!({"security_policies": [
                {"protocol": "tcp", "port": 80, "action": "allow"},
                {"protocol": "tcp", "port": 81, "action": "reject"},
                {"protocol": "udp", "port": 53, "action": "allow"},
            ]}),
        );
        world.create(1, &json!({}));
        let _inside = world.members[0].serve(&[53, 80, 81, 82]);
        let _far = world.outside.serve(&[80]);
        for v4 in FAMILIES {
            let there = member_at(0, v4);
            world.outside.expect_tcp(there, 80, Answered);
            world.outside.expect_tcp(there, 81, Refused);
            world.outside.expect_tcp(there, 82, Silent);
            world.outside.expect_udp(there, 53, Answered);
            world.outside.expect_udp(there, 82, Silent);
            world.outside.expect_ping(there, Answered);
            world.members[0].expect_tcp(outside_at(v4), 80, Answered);
            world.members[1].expect_tcp(there, 80, Silent);
        }
        ["rule_reject", "default_deny", "inter_persona"].map(|reason| world.dropped("p0", reason) > 0)
    });
    assert_eq!(verdicts, [[true; 3]; 2]);
}
