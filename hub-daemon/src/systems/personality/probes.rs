//! Packets that show whether the loaded programs judge as the rules of an interface say: of each family and direction
//! one that is allowed and one that is refused, and rather those that the personality beside would judge otherwise.
//!
//! They are made of the rules themselves and judged here by the same matcher, but only where nothing that comes and
//! goes has a say: sets, limits, ends and first bytes. The far end is an address that nobody has (RFC 5737, RFC 3849)
//! unless a rule names others.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use hub_common::address::{self, Address};
use hub_common::event::Reason;
use hub_common::packet::{PACKET_V4, PACKET_V6, Packet, TCP_SYN, protocol};
use hub_common::rule::{RULE_PROTOCOL, RULE_SOURCE_PORT, RULE_TARGET_PORT, RULE_V4, RULE_V6, Rule};
use hub_common::segment::{POLICY_AUDIT, POLICY_OFF};

use crate::datapath_view::Question;
use crate::judgement::{Judgement, Verdict};
use crate::model::SegmentId;
use crate::model::policy::Policy;
use crate::model::rule::Direction;

/// Rules of one direction that packets are made of.
const RULES: usize = 32;
const FAR: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 251)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0xfb)),
];
/// Ports that no service is on, for packets that no rule asks for.
const PORTS: [u16; 3] = [1, 4, 26];
/// Port that the packets come from, unless a rule names others: no connection does.
const SOURCE_PORT: u16 = 9;
/// Where packets come in that go to members: from the hub itself.
const HOST: &str = "host";
/// What refuses packets beside rules: who is in quarantine, and where they lead.
const BESIDE: [Reason; 5] =
    [Reason::Quarantine, Reason::HubLocal, Reason::InterPersona, Reason::RateLimit, Reason::ConnectionLimit];

/// What is in force on an interface: whose packets are judged by what.
#[derive(Clone, Debug, PartialEq)]
pub struct InForce {
    /// Whose packets they are to the data path.
    pub segment: SegmentId,
    /// Where they come in that members send.
    pub port: String,
    /// A member of each family.
    pub members: Vec<IpAddr>,
    /// The rules that decide.
    pub policy: Arc<Policy>,
    /// Those of the personality beside.
    pub other: Option<Arc<Policy>>,
}

/// A packet, and what the rules say of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// The packet.
    pub question: Question,
    direction: Direction,
    allowed: bool,
}

/// Packets to have judged, at most eight.
pub fn probes(force: &InForce) -> Vec<Probe> {
    let mut probes = Vec::new();
    for (direction, member) in
        Direction::ALL.into_iter().flat_map(|way| force.members.iter().map(move |it| (way, *it)))
    {
        let mut found: [Option<(Probe, bool)>; 2] = [None, None];
        for question in suggestions(force, direction, member) {
            let packet = packet(&question);
            let Some(allowed) = said(&force.policy, direction, &packet) else { continue };
            let other = force.other.as_ref().and_then(|other| said(other, direction, &packet));
            let tells = other.is_some_and(|other| other != allowed);
            let [refused, passing] = &mut found;
            let place = if allowed { passing } else { refused };
            if place.as_ref().is_none_or(|(_, told)| tells && !told) {
                *place = Some((Probe { question, direction, allowed }, tells));
            }
        }
        probes.extend(found.into_iter().flatten().map(|(probe, _)| probe));
    }
    probes
}

