//! Placement and what comes back from reconcile.

use super::*;
use crate::desired::{LINK_PREFIX, Role, RouteKey, TABLE_BASE, Via, Xdp};
use crate::model::config::Interface;
use crate::systems::persona::place::{MAIN_TABLE, METRIC_BASE, METRIC_FALLBACK};

fn config(interfaces: &[(&str, Role)]) -> Config {
    let interface = |(pattern, role): &(&str, Role)| Interface {
        pattern: (*pattern).to_owned(),
        is_glob: pattern.contains('*'),
        role: *role,
        xdp: Xdp::Auto,
        bandwidth: None,
    };
    Config { interfaces: interfaces.iter().map(interface).collect(), ..Config::default() }
}

fn main_route<'a>(desired: &'a Desired, target: &str, metric: u32) -> Option<&'a Via> {
    let key = RouteKey { table: MAIN_TABLE, target: target.parse().unwrap(), metric };
    desired.routes.get(&key).map(|route| &route.via)
}

#[test]
fn endpoints_get_links_addresses_and_host_routes() {
    let mut script = Script::new();
    let endpoints = json!({"ip_range": ["10.1.0.0/24", "fd00:1::/64"], "endpoints": [
        {"name": "web", "namespace": "web"},
        {"name": "db", "pid": 77, "interface": "lan0", "address": "10.1.0.2"},
    ]});
    script.create(with(persona("a", "10.1.0.0/24"), endpoints)).unwrap();
    let desired = script.desired();
    let web = &desired.endpoints["hub1e0"];
    assert_eq!(web.addresses, ["10.1.0.3/24".parse().unwrap(), "fd00:1::2/64".parse().unwrap()]);
    assert_eq!(web.gateways, ["10.1.0.1".parse::<std::net::IpAddr>().unwrap(), "fd00:1::1".parse().unwrap()]);
    assert_eq!(desired.endpoints["hub1e1"].gateways.len(), 1, "it has no IPv6 address");
    assert_eq!(desired.ports["hub1e0"].segment.unwrap().0, 1);
    assert_eq!(desired.addresses.len(), 3);
    let via = Via::Interface("hub1e0".into());
    assert_eq!(main_route(&desired, "10.1.0.3/32", METRIC_BASE), Some(&via));
    assert_eq!(main_route(&desired, "fd00:1::2/128", METRIC_BASE), Some(&via));
    assert_eq!(main_route(&desired, "10.1.0.0/24", METRIC_FALLBACK), Some(&Via::Unreachable));
    assert_eq!(desired.sysctls["net/ipv6/conf/hub1e0/accept_ra"], "0");
    let fewer = json!({"ip_range": ["10.1.0.0/24", "fd00:1::/64"], "endpoints": [
        {"name": "new", "namespace": "new"}, {"name": "web", "namespace": "web"}]});
    script.replace("a", with(persona("a", "10.1.0.0/24"), fewer)).unwrap();
    let after = script.desired();
    assert_eq!(after.endpoints["hub1e0"], desired.endpoints["hub1e0"], "a seat stays with its endpoint");
    assert_eq!(after.endpoints["hub1e1"].addresses[0], "10.1.0.2/24".parse().unwrap());
}

#[test]
fn a_range_without_room_is_refused() {
    let mut script = Script::new();
    let endpoint = |n: u32| json!({"name": format!("e{n}"), "pid": n});
    let endpoints: Vec<_> = (1..=2).map(endpoint).collect();
    let (kind, text) =
        refusal(script.create(with(persona("a", "10.1.0.0/30"), json!({"endpoints": endpoints}))));
    assert!(
        kind == RejectionKind::Invalid && text.contains("/endpoints/1/address no IPv4 address"),
        "{text}"
    );
}

