//! What goes wrong in each phase of a switch, and where the interface is afterwards.

use super::switch::*;
use super::switch_documents::of_interface;
use super::*;
use crate::command::switch::{Order, PersonalityCommand, SwitchCommand};
use crate::desired::SegmentState;
use crate::document::read::personality_from_value;
use crate::model::check::Check;
use crate::systems::personality::operation::Outcome;
use crate::systems::personality::switch::Phase;
use crate::view::switch::{InterfaceState, Question};

fn began(to: &str) -> Switching {
    let mut hub = Switching::new(1, json!({"default": "p0-3"}));
    hub.start(vec![Switching::order("i0", to)]).unwrap();
    hub
}

/// It ended so, and the interface has this, with nothing beside: what came is refused for a minute at most, as is on
/// the way to the default what was there.
fn ended(hub: &mut Switching, outcome: Outcome, current: &str, why: &str) {
    let entry = hub.last();
    assert_eq!(entry.outcome, outcome, "{:?}", entry.failure);
    let failure = entry.failure.unwrap_or_default();
    assert!(failure.contains(why), "{failure}");
    if matches!(outcome, Outcome::RolledBack | Outcome::FellBack) {
        hub.wait(60);
    }
    let view = hub.view("i0");
    assert_eq!(view.current.to_string(), current);
    let record = &hub.script.hub.interfaces.records["i0"];
    assert_eq!((record.layout.live.to_string().as_str(), &record.layout.other), (current, &None));
    let desired = hub.script.desired();
    let segment = &desired.segments[&view.segment];
    assert!(segment.candidate.is_none() && segment.transition.is_none() && segment.lease.is_none());
    assert_eq!(desired.interfaces["i0"].addresses.len(), 1);
    assert_eq!(desired.tunnels.len(), 1);
}

#[test]
fn a_kernel_that_refuses_what_is_prepared_ends_a_switch() {
    let mut hub = began("p0-1");
    hub.pass_with_fault("i0");
    ended(&mut hub, Outcome::Aborted, "p0-0@1", "no buffer space");
    assert_eq!(hub.view("i0").state, InterfaceState::Active);
    let mut hub = began("p0-1");
    hub.wait(20);
    ended(&mut hub, Outcome::Aborted, "p0-0@1", "prepare took too long");
}

#[test]
fn a_tunnel_without_handshake_ends_a_switch_and_other_checks_of_before_do_not() {
    let mut hub = began("p0-1");
    hub.until("i0", Phase::Preflight);
    hub.answer("i0", &["handshake of wg01"]);
    ended(&mut hub, Outcome::Aborted, "p0-0@1", "handshake of wg01");
    hub.start(vec![Switching::order("i0", "p0-1")]).unwrap();
    hub.until("i0", Phase::Preflight);
    hub.wait(30);
    ended(&mut hub, Outcome::Aborted, "p0-0@1", "preflight took too long");
    hub.start(vec![Switching::order("i0", "p0-1")]).unwrap();
    hub.until("i0", Phase::Preflight);
    // Names did not work before, so they need not work after.
    hub.answer("i0", &["dns"]);
    hub.until("i0", Phase::Verify);
    hub.answer("i0", &["dns"]);
    assert_eq!(hub.last().outcome, Outcome::Committed);
}

#[test]
fn a_drain_that_takes_too_long_is_forced_or_given_up() {
    let order = |drain: Value| Order {
        drain: Some(serde_json::from_value(drain).unwrap()),
        ..Switching::order("i0", "p0-1")
    };
    let mut hub = Switching::new(1, json!({}));
    let segment = hub.view("i0").segment;
    hub.start(vec![order(json!({"timeout": "5s", "scope": "all", "block": "drop"}))]).unwrap();
    hub.until("i0", Phase::Drain);
    let transition = hub.script.desired().segments[&segment].transition.unwrap();
    assert!(transition.refuse_all && !transition.gate && !transition.reject);
    hub.pass();
    hub.count("i0", 3);
    hub.wait(5);
    assert_eq!(hub.phase("i0"), Some(Phase::Flip), "forced");
    assert_eq!(hub.finish("i0").flows.unwrap().active, 3);
    hub.wait(61);
    let back = Order { to: "p0-0".into(), ..order(json!({"timeout": "5s", "on_timeout": "abort"})) };
    hub.start(vec![back]).unwrap();
    hub.until("i0", Phase::Drain);
    hub.pass();
    hub.count("i0", 2);
    hub.wait(5);
    ended(&mut hub, Outcome::Aborted, "p0-1@1", "2 connections did not end in 5 s");
    let none = Order { to: "p0-0".into(), ..order(json!({"timeout": "0s"})) };
    hub.start(vec![none]).unwrap();
    let entry = hub.finish("i0");
    assert!(entry.phases.iter().all(|done| done.phase != Phase::Drain) && entry.blocked_us == 0);
    assert_eq!(entry.flows, None, "nobody counted what was kept and cut");
    let some = Order { to: "p0-1".into(), ..order(json!({"threshold": 2})) };
    hub.start(vec![some]).unwrap();
    hub.until("i0", Phase::Drain);
    hub.pass();
    hub.count("i0", 3);
    assert_eq!(hub.phase("i0"), Some(Phase::Drain));
    hub.count("i0", 2);
    assert_eq!(hub.phase("i0"), Some(Phase::Flip));
}

