//! The source's own request, on real packets: what it says passes, and nothing else.

use std::time::Duration;

use hub_tests::lab::Outcome::{Answered, Silent};
use hub_tests::lab::world::{FAMILIES, member_at, outside_at, with_port};
use hub_tests::lab::{World, wait_until};
use hub_tests::root;
use serde_json::json;

/// The request of the source, with a range of each family and an end in the future.
fn source() -> serde_json::Value {
    json!({
        "name": "TempDevNetwork",
        "ip_range": ["10.100.0.0/24", "fd00:100:0::/64"],
        "protocols": ["tcp", "udp"],
        "qos": {"bandwidth": "100Mbps", "latency": "50ms"},
        "security_policies": [
            {"protocol": "tcp", "port": 80, "action": "allow"},
            {"protocol": "tcp", "port": 22, "action": "deny"}
        ],
        "expiration": "2099-12-31T23:59:59Z"
    })
}

#[test]
fn the_request_of_the_source_does_what_it_says() {
    if !root() {
        return;
    }
    let world = World::new(1);
    let member = &world.members[0];
    let _inside = member.serve(&[22, 53, 80, 443]);
    let answer = world.hub.send("POST", "/v1/personas", &source());
    let location = answer.header("location").expect("a Location header").to_owned();
    let view = answer.expect(201);
    assert_eq!(location, format!("/v1/personas/{}", view["id"].as_str().unwrap()));
    world.active("TempDevNetwork");
    for v4 in FAMILIES {
        let (there, here) = (member_at(0, v4), outside_at(v4));
        world.outside.expect_tcp(there, 80, Answered);
        world.outside.expect_tcp(there, 22, Silent);
        world.outside.expect_tcp(there, 443, Silent);
        world.outside.expect_udp(there, 53, Answered);
        world.outside.expect_ping(there, Silent);
        member.expect_ping(here, Silent);

        let icmp = if v4 { "icmp" } else { "icmpv6" };
        let asked = |protocol: &str, port: Option<u16>| {
            let target = port.map_or_else(|| there.to_string(), |port| with_port(there, port));
            world.why(&format!("{protocol} {here} {target} --in up0"))
        };
        let (web, passes) = asked("tcp", Some(80));
        assert!(passes && web["verdict"] == "pass" && web["rules"][0]["rule"] == 0, "{web:#}");
        let (ssh, passes) = asked("tcp", Some(22));
        assert!(!passes && ssh["reason"] == "rule_deny" && ssh["rules"][0]["rule"] == 1, "{ssh:#}");
        let (tls, passes) = asked("tcp", Some(443));
        assert!(!passes && tls["reason"] == "default_deny" && tls["rules"][0]["rule"].is_null(), "{tls:#}");
        assert!(asked("udp", Some(53)).1);
        let (ping, passes) = asked(icmp, None);
        assert!(!passes && ping["reason"] == "protocol", "{ping:#}");
    }
    for reason in ["rule_deny", "default_deny", "protocol"] {
        assert!(world.dropped("TempDevNetwork", reason) >= 2, "{reason}");
    }
}

#[test]
fn members_reach_the_outside_and_get_their_answers() {
    if !root() {
        return;
    }
    let world = World::new(1);
    let _outside = world.outside.serve(&[53, 8080]);
    world.hub.send("POST", "/v1/personas", &source()).expect(201);
    world.active("TempDevNetwork");
    for v4 in FAMILIES {
        world.members[0].expect_tcp(outside_at(v4), 8080, Answered);
        world.members[0].expect_udp(outside_at(v4), 53, Answered);
    }
}

#[test]
fn who_does_not_wait_is_told_where_to_ask() {
    if !root() {
        return;
    }
    let world = World::new(1);
    let _server = world.members[0].serve(&[80]);
    let body = World::definition(0, &json!({})).to_string();
    let headers = [("Prefer", "respond-async"), ("Idempotency-Key", "once")];
    // Twice the same, as by a client that lost the first answer.
    let [first, again] = [0, 1].map(|_| world.hub.request("POST", "/v1/personas", &headers, &body));
    assert_eq!((first.status, again.status), (202, 202), "{:#}", first.body);
    assert!(["pending", "provisioning"].contains(&first.body["state"].as_str().unwrap()), "{:#}", first.body);
    assert_eq!(first.body["id"], again.body["id"]);
    let location = first.header("location").unwrap().to_owned();
    wait_until("it is active where the answer said", Duration::from_secs(20), || {
        world.hub.get(&location).expect(200)["state"] == "active"
    });
    for v4 in FAMILIES {
        world.outside.expect_tcp(member_at(0, v4), 80, Answered);
    }
    // What is wrong is told at once all the same.
    let refused = world.hub.request("POST", "/v1/personas", &headers[..1], &body);
    assert_eq!(refused.status, 409, "{:#}", refused.body);
}
