//! Several interfaces switched as one: all of them, or none.

use super::switch::*;
use super::*;
use crate::command::switch::{Order, SwitchCommand};
use crate::systems::personality::operation::Outcome;
use crate::systems::personality::switch::Phase;

fn began(confirm: bool) -> Switching {
    let mut hub = Switching::new(3, json!({}));
    let order = |name: &str, to: &str| Order {
        confirm_within: confirm.then_some(std::time::Duration::from_mins(1)),
        ..Switching::order(name, to)
    };
    let views = hub.start(vec![order("i0", "p0-1"), order("i1", "p1-2")]).unwrap();
    assert!(views.len() == 2 && views[0].group.is_some() && views[0].group == views[1].group);
    hub
}

fn lives(hub: &Switching, name: &str) -> String {
    hub.script.hub.interfaces.records[name].layout.live.to_string()
}

#[test]
fn a_group_flips_in_one_pass_and_is_done_at_once() {
    let mut hub = began(false);
    hub.pass();
    hub.answer("i0", &[]);
    hub.pass();
    hub.count("i0", 0);
    assert_eq!(hub.phase("i0"), Some(Phase::Ready));
    let segment = hub.view("i0").segment;
    assert!(hub.script.desired().segments[&segment].transition.is_some(), "the gate stays closed meanwhile");
    hub.answer("i1", &[]);
    hub.pass();
    assert_eq!((lives(&hub, "i0"), lives(&hub, "i1")), ("p0-0@1".into(), "p1-0@1".into()));
    hub.count("i1", 0);
    assert_eq!((lives(&hub, "i0"), lives(&hub, "i1")), ("p0-1@1".into(), "p1-2@1".into()));
    hub.pass();
    hub.answer("i1", &[]);
    assert_eq!(hub.phase("i1"), Some(Phase::Verified));
    assert!(hub.script.hub.unwritten().is_empty());
    hub.answer("i0", &[]);
    let outcomes: Vec<_> = hub.script.hub.unwritten().iter().map(|entry| entry.outcome).collect();
    assert_eq!(outcomes, [Outcome::Committed, Outcome::Committed]);
}

#[test]
fn one_that_fails_takes_the_others_with_it() {
    let mut hub = began(false);
    hub.until("i0", Phase::Ready);
    hub.answer("i1", &["handshake of wg12"]);
    let outcomes: Vec<_> = hub.script.hub.unwritten().iter().map(|entry| entry.outcome).collect();
    assert_eq!(outcomes, [Outcome::Aborted, Outcome::Aborted]);
    let failure = hub.last().failure.unwrap();
    assert!(failure.starts_with("interface `i1`: handshake"), "{failure}");
    let mut hub = began(false);
    hub.until("i0", Phase::Ready);
    hub.until("i1", Phase::Flip);
    hub.pass();
    hub.answer("i0", &[]);
    hub.answer("i1", &["dns"]);
    assert_eq!((lives(&hub, "i0"), lives(&hub, "i1")), ("p0-0@1".into(), "p1-0@1".into()), "in one pass");
    assert_eq!(hub.finish("i0").outcome, Outcome::RolledBack);
    assert_eq!(hub.finish("i1").outcome, Outcome::RolledBack);
}

#[test]
fn a_word_about_one_is_about_all() {
    let mut hub = began(true);
    hub.until("i0", Phase::Ready);
    hub.until("i1", Phase::Flip);
    hub.pass();
    hub.answer("i0", &[]);
    hub.answer("i1", &[]);
    assert_eq!(hub.phase("i0"), Some(Phase::AwaitConfirm));
    hub.ask(SwitchCommand::Confirm(Switching::said("i1"))).unwrap();
    assert_eq!((hub.phase("i0"), hub.phase("i1")), (None, None));
    assert_eq!(hub.view("i0").current.to_string(), "p0-1@1");
    let mut hub = began(true);
    hub.ask(SwitchCommand::Cancel(Switching::said("i1"))).unwrap();
    assert_eq!((hub.phase("i0"), hub.phase("i1")), (None, None));
}

#[test]
fn an_order_that_is_refused_refuses_all() {
    let mut hub = Switching::new(2, json!({}));
    let (kind, text) = refusal(hub.start(vec![
        Switching::order("i0", "p0-1"),
        Switching::order("i1", "nothing"),
        Switching::order("i0", "p0-2"),
    ]));
    assert_eq!(kind, RejectionKind::Invalid);
    assert!(text.contains("/1/to there is no personality `nothing`"), "{text}");
    assert!(text.contains("/2 a switch to p0-1@1 is under way"), "{text}");
    assert_eq!((hub.phase("i0"), hub.phase("i1")), (None, None));
    assert!(hub.script.hub.unwritten().is_empty());
}
