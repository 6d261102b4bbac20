//! The session that a switch is ordered in is not in its way, and goes on.

use super::switch::*;
use super::switch_documents::of_interface;
use super::*;
use crate::command::switch::Order;
use crate::systems::personality::switch::Phase;
use crate::view::switch::Question;

#[test]
fn the_connection_that_ordered_a_switch_is_let_go_on() {
    let mut hub = Switching::new(1, json!({}));
    hub.keep(of_interface(0, 1, json!({"name": "same", "ip_addresses": ["10.20.1.10/24"]})));
    let connection = [("192.0.2.7".parse().unwrap(), 50_000), ("10.20.1.10".parse().unwrap(), 8443)];
    let order = Order { ordered_by: Some(connection), ..Switching::order("i0", "same") };
    let segment = hub.view("i0").segment;
    let before = Arc::clone(&hub.script.desired().segments[&segment].policy);
    hub.start(vec![order]).unwrap();
    let desired = hub.script.desired();
    let (live, beside) =
        (&desired.segments[&segment].policy, desired.segments[&segment].candidate.as_ref().unwrap());
    assert!(Arc::ptr_eq(live, &before), "packets see nothing of it");
    let first = &beside.policy.ingress[0];
    assert_eq!((first.source_port, first.target_port), ([50_000; 2], [8443; 2]), "that one connection alone");
    assert_eq!(beside.policy.ingress.len(), before.ingress.len() + 1);
    hub.until("i0", Phase::Drain);
    hub.pass();
    let wanted = hub.view("i0").wants;
    let Question::Flows { judged, .. } = &wanted[0].question else { panic!("{wanted:?}") };
    assert_eq!((judged.exempt, judged.inserted), (Some(connection), 1));
    hub.finish("i0");
    let spared =
        |hub: &Switching| hub.script.desired().segments[&segment].policy.ingress[0].target_port == [8443; 2];
    hub.wait(120);
    assert!(spared(&hub), "as long as the interface has what was switched to");
    hub.restart();
    hub.pass();
    assert!(spared(&hub));
    hub.start(vec![Switching::order("i0", "p0-2")]).unwrap();
    hub.finish("i0");
    hub.wait(120);
    assert!(!spared(&hub) && hub.script.hub.interfaces.records["i0"].spared.is_empty());
    // One that does not concern the interface makes no rule.
    let far = [("192.0.2.7".parse().unwrap(), 50_000), ("198.51.100.1".parse().unwrap(), 8443)];
    hub.start(vec![Order { ordered_by: Some(far), ..Switching::order("i0", "same") }]).unwrap();
    let beside = hub.script.desired().segments[&segment].candidate.as_ref().unwrap().policy.ingress.len();
    assert_eq!(beside, before.ingress.len() + 1, "but what refuses the address that goes away");
}

#[test]
fn a_rule_is_the_session_s_by_what_is_stored_and_not_by_its_name() {
    let mut hub = Switching::new(1, json!({}));
    let rules = json!([{"name": "ordered-by", "protocol": "tcp", "port": 22, "action": "allow"}]);
    let alike = json!({"name": "alike", "ip_addresses": ["10.20.1.10/24"], "firewall_rules": rules});
    hub.keep(of_interface(0, 1, alike));
    let connection = [("192.0.2.7".parse().unwrap(), 50_000), ("10.20.1.10".parse().unwrap(), 8443)];
    for (ordered_by, expected) in [(None, 0), (Some(connection), 1)] {
        let id = hub.start(vec![Order { ordered_by, ..Switching::order("i0", "alike") }]).unwrap();
        hub.until("i0", Phase::Drain);
        hub.pass();
        let wanted = hub.view("i0").wants;
        let Question::Flows { judged, .. } = &wanted[0].question else { panic!("{wanted:?}") };
        assert_eq!(judged.inserted, expected, "{id:?}");
        hub.finish("i0");
        hub.wait(120);
        hub.start(vec![Switching::order("i0", "p0-2")]).unwrap();
        hub.finish("i0");
        hub.wait(120);
    }
}
