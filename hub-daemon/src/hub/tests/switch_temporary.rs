//! Access for a while, when something else happens meanwhile: it ends in time, and nothing comes back to it.

use std::time::Duration;

use super::switch::*;
use super::switch_documents::forbid;
use super::*;
use crate::command::switch::{Order, SwitchCommand};
use crate::desired::Lease;
use crate::systems::personality::operation::Outcome;
use crate::systems::personality::switch::Phase;

fn lives(hub: &Switching) -> String {
    hub.script.hub.interfaces.records["i0"].layout.live.to_string()
}

fn beside(hub: &Switching) -> Option<String> {
    hub.script.hub.interfaces.records["i0"].layout.other.as_ref().map(ToString::to_string)
}

fn lease(hub: &mut Switching) -> Option<Lease> {
    let segment = hub.view("i0").segment;
    hub.script.desired().segments[&segment].lease.clone()
}

fn lent(to: &str, minutes: u64) -> Order {
    Order { lasts: Some(Duration::from_mins(minutes)), ..Switching::order("i0", to) }
}

/// Has `p0-1` for so long, from `p0-0`.
fn has_it(minutes: u64, more: Value) -> Switching {
    let mut hub = Switching::new(1, more);
    hub.start(vec![lent("p0-1", minutes)]).unwrap();
    assert_eq!(hub.finish("i0").outcome, Outcome::Committed);
    hub
}

#[test]
fn a_temporary_switch_from_a_temporary_one_goes_back_to_what_the_first_goes_back_to() {
    let mut hub = has_it(30, json!({}));
    hub.wait(60);
    hub.start(vec![lent("p0-2", 10)]).unwrap();
    hub.finish("i0");
    assert_eq!((lives(&hub).as_str(), beside(&hub).as_deref()), ("p0-2@1", Some("p0-0@1")));
    let (until, lease) = (hub.view("i0").until, lease(&mut hub).unwrap());
    assert_eq!(Some(lease.until), until);
    hub.wait(600);
    assert_eq!(hub.finish("i0").to.to_string(), "p0-0@1");
    let view = hub.view("i0");
    assert_eq!((view.current.to_string().as_str(), view.until), ("p0-0@1", None));
    // Nobody gets by a revert what was lent and is over.
    hub.wait(1);
    let (kind, text) = refusal(hub.ask(SwitchCommand::Revert(Switching::said("i0"))));
    assert!(kind == RejectionKind::Conflict && text.contains("nothing to go back to"), "{text}");
    hub.wait(3_600);
    assert_eq!((hub.phase("i0"), lives(&hub).as_str()), (None, "p0-0@1"));
}

#[test]
fn what_comes_after_a_temporary_one_for_good_reverts_to_what_was_before_both() {
    let mut hub = has_it(30, json!({}));
    hub.start(vec![Switching::order("i0", "p0-2")]).unwrap();
    hub.finish("i0");
    assert_eq!((hub.view("i0").until, lease(&mut hub)), (None, None));
    hub.ask(SwitchCommand::Revert(Switching::said("i0"))).unwrap();
    assert_eq!(hub.finish("i0").to.to_string(), "p0-0@1", "not to what was lent, and now without an end");
}

#[test]
fn a_failover_ends_temporary_access_and_fails_back_to_what_was_before_it() {
    let failover = json!({"failover": {"check": {"ping": "192.0.2.9"}, "for": "10s", "to": "p0-2",
        "fail_back": "auto", "hold_down": "30s"}});
    let mut hub = has_it(30, failover);
    hub.wait(60);
    hub.answer("i0", &["192.0.2.9"]);
    hub.wait(10);
    hub.answer("i0", &["192.0.2.9"]);
    hub.finish("i0");
    assert_eq!((lives(&hub).as_str(), beside(&hub).as_deref()), ("p0-2@1", Some("p0-0@1")));
    assert_eq!(hub.view("i0").until, None);
    for _ in 0..6 {
        hub.answer("i0", &[]);
        hub.wait(10);
    }
    hub.answer("i0", &[]);
    assert_eq!(hub.finish("i0").why, "the check of failover succeeds again");
    assert_eq!(lives(&hub), "p0-0@1");
}