#[test]
fn a_switch_can_be_canceled_until_the_flip_and_reverted_after() {
    for phase in [Phase::Prepare, Phase::Preflight, Phase::Drain] {
        let mut hub = began("p0-1");
        hub.until("i0", phase);
        let views = hub.ask(SwitchCommand::Cancel(Switching::said("i0"))).unwrap();
        assert_eq!(views[0].outcome, Some(Outcome::Aborted));
        ended(&mut hub, Outcome::Aborted, "p0-0@1", "canceled by ana");
    }
    let mut hub = began("p0-1");
    hub.until("i0", Phase::Verify);
    let (kind, text) = refusal(hub.ask(SwitchCommand::Cancel(Switching::said("i0"))));
    assert!(kind == RejectionKind::Conflict && text.contains("revert it instead"), "{text}");
    hub.ask(SwitchCommand::Revert(Switching::said("i0"))).unwrap();
    assert_eq!(hub.phase("i0"), Some(Phase::Rollback));
    assert_eq!(refusal(hub.ask(SwitchCommand::Revert(Switching::said("i0")))).0, RejectionKind::Conflict);
    hub.finish("i0");
    ended(&mut hub, Outcome::RolledBack, "p0-0@1", "reverted by ana");
}

#[test]
fn what_fails_after_the_flip_is_rolled_back_and_checked() {
    let mut hub = began("p0-1");
    hub.until("i0", Phase::Flip);
    let flipped = hub.script.desired();
    hub.pass_with_fault("i0");
    assert_eq!(hub.phase("i0"), Some(Phase::Rollback));
    let segment = hub.view("i0").segment;
    let back = hub.script.desired();
    assert!(Arc::ptr_eq(
        &back.segments[&segment].policy,
        &flipped.segments[&segment].candidate.as_ref().unwrap().policy
    ));
    assert_ne!(back.interfaces["i0"].live, flipped.interfaces["i0"].live);
    hub.pass();
    assert_eq!(hub.phase("i0"), Some(Phase::RollbackVerify));
    hub.answer("i0", &[]);
    ended(&mut hub, Outcome::RolledBack, "p0-0@1", "no buffer space");
    for failed in ["dns", "addresses", "route ", "handshake of wg01", "ping 10.20.1.1"] {
        let mut hub = began("p0-1");
        hub.until("i0", Phase::Verify);
        hub.answer("i0", &[failed]);
        assert_eq!(hub.phase("i0"), Some(Phase::Rollback), "{failed}");
        hub.finish("i0");
        ended(&mut hub, Outcome::RolledBack, "p0-0@1", failed);
    }
    let mut hub = began("p0-1");
    hub.until("i0", Phase::Verify);
    hub.wait(30);
    hub.finish("i0");
    ended(&mut hub, Outcome::RolledBack, "p0-0@1", "verify took too long");
}

#[test]
fn what_nobody_can_look_at_is_not_committed_and_not_shut() {
    let mut hub = began("p0-1");
    hub.until("i0", Phase::Verify);
    hub.cannot_ask("i0");
    assert_eq!(hub.phase("i0"), Some(Phase::Rollback));
    hub.pass();
    hub.cannot_ask("i0");
    ended(&mut hub, Outcome::RolledBack, "p0-0@1", "seen");
    let said = hub.script.hub.take_notices();
    assert!(said.iter().any(|(_, said)| said.contains("the way back could not be checked")), "{said:?}");
    // What can be looked at and does not work is shut.
    let mut hub = Switching::new(1, json!({}));
    hub.start(vec![Switching::order("i0", "p0-1")]).unwrap();
    hub.until("i0", Phase::Verify);
    hub.cannot_ask("i0");
    hub.pass();
    hub.answer("i0", &["addresses"]);
    assert_eq!((hub.last().outcome, hub.view("i0").state), (Outcome::Degraded, InterfaceState::Degraded));
    // And so is a default that nobody knows to work.
    let mut hub = began("p0-1");
    hub.until("i0", Phase::Verify);
    hub.answer("i0", &["addresses"]);
    hub.pass();
    hub.answer("i0", &["addresses"]);
    hub.pass();
    hub.cannot_ask("i0");
    assert_eq!(hub.last().outcome, Outcome::Degraded);
}

