//! What a change of policy means for the connections that there are: which go on, which end, and which of those are
//! waited for.
//!
//! The rules are asked as the data path asks them when it judges a flow again: about its first packet, by the same
//! matcher. What they said first is what was heard of them. Limits have room. Addresses are those that the hub knows, also where members know others.

mod waited;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::time::Duration;

use aya::maps::IterableMap as _;
use hub_common::address::Address;
use hub_common::application::{HEARD_WAITS, Signature};
use hub_common::flow::{FLOW_TCP_CLOSED, FLOW_TWO_WAY, Flow, FlowKey};
use hub_common::packet::{PACKET_V4, PACKET_V6, Packet, TCP_SYN, protocol};
use hub_common::rule::{ACTION_ALLOW, ACTION_RATE_LIMIT, RULE_BASELINE, Rule};
use hub_common::segment::{POLICY_AUDIT, POLICY_OFF, POLICY_PRESERVE, has_protocol};
use jiff::Timestamp;

pub use self::waited::Waited;
pub(crate) use self::waited::{again, walk};
use super::batch;
use super::clock::Clock;
use super::counts::SYNTHETIC;
use super::flow_list::view;
use super::maps::{Maps, at, present};
use super::names::ip;
use super::reader::ReadError;
use crate::command::switch::Connection;
use crate::datapath_view::{DecidedBy, ImpactedFlow, Impacts};
use crate::model::SegmentId;
use crate::model::policy::Policy;
use crate::model::rule::Direction;

/// UDP and others count if their last packet is this young.
const TWO_WAY_CUTOFF: Duration = Duration::from_secs(10);

/// A policy to come, and which connections are waited for.
pub struct Change<'a> {
    /// Whose connections.
    pub segment: SegmentId,
    /// What they will be judged by.
    pub policy: &'a Policy,
    /// How many of its rules, in front of the others, no document says.
    pub inserted: u16,
    /// Whether a set of the segment, by number, will hold an address.
    pub in_set: &'a dyn Fn(u32, IpAddr) -> bool,
    /// TCP that is silent for longer is not waited for.
    pub idle_cutoff: Duration,
    /// Whether UDP and others are waited for at all.
    pub drain_udp: bool,
    /// Protocols and ports of the host that stay reachable: nobody waits for connections to them.
    pub failsafe: &'a BTreeSet<(u8, u16)>,
    /// Both ends of the one connection, of TCP, that is not waited for: who ordered the change.
    pub exempt: Option<Connection>,
    /// When the change is to be.
    pub now: Timestamp,
}

/// What the policy to come says of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fate {
    survives: bool,
    by: DecidedBy,
    /// Position of the rule of the document that said so.
    rule: Option<u16>,
}

impl Fate {
    fn new(survives: bool, by: DecidedBy) -> Self {
        Self { survives, by, rule: None }
    }
}

