use hub_common::address::mapped;
use hub_common::application::{HEARD_SPOKEN, Heard, KIND_SSH, KIND_TLS};
use hub_common::flow::{FLOW_ICMP, FLOW_ONE_WAY, FLOW_TCP_CLOSING, FLOW_TCP_OPEN, FLOW_TCP_OPENING};
use hub_common::rule::{ACTION_DENY, RULE_PROTOCOL, RULE_SOURCE_SET, RULE_TARGET_PORT};

use super::*;
use crate::model::policy::Terms;

const OWN: u32 = 7;
const MEMBER: [u8; 4] = [10, 0, 0, 9];
const REMOTE: [u8; 4] = [192, 0, 2, 1];

fn rule(index: u16, port: u16, action: u8) -> Rule {
    let flags = RULE_PROTOCOL | RULE_TARGET_PORT;
    Rule { protocol: 6, target_port: [port; 2], action, flags, index, identity: index.into(), ..Rule::ZERO }
}

fn policy(ingress: Vec<Rule>) -> Policy {
    Policy::towards_members(ingress)
}

fn change<'a>(policy: &'a Policy, failsafe: &'a BTreeSet<(u8, u16)>) -> Change<'a> {
    Change {
        segment: SegmentId(OWN),
        policy,
        inserted: 0,
        in_set: &|set, address| set == 3 && address == IpAddr::from(REMOTE),
        idle_cutoff: Duration::from_mins(1),
        drain_udp: true,
        failsafe,
        exempt: None,
        now: Timestamp::UNIX_EPOCH,
    }
}

/// A connection from outside to the member.
fn flow(port: u16, number: u8, state: u8) -> (FlowKey, Flow) {
    let (key, from_high) = FlowKey::between(&mapped(REMOTE), 4_000, &mapped(MEMBER), port, number, 0);
    (key, Flow { segment: [0, OWN], state, from_high: u8::from(from_high), ..Flow::ZERO })
}

#[test]
fn what_counts_is_what_is_alive() {
    let (policy, failsafe) = (policy(Vec::new()), BTreeSet::from([(6, 22)]));
    let change = change(&policy, &failsafe);
    let active = |port, number, state, idle| {
        let (key, flow) = flow(port, number, state);
        change.is_active(&key, &flow, Duration::from_secs(idle))
    };
    for state in [FLOW_TCP_OPENING, FLOW_TCP_OPEN, FLOW_TCP_CLOSING] {
        assert_eq!([60, 61].map(|idle| active(80, 6, state, idle)), [true, false]);
    }
    assert!(!active(80, 6, FLOW_TCP_CLOSED, 0) && !active(22, 6, FLOW_TCP_OPEN, 0));
    assert_eq!([10, 11].map(|idle| active(53, 17, FLOW_TWO_WAY, idle)), [true, false]);
    assert!(!active(53, 17, FLOW_ONE_WAY, 0) && !active(0, 1, FLOW_ICMP, 0));
    let (key, udp) = flow(53, 17, FLOW_TWO_WAY);
    assert!(!Change { drain_udp: false, ..change }.is_active(&key, &udp, Duration::ZERO));
}

#[test]
fn who_ordered_the_change_is_not_waited_for() {
    let (policy, failsafe) = (policy(Vec::new()), BTreeSet::new());
    let (key, tcp) = flow(443, 6, FLOW_TCP_OPEN);
    let ends = [(MEMBER.into(), 443), (REMOTE.into(), 4_000)];
    let [one, other] = ends;
    for exempt in [[one, other], [other, one]] {
        let change = Change { exempt: Some(exempt), ..change(&policy, &failsafe) };
        assert!(!change.is_active(&key, &tcp, Duration::ZERO));
        let (key, tcp) = flow(444, 6, FLOW_TCP_OPEN);
        assert!(change.is_active(&key, &tcp, Duration::ZERO));
    }
}

#[test]
fn rules_are_asked_about_the_first_packet() {
    let failsafe = BTreeSet::new();
    let from_set = Rule { source_set: 3, flags: RULE_SOURCE_SET, ..rule(2, 0, ACTION_ALLOW) };
    let mut ended = policy(vec![rule(0, 80, ACTION_ALLOW), rule(1, 443, ACTION_DENY), from_set]);
    let fate = |policy: &Policy, port, number| {
        let (key, flow) = flow(port, number, FLOW_TCP_OPEN);
        let fate = change(policy, &failsafe).fate(&key, &flow, &[]);
        (fate.survives, fate.rule)
    };
    assert_eq!(fate(&ended, 80, 6), (true, Some(0)));
    assert_eq!(fate(&ended, 443, 6), (false, Some(1)));
    assert_eq!(fate(&ended, 8_080, 6), (true, Some(2)));
    assert_eq!(fate(&policy(Vec::new()), 80, 6), (false, None));
    ended.terms.insert(1, Terms { ends: Some(Timestamp::UNIX_EPOCH), ..Terms::default() });
    assert_eq!(fate(&ended, 443, 6), (true, Some(2)), "the rule has ended");
    ended.protocols = [0; 8];
    assert_eq!(fate(&ended, 80, 6), (false, None));
    ended.flags = POLICY_PRESERVE;
    assert_eq!(fate(&ended, 80, 6), (true, None));
}