#[test]
fn an_interface_belongs_to_one() {
    let mut script = Script::with(config(&[("eth0", Role::Uplink)]));
    script.links(&[("eth0", true), ("lan", true)]);
    let on = |name: &str| json!({"interfaces": [name]});
    script.create(with(persona("a", "10.1.0.0/24"), on("lan"))).unwrap();
    let desired = script.desired();
    assert_eq!(desired.ports["eth0"].role, Role::Uplink);
    assert_eq!(desired.ports["lan"].segment.unwrap().0, 1);
    assert!(desired.addresses.contains_key(&("lan".into(), "10.1.0.1/24".parse().unwrap())));
    assert_eq!(main_route(&desired, "10.1.0.0/24", METRIC_BASE), Some(&Via::Interface("lan".into())));
    let (_, text) = refusal(script.create(with(persona("b", "10.2.0.0/24"), on("lan"))));
    assert!(text.contains("/interfaces/0 interface `lan` belongs to persona `a`"), "{text}");
    let (_, text) = refusal(script.create(with(persona("b", "10.2.0.0/24"), on("eth0"))));
    assert!(text.contains("uplink"), "{text}");
    script.links(&[("eth0", true), ("lan", false)]);
    assert_eq!(main_route(&script.desired(), "10.1.0.0/24", METRIC_BASE), Some(&Via::Blackhole));
    assert_eq!(script.reasons("a"), ["InterfaceDown"]);
    script.links(&[("eth0", true)]);
    assert!(!script.desired().ports.contains_key("lan"));
    assert_eq!(main_route(&script.desired(), "10.1.0.0/24", METRIC_BASE), Some(&Via::Blackhole));
    assert_eq!(script.reasons("a"), ["InterfaceMissing"]);
}

#[test]
fn one_segment_interface_is_shared_by_those_without_ports() {
    let mut script = Script::with(config(&[("seg*", Role::Segment)]));
    script.create(persona("a", "10.1.0.0/24")).unwrap();
    script.create(persona("b", "10.2.0.0/24")).unwrap();
    assert_eq!(main_route(&script.desired(), "10.1.0.0/24", METRIC_BASE), Some(&Via::Blackhole));
    assert_eq!(script.reasons("a"), ["NoPort"]);
    script.links(&[("seg0", true)]);
    let desired = script.desired();
    assert_eq!(desired.ports["seg0"].segment, None);
    assert_eq!(desired.addresses.len(), 2);
    assert_eq!(main_route(&desired, "10.2.0.0/24", METRIC_BASE), Some(&Via::Interface("seg0".into())));
    script.links(&[("seg0", true), ("seg1", true)]);
    assert_eq!(script.reasons("a"), ["NoPort"], "two would be a guess");
}

#[test]
fn a_next_hop_makes_a_table_of_ones_own() {
    let mut script = Script::new();
    let hop = json!({"egress": {"next_hop": "192.0.2.1"}, "peers": ["b"]});
    script.create(with(persona("a", "10.1.0.0/24"), hop)).unwrap();
    script.create(with(persona("b", "10.2.0.0/24"), json!({"peers": ["a"]}))).unwrap();
    let desired = script.desired();
    let table = TABLE_BASE + 1;
    let targets: Vec<_> = desired.routes.keys().filter(|key| key.table == table).collect();
    let texts: Vec<_> = targets.iter().map(|key| format!("{}", key.target)).collect();
    assert_eq!(texts, ["0.0.0.0/0", "0.0.0.0/0", "10.1.0.0/24", "10.1.0.0/24", "10.2.0.0/24"]);
    assert_eq!(desired.rules.len(), 1);
    assert!(desired.rules.iter().all(|rule| rule.table == table && rule.source.to_string() == "10.1.0.0/24"));
}

#[test]
fn what_the_kernel_refuses_is_withheld_whole_and_tried_again() {
    let mut script = Script::new();
    let id = script
        .create(with(persona("a", "10.1.0.0/24"), json!({"endpoints": [{"name": "x", "pid": 5}]})))
        .unwrap()
        .id;
    script.reconciled(&[(&id, "no process 5")]);
    assert_eq!(script.view("a").state, PersonaState::Failed);
    assert!(script.view("a").conditions.iter().any(|condition| condition.message == "no process 5"));
    let desired = script.desired();
    assert!(desired.endpoints.is_empty() && desired.routes.is_empty() && desired.ports.is_empty());
    assert_eq!(desired.segments.values().next().unwrap().state, SegmentState::Block);
    script.reconciled(&[]);
    assert_eq!(script.view("a").state, PersonaState::Failed, "nothing was tried");
    assert_eq!(script.hub.deadline().unwrap(), script.now + 2.seconds());
    script.pass(2);
    assert_eq!(script.desired().endpoints.len(), 1);
    script.reconciled(&[(&id, "no process 5")]);
    assert_eq!(script.hub.deadline().unwrap(), script.now + 4.seconds());
    script.pass(4);
    script.reconciled(&[]);
    assert_eq!(script.view("a").state, PersonaState::Active);
    script.reconciled(&[(&id, "the namespace went away")]);
    assert_eq!(script.view("a").state, PersonaState::Active, "what works is not taken down for a part");
    assert_eq!(script.reasons("a"), ["Fault"]);
}