impl Change<'_> {
    /// Whether a connection is waited for.
    fn is_active(&self, key: &FlowKey, flow: &Flow, idle: Duration) -> bool {
        let ends = [(ip(&key.low), key.low_port), (ip(&key.high), key.high_port)];
        let (_, target_port) = if flow.from_high == 0 { ends[1] } else { ends[0] };
        if self.failsafe.contains(&(key.protocol, target_port)) {
            return false;
        }
        match key.protocol {
            protocol::TCP => {
                let ordered = self.exempt.is_some_and(|[a, b]| ends == [a, b] || ends == [b, a]);
                flow.state != FLOW_TCP_CLOSED && idle <= self.idle_cutoff && !ordered
            }
            protocol::ICMP | protocol::ICMPV6 => false,
            _ => self.drain_udp && flow.state == FLOW_TWO_WAY && idle <= TWO_WAY_CUTOFF,
        }
    }

    /// `table` has the signatures of the data path by slot.
    fn fate(&self, key: &FlowKey, flow: &Flow, table: &[Signature]) -> Fate {
        let first = first_packet(key, flow);
        let mut decided = Fate::new(true, DecidedBy::Default);
        for side in 0..2 {
            if flow.segment.get(side) != Some(&self.segment.0) {
                continue;
            }
            let fate = self.asked(&first, side == 0, &|rule| self.bears(rule, flow, table));
            if !fate.survives {
                return fate;
            }
            if decided.by == DecidedBy::Default {
                decided = fate;
            }
        }
        decided
    }

    /// What the rules of one direction say.
    fn asked(&self, first: &Packet, egress: bool, bears: &dyn Fn(&Rule) -> bool) -> Fate {
        let policy = self.policy;
        if policy.flags & (POLICY_OFF | POLICY_AUDIT | POLICY_PRESERVE) != 0 {
            return Fate::new(true, DecidedBy::NotAsked);
        }
        if !has_protocol(&policy.protocols, first.protocol) {
            return Fate::new(false, DecidedBy::Protocols);
        }
        let direction = if egress { Direction::Egress } else { Direction::Ingress };
        let said = policy.says(direction, first, |rule| self.matches(rule, first) && bears(rule));
        match said.rule {
            Some(rule) => self.decided(rule, said.allowed),
            None => Fate::new(said.allowed, DecidedBy::Default),
        }
    }

    fn decided(&self, rule: &Rule, survives: bool) -> Fate {
        if rule.flags & RULE_BASELINE != 0 {
            return Fate::new(survives, DecidedBy::Baseline);
        }
        if rule.index == SYNTHETIC {
            // What the hub itself refuses an interface is what the other personality has alone.
            return Fate::new(survives, if survives { DecidedBy::Default } else { DecidedBy::Address });
        }
        match rule.index.checked_sub(self.inserted) {
            Some(index) => Fate { survives, by: DecidedBy::Rule, rule: Some(index) },
            None => Fate::new(survives, DecidedBy::Session),
        }
    }

    /// Whether a connection bears what a rule asks for. One that has not spoken may go on and is refused nothing.
    fn bears(&self, rule: &Rule, flow: &Flow, table: &[Signature]) -> bool {
        let Some(place) = usize::from(rule.signature).checked_sub(1) else { return true };
        if flow.heard.state == HEARD_WAITS {
            return matches!(rule.action, ACTION_ALLOW | ACTION_RATE_LIMIT);
        }
        let Some(wanted) = self.policy.signatures.get(place) else { return false };
        let slots = flow.heard.signatures.iter().filter_map(|name| usize::from(*name).checked_sub(1));
        let mut heard = slots.filter_map(|slot| table.get(slot));
        heard.any(|heard| heard.born_tick <= flow.first_tick && heard.asks_as(wanted))
    }

    fn matches(&self, rule: &Rule, first: &Packet) -> bool {
        let ends = self.policy.terms.get(&rule.identity).and_then(|terms| terms.ends);
        if ends.is_some_and(|end| end <= self.now) {
            return false;
        }
        let until = |set: u32, address: &Address| if (self.in_set)(set, ip(address)) { u64::MAX } else { 0 };
        // Compiled in user space, a rule has no tick: its end was looked at above.
        rule.matches(first, 0, until) != 0
    }
}

/// The first packet of a flow, as well as it is known.
fn first_packet(key: &FlowKey, flow: &Flow) -> Packet {
    let ((source, source_port), (target, target_port)) = if flow.from_high == 0 {
        ((key.low, key.low_port), (key.high, key.high_port))
    } else {
        ((key.high, key.high_port), (key.low, key.low_port))
    };
    Packet {
        source,
        target,
        source_port,
        target_port,
        protocol: key.protocol,
        kind: key.kind,
        icmp_type: key.kind,
        tcp_flags: if key.protocol == protocol::TCP { TCP_SYN } else { 0 },
        flags: if ip(&source).is_ipv4() { PACKET_V4 } else { PACKET_V6 },
        ..Packet::ZERO
    }
}

