//! Collection of connections that are over.

use std::time::Duration;

use hub_common::flow::{FLOW_TCP_CLOSED, FLOW_TCP_OPEN, FLOW_TWO_WAY, Flow, FlowKey};
use hub_common::limit::LimitSource;
use hub_common::limits::FLOWS;
use hub_common::segment::SEGMENT_CONNECTIONS;
use hub_daemon::kernel::clock::Clock;
use hub_daemon::kernel::collect::{Collected, Collector};

use crate::lab::{Lab, MEMBER, OUTSIDE, WEB, ack, address, lab, syn, syn_ack};

/// `TC_ACT_SHOT`.
const DROPPED: u32 = 2;

/// Puts connections into the table, one for each number.
fn insert(lab: &Lab, numbers: std::ops::Range<u32>, flow: impl Fn(u32) -> Flow) {
    let mut flows = lab.hash("FLOWS");
    for number in numbers {
        let [a, b, c, d] = number.to_be_bytes();
        let source = [[10, 0, a, b], OUTSIDE.octets()].map(|octets| address(octets.into()));
        let ports = u16::from_be_bytes([c, d]);
        let (key, _) = FlowKey::between(&source[0], ports, &address(MEMBER), 80, 6, 0);
        flows.insert(key, flow(number), 0).unwrap();
    }
}

#[test]
fn idle_and_orphaned_connections_go() {
    lab(|lab| {
        let tick = lab.clock.now();
        let minutes = |minutes: u64| tick - lab.clock.ticks(Duration::from_secs(60 * minutes));
        let flow = Flow { state: FLOW_TWO_WAY, segment: [0, WEB], ..Flow::ZERO };
        insert(lab, 0..5_000, |_| Flow { last_tick: minutes(4), ..flow });
        insert(lab, 5_000..7_000, |_| Flow { last_tick: minutes(4), state: FLOW_TCP_OPEN, ..flow });
        insert(lab, 7_000..8_500, |_| Flow { last_tick: tick, segment: [WEB, 2], ..flow });
        let mut collector = Collector::open(lab.pins()).unwrap();
        let expected = Collected { seen: 8_500, stale: 5_000, orphaned: 1_500, ..Collected::default() };
        assert_eq!(collector.collect().unwrap(), expected);
        assert_eq!(lab.reader().flow_counts().unwrap().table.established, 2_000);
        assert_eq!(collector.collect().unwrap(), Collected { seen: 2_000, ..Collected::default() });
    });
}

#[test]
fn connection_takes_the_place_of_a_stale_one() {
    lab(|lab| {
        let (key, _) = FlowKey::between(&address(OUTSIDE), 40_000, &address(MEMBER), 80, 6, 0);
        let stale = Flow { state: FLOW_TCP_OPEN, segment: [0, WEB], from_high: 1, ..Flow::ZERO };
        lab.hash("FLOWS").insert(key, stale, 0).unwrap();
        lab.inbound(syn(40_000, 80));
        assert_ne!(lab.outbound(syn_ack(80, 40_000)), DROPPED);
        assert_ne!(lab.inbound(ack(40_000, 80)), DROPPED);
        let table = lab.reader().flow_counts().unwrap().table;
        assert_eq!((table.established, table.opening), (1, 0));
    });
}

#[test]
fn nothing_goes_before_there_are_settings() {
    lab(|lab| {
        insert(lab, 0..10, |_| Flow::ZERO);
        lab.put("SETTINGS", 0, hub_common::segment::Settings::ZERO);
        assert_eq!(Collector::open(lab.pins()).unwrap().collect().unwrap(), Collected::default());
    });
}

#[test]
fn full_table_is_looked_at_and_collected_whole() {
    lab(|lab| {
        let flow = Flow { state: FLOW_TWO_WAY, last_tick: lab.clock.now(), segment: [0, WEB], ..Flow::ZERO };
        insert(lab, 0..FLOWS, |_| flow);
        let mut collector = Collector::open(lab.pins()).unwrap();
        let looked = collector.collect_at(&lab.clock).unwrap();
        assert_eq!((looked.seen, looked.stale), (FLOWS as usize, 0));
        let done = collector.collect_at(&Clock::new(u64::MAX / 2, 0, 4_000_000)).unwrap();
        assert_eq!(done.stale, FLOWS as usize);
        assert_eq!(collector.collect().unwrap(), Collected::default());
    });
}

#[test]
fn counts_of_connections_that_drifted_are_corrected() {
    lab(|lab| {
        lab.segment(|segment| segment.flags |= SEGMENT_CONNECTIONS);
        let tick = lab.clock.now();
        let minutes = |minutes: u64| tick - lab.clock.ticks(Duration::from_secs(60 * minutes));
        let flow = Flow {
            state: FLOW_TCP_OPEN,
            segment: [0, WEB],
            counted: [0, 7],
            last_tick: tick,
            from_high: 1,
            ..Flow::ZERO
        };
        let source = address([192, 0, 2, 77].into());
        for (number, flow) in (0..).zip([
            flow,
            Flow { counted: [0, 0], ..flow },
            Flow { state: FLOW_TCP_CLOSED, ..flow },
            Flow { last_tick: minutes(600), ..flow },
        ]) {
            let (key, from_high) = FlowKey::between(&source, 40_000 + number, &address(MEMBER), 80, 6, 0);
            let map = if number == 1 { "FLOWS_NEW" } else { "FLOWS" };
            lab.hash(map).insert(key, Flow { from_high: u8::from(from_high), ..flow }, 0).unwrap();
        }
        let key =
            |limit, last| LimitSource { limit, segment: WEB, address: address([192, 0, 2, last].into()) };
        let mut counts = lab.hash::<LimitSource, u64>("CONNECTIONS");
        // Too many of one source, below zero of its rule's, and a source that has none.
        for (key, count) in [(key(0, 77), 9), (key(7, 77), u64::MAX), (key(0, 78), 3)] {
            counts.insert(key, count, 0).unwrap();
        }
        let mut collector = Collector::open(lab.pins()).unwrap();
        assert_eq!(collector.collect().unwrap().recounted, 3);
        let found = |key| counts.get(&key, 0).ok();
        assert_eq!([key(0, 77), key(7, 77), key(0, 78)].map(found), [Some(2), Some(1), None]);
        assert_eq!(collector.collect().unwrap().recounted, 0);
        counts.remove(&key(0, 77)).unwrap();
        assert_eq!(collector.collect().unwrap().recounted, 1, "a count that made room for others");
        assert_eq!(counts.get(&key(0, 77), 0).ok(), Some(2));
    });
}
