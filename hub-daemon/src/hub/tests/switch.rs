//! Switches from phase to phase, when nothing goes wrong; and the script that the other tests of switches use.

use ipnet::IpNet;

use super::switch_documents::{config, of_interface, personality};
use super::*;
use crate::command::switch::{
    FlowCount, InterfaceCommand, Observation, Order, PersonalityCommand, Said, SwitchCommand,
};
use crate::compile::SYNTHETIC_RULE;
use crate::document::read::{interface_from_value, personality_from_value};
use crate::model::check::CheckResult;
use crate::systems::personality::operation::{JournalEntry, Outcome};
use crate::systems::personality::switch::Phase;
use crate::view::switch::{InterfaceState, InterfaceView, OperationView, Question};

/// A hub with interfaces `i0`, `i1`, … in namespaces, and personalities `p0`, `p1`, …; all have `p0`.
pub(super) struct Switching {
    pub(super) script: Script,
}

impl Switching {
    #[expect(clippy::needless_pass_by_value, reason = "scripts read better with `json!` as it stands")]
    pub(super) fn new(interfaces: u8, more: Value) -> Self {
        let mut switching = Self { script: Script::with(config()) };
        for number in 0..4 {
            switching.keep(personality(number, json!({})));
        }
        let links: Vec<String> = (0..interfaces).map(|number| format!("veth{number}")).collect();
        let links: Vec<(&str, bool)> = links.iter().map(|name| (name.as_str(), true)).collect();
        switching.script.links(&links);
        for number in 0..interfaces {
            // Each is in a subnet of its own: an address is on one interface.
            for personality in 0..4 {
                switching.keep(of_interface(number, personality, json!({})));
            }
            let record = json!({"name": format!("i{number}"), "interface": "eth0",
                "namespace": format!("n{number}"), "port": format!("veth{number}"),
                "personality": format!("p{number}-0")});
            let mut record = with(record, more.clone());
            if let Some(default) = record.get_mut("default") {
                *default = json!(format!("p{number}-3"));
            }
            switching.enlist(record);
        }
        switching.pass();
        switching
    }

