use hub_common::address::mapped;
use hub_common::packet::{PACKET_V4, PACKET_V6, Packet};
use hub_common::segment::has_protocol;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::document::read::persona_from_value;
use crate::model::policy::Policy;

fn policy(fields: Value) -> Policy {
    compile(&persona(fields), &[])
}

#[expect(clippy::needless_pass_by_value, reason = "tests read better with `json!` as it stands")]
fn persona(fields: Value) -> Persona {
    let mut document = json!({"name": "a", "ip_range": "10.1.0.0/24"});
    document.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    Persona::new(&persona_from_value(document).unwrap()).unwrap()
}

/// The order of the data path: ceiling, rules, default.
fn decide(policy: &Policy, direction: Direction, packet: &Packet) -> (bool, Option<u16>) {
    if !has_protocol(&policy.protocols, packet.protocol) {
        return (false, None);
    }
    let (rules, default) = match direction {
        Direction::Ingress => (&policy.ingress, &policy.ingress_default),
        Direction::Egress => (&policy.egress, &policy.egress_default),
    };
    match rules.iter().find(|rule| rule.action != ACTION_LOG && rule.matches(packet, 0, |_, _| 0) != 0) {
        Some(rule) => (rule.action == ACTION_ALLOW, Some(rule.index)),
        None => (has_protocol(default, packet.protocol), None),
    }
}

fn packet(protocol: u8, port: u16) -> Packet {
    Packet {
        source: mapped([192, 0, 2, 1]),
        target: mapped([10, 1, 0, 5]),
        source_port: 40_000,
        target_port: port,
        protocol,
        flags: PACKET_V4,
        ..Packet::ZERO
    }
}

fn out(protocol: u8, port: u16, target: [u8; 4]) -> Packet {
    Packet { source: mapped([10, 1, 0, 5]), target: mapped(target), ..packet(protocol, port) }
}

#[test]
fn the_sources_example_means_what_it_says() {
    let policy = policy(json!({
        "protocols": ["tcp", "udp"],
        "security_policies": [
            {"protocol": "tcp", "port": 80, "action": "allow"},
            {"protocol": "tcp", "port": 22, "action": "deny"},
        ],
    }));
    let ingress = |packet| decide(&policy, Direction::Ingress, &packet);
    assert_eq!(ingress(packet(6, 80)), (true, Some(0)));
    assert_eq!(ingress(packet(6, 22)), (false, Some(1)));
    assert_eq!(ingress(packet(6, 443)), (false, None), "tcp is mentioned, so the default denies");
    assert_eq!(ingress(packet(17, 53)), (true, None), "udp is not mentioned");
    assert_eq!(ingress(packet(1, 0)), (false, None), "icmp is above the ceiling");
    let egress = |packet| decide(&policy, Direction::Egress, &packet);
    assert_eq!(egress(out(6, 443, [1, 1, 1, 1])), (true, None), "ingress rules say nothing of egress");
}

#[test]
fn strict_applies_the_default_to_every_protocol() {
    let policy = policy(json!({"protocols": ["udp"], "strict": true, "default_action": "reject"}));
    assert_eq!(decide(&policy, Direction::Ingress, &packet(17, 53)), (false, None));
    assert_eq!(policy.flags, POLICY_DEFAULT_REJECT);
}

#[test]
fn a_rule_that_only_logs_does_not_turn_the_default() {
    let policy = policy(json!({"security_policies": [{"protocol": "tcp", "action": "log"}]}));
    assert_eq!(decide(&policy, Direction::Ingress, &packet(6, 443)), (true, None));
    assert_eq!(policy.ingress.first().unwrap().flags & RULE_LOG, RULE_LOG);
}

