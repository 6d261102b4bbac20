//! Bad input: each document with the place and the words that its message must have.

use std::path::Path;

use proptest::prelude::*;
use serde_json::json;

use super::read::{persona_from_slice, persona_from_value};
use super::snippet::Diagnostic;
use super::{hub, source};
use crate::command::Problem;

const SOURCE_JSON: &str = r#"{
  "name": "TempDevNetwork",
  "ip_range": "10.100.0.0/24",
  "protocols": ["tcp", "udp"],
  "qos": {
    "bandwidth": "100Mbps",
    "latency": "50ms"
  },
  "security_policies": [
    {"protocol": "tcp", "port": 80, "action": "allow"},
    {"protocol": "tcp", "port": 22, "action": "deny"}
  ],
  "expiration": "2024-12-31T23:59:59Z"
}"#;

/// Errors of a persona file, as an operator sees them.
fn shown(text: &str) -> String {
    let errors = source::parse(Path::new("a.yaml"), text).unwrap_err();
    listed(&errors)
}

fn listed(errors: &[Diagnostic]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn persona(lines: &str) -> String {
    format!("kind: persona\nname: a\nip_range: 10.1.0.0/24\n{lines}\n")
}

#[test]
fn the_sources_json_is_a_document_and_keeps_its_form() {
    let document = persona_from_slice(SOURCE_JSON.as_bytes()).unwrap();
    let written = serde_json::to_value(&document).unwrap();
    assert_eq!(written, serde_json::from_str::<serde_json::Value>(SOURCE_JSON).unwrap());
    let sources = source::parse(Path::new("a.yaml"), &format!("kind: persona\n---\n{SOURCE_JSON}"));
    assert!(sources.is_err(), "the first document lacks everything");
}

#[test]
fn bad_values_are_shown_in_place_with_a_hint() {
    let table = [
        (
            "qos:\n  bandwidth: 100mb",
            "a.yaml:5:14",
            "  |              ^^^^^ qos.bandwidth",
            "use a unit like 100Mbps",
        ),
        ("qos: {latency: 50}", "a.yaml:4:16", "^^ qos.latency", "expected a string"),
        ("protocols: [tcp, upd]", "a.yaml:4:18", "^^^ protocols[1]", "use a name like tcp"),
        ("protocls: [tcp]", "a.yaml:4:1", "^^^^^^^^^ protocls", "did you mean `protocols`?"),
        (
            "security_policies:\n  - {port: 80, acton: allow}",
            "a.yaml:5:16",
            "acton",
            "did you mean `action`?",
        ),
        (
            "security_policies:\n  - port: 80",
            "a.yaml:5:5",
            "security_policies[0]",
            "field `action` is missing",
        ),
        (
            "security_policies:\n  - action: permit",
            "a.yaml:5:13",
            "^^^^^^",
            "use allow, deny, reject, log, alert, rate_limit or quarantine",
        ),
        ("security_policies:\n  - {port: 80-, action: deny}", "a.yaml:5:12", "^^^", "a range like 80-90"),
        (
            "security_policies:\n  - {port: [90-80], action: deny}",
            "a.yaml:5:13",
            "^^^^^",
            "smaller port first",
        ),
        (
            "security_policies:\n  - {protocol: gre, port: 1, action: deny}",
            "a.yaml:5:27",
            "port",
            "have ports",
        ),
        (
            "security_policies:\n  - {source: 10.0.0.1/8, action: deny}",
            "a.yaml:5:14",
            "source",
            "use 10.0.0.0/8",
        ),
        (
            "security_policies:\n  - {tcp_flags: 'syn,fyn', action: deny}",
            "a.yaml:5:17",
            "^^^^^^^^^",
            "use fin, syn",
        ),
        ("security_policies:", "a.yaml:4:", "security_policies", "has no value"),
        ("expiration: 2030-01-01", "a.yaml:4:13", "^^^^^^^^^^", "RFC 3339"),
        ("expiration: 2030-01-01T00:00:00Z\nttl: 4h", "a.yaml:5:6", "ttl", "keep one of them"),
        ("ttl: 4", "a.yaml:4:6", "ttl", "expected a string"),
        ("ttl: 4x", "a.yaml:4:6", "ttl", "4h or 2d"),
        ("strict: yes", "a.yaml:4:9", "strict", "expected a boolean"),
        ("endpoints:\n  - {name: x}", "a.yaml:5:5", "endpoints[0]", "namespace: NAME"),
        ("endpoints:\n  - {name: x, pid: 9, address: 10.2.0.9}", "a.yaml:5:32", "address", "not in ip_range"),
        ("endpoints:\n  - {name: x, pid: 9, address: 10.1.0.1}", "a.yaml:5:32", "address", "reserved"),
        ("interfaces: [eth1, eth2]", "a.yaml:4:20", "interfaces[1]", "{name, prefixes}"),
        ("peers: [a]", "a.yaml:4:9", "peers[0]", "no peer of itself"),
        ("egress: {next_hop: router}", "a.yaml:4:20", "egress.next_hop", "for example 192.0.2.1"),
        ("default_action: drop", "a.yaml:4:17", "default_action", "use deny or reject"),
        ("labels: [a]", "a.yaml:4:9", "labels", "expected a map"),
        ("name: b", "a.yaml:4:1", "name", "duplicate"),
        ("qos: {bandwidth: 1", "a.yaml:", "", ""),
        ("\tqos: 1", "a.yaml:3:", "", "tab"),
    ];
    let mut wrong = String::new();
    for (lines, place, caret, hint) in table {
        let shown = shown(&persona(lines));
        for wanted in [place, caret, hint, " | "].iter().filter(|wanted| !shown.contains(**wanted)) {
            wrong.extend([lines, ": no ", wanted, " in\n", &shown, "\n"]);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn ranges_are_checked() {
    for (range, hint) in [
        ("10.100.0.7/24", "use 10.100.0.0/24"),
        ("127.0.0.0/8", "loopback"),
        ("[10.0.0.0/24, 10.0.0.0/25]", "overlaps 10.0.0.0/24 of this list"),
        ("10.0.0.1", "add a length"),
        ("[]", "a range is missing"),
        ("nonsense", "use CIDR notation"),
    ] {
        let shown = shown(&format!("kind: persona\nname: a\nip_range: {range}\n"));
        assert!(shown.contains(hint) && shown.contains("a.yaml:3:"), "{range}:\n{shown}");
    }
}

#[test]
fn all_errors_of_a_file_come_at_once() {
    let text = "kind: persona\nname: a b\nprotocls: [tcp]\nqos: {bandwidth: 1mb, latency: [1]}\n\
                security_policies:\n- {action: nope}\n- {action: deny, port: 99999}\n\
                ---\nname: b\nip_range: 10.0.0.0/24\n";
    let shown = shown(text);
    for wanted in [
        "a.yaml:2:7",
        "a range is missing",
        "did you mean `protocols`?",
        "a.yaml:4:18",
        "a.yaml:4:32",
        "a.yaml:6:12",
        "security_policies[1].port",
        "a.yaml:7:24",
        "write `kind: persona`",
        "a.yaml:9:1",
    ] {
        assert!(shown.contains(wanted), "no {wanted:?} in\n{shown}");
    }
}

#[test]
fn json_problems_point_into_the_body() {
    let problems = persona_from_value(json!({
        "name": "a",
        "ip_range": ["10.0.0.0/24", 7, "10.0.0.9/24"],
        "protocols": [{"x": 1}, "upd"],
        "labels": {"a/b": null},
        "colour": "red",
    }))
    .unwrap_err();
    let pointers: Vec<&str> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
    for wanted in ["/ip_range/1", "/ip_range/2", "/protocols/0", "/protocols/1", "/labels/a~1b", "/colour"] {
        assert!(pointers.contains(&wanted), "no {wanted} in {pointers:?}");
    }
    let not_json = persona_from_slice(b"{\"name\": ").unwrap_err();
    assert!(matches!(not_json.as_slice(), [Problem { pointer, .. }] if pointer.is_empty()));
}

#[test]
fn aliases_stay_small_and_many_documents_load() {
    let mut bomb = String::from("kind: persona\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let below = format!("*a{}", level - 1);
        bomb +=
            &["a", &level.to_string(), ": &a", &level.to_string(), " [", &vec![below; 10].join(", "), "]\n"]
                .concat();
    }
    assert!(shown(&bomb).contains("a.yaml:"));
    let many: Vec<String> = (0..10_000)
        .map(|n| {
            let (high, low) = (n / 256, n % 256);
            format!(
                "---\nkind: persona\nname: p{n}\nip_range: 10.{high}.{low}.0/24\nprotocols: [tcp, udp]\n\
                 security_policies:\n- {{protocol: tcp, port: [80, 443], action: allow}}\n\
                 - {{protocol: tcp, port: 22, action: deny}}\n"
            )
        })
        .collect();
    let parsed = source::parse(Path::new("a.yaml"), &many.concat()).unwrap();
    let documents = source::documents(&[parsed]).personas;
    assert_eq!(documents.len(), 10_000);
    assert_eq!((documents[1].line, documents[1].rule_lines.as_slice()), (10, [15, 16].as_slice()));
}

/// A document with anything in the place of one of its parts.
fn disturbed() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(|number| json!(number)),
        "[a-z0-9:./!-]{0,12}".prop_map(Into::into),
    ];
    let tree = leaf.prop_recursive(3, 12, 3, |below| {
        prop_oneof![
            prop::collection::vec(below.clone(), 0..3).prop_map(Into::into),
            prop::collection::btree_map("[a-z_]{1,8}", below, 0..3).prop_map(|map| json!(map)),
        ]
    });
    let places = prop::sample::select(vec![
        "/name",
        "/ip_range",
        "/ip_range/1",
        "/protocols/0",
        "/qos/bandwidth",
        "/qos/latency",
        "/security_policies",
        "/security_policies/0",
        "/security_policies/0/port",
        "/security_policies/0/port/1",
        "/security_policies/0/source",
        "/security_policies/0/action",
        "/endpoints/0",
        "/endpoints/0/address",
        "/interfaces/0",
        "/interfaces/0/prefixes",
        "/egress/allow",
        "/labels",
    ]);
    prop::collection::vec((places, tree), 1..4).prop_map(|changes| {
        let mut document = json!({
            "name": "a",
            "ip_range": ["10.1.0.0/24", "fd00:1::/64"],
            "protocols": ["tcp"],
            "qos": {"bandwidth": "1Mbps", "latency": "1s"},
            "security_policies": [{"port": [80, "81-82"], "source": "10.0.0.0/8", "action": "deny"}],
            "endpoints": [{"name": "x", "pid": 1, "address": "10.1.0.9"}],
            "interfaces": [{"name": "eth1", "prefixes": ["10.1.0.0/25"]}],
            "egress": {"allow": ["192.0.2.0/24"]},
            "labels": {"a": "b"},
        });
        for (place, value) in changes {
            if let Some(slot) = document.pointer_mut(place) {
                *slot = value;
            }
        }
        document
    })
}

proptest! {
    #[test]
    fn any_tree_is_answered_and_what_is_accepted_reads_back(value in disturbed()) {
        match persona_from_value(value.clone()) {
            Ok(document) => prop_assert_eq!(serde_json::to_value(&document).unwrap(), value),
            Err(problems) => {
                prop_assert!(!problems.is_empty());
                for problem in &problems {
                    let start = value.pointer(problem.pointer.rsplit_once('/').map_or("", |(above, _)| above));
                    prop_assert!(start.is_some(), "{problem:?} points nowhere in {value}");
                }
            }
        }
    }

    #[test]
    fn any_text_is_answered(text in "(kind: persona\n)?([a-z:,{}\\[\\]&*|>#\"' \n\t-]{0,60})") {
        drop(source::parse(Path::new("a.yaml"), &text));
        drop(hub::parse(Path::new("hub.yaml"), &text));
    }
}

#[test]
fn hub_yaml_has_defaults_and_is_checked() {
    let parse = |text: &str| hub::parse(Path::new("hub.yaml"), text);
    assert_eq!(parse("").unwrap(), crate::model::config::Config::default());
    let folder = hub::parse(Path::new("/etc/hub/hub.yaml"), "documents: personas\nruntime_dir: /run/x");
    let config = folder.unwrap();
    assert_eq!(config.documents, Path::new("/etc/hub/personas"));
    assert_eq!(config.api.socket, Path::new("/run/x/hubd.sock"));
    for (text, place, hint) in [
        ("api: {listen: 0.0.0.0:8080}", "hub.yaml:1:15", "TCP needs authentication"),
        ("api: {listen: all, token_file: /t}", "hub.yaml:1:15", "for example 127.0.0.1:9178"),
        ("interfaces: [{name: eth0, role: up}]", "hub.yaml:1:33", "use uplink or segment"),
        ("interfaces: [{role: uplink}]", "hub.yaml:1:14", "either `name` or `match`"),
        ("failsafe: {ports: [22]}", "hub.yaml:1:20", "expected a string"),
        ("failsafe: {ports: [tcp/ssh]}", "hub.yaml:1:20", "for example tcp/22"),
        ("limits: {personas: 1000000}", "hub.yaml:1:20", "use 1 to 100000"),
        ("timeouts: {established: 3 hours}", "hub.yaml:1:25", "10m, 4h or 2d"),
        ("pools: {lab: [10.0.0.0/8, 10.1.0.0/16]}", "hub.yaml:1:27", "overlaps 10.0.0.0/8"),
        ("interface: []", "hub.yaml:1:1", "did you mean `interfaces`?"),
        ("{}\n---\n{}", "hub.yaml:3:1", "a second document"),
    ] {
        let errors = parse(text).unwrap_err();
        let shown = listed(&errors);
        assert!(shown.contains(place) && shown.contains(hint), "{text}:\n{shown}");
    }
}
