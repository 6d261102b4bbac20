//! Several interfaces switched as one: all of them, or none.

use super::switch::*;
use super::switch_documents::personality;
use super::*;
use crate::command::switch::{InterfaceCommand, Order, SwitchCommand};
use crate::document::read::interface_from_value;
use crate::systems::personality::operation::Outcome;
use crate::systems::personality::switch::Phase;

fn began(confirm: bool) -> Switching {
    let mut hub = Switching::new(3, json!({}));
    let order = |name: &str, to: &str| Order {
        confirm_within: confirm.then_some(std::time::Duration::from_mins(1)),
        ..Switching::order(name, to)
    };
    let views = hub.start(vec![order("i0", "p0-1"), order("i1", "p1-2")]).unwrap();
    assert!(views.len() == 2 && views[0].group.is_some() && views[0].group == views[1].group);
    hub
}

fn lives(hub: &Switching, name: &str) -> String {
    hub.script.hub.interfaces.records[name].layout.live.to_string()
}

#[test]
fn a_group_flips_in_one_pass_and_is_done_at_once() {
    let mut hub = began(false);
    hub.pass();
    hub.answer("i0", &[]);
    hub.pass();
    hub.count("i0", 0);
    assert_eq!(hub.phase("i0"), Some(Phase::Ready));
    let segment = hub.view("i0").segment;
    assert!(hub.script.desired().segments[&segment].transition.is_some(), "the gate stays closed meanwhile");
    hub.answer("i1", &[]);
    hub.pass();
    assert_eq!((lives(&hub, "i0"), lives(&hub, "i1")), ("p0-0@1".into(), "p1-0@1".into()));
    hub.count("i1", 0);
    assert_eq!((lives(&hub, "i0"), lives(&hub, "i1")), ("p0-1@1".into(), "p1-2@1".into()));
    hub.pass();
    hub.answer("i1", &[]);
    assert_eq!(hub.phase("i1"), Some(Phase::Verified));
    assert!(hub.script.hub.unwritten().is_empty());
    hub.answer("i0", &[]);
    let outcomes: Vec<_> = hub.script.hub.unwritten().iter().map(|entry| entry.outcome).collect();
    assert_eq!(outcomes, [Outcome::Committed, Outcome::Committed]);
}

#[test]
fn one_that_fails_takes_the_others_with_it() {
    let mut hub = began(false);
    hub.until("i0", Phase::Ready);
    hub.answer("i1", &["handshake of wg12"]);
    let outcomes: Vec<_> = hub.script.hub.unwritten().iter().map(|entry| entry.outcome).collect();
    assert_eq!(outcomes, [Outcome::Aborted, Outcome::Aborted]);
    let failure = hub.last().failure.unwrap();
    assert!(failure.starts_with("interface `i1`: handshake"), "{failure}");
    let mut hub = began(false);
    hub.until("i0", Phase::Ready);
    hub.until("i1", Phase::Flip);
    hub.pass();
    hub.answer("i0", &[]);
    hub.answer("i1", &["dns"]);
    assert_eq!((lives(&hub, "i0"), lives(&hub, "i1")), ("p0-0@1".into(), "p1-0@1".into()), "in one pass");
    assert_eq!(hub.finish("i0").outcome, Outcome::RolledBack);
    assert_eq!(hub.finish("i1").outcome, Outcome::RolledBack);
}

#[test]
fn a_word_about_one_is_about_all() {
    let mut hub = began(true);
    hub.until("i0", Phase::Ready);
    hub.until("i1", Phase::Flip);
    hub.pass();
    hub.answer("i0", &[]);
    hub.answer("i1", &[]);
    assert_eq!(hub.phase("i0"), Some(Phase::AwaitConfirm));
    hub.ask(SwitchCommand::Confirm(Switching::said("i1"))).unwrap();
    assert_eq!((hub.phase("i0"), hub.phase("i1")), (None, None));
    assert_eq!(hub.view("i0").current.to_string(), "p0-1@1");
    let mut hub = began(true);
    hub.ask(SwitchCommand::Cancel(Switching::said("i1"))).unwrap();
    assert_eq!((hub.phase("i0"), hub.phase("i1")), (None, None));
}

#[test]
fn an_order_that_is_refused_refuses_all() {
    let mut hub = Switching::new(2, json!({}));
    let (kind, text) = refusal(hub.start(vec![
        Switching::order("i0", "p0-1"),
        Switching::order("i1", "nothing"),
        Switching::order("i0", "p0-2"),
    ]));
    assert_eq!(kind, RejectionKind::Invalid);
    assert!(text.contains("/1/to there is no personality `nothing`"), "{text}");
    assert!(text.contains("/2 a switch to p0-1@1 is under way"), "{text}");
    assert_eq!((hub.phase("i0"), hub.phase("i1")), (None, None));
    assert!(hub.script.hub.unwritten().is_empty());
}

