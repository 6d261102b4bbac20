//! Switches that the hub begins by itself, and the four reasons that it has.

use super::switch::*;
use super::switch_documents::of_interface;
use super::*;
use crate::command::switch::{Order, SwitchCommand};
use crate::desired::SegmentState;
use crate::desired::interfaces::slot_table;
use crate::systems::personality::operation::Outcome;
use crate::systems::personality::switch::Phase;
use crate::view::switch::{InterfaceState, Question};

fn lives(hub: &Switching) -> String {
    hub.script.hub.interfaces.records["i0"].layout.live.to_string()
}

fn threat(hub: &mut Switching, level: &str) {
    let command = SwitchCommand::Threat { interface: "i0".into(), level: level.into(), by: "ids".into() };
    hub.script.hub.handle(Command::Switch(command), hub.script.now).unwrap();
    hub.check();
}

#[test]
fn a_temporary_switch_goes_back_and_never_forth_again() {
    let mut hub = Switching::new(1, json!({"default": "p0-3"}));
    let order = Order { lasts: Some(std::time::Duration::from_mins(10)), ..Switching::order("i0", "p0-1") };
    hub.start(vec![order.clone()]).unwrap();
    hub.finish("i0");
    let segment = hub.view("i0").segment;
    hub.wait(300);
    let lease = hub.script.desired().segments[&segment].lease.clone().unwrap();
    assert_eq!(Some(lease.until), hub.view("i0").until);
    assert_eq!(hub.view("i0").last_known_good, None, "what is lent is nothing to go back to");
    hub.wait(300);
    assert_eq!(hub.phase("i0"), Some(Phase::Prepare));
    assert!(hub.script.desired().segments[&segment].lease.is_some(), "the data path is there first");
    hub.pass();
    assert_eq!((hub.phase("i0"), lives(&hub).as_str()), (Some(Phase::Flip), "p0-0@1"));
    assert!(hub.script.desired().segments[&segment].lease.is_none());
    let entry = hub.finish("i0");
    assert!(entry.automatic && entry.outcome == Outcome::Committed && entry.by == "hub");
    assert_eq!(hub.view("i0").until, None);
    hub.wait(120);
    hub.start(vec![order]).unwrap();
    hub.finish("i0");
    hub.wait(600);
    hub.until("i0", Phase::Verify);
    hub.answer("i0", &["carrier"]);
    assert_eq!(lives(&hub), "p0-3@1", "to the default, not to what is over");
    assert_eq!(hub.finish("i0").outcome, Outcome::FellBack);
}

#[test]
fn a_threat_that_comes_and_goes_switches_up_always_and_down_three_times_in_ten_minutes() {
    let zones = json!({"zones": {"hysteresis": "0s", "levels": [
        {"level": "low", "personality": "p0-0"}, {"level": "high", "personality": "p0-1"}]}});
    let mut hub = Switching::new(1, zones);
    for _ in 0..3 {
        threat(&mut hub, "high");
        hub.finish("i0");
        assert_eq!(lives(&hub), "p0-1@1");
        threat(&mut hub, "low");
        hub.finish("i0");
        assert_eq!(lives(&hub), "p0-0@1");
    }
    threat(&mut hub, "high");
    hub.finish("i0");
    let since = hub.script.now;
    threat(&mut hub, "low");
    hub.wait(300);
    assert_eq!((hub.phase("i0"), lives(&hub).as_str()), (None, "p0-1@1"), "it stays on the safe side");
    while hub.phase("i0").is_none() {
        assert!(hub.script.now.duration_since(since).as_mins() < 10, "it goes down after all");
        hub.wait(10);
    }
    hub.finish("i0");
    assert_eq!((lives(&hub).as_str(), hub.view("i0").level.as_deref()), ("p0-0@1", Some("low")));
}

#[test]
fn a_threat_is_followed_up_at_once_and_down_when_it_lasts() {
    let zones = json!({"zones": {"hysteresis": "5m", "levels": [
        {"level": "low", "personality": "p0-0"}, {"level": "high", "personality": "p0-1"},
        {"level": "severe", "personality": "p0-2"}]}});
    let mut hub = Switching::new(1, zones);
    threat(&mut hub, "high");
    assert_eq!(hub.phase("i0"), Some(Phase::Prepare));
    hub.pass();
    assert_eq!(lives(&hub), "p0-1@1", "one pass, no drain");
    threat(&mut hub, "severe");
    assert_eq!(lives(&hub), "p0-1@1");
    // What rose meanwhile comes next.
    hub.finish("i0");
    assert_eq!((lives(&hub).as_str(), hub.view("i0").level.as_deref()), ("p0-2@1", Some("severe")));
    threat(&mut hub, "low");
    hub.wait(200);
    threat(&mut hub, "severe");
    hub.wait(200);
    assert_eq!(hub.phase("i0"), None, "it was not low for long enough");
    threat(&mut hub, "low");
    hub.wait(299);
    threat(&mut hub, "low");
    assert_eq!(hub.phase("i0"), None);
    hub.wait(1);
    assert_eq!(hub.finish("i0").outcome, Outcome::Committed);
    assert_eq!((lives(&hub).as_str(), hub.view("i0").level.as_deref()), ("p0-0@1", Some("low")));
    let command = SwitchCommand::Threat { interface: "i0".into(), level: "x".into(), by: "ids".into() };
    let (_, text) = refusal(hub.script.hub.handle(Command::Switch(command), hub.script.now));
    assert!(text.contains("use one of low, high, severe"), "{text}");
}

