//! What documents of personalities become, and what is refused.

use serde_json::{Value, json};

use super::*;
use crate::document::read::personality_from_value;
use crate::model::interface::InterfaceRecord;

fn whole() -> Value {
    json!({
        "kind": "personality", "name": "web", "schema_version": 1,
        "ip_addresses": ["10.20.0.5/24", {"address": "fd00:20::5/64", "scope": "global"}],
        "subnet_id": "front",
        "firewall_rules": [
            {"source_ip": "192.0.2.0/24", "destination_ip": "10.20.0.5", "protocol": "tcp", "port": 443,
             "action": "allow"},
            {"source": "@staff", "protocol": "tcp", "port": 22, "action": "allow"}],
        "sets": {"staff": {"entries": ["198.51.100.0/24"]}},
        "qos_settings": {"bandwidth": "50Mbps", "priority": "voice"},
        "vpn_tunnel_config": {"private_key_file": "/etc/hub/wg.key", "listen_port": 51820,
            "addresses": ["10.9.0.2/32"],
            "peers": [{"public_key": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
                "endpoint": "192.0.2.1:51820", "allowed_ips": ["10.9.0.0/16"], "keepalive": 25}]},
        "application_access_policy": {"default": "deny", "applications": [
            {"application": "dns", "action": "allow"}]},
        "dns_servers": ["10.20.0.53", "fd00:20::53"], "dns_search": ["lab.example"],
        "routing_table": [
            {"destination": "default", "via": "10.20.0.1", "source": "10.20.0.5"},
            {"destination": "10.9.0.0/16", "device": "tunnel", "metric": 10},
            {"destination": "203.0.113.0/24", "type": "prohibit"}],
        "mtu": 1400,
        "health": {"targets": [{"ping": "10.20.0.1"}, {"tcp": "10.20.0.9:443"},
            {"http": "http://10.20.0.9/health"}, {"dns": "10.20.0.53", "name": "www.example"},
            {"route": "10.9.0.1", "device": "wg0"}, {"neighbour": "10.20.0.1"}],
            "dns_name": "www.example", "on_unhealthy": "revert"},
        "drain": {"timeout": "10s", "threshold": 2, "scope": "all", "block": "drop", "on_timeout": "abort",
            "udp": false, "idle_cutoff": "30s"},
    })
}

fn with(path: &[&str], value: Value) -> Value {
    let mut document = whole();
    let (last, parents) = path.split_last().unwrap();
    let mut at = &mut document;
    for step in parents {
        at = match step.parse::<usize>() {
            Ok(index) => &mut at[index],
            Err(_) => &mut at[*step],
        };
    }
    match last.parse::<usize>() {
        Ok(index) => at[index] = value,
        Err(_) => at[*last] = value,
    }
    document
}

fn problems(document: Value) -> String {
    let problems = personality_from_value(document).unwrap_err();
    problems
        .iter()
        .map(|problem| format!("{} {}", problem.pointer, problem.detail))
        .collect::<Vec<_>>()
        .join("; ")
}

#[test]
fn a_whole_document_is_read() {
    let document = personality_from_value(whole()).unwrap();
    let personality = Personality::new(&document).unwrap();
    assert_eq!(personality.addresses().len(), 2);
    assert_eq!(personality.routes().len(), 3);
    assert_eq!(personality.health().targets.len(), 6);
    assert_eq!((personality.drain().threshold, personality.drain().timeout.as_secs()), (2, 10));
    let ranges = ["10.20.0.5/32", "fd00:20::5/128"].map(|range| range.parse().unwrap());
    let carried = Carried { gateways: vec!["10.20.0.1".parse().unwrap()], ..Carried::default() };
    let carrier = personality.carrier("web-1", &carried, &ranges, Some("veth1"), &Defined::new());
    let persona = Persona::new(&carrier).unwrap();
    assert_eq!((persona.name(), persona.ranges(), persona.mtu()), ("web-1", &ranges[..], Some(1400)));
    assert_eq!(persona.qos().unwrap().dscp().unwrap().number(), 46, "voice is expedited");
    assert_eq!(persona.rules().len(), 2 + 2 + 1);
    let told = crate::compile::compile(&persona, &[]).flags & hub_common::segment::POLICY_RESET_CUT;
    assert_ne!(told, 0, "both ends hear of connections that a switch cuts");
    let written = serde_json::to_value(&carrier).unwrap();
    assert!(written.get("carried").is_none(), "no document says it");
    let user = serde_json::from_value::<crate::document::persona::PersonaDocument>(written).unwrap();
    let refused = Persona::new(&user).unwrap_err();
    assert!(refused[0].detail.contains("between /8 and /30"), "{refused:?}");
}

