use std::collections::BTreeMap;

use super::super::Member;
use super::*;

/// An experiment whose interfaces have these totals.
fn experiment(sides: [Vec<Totals>; 2]) -> Experiment {
    let version = |name: &str| crate::model::personality::Version { name: name.into(), number: 1 };
    let mut members = BTreeMap::new();
    for (arm, side) in Arm::ALL.into_iter().zip(sides) {
        for (number, totals) in side.into_iter().enumerate() {
            let member = Member { totals, ..Member::new(arm, version("x"), version("y")) };
            members.insert(format!("{}{number}", arm.name()), member);
        }
    }
    Experiment {
        name: "e".into(),
        salt: "e".into(),
        percent: 50,
        by: "ana".into(),
        why: String::new(),
        created_at: jiff::Timestamp::UNIX_EPOCH,
        began_at: None,
        ended_at: None,
        kept: None,
        failure: None,
        members,
        pending: None,
    }
}

/// An interface that was observed for 100 s, of which so many handshakes of 1,000 took so long on average.
fn observed(handshake_ms: u64, dropped: u64, bytes: u64) -> Totals {
    Totals {
        observed_ms: 100_000,
        packets: 1_000,
        bytes,
        dropped,
        flows: 100,
        handshakes: 100,
        handshake_us: handshake_ms * 100_000,
        rounds: 10,
        ..Totals::default()
    }
}

fn verdicts(experiment: &Experiment) -> BTreeMap<String, Verdict> {
    compare(experiment).into_iter().map(|compared| (compared.metric, compared.verdict)).collect()
}

#[test]
fn a_clear_difference_is_better_or_worse_as_the_number_wants_it() {
    let side = |base: u64, bytes: u64| (0..8).map(|n| observed(base + n, base + n, bytes + n)).collect();
    let found = experiment([side(10, 5_000), side(50, 9_000)]);
    let verdicts = verdicts(&found);
    assert_eq!(verdicts["handshake_mean_ms"], Verdict::Worse);
    assert_eq!(verdicts["dropped_packets_ratio"], Verdict::Worse);
    assert_eq!(verdicts["bytes_per_second"], Verdict::Better);
    assert_eq!(verdicts["packets_per_second"], Verdict::NoDifference, "all are the same");
    assert_eq!(verdicts["failed_checks_ratio"], Verdict::NoDifference, "none failed");
    let compared = compare(&found);
    assert_eq!((compared[0].a, compared[0].b, compared[0].interfaces), (Some(13.5), Some(53.5), [8, 8]));
    assert!((compared[0].ratio.unwrap() - 53.5 / 13.5).abs() < 1e-9);
    assert!(compared[0].p_value.unwrap() < 0.001);
    assert!((compared[5].a.unwrap() - 50.035).abs() < 1e-9, "bytes by second");
    assert_eq!(compared[4].ratio, None, "none by none");
    assert_eq!(compared[0].difference, Some(40.0));
    let [low, high] = compared[0].interval.unwrap();
    assert!((33.0..40.0).contains(&low) && (40.0..47.0).contains(&high), "{low} to {high}");
    assert_eq!((compared[1].interfaces, compared[1].interval), ([0, 0], None), "of nobody's segments");
}

#[test]
fn use_is_neither_good_nor_bad() {
    let side = |flows: u64| (0..6).map(|n| Totals { flows: flows + n, ..observed(1, 0, 1) }).collect();
    assert_eq!(verdicts(&experiment([side(10), side(99)]))["flows_per_second"], Verdict::More);
    assert_eq!(verdicts(&experiment([side(99), side(10)]))["flows_per_second"], Verdict::Less);
}

#[test]
fn too_few_interfaces_or_too_little_time_say_nothing() {
    let side = |count: u64, base: u64| (0..count).map(|n| observed(base + n, 0, 1)).collect::<Vec<_>>();
    for (a, b, says) in [(5, 5, false), (6, 6, true), (2, 900, false), (3, 15, true), (0, 9, false)] {
        let verdict = verdicts(&experiment([side(a, 10), side(b, 900)]))["handshake_mean_ms"];
        assert_eq!(verdict != Verdict::TooFew, says, "{a} against {b}: {verdict:?}");
    }
    let short = |base| side(9, base).into_iter().map(|it| Totals { observed_ms: 59_000, ..it }).collect();
    assert!(verdicts(&experiment([short(1), short(99)])).values().all(|it| *it == Verdict::TooFew));
    let without = |base| side(9, base).into_iter().map(|it| Totals { handshakes: 19, ..it }).collect();
    let verdicts = verdicts(&experiment([without(1), without(99)]));
    assert_eq!(verdicts["handshake_mean_ms"], Verdict::TooFew, "of handshakes alone");
    assert_eq!(verdicts["bytes_per_second"], Verdict::NoDifference);
}

#[test]
fn chance_is_seldom_taken_for_a_difference() {
    let mut state = 0x9e37_79b9_u64;
    let mut next = || {
        // Xorshift of Marsaglia.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        observed(state >> 44, 0, 1)
    };
    let found = (0..1_000).filter(|_| {
        let sides = [(); 2].map(|()| (0..10).map(|_| next()).collect());
        verdicts(&experiment(sides))["handshake_mean_ms"] != Verdict::NoDifference
    });
    assert!(found.count() <= 20, "one in a hundred is to be expected");
}
