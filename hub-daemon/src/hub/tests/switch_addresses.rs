//! Addresses that an interface loses by a switch are refused from the drain on, whatever rules allow.

use hub_common::address::mapped;
use hub_common::rule::{ACTION_DENY, RULE_V4, RULE_V6, Rule};

use super::switch::*;
use super::switch_documents::of_interface;
use super::*;
use crate::compile::SYNTHETIC_RULE;
use crate::desired::interfaces::{AddressScope, InterfaceAddress};
use crate::model::SegmentId;
use crate::model::policy::Policy;
use crate::systems::personality::operation::Outcome;
use crate::systems::personality::switch::Phase;

/// Targets that a policy refuses before all else towards the interface; sources from it are the same.
fn refused(policy: &Policy) -> Vec<[u8; 16]> {
    let first = |rules: &[Rule]| -> Vec<Rule> {
        rules.iter().take_while(|rule| rule.index == SYNTHETIC_RULE).copied().collect()
    };
    let (inward, outward) = (first(&policy.ingress), first(&policy.egress));
    assert!(inward.iter().chain(&outward).all(|rule| rule.action == ACTION_DENY && rule.protocol == 0));
    let targets: Vec<[u8; 16]> = inward.iter().map(|rule| rule.target).collect();
    assert_eq!(targets, outward.iter().map(|rule| rule.source).collect::<Vec<_>>(), "both ways");
    assert!(inward.iter().all(|rule| rule.flags & (RULE_V4 | RULE_V6) != 0 && rule.target_bits == 128));
    targets
}

/// What the policy that decides refuses so, and the one beside it.
fn both(hub: &Switching, segment: SegmentId) -> [Option<Vec<[u8; 16]>>; 2] {
    let desired = hub.script.desired();
    let segment = &desired.segments[&segment];
    let beside = segment.candidate.as_ref().map(|trial| refused(&trial.policy));
    [Some(refused(&segment.policy)), beside]
}

#[test]
fn what_goes_away_is_refused_by_what_comes_and_by_nothing_before() {
    let mut hub = Switching::new(1, json!({}));
    let v6: std::net::Ipv6Addr = "fd00:21::10".parse().unwrap();
    let mut dual =
        of_interface(0, 0, json!({"name": "dual", "ip_addresses": ["10.20.1.10/24", "fd00:21::10/128"]}));
    dual.as_object_mut().unwrap().remove("subnet_id");
    hub.keep(dual);
    let segment = hub.view("i0").segment;
    let (none, old) = (Vec::new(), vec![mapped([10, 20, 1, 10]), v6.octets()]);
    hub.start(vec![Switching::order("i0", "dual")]).unwrap();
    assert_eq!(both(&hub, segment), [Some(none.clone()), Some(none.clone())], "nothing goes away");
    hub.finish("i0");
    hub.wait(120);
    hub.start(vec![Switching::order("i0", "p0-1")]).unwrap();
    hub.until("i0", Phase::Drain);
    assert_eq!(
        both(&hub, segment),
        [Some(none.clone()), Some(old.clone())],
        "what is there goes on until then"
    );
    let came = vec![mapped([10, 20, 1, 11])];
    hub.finish("i0");
    assert_eq!(both(&hub, segment), [Some(old.clone()), Some(came.clone())]);
    // Within the minute it goes back: what came goes away.
    hub.start(vec![Switching::order("i0", "dual")]).unwrap();
    assert_eq!(both(&hub, segment), [Some(old.clone()), Some(came.clone())]);
    hub.finish("i0");
    assert_eq!(both(&hub, segment), [Some(came), Some(old)]);
    hub.wait(120);
    assert_eq!(both(&hub, segment), [Some(none), None], "nobody has it any more");
}

#[test]
fn addresses_of_one_network_have_the_scope_of_what_decides() {
    let mut hub = Switching::new(1, json!({}));
    let scoped = json!({"ip_addresses": [{"address": "10.20.1.11/24", "scope": "link"}]});
    let other = json!({"ip_addresses": ["10.20.1.12/24"]});
    let (scoped, other) = (hub.keep(of_interface(0, 2, scoped)), hub.keep(of_interface(0, 1, other)));
    let scopes = |hub: &Switching| {
        let addresses = hub.script.desired().interfaces["i0"].addresses.clone();
        addresses.values().map(|address| address.scope).collect::<Vec<_>>()
    };
    for (to, during) in [(&scoped, AddressScope::Global), (&other, AddressScope::Link)] {
        hub.start(vec![Switching::order("i0", to)]).unwrap();
        assert_eq!(scopes(&hub), [during; 2], "{to}");
        hub.until("i0", Phase::Flip);
        assert_ne!(scopes(&hub), [during; 2], "{to}");
        hub.finish("i0");
        hub.wait(60);
    }
}

