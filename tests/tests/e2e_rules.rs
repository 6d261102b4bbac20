//! What rules can say, asked of the running hub by real clients and by `hubctl why`.
#![expect(clippy::indexing_slicing, reason = "a helper that cannot go on fails the test that called it")]

use hub_tests::effort::figure;
use hub_tests::lab::Outcome::{Answered, Refused, Silent};
use hub_tests::lab::speed::{arrived, is_within};
use hub_tests::lab::world::{FAMILIES, member_at, outside_at, with_port};
use hub_tests::lab::{World, wait_until};
use hub_tests::root;
use serde_json::{Value, json};
use std::time::Duration;

/// A hub with one persona of these fields, whose member serves these ports.
fn world(fields: &Value) -> World {
    let world = World::new(1);
    world.create(0, fields);
    world
}

/// Asks a real client and the loaded program; both must say the same, and the program the position.
#[track_caller]
fn both_say(world: &World, port: u16, passes: bool, rule: Option<u16>) {
    for v4 in FAMILIES {
        let there = member_at(0, v4);
        world.outside.expect_tcp(there, port, if passes { Answered } else { Silent });
        let question = format!("tcp {} {} --in up0", outside_at(v4), with_port(there, port));
        let (answer, says) = world.why(&question);
        assert_eq!(says, passes, "{answer:#}");
        assert_eq!(answer["rules"][0]["rule"], json!(rule), "{answer:#}");
    }
}

/// As many as a persona may have.
const MOST: u16 = 1_024;

#[test]
fn the_last_of_very_many_rules_decides() {
    if !root() {
        return;
    }
    let rule = |number: u16| match number {
        // Only the last lets the port in; one before it is for the other half of the world.
        _ if number + 1 == MOST => json!({"protocol": "tcp", "port": 443, "action": "allow"}),
        1_000 => json!({"protocol": "tcp", "port": 443, "source": "203.0.113.0/24", "action": "deny"}),
        _ => json!({"protocol": "tcp", "port": 2_000 + number, "source": "192.0.2.0/24", "action": "deny"}),
    };
    let rules: Vec<Value> = (0..MOST).map(rule).collect();
    let world = world(&json!({"security_policies": rules}));
    let _inside = world.members[0].serve(&[443, 2_000, 4_000]);
    both_say(&world, 443, true, Some(MOST - 1));
    both_say(&world, 4_000, false, None);
    let (answer, passes) =
        world.why(&format!("tcp {} {} --in up0", outside_at(true), with_port(member_at(0, true), 2_999)));
    assert!(!passes && answer["rules"][0]["rule"] == 999, "{answer:#}");
    let more = json!({"security_policies": vec![rule(0); usize::from(MOST) + 1]});
    let refused = world.hub.send("PATCH", "/v1/personas/p0", &more).expect(422);
    assert!(refused.to_string().contains("1024"), "{refused:#}");
}

#[test]
fn ports_are_numbers_ranges_and_lists_and_the_first_match_wins() {
    if !root() {
        return;
    }
    let world = world(&json!({"security_policies": [
        {"name": "hole", "protocol": "tcp", "port": 8085, "action": "deny"},
        {"name": "range", "protocol": "tcp", "port": "8080-8089", "action": "allow"},
        {"name": "list", "protocol": "tcp", "port": [443, "9000-9001"], "action": "allow"},
        {"name": "never", "protocol": "tcp", "port": 8085, "action": "allow"},
    ]}));
    let _inside = world.members[0].serve(&[443, 8080, 8085, 8089, 8090, 9001]);
    both_say(&world, 8080, true, Some(1));
    both_say(&world, 8085, false, Some(0));
    both_say(&world, 8089, true, Some(1));
    both_say(&world, 8090, false, None);
    both_say(&world, 443, true, Some(2));
    both_say(&world, 9001, true, Some(2));
    let counters = world.hub.get("/v1/personas/p0/counters").expect(200);
    let hits = |rule: u16| -> u64 {
        let rules = counters["rules"].as_array().unwrap().iter().filter(|count| count["rule"] == rule);
        rules.map(|count| count["packets"].as_u64().unwrap()).sum()
    };
    // One admitted flow each per family and port; of what is refused, every packet.
    assert_eq!((hits(1), hits(2), hits(3)), (4, 4, 0), "{counters:#}");
    assert!(hits(0) >= 2, "{counters:#}");
}

