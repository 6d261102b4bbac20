//! Whether the loaded programs judge as the rules say is a check like others: a switch goes back whose rules came to
//! harm, and harm that comes later is told. So is whether packets are dropped that no rule means to drop.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

use aya::maps::{Array, Map, MapData};
use hub_common::rule::Rule;
use hub_common::segment::{Policy, Segment, policy_slot};
use hub_tests::lab::resource::Which::{Open, Shut};
use hub_tests::lab::resource::{BOTH, Resource, SWITCH, resource_at};
use hub_tests::lab::wait_until;
use hub_tests::lab::world::{FAMILIES, outside_at};
use hub_tests::packet::Datagram;
use hub_tests::root;
use serde_json::{Value, json};

/// Three rounds of checks, and room for a busy machine.
const ROUNDS: Duration = Duration::from_mins(1);

fn table<V: aya::Pod>(resource: &Resource, name: &str) -> Array<MapData, V> {
    let path = resource.world.hub.folder().join("bpf/hub/v1").join(name);
    let data = MapData::from_pin(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Array::try_from(Map::Array(data)).unwrap()
}

/// The policies of the interface: the one that decides, and the one beside it.
fn policies(resource: &Resource) -> [(u32, Policy); 2] {
    let segment = u32::try_from(resource.view()["segment"].as_u64().unwrap()).unwrap();
    let segment: Segment = table(resource, "SEGMENTS").get(&segment, 0).unwrap();
    [segment.policy, segment.candidate].map(|word| {
        let slot = policy_slot(word);
        (slot, table(resource, "POLICIES").get(&slot, 0).unwrap())
    })
}

/// A check among others, if it was asked.
fn find<'a>(checks: &'a Value, name: &str) -> Option<&'a Value> {
    checks.as_array().unwrap().iter().find(|check| check["check"] == name)
}

/// The answer to the check of rules, if it was asked.
fn answer(checks: &Value) -> Option<(bool, String)> {
    let check = find(checks, "rules")?;
    Some((check["passed"] == true, check["detail"].as_str().unwrap().to_owned()))
}

#[test]
fn a_switch_whose_rules_came_to_harm_goes_back() {
    if !root() {
        return;
    }
    let resource = Resource::new();
    let leaving = resource.world.outside.connect(resource_at(true), Open.port());
    let drain = json!({"drain": {"timeout": "10m"}});
    let mut slow = Shut.definition(&drain);
    slow["name"] = "slow".into();
    resource.keep(&slow);
    let began = resource.order("slow", &json!({})).expect(202);
    wait_until("it waits for a connection", SWITCH, || resource.state() == "draining");
    // A rule that is lost lets everything in, and nobody who is let in complains.
    let [_, (_, beside)] = policies(&resource);
    let mut rules: Array<_, Rule> = table(&resource, "RULES");
    rules.set(beside.ingress_first, Rule::ZERO, 0).unwrap();
    drop(leaving);
    let end = resource.finish(began["id"].as_str().unwrap());
    assert_eq!(end["outcome"], "rolled_back", "{end:#}");
    let why = end["failure"].as_str().unwrap();
    assert!(why.starts_with("rules: ") && why.contains("passes, though the rules refuse it"), "{why}");
    resource.settle();
    resource.expect_whole(Open, "after the harm");
}

