//! Counters and connections.

use hub_common::limits;
use hub_common::rule::Rule;
use hub_common::segment::{Policy, STATE_ACTIVE, Segment, policy_word};
use hub_common::stats::{Hits, RuleHits, SegmentCounters};
use hub_daemon::datapath_view::{Count, RuleCount, SegmentCounts};
use hub_daemon::kernel::clock::Clock;
use hub_daemon::kernel::reader::Reader;
use hub_daemon::model::SegmentId;

use crate::lab::{WEB, ack, lab, syn, syn_ack, udp};

/// Bytes of a TCP packet without options and data.
const BARE: u64 = 40;

#[test]
fn counters_are_those_of_the_packets() {
    lab(|lab| {
        let reader = lab.reader();
        for (port, times) in [(80, 2), (443, 1), (22, 3), (8080, 1)] {
            for source in 0..times {
                lab.inbound(syn(40_000 + source, port));
            }
        }
        lab.outbound(udp(53, 5_353));
        let counts = reader.segment(SegmentId(WEB)).unwrap();
        assert_eq!(counts.ingress, Count { packets: 3, bytes: 3 * BARE });
        assert_eq!(counts.egress, Count { packets: 1, bytes: 33 });
        assert_eq!(counts.ingress_dropped, Count { packets: 4, bytes: 4 * BARE });
        let drops: Vec<_> =
            counts.drops.iter().map(|drop| (&*drop.reason, &*drop.direction, drop.count)).collect();
        let expected = [
            ("rule_deny", "ingress", Count { packets: 3, bytes: 3 * BARE }),
            ("default_deny", "ingress", Count { packets: 1, bytes: BARE }),
        ];
        assert_eq!(drops, expected);
        let rule = |rule, packets| RuleCount {
            rule,
            identity: 0,
            baseline: false,
            would_drop: 0,
            direction: "ingress".into(),
            count: Count { packets, bytes: packets * BARE },
        };
        assert_eq!(counts.rules, [rule(0, 3), rule(1, 3), rule(2, 0)], "two slots of rule 0 add up");

        let hooks = reader.hooks().unwrap();
        let tc = &hooks[1];
        assert_eq!((tc.hook.as_str(), tc.received, tc.dropped), ("tc_in", 8, 4));
        assert_eq!(tc.passed + tc.redirected, 4);
        assert_eq!(tc.reasons, [("rule_deny".to_owned(), 3), ("default_deny".to_owned(), 1)]);
        assert_eq!((hooks[0].received, hooks[2].received), (0, 0));

        let all = reader.segments(&[SegmentId(WEB)]).unwrap();
        let mut of_web = all.get(SegmentId(WEB)).unwrap();
        assert_eq!((all.segments().count(), of_web.drops.len()), (1, 2));
        of_web.drops.reverse();
        of_web.rules.clone_from(&counts.rules);
        assert_eq!(of_web, counts);
    });
}

