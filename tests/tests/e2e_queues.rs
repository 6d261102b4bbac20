//! Queues of the kernel that personas have: they come, go and are put right, leave others their own, and marks are
//! written on what passes.
#![expect(clippy::indexing_slicing, reason = "a helper that cannot go on fails the test that called it")]

use std::net::IpAddr;
use std::time::Duration;

use hub_tests::lab::Outcome::Answered;
use hub_tests::lab::speed::iperf;
use hub_tests::lab::world::{FAMILIES, member_at, outside_at};
use hub_tests::lab::{World, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

#[test]
fn queues_come_and_go_with_their_personas_and_survive_the_daemon() {
    if !root() {
        return;
    }
    let mut world = World::new(1);
    let before = world.queues();
    let qos = json!({"qos": {"bandwidth": "10Mbps", "latency": "10ms"}});
    world.create(0, &qos);
    let shaped = world.queues();
    for part in ["qdisc htb 177: root", "class htb 177:10 ", "class htb 177:18 ", "qdisc tbf"] {
        assert!(shaped.contains(part), "{part} is missing: {shaped}");
    }
    world.hub.process().kill();
    assert_eq!(world.queues(), shaped, "the queues go on without the daemon");
    world.hub.restart();
    assert_eq!(world.queues(), shaped, "and are adopted as they are");
    // Somebody deletes and changes: it is put right.
    world
        .router
        .sh("tc qdisc del dev up0 root; tc class change dev seg0 parent 177:1 classid 177:10 htb rate 1mbit");
    wait_until("the queues are put right", Duration::from_secs(20), || world.queues() == shaped);
    // Other bandwidths change classes in place; classes of traffic come and go below them.
    let voice = json!([{"protocol": "udp", "port": 5060, "action": "allow", "priority": "voice"}]);
    world.replace(0, &json!({"qos": {"bandwidth": "20Mbps", "ceil": "30Mbps"}, "security_policies": voice}));
    let changed = world.queues();
    for part in ["177:11 parent 177:10", "177:13 parent 177:10", "ceil 30"] {
        assert!(changed.contains(part), "{part} is missing: {changed}");
    }
    world.replace(0, &qos);
    wait_until("the classes of traffic are gone", Duration::from_secs(10), || world.queues() == shaped);
    for number in 0..20 {
        world.hub.send("DELETE", "/v1/personas/p0", &Value::Null);
        wait_until("the queues are gone", Duration::from_secs(10), || world.queues() == before);
        if number < 19 {
            world.create(0, &qos);
        }
    }
    world.create(0, &qos);
    world.hub.process().stop();
    let folder = world.lab.folder().display().to_string();
    let down = ["down", "--bpffs", &format!("{folder}/bpf"), "--runtime-dir", &format!("{folder}/run")];
    world.hub.hubctl(&down).expect_success();
    // Where programs hang on a queue of their own (before Linux 6.6), that one goes with the hub.
    let none: String =
        before.lines().filter(|line| !line.contains("clsact")).map(|line| line.to_owned() + "\n").collect();
    assert_eq!(world.queues(), none);
}

#[test]
fn a_queue_of_somebody_else_stays_and_the_bandwidth_is_capped_all_the_same() {
    if !root() {
        return;
    }
    let world = World::new(1);
    world.router.sh("tc qdisc add dev seg0 root handle 5: tbf rate 1gbit burst 100kb limit 1mb");
    let foreign = world.router.sh("tc qdisc show dev seg0");
    world.create(0, &json!({"qos": {"bandwidth": "10Mbps"}}));
    let conditions = world.hub.get("/v1/personas/p0").body["conditions"].to_string();
    assert!(conditions.contains("ForeignQueue") && conditions.contains("`tbf 5:`"), "{conditions}");
    assert_eq!(world.router.sh("tc qdisc show dev seg0"), foreign);
    assert!(world.router.sh("tc qdisc show dev up0").contains("htb 177:"));
    for v4 in FAMILIES {
        let words = "--udp --bitrate 40M --length 1200 --time 4";
        let end = iperf(&world.outside, &world.members[0], member_at(0, v4), 5_203, words);
        let lost = end["sum"]["lost_percent"].as_f64().unwrap();
        let arrived = end["sum"]["bits_per_second"].as_f64().unwrap() * (100.0 - lost) / 1e8;
        assert!((9.0..10.4).contains(&arrived), "{arrived} Mbit/s");
    }
    assert!(world.dropped("p0", "policed") > 1_000);
    world.router.sh("tc qdisc del dev seg0 root");
    wait_until("queues take over", Duration::from_secs(20), || {
        world.router.sh("tc qdisc show dev seg0").contains("htb 177:")
            && world.hub.get("/v1/personas/p0").body["conditions"] == json!([])
    });
}

#[test]
fn code_points_are_written_by_persona_and_rule() {
    if !root() {
        return;
    }
    let world = World::new(1);
    let rule = json!({"protocol": "udp", "port": 5060, "action": "allow", "dscp": "CS5"});
    let all = json!({"protocol": "any", "action": "allow"});
    world.create(0, &json!({"qos": {"dscp": "AF41"}, "security_policies": [rule, all]}));
    let _server = world.members[0].serve(&[5060, 5061]);
    for v4 in FAMILIES {
        for (port, dscp) in [(5060, 40), (5061, 34)] {
            let (inside, outside) = (world.members[0].wiretap("eth0"), world.outside.wiretap("eth0"));
            world.outside.expect_udp(member_at(0, v4), port, Answered);
            // Both ways: the rule marks what belongs to the connection.
            for (wire, target) in [(inside, member_at(0, v4)), (outside, outside_at(v4))] {
                let marked = |frame: &[u8]| code_point(frame, target) == Some(dscp);
                assert!(wire.find(Duration::from_secs(5), marked), "port {port}, v4 {v4}: no {dscp}");
            }
        }
    }
}

/// Code point of a UDP packet to an address, if the frame is one and its IPv4 header sums up.
fn code_point(frame: &[u8], target: IpAddr) -> Option<u8> {
    let ip = frame.get(14..)?;
    match target {
        IpAddr::V4(target) if frame[12..14] == [8, 0] && ip[9] == 17 && ip[16..20] == target.octets() => {
            let words = ip[..20].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
            let sum: u32 = words.sum();
            assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "the header sum is wrong: {ip:x?}");
            Some(ip[1] >> 2)
        }
        IpAddr::V6(target)
            if frame[12..14] == [0x86, 0xdd] && ip[6] == 17 && ip[24..40] == target.octets() =>
        {
            Some((ip[0] & 15) << 2 | ip[1] >> 6)
        }
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}