#[test]
fn what_failed_is_tried_again_when_others_change_the_network_and_not_when_passes_do() {
    let mut script = Script::new();
    let id = script.create(persona("a", "10.1.0.0/24")).unwrap().id;
    script.reconciled(&[(&id, "refused")]);
    let mut inventory = Inventory::default();
    inventory.links.insert(format!("{LINK_PREFIX}1"), Link::default());
    script.inventory(inventory.clone());
    assert_eq!(script.view("a").state, PersonaState::Failed, "an endpoint of the hub's came");
    inventory.links.insert("lan0".to_owned(), Link::default());
    script.inventory(inventory.clone());
    assert_ne!(script.view("a").state, PersonaState::Failed, "tried at once");
    // The pass that is under way does not know of what comes now.
    let revision = script.hub.revision();
    inventory.links.insert("lan1".to_owned(), Link::default());
    script.inventory(inventory);
    let faults = [(id, vec!["refused".to_owned()])].into();
    script.hub.handle(Command::Faults { revision, faults, postponed: BTreeSet::new() }, script.now).unwrap();
    assert_ne!(script.view("a").state, PersonaState::Failed);
}

#[test]
fn a_pass_that_began_before_says_nothing_of_a_newcomer() {
    let mut script = Script::new();
    let revision = script.hub.revision();
    script.create(persona("a", "10.1.0.0/24")).unwrap();
    script
        .hub
        .handle(Command::Faults { revision, faults: BTreeMap::new(), postponed: BTreeSet::new() }, script.now)
        .unwrap();
    assert_eq!(script.view("a").state, PersonaState::Pending);
    script.hub.begin_pass();
    assert_eq!(script.view("a").state, PersonaState::Provisioning);
    script.reconciled(&[]);
    assert_eq!(script.view("a").state, PersonaState::Active);
}

#[test]
fn a_tombstone_yields_to_a_foreign_route() {
    let mut script = Script::new();
    script.create(with(persona("a", "10.1.0.0/24"), json!({"ttl": "1s"}))).unwrap();
    script.pass(1);
    assert_eq!(script.desired().prefixes.len(), 1);
    let foreign_routes = vec!["10.1.0.0/16".parse().unwrap()];
    script.inventory(Inventory { foreign_routes, ..Inventory::default() });
    assert!(script.desired().prefixes.is_empty());
}

#[test]
fn who_gave_its_number_up_does_not_show_the_next_ones() {
    let mut script = Script::new();
    let first = script.create(with(persona("a", "10.1.0.0/24"), json!({"ttl": "1s"}))).unwrap();
    script.pass(1);
    assert_eq!(script.view("a").in_datapath(), Some(first.segment), "packets of its range have an answer");
    // Somebody wants the range: the tombstone leaves the data path, and its number rests.
    script.create(persona("b", "10.1.0.0/24")).unwrap();
    let gone = script.hub.snapshot(script.now).personas[&first.id].in_datapath();
    assert_eq!(gone, None);
    script.pass(QUARANTINE.as_secs());
    let next = script.create(persona("c", "10.3.0.0/24")).unwrap();
    assert_eq!(next.segment, first.segment);
    let snapshot = script.hub.snapshot(script.now);
    let named = crate::kernel::names::persona(&snapshot, next.segment.0);
    assert_eq!(named.map(|persona| persona.definition.name.as_str()), Some("c"));
    assert_eq!(snapshot.segments().len(), 2);
    assert_eq!(crate::kernel::names::personas(&snapshot).len(), 2, "the outside has no name");
}

#[test]
fn snapshots_share_what_did_not_change() {
    let mut script = Script::new();
    script.create(persona("a", "10.1.0.0/24")).unwrap();
    script.create(persona("b", "10.2.0.0/24")).unwrap();
    let first = script.hub.snapshot(script.now).personas;
    script.replace("b", with(persona("b", "10.2.0.0/24"), json!({"protocols": ["tcp"]}))).unwrap();
    let second = script.hub.snapshot(script.now).personas;
    let same = first.iter().zip(&second).map(|((_, old), (_, new))| Arc::ptr_eq(old, new));
    assert_eq!(same.collect::<Vec<_>>(), [true, false]);
}