#[test]
fn lists_multiply_under_one_index() {
    let policy = policy(json!({"security_policies": [{
        "protocol": "tcp", "port": [80, "443-444"], "source": ["192.0.2.0/24", "2001:db8::/32"],
        "direction": "both", "action": "allow"}]}));
    assert_eq!((policy.ingress.len(), policy.egress.len()), (4, 4));
    assert!(policy.ingress.iter().all(|rule| rule.index == 0));
    assert_eq!(decide(&policy, Direction::Ingress, &packet(6, 444)), (true, Some(0)));
}

#[test]
fn ports_without_protocol_are_of_protocols_that_have_ports() {
    let policy = policy(json!({"security_policies": [{"port": 53, "action": "deny"}]}));
    let protocols: Vec<u8> = policy.ingress.iter().map(|rule| rule.protocol).collect();
    assert_eq!(protocols, [6, 17], "an ICMP identifier is no port");
    assert_eq!(decide(&policy, Direction::Ingress, &packet(1, 53)), (true, None));
}

#[test]
fn icmp_is_the_icmp_of_each_family() {
    let both = json!(["10.1.0.0/24", "fd00:1::/64"]);
    let rules = json!([{"protocol": "icmp", "icmp_type": "echo-request", "action": "allow"}]);
    let dual = policy(json!({"ip_range": both, "protocols": ["icmp"], "security_policies": rules}));
    let types: Vec<_> = dual.ingress.iter().map(|rule| (rule.protocol, rule.icmp_type)).collect();
    assert_eq!(types, [(1, 8), (58, 128)]);
    assert!(has_protocol(&dual.protocols, 58));
    let v4_only = policy(json!({"protocols": ["icmp"]}));
    assert!(!has_protocol(&v4_only.protocols, 58));
}

#[test]
fn egress_lists_stand_around_the_rules() {
    let policy = policy(json!({
        "egress": {"deny": "203.0.113.0/24", "allow": ["198.51.100.0/24", "203.0.113.0/24"]},
        "security_policies": [
            {"direction": "egress", "protocol": "tcp", "port": 25, "action": "deny"},
            {"direction": "egress", "protocol": "udp", "port": 123, "action": "allow"},
        ],
    }));
    let egress = |packet| decide(&policy, Direction::Egress, &packet);
    let own = Some(SYNTHETIC_RULE);
    assert_eq!(egress(out(1, 0, [203, 0, 113, 9])), (false, own), "deny comes first");
    assert_eq!(egress(out(6, 25, [198, 51, 100, 9])), (false, Some(0)), "rules come before allow");
    assert_eq!(egress(out(17, 123, [8, 8, 8, 8])), (true, Some(1)), "a rule may allow more");
    assert_eq!(egress(out(1, 0, [198, 51, 100, 9])), (true, own), "what the default passes, passes there");
    assert_eq!(egress(out(6, 443, [198, 51, 100, 9])), (false, own), "what it does not, does not");
    assert_eq!(egress(out(1, 0, [8, 8, 8, 8])), (false, own), "nothing passes elsewhere");
}

#[test]
fn egress_lists_leave_the_persona_itself_alone() {
    let policy = policy(json!({"egress": {"deny": "10.0.0.0/8", "allow": "192.0.2.0/24"}}));
    let egress = |target| decide(&policy, Direction::Egress, &out(6, 80, target)).0;
    assert!(egress([10, 1, 0, 77]) && egress([192, 0, 2, 1]));
    assert!(!egress([10, 1, 1, 0]) && !egress([10, 200, 0, 1]) && !egress([8, 8, 8, 8]));
}

#[test]
fn egress_allow_leaves_peers_reachable() {
    let persona = persona(json!({"egress": {"allow": []}, "peers": ["b"]}));
    let policy = compile(&persona, &["10.2.0.0/24".parse().unwrap()]);
    assert!(decide(&policy, Direction::Egress, &out(6, 80, [10, 2, 0, 9])).0);
    assert!(!decide(&policy, Direction::Egress, &out(6, 80, [10, 3, 0, 9])).0);
}

