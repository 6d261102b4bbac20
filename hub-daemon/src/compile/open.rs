//! Ports that a policy lets pass whatever else a packet says: what needs no flow and no rule.

use std::collections::BTreeMap;

use hub_common::open::{OPEN_TCP_EGRESS, OPEN_TCP_INGRESS, OPEN_UDP_EGRESS, OPEN_UDP_INGRESS};
use hub_common::packet::protocol;
use hub_common::rule::{ACTION_ALLOW, RULE_PROTOCOL, RULE_TARGET_PORT, Rule};
use hub_common::segment::has_protocol;

use crate::model::policy::{Policy, PortRanges, Terms};

/// The four sets of a policy, by `OPEN_*` place.
pub(super) fn sets(policy: &Policy) -> [PortRanges; 4] {
    let mut sets = [const { Vec::new() }; 4];
    for (place, number, rules, default) in [
        (OPEN_TCP_INGRESS, protocol::TCP, &policy.ingress, &policy.ingress_default),
        (OPEN_UDP_INGRESS, protocol::UDP, &policy.ingress, &policy.ingress_default),
        (OPEN_TCP_EGRESS, protocol::TCP, &policy.egress, &policy.egress_default),
        (OPEN_UDP_EGRESS, protocol::UDP, &policy.egress, &policy.egress_default),
    ] {
        if has_protocol(&policy.protocols, number)
            && let Some(set) = sets.get_mut(place)
        {
            *set = ranges(number, rules, has_protocol(default, number), &policy.terms);
        }
    }
    sets
}

/// Ports of one protocol and direction that the first rules in question let pass, as merged ranges.
fn ranges(number: u8, rules: &[Rule], default: bool, terms: &BTreeMap<u64, Terms>) -> PortRanges {
    let concerned: Vec<&Rule> =
        rules.iter().filter(|rule| rule.flags & RULE_PROTOCOL == 0 || rule.protocol == number).collect();
    let mut starts: Vec<u32> = vec![0];
    for rule in concerned.iter().filter(|rule| rule.flags & RULE_TARGET_PORT != 0) {
        let [first, last] = rule.target_port.map(u32::from);
        starts.extend([first, last + 1]);
    }
    starts.retain(|start| u16::try_from(*start).is_ok());
    starts.sort_unstable();
    starts.dedup();
    let ends = starts.iter().skip(1).map(|next| next - 1).chain([u32::from(u16::MAX)]);
    let mut open: PortRanges = Vec::new();
    for (start, end) in starts.iter().zip(ends) {
        let (start, end) = (*start as u16, end as u16);
        if !passes(&concerned, start, default, terms) {
            continue;
        }
        match open.last_mut() {
            Some([_, last]) if u32::from(*last) + 1 == u32::from(start) => *last = end,
            _ => open.push([start, end]),
        }
    }
    open
}

/// Whether the first rule that a packet to this port can match lets it pass by protocol and port alone.
fn passes(rules: &[&Rule], port: u16, default: bool, terms: &BTreeMap<u64, Terms>) -> bool {
    let covers = |rule: &&&Rule| {
        let [first, last] = rule.target_port;
        rule.flags & RULE_TARGET_PORT == 0 || (first..=last).contains(&port)
    };
    let stays = |rule: &Rule| terms.get(&rule.identity).is_none_or(|terms| terms.ends.is_none());
    rules
        .iter()
        .find(covers)
        .map_or(default, |rule| rule.action == ACTION_ALLOW && is_unconditional(rule) && stays(rule))
}

/// Whether the rule looks at protocol and target port and at nothing else, and does nothing but decide.
fn is_unconditional(rule: &Rule) -> bool {
    let bare = Rule {
        protocol: rule.protocol,
        target_port: rule.target_port,
        flags: rule.flags & (RULE_PROTOCOL | RULE_TARGET_PORT),
        action: rule.action,
        index: rule.index,
        identity: rule.identity,
        ..Rule::ZERO
    };
    *rule == bare
}

#[cfg(test)]
mod tests {
    use super::*;
    use hub_common::rule::{
        ACTION_DENY, ACTION_LOG, ACTION_PASS_ON, ACTION_RATE_LIMIT, RULE_BASELINE, RULE_SOURCE_SET, RULE_V4,
    };

    fn rule(action: u8, ports: [u16; 2]) -> Rule {
        let flags = RULE_PROTOCOL | RULE_TARGET_PORT;
        Rule { protocol: protocol::TCP, target_port: ports, action, flags, ..Rule::ZERO }
    }

    #[test]
    fn the_first_rule_that_can_match_decides() {
        let rules = [rule(ACTION_DENY, [22, 22]), rule(ACTION_ALLOW, [20, 30]), rule(ACTION_ALLOW, [31, 31])];
        assert_eq!(ranges(protocol::TCP, &rules, false, &BTreeMap::new()), [[20, 21], [23, 31]]);
        assert_eq!(ranges(protocol::TCP, &rules, true, &BTreeMap::new()), [[0, 21], [23, 65_535]]);
        assert_eq!(ranges(protocol::UDP, &rules, true, &BTreeMap::new()), [[0, 65_535]]);
    }

    #[test]
    fn whatever_asks_for_more_than_the_port_is_not_open() {
        let allow = rule(ACTION_ALLOW, [80, 80]);
        let conditions = [
            Rule { source_bits: 120, ..allow },
            Rule { target_bits: 128, ..allow },
            Rule { signature: 1, ..allow },
            Rule { tcp_mask: 2, ..allow },
            Rule { flags: allow.flags | RULE_V4, ..allow },
            Rule { flags: allow.flags | RULE_BASELINE, ..allow },
            Rule { source_set: 1, flags: allow.flags | RULE_SOURCE_SET, ..allow },
            rule(ACTION_RATE_LIMIT, [80, 80]),
            rule(ACTION_PASS_ON, [80, 80]),
            rule(ACTION_LOG, [80, 80]),
        ];
        for condition in conditions {
            assert_eq!(
                ranges(protocol::TCP, &[condition, allow], false, &BTreeMap::new()),
                PortRanges::new(),
                "{condition:?}"
            );
        }
        assert_eq!(ranges(protocol::TCP, &[allow], false, &BTreeMap::new()), [[80, 80]]);
        assert_eq!(
            ranges(protocol::TCP, &[rule(ACTION_ALLOW, [0, 65_535])], false, &BTreeMap::new()),
            [[0, 65_535]]
        );
    }

    #[test]
    fn a_rule_that_ends_opens_nothing() {
        let allow = Rule { identity: 7, ..rule(ACTION_ALLOW, [80, 80]) };
        let ends = Terms { ends: Some(jiff::Timestamp::MAX), ..Terms::default() };
        assert_eq!(
            ranges(protocol::TCP, &[allow], false, &BTreeMap::from([(7, ends.clone())])),
            PortRanges::new()
        );
        assert_eq!(ranges(protocol::TCP, &[allow], false, &BTreeMap::from([(8, ends)])), [[80, 80]]);
    }
}
