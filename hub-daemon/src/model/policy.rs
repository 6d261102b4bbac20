//! A persona's rules, ready to compile.

use std::collections::BTreeMap;
use std::time::Duration;

use hub_common::application::Signature;
use hub_common::limit::Limit;
use hub_common::rule::Rule;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::rate::RateLimit;

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
    /// Pass as long as a rate is not reached, else drop.
    RateLimit,
    /// Drop, and keep the source out for a while.
    Quarantine,
}
