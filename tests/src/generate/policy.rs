//! Random policies.

use std::collections::BTreeSet;
use std::net::IpAddr;

use hub_common::rule::{
    ACTION_ALLOW, ACTION_DENY, ACTION_LOG, ACTION_PASS_ON, ACTION_QUARANTINE, ACTION_RATE_LIMIT,
    ACTION_REJECT, RULE_BASELINE, RULE_ICMP_CODE, RULE_ICMP_TYPE, RULE_LOG, RULE_PROTOCOL, RULE_SOURCE_PORT,
    RULE_SOURCE_SET, RULE_TARGET_PORT, RULE_TARGET_SET, RULE_V4, RULE_V6, Rule,
};

use super::lists::{LIMITS, SETS};
use super::{Random, World, masked};
use crate::model::{Enforcement, Policy};
use crate::packet::flags::{ACK, FIN, RST, SYN};

/// Protocols that packets and policies are about: ICMP, TCP, UDP, GRE, ICMPv6, SCTP, UDP-Lite.
pub(super) const PROTOCOLS: [u8; 7] = [1, 6, 17, 47, 58, 132, 136];
/// ICMP types of both families that rules speak of.
const ICMP_TYPES: [u8; 10] = [0, 3, 8, 9, 10, 13, 128, 129, 139, 151];

impl World {
    pub(super) fn policy(&mut self, random: &mut Random) -> Policy {
        let most = random.one_of(&[(30, 0), (40, 4), (25, 12), (5, 64)]);
        let mut policy = Policy {
            protocols: protocols(random, 92),
            ingress_default: protocols(random, 50),
            egress_default: protocols(random, 80),
            ingress: self.rules(random, most),
            egress: self.rules(random, most),
            preserve: random.chance(30),
            default_reject: random.chance(25),
            untracked: random.chance(40),
            enforcement: random.one_of(&[
                (92, Enforcement::Enforce),
                (5, Enforcement::Audit),
                (3, Enforcement::Off),
            ]),
        };
        // Who looks for addresses in quarantine looks at every packet.
        let quarantines = |rule: &Rule| rule.action == ACTION_QUARANTINE;
        policy.untracked &=
            self.model.quarantine.is_empty() && !policy.ingress.iter().chain(&policy.egress).any(quarantines);
        policy
    }

    fn rules(&mut self, random: &mut Random, most: usize) -> Vec<Rule> {
        let count = random.below(most + 1);
        let baseline = if random.chance(30) { random.below(count + 1) } else { 0 };
        let rules = (0..count).map(|index| {
            let mut rule = Rule { index: index as u16, ..self.rule(random) };
            if index < baseline {
                rule.flags |= RULE_BASELINE;
                if rule.action == ACTION_ALLOW && random.chance(70) {
                    rule.action = ACTION_PASS_ON;
                }
            }
            rule
        });
        rules.collect()
    }