#[test]
fn a_confirm_that_runs_out_goes_back() {
    let mut hub = Switching::new(1, json!({}));
    let confirmed =
        Order { confirm_within: Some(std::time::Duration::from_mins(2)), ..Switching::order("i0", "p0-1") };
    hub.start(vec![confirmed.clone()]).unwrap();
    hub.until("i0", Phase::AwaitConfirm);
    let view = hub.view("i0");
    assert_eq!((view.state, view.current.to_string().as_str()), (InterfaceState::AwaitingConfirm, "p0-0@1"));
    let lease = hub.script.desired().segments[&view.segment].lease.clone().unwrap();
    assert_eq!(lease.until, hub.script.now + 120.seconds(), "the data path goes back by itself");
    hub.wait(119);
    assert_eq!(hub.phase("i0"), Some(Phase::AwaitConfirm));
    hub.wait(1);
    hub.finish("i0");
    ended(&mut hub, Outcome::RolledBack, "p0-0@1", "not confirmed in time");
    hub.start(vec![confirmed]).unwrap();
    hub.until("i0", Phase::AwaitConfirm);
    let views = hub.ask(SwitchCommand::Confirm(Switching::said("i0"))).unwrap();
    assert_eq!(views[0].outcome, Some(Outcome::Committed));
    assert_eq!(refusal(hub.ask(SwitchCommand::Confirm(Switching::said("i0")))).0, RejectionKind::Conflict);
    assert_eq!(hub.view("i0").current.to_string(), "p0-1@1");
}

#[test]
fn a_way_back_that_is_closed_leads_to_the_default_and_then_to_none() {
    let mut hub = began("p0-1");
    hub.until("i0", Phase::Verify);
    hub.answer("i0", &["carrier"]);
    hub.pass();
    hub.answer("i0", &["carrier"]);
    assert_eq!(hub.phase("i0"), Some(Phase::Fallback));
    hub.finish("i0");
    ended(&mut hub, Outcome::FellBack, "p0-3@1", "carrier: seen");
    assert_eq!(hub.view("i0").state, InterfaceState::Fallback);

    hub.start(vec![Switching::order("i0", "p0-1")]).unwrap();
    hub.until("i0", Phase::Verify);
    hub.answer("i0", &["carrier"]);
    hub.pass_with_fault("i0");
    ended(&mut hub, Outcome::Degraded, "p0-3@1", "carrier: seen");
    let view = hub.view("i0");
    assert_eq!((view.state, view.conditions[0].reason.as_str()), (InterfaceState::Degraded, "Degraded"));
    assert_eq!(hub.script.desired().segments[&view.segment].state, SegmentState::Block);

    hub.start(vec![Switching::order("i0", "p0-3")]).unwrap();
    assert_eq!(hub.script.desired().segments[&view.segment].state, SegmentState::Block);
    hub.finish("i0");
    let view = hub.view("i0");
    assert_eq!(view.state, InterfaceState::Active);
    assert_eq!(hub.script.desired().segments[&view.segment].state, SegmentState::Active);
}

#[test]
fn what_had_failed_before_closes_no_way_back() {
    let dead = ["carrier", "handshake of wg00", "ping 192.0.2.9"];
    let named = json!({"health": {"targets": [{"ping": "192.0.2.9"}]}});
    let mut hub = began("p0-1");
    hub.finish("i0");
    let named = hub.keep(of_interface(0, 0, named));
    hub.start(vec![Switching::order("i0", &named)]).unwrap();
    hub.finish("i0");
    hub.start(vec![Switching::order("i0", "p0-1")]).unwrap();
    hub.until("i0", Phase::Preflight);
    hub.answer("i0", &dead);
    hub.until("i0", Phase::Verify);
    hub.answer("i0", &["dns"]);
    assert_eq!(hub.phase("i0"), Some(Phase::Rollback));
    hub.pass();
    hub.answer("i0", &dead);
    ended(&mut hub, Outcome::RolledBack, &named, "dns");
    // What worked before must work again.
    hub.start(vec![Switching::order("i0", "p0-1")]).unwrap();
    hub.until("i0", Phase::Preflight);
    hub.answer("i0", &dead);
    hub.until("i0", Phase::Verify);
    hub.answer("i0", &["dns"]);
    hub.pass();
    hub.answer("i0", &["neighbour"]);
    assert_eq!(hub.phase("i0"), Some(Phase::Fallback));
}