#[test]
fn what_uses_an_address_that_goes_away_ends() {
    let failsafe = BTreeSet::new();
    let (key, tcp) = flow(80, 6, FLOW_TCP_OPEN);
    for (target, survives) in [(MEMBER, false), ([10, 0, 0, 8], true)] {
        let (target, target_bits) = (mapped(target), 128);
        let gone = Rule { target, target_bits, action: ACTION_DENY, index: SYNTHETIC, ..Rule::ZERO };
        let policy = policy(vec![gone, rule(0, 80, ACTION_ALLOW)]);
        let fate = change(&policy, &failsafe).fate(&key, &tcp, &[]);
        assert_eq!((fate.survives, fate.rule), (survives, survives.then_some(0)), "{target:?}");
    }
}

#[test]
fn what_decides_on_a_connection_is_told() {
    let failsafe = BTreeSet::new();
    let session = rule(0, 8_443, ACTION_ALLOW);
    let hubs = Rule { flags: RULE_PROTOCOL | RULE_TARGET_PORT | RULE_BASELINE, ..rule(4, 23, ACTION_DENY) };
    let gone = Rule { target: mapped(REMOTE), target_bits: 128, action: ACTION_DENY, ..Rule::ZERO };
    let gone = Rule { index: SYNTHETIC, ..gone };
    let mut policy = policy(vec![session, hubs, gone, rule(1, 443, ACTION_DENY), rule(2, 80, ACTION_ALLOW)]);
    policy.protocols = [0; 8];
    policy.protocols[0] = 1 << 6;
    let told = |policy: &Policy, (key, flow): &(FlowKey, Flow)| {
        let change = Change { inserted: 1, ..change(policy, &failsafe) };
        let Fate { survives, by, rule } = change.fate(key, flow, &[]);
        (survives, by, rule)
    };
    let to_member = |port, number| flow(port, number, FLOW_TCP_OPEN);
    assert_eq!(told(&policy, &to_member(8_443, 6)), (true, DecidedBy::Session, None));
    assert_eq!(told(&policy, &to_member(23, 6)), (false, DecidedBy::Baseline, None));
    assert_eq!(
        told(&policy, &to_member(443, 6)),
        (false, DecidedBy::Rule, Some(0)),
        "as its document counts"
    );
    assert_eq!(told(&policy, &to_member(80, 6)), (true, DecidedBy::Rule, Some(1)));
    assert_eq!(told(&policy, &to_member(81, 6)), (false, DecidedBy::Default, None));
    assert_eq!(told(&policy, &to_member(80, 17)), (false, DecidedBy::Protocols, None));
    let (key, from_high) = FlowKey::between(&mapped(MEMBER), 4_000, &mapped(REMOTE), 80, 6, 0);
    let within = Flow { segment: [0, OWN], from_high: u8::from(from_high), ..Flow::ZERO };
    assert_eq!(told(&policy, &(key, within)), (false, DecidedBy::Address, None));
    policy.flags = POLICY_PRESERVE;
    assert_eq!(told(&policy, &to_member(443, 6)), (true, DecidedBy::NotAsked, None));
}

#[test]
fn what_was_heard_is_asked_for_by_what_it_is_and_not_by_its_slot() {
    let failsafe = BTreeSet::new();
    let of = |kind| Signature { kind, ..Signature::ZERO };
    let asks = |index, name, action| Rule { signature: name, ..rule(index, 443, action) };
    let rules = vec![asks(0, 1, ACTION_DENY), asks(1, 2, ACTION_ALLOW)];
    let policy = Policy { signatures: vec![of(KIND_SSH), of(KIND_TLS)], ..policy(rules) };
    let change = change(&policy, &failsafe);
    // In the data path they are the other way round.
    let table = [of(KIND_TLS), of(KIND_SSH)].map(|signature| Signature { born_tick: 5, ..signature });
    let fate = |signatures: [u8; 7], state, first_tick| {
        let (key, flow) = flow(443, 6, FLOW_TCP_OPEN);
        let flow = Flow { heard: Heard { signatures, state }, first_tick, ..flow };
        let fate = change.fate(&key, &flow, &table);
        (fate.survives, fate.rule)
    };
    assert_eq!(fate([1, 0, 0, 0, 0, 0, 0], HEARD_SPOKEN, 9), (true, Some(1)));
    assert_eq!(fate([2, 0, 0, 0, 0, 0, 0], HEARD_SPOKEN, 9), (false, Some(0)));
    assert_eq!(fate([1, 0, 0, 0, 0, 0, 0], HEARD_SPOKEN, 4), (false, None), "the slot meant something else");
    assert_eq!(fate([0; 7], HEARD_WAITS, 9), (true, Some(1)), "it has yet to speak");
    assert_eq!(fate([0; 7], HEARD_SPOKEN, 9), (false, None));
}
