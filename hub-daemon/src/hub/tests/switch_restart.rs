//! A hub that starts anew finds a switch that was under way: what had not flipped is forgotten, what had is
//! taken back first, what was done stays.

use super::switch::*;
use super::*;
use crate::command::switch::{Order, SwitchCommand};
use crate::systems::personality::operation::Outcome;
use crate::systems::personality::switch::Phase;

fn at(phase: Phase) -> Switching {
    let mut hub = Switching::new(1, json!({"default": "p0-3"}));
    let order =
        Order { confirm_within: Some(std::time::Duration::from_mins(1)), ..Switching::order("i0", "p0-1") };
    hub.start(vec![order]).unwrap();
    if phase >= Phase::Rollback {
        hub.until("i0", Phase::Verify);
        hub.answer("i0", &["dns"]);
    }
    if phase >= Phase::Fallback {
        hub.until("i0", Phase::RollbackVerify);
        hub.answer("i0", &["carrier"]);
    }
    hub.until("i0", phase);
    hub
}

#[test]
fn before_the_flip_a_restart_forgets_the_switch() {
    for phase in [Phase::Prepare, Phase::Preflight, Phase::Drain] {
        let mut hub = at(phase);
        hub.restart();
        assert_eq!(hub.phase("i0"), None, "{phase:?}");
        let entry = hub.last();
        assert_eq!(entry.outcome, Outcome::Aborted);
        assert_eq!(entry.failure.as_deref(), Some("the hub was started anew"));
        let desired = hub.script.desired();
        let view = hub.view("i0");
        assert_eq!(view.current.to_string(), "p0-0@1");
        assert!(desired.segments[&view.segment].candidate.is_none() && desired.tunnels.len() == 1);
    }
}

#[test]
fn after_the_flip_a_restart_goes_back_before_anything_else() {
    for phase in [Phase::Flip, Phase::Verify, Phase::AwaitConfirm, Phase::Rollback, Phase::RollbackVerify] {
        let mut hub = at(phase);
        hub.restart();
        assert_eq!(hub.phase("i0"), Some(Phase::Rollback), "{phase:?}");
        let record = &hub.script.hub.interfaces.records["i0"];
        assert_eq!(record.layout.live.to_string(), "p0-0@1", "the first pass is of the old one");
        let entry = hub.finish("i0");
        assert_eq!(entry.outcome, Outcome::RolledBack, "{phase:?}");
        assert_eq!(hub.view("i0").current.to_string(), "p0-0@1");
    }
    for phase in [Phase::Fallback, Phase::FallbackVerify] {
        let mut hub = at(phase);
        hub.restart();
        assert_eq!(hub.phase("i0"), Some(Phase::Fallback), "{phase:?}");
        assert_eq!(hub.finish("i0").outcome, Outcome::FellBack);
        assert_eq!(hub.view("i0").current.to_string(), "p0-3@1");
    }
}

#[test]
fn what_works_in_the_first_good_round_is_to_go_on_working() {
    let unhealthy = |hub: &mut Switching| {
        let conditions = hub.view("i0").conditions;
        conditions.iter().any(|condition| condition.reason == "Unhealthy")
    };
    // Of the first personality nothing was verified, and nobody remembers after a restart.
    let mut hub = Switching::new(1, json!({}));
    for _ in 0..2 {
        hub.answer("i0", &["carrier"]);
        hub.answer("i0", &["ping"]);
        for _ in 0..3 {
            hub.answer("i0", &["ping"]);
        }
        assert!(!unhealthy(&mut hub), "it did not answer before either");
        for _ in 0..3 {
            hub.answer("i0", &["dns"]);
        }
        assert!(unhealthy(&mut hub));
        hub.restart();
        hub.pass();
    }
}

#[test]
fn the_first_pass_of_a_start_may_take_long() {
    for phase in [Phase::AwaitConfirm, Phase::Rollback] {
        let mut hub = at(phase);
        hub.restart();
        hub.wait(120);
        assert_eq!(hub.phase("i0"), Some(Phase::Rollback), "{phase:?}: the kernel has not had its pass");
        assert_eq!(hub.finish("i0").outcome, Outcome::RolledBack);
    }
}

#[test]
fn what_was_done_stays_and_so_does_its_way_back() {
    let mut hub = at(Phase::AwaitConfirm);
    hub.ask(SwitchCommand::Confirm(Switching::said("i0"))).unwrap();
    let (before, segment) = (hub.script.desired(), hub.view("i0").segment);
    hub.restart();
    let after = hub.script.desired();
    assert_eq!(after.segments[&segment].policy, before.segments[&segment].policy);
    assert_eq!(after.interfaces, before.interfaces);
    assert_eq!(hub.last().outcome, Outcome::Committed, "its line of the journal is still to be written");
    hub.script.hub.written(1);
    hub.wait(60);
    assert!(hub.script.desired().segments[&segment].candidate.is_none());
    let view = hub.view("i0");
    assert_eq!(view.last_known_good.unwrap().to_string(), "p0-1@1");
    hub.restart();
    assert!(hub.script.hub.unwritten().is_empty());
    assert_eq!(hub.view("i0").current.to_string(), "p0-1@1");
    let id = hub.script.hub.interfaces.operations.keys().next().unwrap().clone();
    assert_eq!(hub.script.hub.snapshot(hub.script.now).operations[&id].outcome, Some(Outcome::Committed));
}

#[test]
fn a_restart_keeps_the_end_of_a_temporary_switch() {
    let mut hub = Switching::new(1, json!({}));
    let order = Order { lasts: Some(std::time::Duration::from_mins(30)), ..Switching::order("i0", "p0-1") };
    hub.start(vec![order]).unwrap();
    hub.finish("i0");
    let until = hub.view("i0").until.unwrap();
    hub.wait(600);
    hub.restart();
    let view = hub.view("i0");
    assert_eq!((view.until, view.current.to_string().as_str()), (Some(until), "p0-1@1"));
    assert_eq!(hub.script.desired().segments[&view.segment].lease.as_ref().unwrap().until, until);
    hub.wait(1200);
    assert_eq!(hub.finish("i0").outcome, Outcome::Committed);
    assert_eq!(hub.view("i0").current.to_string(), "p0-0@1");
}
