//! Threat levels that rise while an interface is being switched.

use std::time::Duration;

use super::switch::*;
use super::*;
use crate::command::switch::{FlowCount, InterfaceCommand, Observation, Order, SwitchCommand};
use crate::document::read::interface_from_value;
use crate::systems::personality::operation::Outcome;
use crate::systems::personality::switch::Phase;
use crate::view::switch::Question;

fn lives(hub: &Switching, interface: &str) -> String {
    hub.script.hub.interfaces.records[interface].layout.live.to_string()
}

fn tell(hub: &mut Switching, interface: &str, level: &str) {
    let command =
        SwitchCommand::Threat { interface: interface.into(), level: level.into(), by: "ids".into() };
    hub.script.hub.handle(Command::Switch(command), hub.script.now).unwrap();
    hub.check();
}

impl Switching {
    /// Has interfaces go to their third personality where a threat is high.
    pub(super) fn watch(&mut self, interfaces: u8) {
        for number in 0..interfaces {
            let mut document = serde_json::to_value(&self.view(&format!("i{number}")).definition).unwrap();
            document["zones"] = json!({"hysteresis": "1m", "levels": [
                {"level": "low", "personality": format!("p{number}-0")},
                {"level": "high", "personality": format!("p{number}-2")}]});
            let document = Box::new(interface_from_value(document).unwrap());
            let command = InterfaceCommand::Replace { document, if_document: None };
            self.script.hub.handle(Command::Interface(command), self.script.now).unwrap();
        }
    }
}

fn watched(interfaces: u8) -> Switching {
    let mut hub = Switching::new(interfaces, json!({}));
    hub.watch(interfaces);
    hub
}

fn to_be_confirmed(interface: &str, to: &str) -> Order {
    Order { confirm_within: Some(Duration::from_hours(1)), ..Switching::order(interface, to) }
}

#[test]
fn a_threat_that_rises_does_not_wait_for_a_confirmation() {
    let mut hub = watched(1);
    hub.start(vec![to_be_confirmed("i0", "p0-1")]).unwrap();
    hub.until("i0", Phase::AwaitConfirm);
    tell(&mut hub, "i0", "high");
    let given_up = hub.last();
    assert_eq!((given_up.outcome, given_up.to.to_string().as_str()), (Outcome::RolledBack, "p0-1@1"));
    assert!(given_up.failure.unwrap().contains("the threat level rose to high"));
    assert_eq!(hub.phase("i0"), Some(Phase::Prepare));
    hub.pass();
    assert_eq!((hub.phase("i0"), lives(&hub, "i0").as_str()), (Some(Phase::Flip), "p0-2@1"), "one pass");
    let entry = hub.finish("i0");
    assert_eq!((entry.by.as_str(), entry.from.to_string().as_str()), ("ids", "p0-0@1"));
    let view = hub.view("i0");
    assert_eq!(view.previous.unwrap().to_string(), "p0-0@1", "nobody said that the other one stays");
    assert_eq!((view.level.as_deref(), view.last_known_good), (Some("high"), None));
    hub.wait(60);
    assert_eq!(hub.view("i0").last_known_good.unwrap().to_string(), "p0-2@1");
}

#[test]
fn a_lockdown_that_fails_goes_back_to_what_was_confirmed() {
    let mut hub = watched(1);
    hub.start(vec![to_be_confirmed("i0", "p0-1")]).unwrap();
    hub.until("i0", Phase::AwaitConfirm);
    tell(&mut hub, "i0", "high");
    hub.until("i0", Phase::Verify);
    hub.answer("i0", &["carrier"]);
    assert_eq!(lives(&hub, "i0"), "p0-0@1");
    assert_eq!(hub.finish("i0").outcome, Outcome::RolledBack);
}

#[test]
fn a_threat_for_a_group_that_waits_is_followed_by_each_at_once() {
    let mut hub = watched(3);
    hub.start(vec![
        to_be_confirmed("i0", "p0-1"),
        to_be_confirmed("i1", "p1-1"),
        to_be_confirmed("i2", "p2-1"),
    ])
    .unwrap();
    for _ in 0..8 {
        for name in ["i0", "i1", "i2"] {
            if hub.phase(name) != Some(Phase::AwaitConfirm) {
                hub.step(name, &[]);
            }
        }
    }
    assert_eq!(hub.phase("i2"), Some(Phase::AwaitConfirm));
    tell(&mut hub, "i0", "high");
    tell(&mut hub, "i1", "high");
    hub.pass();
    assert_eq!((lives(&hub, "i0"), lives(&hub, "i1")), ("p0-2@1".into(), "p1-2@1".into()));
    // The third was not told, and is given up with its group.
    assert_eq!((hub.phase("i2"), lives(&hub, "i2").as_str()), (Some(Phase::RollbackVerify), "p2-0@1"));
}