#[test]
fn what_the_data_path_cannot_hold_is_refused_at_once() {
    let rules: Vec<Value> = (0..65_u16)
        .map(|rule| {
            let ports: Vec<u16> = (0..32).map(|port| 1_000 + rule * 64 + port * 2).collect();
            json!({"protocol": "tcp", "port": ports, "action": "allow"})
        })
        .collect();
    let found = problems(with(&["firewall_rules"], json!(rules)));
    assert!(found.contains("/firewall_rules") && found.contains("at most 2048"), "{found}");
}

#[test]
fn the_digest_is_of_the_content() {
    let digest_of =
        |value: Value| digest(Personality::new(&personality_from_value(value).unwrap()).unwrap().document());
    let mut plain = whole();
    plain.as_object_mut().unwrap().remove("kind");
    assert_eq!(digest_of(whole()), digest_of(plain));
    assert_ne!(digest_of(whole()), digest_of(with(&["mtu"], json!(1500))));
    assert_eq!(digest_of(whole()).0.len(), 64);
}

#[test]
fn secrets_are_refused_and_shown_by_nobody() {
    let inline = with(&["vpn_tunnel_config", "private_key"], json!("c2VjcmV0"));
    let found = problems(inline);
    assert!(
        found.starts_with("/vpn_tunnel_config/private_key secrets are never written into documents: put"),
        "{found}"
    );
    assert!(!found.contains("c2VjcmV0"));
    let inline = with(&["vpn_tunnel_config", "peers", "0", "preshared_key"], json!("c2VjcmV0"));
    assert!(problems(inline).contains("peers/0/preshared_key secrets are never written"));
    let yaml = "kind: personality\nname: a\nip_addresses: [10.0.0.5/24]\nvpn_tunnel_config:\n  private_key: c2VjcmV0\n  peers: []\n";
    let errors = crate::document::source::parse(std::path::Path::new("a.yaml"), yaml).unwrap_err();
    let shown: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert!(shown.iter().any(|text| text.contains("a.yaml:5")), "{shown:?}");
    assert!(!shown.concat().contains("c2VjcmV0"), "{shown:?}");
}

