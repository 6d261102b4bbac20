//! What a personality says, as clients meet it: rules in their order, rates, code points, applications; and an
//! interface that is renamed under it.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use hub_tests::effort::figure;
use hub_tests::lab::Outcome::{Answered, Refused, Silent};
use hub_tests::lab::resource::Which::{self, Open, Shut};
use hub_tests::lab::resource::{BOTH, OPEN_ONLY, Resource, SHUT_ONLY, SWITCH, resource_at};
use hub_tests::lab::speed::{iperf, is_within};
use hub_tests::lab::world::{FAMILIES, outside_at};
use hub_tests::lab::{echoes, wait_until};
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
fn rate(resource: &Resource, inward: bool, v4: bool) -> f64 {
    let (outside, member) = (&resource.world.outside, &resource.world.members[0]);
    let port = hub_tests::lab::resource::FREE;
    let end = if inward {
        iperf(outside, member, resource_at(v4), port, "--omit 1 --time 3")
    } else {
        iperf(member, outside, outside_at(v4), port, "--omit 1 --time 3")
    };
    end["sum_received"]["bits_per_second"].as_f64().unwrap() / 1e6
}

/// Code point and ports of a segment of TCP.
fn segment(frame: &[u8], v4: bool) -> Option<(u8, [u16; 2])> {
    let (code, at) = match (frame.get(12..14)?, v4) {
        ([8, 0], true) if frame.len() > 40 && frame[23] == 6 => (frame[15] >> 2, 34),
        ([0x86, 0xdd], false) if frame.len() > 60 && frame[20] == 6 => {
            (((frame[14] & 15) << 2) | (frame[15] >> 6), 54)
        }
        _ => return None,
    };
    let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    Some((code, [port(at), port(at + 2)]))
}

/// Code points of packets to the resource's port, as they are on the member's wire, and from there, outside.
fn code_points(resource: &Resource, v4: bool) -> [Option<u8>; 2] {
    let spaces = [&resource.world.members[0], &resource.world.outside];
    // The port is that of the target on one wire, and of the source on the other.
    [(spaces[0], 1), (spaces[1], 0)].map(|(space, place)| {
        let wire = space.wiretap("eth0");
        resource.world.outside.expect_tcp(resource_at(v4), BOTH, Answered);
        let mut found = None;
        wire.find(SWITCH, |frame| {
            let ours = segment(frame, v4).filter(|(_, ports)| ports[place] == BOTH);
            found = found.or(ours.map(|(code, _)| code));
            found.is_some()
        });
        found
    })
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
        for v4 in FAMILIES {
            let name = format!("{}, IPv4 {v4}", which.name());
            assert_eq!(code_points(&resource, v4), [Some(dscp), Some(dscp)], "{name}");
            // A machine that stands still loses time, and never makes anything faster: a good one of three.
            let mut seen = Vec::new();
            let found = (0..3).any(|_| {
                let rate = rate(&resource, inward, v4);
                seen.push(rate);
                assert!(rate < wanted * 1.05, "{name}: {rate} of {wanted} Mbit/s");
                is_within(rate, wanted, 5.0)
            });
            figure("S5", &format!("{name}: {seen:.1?} of {wanted} Mbit/s"));
            assert!(found, "{name}: {seen:?} of {wanted} Mbit/s");
        }
    }
}