#[test]
fn what_rises_while_a_switch_is_verified_is_followed_at_once_and_says_who_told_it() {
    let mut hub = watched(1);
    hub.start(vec![Switching::order("i0", "p0-1")]).unwrap();
    hub.until("i0", Phase::Verify);
    tell(&mut hub, "i0", "high");
    let given_up = hub.last();
    assert_eq!((given_up.outcome, given_up.to.to_string().as_str()), (Outcome::RolledBack, "p0-1@1"));
    assert!(given_up.failure.unwrap().contains("the threat level rose to high"));
    assert_eq!(hub.phase("i0"), Some(Phase::Prepare));
    hub.pass();
    assert_eq!(
        (hub.phase("i0"), lives(&hub, "i0").as_str()),
        (Some(Phase::Flip), "p0-2@1"),
        "urgent: nothing drained, nothing compared"
    );
    let entry = hub.finish("i0");
    assert_eq!((entry.by.as_str(), entry.from.to_string().as_str()), ("ids", "p0-0@1"));
    assert_eq!(hub.view("i0").level.as_deref(), Some("high"));
    tell(&mut hub, "i0", "low");
    hub.wait(60);
    let entry = hub.finish("i0");
    assert_eq!((entry.by.as_str(), lives(&hub, "i0").as_str()), ("ids", "p0-0@1"));
}

#[test]
fn what_an_urgent_switch_cuts_is_counted_and_nothing_waits_for_it() {
    for late in [false, true] {
        let mut hub = watched(1);
        tell(&mut hub, "i0", "high");
        assert_eq!(hub.asks("i0"), ["flows"]);
        let ticket = hub.view("i0").wants[0].ticket;
        let policy = |hub: &mut Switching| {
            let wants = hub.view("i0").wants;
            let Some(Question::Flows { judged, awaited: false, .. }) =
                wants.last().map(|wanted| &wanted.question)
            else {
                return None;
            };
            assert_eq!(wants.last().unwrap().ticket, ticket, "the same question all along");
            Some(Arc::clone(&judged.policy))
        };
        let to_come = policy(&mut hub).unwrap();
        hub.script.hub.saved();
        let flows = |active| Observation::Flows(FlowCount { active, idle: 0, kept: 2 });
        if !late {
            hub.observe("i0", ticket, flows(4));
            hub.observe("i0", ticket, flows(5));
            assert!(!hub.script.hub.must_be_stored(), "no flip waits for a disk because of it");
        }
        hub.pass();
        assert_eq!((hub.phase("i0"), lives(&hub, "i0").as_str()), (Some(Phase::Flip), "p0-2@1"));
        hub.pass();
        assert_eq!(hub.phase("i0"), Some(Phase::Verify));
        assert_eq!(
            policy(&mut hub).is_some_and(|policy| Arc::ptr_eq(&policy, &to_come)),
            late,
            "as it was compiled"
        );
        hub.observe("i0", ticket, flows(3));
        assert!(policy(&mut hub).is_none(), "counted");
        let entry = hub.finish("i0");
        assert_eq!(entry.flows.unwrap(), FlowCount { active: if late { 3 } else { 5 }, idle: 0, kept: 2 });
        assert_eq!(entry.outcome, Outcome::Committed);
    }
}

#[test]
fn what_rises_during_a_flip_waits_for_the_kernel_alone() {
    let mut hub = watched(1);
    hub.start(vec![Switching::order("i0", "p0-1")]).unwrap();
    hub.until("i0", Phase::Flip);
    tell(&mut hub, "i0", "high");
    assert_eq!((hub.phase("i0"), hub.view("i0").level), (Some(Phase::Flip), None), "it is not followed yet");
    hub.pass();
    assert_eq!((hub.last().outcome, hub.phase("i0")), (Outcome::RolledBack, Some(Phase::Prepare)));
    hub.pass();
    assert_eq!((hub.phase("i0"), lives(&hub, "i0").as_str()), (Some(Phase::Flip), "p0-2@1"));
    assert_eq!(hub.finish("i0").by, "ids");
}

