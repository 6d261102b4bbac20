//! The folder of documents: all or nothing, and two masters are refused.

use super::*;

#[test]
fn files_own_what_they_declare() {
    let mut script = Script::new();
    script.documents(&[persona("a", "10.1.0.0/24"), persona("b", "10.2.0.0/24")]).unwrap();
    let view = script.view("a");
    assert!(matches!(&view.origin, Origin::File { line: 1, .. }));
    for result in [script.delete("a").map(drop), script.replace("a", persona("a", "10.1.0.0/24")).map(drop)] {
        let (kind, text) = refusal(result);
        assert_eq!(kind, RejectionKind::Conflict);
        assert!(text.contains("managed_by_file") && text.contains("a.yaml:1"), "{text}");
    }
    let (kind, text) = refusal(script.create(persona("b", "10.3.0.0/24")));
    assert!(kind == RejectionKind::Conflict && text.contains("/etc/hub/documents/a.yaml:2"), "{text}");
}

#[test]
fn a_name_keeps_its_identity_over_reloads() {
    let mut script = Script::new();
    script.documents(&[persona("a", "10.1.0.0/24"), persona("b", "10.2.0.0/24")]).unwrap();
    let (a, b) = (script.view("a"), script.view("b"));
    let swapped = [persona("b", "10.1.0.0/24"), persona("a", "10.2.0.0/24")];
    script.documents(&swapped).unwrap();
    let after = script.view("a");
    assert_eq!((&after.id, after.segment, after.generation), (&a.id, a.segment, 2), "ranges changed places");
    assert_eq!(script.view("b").id, b.id);
    let revision = script.view("a").generation;
    script.documents(&swapped).unwrap();
    assert_eq!(script.view("a").generation, revision);
    script.documents(&swapped[..1]).unwrap();
    assert_eq!(script.desired().segments.len(), 1);
}

#[test]
fn a_bad_set_changes_nothing_and_says_all() {
    let mut script = Script::new();
    script.create(persona("api", "10.9.0.0/24")).unwrap();
    script.documents(&[persona("a", "10.1.0.0/24")]).unwrap();
    let before = script.desired();
    let (kind, text) = refusal(script.documents(&[
        persona("api", "10.8.0.0/24"),
        persona("b", "10.9.0.0/25"),
        persona("c", "10.7.0.0/24"),
        persona("d", "10.7.0.0/16"),
    ]));
    assert_eq!(kind, RejectionKind::Conflict);
    for wanted in ["/0/name name `api` belongs to", "/1/ip_range 10.9.0.0/25 overlaps", "/3/ip_range"] {
        assert!(text.contains(wanted), "no {wanted} in {text}");
    }
    assert_eq!(script.desired(), before);
    let snapshot = script.hub.snapshot(script.now);
    assert!(snapshot.documents_error.is_some_and(|error| error.contains("10.9.0.0/25")));
    let (_, text) = refusal(script.documents(&[persona("a", "10.1.0.0/24"), persona("a", "10.2.0.0/24")]));
    assert!(text.contains("/1/name name `a` is taken by /etc/hub/documents/a.yaml:1"), "{text}");
    script.documents(&[persona("a", "10.1.0.0/24")]).unwrap();
    assert!(script.hub.snapshot(script.now).documents_error.is_none());
}

#[test]
fn a_file_that_outlives_its_persona_loads() {
    let mut script = Script::new();
    let file = [
        with(persona("a", "10.1.0.0/24"), json!({"expiration": "2030-01-01T01:00:00Z"})),
        with(persona("b", "10.2.0.0/24"), json!({"ttl": "1h"})),
    ];
    script.documents(&file).unwrap();
    let id = script.view("a").id;
    script.pass(3_600);
    script.documents(&file).unwrap();
    script.pass(3 * 86_400);
    script.documents(&file).unwrap();
    assert_eq!((script.view("a").id, script.view("a").state), (id.clone(), PersonaState::Expired));
    assert_eq!(script.view("b").state, PersonaState::Expired);
    assert!(script.desired().segments.is_empty(), "its ranges are free after a day");
    let anew = [with(persona("a", "10.1.0.0/24"), json!({"expiration": "2031-01-01T00:00:00Z"}))];
    script.documents(&anew).unwrap();
    let snapshot = script.hub.snapshot(script.now);
    let live: Vec<_> =
        snapshot.personas.values().filter(|view| view.state != PersonaState::Expired).collect();
    assert_eq!(live.len(), 1);
    assert_ne!(live[0].id, id, "another definition is another persona");
}

