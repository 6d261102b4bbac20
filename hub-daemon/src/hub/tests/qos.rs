//! What bandwidths become, by engine, and what is said of them.

use std::time::Duration;

use hub_common::shape::SHAPED_SEGMENTS;

use super::*;
use crate::desired::Role;
use crate::desired::queues::{Queue, QueuePlace};
use crate::model::SegmentId;
use crate::model::config::Interface;
use crate::model::qos::{Engine, Queueing, Queues};

/// A hub with an uplink and a port of a persona, on which somebody else may have a queue.
fn hub(engine: Engine, foreign: Option<&str>) -> Script {
    let uplink = Interface {
        pattern: "up0".into(),
        is_glob: false,
        role: Role::Uplink,
        xdp: crate::desired::Xdp::Off,
        bandwidth: None,
    };
    let qos = Queueing { engine, ..Queueing::default() };
    let mut config = Config { qos, interfaces: vec![uplink], ..Config::default() };
    config.limits.personas = 5_000;
    let mut script = Script::with(config);
    let link = |ifindex, queue: Option<&str>| Link {
        ifindex,
        up: true,
        mtu: 1_500,
        queue: queue.map(ToOwned::to_owned),
        ..Link::default()
    };
    let links = [("up0".to_owned(), link(1, None)), ("seg0".to_owned(), link(2, foreign))].into();
    script.inventory(Inventory { links, ..Inventory::default() });
    script
}

fn limited(name: &str, range: &str) -> Value {
    with(
        persona(name, range),
        json!({"interfaces": ["seg0"], "qos": {"bandwidth": "8Mbps", "latency": "30ms"}}),
    )
}

/// Kinds of the queues of all interfaces, by interface.
fn queues(desired: &Desired) -> Vec<(&str, QueuePlace, Queue)> {
    desired.queues.iter().map(|(key, queue)| (key.interface.as_str(), key.place, *queue)).collect()
}

#[test]
fn departure_times_need_one_queue_on_each_interface_and_no_class() {
    let mut script = hub(Engine::Edt, None);
    let view = script.create(limited("a", "10.1.0.0/24")).unwrap();
    let desired = script.desired();
    let root = |name| (name, QueuePlace::Root, Queue::Pacer);
    assert_eq!(queues(&desired), [root("seg0"), root("up0")]);
    let shape = &desired.shapes[&view.segment];
    // 8 Mbit/s of what IP carries in packets of 1,500 bytes.
    assert_eq!(shape.cap_bps, [Some(8_108_100); 2]);
    assert_eq!((shape.wait_us, shape.rate_bps), ([Some(30_000); 2], [None; 2]));
    let slow = json!({"interfaces": [], "qos": {"bandwidth": "8kbps"}});
    let view = script.create(with(limited("b", "10.2.0.0/24"), slow)).unwrap();
    // Less than a packet would stop everything.
    assert_eq!(script.desired().shapes[&view.segment].wait_us, [Some(1_481_482); 2]);
    let police = json!({"interfaces": [], "qos": {"bandwidth": "8Mbps", "police": true}});
    let view = script.create(with(limited("c", "10.3.0.0/24"), police)).unwrap();
    let desired = script.desired();
    let shape = &desired.shapes[&view.segment];
    assert_eq!((shape.cap_bps, shape.wait_us), ([Some(8_000_000); 2], [None; 2]));
}

#[test]
fn a_foreign_queue_stays_with_departure_times_too() {
    let mut script = hub(Engine::Edt, Some("tbf 5:"));
    script.create(limited("a", "10.1.0.0/24")).unwrap();
    assert_eq!(queues(&script.desired()), [("up0", QueuePlace::Root, Queue::Pacer)]);
    assert_eq!(script.reasons("a"), ["ForeignQueue"]);
}