/// One document for every interface: what differs is said by the records' labels.
fn shared() -> Value {
    let tunnel = json!({"interface": "wgs{label:net}", "private_key_file": "/etc/hub/{interface}.key",
        "peers": [{"public_key": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "allowed_ips": ["10.9.0.0/16"]}]});
    personality(
        1,
        json!({"name": "shared", "subnet_id": "lan{label:net}", "ip_addresses": ["10.2{label:net}.1.77/24"],
            "vpn_tunnel_config": tunnel}),
    )
}

fn relabel(hub: &mut Switching, name: &str, labels: Value) -> Result<Reply, Rejection> {
    let mut document = serde_json::to_value(&hub.view(name).definition).unwrap();
    document["labels"] = labels;
    let document = Box::new(interface_from_value(document).unwrap());
    let command = InterfaceCommand::Replace { document, if_document: None };
    let reply = hub.script.hub.handle(Command::Interface(command), hub.script.now);
    hub.check();
    reply
}

#[test]
fn one_personality_is_of_use_to_several_interfaces() {
    let mut hub = Switching::new(2, json!({}));
    assert_eq!(hub.keep(shared()), "shared@1");
    let orders = || ["i0", "i1"].map(|name| Switching::order(name, "shared")).to_vec();
    relabel(&mut hub, "i0", json!({"net": "0"})).unwrap();
    let (kind, said) = refusal(hub.start(orders()));
    assert_eq!(kind, RejectionKind::Invalid);
    assert!(
        said.contains("/1/to label `net` is missing: /ip_addresses/0 of the personality needs it"),
        "{said}"
    );
    relabel(&mut hub, "i1", json!({"net": "x"})).unwrap();
    let (_, said) = refusal(hub.start(orders()));
    assert!(said.contains("/1/to /ip_addresses/0 of shared: "), "{said}");
    assert!(hub.phase("i0").is_none() && hub.phase("i1").is_none());
    relabel(&mut hub, "i1", json!({"net": "1"})).unwrap();
    hub.start(orders()).unwrap();
    hub.until("i0", Phase::Ready);
    hub.until("i1", Phase::Flip);
    hub.pass();
    hub.answer("i0", &[]);
    hub.answer("i1", &[]);
    let desired = hub.script.desired();
    for number in 0..2 {
        let address: ipnet::IpNet = format!("10.2{number}.1.77/24").parse().unwrap();
        assert!(!desired.interfaces[&format!("i{number}")].addresses[&address].deprecated);
        let key = &desired.tunnels[&format!("wgs{number}")].private_key_file;
        assert_eq!(key.to_str(), Some(format!("/etc/hub/i{number}.key").as_str()));
    }
    let (kind, said) = refusal(relabel(&mut hub, "i0", json!({"net": "2"})));
    assert!(kind == RejectionKind::Conflict && said.starts_with("/labels personality shared@1"), "{said}");
    relabel(&mut hub, "i0", json!({"net": "0", "more": "x"})).unwrap();
    hub.restart();
    assert_eq!(lives(&hub, "i1"), "shared@1");
}

#[test]
fn a_record_must_say_what_its_personalities_ask_for() {
    let mut hub = Switching::new(1, json!({}));
    hub.keep(shared());
    let record = |more: Value| {
        let zones = json!({"levels": [{"level": "low", "personality": "p0-0"}, {"level": "high", "personality": "shared"}]});
        let record = json!({"name": "late", "interface": "eth9", "namespace": "n9", "port": "veth9",
            "personality": "shared", "default": "shared", "zones": zones});
        Box::new(interface_from_value(with(record, more)).unwrap())
    };
    let mut create = |document| {
        let command = Command::Interface(InterfaceCommand::Create { document });
        hub.script.hub.handle(command, hub.script.now)
    };
    let (kind, said) = refusal(create(record(json!({}))));
    assert!(
        kind == RejectionKind::Invalid && said.starts_with("/labels/net label `net` is missing"),
        "{said}"
    );
    let (_, said) = refusal(create(record(json!({"labels": {"net": "x"}}))));
    for pointer in ["/personality ", "/zones/levels/1/personality ", "/default "] {
        assert!(said.contains(pointer), "{pointer} in {said}");
    }
    create(record(json!({"labels": {"net": "3"}}))).unwrap();
}