#[test]
fn a_personality_that_becomes_bad_goes_back_but_not_for_ever() {
    let mut hub = Switching::new(1, json!({}));
    hub.wait(60);
    assert_eq!(hub.view("i0").last_known_good.unwrap().to_string(), "p0-0@1");
    let bad = of_interface(0, 1, json!({"health": {"on_unhealthy": "revert"}}));
    let bad = hub.keep(bad);
    for time in 0..4 {
        hub.start(vec![Switching::order("i0", &bad)]).unwrap();
        hub.finish("i0");
        assert_eq!(hub.asks("i0").len(), 11, "asked again and again");
        for _ in 0..4 {
            hub.answer("i0", &["dns"]);
        }
        assert_eq!(hub.phase("i0"), None, "hold-down");
        assert_eq!(hub.view("i0").conditions[0].reason, "Unhealthy");
        hub.wait(60);
        hub.answer("i0", &["dns"]);
        if time == 3 {
            break;
        }
        let entry = hub.finish("i0");
        assert!(entry.automatic && entry.why.starts_with("unhealthy: dns"), "{}", entry.why);
        assert_eq!(lives(&hub), "p0-0@1");
    }
    let view = hub.view("i0");
    assert_eq!((view.state, view.current.to_string()), (InterfaceState::Degraded, bad));
    assert_eq!(hub.script.desired().segments[&view.segment].state, SegmentState::Block);
    hub.ask(SwitchCommand::Revert(Switching::said("i0"))).unwrap();
    hub.finish("i0");
    assert_eq!(hub.view("i0").state, InterfaceState::Active);
}

#[test]
fn a_check_that_fails_brings_the_backup_and_one_that_works_again_takes_it_away() {
    let failover = json!({"failover": {"check": {"ping": "192.0.2.9"}, "for": "10s", "to": "p0-2",
        "fail_back": "auto", "hold_down": "90s"}});
    let mut hub = Switching::new(1, failover);
    hub.wait(60);
    hub.answer("i0", &["192.0.2.9"]);
    hub.wait(5);
    hub.answer("i0", &[]);
    hub.wait(5);
    hub.answer("i0", &["192.0.2.9"]);
    hub.wait(9);
    hub.answer("i0", &["192.0.2.9"]);
    assert_eq!(hub.phase("i0"), None);
    hub.wait(1);
    hub.answer("i0", &["192.0.2.9"]);
    assert_eq!(hub.finish("i0").why, "the check of failover fails");
    assert_eq!(lives(&hub), "p0-2@1");
    let mark = |hub: &mut Switching| {
        let view = hub.view("i0");
        let Question::Checks { asked, .. } = &view.wants[0].question else { panic!("{:?}", view.wants) };
        (asked.last().unwrap().mark, view.segment)
    };
    for _ in 0..10 {
        let (mark, segment) = mark(&mut hub);
        let interface = hub.script.desired().interfaces["i0"].clone();
        assert_eq!(mark, Some(slot_table(segment, interface.live.other())), "the first one's way is asked");
        assert!(interface.probed && !interface.routes[interface.live.other().index()].is_empty());
        hub.wait(9);
        hub.answer("i0", &[]);
    }
    assert_eq!(hub.phase("i0"), None);
    hub.wait(9);
    hub.answer("i0", &[]);
    assert_eq!(hub.finish("i0").why, "the check of failover succeeds again");
    assert_eq!(lives(&hub), "p0-0@1");
    assert_eq!(mark(&mut hub).0, None);
}

#[test]
fn a_revert_goes_to_what_was_good_last_else_to_the_default() {
    let mut hub = Switching::new(1, json!({"default": "p0-3"}));
    hub.ask(SwitchCommand::Revert(Switching::said("i0"))).unwrap();
    assert_eq!(hub.finish("i0").to.to_string(), "p0-3@1");
    hub.wait(60);
    hub.start(vec![Switching::order("i0", "p0-1")]).unwrap();
    hub.finish("i0");
    hub.start(vec![Switching::order("i0", "p0-2")]).unwrap();
    hub.finish("i0");
    hub.ask(SwitchCommand::Revert(Switching::said("i0"))).unwrap();
    assert_eq!(hub.finish("i0").to.to_string(), "p0-3@1", "the last that was healthy for a minute");
    let mut hub = Switching::new(1, json!({}));
    let (kind, text) = refusal(hub.ask(SwitchCommand::Revert(Switching::said("i0"))));
    assert!(kind == RejectionKind::Conflict && text.contains("nothing to go back to"), "{text}");
}