#[test]
fn several_interfaces_of_a_direction_have_a_bandwidth_together() {
    let mut script = hub(Engine::Htb, None);
    let link = |ifindex| Link { ifindex, up: true, mtu: 1_500, ..Link::default() };
    let mut found = script.hub.inventory.clone();
    found.links.insert("seg1".into(), link(3));
    script.inventory(found.clone());
    let view = script.create(limited("a", "10.1.0.0/24")).unwrap();
    let shape = |script: &Script| script.desired().shapes[&view.segment].clone();
    let alone = shape(&script);
    assert_eq!((alone.cap_bps, alone.burst_us), ([None; 2], [None; 2]), "its queues decide");
    let together = [Some(8_270_262), Some(3 * (30_000 + 10_000))];
    // Two ports of its own.
    let two = json!({"interfaces": ["seg0", {"name": "seg1", "prefixes": ["10.1.0.128/25"]}]});
    script.replace("a", with(limited("a", "10.1.0.0/24"), two.clone())).unwrap();
    let ports = shape(&script);
    assert_eq!(([ports.cap_bps[0], ports.burst_us[0]], ports.cap_bps[1]), (together, None));
    assert_eq!(
        (ports.rate_bps, ports.wait_us),
        (alone.rate_bps, [None; 2]),
        "each has its queue all the same"
    );
    // What borrows does so in sum; what is policed has no queues.
    let qos = |more: Value| with(json!({"bandwidth": "8Mbps", "latency": "30ms"}), more);
    let borrows = with(two.clone(), json!({"qos": qos(json!({"ceil": "16Mbps"}))}));
    script.replace("a", with(limited("a", "10.1.0.0/24"), borrows)).unwrap();
    assert_eq!(shape(&script).cap_bps, [Some(16_540_524), None]);
    let police = with(two, json!({"qos": qos(json!({"police": true}))}));
    script.replace("a", with(limited("a", "10.1.0.0/24"), police)).unwrap();
    assert_eq!((shape(&script).cap_bps, shape(&script).burst_us), ([Some(8_000_000); 2], [None; 2]));
    // An uplink and the port of a peer.
    script.replace("a", with(limited("a", "10.1.0.0/24"), json!({"peers": ["b"]}))).unwrap();
    let peer = json!({"interfaces": ["seg1"], "peers": ["a"]});
    script.create(with(persona("b", "10.2.0.0/24"), peer)).unwrap();
    let peers = shape(&script);
    assert_eq!((peers.cap_bps[0], [peers.cap_bps[1], peers.burst_us[1]]), (None, together));
    // A queue of somebody else is in the way: the cap is as hard as if it were the only one.
    found.links.get_mut("seg1").unwrap().queue = Some("tbf 5:".into());
    script.inventory(found);
    let foreign = shape(&script);
    assert_eq!((foreign.cap_bps, foreign.burst_us), ([None, Some(8_000_000)], [None; 2]));
}

/// Interfaces with a queue at their root, by what the hub wants.
fn roots(script: &mut Script) -> Vec<String> {
    let desired = script.hub.wanted(script.now);
    assert_eq!(desired, script.desired());
    let roots = desired.queues.keys().filter(|key| key.place == QueuePlace::Root);
    roots.map(|key| key.interface.clone()).collect()
}

#[test]
fn queues_that_came_with_a_bandwidth_stay_until_there_is_no_persona() {
    for engine in [Engine::Htb, Engine::Edt] {
        let mut script = hub(engine, None);
        let plain = with(persona("a", "10.1.0.0/24"), json!({"interfaces": ["seg0"]}));
        let other = with(persona("b", "10.2.0.0/24"), json!({"endpoints": [{"name": "e", "pid": 7}]}));
        script.create(plain.clone()).unwrap();
        assert_eq!(roots(&mut script), [""; 0], "nobody needs them");
        script.replace("a", limited("a", "10.1.0.0/24")).unwrap();
        assert_eq!(roots(&mut script), ["seg0", "up0"]);
        let view = script.create(other.clone()).unwrap();
        let port = crate::systems::persona::seats::link_name(view.segment, 0);
        assert_eq!(roots(&mut script), [&port, "seg0", "up0"], "who has no bandwidth may get one");
        script.replace("a", plain.clone()).unwrap();
        assert_eq!(roots(&mut script), [&port, "seg0", "up0"]);
        script.delete("a").unwrap();
        script.reconciled(&[]);
        assert_eq!(roots(&mut script), [&port, "up0"]);
        script.delete("b").unwrap();
        script.reconciled(&[]);
        assert_eq!(roots(&mut script), [""; 0]);
        script.create(plain).unwrap();
        assert_eq!(roots(&mut script), [""; 0]);
    }
}

