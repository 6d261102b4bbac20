//! A fault in the middle of a switch of personalities: the interface has the one or the other whole, before the hub
//! is started anew and after.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use hub_tests::effort::{Effort, Part, figure, is_long};
use hub_tests::lab::Outcome::Answered;
use hub_tests::lab::resource::{BOTH, Resource, SWITCH, Which, resource_at};
use hub_tests::lab::world::FAMILIES;
use hub_tests::lab::{Stopwatch, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

use crate::calls::{KINDS, OF_STATE, Places, places};
use crate::strike::{Fault, attach, has_struck, listing, words};
use crate::{Turns, labs};

/// Faults of everyday runs: a call, what befalls it, and how many places of those that a switch has, which lie
/// evenly.
const FEW: [(&str, &str, usize); 7] = [
    ("bpf", "signal=KILL", 2),
    ("sendto", "signal=KILL", 1),
    ("fsync", "signal=KILL", 1),
    ("bpf", "error=E2BIG", 1),
    ("sendto", "error=EPERM", 1),
    ("recvfrom", "error=ENOMEM", 3),
    ("clone3", "error=EAGAIN", 1),
];
const TELL: u64 = 50;

/// A resource that is switched to and fro.
struct Switched {
    resource: Resource,
    /// What it has.
    now: Which,
    /// Switches so far.
    turn: u64,
}

/// What a fault did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// It met no call.
    Missed,
    /// The hub died of it.
    Died,
    /// It went on.
    Survived,
}

impl Switched {
    fn new() -> Self {
        Self { resource: Resource::new(), now: Which::Open, turn: 0 }
    }

    /// Which calls a switch makes, by the numbers that are worth a fault.
    fn count(&mut self, states: &[bool]) -> Places {
        let trace = self.resource.world.lab.folder().join("trace");
        let mut found = Places::default();
        for state in states {
            let words = listing(&self.resource.world, &trace, *state);
            assert_eq!(self.run(&words, "no fault"), (false, Some("committed".to_owned())));
            found.extend(places(&fs::read_to_string(&trace).unwrap()));
        }
        found
    }

    /// Takes one fault after the other, until there is none left or the time is over, and leaves nothing behind.
    fn work(&mut self, turns: &Turns, faults: &[Fault]) -> BTreeMap<End, u64> {
        let _lab = turns.lab();
        let effort = Effort::new(u64::MAX, u64::MAX);
        let mut ends: BTreeMap<End, u64> = BTreeMap::new();
        while let Some(fault) = turns.take(faults).filter(|_| effort.goes_on(0)) {
            *ends.entry(self.strike(fault)).or_default() += 1;
            let tried: u64 = ends.values().sum();
            if tried.is_multiple_of(TELL) {
                figure(
                    "S26",
                    &format!("{tried} faults so far in this lab, {ends:?}, the last was {fault:?}"),
                );
            }
        }
        let left = self.resource.world.hub.hubctl(&["--json", "gc", "--dry-run"]).expect_success();
        assert_eq!(serde_json::from_str::<Value>(&left).unwrap(), json!({"found": []}));
        ends
    }

    fn strike(&mut self, fault: &Fault) -> End {
        let trace = self.resource.world.lab.folder().join("trace");
        fs::write(&trace, "").unwrap();
        let words = words(&self.resource.world, fault, &trace);
        let (died, _) = self.run(&words, &format!("{fault:?}"));
        match (died, has_struck(&trace)) {
            (true, _) => End::Died,
            (false, true) => End::Survived,
            (false, false) => End::Missed,
        }
    }

    /// Switches under `strace`; whether the hub died of it, and how the switch ended.
    fn run(&mut self, words: &[String], name: &str) -> (bool, Option<String>) {
        let to = self.now.other();
        let mut strace = attach(words, self.resource.world.hub.process().id());
        let order = json!({"personality": to.name(), "urgent": self.turn.is_multiple_of(2), "why": name});
        self.turn += 1;
        let answer = self.ask("POST", "/v1/interfaces/web/switch", &order);
        let mut id = answer.as_ref().and_then(|answer| answer["id"].as_str().map(str::to_owned));
        wait_until(&format!("{name}: the switch is over, or the hub"), SWITCH * 3, || {
            if !self.resource.world.hub.process().is_running() {
                return true;
            }
            let Some(view) = self.ask("GET", "/v1/interfaces/web", &Value::Null) else { return false };
            id = id.take().or_else(|| view["operation"]["id"].as_str().map(str::to_owned));
            view["operation"].is_null()
        });
        strace.stop();
        let died = !self.resource.world.hub.process().is_running();
        self.passes(name);
        if died {
            self.resource.world.hub.restart();
            self.passes(name);
        }
        wait_until(&format!("{name}: no switch is under way"), SWITCH * 3, || self.resource.is_settled());
        let mut parts = self.resource.parts();
        wait_until(&format!("{name}: one personality is there whole"), SWITCH, || {
            parts = self.resource.parts();
            parts.whole().is_some()
        });
        self.passes(name);
        let has = parts.whole().unwrap();
        let path = id.map(|id| format!("/v1/operations/{id}"));
        let ended = path.map(|path| self.resource.world.hub.get(&path).body["outcome"].clone());
        let ended = ended.and_then(|outcome| outcome.as_str().map(str::to_owned));
        let expected = match ended.as_deref() {
            Some("committed") => to,
            Some("fell_back") => Which::Open,
            Some("aborted" | "rolled_back") | None => self.now,
            Some(other) => panic!("{name}: the switch ended as {other}: {parts}"),
        };
        // An order that was not answered may have been done.
        assert!(has == expected || ended.is_none() && has == to, "{name}: {ended:?}, {parts}");
        self.now = has;
        (died, ended)
    }

