//! What a change of policy means for connections.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hub_common::flow::{FLOW_TCP_OPEN, Flow, FlowKey};
use hub_common::rule::{ACTION_ALLOW, RULE_PROTOCOL, RULE_TARGET_PORT, Rule};
use hub_daemon::kernel::clock::Clock;
use hub_daemon::kernel::impacted::Change;
use hub_daemon::model::SegmentId;
use hub_daemon::model::policy::Policy as ModelPolicy;
use hub_tests::effort::figure;
use hub_tests::lab::Stopwatch;

use crate::lab::{MEMBER, WEB, address, lab};

/// What counts for the time of a pass over very many connections: all of them are looked at.
#[test]
fn a_change_of_policy_is_told_for_a_hundred_thousand_connections_at_once() {
    const FLOWS: u32 = 100_000;
    lab(|lab| {
        let now = Clock::calibrate(lab.pins()).unwrap().now();
        let mut flows = lab.hash("FLOWS");
        for number in 0..FLOWS {
            let [_, b, c, d] = number.to_be_bytes();
            let source = address([198, 51, b, c].into());
            let port = if number % 4 == 0 { 443 } else { 80 };
            let (key, from_high) =
                FlowKey::between(&source, 1_000 + u16::from(d), &address(MEMBER), port, 6, 0);
            let from_high = u8::from(from_high);
            let value = Flow {
                segment: [0, WEB],
                state: FLOW_TCP_OPEN,
                last_tick: now,
                first_tick: now,
                from_high,
                ..Flow::ZERO
            };
            flows.insert(key, value, 0).unwrap();
        }
        lab.put_each("FLOWS_BEGUN", WEB, |cpu| [0, 0, cpu + 1]);
        let base = Rule { flags: RULE_PROTOCOL | RULE_TARGET_PORT, protocol: 6, ..Rule::ZERO };
        let policy = ModelPolicy {
            signatures: Vec::new(),
            protocols: [u32::MAX; 8],
            ingress_default: [0; 8],
            egress_default: [u32::MAX; 8],
            ingress: vec![Rule { target_port: [80, 80], action: ACTION_ALLOW, index: 3, ..base }],
            egress: Vec::new(),
            flags: 0,
            open: Default::default(),
            terms: BTreeMap::default(),
        };
        let change = Change {
            segment: SegmentId(WEB),
            policy: &policy,
            inserted: 0,
            in_set: &|_, _| false,
            idle_cutoff: Duration::from_mins(1),
            drain_udp: true,
            failsafe: &BTreeSet::default(),
            exempt: None,
            now: jiff::Timestamp::UNIX_EPOCH,
        };
        let reader = lab.reader();
        let begun = Stopwatch::start();
        let impacts = reader.impacted(&change, 10).unwrap();
        let whole = begun.elapsed();
        let begun = Stopwatch::start();
        let cpus = aya::util::nr_cpus().unwrap() as u64;
        assert_eq!(reader.ended(SegmentId(WEB)).unwrap(), cpus * (cpus + 1) / 2);
        let ended = begun.elapsed();
        figure(
            "S17",
            &format!(
                "{FLOWS} connections judged in {whole:.1?}, the count of ended ones read in {ended:.1?}"
            ),
        );
        let each = u64::from(FLOWS) / 4;
        assert_eq!((impacts.breaks_active, impacts.survives_active), (each, 3 * each));
        assert_eq!(
            (impacts.breaks_idle, impacts.survives_idle, impacts.ended),
            (0, 0, cpus * (cpus + 1) / 2)
        );
        assert!(impacts.flows.len() == 10 && impacts.flows.iter().all(|flow| !flow.survives && flow.active));
        assert_eq!((impacts.flows[0].flow.target_port, impacts.flows[0].rule), (443, None));
        // Without optimisation, on a busy machine.
        assert!(whole < Duration::from_secs(10), "{whole:?}");
    });
}