#[test]
fn on_the_way_back_of_a_switch_in_a_hurry_nothing_is_known_of_before() {
    let urgent = || Order { urgent: true, ..Switching::order("i0", "p0-1") };
    let mut hub = Switching::new(1, json!({"default": "p0-3"}));
    hub.start(vec![urgent()]).unwrap();
    hub.until("i0", Phase::Verify);
    hub.answer("i0", &["carrier"]);
    hub.pass();
    hub.answer("i0", &["carrier", "handshake", "route", "dns"]);
    ended(&mut hub, Outcome::RolledBack, "p0-0@1", "carrier: seen");
    hub.start(vec![urgent()]).unwrap();
    hub.until("i0", Phase::Verify);
    hub.answer("i0", &["carrier"]);
    hub.pass();
    hub.answer("i0", &["addresses"]);
    assert_eq!(hub.phase("i0"), Some(Phase::Fallback));
}

#[test]
fn an_answer_to_an_old_question_says_nothing() {
    let mut hub = began("p0-1");
    hub.until("i0", Phase::Preflight);
    let ticket = hub.view("i0").wants[0].ticket;
    hub.answer("i0", &[]);
    assert_eq!(hub.phase("i0"), Some(Phase::Drain));
    let observation = crate::command::switch::Observation::Checks(Vec::new());
    hub.observe("i0", ticket, observation);
    assert_eq!(hub.phase("i0"), Some(Phase::Drain));
}

#[test]
fn what_a_pass_leads_to_is_not_left_waiting() {
    let mut hub = Switching::new(1, json!({}));
    hub.start(vec![Order { urgent: true, ..Switching::order("i0", "p0-1") }]).unwrap();
    // What must be stored is what the next pass must know.
    hub.script.hub.saved();
    hub.pass();
    assert_eq!(hub.phase("i0"), Some(Phase::Flip));
    assert!(hub.script.hub.must_be_stored(), "the pass that prepared it does not flip");
    hub.script.hub.saved();
    hub.pass_with_fault("i0");
    assert_eq!(hub.phase("i0"), Some(Phase::Rollback));
    assert!(hub.script.hub.must_be_stored());
}

#[test]
fn what_has_no_room_even_alone_is_not_kept() {
    let mut hub = Switching::new(1, json!({}));
    hub.script.hub.config.limits.rules = 100;
    let rules: Vec<Value> = (0..60)
        .map(|port| {
            json!({"protocol": "tcp", "port": 9_000 + 2 * port, "action": "allow",
        "direction": "both"})
        })
        .collect();
    let document =
        Box::new(personality_from_value(of_interface(0, 3, json!({"firewall_rules": rules}))).unwrap());
    let command = Command::Personality(PersonalityCommand::Create { document });
    let (kind, text) = refusal(hub.script.hub.handle(command, hub.script.now));
    assert!(kind == RejectionKind::Full && text.contains("room for 100"), "{text}");
}

#[test]
fn packets_that_are_dropped_since_take_a_switch_back_and_are_not_asked_about_on_the_way() {
    let mut hub = began("p0-1");
    hub.until("i0", Phase::Verify);
    let wanted = hub.view("i0").wants;
    let Question::Checks { asked, .. } = &wanted[0].question else { panic!("{wanted:?}") };
    assert_eq!(asked.last().unwrap().check, Check::Drops { before: Some(12) });
    hub.answer("i0", &["drops"]);
    assert_eq!(hub.phase("i0"), Some(Phase::Rollback));
    hub.until("i0", Phase::RollbackVerify);
    assert!(!hub.asks("i0").contains(&"drops".to_owned()), "who floods must not close the way back");
    hub.finish("i0");
    ended(&mut hub, Outcome::RolledBack, "p0-0@1", "drops: seen");
    assert!(!hub.asks("i0").contains(&"drops".to_owned()), "with nothing to compare it says nothing");
    // One in a hurry has counted nothing before.
    hub.start(vec![Order { urgent: true, ..Switching::order("i0", "p0-1") }]).unwrap();
    hub.until("i0", Phase::Verify);
    assert!(!hub.asks("i0").contains(&"drops".to_owned()));
}
