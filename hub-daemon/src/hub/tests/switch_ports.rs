//! Interfaces of the hub itself that are known by MAC or another name: their port is theirs under every name.

use super::switch::*;
use super::switch_documents::of_interface;
use super::*;

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