#[test]
fn what_does_not_fit_is_refused_before_it_is_made() {
    let ports: Vec<u32> = (1..=2_000).collect();
    let prefixes: Vec<String> = (0..250).map(|n| format!("192.0.{n}.0/24")).collect();
    let rules = json!([{"protocol": "tcp", "port": ports, "source": prefixes, "action": "allow"}]);
    let document = json!({"name": "a", "ip_range": "10.1.0.0/24", "security_policies": rules});
    let problems = persona_from_value(document).unwrap_err();
    assert!(problems[0].detail.contains("become 500000 after lists are expanded"), "{problems:?}");
}

/// A rule in the words of a document, and whether a packet matches it by a reading of its own.
#[derive(Clone, Debug)]
struct Plain {
    protocol: Option<u8>,
    ports: Vec<(u16, u16)>,
    sources: Vec<(u32, u8)>,
    allow: bool,
    egress: bool,
}

impl Plain {
    fn document(&self) -> Value {
        let mut rule = json!({"action": if self.allow { "allow" } else { "deny" }});
        let fields = rule.as_object_mut().unwrap();
        fields.insert("direction".into(), if self.egress { "egress" } else { "ingress" }.into());
        if let Some(protocol) = self.protocol {
            fields.insert("protocol".into(), protocol.into());
        }
        if !self.ports.is_empty() && self.protocol.is_none_or(has_ports) {
            let ports: Vec<_> = self.ports.iter().map(|(first, last)| format!("{first}-{last}")).collect();
            fields.insert("port".into(), ports.into());
        }
        if !self.sources.is_empty() {
            let net = |(address, bits): &(u32, u8)| {
                ipnet::Ipv4Net::new((*address).into(), *bits).unwrap().trunc().to_string()
            };
            let sources: Vec<_> = self.sources.iter().map(net).collect();
            fields.insert("source".into(), sources.into());
        }
        rule
    }

    fn mentions(&self, protocol: u8) -> bool {
        self.protocol.map_or(self.ports.is_empty() || has_ports(protocol), |own| own == protocol)
    }

    fn matches(&self, packet: &Packet) -> bool {
        let source = u32::from_be_bytes(packet.source[12..].try_into().unwrap());
        let inside = |(address, bits): &(u32, u8)| {
            packet.flags & PACKET_V4 != 0 && (u64::from(source ^ *address) >> (32 - u32::from(*bits))) == 0
        };
        let ported = !self.ports.is_empty() && self.protocol.is_none_or(has_ports);
        let port = |(first, last): &(u16, u16)| (*first..=*last).contains(&packet.target_port);
        self.mentions(packet.protocol)
            && (!ported || self.ports.iter().any(port))
            && (self.sources.is_empty() || self.sources.iter().any(inside))
    }
}