/// The first words of a real client of TLS.
fn hello() -> Vec<u8> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let there = listener.local_addr().unwrap();
    let mut client = Command::new("openssl")
        .args(["s_client", "-servername", "web.example", "-connect", &there.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let mut words = vec![0; 8_192];
    let length = stream.read(&mut words).unwrap();
    words.truncate(length);
    client.kill().unwrap();
    client.wait().unwrap();
    assert_eq!(words[..2], [22, 3], "a record of a handshake");
    words
}

/// What becomes of a connection that begins with these words: they come back, or what the end was.
fn said(resource: &Resource, v4: bool, port: u16, words: &[u8]) -> Result<TcpStream, ErrorKind> {
    let mut stream = resource.world.outside.connect(resource_at(v4), port);
    stream.set_read_timeout(Some(SWITCH)).unwrap();
    stream.write_all(words).unwrap();
    let mut echo = vec![0; words.len()];
    stream.read_exact(&mut echo).map(|()| stream).map_err(|error| error.kind())
}

/// A definition with these applications beside a port for everything, and checks that work with them.
fn with_applications(which: Which, applications: &Value) -> Value {
    which.definition(&json!({
        "firewall_rules": [
            {"protocol": "tcp", "port": BOTH, "action": "allow"},
            {"protocol": "icmp", "direction": "both", "action": "allow"},
        ],
        "application_access_policy": applications,
    }))
}

/// What clients of SSH say first.
const BANNER: &[u8] = b"SSH-2.0-client\r\n";
/// A port of no application.
const OTHER: u16 = 8_022;

#[test]
fn applications_are_told_by_what_they_say_on_whatever_port() {
    if !root() {
        return;
    }
    let hello = hello();
    let resource = Resource::bare("");
    let _server = resource.world.members[0].serve(&[22, 443, OTHER]);
    let access = |name: &str, action: &str| json!({"application": name, "action": action});
    let listed = [access("ssh", "deny"), access("https", "allow"), access("dns", "allow")];
    resource.keep(&with_applications(Open, &json!({"default": "deny", "applications": listed})));
    resource.keep(&with_applications(Shut, &json!({"default": "allow", "applications": [listed[0]]})));
    resource.enlist(&json!({}));
    let became = |v4, port, words: &[u8]| said(&resource, v4, port, words).err();
    for v4 in FAMILIES {
        assert_eq!(became(v4, 443, &hello), None, "https is allowed, IPv4 {v4}");
        for words in [BANNER, b"GET / HTTP/1.1\r\n\r\n", b"something else"] {
            let ended = Some(ErrorKind::ConnectionReset);
            assert_eq!(became(v4, 443, words), ended, "{} on its port", words.escape_ascii());
        }
        for port in [22, OTHER] {
            resource.world.outside.expect_tcp(resource_at(v4), port, Silent);
        }
    }
    let end = resource.switch("shut", &json!({"urgent": true}));
    assert_eq!(end["outcome"], "committed", "{end:#}");
    for v4 in FAMILIES {
        for port in [443, OTHER] {
            assert_eq!(became(v4, port, &hello), None, "IPv4 {v4}, port {port}");
            assert_eq!(became(v4, port, b"something else"), None, "IPv4 {v4}, port {port}");
            assert_eq!(became(v4, port, BANNER), Some(ErrorKind::ConnectionReset), "IPv4 {v4}, port {port}");
        }
        resource.world.outside.expect_tcp(resource_at(v4), 22, Silent);
    }
}

#[test]
fn a_switch_cuts_one_application_and_keeps_another() {
    if !root() {
        return;
    }
    let hello = hello();
    let resource = Resource::bare("");
    let _server = resource.world.members[0].serve(&[22, 443]);
    for (which, action) in [(Open, "allow"), (Shut, "deny")] {
        let access = |name: &str, action: &str| json!({"application": name, "action": action});
        let listed = [access("ssh", action), access("https", "allow"), access("dns", "allow")];
        resource.keep(&with_applications(which, &json!({"default": "deny", "applications": listed})));
    }
    resource.enlist(&json!({}));
    let mut cut = FAMILIES.map(|v4| said(&resource, v4, 22, BANNER).unwrap());
    let mut kept = FAMILIES.map(|v4| said(&resource, v4, 443, &hello).unwrap());
    let end = resource.switch("shut", &json!({"drain": {"timeout": "1s"}}));
    // That port is one of the host's that stay reachable, so nobody waits for what is there.
    assert_eq!((&end["outcome"], &end["flows"]["idle"]), (&json!("committed"), &json!(2)), "{end:#}");
    for v4 in FAMILIES {
        let (cut, kept) = (&mut cut[usize::from(!v4)], &mut kept[usize::from(!v4)]);
        assert!(echoes(kept, SWITCH), "TLS goes on, IPv4 {v4}");
        cut.write_all(b"more").ok();
        let error = cut.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "SSH does not, IPv4 {v4}");
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