#[test]
fn sources_are_prefixes() {
    if !root() {
        return;
    }
    let world = world(&json!({"security_policies": [
        {"protocol": "tcp", "port": 80, "source": ["192.0.2.8/29", "2001:db8:2::/124"], "action": "deny"},
        {"protocol": "tcp", "port": 80, "source": ["192.0.2.0/24", "2001:db8::/32"], "action": "allow"},
    ]}));
    let _inside = world.members[0].serve(&[80]);
    // 192.0.2.10 and ::10 are in the first list and not in it, as the prefixes say.
    let there = member_at(0, true);
    world.outside.expect_tcp(there, 80, Silent);
    world.outside.expect_tcp(member_at(0, false), 80, Answered);
    let (answer, _) = world.why(&format!("tcp 192.0.2.10 {there}:80 --in up0"));
    assert_eq!(answer["rules"][0]["rule"], 0, "{answer:#}");
    let (answer, passes) = world.why(&format!("tcp 192.0.2.16 {there}:80 --in up0"));
    assert!(passes && answer["rules"][0]["rule"] == 1, "{answer:#}");
}

#[test]
fn icmp_types_are_told_apart() {
    if !root() {
        return;
    }
    let world = world(&json!({"security_policies": [
        {"protocol": "icmp", "icmp_type": "echo-request", "source": "192.0.2.0/24", "action": "allow"},
        {"protocol": "icmpv6", "icmp_type": "echo-request", "source": "2001:db8:2::/64", "action": "allow"},
    ]}));
    for v4 in FAMILIES {
        world.outside.expect_ping(member_at(0, v4), Answered);
    }
    world.replace(
        0,
        &json!({"security_policies": [
            {"protocol": "icmp", "icmp_type": 13, "action": "allow"},
            {"protocol": "icmpv6", "icmp_type": "echo-reply", "action": "allow"},
        ]}),
    );
    for v4 in FAMILIES {
        world.outside.expect_ping(member_at(0, v4), Silent);
        // Members ask by their own leave.
        world.members[0].expect_ping(outside_at(v4), Answered);
    }
}

#[test]
fn egress_rules_and_lists_bind_members() {
    if !root() {
        return;
    }
    let world = world(&json!({
        "security_policies": [
            {"direction": "egress", "protocol": "tcp", "port": 25, "action": "deny"},
            {"direction": "egress", "protocol": "tcp", "action": "allow"},
        ],
    }));
    let _outside = world.outside.serve(&[25, 80]);
    for v4 in FAMILIES {
        let (member, far) = (&world.members[0], outside_at(v4));
        member.expect_tcp(far, 80, Answered);
        member.expect_tcp(far, 25, Silent);
        member.expect_udp(far, 80, Answered);
        let (answer, passes) =
            world.why(&format!("tcp {} {} --in seg0", member_at(0, v4), with_port(far, 25)));
        assert!(!passes && answer["rules"][0]["direction"] == "egress", "{answer:#}");
    }
}

#[test]
fn egress_lists_of_prefixes_bind_members_each_by_itself() {
    if !root() {
        return;
    }
    let world = world(&json!({}));
    let _outside = world.outside.serve(&[80]);
    let whole = |v4: bool| if v4 { "192.0.2.0/24" } else { "2001:db8:2::/64" };
    let elsewhere = |v4: bool| if v4 { "198.51.100.0/24" } else { "2001:db8:9::/64" };
    let host = |v4: bool| outside_at(v4).to_string();
    for v4 in FAMILIES {
        // Lists, and whether members reach the outside by this family and by the other.
        let cases = [
            (json!({}), [true, true]),
            (json!({"deny": [whole(v4)]}), [false, true]),
            (json!({"deny": [elsewhere(v4)]}), [true, true]),
            // Whoever allows something allows nothing else, of neither family.
            (json!({"allow": [whole(v4)]}), [true, false]),
            (json!({"allow": [elsewhere(v4)]}), [false, false]),
            (json!({"allow": [whole(v4), whole(!v4)], "deny": [host(v4)]}), [false, true]),
            (json!({"allow": [host(v4)], "deny": [elsewhere(v4)]}), [true, false]),
        ];
        for (lists, [own, other]) in cases {
            world.replace(0, &json!({"egress": lists}));
            for (family, passes) in [(v4, own), (!v4, other)] {
                let far = outside_at(family);
                let (answer, says) =
                    world.why(&format!("tcp {} {} --in seg0", member_at(0, family), with_port(far, 80)));
                assert_eq!(says, passes, "{lists}, {far}: {answer:#}");
                let tcp =
                    world.members[0].tcp(far, 80, Duration::from_millis(if passes { 5_000 } else { 350 }));
                assert_eq!(tcp, if passes { Answered } else { Silent }, "{lists}, {far}");
            }
        }
    }
}