/// The connections of a segment and what a change means for them, at most `limit` of them by name: those that end
/// first, and of those the ones that are waited for.
pub(crate) fn list(
    maps: &Maps,
    clock: &Clock,
    change: &Change<'_>,
    limit: usize,
) -> Result<Impacts, ReadError> {
    let mut impacts = Impacts::default();
    let mut lists = [const { Vec::new() }; 4];
    Look::new(maps, clock, change)?.walk(maps, |key, flow, active, fate| {
        impacts.note(active, fate.survives);
        let [breaks, breaks_idle, survives, survives_idle] = &mut lists;
        let list = match (fate.survives, active) {
            (false, true) => breaks,
            (false, false) => breaks_idle,
            (true, true) => survives,
            (true, false) => survives_idle,
        };
        if list.len() < limit {
            let Fate { survives, by, rule } = fate;
            list.push(ImpactedFlow { flow: view(key, flow, clock), active, survives, by, rule });
        }
    })?;
    impacts.flows = lists.into_iter().flatten().take(limit).collect();
    Ok(impacts)
}

/// What is needed to judge connections of a segment at a moment.
struct Look<'a> {
    clock: &'a Clock,
    change: &'a Change<'a>,
    timeout_ticks: [u32; 8],
    /// Signatures of the data path by slot.
    table: Vec<Signature>,
}

impl<'a> Look<'a> {
    fn new(maps: &Maps, clock: &'a Clock, change: &'a Change<'a>) -> Result<Self, ReadError> {
        let timeouts = at(&maps.settings, "SETTINGS", 0)?.map(|settings| settings.timeout_ticks);
        let (timeout_ticks, table) = (timeouts.unwrap_or_default(), signatures(maps, change)?);
        Ok(Self { clock, change, timeout_ticks, table })
    }

    /// Whether a connection is waited for, and its fate; none for one of others, and for one that is over.
    fn judge(&self, key: &FlowKey, flow: &Flow) -> Option<(bool, Fate)> {
        let (change, clock) = (self.change, self.clock);
        let own = flow.segment.contains(&change.segment.0);
        let closed = key.protocol == protocol::TCP && flow.state == FLOW_TCP_CLOSED;
        if !own || closed || flow.is_stale(clock.tick(), &self.timeout_ticks) {
            return None;
        }
        let idle = clock.seconds(clock.tick().saturating_sub(flow.last_tick));
        let idle = Duration::try_from_secs_f64(idle).unwrap_or(Duration::MAX);
        Some((change.is_active(key, flow, idle), change.fate(key, flow, &self.table)))
    }

    /// Calls `each` with every connection of the segment that is not over; returns how many there are of anybody.
    fn walk(
        &self,
        maps: &Maps,
        mut each: impl FnMut(&FlowKey, &Flow, bool, Fate),
    ) -> Result<usize, ReadError> {
        let mut count = 0;
        let mut note = |key: &FlowKey, values: &[Flow]| {
            count += values.len();
            for flow in values {
                if let Some((active, fate)) = self.judge(key, flow) {
                    each(key, flow, active, fate);
                }
            }
            ControlFlow::Continue(())
        };
        for (name, map) in [("FLOWS", &maps.flows), ("FLOWS_NEW", &maps.flows_new)] {
            batch::entries(map.map(), &mut note).map_err(|source| ReadError::Map { map: name, source })?;
        }
        Ok(count)
    }
}

/// The signatures of the data path by slot, if a rule asks for any.
fn signatures(maps: &Maps, change: &Change<'_>) -> Result<Vec<Signature>, ReadError> {
    let mut table = Vec::new();
    while !change.policy.signatures.is_empty()
        && let Some(signature) = at(&maps.signatures, "SIGNATURE_TABLE", index(table.len()))?
        && signature.born_tick != 0
    {
        table.push(signature);
    }
    Ok(table)
}

fn index(slot: usize) -> u32 {
    u32::try_from(slot).unwrap_or(u32::MAX)
}

/// Connections of TCP of a segment that ended so far: while it stands, no more of them have.
pub(crate) fn ended(maps: &Maps, segment: SegmentId) -> Result<u64, ReadError> {
    let values = present(maps.flows_begun.get(&segment.0, 0), "FLOWS_BEGUN")?;
    Ok(values.map_or(0, |values| values.iter().map(|[_, _, ended]| ended).sum()))
}

#[cfg(test)]
mod tests;
