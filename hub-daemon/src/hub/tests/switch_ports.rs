//! Interfaces of the hub itself that are known by MAC or another name: their port is theirs under every name.

use super::switch::*;
use super::switch_documents::of_interface;
use super::*;
use crate::command::switch::{InterfaceCommand, SwitchCommand};
use crate::document::read::interface_from_value;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
const OTHER: &str = "downstairs";

/// The kernel has the interface under this name, or not at all, beside two free ports.
fn seen_as(hub: &mut Switching, name: Option<&str>) {
    let link = |ifindex, mac, other_names: &[&str]| Link {
        ifindex,
        up: true,
        mtu: 1_500,
        mac,
        other_names: other_names.iter().map(|name| (*name).to_owned()).collect(),
        ..Link::default()
    };
    let own = name.map(|name| (name.to_owned(), link(7, MAC, &[OTHER])));
    let on_top = own.iter().map(|_| ("vlan7".to_owned(), Link { kind: "vlan".into(), ..link(8, MAC, &[]) }));
    let beside = [("veth0".to_owned(), link(1, [2; 6], &[])), ("seg0".to_owned(), link(2, [4; 6], &[]))];
    let links = own.clone().into_iter().chain(on_top).chain(beside).collect();
    hub.script.inventory(Inventory { links, ..Inventory::default() });
}

/// Ports of the interface.
fn ports(hub: &mut Switching) -> Vec<String> {
    let segment = hub.view("own").segment;
    let desired = hub.script.desired();
    let own = desired.ports.iter().filter(|(_, port)| port.segment == Some(segment));
    own.map(|(name, _)| name.clone()).collect()
}

#[test]
fn an_interface_of_the_hub_is_judged_under_whatever_name_it_has() {
    for known in [json!({"mac": "02:00:00:00:00:07"}), json!({"altname": OTHER})] {
        let mut hub = Switching::new(1, json!({}));
        hub.keep(of_interface(1, 0, json!({})));
        seen_as(&mut hub, Some("eth5"));
        hub.enlist(json!({"name": "own", "interface": known, "personality": "p1-0"}));
        assert_eq!(ports(&mut hub), ["eth5"]);
        seen_as(&mut hub, Some("moved5"));
        assert_eq!(ports(&mut hub), ["moved5"]);
        seen_as(&mut hub, None);
        assert!(ports(&mut hub).is_empty(), "no other port takes its place");
        seen_as(&mut hub, Some("eth5"));
        assert_eq!(ports(&mut hub), ["eth5"]);
    }
}

#[test]
fn a_personality_of_another_vlan_than_the_link_is_refused() {
    let mut hub = Switching::new(1, json!({}));
    let mut config = hub.script.hub.config.clone();
    for (name, vlan) in [("lan1", 7), ("lan2", 8)] {
        config.subnets.get_mut(name).unwrap().vlan = Some(vlan);
    }
    hub.script.hub.config = config;
    for subnet in [1, 2, 3] {
        hub.keep(of_interface(subnet, 0, json!({})));
    }
    hub.keep(of_interface(1, 1, json!({})));
    let seen = |hub: &mut Switching, vlan| {
        let link = |ifindex, vlan| Link { ifindex, up: true, mtu: 1_500, vlan, ..Link::default() };
        let links = [("own0".to_owned(), link(7, vlan)), ("veth0".to_owned(), link(1, None))];
        hub.script.inventory(Inventory { links: links.into(), ..Inventory::default() });
    };
    let enlist = |hub: &mut Switching| {
        let record = json!({"name": "own", "interface": "eth0", "namespace": "n9", "port": "own0", "personality": "p1-0"});
        let document = Box::new(interface_from_value(record).unwrap());
        let command = Command::Interface(InterfaceCommand::Create { document });
        hub.script.hub.handle(command, hub.script.now)
    };
    let told = |refused: Rejection| {
        let problem = &refused.problems[0];
        format!("{} {}", problem.pointer, problem.detail)
    };
    seen(&mut hub, None);
    let detail = told(enlist(&mut hub).unwrap_err());
    assert!(
        detail.starts_with("/personality subnet `lan1` is on VLAN 7, and own0 is no device of a VLAN"),
        "{detail}"
    );
    assert!(detail.contains("`ip link add link own0 name own0.7 type vlan id 7`"), "{detail}");
    seen(&mut hub, Some(8));
    let detail = told(enlist(&mut hub).unwrap_err());
    assert!(detail.ends_with("own0 is a device of VLAN 8: use one of VLAN 7"), "{detail}");
    seen(&mut hub, Some(7));
    enlist(&mut hub).unwrap();
    hub.pass();
    // Another subnet is of another VLAN; one of none is wherever the link is.
    let detail = told(hub.start(vec![Switching::order("own", "p2-0")]).unwrap_err());
    assert!(detail.starts_with("/to subnet `lan2` is on VLAN 8, and own0 is a device of VLAN 7"), "{detail}");
    for to in ["p1-1", "p3-0"] {
        hub.start(vec![Switching::order("own", to)]).unwrap();
        hub.ask(SwitchCommand::Cancel(Switching::said("own"))).unwrap();
        hub.pass();
    }
    // The link may become another one while it is in use.
    let wrong = |hub: &mut Switching| hub.view("own").conditions.iter().any(|it| it.reason == "WrongVlan");
    assert!(!wrong(&mut hub));
    seen(&mut hub, Some(9));
    assert!(wrong(&mut hub));
}

