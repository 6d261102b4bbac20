//! Policies: the protocols, then the first rule that matches, then the default.

use std::net::IpAddr;

use hub_common::event::Reason;
use hub_common::rule::{
    ACTION_ALLOW, ACTION_DENY, ACTION_LOG, ACTION_REJECT, RULE_ICMP_CODE, RULE_ICMP_TYPE, RULE_PROTOCOL,
    RULE_SOURCE_PORT, RULE_TARGET_PORT, RULE_V4, RULE_V6, Rule,
};

use super::{Headers, Policy, Verdict, bit_of};

/// Which of a policy's two lists is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Packets towards members.
    Ingress,
    /// Packets from members.
    Egress,
}

/// Asks a policy about the first packet of a flow; `Ok` lets it pass.
pub(super) fn ask(policy: &Policy, side: Side, packet: &Headers) -> Result<(), Verdict> {
    if !policy.protocols.contains(&packet.protocol) {
        return Err(Verdict::Drop(Reason::Protocol));
    }
    let (rules, default) = match side {
        Side::Ingress => (&policy.ingress, &policy.ingress_default),
        Side::Egress => (&policy.egress, &policy.egress_default),
    };
    for rule in rules {
        if matches(rule, packet) {
            match rule.action {
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