fn plain() -> impl Strategy<Value = Plain> {
    let protocol = prop_oneof![Just(None), Just(Some(6)), Just(Some(17)), Just(Some(1)), Just(Some(47))];
    let port = (0_u16..100, 0_u16..20).prop_map(|(first, more)| (first, first + more));
    let source = (any::<u32>(), 0_u8..=8);
    let lists = (prop::collection::vec(port, 0..3), prop::collection::vec(source, 0..3));
    (protocol, lists, any::<bool>(), any::<bool>()).prop_map(|(protocol, (ports, sources), allow, egress)| {
        Plain { protocol, ports, sources, allow, egress }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn compiled_rules_decide_as_the_documents_read(
        rules in prop::collection::vec(plain(), 0..8),
        strict: bool,
        packets in prop::collection::vec((any::<u32>(), 0_u16..130, 0_usize..5, any::<bool>()), 64),
    ) {
        let written: Vec<Value> = rules.iter().map(Plain::document).collect();
        let policy = policy(json!({
            "ip_range": ["10.1.0.0/24", "fd00:1::/64"],
            "protocols": ["tcp", "udp", 1], "strict": strict, "security_policies": written,
        }));
        for (source, port, protocol, v6) in packets {
            let protocol = [6, 17, 1, 47, 58][protocol];
            let address = if v6 { [0x20; 16] } else { mapped(source.to_be_bytes()) };
            let flags = if v6 { PACKET_V6 } else { PACKET_V4 };
            let packet = Packet { source: address, flags, ..packet(protocol, port) };
            for (direction, egress) in [(Direction::Ingress, false), (Direction::Egress, true)] {
                let mut own = rules.iter().enumerate().filter(|(_, rule)| rule.egress == egress);
                let found = own.clone().find(|(_, rule)| rule.matches(&packet));
                let expected = match found {
                    _ if ![6, 17, 1].contains(&protocol) => (false, None),
                    Some((index, rule)) => (rule.allow, Some(index as u16)),
                    None => (!strict && !own.any(|(_, rule)| rule.mentions(protocol)), None),
                };
                prop_assert_eq!(decide(&policy, direction, &packet), expected);
            }
        }
    }
}

#[test]
fn baseline_rules_come_first_and_an_allow_passes_on_unless_it_is_final() {
    let read = |rules: Value| {
        let document = crate::document::hub::HubDocument {
            baseline: serde_json::from_value(rules).unwrap(),
            ..Default::default()
        };
        crate::model::config::Config::new(&document, std::path::Path::new("")).unwrap().baseline
    };
    let baseline = read(json!([
        {"protocol": "tcp", "port": 80, "action": "allow"},
        {"protocol": "tcp", "port": 81, "action": "allow", "final": true},
        {"protocol": "tcp", "port": "80-90", "action": "deny", "expires_at": "2031-01-01T00:00:00Z"},
    ]));
    let persona = persona(json!({"security_policies": [{"protocol": "tcp", "port": 80, "action": "allow"}]}));
    let mut policy = compile(&persona, &[]);
    complete(&mut policy, &persona, &baseline, &BTreeMap::new());
    let actions: Vec<(u8, bool)> =
        policy.ingress.iter().map(|rule| (rule.action, rule.flags & RULE_BASELINE != 0)).collect();
    assert_eq!(
        actions,
        [(ACTION_PASS_ON, true), (ACTION_ALLOW, true), (ACTION_DENY, true), (ACTION_ALLOW, false)]
    );
    let ends = policy.terms.values().filter_map(|terms| terms.ends).count();
    assert_eq!(ends, 1, "the end of the hub's rule is the policy's");
}

#[test]
fn what_a_rule_cannot_say_is_refused_with_its_place() {
    let refused = |rule: Value| {
        let document = json!({
            "name": "a", "ip_range": "10.1.0.0/24", "security_policies": [rule],
            "sets": {"staff": {"entries": ["192.0.2.0/24"]}},
        });
        let problems = persona_from_value(document).unwrap_err();
        problems.into_iter().map(|problem| problem.pointer).collect::<Vec<_>>()
    };
    let at = |field: &str| vec![format!("/security_policies/0/{field}")];
    assert_eq!(refused(json!({"action": "rate_limit"})), at("rate"));
    assert_eq!(refused(json!({"action": "rate_limit", "rate": "fast"})), at("rate"));
    assert_eq!(refused(json!({"action": "rate_limit", "rate": "1Mbps", "limit": "flows"})), at("limit"));
    assert_eq!(refused(json!({"action": "allow", "rate": "1/s"})), at("rate"));
    assert_eq!(refused(json!({"action": "quarantine"})), at("ttl"));
    assert_eq!(refused(json!({"action": "quarantine", "ttl": "90d"})), at("ttl"));
    assert_eq!(refused(json!({"action": "allow", "expires_at": "tomorrow"})), at("expires_at"));
    assert_eq!(
        refused(json!({"action": "allow", "ttl": "1h", "expires_at": "2031-01-01T00:00:00Z"})),
        at("ttl")
    );
    assert_eq!(refused(json!({"action": "allow", "source": "@nobody"})), at("source"));
    assert_eq!(refused(json!({"action": "allow", "final": true})), at("final"));
}