fn refused_record(hub: &mut Switching, command: InterfaceCommand) -> Option<String> {
    let refused = hub.script.hub.handle(Command::Interface(command), hub.script.now).err()?;
    Some(format!("{} {}", refused.problems[0].pointer, refused.problems[0].detail))
}

#[test]
fn records_of_one_namespace_are_for_their_own_addresses_alone() {
    let mut hub = Switching::new(1, json!({}));
    hub.keep(of_interface(1, 0, json!({})));
    let document = |record: Value| Box::new(interface_from_value(record).unwrap());
    let second = |more: Value| {
        let record = json!({"name": "b", "interface": "eth1", "namespace": "n0", "port": "veth1", "personality": "p1-0"});
        InterfaceCommand::Create { document: document(with(record, more)) }
    };
    let first = |routes: &str| InterfaceCommand::Replace {
        document: document(json!({"name": "i0", "interface": "eth0", "namespace": "n0", "port": "veth0",
            "personality": "p0-0", "routes": routes})),
        if_document: None,
    };
    let told = "/routes interface record `i0` is about the same namespace, and that record says `routes: everything`";
    for more in [json!({}), json!({"routes": "addresses"})] {
        let why = refused_record(&mut hub, second(more)).unwrap();
        assert!(why.starts_with(told) && why.contains("say `routes: addresses` in all records"), "{why}");
    }
    assert_eq!(refused_record(&mut hub, first("addresses")), None);
    let why = refused_record(&mut hub, second(json!({}))).unwrap();
    assert!(why.contains("and this one says `routes: everything`"), "{why}");
    assert_eq!(refused_record(&mut hub, second(json!({"routes": "addresses"}))), None);
    let why = refused_record(&mut hub, first("everything")).unwrap();
    assert!(why.starts_with("/routes interface record `b` is about the same namespace"), "{why}");
}

#[test]
fn an_interface_of_the_hub_has_one_record_under_all_its_names() {
    let mut hub = Switching::new(1, json!({}));
    hub.keep(of_interface(1, 0, json!({})));
    hub.keep(of_interface(2, 0, json!({})));
    seen_as(&mut hub, Some("eth5"));
    hub.enlist(json!({"name": "own", "interface": {"mac": "02:00:00:00:00:07"}, "personality": "p1-0"}));
    for known in [json!("eth5"), json!({"altname": OTHER})] {
        let record = json!({"name": "again", "interface": known, "personality": "p2-0"});
        let document = Box::new(interface_from_value(record).unwrap());
        let why = refused_record(&mut hub, InterfaceCommand::Create { document }).unwrap();
        assert_eq!(why, "/interface the interface has a record already: `own`");
    }
}
