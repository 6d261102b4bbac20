use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hub_common::rule::ACTION_RATE_LIMIT;

use super::*;
use crate::model::policy::{Policy, Terms};
use crate::model::set::Elements;
use crate::view::switch::TunnelView;

fn rule(protocol: u8, port: u16, action: u8) -> Rule {
    let flags = RULE_PROTOCOL | RULE_TARGET_PORT;
    Rule { protocol, target_port: [port, port], flags, action, ..Rule::ZERO }
}

fn policy(ingress: Vec<Rule>) -> Policy {
    let tcp_and_udp = 1 << protocol::TCP | 1 << protocol::UDP;
    Policy { protocols: [tcp_and_udp, 0, 0, 0, 0, 0, 0, 0], ..Policy::towards_members(ingress) }
}

fn force(policy: Policy, other: Option<Policy>) -> InForce {
    InForce {
        segment: SegmentId(7),
        port: "seg0".into(),
        members: vec!["10.0.0.5".parse().unwrap(), "fd00::5".parse().unwrap()],
        tunnel: None,
        deciding: of(policy),
        other: other.map(of),
    }
}

fn of(policy: Policy) -> Rules {
    Rules { policy: Arc::new(policy), sets: BTreeMap::new() }
}

fn now() -> Timestamp {
    "2030-01-01T00:00:00Z".parse().unwrap()
}

fn probes(force: &InForce) -> Vec<Probe> {
    super::probes(force, now())
}

fn ports(probes: &[Probe], direction: Direction, allowed: bool) -> Vec<Option<u16>> {
    let those = probes.iter().filter(|it| it.direction == direction && it.allowed == allowed);
    those.map(|it| it.asked.question.target_port).collect()
}

#[test]
fn what_is_allowed_and_what_is_refused_is_asked_about_in_both_families() {
    let probes = probes(&force(policy(vec![rule(6, 443, 0), rule(6, 22, 1)]), None));
    assert_eq!(ports(&probes, Direction::Ingress, true), [Some(443); 2]);
    assert_eq!(ports(&probes, Direction::Ingress, false), [Some(22); 2]);
    assert_eq!(ports(&probes, Direction::Egress, true).len(), 2);
    assert_eq!(ports(&probes, Direction::Egress, false), [None; 2], "ICMP is no protocol of it");
    assert_eq!(probes.iter().filter(|it| it.asked.question.source.is_ipv4()).count() * 2, probes.len());
}

#[test]
fn packets_tell_two_personalities_apart_where_any_does() {
    let live = policy(vec![rule(6, 443, 0), rule(6, 8080, 0), rule(6, 22, 1)]);
    let other = policy(vec![rule(6, 443, 0), rule(6, 22, 1), rule(6, 4, 0)]);
    let probes = probes(&force(live, Some(other)));
    assert_eq!(ports(&probes, Direction::Ingress, true), [Some(8080); 2]);
    assert_eq!(ports(&probes, Direction::Ingress, false), [Some(4); 2]);
}

fn terms(ends: Option<i64>) -> Terms {
    let ends = ends.map(|seconds| now() + SignedDuration::from_secs(seconds));
    Terms { ends, ..Terms::default() }
}

#[test]
fn what_comes_and_goes_is_not_asked_about() {
    let signed = Rule { signature: 1, ..rule(6, 443, 0) };
    let of_set = Rule { source_set: 3, flags: rule(6, 0, 0).flags | RULE_SOURCE_SET, ..rule(6, 80, 0) };
    let (ends, keeps_out) = (Rule { identity: 9, ..rule(6, 25, 0) }, Rule { identity: 8, ..rule(6, 23, 5) });
    let mut policy = policy(vec![signed, of_set, ends, keeps_out, rule(17, 53, 0)]);
    policy.terms.insert(9, terms(Some(1)));
    policy.terms.insert(8, Terms { quarantine: Some(Duration::from_mins(1)), ..Terms::default() });
    let probes = probes(&force(policy, None));
    assert_eq!(ports(&probes, Direction::Ingress, true), [Some(53); 2]);
    assert_eq!(ports(&probes, Direction::Ingress, false), [Some(1); 2]);
}

#[test]
fn rules_count_until_their_end_and_not_after_it() {
    for (seconds, allowed, refused) in [(3_600, 25, 53), (-3_600, 53, 25)] {
        let rules = vec![
            Rule { identity: 9, ..rule(6, 25, 0) },
            rule(6, 25, 1),
            Rule { identity: 9, ..rule(6, 53, 1) },
            rule(6, 53, 0),
        ];
        let mut policy = policy(rules);
        policy.terms.insert(9, terms(Some(seconds)));
        let probes = probes(&force(policy, None));
        assert_eq!(ports(&probes, Direction::Ingress, true), [Some(allowed); 2], "{seconds}");
        assert_eq!(ports(&probes, Direction::Ingress, false), [Some(refused); 2], "{seconds}");
    }
}

#[test]
fn limits_are_asked_about_where_nothing_else_is_allowed() {
    let limited = Rule { identity: 9, ..rule(6, 25, ACTION_RATE_LIMIT) };
    let limit = Terms { connections: Some(3), ..Terms::default() };
    for (more, expected) in [(vec![], 25), (vec![rule(6, 443, 0)], 443)] {
        let mut policy = policy([vec![limited], more].concat());
        policy.terms.insert(9, limit.clone());
        let probes = probes(&force(policy, None));
        assert_eq!(ports(&probes, Direction::Ingress, true), [Some(expected); 2]);
    }
}