#[test]
fn a_lockdown_that_is_verified_stays_when_the_level_asks_for_it() {
    for (confirms, phase) in [(false, Phase::Verify), (true, Phase::AwaitConfirm)] {
        let mut hub = watched(1);
        let order = Switching::order("i0", "p0-2");
        hub.start(vec![if confirms { to_be_confirmed("i0", "p0-2") } else { order }]).unwrap();
        hub.until("i0", phase);
        tell(&mut hub, "i0", "high");
        assert_eq!((hub.phase("i0"), lives(&hub, "i0").as_str()), (Some(phase), "p0-2@1"), "no gap");
        if confirms {
            // Nobody confirms it: it goes back, and is followed at once from there.
            hub.wait(3_600);
            assert_eq!(hub.phase("i0"), Some(Phase::Rollback));
            hub.pass();
            assert_eq!((hub.last().outcome, hub.phase("i0")), (Outcome::RolledBack, Some(Phase::Prepare)));
            hub.pass();
            assert_eq!(lives(&hub, "i0"), "p0-2@1");
        }
        assert_eq!(hub.finish("i0").outcome, Outcome::Committed);
        let view = hub.view("i0");
        assert_eq!((view.level.as_deref(), view.operation), (Some("high"), None));
    }
}

#[test]
fn a_threat_does_not_wait_for_the_checks_of_the_default() {
    let mut hub = Switching::new(1, json!({"default": ""}));
    hub.watch(1);
    hub.start(vec![Switching::order("i0", "p0-1")]).unwrap();
    hub.until("i0", Phase::Verify);
    hub.answer("i0", &["carrier"]);
    hub.until("i0", Phase::RollbackVerify);
    hub.answer("i0", &["carrier"]);
    assert_eq!((hub.phase("i0"), lives(&hub, "i0").as_str()), (Some(Phase::Fallback), "p0-3@1"));
    tell(&mut hub, "i0", "high");
    assert_eq!(hub.phase("i0"), Some(Phase::Fallback), "the kernel is at it");
    hub.pass();
    assert_eq!((hub.last().outcome, hub.phase("i0")), (Outcome::FellBack, Some(Phase::Prepare)));
    hub.pass();
    assert_eq!(lives(&hub, "i0"), "p0-2@1");
    assert_eq!(hub.finish("i0").from.to_string(), "p0-3@1");
}

#[test]
fn a_threat_while_the_way_back_from_temporary_access_is_verified_leads_to_nothing_lent() {
    let mut hub = watched(1);
    hub.start(vec![Order { lasts: Some(Duration::from_mins(10)), ..Switching::order("i0", "p0-1") }])
        .unwrap();
    hub.finish("i0");
    hub.wait(600);
    hub.until("i0", Phase::Verify);
    assert_eq!(lives(&hub, "i0"), "p0-0@1");
    tell(&mut hub, "i0", "high");
    assert_eq!((hub.last().outcome, hub.phase("i0")), (Outcome::Committed, Some(Phase::Prepare)));
    hub.until("i0", Phase::Verify);
    hub.answer("i0", &["carrier"]);
    hub.finish("i0");
    assert_eq!(lives(&hub, "i0"), "p0-0@1");
}

#[test]
fn a_threat_at_the_end_of_temporary_access_is_followed_instead_of_the_way_back() {
    for late in [0, 1] {
        let mut hub = watched(1);
        let lent = Order { lasts: Some(Duration::from_mins(10)), ..Switching::order("i0", "p0-1") };
        hub.start(vec![lent]).unwrap();
        hub.finish("i0");
        hub.wait(599 + late);
        assert_eq!(hub.phase("i0"), (late == 1).then_some(Phase::Prepare), "the way back");
        tell(&mut hub, "i0", "high");
        hub.wait(1);
        assert_eq!(hub.phase("i0"), Some(Phase::Prepare), "the end of what it comes from does not end it");
        hub.pass();
        assert_eq!(lives(&hub, "i0"), "p0-2@1");
        assert_eq!(hub.finish("i0").outcome, Outcome::Committed);
        let view = hub.view("i0");
        assert_eq!((view.until, view.level.as_deref()), (None, Some("high")));
        assert_eq!(view.previous.unwrap().to_string(), "p0-0@1");
    }
}
