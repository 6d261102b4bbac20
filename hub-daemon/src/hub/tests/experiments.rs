//! Experiments: two sides, what is counted on each, and how they end.

use std::collections::BTreeMap;

use super::switch::*;
use super::*;
use crate::command::experiment::{Begin, ExperimentCommand, How};
use crate::command::switch::{Order, SwitchCommand};
use crate::model::experiment::is_chosen;
use crate::systems::experiment::totals::Reading;
use crate::systems::experiment::{Arm, Experiment, Stage};

const NAMES: [&str; 4] = ["i0", "i1", "i2", "i3"];
/// A salt by which half of the interfaces are chosen.
const SALT: &str = "half";

fn begin(percent: u8) -> Begin {
    let orders = NAMES.iter().enumerate().map(|(number, name)| Order {
        why: "experiment e".into(),
        ..Switching::order(name, &format!("p{number}-1"))
    });
    Begin {
        name: "e".into(),
        salt: SALT.into(),
        percent,
        by: "ana".into(),
        why: "a test".into(),
        orders: orders.collect(),
        dry_run: false,
    }
}

fn ask(hub: &mut Switching, command: ExperimentCommand) -> Result<Arc<Experiment>, Rejection> {
    let reply = hub.script.hub.handle(Command::Experiment(command), hub.script.now);
    hub.check();
    let reply = reply?;
    let Reply::Experiment(experiment) = reply else { panic!("{reply:?}") };
    Ok(experiment)
}

fn share(percent: u8) -> ExperimentCommand {
    ExperimentCommand::Share { experiment: "e".into(), percent, how: How::default() }
}

fn end(keep: Arm) -> ExperimentCommand {
    ExperimentCommand::End { experiment: "e".into(), keep, how: How::default() }
}

fn experiment(hub: &Switching) -> Arc<Experiment> {
    Arc::clone(&hub.script.hub.interfaces.experiments["e"])
}

/// Goes on until no switch is under way.
fn settle(hub: &mut Switching, failed: &[&str]) {
    for _ in 0..64 {
        let Some(name) = NAMES.iter().find(|name| {
            let phase = hub.phase(name);
            phase.is_some_and(|phase| !matches!(phase.name(), "ready" | "verified"))
        }) else {
            assert!(NAMES.iter().all(|name| hub.phase(name).is_none()));
            return;
        };
        hub.step(name, failed);
    }
    panic!("switches do not end");
}

/// Who has the personality of side B.
fn switched(hub: &Switching) -> Vec<&'static str> {
    let live = |name: &&str| hub.script.hub.interfaces.records[*name].layout.live.name.clone();
    NAMES.iter().filter(|name| live(name).ends_with("-1")).copied().collect()
}

fn measure(hub: &mut Switching, packets: u64) {
    let reading = Reading { packets, bytes: 100 * packets, ..Reading::default() };
    let readings = NAMES.iter().map(|name| ((*name).to_owned(), reading.clone())).collect();
    hub.script.hub.handle(Command::Measured(readings), hub.script.now).unwrap();
    hub.check();
}

fn packets(hub: &Switching) -> BTreeMap<String, u64> {
    experiment(hub).members.iter().map(|(name, member)| (name.clone(), member.totals.packets)).collect()
}

fn started() -> (Switching, Vec<&'static str>) {
    let mut hub = Switching::new(4, json!({}));
    ask(&mut hub, ExperimentCommand::Begin(begin(50))).unwrap();
    settle(&mut hub, &[]);
    let chosen: Vec<_> = NAMES.iter().copied().filter(|name| is_chosen(SALT, name, 50)).collect();
    assert_eq!((switched(&hub), experiment(&hub).stage()), (chosen.clone(), Stage::Running));
    assert!(!chosen.is_empty() && chosen.len() < NAMES.len());
    (hub, chosen)
}

#[test]
fn a_part_is_switched_as_a_group_and_the_rest_stays() {
    let mut hub = Switching::new(4, json!({}));
    let planned = ask(&mut hub, ExperimentCommand::Begin(Begin { dry_run: true, ..begin(50) })).unwrap();
    assert!(
        hub.script.hub.interfaces.experiments.is_empty() && NAMES.iter().all(|it| hub.phase(it).is_none())
    );
    let began = ask(&mut hub, ExperimentCommand::Begin(begin(50))).unwrap();
    let sides = |experiment: &Experiment| {
        experiment.members.iter().map(|(name, member)| (name.clone(), member.arm)).collect::<Vec<_>>()
    };
    assert_eq!((began.stage(), sides(&began)), (Stage::Starting, sides(&planned)));
    let groups: Vec<_> = began.pending.iter().flat_map(|pending| &pending.waits).collect();
    assert_eq!(groups.len(), began.of(Arm::B).count());
    settle(&mut hub, &[]);
    assert_eq!(experiment(&hub).stage(), Stage::Running);
    assert_eq!(hub.last().why, "experiment e");
}