    /// Asks the hub, which may die of it.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Option<Value> {
        let answer = self.resource.world.hub.try_send(method, path, body, Duration::from_secs(5));
        answer.map(|answer| answer.body).filter(|body| !body.is_null())
    }

    /// What both personalities allow passes, whatever the hub does.
    #[track_caller]
    fn passes(&self, name: &str) {
        for v4 in FAMILIES {
            let outcome = self.resource.world.outside.tcp(resource_at(v4), BOTH, Duration::from_secs(10));
            assert_eq!(outcome, Answered, "{name}, IPv4 {v4}");
        }
    }
}

/// Some places of each call in everyday runs.
fn few(places: &Places) -> Vec<Fault> {
    let each = FEW.iter().flat_map(|(call, fault, count)| {
        let numbers = places.of(call, fault);
        let at = move |turn: usize| numbers.get(numbers.len() * (2 * turn + 1) / (2 * count)).copied();
        (0..*count)
            .filter_map(at)
            .map(|at| Fault { call, befalls: fault, at, of_state: false })
            .collect::<Vec<_>>()
    });
    each.collect()
}

/// Every place of each call, by each fault that can befall it. A run that ends early has had some of everything.
fn all(places: &Places) -> Vec<Fault> {
    let faults = in_order(places);
    let both =
        |step: usize, number: usize| step.is_multiple_of(number) && faults.len().is_multiple_of(number);
    let divides = |step: usize| (2..=step).any(|number| both(step, number));
    let mut step = faults.len() * 5 / 8;
    while divides(step) {
        step += 1;
    }
    (0..faults.len()).map(|turn| faults[turn * step % faults.len()]).collect()
}

/// The same in order: all first ones, then all second ones.
fn in_order(places: &Places) -> Vec<Fault> {
    let rounds = KINDS.iter().map(|(_, faults)| faults.len()).max().unwrap();
    let round = |round: usize| {
        KINDS.iter().filter_map(move |(call, faults)| Some((*call, *faults.get(round)?))).flat_map(
            |(call, fault)| {
                let of_state = OF_STATE.contains(&call);
                let numbers = places.of(call, fault).into_iter();
                numbers.map(move |at| Fault { call, befalls: fault, at, of_state })
            },
        )
    };
    (0..rounds).flat_map(round).collect()
}

#[test]
fn a_fault_in_a_switch_leaves_one_personality_whole() {
    if !root() {
        return;
    }
    let watch = Stopwatch::start();
    let mut switched = Switched::new();
    // Both kinds of switches in long runs.
    let places = switched.count(if is_long() { &[false, true, true, false] } else { &[false] });
    let counts = places.all.iter().map(|(call, places)| format!("{call} {}", places.len()));
    figure("S26", &format!("places in a switch: {}", counts.collect::<Vec<_>>().join(", ")));
    let faults = if is_long() { all(&places) } else { few(&places) };
    let (planned, part) = (faults.len(), Part::asked());
    let faults: Vec<Fault> = faults.into_iter().filter(|fault| part.has(&format!("{fault:?}"))).collect();
    assert!(!faults.is_empty(), "no fault is meant by these words");
    let turns = Turns::default();
    let ends = std::thread::scope(|scope| {
        let (turns, faults) = (&turns, faults.as_slice());
        let others: Vec<_> =
            (1..labs()).map(|_| scope.spawn(|| Switched::new().work(turns, faults))).collect();
        let own = switched.work(turns, faults);
        others.into_iter().fold(own, |mut ends, other| {
            other.join().unwrap().into_iter().for_each(|(end, count)| *ends.entry(end).or_default() += count);
            ends
        })
    });
    let tried: u64 = ends.values().sum();
    let seconds = watch.elapsed().as_secs_f64();
    let amount = faults.len();
    figure(
        "S26",
        &format!("{tried} faults of {amount} ({part}, {planned} in all): {ends:?}, 0 mixed, {seconds:.0} s"),
    );
    for end in [End::Died, End::Survived] {
        assert!(ends.contains_key(&end), "{ends:?}");
    }
}
