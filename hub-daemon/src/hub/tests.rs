//! Scripts in virtual time: what the hub wants and says after a sequence of commands.

mod changes;
mod experiments;
mod files;
mod kernel;
mod keys;
mod limits;
mod lives;
mod overlap;
mod qos;
mod random;
mod ranges;
mod services;
mod several;
mod switch;
mod switch_addresses;
mod switch_applications;
mod switch_automatic;
mod switch_documents;
mod switch_failures;
mod switch_groups;
mod switch_limits;
mod switch_ports;
mod switch_queues;
mod switch_random;
mod switch_restart;
mod switch_session;
mod switch_temporary;
mod switch_threats;
mod switch_whole;
mod takeover;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use jiff::ToSpan as _;
use serde_json::{Value, json};

use super::*;
use crate::command::{FileDocument, Link};
use crate::desired::{Desired, SegmentState};
use crate::document::read::persona_from_value;
use crate::view::{PersonaState, PersonaView};

/// A hub with a clock that only the script moves.
struct Script {
    hub: Hub,
    now: Timestamp,
}

impl Script {
    fn new() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        let now = "2030-01-01T00:00:00Z".parse().unwrap();
        Self { hub: Hub::new(config, IdSource::new(1)), now }
    }

    fn pass(&mut self, seconds: i64) {
        self.now += seconds.seconds();
        self.hub.handle(Command::Tick, self.now).unwrap();
    }

    fn create(&mut self, document: Value) -> Result<PersonaView, Rejection> {
        let document = Box::new(persona_from_value(document).expect("the test's document is valid"));
        let reply = self.hub.handle(Command::Create { document }, self.now)?;
        let Reply::Created(view) = reply else { panic!("{reply:?}") };
        Ok(*view)
    }

    fn replace(&mut self, persona: &str, document: Value) -> Result<PersonaView, Rejection> {
        let document = Box::new(persona_from_value(document).expect("the test's document is valid"));
        let command = Command::Replace { persona: persona.into(), document, if_generation: None };
        let reply = self.hub.handle(command, self.now)?;
        let Reply::Updated(view) = reply else { panic!("{reply:?}") };
        Ok(*view)
    }

    fn delete(&mut self, persona: &str) -> Result<Reply, Rejection> {
        let command = Command::Delete { persona: persona.into(), if_generation: None, drain: None };
        self.hub.handle(command, self.now)
    }

    fn documents(&mut self, documents: &[Value]) -> Result<Reply, Rejection> {
        let read = |(line, document): (u32, &Value)| FileDocument {
            path: PathBuf::from("/etc/hub/documents/a.yaml"),
            line,
            rule_lines: Vec::new(),
            document: persona_from_value(document.clone()).expect("the test's document is valid"),
        };
        let documents: Vec<FileDocument> = (1..).zip(documents).map(read).collect();
        self.hub.handle(Command::Documents(documents.into()), self.now)
    }

    /// A pass of reconcile that finds these faults.
    fn reconciled(&mut self, faults: &[(&PersonaId, &str)]) {
        let revision = self.hub.revision();
        let faults = faults.iter().map(|(id, text)| ((*id).clone(), vec![(*text).to_owned()])).collect();
        self.hub.handle(Command::Faults { revision, faults, postponed: BTreeSet::new() }, self.now).unwrap();
    }

    fn links(&mut self, links: &[(&str, bool)]) {
        let link = |(index, (name, up)): (u32, &(&str, bool))| {
            ((*name).to_owned(), Link { ifindex: index, up: *up, mtu: 1_500, ..Link::default() })
        };
        let links = (1..).zip(links).map(link).collect();
        self.inventory(Inventory { links, ..Inventory::default() });
    }

    fn inventory(&mut self, inventory: Inventory) {
        self.hub.handle(Command::Inventory(inventory), self.now).unwrap();
    }

    fn desired(&self) -> Desired {
        self.hub.desired(self.now)
    }

    fn view(&mut self, persona: &str) -> PersonaView {
        let snapshot = self.hub.snapshot(self.now);
        let found = snapshot.personas.values().find(|view| view.definition.name == persona);
        found.expect("there is such a persona").as_ref().clone()
    }

    fn reasons(&mut self, persona: &str) -> Vec<String> {
        self.view(persona).conditions.into_iter().map(|condition| condition.reason).collect()
    }
}

fn persona(name: &str, range: &str) -> Value {
    json!({"name": name, "ip_range": range})
}

#[expect(clippy::needless_pass_by_value, reason = "scripts read better with `json!` as it stands")]
fn with(mut document: Value, fields: Value) -> Value {
    document.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    document
}

fn refusal(result: Result<impl std::fmt::Debug, Rejection>) -> (RejectionKind, String) {
    let rejection = result.unwrap_err();
    let problems = rejection.problems.iter().map(|problem| format!("{} {}", problem.pointer, problem.detail));
    (rejection.kind, problems.collect::<Vec<_>>().join("; "))
}