#[test]
fn a_switch_that_goes_back_refuses_what_came_for_a_minute() {
    let mut hub = Switching::new(1, json!({}));
    let segment = hub.view("i0").segment;
    let (old, came) = (vec![mapped([10, 20, 1, 10])], vec![mapped([10, 20, 1, 11])]);
    for restarts in [false, true] {
        hub.start(vec![Switching::order("i0", "p0-1")]).unwrap();
        hub.until("i0", Phase::Verify);
        let prepared =
            Arc::clone(&hub.script.desired().segments[&segment].candidate.as_ref().unwrap().policy);
        assert_eq!(refused(&prepared), came, "before it is known whether it goes back");
        if restarts {
            hub.restart();
        } else {
            hub.step("i0", &["dns"]);
            assert!(
                Arc::ptr_eq(&hub.script.desired().segments[&segment].policy, &prepared),
                "as it was compiled"
            );
        }
        assert_eq!(hub.phase("i0"), Some(Phase::Rollback));
        assert_eq!(both(&hub, segment), [Some(came.clone()), Some(old.clone())]);
        assert_eq!(hub.finish("i0").outcome, Outcome::RolledBack);
        let address: ipnet::IpNet = "10.20.1.11/24".parse().unwrap();
        hub.wait(58);
        assert_eq!(both(&hub, segment), [Some(came.clone()), Some(old.clone())]);
        assert!(
            hub.script.desired().interfaces["i0"].addresses[&address].deprecated,
            "nothing new begins there"
        );
        hub.wait(2);
        assert_eq!(both(&hub, segment), [Some(Vec::new()), None]);
        assert!(!hub.script.desired().interfaces["i0"].addresses.contains_key(&address));
    }
}

/// A switch whose checks failed, and so did those of the way back.
fn on_the_way_to_the_default() -> Switching {
    let mut hub = Switching::new(1, json!({"default": ""}));
    hub.start(vec![Switching::order("i0", "p0-1")]).unwrap();
    for phase in [Phase::Verify, Phase::RollbackVerify] {
        hub.until("i0", phase);
        hub.answer("i0", &["carrier"]);
    }
    hub
}

#[test]
fn the_way_to_the_default_refuses_all_that_was_given_up_for_a_minute() {
    for restarts in [false, true] {
        let mut hub = on_the_way_to_the_default();
        let segment = hub.view("i0").segment;
        assert_eq!(hub.phase("i0"), Some(Phase::Fallback));
        let gone = vec![mapped([10, 20, 1, 10]), mapped([10, 20, 1, 11])];
        let refuses = |hub: &Switching| {
            let [decides, beside] = both(hub, segment);
            let mut decides = decides.unwrap();
            decides.sort_unstable();
            (decides, beside)
        };
        assert_eq!(refuses(&hub), (gone.clone(), None), "none of them decides again");
        if restarts {
            hub.restart();
        }
        assert_eq!(hub.finish("i0").outcome, Outcome::FellBack);
        let addresses = |hub: &Switching| {
            let addresses = hub.script.desired().interfaces["i0"].addresses.clone();
            let text = |(net, address): (ipnet::IpNet, InterfaceAddress)| {
                format!("{net}{}", if address.leaves && address.deprecated { " leaves" } else { "" })
            };
            addresses.into_iter().map(text).collect::<Vec<_>>()
        };
        hub.wait(58);
        assert_eq!(refuses(&hub), (gone.clone(), None));
        assert_eq!(addresses(&hub), ["10.20.1.10/24 leaves", "10.20.1.11/24 leaves", "10.20.1.13/24"]);
        hub.wait(2);
        assert_eq!((refuses(&hub), addresses(&hub)), ((Vec::new(), None), vec!["10.20.1.13/24".to_owned()]));
    }
}

#[test]
fn a_switch_after_a_fallback_is_an_ordinary_one() {
    let mut hub = on_the_way_to_the_default();
    let segment = hub.view("i0").segment;
    assert_eq!(hub.finish("i0").outcome, Outcome::FellBack);
    hub.start(vec![Switching::order("i0", "p0-1")]).unwrap();
    let gone = vec![mapped([10, 20, 1, 10]), mapped([10, 20, 1, 11])];
    let default = vec![mapped([10, 20, 1, 13])];
    assert_eq!(both(&hub, segment)[1], Some(default.clone()));
    let mut refuses = both(&hub, segment)[0].clone().unwrap();
    refuses.sort_unstable();
    assert_eq!(refuses, gone, "what decides goes on as it is");
    hub.until("i0", Phase::Flip);
    assert_eq!(both(&hub, segment)[0], Some(default), "the address of before is there again");
    assert_eq!(hub.finish("i0").outcome, Outcome::Committed);
    hub.wait(60);
    assert_eq!(both(&hub, segment), [Some(Vec::new()), None]);
}

#[test]
fn a_way_back_that_has_faults_keeps_nothing() {
    let mut hub = Switching::new(1, json!({}));
    let segment = hub.view("i0").segment;
    hub.start(vec![Switching::order("i0", "p0-1")]).unwrap();
    hub.until("i0", Phase::Verify);
    hub.step("i0", &["dns"]);
    hub.until("i0", Phase::RollbackVerify);
    hub.pass_with_fault("i0");
    hub.finish("i0");
    assert_eq!(both(&hub, segment), [Some(Vec::new()), None]);
}
