//! Changes that are tried first: candidates, and changes that wait for confirmation.

use jiff::SignedDuration;

use super::*;
use crate::command::Deadline;
use crate::hub::state::State;

fn document(value: Value) -> crate::document::persona::PersonaDocument {
    persona_from_value(value).expect("the test's document is valid")
}

fn rules(port: u16) -> Value {
    with(
        persona("web", "10.1.0.0/24"),
        json!({"security_policies": [{"protocol": "tcp", "port": port, "action": "allow"}]}),
    )
}

impl Script {
    fn on_trial(&mut self, value: Value, seconds: i64) -> Result<Reply, Rejection> {
        let until = self.now + SignedDuration::from_secs(seconds);
        let document = Box::new(document(value));
        self.hub.handle(Command::Try { persona: "web".into(), document, until }, self.now)
    }

    fn apply(&mut self, values: &[Value], confirm: bool) -> Result<Reply, Rejection> {
        let documents = values.iter().cloned().map(document).collect();
        let until = self.now + SignedDuration::from_secs(60);
        let confirm = confirm.then(|| Deadline { until, boot_id: "a".into(), boot_ns: 1 });
        self.hub.handle(Command::Apply { documents, confirm }, self.now)
    }

    /// A daemon that died and came back.
    fn reborn(&mut self) {
        let text = serde_json::to_vec(&self.hub.state()).unwrap();
        let state: State = serde_json::from_slice(&text).unwrap();
        assert_eq!(state, self.hub.state());
        self.hub = Hub::restore(self.hub.config().clone(), IdSource::new(2), state, self.now);
    }
}

#[test]
fn a_candidate_decides_nothing_and_ends_by_itself() {
    let mut script = Script::new();
    let web = script.create(rules(80)).unwrap();
    script.reconciled(&[]);
    script.on_trial(rules(81), 60).unwrap();
    let segment = script.desired().segments[&web.segment].clone();
    assert_ne!(Some(&segment.policy), segment.candidate.as_ref().map(|trial| &trial.policy));
    assert!(segment.candidate.is_some() && script.view("web").candidate.unwrap().running);
    assert_eq!(script.view("web").generation, 1);
    script.reborn();
    assert!(script.desired().segments[&web.segment].candidate.is_some(), "trials survive a restart");
    assert_eq!(script.hub.deadline(), Some(script.now + SignedDuration::from_secs(60)));
    script.pass(60);
    assert!(script.desired().segments[&web.segment].candidate.is_none());
    let over = script.view("web").candidate.unwrap();
    assert!(!over.running && over.definition == document(rules(81)));
}

#[test]
fn a_change_of_the_persona_ends_its_trial() {
    let mut script = Script::new();
    script.create(rules(80)).unwrap();
    script.on_trial(rules(81), 60).unwrap();
    script.replace("web", rules(82)).unwrap();
    assert_eq!(script.view("web").candidate, None);
    script.on_trial(rules(81), 60).unwrap();
    script.hub.handle(Command::EndTrial { persona: "web".into() }, script.now).unwrap();
    assert_eq!(script.view("web").candidate, None);
    let again = script.hub.handle(Command::EndTrial { persona: "web".into() }, script.now);
    assert_eq!(refusal(again).0, RejectionKind::NotFound);
}

#[test]
fn a_candidate_keeps_name_and_ranges() {
    let mut script = Script::new();
    script.create(rules(80)).unwrap();
    let refused = script.on_trial(persona("other", "10.2.0.0/24"), 60).unwrap_err();
    let pointers: Vec<&str> = refused.problems.iter().map(|problem| problem.pointer.as_str()).collect();
    assert_eq!((refused.kind, pointers), (RejectionKind::Invalid, vec!["/name", "/ip_range"]));
    assert_eq!(refusal(script.on_trial(rules(81), 0)).0, RejectionKind::Invalid);
}

#[test]
fn several_personas_change_whole_or_not_at_all() {
    let mut script = Script::new();
    script.create(rules(80)).unwrap();
    let before = script.hub.state();
    let wrong = [rules(81), persona("b", "10.2.0.0/24"), persona("c", "10.2.0.0/25")];
    let refused = script.apply(&wrong, false).unwrap_err();
    assert_eq!(refused.problems[0].pointer, "/2/ip_range", "{refused:?}");
    assert_eq!(script.hub.state(), before);
    // Two personas swap their ranges.
    script.apply(&[persona("b", "10.2.0.0/24")], false).unwrap();
    let swapped = [persona("web", "10.2.0.0/24"), persona("b", "10.1.0.0/24")];
    let Reply::Applied { created, updated } = script.apply(&swapped, false).unwrap() else { panic!() };
    assert_eq!((created, updated), (vec![], vec!["web".to_owned(), "b".to_owned()]));
    let Reply::Applied { created, updated } = script.apply(&swapped, false).unwrap() else { panic!() };
    assert!(created.is_empty() && updated.is_empty());
    assert_eq!(refusal(script.create(persona("x", "10.1.0.0/25"))).0, RejectionKind::Conflict);
}

#[test]
fn an_unconfirmed_change_goes_back_exactly() {
    let mut script = Script::new();
    let web = script.create(rules(80)).unwrap();
    script.reconciled(&[]);
    let before = script.desired();
    script.apply(&[rules(81), persona("new", "10.2.0.0/24")], true).unwrap();
    let new = script.view("new");
    assert_ne!(script.desired(), before);
    script.reborn();
    assert!(script.hub.pending().is_some());
    script.hub.handle(Command::Revert { why: "time".into() }, script.now).unwrap();
    assert_eq!(script.desired(), before);
    let after = script.view("web");
    assert_eq!((&after.id, &after.definition), (&web.id, &web.definition));
    assert_eq!(after.generation, 3, "nobody may take it for the one that was tried");
    assert!(script.hub.pending().is_none());
    // The number of what is gone rests.
    let other = script.create(persona("other", "10.3.0.0/24")).unwrap();
    assert_ne!(other.segment, new.segment);
    let again = script.hub.handle(Command::Revert { why: "again".into() }, script.now);
    assert_eq!(refusal(again).0, RejectionKind::NotFound);
}

#[test]
fn a_confirmed_change_stays_and_nothing_else_changes_before() {
    let mut script = Script::new();
    script.create(rules(80)).unwrap();
    script.apply(&[rules(81)], true).unwrap();
    assert_eq!(refusal(script.create(persona("b", "10.2.0.0/24"))).0, RejectionKind::Conflict);
    assert_eq!(refusal(script.delete("web")).0, RejectionKind::Conflict);
    assert_eq!(refusal(script.apply(&[rules(82)], true)).0, RejectionKind::Conflict);
    script.hub.handle(Command::Confirm, script.now).unwrap();
    assert_eq!(script.view("web").definition, document(rules(81)));
    assert_eq!(script.hub.state().pending, None);
    script.create(persona("b", "10.2.0.0/24")).unwrap();
    assert_eq!(refusal(script.hub.handle(Command::Confirm, script.now)).0, RejectionKind::NotFound);
}