/// Packets that rules may speak of, and some that they may not.
fn suggestions(force: &InForce, direction: Direction, member: IpAddr) -> Vec<Question> {
    let rules = [Some(&force.policy), force.other.as_ref()].into_iter().flatten().flat_map(|policy| {
        let rules = match direction {
            Direction::Ingress => &policy.ingress,
            Direction::Egress => &policy.egress,
        };
        rules.iter().take(RULES)
    });
    let question = |protocol: &str, far: IpAddr, ports: (u16, Option<u16>)| {
        let (source, target, port) = match direction {
            Direction::Ingress => (far, member, HOST.to_owned()),
            Direction::Egress => (member, far, force.port.clone()),
        };
        let source_port = (protocol != "icmp").then_some(ports.0);
        let (protocol, target_port) = (protocol.to_owned(), ports.1);
        Question { protocol, source, source_port, target, target_port, port: Some(port) }
    };
    let mut all: Vec<Question> = Vec::new();
    for rule in rules {
        let Some(protocol) = spoken(rule, member) else { continue };
        let (address, bits) = match direction {
            Direction::Ingress => (rule.source, rule.source_bits),
            Direction::Egress => (rule.target, rule.target_bits),
        };
        let far = if bits == 0 { far(member) } else { one_of(address, bits) };
        if far.is_ipv4() != member.is_ipv4() {
            continue;
        }
        let [first, _] = rule.target_port;
        let target = (rule.flags & RULE_TARGET_PORT != 0).then_some(first).or(Some(PORTS[0]));
        let [first, _] = rule.source_port;
        let source = if rule.flags & RULE_SOURCE_PORT != 0 { first } else { SOURCE_PORT };
        all.push(question(protocol, far, (source, target.filter(|_| protocol != "icmp"))));
    }
    for port in PORTS {
        all.extend(["tcp", "udp"].map(|protocol| question(protocol, far(member), (SOURCE_PORT, Some(port)))));
    }
    all.push(question("icmp", far(member), (SOURCE_PORT, None)));
    all
}

/// A protocol that a rule speaks of, if it is one that questions are asked with.
fn spoken(rule: &Rule, member: IpAddr) -> Option<&'static str> {
    if rule.flags & if member.is_ipv4() { RULE_V6 } else { RULE_V4 } != 0 {
        return None;
    }
    match rule.protocol {
        _ if rule.flags & RULE_PROTOCOL == 0 => Some("tcp"),
        protocol::TCP => Some("tcp"),
        protocol::UDP => Some("udp"),
        protocol::ICMP | protocol::ICMPV6 => Some("icmp"),
        _ => None,
    }
}

fn far(member: IpAddr) -> IpAddr {
    let [v4, v6] = FAR;
    if member.is_ipv4() { v4 } else { v6 }
}

/// An address of a prefix, the first host where there is one.
fn one_of(mut prefix: Address, bits: u8) -> IpAddr {
    if let ([.., last], 0..=126) = (&mut prefix, bits) {
        *last |= 1;
    }
    IpAddr::V6(Ipv6Addr::from(prefix)).to_canonical()
}

/// The packet of a question as matchers see it.
fn packet(question: &Question) -> Packet {
    let v4 = question.source.is_ipv4();
    let (number, echo) = match question.protocol.as_str() {
        "tcp" => (protocol::TCP, 0),
        "udp" => (protocol::UDP, 0),
        _ if v4 => (protocol::ICMP, 8),
        _ => (protocol::ICMPV6, 128),
    };
    Packet {
        source: address::of(question.source),
        target: address::of(question.target),
        source_port: question.source_port.unwrap_or_default(),
        target_port: question.target_port.unwrap_or_default(),
        protocol: number,
        kind: echo,
        icmp_type: echo,
        tcp_flags: if number == protocol::TCP { TCP_SYN } else { 0 },
        flags: if v4 { PACKET_V4 } else { PACKET_V6 },
        ..Packet::ZERO
    }
}

/// Whether rules allow a packet; nothing where something that comes and goes has a say.
fn said(policy: &Policy, direction: Direction, packet: &Packet) -> Option<bool> {
    if policy.flags & (POLICY_OFF | POLICY_AUDIT) != 0 {
        return None;
    }
    let unsure = Cell::new(false);
    let said = policy.says(direction, packet, |rule| {
        let matches = rule.matches(packet, 0, |_, _| {
            unsure.set(true);
            0
        }) != 0;
        if matches && (rule.signature != 0 || policy.terms.contains_key(&rule.identity)) {
            unsure.set(true);
        }
        matches
    });
    (!unsure.get()).then_some(said.allowed)
}