#[test]
fn temporary_access_ends_in_time_while_another_switch_drains() {
    let mut hub = has_it(30, json!({}));
    let until = hub.view("i0").until.unwrap();
    hub.wait(600);
    let drain = serde_json::from_value(json!({"timeout": "1h"})).unwrap();
    hub.start(vec![Order { drain: Some(drain), ..Switching::order("i0", "p0-2") }]).unwrap();
    for phase in [Phase::Prepare, Phase::Preflight, Phase::Drain] {
        hub.until("i0", phase);
        assert_eq!(lease(&mut hub).map(|lease| lease.until), Some(until), "{phase:?}, with or without a hub");
    }
    hub.pass();
    hub.count("i0", 2);
    assert_eq!(hub.view("i0").operation.unwrap().deadline, Some(until), "an hour is too long");
    hub.script.now = until - 1.second();
    hub.wait(0);
    assert_eq!(hub.phase("i0"), Some(Phase::Drain));
    hub.wait(1);
    let given_up = hub.last();
    let failure = given_up.failure.unwrap();
    assert!(
        given_up.outcome == Outcome::Aborted && failure.contains("the time of p0-1@1 is over"),
        "{failure}"
    );
    assert_eq!(hub.phase("i0"), Some(Phase::Prepare));
    hub.pass();
    assert_eq!(lives(&hub), "p0-0@1", "one pass later");
    assert_eq!(hub.finish("i0").outcome, Outcome::Committed);
    assert_eq!(hub.view("i0").until, None);
}

#[test]
fn after_the_flip_from_a_temporary_one_nothing_goes_back_to_it_beyond_its_end() {
    let to_be_confirmed =
        Order { confirm_within: Some(Duration::from_hours(1)), ..Switching::order("i0", "p0-2") };
    // Before its end it comes back, with its end.
    let mut hub = has_it(10, json!({}));
    let until = hub.view("i0").until;
    hub.start(vec![to_be_confirmed.clone()]).unwrap();
    hub.until("i0", Phase::AwaitConfirm);
    assert!(lease(&mut hub).is_some());
    hub.ask(SwitchCommand::Revert(Switching::said("i0"))).unwrap();
    assert_eq!((hub.phase("i0"), lives(&hub).as_str()), (Some(Phase::Rollback), "p0-1@1"));
    assert_eq!(lease(&mut hub).map(|lease| lease.until), until, "on the way back as well");
    hub.restart();
    assert_eq!(lease(&mut hub).map(|lease| lease.until), until);
    hub.finish("i0");
    assert_eq!((hub.view("i0").until, beside(&hub).as_deref()), (until, Some("p0-0@1")));
    // Afterwards what was before it does.
    hub.start(vec![to_be_confirmed]).unwrap();
    hub.until("i0", Phase::AwaitConfirm);
    hub.wait(900);
    assert_eq!((hub.phase("i0"), lives(&hub).as_str()), (Some(Phase::AwaitConfirm), "p0-2@1"));
    hub.ask(SwitchCommand::Revert(Switching::said("i0"))).unwrap();
    assert_eq!((hub.phase("i0"), lives(&hub).as_str()), (Some(Phase::Rollback), "p0-0@1"));
    assert_eq!(hub.finish("i0").outcome, Outcome::RolledBack);
    let view = hub.view("i0");
    assert_eq!((view.current.to_string().as_str(), view.until, view.previous), ("p0-0@1", None, None));
    hub.wait(3_600);
    assert_eq!((hub.phase("i0"), lives(&hub).as_str()), (None, "p0-0@1"));
}