#[test]
fn strict_refuses_protocols_that_no_rule_mentions() {
    if !root() {
        return;
    }
    let rules = json!([{"protocol": "tcp", "port": 80, "action": "allow"}]);
    let world = world(&json!({"strict": true, "security_policies": rules, "default_action": "reject"}));
    let _inside = world.members[0].serve(&[53, 80]);
    for v4 in FAMILIES {
        let there = member_at(0, v4);
        world.outside.expect_tcp(there, 80, Answered);
        world.outside.expect_tcp(there, 53, Refused);
        assert_ne!(world.outside.udp(there, 53, Duration::from_millis(350)), Answered);
        assert_ne!(world.outside.ping(there, Duration::from_millis(350)), Answered);
    }
}

#[test]
fn a_rate_in_bits_lets_its_bits_pass() {
    if !root() {
        return;
    }
    // The flood is of datagrams; those who measure it talk about it by TCP.
    let world = world(&json!({"security_policies": [
        {"protocol": "udp", "action": "rate_limit", "rate": "10Mbps"},
        {"protocol": "tcp", "action": "allow"},
    ]}));
    for v4 in FAMILIES {
        let headers = if v4 { 28.0 } else { 48.0 };
        // A machine that stands still loses time, and never makes anything faster: a good one of three.
        let found = (0..3).any(|_| {
            let before = world.dropped("p0", "rate_limit");
            let words = "--udp --bitrate 40M --length 1200 --time 5";
            let carried = arrived(&world.outside, &world.members[0], member_at(0, v4), 5_222, words);
            // Whole packets count. What may come at once, a tenth of a second's worth, comes on top of five seconds.
            let rate = carried * (1_200.0 + headers) / 1_200.0;
            let dropped = world.dropped("p0", "rate_limit") - before;
            figure("P11", &format!("IPv4 {v4}: {rate:.2} of 40 Mbit/s arrive, {dropped} packets dropped"));
            assert!(rate < 11.0, "{rate} Mbit/s");
            assert!(dropped > 1_000, "{dropped} packets are dropped");
            is_within(rate, 10.0, 10.0)
        });
        assert!(found, "IPv4 {v4}: see the figures");
    }
}

#[test]
fn a_rule_that_logs_tells_followers_of_the_stream() {
    if !root() {
        return;
    }
    let world = world(&json!({"security_policies": [
        {"protocol": "tcp", "port": 80, "action": "log"},
        {"protocol": "tcp", "port": 80, "action": "allow"},
        {"protocol": "tcp", "port": 23, "action": "deny", "log": true},
    ]}));
    let _inside = world.members[0].serve(&[80]);
    let file = world.lab.folder().join("events");
    let socket = world.lab.folder().join("api.sock");
    let _follower = world.router.background(&format!(
        "curl --silent --no-buffer --unix-socket {} 'http://hub/v1/events?type=packet' --output {}",
        socket.display(),
        file.display()
    ));
    let seen = |wanted: &dyn Fn(&Value) -> bool| {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let data = text.lines().filter_map(|line| line.strip_prefix("data: ").or(line.strip_prefix("data:")));
        data.filter_map(|line| serde_json::from_str(line).ok()).any(|event| wanted(&event))
    };
    for v4 in FAMILIES {
        let (there, here) = (member_at(0, v4), outside_at(v4));
        wait_until("a log event", Duration::from_secs(10), || {
            world.outside.expect_tcp(there, 80, Answered);
            seen(&|event: &Value| {
                event["action"] == "log"
                    && event["target_port"] == 80
                    && event["source"] == json!(here)
                    && event["target"] == json!(there)
                    && event["target_persona"] == "p0"
                    && event["port"] == "up0"
            })
        });
        world.outside.expect_tcp(there, 23, Silent);
        wait_until("a drop event", Duration::from_secs(5), || {
            seen(&|event: &Value| {
                event["action"] == "drop"
                    && event["reason"] == "rule_deny"
                    && event["rule"] == 2
                    && event["target_port"] == 23
                    && event["source"] == json!(here)
            })
        });
    }
}
