//! Policies: the protocols, then the first rule that matches, then the default.

use std::net::IpAddr;

use hub_common::event::Reason;
use hub_common::rule::{
    ACTION_ALLOW, ACTION_DENY, ACTION_LOG, ACTION_PASS_ON, ACTION_QUARANTINE, ACTION_RATE_LIMIT,
    ACTION_REJECT, RULE_BASELINE, RULE_ICMP_CODE, RULE_ICMP_TYPE, RULE_PROTOCOL, RULE_SOURCE_PORT,
    RULE_SOURCE_SET, RULE_TARGET_PORT, RULE_TARGET_SET, RULE_V4, RULE_V6, Rule,
};

use super::{Enforcement, Headers, Limit, Model, Policy, Verdict, bit_of};

/// Which of a policy's two lists is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Packets towards members.
    Ingress,
    /// Packets from members.
    Egress,
}

/// What the policies of segments say.
impl Model {
    pub(super) fn audits(&self, segment: Option<u32>) -> bool {
        let policy = segment.and_then(|number| self.segments.get(&number)?.policy.as_ref());
        policy.is_some_and(|policy| policy.enforcement == Enforcement::Audit)
    }

    pub(super) fn generations(&self, segments: [Option<u32>; 2]) -> [u32; 2] {
        segments.map(|segment| segment.map_or(0, |number| self.segments[&number].set_generation))
    }

    pub(super) fn preserves(&self, segment: Option<u32>) -> bool {
        let policy = segment.and_then(|number| self.segments.get(&number)?.policy.as_ref());
        policy.is_some_and(|policy| policy.preserve)
    }

    pub(super) fn versions(&self, segments: [Option<u32>; 2]) -> [u32; 2] {
        segments.map(|segment| segment.map_or(0, |number| self.segments[&number].version))
    }
}

/// What a policy is asked about.
pub(super) struct Question<'a> {
    pub(super) model: &'a Model,
    pub(super) segment: u32,
    /// The flow's first packet.
    pub(super) packet: &'a Headers,
    /// Whether a flow begins.
    pub(super) is_new: bool,
    /// Whether the packet at hand goes the way of the first.
    pub(super) forward: bool,
    pub(super) now: u64,
}

/// What follows from an answer beside the verdict.
#[derive(Default)]
pub(super) struct Terms {
    /// A limit that later packets are held to.
    pub(super) limit: Option<u16>,
    /// A limit that this packet takes from.
    pub(super) take: Option<u16>,
    /// A limit that counts the flow.
    pub(super) counted: Option<u16>,
    /// The source goes into quarantine.
    pub(super) isolates: bool,
}

/// Asks a policy about the first packet of a flow; `Ok` lets it pass.
pub(super) fn ask(
    policy: &Policy,
    side: Side,
    question: &Question<'_>,
    terms: &mut Terms,
) -> Result<(), Verdict> {
    if policy.enforcement == Enforcement::Off {
        return Ok(());
    }
    let answer = enforced(policy, side, question, terms).and_then(|()| crowd(policy, side, question));
    if policy.enforcement == Enforcement::Audit {
        terms.isolates = false;
        return Ok(());
    }
    answer
}

fn enforced(policy: &Policy, side: Side, question: &Question<'_>, terms: &mut Terms) -> Result<(), Verdict> {
    let packet = question.packet;
    if !policy.protocols.contains(&packet.protocol) {
        return Err(Verdict::Drop(Reason::Protocol));
    }
    let (rules, default) = match side {
        Side::Ingress => (&policy.ingress, &policy.ingress_default),
        Side::Egress => (&policy.egress, &policy.egress_default),
    };
    let mut passed_on = false;
    for rule in rules {
        if passed_on && rule.flags & RULE_BASELINE != 0 {
            continue;
        }
        if matches(rule, packet) && holds_now(rule, question) {
            match rule.action {
                ACTION_PASS_ON => passed_on = true,
                ACTION_RATE_LIMIT => return limited(policy, rule.limit as u16, question, terms),
                ACTION_QUARANTINE => {
                    terms.isolates = true;
                    return Err(Verdict::Drop(Reason::Quarantine));
                }
                ACTION_ALLOW => return Ok(()),
                ACTION_DENY => return Err(Verdict::Drop(Reason::RuleDeny)),
                ACTION_REJECT => return Err(Verdict::Reject(Reason::RuleReject)),
                ACTION_LOG => {}
                other => panic!("rule with action {other}"),
            }
        }
    }
    if default.contains(&packet.protocol) {
        Ok(())
    } else if policy.default_reject {
        Err(Verdict::Reject(Reason::DefaultDeny))
    } else {
        Err(Verdict::Drop(Reason::DefaultDeny))
    }
}