#[test]
fn the_sources_example_is_refused_for_its_date_alone() {
    let mut script = Script::new();
    let example = json!({
        "name": "TempDevNetwork", "ip_range": "10.100.0.0/24", "protocols": ["tcp", "udp"],
        "qos": {"bandwidth": "100Mbps", "latency": "50ms"},
        "security_policies": [
            {"protocol": "tcp", "port": 80, "action": "allow"},
            {"protocol": "tcp", "port": 22, "action": "deny"}
        ],
        "expiration": "2024-12-31T23:59:59Z"
    });
    let rejection = script.create(example.clone()).unwrap_err();
    assert_eq!((rejection.kind, rejection.problems.len()), (RejectionKind::Invalid, 1));
    let (_, text) = refusal(Err::<(), _>(rejection));
    assert!(text.starts_with("/expiration expiration_in_past"), "{text}");
    let view = script.create(with(example, json!({"expiration": "2030-12-31T23:59:59Z"}))).unwrap();
    assert_eq!((view.state, view.generation, view.segment.0), (PersonaState::Pending, 1, 1));
    assert_eq!(view.warnings, ["rule 1 is shadowed by the default: without it the outcome is the same"]);
    assert_eq!(view.rule_sources, ["api", "api"]);
    assert_eq!(script.reasons("TempDevNetwork"), ["RulesDoubtful", "NoPort"]);
}

#[test]
fn a_persona_ends_at_its_deadline_and_never_comes_back() {
    let mut script = Script::new();
    let view = script.create(with(persona("a", "10.1.0.0/24"), json!({"ttl": "1h"}))).unwrap();
    script.reconciled(&[]);
    assert_eq!(script.view("a").state, PersonaState::Active);
    let warning = view.expires_at.unwrap().checked_sub(6.minutes()).unwrap();
    assert_eq!(script.hub.deadline(), Some(warning));
    script.now += 1.hour();
    let at_once = script.desired();
    assert!(at_once.routes.is_empty() && at_once.addresses.is_empty(), "before the hub was told");
    script.pass(0);
    let desired = script.desired();
    assert_eq!(desired.segments[&view.segment].state, SegmentState::Block);
    assert_eq!(desired.segments[&view.segment].expires, view.expires_at);
    assert_eq!(desired.prefixes.len(), 1, "packets to its range still have an answer");
    assert!(desired.routes.is_empty() && desired.rules.is_empty());
    assert_eq!(script.view("a").state, PersonaState::Expired);
    let (kind, text) = refusal(script.replace("a", persona("a", "10.1.0.0/24")));
    assert!(kind == RejectionKind::Conflict && text.contains("never comes back"), "{text}");
    script.now = script.now.checked_sub(30.minutes()).unwrap();
    script.pass(0);
    assert_eq!(script.view("a").state, PersonaState::Expired, "a clock set back revives nobody");
    let again = script.create(persona("a", "10.1.0.0/24")).unwrap();
    assert_ne!(again.id, view.id);
    assert_ne!(again.segment, view.segment);
    assert_eq!(script.desired().prefixes.values().collect::<Vec<_>>(), [&again.segment]);
}

#[test]
fn tombstones_go_after_a_day_and_their_numbers_rest() {
    let mut script = Script::new();
    script.create(with(persona("a", "10.1.0.0/24"), json!({"ttl": "10s"}))).unwrap();
    script.pass(10);
    script.pass(TOMBSTONE.as_secs() - 1);
    assert_eq!(script.hub.snapshot(script.now).personas.len(), 1);
    script.pass(1);
    assert!(script.hub.snapshot(script.now).personas.is_empty() && script.desired().segments.is_empty());
    assert_eq!(script.create(persona("b", "10.2.0.0/24")).unwrap().segment.0, 2, "1 rests");
    script.pass(QUARANTINE.as_secs());
    assert_eq!(script.create(persona("c", "10.3.0.0/24")).unwrap().segment.0, 1, "1 has rested");
}

#[test]
fn a_deleted_segment_rests() {
    let mut script = Script::new();
    let first = script.create(persona("a", "10.1.0.0/24")).unwrap();
    script.delete("a").unwrap();
    assert_eq!(script.desired().segments.len(), 0);
    let second = script.create(persona("a", "10.1.0.0/24")).unwrap();
    assert_ne!(second.segment, first.segment);
    assert_ne!(second.id, first.id);
    script.delete(&second.id.0).unwrap();
    script.pass(59);
    assert_eq!(script.create(persona("a", "10.1.0.0/24")).unwrap().segment.0, 3);
    script.pass(1);
    assert_eq!(script.create(persona("b", "10.2.0.0/24")).unwrap().segment.0, 1);
    let (kind, _) = refusal(script.delete("nobody"));
    assert_eq!(kind, RejectionKind::NotFound);
}