#[test]
fn counters_are_those_since_the_sides_differ() {
    let (mut hub, chosen) = started();
    let control = NAMES.iter().find(|name| !chosen.contains(name)).unwrap();
    measure(&mut hub, 1_000);
    assert!(packets(&hub).values().all(|packets| *packets == 0), "the first look is where counting begins");
    hub.wait(10);
    measure(&mut hub, 1_010);
    assert!(packets(&hub).values().all(|packets| *packets == 10));
    // An interface that somebody switches is not counted while it has something else.
    let number = control.trim_start_matches('i');
    hub.start(vec![Switching::order(control, &format!("p{number}-2"))]).unwrap();
    hub.finish(control);
    hub.wait(10);
    measure(&mut hub, 1_100);
    assert!(experiment(&hub).members[*control].left);
    assert_eq!((packets(&hub)[*control], packets(&hub)[chosen[0]]), (10, 100));
    hub.start(vec![Switching::order(control, &format!("p{number}-0"))]).unwrap();
    hub.finish(control);
    for packets in [1_200, 1_205] {
        hub.wait(10);
        measure(&mut hub, packets);
    }
    assert_eq!((packets(&hub)[*control], packets(&hub)[chosen[0]]), (15, 205));
    let totals = &experiment(&hub).members[chosen[0]].totals;
    assert_eq!((totals.observed_ms, totals.rounds, totals.bytes), (40_000, 4, 20_500));
}

#[test]
fn an_experiment_and_its_counters_survive_a_restart() {
    let (mut hub, chosen) = started();
    measure(&mut hub, 0);
    hub.wait(60);
    measure(&mut hub, 7);
    assert!(hub.script.hub.must_be_stored());
    let before = experiment(&hub);
    hub.restart();
    assert_eq!(experiment(&hub), before);
    hub.wait(10);
    measure(&mut hub, 9);
    assert_eq!(packets(&hub)[chosen[0]], 9);
    assert_eq!(is_chosen(SALT, chosen[0], 50), experiment(&hub).members[chosen[0]].arm == Arm::B);
}

#[test]
fn one_that_was_starting_at_a_restart_has_failed() {
    let mut hub = Switching::new(4, json!({}));
    ask(&mut hub, ExperimentCommand::Begin(begin(50))).unwrap();
    hub.pass();
    hub.restart();
    settle(&mut hub, &[]);
    let experiment = experiment(&hub);
    assert_eq!((experiment.stage(), switched(&hub).len()), (Stage::Failed, 0));
    assert!(experiment.failure.as_ref().unwrap().contains("started anew"), "{:?}", experiment.failure);
}

#[test]
fn a_side_that_cannot_be_switched_fails_whole() {
    let mut hub = Switching::new(4, json!({}));
    ask(&mut hub, ExperimentCommand::Begin(begin(50))).unwrap();
    let one = NAMES.iter().find(|name| hub.phase(name).is_some()).unwrap();
    hub.pass();
    hub.step(one, &["handshake"]);
    settle(&mut hub, &[]);
    let failed = experiment(&hub);
    assert_eq!((failed.stage(), switched(&hub).len()), (Stage::Failed, 0));
    assert!(failed.failure.as_ref().unwrap().contains("handshake"), "{:?}", failed.failure);
    let (_, said) = refusal(ask(&mut hub, share(60)));
    assert!(said.contains("is failed, not running"), "{said}");
}

#[test]
fn more_only_adds_and_less_takes_those_back() {
    let (mut hub, half) = started();
    let percents: Vec<u8> = (1..100)
        .filter(|percent| {
            NAMES.iter().filter(|name| is_chosen(SALT, name, *percent)).count() == half.len() + 1
        })
        .collect();
    let Some(more) = percents.first().copied().filter(|_| half.len() + 1 < NAMES.len()) else {
        panic!("the salt leaves no room for more")
    };
    measure(&mut hub, 0);
    hub.wait(10);
    measure(&mut hub, 5);
    let changing = ask(&mut hub, share(more)).unwrap();
    assert_eq!((changing.stage(), changing.percent), (Stage::Changing, 50));
    let (kind, _) = refusal(ask(&mut hub, end(Arm::A)));
    assert_eq!(kind, RejectionKind::Conflict, "one change after the other");
    settle(&mut hub, &[]);
    let added: Vec<_> = switched(&hub).into_iter().filter(|name| !half.contains(name)).collect();
    assert_eq!((added.len(), switched(&hub).len(), experiment(&hub).percent), (1, half.len() + 1, more));
    let packets = packets(&hub);
    assert_eq!((packets[added[0]], packets[half[0]]), (0, 5), "what it did on the other side is forgotten");
    ask(&mut hub, share(50)).unwrap();
    settle(&mut hub, &[]);
    assert_eq!(switched(&hub), half);
    let (kind, said) = refusal(ask(&mut hub, share(100)));
    assert!(kind == RejectionKind::Invalid && said.starts_with("/percent"), "{said}");
}