#[test]
fn every_problem_is_told_at_its_place() {
    for (path, value, wanted) in [
        (&["ip_addresses"][..], json!([]), "/ip_addresses an address is missing"),
        (&["ip_addresses", "0"], json!("10.20.0.5"), "/ip_addresses/0 prefix `10.20.0.5`: add a length"),
        (
            &["ip_addresses", "0"],
            json!("10.20.0.0/24"),
            "/ip_addresses/0 address `10.20.0.0/24` means the whole",
        ),
        (&["ip_addresses", "1", "scope"], json!("world"), "/ip_addresses/1/scope `world` is not known here"),
        (
            &["ip_addresses", "1"],
            json!({"address": "10.20.0.6/24", "scope": "link"}),
            "/ip_addresses/1/scope 10.20.0.5/24 is in the same network with another scope: give both the same",
        ),
        (&["schema_version"], json!(2), "/schema_version schema_version 2: this hub reads 1"),
        (&["firewall_rules", "0", "port"], json!(70000), "/firewall_rules/0/port"),
        (
            &["firewall_rules", "1", "source"],
            json!("@none"),
            "/firewall_rules/1/source there is no set `@none`",
        ),
        (&["qos_settings", "bandwidth"], json!("5 apples"), "/qos_settings/bandwidth"),
        (&["vpn_tunnel_config", "private_key_file"], json!("wg.key"), "use an absolute path"),
        (
            &["vpn_tunnel_config", "peers", "0", "public_key"],
            json!("x"),
            "/vpn_tunnel_config/peers/0/public_key",
        ),
        (
            &["vpn_tunnel_config", "peers", "0", "endpoint"],
            json!("host:1"),
            "peers/0/endpoint endpoint `host:1`",
        ),
        (&["health", "targets", "0"], json!({"http": "ftp://10.0.0.1"}), "/health/targets/0/http http `ftp:"),
        (
            &["health", "targets", "0"],
            json!({"http": "https://10.0.0.1", "ca": "ca.pem"}),
            "/health/targets/0/ca file `ca.pem`: use an absolute path",
        ),
        (
            &["health", "targets", "0"],
            json!({"http": "http://10.0.0.1", "ca": "/ca.pem"}),
            "/health/targets/0/ca ca is for `https://`",
        ),
        (
            &["health", "targets", "0"],
            json!({"tcp": "10.0.0.1:1", "ca": "/ca.pem"}),
            "/health/targets/0/ca ca belongs to `http`",
        ),
        (&["dns_servers", "0"], json!("dns"), "/dns_servers/0 address `dns`"),
        (&["dns_search", "0"], json!("a b"), "/dns_search/0 domain `a b`"),
        (
            &["routing_table", "0", "via"],
            json!("fd00::1"),
            "/routing_table/0/source source is of another address family",
        ),
        (
            &["routing_table", "2", "via"],
            json!("10.20.0.1"),
            "/routing_table/2/via a route that leads nowhere",
        ),
        (&["routing_table", "0", "source"], json!("10.20.0.6"), "10.20.0.6 is not in `ip_addresses`"),
        (&["mtu"], json!(100), "/mtu mtu 100: use 1280 to 9216 bytes"),
        (
            &["health", "targets", "0"],
            json!({"ping": "10.0.0.1", "tcp": "10.0.0.1:1"}),
            "give exactly one of ping",
        ),
        (&["health", "targets", "2", "http"], json!("https:///a"), "use a URL like http://"),
        (&["drain", "timeout"], json!("2h"), "/drain/timeout timeout `2h`: use at most 1h"),
        (&["dns_server"], json!("10.0.0.1"), "did you mean `dns_servers`?"),
    ] {
        let found = problems(with(path, value));
        assert!(found.contains(wanted), "{path:?}: {found}");
    }
}

#[test]
fn versions_are_written_with_their_number() {
    assert_eq!(Wanted::parse("web").unwrap().number, None);
    assert_eq!(Wanted::parse("web@3").unwrap().number, Some(3));
    for text in ["web@", "web@0", "web@x", "@1", ""] {
        assert!(Wanted::parse(text).is_err(), "{text}");
    }
    let version: Version = serde_json::from_value(json!("web@3")).unwrap();
    assert_eq!((version.number, serde_json::to_value(&version).unwrap()), (3, json!("web@3")));
    assert!(serde_json::from_value::<Version>(json!("web")).is_err());
}

