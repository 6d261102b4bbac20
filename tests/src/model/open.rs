//! Connections that need no memory: both policies let them pass, and their answers, by ports alone.

use std::net::IpAddr;

use hub_common::rule::{ACTION_ALLOW, RULE_PROTOCOL, RULE_TARGET_PORT, Rule};

use super::{Enforcement, Life, Model, Policy, Tuple};

/// Whether the first rule that could match a packet to this port lets it pass whatever else it says.
fn is_open(policy: &Policy, ingress: bool, protocol: u8, port: u16) -> bool {
    let (rules, default) = if ingress {
        (&policy.ingress, &policy.ingress_default)
    } else {
        (&policy.egress, &policy.egress_default)
    };
    let decides = policy.untracked && policy.enforcement == Enforcement::Enforce;
    if !decides || ![6, 17].contains(&protocol) || !policy.protocols.contains(&protocol) {
        return false;
    }
    for rule in rules {
        let of_protocol = rule.flags & RULE_PROTOCOL == 0 || rule.protocol == protocol;
        let [first, last] = rule.target_port;
        let of_port = rule.flags & RULE_TARGET_PORT == 0 || (first <= port && port <= last);
        if of_protocol && of_port {
            return rule.action == ACTION_ALLOW && looks_at_nothing_else(rule);
        }
    }
    default.contains(&protocol)
}

fn looks_at_nothing_else(rule: &Rule) -> bool {
    rule.flags & !(RULE_PROTOCOL | RULE_TARGET_PORT) == 0
        && rule.tcp_mask == 0
        && rule.tcp_value == 0
        && rule.source_bits == 0
        && rule.target_bits == 0
        && rule.expires_tick == 0
}

/// All open ports of a policy in one direction, one by one at the ends of its rules' ranges: first and last
/// of each run.
pub fn open_ports(policy: &Policy, ingress: bool, protocol: u8) -> Vec<[u16; 2]> {
    let rules = if ingress { &policy.ingress } else { &policy.egress };
    let mut edges = vec![0, u32::from(u16::MAX) + 1];
    for rule in rules {
        edges.extend([u32::from(rule.target_port[0]), u32::from(rule.target_port[1]) + 1]);
    }
    edges.sort_unstable();
    edges.dedup();
    let runs = edges.windows(2).map(|edge| [edge[0] as u16, (edge[1] - 1) as u16]);
    runs.filter(|run| is_open(policy, ingress, protocol, run[0])).collect()
}

impl Model {
    /// Whether a connection between these segments is not remembered.
    pub(super) fn is_untracked(&self, tuple: Tuple, segments: [Option<u32>; 2], now: u64) -> bool {
        let live = |number: u32| &self.segments[&number];
        let active = segments.iter().flatten().all(|number| {
            let segment = live(*number);
            // What is capped, and so looked at packet by packet, is tracked.
            segment.life == Life::Active
                && now < segment.drains_tick
                && !segment.capped
                && segment.connections.is_none()
        });
        let may_talk = match segments {
            [Some(a), Some(b)] => a == b || self.peers.contains(&(a.min(b), a.max(b))),
            _ => true,
        };
        let lets = |number: Option<u32>, away: u16, home: u16| {
            number.is_none_or(|number| {
                live(number).policy.as_ref().is_some_and(|policy| {
                    is_open(policy, false, tuple.protocol, away)
                        && is_open(policy, true, tuple.protocol, home)
                })
            })
        };
        // Members may begin nothing with the hub, and ports do not tell who began.
        let with_hub = self.locals.contains(&tuple.source) || self.locals.contains(&tuple.target);
        active
            && may_talk
            && !with_hub
            && [6, 17].contains(&tuple.protocol)
            && lets(segments[0], tuple.target_port, tuple.source_port)
            && lets(segments[1], tuple.source_port, tuple.target_port)
    }

    /// The segment of an address of a quoted packet; the hub's own are nobody's.
    pub(super) fn segment_of_quoted(&self, address: IpAddr) -> Option<u32> {
        self.segment_of(address).filter(|_| !self.locals.contains(&address))
    }
}