#[test]
fn a_change_that_fails_leaves_the_sides_as_they_were() {
    let (mut hub, half) = started();
    ask(&mut hub, end(Arm::B)).unwrap();
    let one = NAMES.iter().find(|name| hub.phase(name).is_some()).unwrap();
    hub.pass();
    hub.step(one, &["handshake"]);
    settle(&mut hub, &[]);
    let running = experiment(&hub);
    assert_eq!((running.stage(), switched(&hub)), (Stage::Running, half));
    assert!(running.failure.is_some());
}

#[test]
fn it_ends_with_one_side_for_all() {
    for keep in Arm::ALL {
        let (mut hub, _) = started();
        assert_eq!(ask(&mut hub, end(keep)).unwrap().stage(), Stage::Ending);
        settle(&mut hub, &[]);
        let ended = experiment(&hub);
        assert_eq!((ended.stage(), ended.kept), (Stage::Ended, Some(keep)));
        assert_eq!(switched(&hub).len(), if keep == Arm::A { 0 } else { NAMES.len() });
        let delete = ExperimentCommand::Delete { experiment: "e".into() };
        hub.script.hub.handle(Command::Experiment(delete), hub.script.now).unwrap();
        assert!(hub.script.hub.interfaces.experiments.is_empty());
    }
}

#[test]
fn what_somebody_switched_meanwhile_stays_at_the_end() {
    let (mut hub, half) = started();
    let number = half[0].trim_start_matches('i');
    hub.start(vec![Switching::order(half[0], &format!("p{number}-2"))]).unwrap();
    hub.finish(half[0]);
    ask(&mut hub, end(Arm::A)).unwrap();
    settle(&mut hub, &[]);
    assert_eq!(experiment(&hub).stage(), Stage::Ended);
    assert_eq!(hub.view(half[0]).current.name, format!("p{number}-2"));
    assert!(switched(&hub).is_empty());
}

#[test]
fn what_makes_no_sense_changes_nothing() {
    let mut hub = Switching::new(4, json!({}));
    let refused = |hub: &mut Switching, begin: Begin| {
        let (kind, said) = refusal(ask(hub, ExperimentCommand::Begin(begin)));
        assert!(
            hub.script.hub.interfaces.experiments.is_empty()
                && NAMES.iter().all(|it| hub.phase(it).is_none())
        );
        (kind, said)
    };
    for (percent, which) in [(0, "none"), (100, "all")] {
        let (kind, said) = refused(&mut hub, begin(percent));
        assert!(kind == RejectionKind::Invalid && said.contains(&format!("chooses {which} of 4")), "{said}");
    }
    let (_, said) = refused(&mut hub, Begin { name: "-".into(), ..begin(50) });
    assert!(said.starts_with("/name"), "{said}");
    let mut wrong = begin(50);
    wrong.orders[0].to = "none".into();
    wrong.orders[1].to = "p1-0".into();
    let (kind, said) = refused(&mut hub, wrong);
    assert_eq!(kind, RejectionKind::Invalid);
    assert!(said.contains("/to `i0`: there is no personality `none`"), "{said}");
    assert!(said.contains("/to `i1`: it has p1-0@1 already"), "{said}");
    ask(&mut hub, ExperimentCommand::Begin(begin(50))).unwrap();
    let (kind, said) = refusal(ask(&mut hub, ExperimentCommand::Begin(begin(50))));
    assert!(kind == RejectionKind::Conflict && said.contains("there is an experiment `e` already"), "{said}");
    let (_, said) = refusal(ask(&mut hub, ExperimentCommand::Begin(Begin { name: "f".into(), ..begin(50) })));
    assert!(said.contains("`i0`: it is in experiment `e`"), "{said}");
    let delete = || ExperimentCommand::Delete { experiment: "e".into() };
    let (kind, _) = refusal(ask(&mut hub, delete()));
    assert_eq!(kind, RejectionKind::Conflict);
    settle(&mut hub, &[]);
    let (_, said) = refusal(hub.ask(SwitchCommand::Start(Vec::new())));
    assert!(said.contains("no interface is named"), "{said}");
}