#[test]
fn a_file_written_for_the_past_is_seen_as_ended() {
    let mut script = Script::new();
    let file = [with(persona("a", "10.1.0.0/24"), json!({"expiration": "2029-01-01T00:00:00Z"}))];
    script.documents(&file).unwrap();
    script.documents(&file).unwrap();
    let views = script.hub.snapshot(script.now).personas;
    assert_eq!(views.len(), 1);
    assert_eq!(script.view("a").state, PersonaState::Expired);
    assert!(script.desired().segments.is_empty());
}

#[test]
fn a_restart_loses_nothing() {
    let mut script = Script::new();
    script.documents(&[with(persona("f", "10.1.0.0/24"), json!({"ttl": "2h"}))]).unwrap();
    script.create(with(persona("short", "10.2.0.0/24"), json!({"ttl": "10s"}))).unwrap();
    let endpoints = json!({"endpoints": [{"name": "x", "namespace": "x"}, {"name": "y", "namespace": "y"}]});
    script.create(with(persona("api", "10.3.0.0/24"), endpoints)).unwrap();
    script.create(persona("gone", "10.4.0.0/24")).unwrap();
    script.delete("gone").unwrap();
    script.reconciled(&[]);
    let before = script.desired();
    let text = serde_json::to_string(&script.hub.state()).unwrap();
    let state = serde_json::from_str(&text).unwrap();
    script.hub = Hub::restore(Config::default(), IdSource::new(2), state, script.now);
    assert_eq!(script.desired(), before);
    assert_eq!(script.view("api").state, PersonaState::Active);
    script.documents(&[with(persona("f", "10.1.0.0/24"), json!({"ttl": "2h"}))]).unwrap();
    assert_eq!(script.desired(), before, "the ttl of a file does not start anew");
    assert_ne!(script.create(persona("n", "10.5.0.0/24")).unwrap().segment.0, 4, "a number rests on");
    let state = serde_json::from_str(&text).unwrap();
    script.now += 1.minute();
    script.hub = Hub::restore(Config::default(), IdSource::new(3), state, script.now);
    assert_eq!(script.view("short").state, PersonaState::Expired, "it ended while the daemon was dead");
    let mut state = script.hub.state();
    state.personas.iter_mut().for_each(|persona| persona.definition.name = "same".into());
    script.hub = Hub::restore(Config::default(), IdSource::new(4), state, script.now);
    let conditions = script.hub.snapshot(script.now).conditions;
    assert!(conditions.iter().any(|condition| condition.reason == "StateIncomplete"), "{conditions:?}");
}

#[test]
fn one_pass_makes_all_documents_active() {
    let mut script = Script::new();
    let many: Vec<_> = (0..200).map(|at| persona(&format!("p{at}"), &format!("10.{at}.0.0/24"))).collect();
    script.documents(&many).unwrap();
    script.reconciled(&[]);
    let snapshot = script.hub.snapshot(script.now);
    assert!(snapshot.personas.values().all(|view| view.state == PersonaState::Active));
}

#[test]
fn ready_is_the_first_pass_after_the_documents() {
    let mut script = Script::new();
    let is_ready = |script: &mut Script| script.hub.snapshot(script.now).ready;
    script.reconciled(&[]);
    assert!(!is_ready(&mut script), "the documents were not read");
    script.documents(&[persona("a", "10.1.0.0/24")]).unwrap();
    assert!(!is_ready(&mut script), "the kernel does not hold them");
    script.reconciled(&[]);
    assert!(is_ready(&mut script));
    let mut refused = Script::new();
    refused.reconciled(&[]);
    refused.hub.documents_failed("line 1".to_owned());
    assert!(is_ready(&mut refused), "bad documents keep nobody waiting");
}
