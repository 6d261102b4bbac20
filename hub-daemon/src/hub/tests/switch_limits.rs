//! What the hub does by itself is limited, by what it did; and what was given up takes nothing away.

use std::collections::BTreeSet;

use super::switch::*;
use super::switch_documents::{forbid, of_interface};
use super::*;
use crate::command::Deadline;
use crate::command::switch::SwitchCommand;
use crate::systems::personality::operation::{JournalEntry, Outcome};
use crate::systems::personality::switch::{OperationId, Phase};
use crate::view::switch::InterfaceState;

fn lives(hub: &Switching) -> String {
    hub.script.hub.interfaces.records["i0"].layout.live.to_string()
}

fn failing_over() -> Value {
    json!({"failover": {"check": {"ping": "192.0.2.9"}, "for": "10s", "to": "p0-2", "fail_back": "auto",
        "hold_down": "30s"}})
}

/// The check of failover fails so often, a round every ten seconds.
fn rounds(hub: &mut Switching, count: usize, failed: &[&str]) {
    for _ in 0..count {
        hub.answer("i0", failed);
        hub.wait(10);
    }
}

#[test]
fn a_switch_that_could_not_begin_is_not_counted() {
    let mut hub = Switching::new(1, json!({}));
    hub.wait(60);
    let bad = hub.keep(of_interface(0, 1, json!({"health": {"on_unhealthy": "revert"}})));
    hub.start(vec![Switching::order("i0", &bad)]).unwrap();
    hub.finish("i0");
    hub.wait(60);
    forbid(&mut hub, true);
    rounds(&mut hub, 10, &["dns"]);
    assert_eq!((hub.view("i0").state, hub.phase("i0")), (InterfaceState::Active, None));
    forbid(&mut hub, false);
    hub.answer("i0", &["dns"]);
    assert_eq!(hub.finish("i0").to.to_string(), "p0-0@1");

    let mut hub = Switching::new(1, failing_over());
    hub.wait(60);
    forbid(&mut hub, true);
    rounds(&mut hub, 10, &["192.0.2.9"]);
    assert_eq!((lives(&hub).as_str(), hub.phase("i0")), ("p0-0@1", None));
    forbid(&mut hub, false);
    hub.answer("i0", &["192.0.2.9"]);
    hub.finish("i0");
    assert_eq!(lives(&hub), "p0-2@1");
}

#[test]
fn while_an_apply_waits_interfaces_follow_threats_and_go_back_and_keep_what_they_have_then() {
    let zones = json!({"zones": {"levels": [{"level": "low", "personality": "p0-0"},
        {"level": "high", "personality": "p0-3"}]}});
    let tell = |level: &str| {
        let (interface, by) = ("i0".to_owned(), "ids".to_owned());
        Command::Switch(SwitchCommand::Threat { interface, level: level.into(), by })
    };
    let mut hub = Switching::new(1, zones);
    hub.wait(60);
    hub.script.create(persona("web", "10.30.0.0/24")).unwrap();
    let before = hub.script.view("web").definition;
    let until = hub.script.now + 600.seconds();
    let documents = vec![
        persona_from_value(with(persona("web", "10.30.0.0/24"), json!({"labels": {"a": "b"}}))).unwrap(),
    ];
    let confirm = Some(Deadline { until, boot_id: "a".into(), boot_ns: 1 });
    hub.script.hub.handle(Command::Apply { documents, confirm }, hub.script.now).unwrap();
    assert_ne!(hub.script.view("web").definition, before);
    let (kind, text) = refusal(hub.start(vec![Switching::order("i0", "p0-1")]));
    assert!(kind == RejectionKind::Conflict && text.contains("waits for confirmation"), "{text}");
    hub.script.hub.handle(tell("high"), hub.script.now).unwrap();
    hub.finish("i0");
    assert_eq!(lives(&hub), "p0-3@1");
    hub.ask(SwitchCommand::Revert(Switching::said("i0"))).unwrap();
    assert_eq!(hub.phase("i0"), Some(Phase::Prepare));
    let switch = hub.script.hub.interfaces.records["i0"].switch.clone();
    let (desired, ends) = (hub.script.desired(), hub.script.hub.unwritten().len());
    hub.script.hub.handle(Command::Revert { why: "time".into() }, hub.script.now).unwrap();
    hub.check();
    assert_eq!(hub.script.view("web").definition, before, "the change went back");
    assert_eq!(hub.script.hub.interfaces.records["i0"].switch, switch, "the switch goes on");
    assert_eq!(hub.script.desired().interfaces, desired.interfaces);
    assert_eq!(hub.script.hub.unwritten().len(), ends);
    assert!(hub.script.hub.must_be_stored());
    assert_eq!(hub.finish("i0").outcome, Outcome::Committed);
    assert_eq!((lives(&hub).as_str(), hub.view("i0").level.as_deref()), ("p0-0@1", Some("high")));
    hub.restart();
    assert_eq!(lives(&hub), "p0-0@1");
}

