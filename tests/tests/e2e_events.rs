//! Header bytes of events, against what `tcpdump` saw.

use std::time::Duration;

use hub_common::event::HEADER_BYTES;
use hub_tests::lab::Outcome::Silent;
use hub_tests::lab::world::{FAMILIES, member_at, outside_at};
use hub_tests::lab::{World, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

/// The digits of `tcpdump -x`, from the IP header on.
fn digits(text: &str) -> String {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("0x")?.split_once(": "));
    lines.flat_map(|(_, bytes)| bytes.chars().filter(char::is_ascii_hexdigit)).collect()
}

#[test]
fn events_show_the_bytes_that_tcpdump_saw() {
    if !root() {
        return;
    }
    let world = World::new(1);
    world.create(
        0,
        &json!({"security_policies": [{"protocol": "tcp", "port": 23, "action": "deny", "log": true}]}),
    );
    let folder = world.lab.folder();
    let (events, socket) = (folder.join("events"), folder.join("api.sock"));
    let _follower = world.router.background(&format!(
        "curl --silent --no-buffer --unix-socket {} 'http://hub/v1/events?type=packet' --output {}",
        socket.display(),
        events.display()
    ));
    for v4 in FAMILIES {
        let (there, here) = (member_at(0, v4), outside_at(v4));
        let capture = folder.join(format!("capture{}", u8::from(v4)));
        let _tcpdump = world.router.background(&format!(
            "tcpdump -Z root -lnxi up0 'dst host {there} and tcp and dst port 23' > {} 2>&1",
            capture.display()
        ));
        let captured = || std::fs::read_to_string(&capture).unwrap_or_default();
        wait_until("tcpdump listens", PATIENCE, || captured().contains("listening"));
        let seen = || {
            let text = std::fs::read_to_string(&events).unwrap_or_default();
            let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
            let values = data.filter_map(|line| serde_json::from_str::<Value>(line.trim()).ok());
            values.into_iter().find(|event| event["target"] == json!(there))
        };
        wait_until("an event and a capture", PATIENCE, || {
            world.outside.expect_tcp(there, 23, Silent);
            seen().is_some() && digits(&captured()).len() >= 2 * 40
        });
        let event = seen().unwrap();
        let headers = event["headers"].as_str().unwrap().to_owned();
        // A SYN with its options is 60 bytes long, 80 with IPv6.
        assert_eq!(headers.len(), 2 * if v4 { 60 } else { HEADER_BYTES }, "{headers}");
        assert!(digits(&captured()).contains(&headers), "{headers}\n{}", captured());
        assert_eq!(event["action"], "drop");
        assert_eq!((&event["reason"], &event["rule"]), (&json!("rule_deny"), &json!(0)));
        assert_eq!((&event["source"], &event["target"]), (&json!(here), &json!(there)));
        assert_eq!((&event["protocol"], &event["target_port"]), (&json!("tcp"), &json!(23)));
        assert_eq!(event["target_persona"], "p0");
        let port = u16::from_str_radix(headers.get(if v4 { 40..44 } else { 80..84 }).unwrap(), 16).unwrap();
        assert_eq!(event["source_port"], json!(port));
    }
}