#[test]
fn queues_that_a_restart_finds_stay_and_some_are_always_there() {
    let plain = with(persona("a", "10.1.0.0/24"), json!({"interfaces": ["seg0"]}));
    for (queues, found, wanted) in [
        (Queues::Needed, false, &[][..]),
        (Queues::Needed, true, &["seg0", "up0"]),
        (Queues::Always, false, &["seg0", "up0"]),
    ] {
        let mut script = hub(Engine::Htb, None);
        let qos = Queueing { queues, ..Queueing::default() };
        let config = Config { qos, ..script.hub.config().clone() };
        script.hub.handle(Command::Configure(Box::new(config)), script.now).unwrap();
        let seen = Inventory { has_queues: found, ..script.hub.inventory.clone() };
        script.inventory(seen);
        script.create(plain.clone()).unwrap();
        assert_eq!(roots(&mut script), wanted, "{queues:?}, found {found}");
        script.delete("a").unwrap();
        assert_eq!(roots(&mut script), [""; 0], "without a persona nothing is there");
    }
}

#[test]
fn what_departure_times_cannot_do_is_said() {
    let more = json!({"qos": {"bandwidth": "8Mbps", "ceil": "9Mbps"}});
    for (engine, wanted) in [(Engine::Edt, &["QosSimplified"][..]), (Engine::Auto, &[]), (Engine::Htb, &[])] {
        let mut script = hub(engine, None);
        script.create(with(limited("a", "10.1.0.0/24"), more.clone())).unwrap();
        script.reconciled(&[]);
        assert_eq!(script.reasons("a"), wanted, "{engine:?}");
    }
}

#[test]
fn segments_without_a_class_are_policed_by_htb_and_paced_by_departure_times() {
    let mut script = hub(Engine::Htb, None);
    let mut last = SegmentId(0);
    for number in 0..SHAPED_SEGMENTS {
        let range = format!("10.{}.{}.0/29", number >> 8, number & 255);
        let is_last = number + 1 == SHAPED_SEGMENTS;
        let document = if is_last { limited("a", &range) } else { persona(&format!("p{number}"), &range) };
        last = script.create(document).unwrap().segment;
    }
    assert!(last.0 >= SHAPED_SEGMENTS, "{last:?}");
    script.reconciled(&[]);
    for (engine, wanted) in [(Engine::Htb, &["QosPoliced"][..]), (Engine::Edt, &[])] {
        let qos = Queueing { engine, ..Queueing::default() };
        let config = Config { qos, ..script.hub.config().clone() };
        script.hub.handle(Command::Configure(Box::new(config)), script.now).unwrap();
        assert_eq!(script.reasons("a"), wanted, "{engine:?}");
        let desired = script.desired();
        let shape = &desired.shapes[&last];
        assert!(shape.cap_bps[0].is_some() && shape.rate_bps == [None; 2], "{shape:?}");
        let (waits, queues) = (shape.wait_us[0].is_some(), desired.queues.len());
        assert_eq!((waits, queues), (engine.paces(), if engine.paces() { 2 } else { 0 }));
    }
}

#[test]
fn lateness_is_a_condition_as_long_as_it_lasts() {
    let mut script = hub(Engine::Auto, None);
    let view = script.create(limited("a", "10.1.0.0/24")).unwrap();
    script.reconciled(&[]);
    let late = [(view.id.clone(), Duration::from_millis(431))].into();
    script.hub.handle(Command::Latency(late), script.now).unwrap();
    let conditions = script.view("a").conditions;
    assert_eq!(conditions.len(), 1, "{conditions:?}");
    assert!(conditions[0].reason == "LatencyExceeded" && conditions[0].message.contains("431ms"));
    // A change of something else says nothing of its handshakes; one of the latency does.
    let changed =
        script.replace("a", with(limited("a", "10.1.0.0/24"), json!({"protocols": ["tcp"]}))).unwrap();
    assert_eq!(changed.conditions, conditions);
    let mut other = limited("a", "10.1.0.0/24");
    other["qos"]["latency"] = json!("31ms");
    script.replace("a", other).unwrap();
    assert!(script.reasons("a").is_empty());
    let late = [(view.id, Duration::from_millis(431))].into();
    script.hub.handle(Command::Latency(late), script.now).unwrap();
    script.hub.handle(Command::Latency([].into()), script.now).unwrap();
    assert!(script.reasons("a").is_empty());
}