#[test]
fn a_switch_that_was_given_up_does_not_keep_a_personality_from_becoming_good() {
    let good = |hub: &mut Switching| hub.view("i0").last_known_good.map(|version| version.to_string());
    let mut hub = Switching::new(1, json!({}));
    for _ in 0..3 {
        hub.wait(15);
        hub.start(vec![Switching::order("i0", "p0-1")]).unwrap();
        hub.wait(5);
        hub.ask(SwitchCommand::Cancel(Switching::said("i0"))).unwrap();
    }
    hub.wait(14);
    assert_eq!(good(&mut hub), None, "the time of a switch does not count: nothing was checked");
    hub.wait(1);
    assert_eq!(good(&mut hub).as_deref(), Some("p0-0@1"));
    // One that was away is looked at for a minute again.
    let mut hub = Switching::new(1, json!({}));
    hub.wait(50);
    hub.start(vec![Switching::order("i0", "p0-1")]).unwrap();
    hub.until("i0", Phase::Verify);
    hub.answer("i0", &["dns"]);
    assert_eq!(hub.finish("i0").outcome, Outcome::RolledBack);
    hub.wait(59);
    assert_eq!(good(&mut hub), None);
    hub.wait(1);
    assert_eq!(good(&mut hub).as_deref(), Some("p0-0@1"));
}

#[test]
fn an_interface_fails_back_also_after_a_switch_that_was_given_up() {
    let mut hub = Switching::new(1, failing_over());
    hub.wait(60);
    rounds(&mut hub, 1, &["192.0.2.9"]);
    hub.answer("i0", &["192.0.2.9"]);
    hub.finish("i0");
    assert_eq!(lives(&hub), "p0-2@1");
    hub.start(vec![Switching::order("i0", "p0-1")]).unwrap();
    hub.ask(SwitchCommand::Cancel(Switching::said("i0"))).unwrap();
    hub.start(vec![Switching::order("i0", "p0-3")]).unwrap();
    hub.until("i0", Phase::Verify);
    hub.answer("i0", &["dns"]);
    assert_eq!(hub.finish("i0").outcome, Outcome::RolledBack);
    // What failed stays beside for a minute; then the first one's way is asked, for as long as `hold_down` says.
    rounds(&mut hub, 9, &[]);
    assert_eq!(hub.phase("i0"), None);
    hub.answer("i0", &[]);
    assert_eq!(hub.finish("i0").why, "the check of failover succeeds again");
    assert_eq!(lives(&hub), "p0-0@1");
}

#[test]
fn what_became_of_a_switch_is_known_until_the_journal_has_it_and_its_group_is_over() {
    let mut hub = Switching::new(2, json!({}));
    hub.start(vec![Switching::order("i0", "p0-1"), Switching::order("i1", "p1-1")]).unwrap();
    hub.until("i0", Phase::Ready);
    hub.until("i1", Phase::Flip);
    hub.pass();
    hub.answer("i1", &["dns"]);
    let first = hub.finish("i0");
    assert!(first.group.is_some() && hub.phase("i1").is_some());
    let others = |hub: &mut Switching, count: usize, mark: &str| {
        for number in 0..count {
            let id = OperationId(format!("{mark}{number:03}"));
            hub.script.hub.interfaces_mut().end(JournalEntry { id, group: None, ..first.clone() });
        }
    };
    let known = |hub: &Switching| -> BTreeSet<String> {
        hub.script.hub.interfaces.operations.keys().map(|id| id.0.clone()).collect()
    };
    others(&mut hub, 400, "A");
    assert_eq!(known(&hub).len(), 401, "those that are not written yet are not lost");
    hub.script.hub.written(401);
    others(&mut hub, 1, "B");
    let left = known(&hub);
    assert!(left.len() == 256 && left.contains(&first.id.0) && left.contains("B000"), "{}", left.len());
    assert!(left.contains("A399") && !left.contains("A000"), "the last ones");
    hub.finish("i1");
    hub.script.hub.written(9);
    others(&mut hub, 255, "C");
    hub.script.hub.written(255);
    others(&mut hub, 1, "Z");
    assert!(!known(&hub).contains(&first.id.0));
}
