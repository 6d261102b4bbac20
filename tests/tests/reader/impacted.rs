//! What a change of policy means for connections.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hub_common::flow::{FLOW_TCP_CLOSED, FLOW_TCP_OPEN, Flow, FlowKey};
use hub_common::rule::{ACTION_ALLOW, ACTION_DENY, RULE_PROTOCOL, RULE_SOURCE_PORT, RULE_TARGET_PORT, Rule};
use hub_daemon::command::switch::FlowCount;
use hub_daemon::kernel::clock::Clock;
use hub_daemon::kernel::impacted::Change;
use hub_daemon::model::SegmentId;
use hub_daemon::model::policy::Policy as ModelPolicy;
use hub_tests::effort::figure;
use hub_tests::lab::Stopwatch;

use crate::lab::{MEMBER, WEB, address, lab};

/// Many connections of the resource from outside: the key of one, and whether the client is its `high` end.
fn key(number: u32) -> (FlowKey, bool) {
    let [_, b, c, d] = number.to_be_bytes();
    let port = if number.is_multiple_of(4) { 443 } else { 80 };
    FlowKey::between(&address([198, 51, b, c].into()), 1_000 + u16::from(d), &address(MEMBER), port, 6, 0)
}

/// One of them that is established.
fn open(now: u64, from_high: bool) -> Flow {
    Flow {
        segment: [0, WEB],
        state: FLOW_TCP_OPEN,
        last_tick: now,
        first_tick: now,
        from_high: u8::from(from_high),
        ..Flow::ZERO
    }
}

/// What is read, and how long that takes.
fn timed<T>(read: impl FnOnce() -> T) -> (T, Duration) {
    let watch = Stopwatch::start();
    let value = read();
    (value, watch.elapsed())
}

/// What counts for the time of a pass over very many connections: all of them are looked at.
#[test]
fn a_change_of_policy_is_told_for_a_hundred_thousand_connections_at_once() {
    const FLOWS: u32 = 100_000;
    lab(|lab| {
        let now = Clock::calibrate(lab.pins()).unwrap().now();
        let mut flows = lab.hash("FLOWS");
        for number in 0..FLOWS {
            let (key, from_high) = key(number);
            flows.insert(key, open(now, from_high), 0).unwrap();
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
        let (impacts, whole) = timed(|| reader.impacted(&change, 10).unwrap());
        let cpus = aya::util::nr_cpus().unwrap() as u64;
        let all_ended = cpus * (cpus + 1) / 2;
        let (count, ended) = timed(|| reader.ended(SegmentId(WEB)).unwrap());
        assert_eq!(count, all_ended);
        figure(
            "S17",
            &format!(
                "{FLOWS} connections judged in {whole:.1?}, the count of ended ones read in {ended:.1?}"
            ),
        );
        let each = u64::from(FLOWS) / 4;
        assert_eq!((impacts.breaks_active, impacts.survives_active), (each, 3 * each));
        assert_eq!((impacts.breaks_idle, impacts.survives_idle), (0, 0));
        assert!(impacts.flows.len() == 10 && impacts.flows.iter().all(|flow| !flow.survives && flow.active));
        assert_eq!((impacts.flows[0].flow.target_port, impacts.flows[0].rule), (443, None));
        // Without optimisation, on a busy machine.
        assert!(whole < Duration::from_secs(10), "{whole:?}");

        // All but those of one port go on.
        let denied = Rule { flags: RULE_SOURCE_PORT, source_port: [1_037; 2], action: ACTION_DENY, ..base };
        let few = ModelPolicy {
            ingress: vec![denied, Rule { flags: 0, action: ACTION_ALLOW, ..base }],
            ..policy.clone()
        };
        let change = Change { policy: &few, ..change };
        let (known, walk) = timed(|| reader.waited(&change, false, None).unwrap());
        let active = (0..FLOWS).filter(|number| number.to_be_bytes()[3] == 37).count() as u64;
        let kept = u64::from(FLOWS) - active;
        assert_eq!((known.count, known.ended), (FlowCount { active, idle: 0, kept }, all_ended));
        // Two of them end, one of these without a trace.
        let [(first, from_high), (second, _)] = [37, 256 + 37].map(key);
        flows.insert(first, Flow { state: FLOW_TCP_CLOSED, ..open(now, from_high) }, 0).unwrap();
        flows.remove(&second).unwrap();
        let (again, look) = timed(|| reader.waited(&change, false, Some(&known)).unwrap());
        assert_eq!(again.count, FlowCount { active: active - 2, idle: 0, kept });
        figure(
            "S20",
            &format!("{active} of {FLOWS} connections found in {walk:.1?}, and again in {look:.1?}"),
        );
        assert!(look * 4 < walk, "only those are looked at: {look:?} of {walk:?}");
        // What begins is found by the next walk, and so is what all of them are.
        flows.insert(first, open(now, from_high), 0).unwrap();
        assert_eq!(reader.waited(&change, false, Some(&again)).unwrap().count.active, active - 2);
        assert_eq!(reader.waited(&change, false, None).unwrap().count.active, active - 1);
        let all = reader.waited(&change, true, None).unwrap();
        assert_eq!(all.count, FlowCount { active: u64::from(FLOWS) - 1, idle: 0, kept: 0 });
    });
}