fn holds_now(rule: &Rule, question: &Question<'_>) -> bool {
    let in_set = |set, address| question.model.is_in(question.segment, set, address, question.now);
    let ended = rule.expires_tick != 0 && question.now >= rule.expires_tick;
    !ended
        && (rule.flags & RULE_SOURCE_SET == 0 || in_set(rule.source_set, question.packet.source))
        && (rule.flags & RULE_TARGET_SET == 0 || in_set(rule.target_set, question.packet.target))
}

/// Refuses the first packet of a source that has as many connections with members as it may.
fn crowd(policy: &Policy, side: Side, question: &Question<'_>) -> Result<(), Verdict> {
    let most = question.model.segments[&question.segment].connections;
    match most.filter(|_| question.is_new && side == Side::Ingress) {
        Some(most) => one_more(policy, None, most, question),
        None => Ok(()),
    }
}

fn one_more(policy: &Policy, limit: Option<u16>, most: i64, question: &Question<'_>) -> Result<(), Verdict> {
    let is_crowded = question.model.is_crowded((question.segment, limit, question.packet.source), most);
    match (is_crowded, policy.default_reject) {
        (false, _) => Ok(()),
        (true, true) => Err(Verdict::Reject(Reason::ConnectionLimit)),
        (true, false) => Err(Verdict::Drop(Reason::ConnectionLimit)),
    }
}

fn limited(policy: &Policy, slot: u16, question: &Question<'_>, terms: &mut Terms) -> Result<(), Verdict> {
    let Limit { burst, per_packet, connections, .. } = question.model.limits[&slot];
    if let Some(most) = connections {
        terms.counted = Some(slot);
        if question.is_new {
            one_more(policy, Some(slot), most, question)?;
        }
    }
    if burst == u64::MAX {
        return Ok(());
    }
    terms.limit = per_packet.then_some(slot);
    if !question.forward || !(per_packet || question.is_new) {
        return Ok(());
    }
    if !question.model.has_room(slot, question.packet.source) {
        return Err(Verdict::Drop(Reason::RateLimit));
    }
    terms.take = Some(slot);
    Ok(())
}

fn matches(rule: &Rule, packet: &Headers) -> bool {
    let compares = |flag: u16| rule.flags & flag != 0;
    let within = |range: [u16; 2], port: u16| (range[0]..=range[1]).contains(&port);
    let all = [
        !compares(RULE_PROTOCOL) || rule.protocol == packet.protocol,
        !compares(RULE_V4) || packet.source.is_ipv4(),
        !compares(RULE_V6) || packet.source.is_ipv6(),
        !compares(RULE_SOURCE_PORT) || within(rule.source_port, packet.source_port),
        !compares(RULE_TARGET_PORT) || within(rule.target_port, packet.target_port),
        !compares(RULE_ICMP_TYPE) || rule.icmp_type == packet.icmp_type,
        !compares(RULE_ICMP_CODE) || rule.icmp_code == packet.icmp_code,
        packet.tcp_flags & rule.tcp_mask == rule.tcp_value,
        starts_with(packet.source, rule.source, rule.source_bits),
        starts_with(packet.target, rule.target, rule.target_bits),
    ];
    all.iter().all(|agrees| *agrees)
}

/// Whether the first `bits` bits of the address, IPv4 mapped into IPv6, are those of the prefix.
fn starts_with(address: IpAddr, prefix: [u8; 16], bits: u8) -> bool {
    let address = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    (0..bits).all(|bit| bit_of(&address, bit) == bit_of(&prefix, bit))
}