#[test]
fn overlaps_name_the_other() {
    let mut config = Config::default();
    config.pools.insert("lab".into(), vec!["10.9.0.0/16".parse().unwrap()].into());
    let mut script = Script::with(config);
    script.inventory(Inventory {
        foreign_routes: vec!["192.168.0.0/16".parse().unwrap()],
        ..Inventory::default()
    });
    script.create(persona("a", "10.1.0.0/16")).unwrap();
    for (range, wanted) in [
        ("10.1.2.0/24", "/ip_range 10.1.2.0/24 overlaps 10.1.0.0/16 of persona `a` (the API)"),
        ("10.0.0.0/8", "of persona `a`"),
        ("10.9.1.0/24", "of pool `lab`"),
        ("192.168.7.0/24", "which the kernel routes already"),
    ] {
        let (kind, text) = refusal(script.create(persona("b", range)));
        assert!(kind == RejectionKind::Conflict && text.contains(wanted), "{range}: {text}");
    }
    let (_, text) = refusal(script.create(with(persona("a", "10.2.0.0/24"), json!({}))));
    assert!(text.contains("name `a` belongs to persona `a`"), "{text}");
    assert!(script.create(persona("b", "10.2.0.0/24")).is_ok(), "a refusal changed nothing");
}

#[test]
fn changes_keep_identity_and_count() {
    let mut script = Script::new();
    let before = script.create(with(persona("a", "10.1.0.0/24"), json!({"ttl": "1h"}))).unwrap();
    script.reconciled(&[]);
    script.pass(60);
    let body = with(persona("a", "10.1.0.0/24"), json!({"ttl": "1h", "protocols": ["tcp"]}));
    let after = script.replace("a", body.clone()).unwrap();
    assert_eq!((&after.id, after.segment, after.generation), (&before.id, before.segment, 2));
    assert_eq!(after.expires_at, before.expires_at, "the same ttl does not extend a life");
    assert_eq!(after.state, PersonaState::Active, "a change is no new provisioning");
    assert_eq!(script.replace("a", body.clone()).unwrap().generation, 2, "the same again is no change");
    let longer = script.replace("a", with(body.clone(), json!({"ttl": "2h"}))).unwrap();
    assert_eq!(longer.expires_at.unwrap(), script.now + 2.hours());
    let stale = Command::Replace {
        persona: "a".into(),
        document: Box::new(persona_from_value(body).unwrap()),
        if_generation: Some(2),
    };
    let (kind, _) = refusal(script.hub.handle(stale, script.now));
    assert_eq!(kind, RejectionKind::Changed);
}

#[test]
fn peers_talk_when_each_names_the_other() {
    let mut script = Script::new();
    script.create(with(persona("a", "10.1.0.0/24"), json!({"peers": ["b", "c"]}))).unwrap();
    script.create(persona("b", "10.2.0.0/24")).unwrap();
    assert!(script.desired().peers.is_empty());
    assert_eq!(script.reasons("a"), ["NoPort", "PeerNotMutual", "PeerMissing"]);
    script.replace("b", with(persona("b", "10.2.0.0/24"), json!({"peers": ["a"]}))).unwrap();
    let pairs: Vec<_> = script.desired().peers.into_iter().map(|(low, high)| (low.0, high.0)).collect();
    assert_eq!(pairs, [(1, 2)]);
    assert_eq!(script.reasons("b"), ["NoPort"]);
    script.delete("a").unwrap();
    assert!(script.desired().peers.is_empty());
    assert_eq!(script.reasons("b"), ["NoPort", "PeerMissing"]);
}

#[test]
fn a_full_hub_says_so() {
    let mut config = Config::default();
    config.limits.personas = 2;
    config.limits.rules = 3;
    let mut script = Script::with(config);
    script.create(persona("a", "10.1.0.0/24")).unwrap();
    let rules = json!({"security_policies": [{"protocol": "tcp", "port": [1, 3, 5, 7], "action": "deny"}]});
    let (kind, text) = refusal(script.create(with(persona("b", "10.2.0.0/24"), rules)));
    assert!(kind == RejectionKind::Full && text.contains("4 compiled rules, limit 3"), "{text}");
    script.create(persona("b", "10.2.0.0/24")).unwrap();
    let (kind, text) = refusal(script.create(persona("c", "10.3.0.0/24")));
    assert!(kind == RejectionKind::Full && text.contains("3 personas, limit 2"), "{text}");
}

#[test]
fn short_lives_do_not_use_up_the_segments() {
    let mut script = Script::new();
    script.hub.segments = Segments::new(64);
    for n in 0..640 {
        let range = format!("10.{}.{}.0/24", n / 256, n % 256);
        let document = with(persona(&format!("p{n}"), &range), json!({"ttl": "1s"}));
        script.create(document).unwrap_or_else(|error| panic!("{n}: {error:?}"));
        script.pass(10);
    }
    let holding = script.desired().segments.len();
    assert!((32..64).contains(&holding), "{holding} tombstones still answer");
}
