//! Random worlds reach every decision: without that, comparing two programs on them proves little.

use std::collections::BTreeMap;

use hub_common::event::Reason;
use hub_tests::generate::{Interfaces, Random, Traffic, World};
use hub_tests::model::Verdict;

#[test]
fn every_verdict_is_common_enough() {
    let interfaces = Interfaces { uplink: 2, bound: vec![3, 4], shared: 5, unknown: 6 };
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut random = Random::new(1);
    for _ in 0..1_000 {
        let mut world = World::new(&mut random, interfaces.clone());
        let mut traffic = Traffic::default();
        for _ in 0..500 {
            let packet = traffic.packet(&mut random, &world);
            let verdict = world.model.judge(packet.entry, &packet.frame, 1_000);
            if verdict != Verdict::Pass {
                traffic.refused(&mut random);
            }
            let name = match verdict {
                Verdict::Pass => "pass",
                Verdict::Skip => "skip",
                Verdict::Drop(reason) | Verdict::Reject(reason) => reason.name(),
            };
            *counts.entry(name.to_owned()).or_default() += 1;
        }
    }
    // Nothing is translated, and no detector watches: the model knows neither.
    let unreachable = [
        Reason::Nonlinear,
        Reason::FlowTableFull,
        Reason::Internal,
        Reason::NoTranslation,
        Reason::Detected,
        Reason::FlowRate,
    ];
    let reasons =
        Reason::ALL.iter().filter(|reason| !unreachable.contains(reason)).map(|reason| reason.name());
    let rare: Vec<_> =
        reasons.chain(["pass", "skip"]).filter(|name| counts.get(*name).is_none_or(|n| *n < 25)).collect();
    assert!(rare.is_empty(), "{rare:?} of {counts:?}");
    assert!(counts["pass"] > 120_000, "{counts:?}");
}
