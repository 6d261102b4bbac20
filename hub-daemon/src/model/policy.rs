//! A persona's rules, ready to compile.

use std::collections::BTreeMap;
use std::time::Duration;

use hub_common::application::Signature;
use hub_common::limit::Limit;
use hub_common::packet::Packet;
use hub_common::rule::{ACTION_ALLOW, ACTION_LOG, ACTION_PASS_ON, ACTION_RATE_LIMIT, RULE_BASELINE, Rule};
use hub_common::segment::has_protocol;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::rate::RateLimit;
use super::rule::Direction;

/// Rules of one persona as the data path wants them. Immutable: a change makes another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Permitted IP protocols, one bit each.
    pub protocols: [u32; 8],
    /// Protocols towards members that pass when no rule matches.
    pub ingress_default: [u32; 8],
    /// Protocols from members that pass when no rule matches.
    pub egress_default: [u32; 8],
    /// Compiled rules towards members; `index` is the position in the document.
    pub ingress: Vec<Rule>,
    /// Compiled rules from members.
    pub egress: Vec<Rule>,
    /// `hub_common::segment::POLICY_*` bits.
    pub flags: u32,
    /// Ports whose connections need no flow, by `hub_common::open::OPEN_*` place; empty where all are
    /// tracked.
    pub open: [PortRanges; 4],
    /// What first bytes of connections are compared with: `Rule::signature` is a position plus 1.
    pub signatures: Vec<Signature>,
    /// What rules say beside what they match, by their identity; most say nothing.
    pub terms: BTreeMap<u64, Terms>,
}

/// What rules say of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    /// Whether it may pass.
    pub allowed: bool,
    /// The rule that said so; none if the protocols or the default did.
    pub rule: Option<&'a Rule>,
}

impl Policy {
    /// What the rules of a direction say of a packet, where `matches` says which of them match it. A limit has room.
    pub fn says(
        &self,
        direction: Direction,
        packet: &Packet,
        mut matches: impl FnMut(&Rule) -> bool,
    ) -> Said<'_> {
        if !has_protocol(&self.protocols, packet.protocol) {
            return Said { allowed: false, rule: None };
        }
        let (rules, default) = match direction {
            Direction::Ingress => (&self.ingress, &self.ingress_default),
            Direction::Egress => (&self.egress, &self.egress_default),
        };
        let mut passed_on = false;
        for rule in rules {
            if (rule.flags & RULE_BASELINE != 0 && passed_on) || !matches(rule) {
                continue;
            }
            match rule.action {
                ACTION_LOG => {}
                ACTION_PASS_ON => passed_on = true,
                action => {
                    let allowed = action == ACTION_ALLOW || action == ACTION_RATE_LIMIT;
                    return Said { allowed, rule: Some(rule) };
                }
            }
        }
        Said { allowed: has_protocol(default, packet.protocol), rule: None }
    }
}

#[cfg(test)]
impl Policy {
    /// Rules towards members; everything else towards them is refused, and all that they send passes.
    pub(crate) fn towards_members(ingress: Vec<Rule>) -> Self {
        Self {
            protocols: [u32::MAX; 8],
            ingress_default: [0; 8],
            egress_default: [u32::MAX; 8],
            ingress,
            egress: Vec::new(),
            flags: 0,
            open: Default::default(),
            signatures: Vec::new(),
            terms: BTreeMap::new(),
        }
    }
}

/// What a rule says beside what it matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// When the rule ends.
    pub ends: Option<Timestamp>,
    /// With action `rate_limit`.
    pub rate: Option<RateLimit>,
    /// With action `quarantine`: how long a source stays there.
    pub quarantine: Option<Duration>,
    /// Connections of each source that the rule lets be at once.
    pub connections: Option<u32>,
}

impl Terms {
    /// The limit as the data path holds it, if there is one.
    pub fn limit(&self) -> Option<Limit> {
        let rate = self.rate.map(RateLimit::compiled);
        let connections = self.connections.map(|connections| Limit { connections, ..Limit::ZERO });
        match (rate, connections) {
            (Some(rate), Some(Limit { connections, .. })) => Some(Limit { connections, ..rate }),
            (rate, connections) => rate.or(connections),
        }
    }
}

/// First and last ports of ranges in order, none next to another.
pub type PortRanges = Vec<[u16; 2]>;

/// What a rule does.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Pass.
    Allow,
    /// Drop in silence.
    Deny,
    /// Drop and tell the sender: TCP reset, or ICMP administratively prohibited.
    Reject,
    /// Report and go on with the next rule.
    Log,
    /// As `log`, and raise an alert while packets match.
    Alert,
    /// Pass as long as a rate is not reached, else drop.
    RateLimit,
    /// Drop, and keep the source out for a while.
    Quarantine,
}

impl Action {
    /// Whether it decides, rather than report and leave the packet to the rules behind it.
    pub fn decides(self) -> bool {
        !matches!(self, Self::Log | Self::Alert)
    }
}
