//! Every file of `config/` loads, and what it compiles to is what was looked at when it was accepted.
//!
//! `INSTA_UPDATE=always cargo test -p hub-tests --test golden` writes snapshots and schemas anew.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail with the test")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use hub_common::application::{KINDS, Signature};
use hub_daemon::command::{Command, Inventory, Link};
use hub_daemon::desired::{Desired, Route, Via};
use hub_daemon::document::snippet::Diagnostic;
use hub_daemon::document::{hub, schemas, source};
use hub_daemon::hub::Hub;
use hub_daemon::model::config::Config;
use hub_daemon::model::id::IdSource;
use hub_daemon::model::policy::Policy;
use hub_daemon::model::subnet::Subnet;

fn config() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config")
}

/// Every YAML file below a folder, by its path from there.
fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(yaml_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn listed(errors: &[Diagnostic]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// What the kernel should hold for the documents of one file, on a host with the interfaces they name.
fn desired(path: &Path) -> Desired {
    let text = fs::read_to_string(path).unwrap();
    let parsed = source::parse(path.file_name().unwrap().as_ref(), &text);
    let source = parsed.unwrap_or_else(|errors| panic!("{}", listed(&errors)));
    let now = "2030-01-01T00:00:00Z".parse().unwrap();
    let mut config = Config::default();
    let pool = ["10.200.0.0/16", "fd00:200::/48"].map(|prefix| prefix.parse().unwrap()).to_vec();
    config.pools.insert("lab".into(), pool.into());
    for (name, prefixes, gateways) in [
        ("front", &["10.20.0.0/24", "fd00:20::/64"][..], &["10.20.0.1", "fd00:20::1"][..]),
        ("branch", &["10.30.0.0/24"], &["10.30.0.1"]),
    ] {
        let prefixes = prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect();
        let gateways = gateways.iter().map(|gateway| gateway.parse().unwrap()).collect();
        config.subnets.insert(name.into(), Subnet { prefixes, gateways, vlan: None, persona: None });
    }
    let mut hub = Hub::new(config, IdSource::new(0));
    let link = |name: &str| (name.to_owned(), Link { ifindex: 1, up: true, ..Link::default() });
    let links = ["eth2", "eth3"].into_iter().map(link).collect();
    hub.handle(Command::Inventory(Inventory { links, ..Inventory::default() }), now).unwrap();
    hub.handle(Command::Documents(source::documents(&[source])), now).unwrap();
    hub.desired(now)
}

fn describe(desired: &Desired) -> String {
    let mut text = String::new();
    for (id, segment) in &desired.segments {
        let expires = segment.expires.map_or("never".to_owned(), |end| end.to_string());
        writeln!(text, "segment {id}: {:?}, expires {expires}", segment.state).unwrap();
        text += &policy(&segment.policy);
        for (detector, setting) in desired.detectors.get(id).iter().flat_map(|detectors| detectors.iter()) {
            let (threshold, window) = (setting.threshold, setting.window);
            writeln!(text, "  {}: {threshold} in {window:?}, {:?}", detector.name(), setting.response)
                .unwrap();
        }
    }
    for (id, shape) in &desired.shapes {
        writeln!(text, "shape {id}: {shape:?}").unwrap();
    }
    for (key, queue) in &desired.queues {
        writeln!(text, "queue {:?} on {}: {queue:?}", key.place, key.interface).unwrap();
    }
    for (prefix, segment) in &desired.prefixes {
        writeln!(text, "prefix {prefix}: segment {segment}").unwrap();
    }
    for ((segment, number), elements) in &desired.sets {
        let elements: Vec<String> = elements.keys().map(ToString::to_string).collect();
        writeln!(text, "set {number:#010x} of segment {segment}: {}", elements.join(", ")).unwrap();
    }
    for (low, high) in &desired.peers {
        writeln!(text, "peers {low} and {high}").unwrap();
    }
    for (name, port) in &desired.ports {
        writeln!(
            text,
            "port {name}: {:?}, segment {:?}, XDP {:?}",
            port.role,
            port.segment.map(|id| id.0),
            port.xdp
        )
        .unwrap();
    }
    for (name, endpoint) in &desired.endpoints {
        let (namespace, interface) = (&endpoint.namespace, &endpoint.interface);
        writeln!(
            text,
            "endpoint {name}: {namespace:?} {interface} {:?} by {:?}",
            endpoint.addresses, endpoint.gateways
        )
        .unwrap();
    }
    for (name, address) in desired.addresses.keys() {
        writeln!(text, "address {address} on {name}").unwrap();
    }
    for (key, route) in &desired.routes {
        writeln!(text, "route {} table {} metric {}: {}", key.target, key.table, key.metric, way(route))
            .unwrap();
    }
    for rule in &desired.rules {
        writeln!(text, "rule {}: from {} table {}", rule.priority, rule.source, rule.table).unwrap();
    }
    for (switch, value) in &desired.sysctls {
        writeln!(text, "switch {switch} = {value}").unwrap();
    }
    text + &interfaces(desired)
}

/// What personalities want of interfaces.
fn interfaces(desired: &Desired) -> String {
    let mut text = String::new();
    for (name, interface) in &desired.interfaces {
        let (place, tables) = (&interface.place, interface.tables);
        writeln!(text, "interface {name}: {place:?}, mtu {:?}, tables {tables:?}", interface.mtu).unwrap();
        writeln!(text, "  slot {:?} for {:?}", interface.live, interface.scope).unwrap();
        for (address, how) in &interface.addresses {
            writeln!(text, "  address {address}: {how:?}").unwrap();
        }
        for (slot, routes) in interface.routes.iter().enumerate() {
            for (key, route) in routes {
                writeln!(text, "  slot {slot} route {} metric {}: {route:?}", key.target, key.metric)
                    .unwrap();
            }
        }
    }
    for (name, tunnel) in &desired.tunnels {
        writeln!(text, "tunnel {name}: {tunnel:?}").unwrap();
    }
    for (name, resolver) in &desired.resolvers {
        writeln!(text, "resolver of {name}: {:?} {:?}", resolver.servers, resolver.search).unwrap();
    }
    text
}

fn way(route: &Route) -> String {
    match &route.via {
        Via::Interface(name) => format!("dev {name}"),
        Via::Gateway { gateway, .. } => format!("via {gateway}"),
        Via::Unreachable => "unreachable".to_owned(),
        Via::Blackhole => "blackhole".to_owned(),
        Via::Prohibit => "prohibit".to_owned(),
    }
}

fn signed(signature: &Signature) -> String {
    let letters = signature.name.iter().zip(&signature.name_mask).map(|(letters, mask)| letters & mask);
    let letters: Vec<u8> = letters.flat_map(u64::to_le_bytes).filter(|letter| *letter != 0).collect();
    let name: String = letters.iter().rev().map(|letter| char::from(*letter)).collect();
    let (method, offer) = (signature.method, signature.offer);
    let bytes = &signature.raw[0].to_le_bytes();
    let kind = KINDS.get(usize::from(signature.kind)).unwrap();
    format!(
        "speaks {kind}, name {name:?} of {} letters or more, method {method}, offer {offer:#x}, {} bytes at {} {bytes:02x?}",
        signature.name_least, signature.raw_bytes, signature.raw_at,
    )
}

fn policy(policy: &Policy) -> String {
    let listed = |set: &[u32; 8]| -> Vec<u8> {
        (0..=u8::MAX).filter(|number| hub_common::segment::has_protocol(set, *number)).collect()
    };
    let mut text = format!(
        "  protocols {:?}, default in {:?}, out {:?}, flags {}\n",
        listed(&policy.protocols),
        listed(&policy.ingress_default),
        listed(&policy.egress_default),
        policy.flags
    );
    for (direction, rules) in [("in", &policy.ingress), ("out", &policy.egress)] {
        for rule in rules {
            writeln!(
                text,
                "  {direction} {}: flags {:#05x} action {} protocol {} from {}/{} {:?} to {}/{} {:?} icmp {}/{} tcp {:#04x}/{:#04x} mark {}/{}",
                rule.index, rule.flags, rule.action, rule.protocol, address(&rule.source), rule.source_bits,
                rule.source_port, address(&rule.target), rule.target_bits, rule.target_port, rule.icmp_type,
                rule.icmp_code, rule.tcp_value, rule.tcp_mask, rule.dscp, rule.priority,
            )
            .unwrap();
            let signature = usize::from(rule.signature).checked_sub(1);
            if let Some(signature) = signature.and_then(|place| policy.signatures.get(place)) {
                writeln!(text, "    {}", signed(signature)).unwrap();
            }
            for (way, set) in [("from", rule.source_set), ("to", rule.target_set)] {
                if set != 0 {
                    writeln!(text, "    {way} set {set:#010x}").unwrap();
                }
            }
            if let Some(terms) = policy.terms.get(&rule.identity) {
                writeln!(text, "    {terms:?}").unwrap();
            }
        }
    }
    text
}

fn address(bytes: &[u8; 16]) -> std::net::Ipv6Addr {
    std::net::Ipv6Addr::from(*bytes)
}

#[test]
fn documents_of_config_compile_as_accepted() {
    let files = yaml_files(&config());
    let documents: Vec<_> = files
        .iter()
        .filter(|path| !path.ends_with("hub.yaml") && !path.starts_with(config().join("prometheus")))
        .collect();
    assert!(documents.len() >= 4, "{files:?}");
    for path in documents {
        let name = path.file_stem().unwrap().to_string_lossy();
        insta::assert_snapshot!(format!("{name}"), describe(&desired(path)));
    }
}

#[test]
fn hub_yaml_states_the_defaults() {
    let path = config().join("hub.yaml");
    let parsed = hub::parse(&path, &fs::read_to_string(&path).unwrap());
    assert_eq!(parsed.unwrap(), Config::default());
}

#[test]
fn every_hub_yaml_loads() {
    for path in yaml_files(&config()).iter().filter(|path| path.ends_with("hub.yaml")) {
        let parsed = hub::parse(path, &fs::read_to_string(path).unwrap());
        assert!(parsed.is_ok(), "{}", listed(&parsed.unwrap_err()));
    }
}

#[test]
fn schemas_are_those_of_the_code() {
    for (name, schema) in schemas() {
        let path = config().join(format!("schema/{name}.json"));
        let wanted = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        if env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &wanted).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap_or_default(), wanted, "{}", path.display());
    }
}