    fn rule(&mut self, random: &mut Random) -> Rule {
        let mut rule = Rule::ZERO;
        rule.action = random.one_of(&[
            (48, ACTION_ALLOW),
            (25, ACTION_DENY),
            (13, ACTION_REJECT),
            (8, ACTION_LOG),
            (5, ACTION_RATE_LIMIT),
            (1, ACTION_QUARANTINE),
        ]);
        rule.limit = u32::from(LIMITS[random.below(LIMITS.len())]);
        rule.quarantine_ticks = u32::MAX;
        rule.expires_tick = random.one_of(&[(94, 0), (3, 1), (3, u64::MAX - 1)]);
        if random.chance(85) {
            rule.protocol =
                random.one_of(&[(40, 6), (25, 17), (10, 1), (10, 58), (5, 132), (5, 47), (5, 136)]);
            rule.flags |= RULE_PROTOCOL;
        }
        if random.chance(10) {
            rule.flags |= random.pick(&[RULE_V4, RULE_V6]).unwrap();
        }
        if random.chance(5) {
            rule.flags |= RULE_LOG;
        }
        if rule.flags & RULE_PROTOCOL == 0 || matches!(rule.protocol, 6 | 17 | 132 | 136) {
            self.rule_ports(random, &mut rule);
        }
        if matches!(rule.protocol, 1 | 58) {
            rule_icmp(random, &mut rule);
        }
        if rule.protocol == 6 && random.chance(10) {
            rule.tcp_mask = random.pick(&[SYN, SYN | ACK, SYN | ACK | RST | FIN, RST]).unwrap();
            rule.tcp_value = random.pick(&[SYN, 0, ACK]).unwrap() & rule.tcp_mask;
        }
        if random.chance(30) {
            (rule.source, rule.source_bits) = self.rule_prefix(random, rule.flags);
        }
        if random.chance(8) {
            (rule.source_set, rule.flags) = (1 + random.below(SETS) as u32, rule.flags | RULE_SOURCE_SET);
        }
        if random.chance(5) {
            (rule.target_set, rule.flags) = (1 + random.below(SETS) as u32, rule.flags | RULE_TARGET_SET);
        }
        if random.chance(30) {
            (rule.target, rule.target_bits) = self.rule_prefix(random, rule.flags);
        }
        rule
    }

    fn rule_ports(&mut self, random: &mut Random, rule: &mut Rule) {
        if random.chance(60) {
            rule.target_port = self.port_range(random);
            rule.flags |= RULE_TARGET_PORT;
        }
        if random.chance(15) {
            rule.source_port = self.port_range(random);
            rule.flags |= RULE_SOURCE_PORT;
        }
    }

    /// A range of ports; its ends and their neighbours become ports of packets.
    fn port_range(&mut self, random: &mut Random) -> [u16; 2] {
        let first = if random.chance(60) { random.pick(&self.ports).unwrap() } else { random.word() };
        let width = random.one_of(&[(60, 0), (20, 1), (10, 100), (5, 20_000), (5, u16::MAX)]);
        let range = [first, first.saturating_add(width)];
        if self.ports.len() < 40 {
            self.ports.extend([range[0], range[1], range[0].wrapping_sub(1), range[1].wrapping_add(1)]);
        }
        range
    }

    fn rule_prefix(&self, random: &mut Random, flags: u16) -> ([u8; 16], u8) {
        let address = match random.below(10) {
            0..4 => random.pick(&self.remotes).unwrap(),
            4..9 => random.pick(&self.members).unwrap(),
            _ => return ([0; 16], 0),
        };
        let wrong_family = flags & if address.is_ipv4() { RULE_V6 } else { RULE_V4 } != 0;
        if wrong_family {
            return ([0; 16], 0);
        }
        let bits = match address {
            IpAddr::V4(_) => random.pick(&[0, 8, 16, 23, 24, 25, 31, 32]).unwrap(),
            IpAddr::V6(_) => random.pick(&[1, 32, 48, 63, 64, 65, 96, 127, 128]).unwrap(),
        };
        match masked(address, bits) {
            IpAddr::V4(v4) => (v4.to_ipv6_mapped().octets(), bits + 96),
            IpAddr::V6(v6) => (v6.octets(), bits),
        }
    }
}

fn rule_icmp(random: &mut Random, rule: &mut Rule) {
    if random.chance(60) {
        rule.icmp_type = random.pick(&ICMP_TYPES).unwrap();
        rule.flags |= RULE_ICMP_TYPE;
        if random.chance(30) {
            rule.icmp_code = random.below(2) as u8;
            rule.flags |= RULE_ICMP_CODE;
        }
    }
}

fn protocols(random: &mut Random, percent: usize) -> BTreeSet<u8> {
    let mut set: BTreeSet<u8> = PROTOCOLS.into_iter().filter(|_| random.chance(percent)).collect();
    if random.chance(20) {
        set.insert(random.byte());
    }
    set
}
