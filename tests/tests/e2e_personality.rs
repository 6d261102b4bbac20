//! What a personality says, as clients meet it: rules in their order, rates, code points; and an interface that is
//! renamed under it.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::time::Duration;

use hub_tests::effort::figure;
use hub_tests::lab::Outcome::{Answered, Refused, Silent};
use hub_tests::lab::resource::Which::{Open, Shut};
use hub_tests::lab::resource::{BOTH, OPEN_ONLY, Resource, SHUT_ONLY, SWITCH, resource_at};
use hub_tests::lab::speed::{iperf, is_within};
use hub_tests::lab::wait_until;
use hub_tests::lab::world::{FAMILIES, outside_at};
use hub_tests::root;
use serde_json::{Value, json};

/// Packets that each rule judged, in the order of the document.
fn hits(resource: &Resource, count: usize) -> Vec<u64> {
    let id = resource.view()["persona"].as_str().unwrap().to_owned();
    let counters = resource.world.hub.get(&format!("/v1/personas/{id}/counters")).expect(200);
    let mut hits = vec![0; count];
    for rule in counters["rules"].as_array().unwrap() {
        let index = rule["rule"].as_u64().unwrap() as usize;
        hits[index] += rule["packets"].as_u64().unwrap_or(0);
    }
    hits
}

#[test]
fn the_first_rule_that_fits_decides_and_keeps_its_count_through_switches() {
    if !root() {
        return;
    }
    let resource = Resource::bare("");
    let outside: Vec<String> = FAMILIES.map(|v4| outside_at(v4).to_string()).into();
    // From one host a port is closed, to all others it is open; another port is the other way round.
    let rules = json!([
        {"source_ip": outside, "protocol": "tcp", "port": OPEN_ONLY, "action": "deny"},
        {"protocol": "tcp", "port": [OPEN_ONLY, BOTH], "action": "allow"},
        {"source_ip": outside, "protocol": "tcp", "port": SHUT_ONLY, "action": "allow"},
        {"protocol": "tcp", "action": "reject"},
        {"protocol": "icmp", "action": "allow"},
    ]);
    let mut first = Open.definition(&json!({"firewall_rules": rules, "default_action": "deny"}));
    first["dns_servers"] = Value::Null;
    first.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    resource.keep(&first);
    resource.keep(&Shut.definition(&json!({})));
    resource.enlist(&json!({}));
    let before = hits(&resource, 5);
    for v4 in FAMILIES {
        let there = resource_at(v4);
        resource.world.outside.expect_tcp(there, OPEN_ONLY, Silent);
        resource.world.outside.expect_tcp(there, BOTH, Answered);
        resource.world.outside.expect_tcp(there, SHUT_ONLY, Answered);
        resource.world.outside.expect_tcp(there, 9_999, Refused);
        resource.world.outside.expect_ping(there, Answered);
    }
    let own = hits(&resource, 5);
    let grown: Vec<u64> = own.iter().zip(&before).map(|(after, before)| after - before).collect();
    assert!(grown[0] >= 2, "each try counts: {grown:?}");
    assert_eq!(grown[1..], [2, 2, 2, 2], "once for each connection of each family");
    assert_eq!(resource.switch("shut", &json!({"urgent": true}))["outcome"], "committed");
    for v4 in FAMILIES {
        resource.world.outside.expect_tcp(resource_at(v4), SHUT_ONLY, Answered);
    }
    assert_eq!(resource.switch("open", &json!({"urgent": true}))["outcome"], "committed");
    let back = hits(&resource, 5);
    assert_eq!(back[1..4], own[1..4], "what was counted is there");
    assert!(back[0] >= own[0] && back[4] >= own[4], "{own:?} {back:?}");
    resource.world.outside.expect_tcp(resource_at(true), BOTH, Answered);
    assert_eq!(hits(&resource, 5)[1], own[1] + 1, "and goes on");
}