#[test]
fn an_interface_is_known_by_name_mac_or_other_name() {
    use crate::document::read::interface_from_value;
    let record = |more: Value| {
        let mut document = json!({"name": "i", "interface": "eth0", "personality": "web"});
        document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        interface_from_value(document).map(|document| InterfaceRecord::new(&document).unwrap())
    };
    let own = record(json!({})).unwrap();
    assert!(own.is_own() && own.port.as_deref() == Some("eth0"));
    let mac =
        record(json!({"interface": {"mac": "02:00:00:00:00:0a"}, "namespace": "n", "port": "v0"})).unwrap();
    assert_eq!(mac.place.selector, crate::desired::interfaces::Selector::Mac([2, 0, 0, 0, 0, 10]));
    assert_eq!(mac.port.as_deref(), Some("v0"));
    for (more, wanted) in [
        (json!({"interface": {"mac": "2"}}), "/interface/mac mac `2`"),
        (json!({"interface": {"name": "a", "mac": "2"}}), "/interface give exactly one of"),
        (json!({"namespace": "n"}), "/port a port is missing"),
        (json!({"port": "v0"}), "/port an interface of the hub is its own port"),
        (json!({"personality": "web@0"}), "/personality personality `web@0`"),
        (json!({"zones": {"levels": []}}), "/zones/levels use 1 to 16 levels"),
        (json!({"failover": {"check": {}, "to": "b"}}), "/failover/check give exactly one of"),
    ] {
        let problems = record(more).unwrap_err();
        let found: Vec<String> = problems.iter().map(|it| format!("{} {}", it.pointer, it.detail)).collect();
        assert!(found.iter().any(|found| found.starts_with(wanted)), "{wanted}: {found:?}");
    }
}

#[test]
fn placeholders_stand_for_what_a_record_says() {
    let document = |more: Value| {
        let mut document = json!({"name": "shared", "ip_addresses": ["{label:address}/24"],
            "routing_table": [{"destination": "default", "via": "10.20.0.1", "source": "{label:address}"}],
            "dns_search": ["{interface}.lab.example"]});
        for (key, value) in more.as_object().unwrap() {
            document[key] = value.clone();
        }
        document
    };
    let found = Personality::new(&personality_from_value(document(json!({}))).unwrap()).unwrap();
    let labels = |address: &str| BTreeMap::from([("address".to_owned(), address.to_owned())]);
    let own = found.on("web-1", &labels("10.20.0.5")).unwrap();
    assert_eq!(own.addresses().keys().map(ToString::to_string).collect::<Vec<_>>(), ["10.20.0.5/24"]);
    assert_eq!((own.search(), own.name()), (&["web-1.lab.example".to_owned()][..], "shared"));
    let told = |result: Result<Cow<'_, Personality>, Vec<Problem>>| {
        let problems = result.err().unwrap_or_default();
        problems.into_iter().map(|it| format!("{}: {}", it.pointer, it.detail)).collect::<Vec<_>>()
    };
    let missing = told(found.on("web-1", &BTreeMap::new()));
    assert_eq!(
        missing[0],
        "/labels/address: label `address` is missing: /ip_addresses/0 of the personality needs it"
    );
    let wrong = told(found.on("web-1", &labels("10.20.0.300")));
    assert!(wrong[0].starts_with("/personality: /ip_addresses/0 of shared: "), "{wrong:?}");
    // What does not depend on them is checked at once.
    for (more, pointer) in [
        (json!({"dns_servers": ["nowhere"]}), "/dns_servers/0"),
        (json!({"ip_addresses": ["{label:}/24"]}), "/ip_addresses/0"),
        (json!({"ip_addresses": ["{label:address}/24", "10.20.0/24"]}), "/ip_addresses/1"),
        (json!({"name": "{interface}"}), "/name"),
    ] {
        let problems = personality_from_value(document(more)).unwrap_err();
        assert_eq!(
            problems.iter().map(|it| it.pointer.as_str()).collect::<Vec<_>>(),
            [pointer],
            "{problems:?}"
        );
    }
    let plain = document(json!({"ip_addresses": ["10.20.0.5/24"], "routing_table": [], "dns_search": []}));
    let plain = Personality::new(&personality_from_value(plain).unwrap()).unwrap();
    assert!(matches!(plain.on("web-1", &BTreeMap::new()), Ok(Cow::Borrowed(_))));
}