    pub(super) fn keep(&mut self, document: Value) -> String {
        let document = Box::new(personality_from_value(document).expect("the test's document is valid"));
        let command = Command::Personality(PersonalityCommand::Create { document });
        match self.script.hub.handle(command, self.script.now) {
            Ok(Reply::Personality(view)) => view.version.to_string(),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn enlist(&mut self, document: Value) -> InterfaceView {
        let document = Box::new(interface_from_value(document).expect("the test's document is valid"));
        let command = Command::Interface(InterfaceCommand::Create { document });
        match self.script.hub.handle(command, self.script.now) {
            Ok(Reply::Interface(view)) => *view,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn order(interface: &str, to: &str) -> Order {
        Order {
            interface: interface.into(),
            to: to.into(),
            by: "ana".into(),
            why: "a test".into(),
            drain: None,
            urgent: false,
            confirm_within: None,
            lasts: None,
            ordered_by: None,
        }
    }

    pub(super) fn start(&mut self, orders: Vec<Order>) -> Result<Vec<OperationView>, Rejection> {
        self.ask(SwitchCommand::Start(orders))
    }

    pub(super) fn ask(&mut self, command: SwitchCommand) -> Result<Vec<OperationView>, Rejection> {
        let reply = self.script.hub.handle(Command::Switch(command), self.script.now);
        self.check();
        let reply = reply?;
        let Reply::Switched(views) = reply else { panic!("{reply:?}") };
        Ok(views)
    }

    pub(super) fn said(interface: &str) -> Said {
        Said { interface: interface.into(), by: "ana".into(), why: String::new() }
    }

    /// A pass of reconcile without faults.
    pub(super) fn pass(&mut self) {
        self.script.reconciled(&[]);
        self.check();
    }

    /// A pass that could not do something for the carrier of an interface.
    pub(super) fn pass_with_fault(&mut self, interface: &str) {
        let id = self.view(interface).persona;
        self.script.reconciled(&[(&id, "no buffer space")]);
        self.check();
    }

    pub(super) fn wait(&mut self, seconds: i64) {
        self.script.pass(seconds);
        self.check();
    }

    pub(super) fn view(&mut self, interface: &str) -> InterfaceView {
        let snapshot = self.script.hub.snapshot(self.script.now);
        snapshot.interfaces.get(interface).expect("there is such an interface").as_ref().clone()
    }

    pub(super) fn phase(&self, interface: &str) -> Option<Phase> {
        self.script.hub.interfaces.records[interface].switch.as_ref().map(|switch| switch.phase)
    }

    /// What the hub asks of an interface, in words; `flows` for a count.
    pub(super) fn asks(&mut self, interface: &str) -> Vec<String> {
        let wants = self.view(interface).wants;
        wants
            .iter()
            .flat_map(|wanted| match &wanted.question {
                Question::Checks { asked, .. } => {
                    asked.iter().map(|asked| asked.check.to_string()).collect::<Vec<_>>()
                }
                Question::Flows { .. } => vec!["flows".to_owned()],
            })
            .collect()
    }

    /// Answers the checks that are asked; those that have one of these words in them have failed.
    pub(super) fn answer(&mut self, interface: &str, failed: &[&str]) {
        self.answer_after(interface, 2, failed);
    }

    /// Answers as where the interface's namespace cannot be entered.
    pub(super) fn cannot_ask(&mut self, interface: &str) {
        self.answer_after(interface, 0, &[""]);
    }

    fn answer_after(&mut self, interface: &str, tries: u32, failed: &[&str]) {
        let wanted = self.view(interface).wants;
        let [wanted, ..] = wanted.as_slice() else { panic!("{wanted:?}") };
        let Question::Checks { asked, .. } = &wanted.question else { panic!("{wanted:?}") };
        let result = |words: String| CheckResult {
            passed: !failed.iter().any(|word| words.contains(word)),
            counted: (words == "drops").then_some(12),
            check: words,
            detail: "seen".into(),
            tries,
        };
        let results = asked.iter().map(|asked| result(asked.check.to_string())).collect();
        self.observe(interface, wanted.ticket, Observation::Checks(results));
    }

    pub(super) fn count(&mut self, interface: &str, active: u64) {
        let ticket = self.view(interface).wants[0].ticket;
        self.observe(interface, ticket, Observation::Flows(FlowCount { active, idle: 1, kept: 7 }));
    }

    pub(super) fn observe(&mut self, interface: &str, ticket: u64, observation: Observation) {
        let command = Command::Observed { interface: interface.into(), ticket, observation };
        self.script.hub.handle(command, self.script.now).unwrap();
        self.check();
    }

    /// Brings a switch that was ordered into a phase.
    pub(super) fn until(&mut self, interface: &str, phase: Phase) {
        for _ in 0..16 {
            if self.phase(interface) == Some(phase) {
                return;
            }
            self.step(interface, &[]);
        }
        panic!("it is in {:?}, not in {phase:?}", self.phase(interface));
    }

    /// Does what the phase waits for.
    pub(super) fn step(&mut self, interface: &str, failed: &[&str]) {
        let asks = self.asks(interface);
        match self.phase(interface) {
            None => panic!("no switch"),
            Some(phase) if phase.asks_checks() => self.answer(interface, failed),
            Some(Phase::Drain) if asks == ["flows"] => self.count(interface, 0),
            Some(Phase::AwaitConfirm) => {
                self.ask(SwitchCommand::Confirm(Self::said(interface))).unwrap();
            }
            Some(_) => self.pass(),
        }
    }

    /// Goes on until no switch is under way.
    pub(super) fn finish(&mut self, interface: &str) -> JournalEntry {
        for _ in 0..16 {
            if self.phase(interface).is_none() {
                return self.last();
            }
            self.step(interface, &[]);
        }
        panic!("it is in {:?}", self.phase(interface));
    }

    /// The last line of the journal.
    pub(super) fn last(&self) -> JournalEntry {
        self.script.hub.unwritten().last().expect("a switch is over").as_ref().clone()
    }

    /// Stores the hub, and starts another one from that.
    pub(super) fn restart(&mut self) {
        let text = serde_json::to_string(&self.script.hub.state()).unwrap();
        let inventory = self.script.hub.inventory.clone();
        let state = serde_json::from_str(&text).unwrap();
        self.script.hub = Hub::restore(config(), IdSource::new(7), state, self.script.now);
        self.script.inventory(inventory);
        assert!(self.script.hub.conditions.is_empty(), "{:?}", self.script.hub.conditions);
        self.check();
    }
}

#[test]
fn a_switch_goes_from_phase_to_phase_and_is_a_line_of_the_journal() {
    let mut hub = Switching::new(1, json!({}));
    assert_eq!(hub.view("i0").state, InterfaceState::Active);
    let before = hub.script.desired();
    let began = hub.start(vec![Switching::order("i0", "p0-1")]).unwrap();
    assert_eq!((began[0].phase, began[0].to.to_string().as_str()), (Some(Phase::Prepare), "p0-1@1"));
    let prepared = hub.script.desired();
    let segment = hub.view("i0").segment;
    assert_eq!(prepared.segments[&segment].policy, before.segments[&segment].policy, "packets see nothing");
    let added = &prepared.interfaces["i0"].addresses[&"10.20.1.11/24".parse::<IpNet>().unwrap()];
    assert!(added.deprecated);
    assert_eq!(prepared.resolvers, before.resolvers);
    hub.pass();
    assert_eq!(hub.phase("i0"), Some(Phase::Preflight));
    let asks = hub.asks("i0");
    assert!(asks.contains(&"dns . at 10.20.0.100".to_owned()), "{asks:?}");
    assert_eq!(asks[asks.len() - 2..], ["handshake of wg01 within 180 s", "drops"], "of what is to come");
    hub.script.now += 1.second();
    hub.answer("i0", &[]);
    assert_eq!(hub.view("i0").state, InterfaceState::Draining);
    let transition = hub.script.desired().segments[&segment].transition.unwrap();
    assert!(transition.gate && transition.reject && !transition.refuse_all);
    assert!(hub.asks("i0").is_empty(), "flows that begin before the gate is closed would not be counted");
    hub.pass();
    assert_eq!(hub.asks("i0"), ["flows"]);
    hub.count("i0", 2);
    hub.script.now += 2.seconds();
    hub.count("i0", 0);
    assert_eq!(hub.phase("i0"), Some(Phase::Flip));
    let flipped = hub.script.desired();
    let (was, is) = (&prepared.segments[&segment], &flipped.segments[&segment]);
    assert!(Arc::ptr_eq(&was.candidate.as_ref().unwrap().policy, &is.policy), "as it was compiled");
    assert!(Arc::ptr_eq(&was.policy, &is.candidate.as_ref().unwrap().policy));
    assert!(is.lease.is_some() && is.transition.is_none());
    hub.pass();
    assert_eq!(hub.view("i0").state, InterfaceState::Verifying);
    hub.answer("i0", &[]);
    let view = hub.view("i0");
    assert_eq!((view.state, view.current.to_string().as_str()), (InterfaceState::Active, "p0-1@1"));
    assert_eq!(view.previous.unwrap().to_string(), "p0-0@1");
    let entry = hub.last();
    let phases: Vec<Phase> = entry.phases.iter().map(|done| done.phase).collect();
    assert_eq!(phases, [Phase::Prepare, Phase::Preflight, Phase::Drain, Phase::Flip, Phase::Verify]);
    assert_eq!((entry.outcome, entry.blocked_us), (Outcome::Committed, 2_000_000));
    let flows = entry.flows.unwrap();
    assert_eq!((flows.active, flows.kept, entry.by.as_str()), (0, 7, "ana"));
    assert!(entry.differences.contains(&"/dns_servers/0".to_owned()), "{:?}", entry.differences);
    assert!(hub.script.desired().segments[&segment].lease.is_none());
    hub.wait(59);
    assert!(hub.script.desired().segments[&segment].candidate.is_some(), "the way back is open for a minute");
    assert_eq!(hub.view("i0").last_known_good, None);
    hub.wait(1);
    assert!(hub.script.desired().segments[&segment].candidate.is_none());
    assert_eq!(hub.view("i0").last_known_good.unwrap().to_string(), "p0-1@1");
    let notices: Vec<String> = hub.script.hub.take_notices().into_iter().map(|(_, said)| said).collect();
    assert!(notices.iter().any(|said| said.ends_with("p0-1@1: drain")), "{notices:?}");
}

#[test]
fn versions_are_by_content_and_stay_while_somebody_has_them() {
    let mut hub = Switching::new(1, json!({}));
    assert_eq!(hub.keep(of_interface(0, 0, json!({}))), "p0-0@1", "the same content");
    assert_eq!(hub.keep(of_interface(0, 0, json!({"mtu": 1400}))), "p0-0@2");
    assert_eq!(hub.keep(of_interface(0, 0, json!({"kind": "personality"}))), "p0-0@1");
    let delete = |hub: &mut Switching, personality: &str| {
        let command = PersonalityCommand::Delete { personality: personality.into() };
        hub.script.hub.handle(Command::Personality(command), hub.script.now)
    };
    let (kind, text) = refusal(delete(&mut hub, "p0-0"));
    assert!(kind == RejectionKind::Conflict && text.contains("p0-0@1 is used by interface `i0`"), "{text}");
    delete(&mut hub, "p0-0@2").unwrap();
    assert_eq!(refusal(delete(&mut hub, "p0-0@2")).0, RejectionKind::NotFound);
    let outside = json!({"ip_addresses": ["10.99.0.1/24"]});
    let document = Box::new(personality_from_value(of_interface(0, 3, outside)).unwrap());
    let command = Command::Personality(PersonalityCommand::Create { document });
    let (_, text) = refusal(hub.script.hub.handle(command, hub.script.now));
    assert!(text.starts_with("/ip_addresses/0 address 10.99.0.1 is not in subnet `lan0`"), "{text}");
}

#[test]
fn two_switches_at_once_on_one_interface_are_a_conflict() {
    let mut hub = Switching::new(2, json!({}));
    hub.start(vec![Switching::order("i0", "p0-1")]).unwrap();
    let (kind, text) = refusal(hub.start(vec![Switching::order("i0", "p0-2")]));
    assert!(kind == RejectionKind::Conflict && text.contains("to p0-1@1 is under way (prepare)"), "{text}");
    hub.start(vec![Switching::order("i1", "p1-2")]).unwrap();
    assert_eq!(refusal(hub.start(vec![Switching::order("i1", "p1-2@9")])).0, RejectionKind::Conflict);
    hub.finish("i0");
    hub.finish("i1");
    assert_eq!(refusal(hub.start(vec![Switching::order("i1", "p1-2@9")])).0, RejectionKind::Invalid);
    let (_, text) = refusal(hub.start(vec![Switching::order("i1", "p1-2")]));
    assert!(text.contains("has p1-2@1 already"), "{text}");
}

#[test]
fn a_carrier_is_changed_by_its_interface_alone() {
    let mut hub = Switching::new(1, json!({}));
    let (kind, text) = refusal(hub.script.replace("i0", persona("i0", "10.30.0.0/24")));
    assert!(kind == RejectionKind::Conflict && text.contains("managed_by_interface"), "{text}");
    assert_eq!(refusal(hub.script.delete("i0")).0, RejectionKind::Conflict);
    let text = serde_json::to_string(&hub.script.view("i0").definition).unwrap();
    assert!(text.contains("10.20.1.10/32") && !text.contains("carried"), "{text}");
    let gateway: IpNet = "10.20.1.1/32".parse().unwrap();
    assert!(hub.script.desired().addresses.contains_key(&("veth0".to_owned(), gateway)));
    let command = InterfaceCommand::Delete { interface: "i0".into() };
    hub.script.hub.handle(Command::Interface(command), hub.script.now).unwrap();
    let desired = hub.script.desired();
    assert!(desired.segments.is_empty() && desired.interfaces.is_empty() && desired.tunnels.is_empty());
}

#[test]
fn a_plan_changes_nothing() {
    let mut hub = Switching::new(1, json!({}));
    let (revision, before) = (hub.script.hub.state(), hub.script.desired());
    let plan = Command::Switch(SwitchCommand::Plan(Switching::order("i0", "p0-3")));
    let Ok(Reply::Plan(plan)) = hub.script.hub.handle(plan, hub.script.now) else { panic!() };
    assert_eq!(plan.addresses_added, ["10.20.1.13/24".parse::<IpNet>().unwrap()]);
    assert_eq!(plan.addresses_removed, ["10.20.1.10/24".parse::<IpNet>().unwrap()]);
    let own = plan.judged.policy.ingress.iter().find(|rule| rule.index != SYNTHETIC_RULE).unwrap();
    assert_eq!(own.target_port, [8003, 8003]);
    assert!(plan.checks.contains(&"handshake of wg03 within 180 s".to_owned()), "{:?}", plan.checks);
    assert!(hub.script.hub.state() == revision && hub.script.desired() == before);
}