/// Megabits per second to the resource, or from it.
fn rate(resource: &Resource, inward: bool) -> f64 {
    let (outside, member) = (&resource.world.outside, &resource.world.members[0]);
    let port = hub_tests::lab::resource::FREE;
    let end = if inward {
        iperf(outside, member, resource_at(true), port, "--omit 1 --time 3")
    } else {
        iperf(member, outside, outside_at(true), port, "--omit 1 --time 3")
    };
    end["sum_received"]["bits_per_second"].as_f64().unwrap() / 1e6
}

/// Code points of packets to the resource's port, and from the resource, as they are on the member's wire.
fn code_points(resource: &Resource) -> [Option<u8>; 2] {
    let wire = resource.world.members[0].wiretap("eth0");
    resource.world.outside.expect_tcp(resource_at(true), BOTH, Answered);
    let mut found = None;
    wire.find(SWITCH, |frame| {
        let is_ours = frame.len() > 40 && frame[12..14] == [8, 0] && frame[23] == 6;
        if is_ours && frame[36..38] == BOTH.to_be_bytes() {
            found = Some(frame[15] >> 2);
        }
        found.is_some()
    });
    let wire = resource.world.outside.wiretap("eth0");
    resource.world.outside.expect_tcp(resource_at(true), BOTH, Answered);
    let mut back = None;
    wire.find(SWITCH, |frame| {
        let is_ours = frame.len() > 40 && frame[12..14] == [8, 0] && frame[23] == 6;
        if is_ours && frame[34..36] == BOTH.to_be_bytes() {
            back = Some(frame[15] >> 2);
        }
        back.is_some()
    });
    [found, back]
}

#[test]
fn rates_and_code_points_come_with_the_personality() {
    if !root() {
        return;
    }
    let resource = Resource::bare("");
    resource.keep(&Open.definition(&json!({"qos_settings": {"bandwidth": "60Mbps", "dscp": "AF21"}})));
    resource.keep(&Shut.definition(&json!({"qos_settings": {"bandwidth": "20Mbps", "priority": "video"}})));
    resource.enlist(&json!({}));
    for (which, wanted, dscp, inward) in [(Open, 60.0, 18, true), (Shut, 20.0, 34, false)] {
        if resource.view()["current"] != format!("{}@1", which.name()) {
            assert_eq!(resource.switch(which.name(), &json!({"urgent": true}))["outcome"], "committed");
        }
        assert_eq!(code_points(&resource), [Some(dscp), Some(dscp)], "{}", which.name());
        // A machine that stands still loses time, and never makes anything faster: a good one of three.
        let mut seen = Vec::new();
        let found = (0..3).any(|_| {
            let rate = rate(&resource, inward);
            seen.push(rate);
            assert!(rate < wanted * 1.05, "{rate} of {wanted} Mbit/s");
            is_within(rate, wanted, 5.0)
        });
        figure("S5", &format!("{seen:.1?} of {wanted} Mbit/s"));
        assert!(found, "{seen:?} of {wanted} Mbit/s");
    }
}

#[test]
fn a_renamed_interface_keeps_its_personality() {
    if !root() {
        return;
    }
    let resource = Resource::bare("");
    resource.keep(&Open.definition(&json!({})));
    resource.keep(&Shut.definition(&json!({})));
    let member = &resource.world.members[0];
    let mac = member.mac("eth0").map(|byte| format!("{byte:02x}")).join(":");
    resource.enlist(&json!({"interface": {"mac": mac}}));
    resource.expect_whole(Open, "before");
    // Old kernels rename only what is down; routes and IPv6 addresses go with that.
    member.sh("ip link set eth0 down && ip link set eth0 name lan7 && ip link set lan7 up");
    let whole = |which| resource.parts_on("lan7").whole() == Some(which);
    wait_until("it is whole again", SWITCH, || whole(Open));
    for v4 in FAMILIES {
        wait_until("it is reached", Duration::from_secs(10), || resource.tcp(v4, BOTH) == Answered);
    }
    let end = resource.switch("shut", &json!({}));
    assert_eq!(end["outcome"], "committed", "{end:#}");
    assert!(whole(Shut), "{}", resource.parts_on("lan7"));
    let route = member.sh("ip route get 198.51.100.1");
    assert!(route.contains(" dev lan7 "), "{route}");
}
