//! Random orders, answers, faults, waits and restarts: what is told to the kernel is never of two personalities.

use super::switch::*;
use super::*;
use crate::command::switch::{FlowCount, Observation, Order, SwitchCommand};
use crate::systems::personality::operation::Outcome;
use crate::view::switch::Question;

/// splitmix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}

fn order(dice: &mut Dice, interface: u64) -> Order {
    let span =
        |dice: &mut Dice| (dice.roll(4) == 0).then(|| std::time::Duration::from_secs(1 + dice.roll(90)));
    Order {
        urgent: dice.roll(3) == 0,
        confirm_within: span(dice),
        lasts: span(dice),
        ..Switching::order(&format!("i{interface}"), &format!("p{interface}-{}", dice.roll(4)))
    }
}

/// One step. Returns whether it was a restart.
fn step(hub: &mut Switching, dice: &mut Dice) -> bool {
    let interface = dice.roll(2);
    let name = format!("i{interface}");
    match dice.roll(16) {
        0 | 1 => drop(hub.start(vec![order(dice, interface)])),
        2 => drop(hub.start(vec![order(dice, 0), order(dice, 1)])),
        3 => drop(hub.ask(SwitchCommand::Confirm(Switching::said(&name)))),
        4 if dice.roll(3) == 0 => drop(hub.ask(SwitchCommand::Cancel(Switching::said(&name)))),
        4 => drop(hub.ask(SwitchCommand::Revert(Switching::said(&name)))),
        5 if dice.roll(2) == 0 => hub.pass_with_fault(&name),
        6 if dice.roll(4) == 0 => {
            let level = ["low", "high"][usize::from(dice.roll(2) == 0)].to_owned();
            let threat = SwitchCommand::Threat { interface: name, level, by: "ids".to_owned() };
            hub.script.hub.handle(Command::Switch(threat), hub.script.now).unwrap();
            hub.check();
        }
        6 => hub.wait(1 + i64::try_from(dice.roll(40)).unwrap()),
        7 if dice.roll(4) == 0 => {
            hub.restart();
            return true;
        }
        8..=11 => hub.pass(),
        _ => {
            let wants = hub.view(&name).wants;
            let Some(wanted) = wants.first() else { return false };
            match wanted.question {
                Question::Checks { .. } if dice.roll(5) == 0 => hub.answer(&name, &["dns", "applied"]),
                Question::Checks { .. } => hub.answer(&name, &[]),
                Question::Flows { .. } => {
                    let flows = FlowCount { active: dice.roll(3), idle: 0, kept: 1 };
                    hub.observe(&name, wanted.ticket, Observation::Flows(flows));
                }
            }
        }
    }
    false
}

#[test]
fn a_hundred_random_scripts_never_mix_two_personalities() {
    let mut outcomes: BTreeMap<Outcome, usize> = BTreeMap::new();
    for seed in 0..100 {
        let mut dice = Dice(seed);
        let mut hub = Switching::new(2, json!({"default": "p0-3"}));
        hub.watch(2);
        let mut stored = hub.script.hub.state();
        let mut resting = hub.script.hub.resting();
        hub.script.hub.saved();
        for _ in 0..60 {
            let before = hub.script.hub.mark();
            let (state, desired) = (hub.script.hub.state(), hub.script.desired());
            let at = hub.script.now;
            if !step(&mut hub, &mut dice) {
                let mut twin = hub.script.hub.clone();
                twin.undo(before);
                assert_eq!(twin.state().interfaces, state.interfaces, "taken back");
                assert_eq!(twin.desired(at).interfaces, desired.interfaces, "taken back");
            }
            stored.change([hub.script.hub.changes(&resting)]);
            resting = hub.script.hub.resting();
            assert_eq!(stored, hub.script.hub.state(), "stored change by change, seed {seed}");
            hub.script.hub.saved();
        }
        for entry in hub.script.hub.interfaces.operations.values() {
            *outcomes.entry(entry.outcome).or_default() += 1;
        }
    }
    for outcome in
        [Outcome::Committed, Outcome::Aborted, Outcome::RolledBack, Outcome::FellBack, Outcome::Degraded]
    {
        assert!(outcomes.get(&outcome).is_some_and(|count| *count >= 5), "{outcomes:?}");
    }
}