#[test]
fn a_way_back_that_cannot_begin_is_tried_again_and_makes_the_time_no_longer() {
    let mut hub = has_it(10, json!({}));
    let until = hub.view("i0").until.unwrap();
    forbid(&mut hub, true);
    hub.wait(600);
    for _ in 0..3 {
        assert_eq!((hub.phase("i0"), hub.view("i0").until), (None, Some(until)));
        assert_eq!(lease(&mut hub).map(|lease| lease.until), Some(until));
        hub.wait(5);
    }
    forbid(&mut hub, false);
    hub.wait(5);
    hub.finish("i0");
    assert_eq!(lives(&hub), "p0-0@1");
}

#[test]
fn what_lasts_less_than_it_waits_for_confirmation_ends_in_the_hub_as_in_the_data_path() {
    let order = |lasts, confirm: Option<u64>| Order {
        lasts: Some(Duration::from_secs(lasts)),
        confirm_within: confirm.map(Duration::from_secs),
        ..Switching::order("i0", "p0-1")
    };
    let mut hub = Switching::new(1, json!({}));
    for (phase, order) in [(Phase::AwaitConfirm, order(60, Some(600))), (Phase::Verify, order(5, None))] {
        let lasts = i64::try_from(order.lasts.unwrap().as_secs()).unwrap();
        hub.start(vec![order]).unwrap();
        hub.until("i0", phase);
        let until = lease(&mut hub).unwrap().until;
        assert_eq!(until, hub.script.now + lasts.seconds());
        assert_eq!(hub.view("i0").operation.unwrap().deadline, Some(until), "{phase:?}");
        hub.wait(lasts - 1);
        assert_eq!(hub.phase("i0"), Some(phase));
        hub.wait(1);
        assert_eq!((hub.phase("i0"), lives(&hub).as_str()), (Some(Phase::Rollback), "p0-0@1"));
        let entry = hub.finish("i0");
        let failure = entry.failure.unwrap();
        assert!(failure.contains("its time was over"), "{failure}");
        assert_eq!(entry.outcome, Outcome::RolledBack);
        hub.wait(60);
    }
}

#[test]
fn a_temporary_one_that_is_ordered_again_has_another_end_or_none() {
    let mut hub = has_it(10, json!({}));
    hub.wait(300);
    let views = hub.start(vec![lent("p0-1", 30)]).unwrap();
    assert_eq!(views[0].outcome, Some(Outcome::Committed), "nothing is to be done");
    let until = hub.script.now + 1_800.seconds();
    assert_eq!((hub.phase("i0"), hub.view("i0").until), (None, Some(until)));
    assert_eq!(lease(&mut hub).map(|lease| lease.until), Some(until));
    hub.wait(1_000);
    hub.start(vec![lent("p0-1", 1)]).unwrap();
    assert_eq!(beside(&hub).as_deref(), Some("p0-0@1"));
    hub.wait(60);
    assert_eq!(hub.finish("i0").to.to_string(), "p0-0@1");
    let (kind, text) = refusal(hub.start(vec![lent("p0-0", 1)]));
    assert!(
        kind == RejectionKind::Conflict && text.contains("has p0-0@1 already"),
        "what is not lent is not cut"
    );

    let mut hub = has_it(10, json!({}));
    let plan = Command::Switch(SwitchCommand::Plan(lent("p0-1", 30)));
    assert_eq!(refusal(hub.script.hub.handle(plan, hub.script.now)).0, RejectionKind::Conflict);
    hub.start(vec![Switching::order("i0", "p0-1")]).unwrap();
    assert_eq!((hub.view("i0").until, lease(&mut hub)), (None, None));
    hub.wait(60);
    assert_eq!(
        (beside(&hub), hub.view("i0").last_known_good.unwrap().to_string().as_str()),
        (None, "p0-1@1")
    );
    hub.wait(3_600);
    assert_eq!((hub.phase("i0"), lives(&hub).as_str()), (None, "p0-1@1"));
}