/// Packets that the check of rules was about.
fn told(checks: &Value) -> u32 {
    let (passed, detail) = answer(checks).unwrap();
    assert!(passed, "{detail}");
    detail.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn what_sets_limits_and_ends_decide_is_asked_about() {
    if !root() {
        return;
    }
    let resource = Resource::new();
    let alone = |name: &str, rule: Value| {
        let mut definition = Shut.definition(&json!({"firewall_rules": [rule], "sets": {
            "staff": {"entries": ["198.51.100.0/24", "2001:db8:51::/64"]}}}));
        definition["name"] = name.into();
        resource.keep(&definition);
        resource.switch(name, &json!({}))
    };
    let rules = [
        json!({"protocol": "tcp", "port": BOTH, "source": "@staff", "action": "allow"}),
        json!({"protocol": "tcp", "port": BOTH, "action": "rate_limit", "rate": "100/s"}),
        json!({"protocol": "tcp", "port": BOTH, "action": "allow", "expires_at": "2100-01-01T00:00:00Z"}),
    ];
    for (number, rule) in rules.into_iter().enumerate() {
        let end = alone(&format!("alone{number}"), rule.clone());
        assert_eq!(end["outcome"], "committed", "{end:#}");
        assert_eq!(told(&end["checks"]), 6, "nothing else lets anything in: {rule}");
    }
    // There is room for one connection a second, and two packets are asked about at once: neither takes it.
    let limited = json!({"protocol": "tcp", "port": BOTH, "action": "rate_limit", "rate": "1/s", "burst": 1});
    let end = alone("limited", limited);
    assert_eq!((told(&end["checks"]), &end["outcome"]), (6, &json!("committed")), "{end:#}");
}

#[test]
fn harm_that_comes_later_is_told_in_both_families() {
    if !root() {
        return;
    }
    let resource = Resource::new();
    let end = resource.switch("shut", &json!({}));
    assert_eq!(end["outcome"], "committed", "{end:#}");
    // What is let in and what is not, of both families; what members send is all let out.
    let (passed, detail) = answer(&end["checks"]).unwrap();
    assert!(passed && detail.starts_with("6 packets judged as the rules say in "), "{detail}");
    wait_until("it is asked again", ROUNDS, || {
        answer(&resource.view()["checks"]).is_some_and(|(passed, _)| passed)
    });
    let [(slot, whole), _] = policies(&resource);
    let mut slots: Array<_, Policy> = table(&resource, "POLICIES");
    slots.set(slot, Policy::ZERO, 0).unwrap();
    let said = |condition: &str| {
        let view = resource.view();
        let conditions = view["conditions"].as_array().unwrap().iter();
        let mut those = conditions.filter(|it| it["reason"] == condition);
        those.next().map(|it| it["message"].as_str().unwrap().to_owned())
    };
    wait_until("the harm is told", ROUNDS, || said("Unhealthy").is_some());
    let why = said("Unhealthy").unwrap();
    assert!(why.starts_with("rules: tcp from 203.0.113.251 to 10.20.0.5 port "), "{why}");
    assert!(why.ends_with("is dropped (protocol), though the rules allow it"), "{why}");
    slots.set(slot, whole, 0).unwrap();
    wait_until("it is well again", ROUNDS, || said("Unhealthy").is_none());
    resource.world.outside.expect_tcp(resource_at(false), BOTH, hub_tests::lab::Outcome::Answered);
}

/// Answers to pings that nobody sent, a few thousand a second in both families, until it is over.
fn stray(resource: &Resource, over: &AtomicBool) {
    let world = &resource.world;
    let (wire, hub, own) =
        (world.outside.wiretap("eth0"), world.router.mac("up0"), world.outside.mac("eth0"));
    let frames =
        FAMILIES.map(|v4| Datagram::pong(outside_at(v4), resource_at(v4), 7).frame_between(own, hub));
    while !over.load(Ordering::Relaxed) {
        for frame in frames.iter().cycle().take(10) {
            wire.try_send(frame);
        }
        sleep(Duration::from_millis(2));
    }
}

/// The switch to the other personality, with packets that belong to nothing from a moment on.
fn switched_with_strays(resource: &Resource, slow: &Value, at_once: bool) -> Value {
    let over = AtomicBool::new(false);
    resource.keep(slow);
    let leaving = resource.world.outside.connect(resource_at(true), Open.port());
    let end = scope(|scope| {
        let flood = || stray(resource, &over);
        if at_once {
            scope.spawn(flood);
            let carrier = resource.view()["persona"].as_str().unwrap().to_owned();
            let noise = || resource.world.dropped(&carrier, "no_flow") > 100;
            wait_until("strays are dropped", SWITCH, noise);
        }
        let began = resource.order(slow["name"].as_str().unwrap(), &json!({})).expect(202);
        wait_until("it waits for a connection", SWITCH, || resource.state() == "draining");
        if !at_once {
            scope.spawn(flood);
        }
        drop(leaving);
        let end = resource.finish(began["id"].as_str().unwrap());
        over.store(true, Ordering::Relaxed);
        end
    });
    resource.settle();
    end
}

#[test]
fn packets_that_belong_to_nothing_are_compared_with_those_before() {
    if !root() {
        return;
    }
    let resource = Resource::new();
    let slow = |name: &str| {
        let mut slow = Shut.definition(&json!({"drain": {"timeout": "10m"}}));
        slow["name"] = name.into();
        slow
    };
    let end = switched_with_strays(&resource, &slow("slow"), false);
    assert_eq!(end["outcome"], "rolled_back", "{end:#}");
    let why = end["failure"].as_str().unwrap();
    assert!(why.starts_with("drops: ") && why.contains("packets a second are dropped for want of"), "{why}");
    resource.expect_whole(Open, "after the switch that lost connections");
    let end = switched_with_strays(&resource, &slow("slower"), true);
    assert_eq!(end["outcome"], "committed", "as many strays as before are nobody's fault: {end:#}");
    let drops = find(&end["checks"], "drops").unwrap();
    assert!(drops["counted"].as_u64().unwrap() > 100, "{drops}");
    for v4 in FAMILIES {
        resource.world.outside.expect_tcp(resource_at(v4), Shut.port(), hub_tests::lab::Outcome::Answered);
        resource.world.outside.expect_tcp(resource_at(v4), Open.port(), hub_tests::lab::Outcome::Refused);
    }
}