/// Compares what the programs say with what the rules say: how many packets they were judged by, or the first that
/// they judge otherwise.
pub fn compare(segment: SegmentId, probes: &[Probe], judgements: &[Judgement]) -> Result<usize, String> {
    if judgements.len() < probes.len() {
        return Err("the programs did not answer".to_owned());
    }
    let mut told = 0;
    for (probe, judgement) in probes.iter().zip(judgements) {
        told += usize::from(one(segment, probe, judgement)?);
    }
    Ok(told)
}

/// Whether a judgement was by rules, and as they say.
fn one(segment: SegmentId, probe: &Probe, judgement: &Judgement) -> Result<bool, String> {
    let Question { protocol, source, target, target_port, .. } = &probe.question;
    let port = target_port.map_or_else(String::new, |port| format!(" port {port}"));
    let words = format!("{protocol} from {source} to {target}{port}");
    let [sender, receiver] = judgement.segments;
    let whose = if probe.direction == Direction::Egress { sender } else { receiver };
    match judgement.verdict {
        Verdict::Established => Ok(false),
        Verdict::Refused(reason) if BESIDE.contains(&reason) => Ok(false),
        Verdict::Refused(_) if !probe.allowed => Ok(true),
        Verdict::Refused(reason) => {
            Err(format!("{words} is dropped ({}), though the rules allow it", reason.name()))
        }
        Verdict::NotOurs => Err(format!("{words} is judged by no rules")),
        Verdict::Passes if whose != segment => Err(format!("{words} is judged by other rules")),
        Verdict::Passes if probe.allowed => Ok(true),
        Verdict::Passes => Err(format!("{words} passes, though the rules refuse it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            policy: Arc::new(policy),
            other: other.map(Arc::new),
        }
    }

    fn ports(probes: &[Probe], direction: Direction, allowed: bool) -> Vec<Option<u16>> {
        let those = probes.iter().filter(|it| it.direction == direction && it.allowed == allowed);
        those.map(|it| it.question.target_port).collect()
    }

    #[test]
    fn what_is_allowed_and_what_is_refused_is_asked_about_in_both_families() {
        let probes = probes(&force(policy(vec![rule(6, 443, 0), rule(6, 22, 1)]), None));
        assert_eq!(ports(&probes, Direction::Ingress, true), [Some(443); 2]);
        assert_eq!(ports(&probes, Direction::Ingress, false), [Some(22); 2]);
        assert_eq!(ports(&probes, Direction::Egress, true).len(), 2);
        assert_eq!(ports(&probes, Direction::Egress, false), [None; 2], "ICMP is no protocol of it");
        assert_eq!(probes.iter().filter(|it| it.question.source.is_ipv4()).count() * 2, probes.len());
    }

    #[test]
    fn packets_tell_two_personalities_apart_where_any_does() {
        let live = policy(vec![rule(6, 443, 0), rule(6, 8080, 0), rule(6, 22, 1)]);
        let other = policy(vec![rule(6, 443, 0), rule(6, 22, 1), rule(6, 4, 0)]);
        let probes = probes(&force(live, Some(other)));
        assert_eq!(ports(&probes, Direction::Ingress, true), [Some(8080); 2]);
        assert_eq!(ports(&probes, Direction::Ingress, false), [Some(4); 2]);
    }

    #[test]
    fn what_comes_and_goes_is_not_asked_about() {
        let signed = Rule { signature: 1, ..rule(6, 443, 0) };
        let of_set = Rule { source_set: 3, flags: rule(6, 0, 0).flags | 1 << 8, ..rule(6, 80, 0) };
        let mut policy =
            policy(vec![signed, of_set, Rule { identity: 9, ..rule(6, 25, 0) }, rule(17, 53, 0)]);
        policy.terms.insert(9, crate::model::policy::Terms::default());
        let probes = probes(&force(policy, None));
        assert_eq!(ports(&probes, Direction::Ingress, true), [Some(53); 2]);
    }

    #[test]
    fn judgements_that_differ_are_told_and_those_by_others_are_none() {
        let mut probes = probes(&force(policy(vec![rule(6, 443, 0)]), None));
        probes.retain(|probe| probe.direction == Direction::Ingress && probe.question.source.is_ipv4());
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
}
