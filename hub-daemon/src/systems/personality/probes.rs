//! Packets that show whether the loaded programs judge as the rules of an interface say: of each family and direction
//! one that is allowed and one that is refused, and rather those that the personality beside would judge otherwise.
//!
//! They are made of the rules themselves and judged here by the same matcher, but only where nothing that comes and
//! goes has a say: first bytes, elements that sets have for a while or got at run time, ends that are near, and who is
//! put in quarantine. A limit that is used up says nothing either; nobody's part of it is taken. The far end is an
//! address that nobody has (RFC 5737, RFC 3849) unless a rule names others.

mod force;

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hub_common::address::{self, Address};
use hub_common::event::Reason;
use hub_common::packet::{PACKET_V4, PACKET_V6, Packet, TCP_SYN, protocol};
use hub_common::rule::{
    RULE_PROTOCOL, RULE_SOURCE_PORT, RULE_SOURCE_SET, RULE_TARGET_PORT, RULE_TARGET_SET, RULE_V4, RULE_V6,
    Rule,
};
use hub_common::segment::{POLICY_AUDIT, POLICY_OFF};
use jiff::{SignedDuration, Timestamp};

use crate::datapath_view::Question;
use crate::judgement::{Asked, Judgement, Verdict};
use crate::model::SegmentId;
use crate::model::rule::Direction;

pub use self::force::{InForce, Members, Rules};

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
/// An end of a rule that is nearer is not relied on: the programs ask another clock, and a bit later.
const NEAR: SignedDuration = SignedDuration::from_secs(2);
/// Where packets come in that go to members: from the hub itself.
const HOST: &str = "host";
/// What refuses packets beside rules: who is in quarantine, and where they lead.
const BESIDE: [Reason; 5] =
    [Reason::Quarantine, Reason::HubLocal, Reason::InterPersona, Reason::RateLimit, Reason::ConnectionLimit];

/// A packet, and what the rules say of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// The packet.
    pub asked: Asked,
    direction: Direction,
    allowed: bool,
}

/// How much is found out by a packet: whether it tells two personalities apart, and whether no limit may keep the
/// answer back.
type Worth = (bool, bool);

/// Packets to have judged at a time, at most eight, and as many in a tunnel.
pub fn probes(force: &InForce, now: Timestamp) -> Vec<Probe> {
    let inside = force.tunnel.iter().flat_map(|tunnel| {
        let first = |v4: bool| tunnel.addresses.iter().copied().find(|address| address.is_ipv4() == v4);
        [true, false].into_iter().filter_map(first).map(move |address| (address, Some(tunnel)))
    });
    let members: Vec<_> = force.members.iter().map(|member| (*member, None)).chain(inside).collect();
    let mut probes = Vec::new();
    for (direction, (member, tunnel)) in
        Direction::ALL.into_iter().flat_map(|way| members.iter().map(move |it| (way, *it)))
    {
        let mut found: [Option<(Probe, Worth)>; 2] = [None, None];
        for mut question in suggestions(force, direction, member) {
            let packet = packet(&question);
            let Some(said) = said(&force.deciding, direction, &packet, now) else { continue };
            let other = force.other.as_ref().and_then(|other| self::said(other, direction, &packet, now));
            let worth = (other.is_some_and(|other| other.allowed != said.allowed), !said.limited);
            let [refused, passing] = &mut found;
            let place = if said.allowed { passing } else { refused };
            if place.as_ref().is_none_or(|(_, before)| worth > *before) {
                if let Some(tunnel) = tunnel {
                    question.port = Some(tunnel.link.clone());
                }
                let tunnel = tunnel.map(|_| direction == Direction::Egress);
                let asked = Asked { question, tunnel };
                *place = Some((Probe { asked, direction, allowed: said.allowed }, worth));
            }
        }
        probes.extend(found.into_iter().flatten().map(|(probe, _)| probe));
    }
    probes
}

/// Packets that rules may speak of, and some that they may not.
fn suggestions(force: &InForce, direction: Direction, member: IpAddr) -> Vec<Question> {
    let rules = [Some(&force.deciding), force.other.as_ref()].into_iter().flatten().flat_map(|of| {
        let rules = match direction {
            Direction::Ingress => &of.policy.ingress,
            Direction::Egress => &of.policy.egress,
        };
        rules.iter().take(RULES).map(|rule| (rule, &of.sets))
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
    for (rule, sets) in rules {
        let Some(protocol) = spoken(rule, member) else { continue };
        let (address, bits, set) = match direction {
            Direction::Ingress => (
                rule.source,
                rule.source_bits,
                (rule.flags & RULE_SOURCE_SET != 0).then_some(rule.source_set),
            ),
            Direction::Egress => (
                rule.target,
                rule.target_bits,
                (rule.flags & RULE_TARGET_SET != 0).then_some(rule.target_set),
            ),
        };
        let of_set = set.and_then(|set| sets.get(&set)?.one(member.is_ipv4()));
        let far = of_set.unwrap_or_else(|| if bits == 0 { far(member) } else { one_of(address, bits) });
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

/// What rules say of a packet.
#[derive(Clone, Copy)]
struct Said {
    allowed: bool,
    /// Whether a limit may refuse it all the same.
    limited: bool,
}

/// What rules say of a packet at a time; nothing where something that comes and goes has a say.
fn said(rules: &Rules, direction: Direction, packet: &Packet, now: Timestamp) -> Option<Said> {
    let policy = &rules.policy;
    if policy.flags & (POLICY_OFF | POLICY_AUDIT) != 0 {
        return None;
    }
    let unsure = Cell::new(false);
    let said = policy.says(direction, packet, |rule| {
        // The end of a rule is asked of its terms: a tick of the programs says nothing here.
        let terms = policy.terms.get(&rule.identity);
        let left = terms.and_then(|terms| terms.ends).map(|end| end.duration_since(now));
        if left.is_some_and(|left| left <= -NEAR) {
            return false;
        }
        let sets_agree = Cell::new(true);
        let matches = rule.matches(packet, 0, |set, address| {
            let address = IpAddr::V6(Ipv6Addr::from(*address)).to_canonical();
            let has = rules.sets.get(&set).and_then(|members| members.has(address));
            sets_agree.set(sets_agree.get() && has.is_some());
            if has == Some(false) { 0 } else { u64::MAX }
        }) != 0;
        let is_quarantine = terms.is_some_and(|terms| terms.quarantine.is_some());
        let is_near = left.is_some_and(|left| left < NEAR);
        if matches && (!sets_agree.get() || rule.signature != 0 || is_quarantine || is_near) {
            unsure.set(true);
        }
        matches
    });
    let terms = said.rule.and_then(|rule| policy.terms.get(&rule.identity));
    let limited = terms.is_some_and(|terms| terms.limit().is_some());
    (!unsure.get()).then_some(Said { allowed: said.allowed, limited })
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
    let Question { protocol, source, target, target_port, port, .. } = &probe.asked.question;
    let inside = port.as_ref().filter(|_| probe.asked.tunnel.is_some());
    let inside = inside.map_or_else(String::new, |tunnel| format!(" in {tunnel}"));
    let port = target_port.map_or_else(String::new, |port| format!(" port {port}"));
    let words = format!("{protocol} from {source} to {target}{port}{inside}");
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
mod tests;
