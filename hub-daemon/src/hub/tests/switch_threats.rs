//! Threat levels that rise while an interface is being switched.

use std::time::Duration;

use super::switch::*;
use super::*;
use crate::command::switch::{InterfaceCommand, Order, SwitchCommand};
use crate::document::read::interface_from_value;
use crate::systems::personality::operation::Outcome;
use crate::systems::personality::switch::Phase;

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
