//! Requests that are sent again, also to another daemon.

use jiff::SignedDuration;

use super::*;
use crate::hub::changes::{Changes, Resting};
use crate::hub::state::State;
use crate::model::key::{KEYS, Key};

fn key(text: &str, body: &str) -> Key {
    Key::new(text.to_owned(), body.as_bytes())
}

fn once(script: &mut Script, key: Key, document: Value) -> Result<PersonaView, Rejection> {
    let document = Box::new(persona_from_value(document).expect("the test's document is valid"));
    let command = Command::CreateOnce { document, key, hasty: false };
    let Reply::Created(view) = script.hub.handle(command, script.now)? else { panic!("it makes a persona") };
    Ok(*view)
}

/// Another daemon goes on with what is on the disk.
fn restart(script: &mut Script) {
    let state: State = serde_json::from_str(&serde_json::to_string(&script.hub.state()).unwrap()).unwrap();
    script.hub = Hub::restore(Config::default(), IdSource::new(2), state, script.now);
}

fn kept(script: &Script) -> usize {
    script.hub.state().keys.len()
}

#[test]
fn another_daemon_answers_as_the_first_did() {
    let mut script = Script::new();
    let wanted = || with(persona("a", "10.1.0.0/24"), json!({"ttl": "1h"}));
    let first = once(&mut script, key("k", "a"), wanted()).unwrap();
    for _ in 0..2 {
        restart(&mut script);
        let again = once(&mut script, key("k", "a"), wanted()).unwrap();
        assert_eq!((&again.id, again.segment, again.generation), (&first.id, first.segment, 1));
        let (kind, text) = refusal(once(&mut script, key("k", "b"), persona("b", "10.2.0.0/24")));
        assert!(kind == RejectionKind::Invalid && text.contains("used before with another body"), "{text}");
        let (kind, _) = refusal(once(&mut script, key("l", "a"), wanted()));
        assert_eq!(kind, RejectionKind::Conflict, "another key is another request");
    }
    assert_eq!((script.hub.state().personas.len(), kept(&script)), (1, 1));
    // Also when its end came meanwhile.
    script.pass(3_600);
    assert_eq!(once(&mut script, key("k", "a"), wanted()).unwrap().state, PersonaState::Expired);
}

#[test]
fn what_was_refused_has_no_key_and_what_is_gone_is_not_made_again() {
    let mut script = Script::new();
    script.create(persona("a", "10.1.0.0/24")).unwrap();
    assert!(once(&mut script, key("k", "a"), persona("a", "10.1.0.0/24")).is_err());
    script.delete("a").unwrap();
    let made = once(&mut script, key("k", "a"), persona("a", "10.1.0.0/24")).unwrap();
    script.delete("a").unwrap();
    restart(&mut script);
    let (kind, text) = refusal(once(&mut script, key("k", "a"), persona("a", "10.1.0.0/24")));
    assert!(
        kind == RejectionKind::Conflict && text.contains(&format!("{}, which is gone", made.id)),
        "{text}"
    );
}

#[test]
fn keys_are_bounded_in_time_and_number() {
    let mut script = Script::new();
    once(&mut script, key("first", ""), persona("a", "10.1.0.0/24")).unwrap();
    let by = SignedDuration::from_hours(100);
    script.now += by;
    script.hub.handle(Command::ClockSet(by), script.now).unwrap();
    script.pass(24 * 3_600 - 1);
    assert!(once(&mut script, key("first", ""), persona("b", "10.2.0.0/24")).is_ok(), "the clock was set");
    assert_eq!(script.hub.state().personas.len(), 1);
    script.pass(1);
    once(&mut script, key("first", ""), persona("b", "10.2.0.0/24")).unwrap();
    assert_eq!(script.hub.state().personas.len(), 2, "after a day it is another request");
    for number in 0..KEYS {
        script.now += SignedDuration::from_millis(1);
        once(&mut script, key(&number.to_string(), ""), persona("c", "10.3.0.0/24")).unwrap();
        script.delete("c").unwrap();
    }
    assert_eq!(kept(&script), KEYS);
    assert!(!script.hub.state().keys.contains_key("first"));
}

#[test]
fn a_key_is_in_the_change_that_makes_its_persona() {
    let mut script = Script::new();
    script.hub.saved();
    let mut state = script.hub.state();
    let mut follow = |script: &mut Script| -> usize {
        let changes = script.hub.changes(&Resting::default());
        script.hub.saved();
        let text = serde_json::to_string(&changes).unwrap();
        state.change([serde_json::from_str::<Changes>(&text).unwrap()]);
        assert_eq!(state.keys, script.hub.state().keys);
        changes.keys.len()
    };
    once(&mut script, key("k", ""), persona("a", "10.1.0.0/24")).unwrap();
    assert_eq!(follow(&mut script), 1);
    script.pass(24 * 3_600);
    assert_eq!(follow(&mut script), 0);
    once(&mut script, key("l", ""), persona("b", "10.2.0.0/24")).unwrap();
    assert_eq!(follow(&mut script), 2, "one comes, one goes");
}

#[test]
fn what_could_not_be_stored_has_no_key() {
    let mut script = Script::new();
    let before = script.hub.mark();
    once(&mut script, key("k", ""), persona("a", "10.1.0.0/24")).unwrap();
    script.hub.undo(before);
    assert_eq!(kept(&script), 0);
    once(&mut script, key("k", "other"), persona("b", "10.2.0.0/24")).unwrap();
}