/// The last segment, and rules whose counters lie on both sides of where places for sums begin anew.
#[test]
fn sums_of_all_cpus_are_those_of_each_element() {
    const LAST: u32 = limits::SEGMENTS - 1;
    lab(|lab| {
        let cpus = aya::util::nr_cpus().unwrap() as u64;
        let hits = |packets| Hits { packets, bytes: 1_000 * packets };
        lab.put_each("COUNTERS", LAST, |cpu| SegmentCounters {
            ingress: hits(1 + cpu),
            egress: hits(2),
            ingress_dropped: hits(3),
            egress_dropped: hits(4),
        });
        lab.put_each("FLOWS_BEGUN", LAST, |cpu| [5 + cpu, 6, 7]);
        for (rule, counter) in (0_u16..).zip([limits::SUMS - 1, limits::SUMS, limits::RULES - 1]) {
            let would_drop = u64::from(rule);
            lab.put_each("RULE_HITS", counter, |_| RuleHits { judged: hits(7 + would_drop), would_drop });
            lab.put("RULES", 30 + u32::from(rule), Rule { index: rule, counter, ..Rule::ZERO });
        }
        let word = policy_word(2, 1);
        lab.put("POLICIES", 2, Policy { ingress_first: 30, ingress_count: 3, word, ..Policy::ZERO });
        lab.put("SEGMENTS", LAST, Segment { policy: word, state: STATE_ACTIVE, ..Segment::ZERO });
        let reader = lab.reader();
        let all = reader.segments(&[SegmentId(WEB), SegmentId(LAST)]).unwrap();
        let counts = all.get(SegmentId(LAST)).unwrap();
        assert_eq!(counts, reader.segment(SegmentId(LAST)).unwrap());
        let first: u64 = (0..cpus).sum();
        let sum = |packets| Count { packets, bytes: 1_000 * packets };
        assert_eq!((counts.ingress, counts.egress), (sum(cpus + first), sum(2 * cpus)));
        assert_eq!((counts.ingress_dropped, counts.egress_dropped), (sum(3 * cpus), sum(4 * cpus)));
        assert_eq!((counts.flows.ingress, counts.flows.egress), (5 * cpus + first, 6 * cpus));
        let rules: Vec<_> =
            counts.rules.iter().map(|rule| (rule.rule, rule.count, rule.would_drop)).collect();
        assert_eq!(rules, [(0, sum(7 * cpus), 0), (1, sum(8 * cpus), cpus), (2, sum(9 * cpus), 2 * cpus)]);
        assert_eq!(all.get(SegmentId(WEB)), Some(reader.segment(SegmentId(WEB)).unwrap()));
        assert_eq!(all.get(SegmentId(2)), None);
    });
}

#[test]
fn flows_show_both_tiers_until_they_are_stale() {
    lab(|lab| {
        let reader = lab.reader();
        lab.inbound(syn(40_000, 80));
        lab.inbound(syn(40_001, 80));
        lab.outbound(syn_ack(80, 40_001));
        lab.inbound(ack(40_001, 80));
        let flows = reader.flows(None, 10).unwrap();
        let states: Vec<_> = flows.iter().map(|flow| (flow.source_port, flow.state.as_str())).collect();
        assert_eq!(states, [(40_001, "established"), (40_000, "opening")]);
        let open = &flows[0];
        assert_eq!((open.protocol.as_str(), open.target_port, open.target_segment.0), ("tcp", 80, WEB));
        assert_eq!((open.source.to_string().as_str(), open.source_segment.0), ("192.0.2.1", 0));
        assert_eq!((open.sent.packets, open.received.packets), (2, 1));
        assert!(open.idle_seconds < 10.0 && open.age_seconds < 10.0, "{open:?}");
        let table = reader.flow_counts().unwrap().table;
        assert_eq!((table.established, table.opening), (1, 1));
        assert_eq!((table.established_max, table.opening_max), (262_144, 131_072));

        assert_eq!(reader.flows(None, 1).unwrap().len(), 1);
        assert_eq!(reader.flows(Some(SegmentId(WEB)), 10).unwrap().len(), 2);
        assert_eq!(reader.flows(Some(SegmentId(2)), 10).unwrap(), []);
        let mut map = lab.hash("FLOWS");
        let (key, mut flow): (hub_common::flow::FlowKey, hub_common::flow::Flow) =
            map.iter().next().unwrap().unwrap();
        flow.last_tick = 0;
        map.insert(key, flow, 0).unwrap();
        let left: Vec<_> = reader.flows(None, 10).unwrap().iter().map(|flow| flow.source_port).collect();
        assert_eq!(left, [40_000]);
    });
}

#[test]
fn clock_keeps_step_with_the_kernel() {
    lab(|lab| {
        let later = Clock::calibrate(lab.pins()).unwrap();
        assert!(later.tick().abs_diff(lab.clock.now()) <= 2, "{later:?} {:?}", lab.clock);
        let deadline = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(100);
        let left = lab.clock.seconds(lab.clock.deadline_tick(Some(deadline)) - lab.clock.now());
        assert!((99.9..=100.0).contains(&left), "{left}");
    });
}

#[test]
fn detached_reader_knows_nothing() {
    let reader = Reader::detached();
    assert_eq!(reader.segment(SegmentId(1)).unwrap(), SegmentCounts::default());
    assert!(reader.hooks().unwrap().is_empty() && reader.flows(None, 1).unwrap().is_empty());
    assert_eq!(reader.segments(&[SegmentId(1)]).unwrap().segments().count(), 0);
}