#[test]
fn sets_are_asked_about_by_what_they_hold_for_good_and_by_what_they_never_held() {
    let of_set = |port, action| Rule {
        source_set: 3,
        flags: rule(6, 0, 0).flags | RULE_SOURCE_SET,
        ..rule(6, port, action)
    };
    let elements = |all: &[(&str, Option<Timestamp>)]| -> Elements {
        all.iter().map(|(net, end)| (net.parse().unwrap(), *end)).collect()
    };
    let rules = |written: &[(&str, Option<Timestamp>)], added: &[(&str, Option<Timestamp>)]| {
        let members = Members { written: Arc::new(elements(written)), added: elements(added) };
        let policy = policy(vec![of_set(80, 0), rule(6, 80, 1)]);
        let deciding = Rules { sets: BTreeMap::from([(3, members)]), ..of(policy.clone()) };
        InForce { deciding, ..force(policy, None) }
    };
    let sources = |probes: &[Probe], allowed: bool| -> Vec<String> {
        let those = probes.iter().filter(|it| it.direction == Direction::Ingress && it.allowed == allowed);
        those.map(|it| it.asked.question.source.to_string()).collect()
    };
    let written = [("192.0.2.8/30", None), ("198.51.100.0/24", None), ("2001:db8:7::/48", None)];
    let asked = probes(&rules(&written, &[]));
    assert_eq!(sources(&asked, true), ["192.0.2.9", "2001:db8:7::1"]);
    assert_eq!(sources(&asked, false), ["203.0.113.251", "2001:db8:ffff::fb"]);
    assert_eq!(ports(&asked, Direction::Ingress, false), [Some(80); 2]);
    // What was added at run time, or goes by itself, may be on its way in or out.
    let later = Some(now() + SignedDuration::from_hours(1));
    for (written, added) in [
        (vec![], vec![("0.0.0.0/0", None), ("::/0", None)]),
        (vec![("0.0.0.0/0", later), ("::/0", later)], vec![]),
    ] {
        let asked = probes(&rules(&written, &added));
        assert_eq!(sources(&asked, true), [""; 0]);
        assert_eq!(ports(&asked, Direction::Ingress, false), [Some(1); 2], "no rule with a set");
    }
    // A set that nobody knows of.
    assert_eq!(sources(&probes(&force(policy(vec![of_set(80, 0)]), None)), true), [""; 0]);
}

#[test]
fn what_a_tunnel_carries_is_asked_about_both_ways() {
    let addresses = ["10.9.0.5", "fd09::5"].map(|address| address.parse().unwrap()).into();
    let tunnel = Some(TunnelView { link: "wg7".to_owned(), addresses });
    let force = InForce { tunnel, ..force(policy(vec![rule(6, 443, 0)]), None) };
    let probes = probes(&force);
    let inside: Vec<_> = probes.iter().filter(|probe| probe.asked.tunnel.is_some()).collect();
    assert_eq!(inside.len() * 2, probes.len());
    for probe in inside {
        let Asked { question, tunnel } = &probe.asked;
        let into = probe.direction == Direction::Egress;
        assert_eq!((question.port.as_deref(), *tunnel), (Some("wg7"), Some(into)));
        let own = if into { question.source } else { question.target };
        assert!(own.to_string().ends_with("9.0.5") || own.to_string() == "fd09::5", "{own}");
    }
    let verdicts = vec![
        Judgement { segments: [SegmentId(7); 2], verdict: Verdict::Refused(Reason::NoPolicy) };
        probes.len()
    ];
    let last: Vec<_> = probes.iter().filter(|it| it.allowed && it.asked.tunnel.is_some()).cloned().collect();
    let said = compare(SegmentId(7), &last, &verdicts).unwrap_err();
    assert!(said.contains(" in wg7 is dropped (no_policy)"), "{said}");
}

#[test]
fn judgements_that_differ_are_told_and_those_by_others_are_none() {
    let mut probes = probes(&force(policy(vec![rule(6, 443, 0)]), None));
    probes.retain(|probe| probe.direction == Direction::Ingress && probe.asked.question.source.is_ipv4());
    let told = |allowed: Verdict, refused: Verdict| {
        let segments = [SegmentId(0), SegmentId(7)];
        let verdict = |probe: &Probe| if probe.allowed { allowed } else { refused };
        let all: Vec<Judgement> =
            probes.iter().map(|probe| Judgement { segments, verdict: verdict(probe) }).collect();
        compare(SegmentId(7), &probes, &all)
    };
    let refused = Verdict::Refused(Reason::DefaultDeny);
    assert_eq!(told(Verdict::Passes, refused), Ok(2));
    assert_eq!(told(Verdict::Established, refused), Ok(1));
    assert_eq!(told(Verdict::Refused(Reason::Quarantine), refused), Ok(1));
    let gone = told(Verdict::Refused(Reason::NoPolicy), refused).unwrap_err();
    assert!(gone.contains("to 10.0.0.5 port 443 is dropped (no_policy)"), "{gone}");
    let open = told(Verdict::Passes, Verdict::Passes).unwrap_err();
    assert!(open.ends_with("passes, though the rules refuse it"), "{open}");
    assert!(told(Verdict::NotOurs, refused).is_err());
    assert!(compare(SegmentId(7), &probes, &[]).is_err());
}
