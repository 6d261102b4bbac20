//! A persona's rules in the form of the data path. Pure: the same persona gives the same policy.

mod leaving;
mod open;
pub mod services;
mod signed;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use self::leaving::leaving;
use self::signed::{signatures, signed};
use hub_common::address::{Address, V4_OFFSET_BITS};
use hub_common::limits::{RULES_PER_DIRECTION, SIGNATURES};
use hub_common::rule::{
    ACTION_ALLOW, ACTION_DENY, ACTION_LOG, ACTION_PASS_ON, ACTION_QUARANTINE, ACTION_RATE_LIMIT,
    ACTION_REJECT, RULE_BASELINE, RULE_CONNECTIONS, RULE_ICMP_CODE, RULE_ICMP_TYPE, RULE_LOG, RULE_PROTOCOL,
    RULE_SOURCE_PORT, RULE_SOURCE_SET, RULE_TARGET_PORT, RULE_TARGET_SET, RULE_V4, RULE_V6, Rule as Compiled,
};
use hub_common::segment::{
    POLICY_AUDIT, POLICY_DEFAULT_REJECT, POLICY_OFF, POLICY_PRESERVE, POLICY_RESET_CUT,
};
use hub_common::set::set_number;
use ipnet::IpNet;
use jiff::Timestamp;

use crate::document::persona::{
    DefaultActionDocument, EnforcementDocument, EstablishedDocument, TrackingDocument,
};
use crate::model::expiry::Expiry;
use crate::model::icmp::IcmpNumber;
use crate::model::persona::{PEERS, Persona, RANGES};
use crate::model::policy::{Action, Policy, PortRanges, Terms};
use crate::model::port::PortRange;
use crate::model::prefix;
use crate::model::protocol::{self, Protocol, ProtocolSet, has_ports};
use crate::model::rule::{Direction, Rule};
use crate::model::tcp_flags::TcpFlags;

/// `index` of compiled rules that stand in no list of rules: they come from `egress`, services, or a switch.
pub const SYNTHETIC_RULE: u16 = 0xffff;

/// Most compiled rules that are made to be counted. Mixed address families may shrink them.
const EXPANSIONS: usize = 16 * RULES_PER_DIRECTION as usize;

/// More than the data path holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    /// Compiled rules.
    #[error(
        "the {direction} rules become {count} after lists are expanded: use at most {RULES_PER_DIRECTION}, \
         for example with port ranges or wider prefixes"
    )]
    Rules {
        /// `ingress` or `egress`.
        direction: &'static str,
        /// How many there would be.
        count: usize,
    },
    /// Different signatures.
    #[error("the rules ask for {count} different signatures: use at most {SIGNATURES}")]
    Signatures {
        /// How many there would be.
        count: usize,
    },
}

/// Checks that a persona's rules fit the data path, whichever peers it gets.
pub fn check(persona: &Persona) -> Result<(), TooMany> {
    let count = signatures(&persona.rules.rules).len();
    if count > SIGNATURES as usize {
        return Err(TooMany::Signatures { count });
    }
    let placeholder: IpNet = IpNet::V4(ipnet::Ipv4Net::default());
    let peers = vec![placeholder; persona.peers().len().min(PEERS) * RANGES];
    let peers = if persona.rules.egress_allow.is_some() { peers } else { Vec::new() };
    for direction in Direction::ALL {
        // Lists multiply: a small document must not become a large table before it is refused.
        let applied = persona.rules.rules.iter().filter(|rule| rule.applies(direction));
        let count = applied.map(|rule| expansions(persona, rule)).fold(0, usize::saturating_add);
        if count > EXPANSIONS {
            return Err(TooMany::Rules { direction: direction.name(), count });
        }
    }
    let policy = compile(persona, &peers);
    for (direction, rules) in [(Direction::Ingress, &policy.ingress), (Direction::Egress, &policy.egress)] {
        if rules.len() > RULES_PER_DIRECTION as usize {
            return Err(TooMany::Rules { direction: direction.name(), count: rules.len() });
        }
    }
    Ok(())
}

/// Compiles a persona that may talk to `peers`, the ranges of its peers.
pub fn compile(persona: &Persona, peers: &[IpNet]) -> Policy {
    let rules = &persona.rules;
    let [ingress_default, egress_default] = Direction::ALL.map(|direction| default(persona, direction));
    let signatures = signatures(&rules.rules);
    let [ingress, mut egress] = Direction::ALL.map(|direction| {
        let applied = rules.rules.iter().filter(|rule| rule.applies(direction));
        applied.flat_map(|rule| signed(&expand(persona, rule), rule, &signatures)).collect::<Vec<_>>()
    });
    let denied = denied(persona);
    let outside = rules.egress_deny.iter().flat_map(|prefix| prefix::without(prefix, persona.ranges()));
    egress.splice(0..0, outside.filter_map(|prefix| toward(&prefix, None, denied)));
    let mut egress_passes = egress_default;
    if let Some(allow) = &rules.egress_allow {
        egress.extend(ceiling(persona, allow, peers));
        egress_passes = ProtocolSet::NONE;
    }
    let preserve = rules.established == EstablishedDocument::Preserve;
    let reject = rules.default_action == DefaultActionDocument::Reject;
    let policy = Policy {
        protocols: rules.permitted.words(),
        ingress_default: ingress_default.words(),
        egress_default: egress_passes.words(),
        ingress,
        egress,
        flags: u32::from(preserve) * POLICY_PRESERVE
            + u32::from(reject) * POLICY_DEFAULT_REJECT
            // A switch tells those whose connections it cuts.
            + u32::from(persona.carried().is_some()) * POLICY_RESET_CUT
            + match rules.enforcement {
                EnforcementDocument::Enforce => 0,
                EnforcementDocument::Audit => POLICY_AUDIT,
                EnforcementDocument::Off => POLICY_OFF,
            },
        terms: terms(&rules.rules),
        signatures,
        open: Default::default(),
    };
    Policy { open: opened(persona, &policy), ..policy }
}

/// Ports whose connections need no flow. Where rules only watch or are not asked, every packet is looked at.
fn opened(persona: &Persona, policy: &Policy) -> [PortRanges; 4] {
    let decides = persona.rules.enforcement == EnforcementDocument::Enforce;
    match persona.rules.tracking {
        TrackingDocument::Needed if decides => open::sets(policy),
        TrackingDocument::Needed | TrackingDocument::All => Default::default(),
    }
}

fn terms(rules: &[Rule]) -> BTreeMap<u64, Terms> {
    let spoken = rules.iter().filter(|rule| *rule.terms() != Terms::default());
    spoken.map(|rule| (rule.identity(), rule.terms().clone())).collect()
}

/// Puts the hub's rules in front of a persona's, what refuses addresses that go away in front of both, and ends where
/// rules end.
pub fn complete(policy: &mut Policy, persona: &Persona, baseline: &[Rule], ends: &BTreeMap<u64, Timestamp>) {
    for (direction, list) in
        [(Direction::Ingress, &mut policy.ingress), (Direction::Egress, &mut policy.egress)]
    {
        let applied = baseline.iter().filter(|rule| rule.applies(direction));
        let first = applied.flat_map(|rule| expand(persona, rule)).map(|rule| Compiled {
            action: if rule.action == ACTION_ALLOW && !is_final(baseline, &rule) {
                ACTION_PASS_ON
            } else {
                rule.action
            },
            flags: rule.flags | RULE_BASELINE,
            ..rule
        });
        list.splice(0..0, leaving(persona, direction).into_iter().chain(first).collect::<Vec<_>>());
    }
    policy.terms.extend(terms(baseline));
    for rule in baseline {
        if let Expiry::At(end) = rule.expiry() {
            policy.terms.entry(rule.identity()).or_default().ends = Some(end);
        }
    }
    end(policy, persona, ends);
}

/// Ends rules of a policy that is whole otherwise.
pub fn end(policy: &mut Policy, persona: &Persona, ends: &BTreeMap<u64, Timestamp>) {
    for (identity, end) in ends {
        policy.terms.entry(*identity).or_default().ends = Some(*end);
    }
    policy.open = opened(persona, policy);
}

fn is_final(baseline: &[Rule], compiled: &Compiled) -> bool {
    baseline.iter().any(|rule| rule.identity() == compiled.identity && rule.is_final())
}

/// Most compiled rules of one direction that the hub's rules become for any persona.
pub fn widest(baseline: &[Rule], direction: Direction) -> usize {
    let applied = baseline.iter().filter(|rule| rule.applies(direction));
    let bases = |rule: &Rule| match rule.protocol() {
        Protocol::Any if rule.has_ports() => 4,
        Protocol::Icmp => 2,
        Protocol::Any | Protocol::Number(_) => 1,
    };
    applied.map(|rule| product(bases(rule), rule)).fold(0, usize::saturating_add)
}

/// Protocols that pass when no rule matches: the permitted ones that no rule of this direction speaks of.
/// A rule without protocol speaks of all; a rule that only reports decides nothing and speaks of none.
pub fn default(persona: &Persona, direction: Direction) -> ProtocolSet {
    if persona.rules.strict { ProtocolSet::NONE } else { unmentioned(persona, direction) }
}

fn unmentioned(persona: &Persona, direction: Direction) -> ProtocolSet {
    let deciding = |rule: &&Rule| rule.applies(direction) && rule.action().decides();
    let rules = persona.rules.rules.iter().filter(deciding);
    rules.fold(persona.rules.permitted, |left, rule| left.without(&rule.protocols()))
}

/// The end of an egress list with `egress.allow`: what would pass by default passes to these prefixes,
/// to peers and within the persona, and nothing passes elsewhere.
fn ceiling(persona: &Persona, allow: &[IpNet], peers: &[IpNet]) -> Vec<Compiled> {
    let passing = unmentioned(persona, Direction::Egress);
    let protocols: Vec<Option<u8>> =
        if passing == persona.rules.permitted { vec![None] } else { passing.iter().map(Some).collect() };
    let mut rules: Vec<Compiled> = allow
        .iter()
        .chain(peers)
        .chain(persona.ranges())
        .flat_map(|prefix| protocols.iter().filter_map(|protocol| toward(prefix, *protocol, ACTION_ALLOW)))
        .collect();
    rules.push(Compiled { action: denied(persona), index: SYNTHETIC_RULE, ..Compiled::ZERO });
    rules
}

fn toward(prefix: &IpNet, protocol: Option<u8>, action: u8) -> Option<Compiled> {
    let base = Compiled { action, index: SYNTHETIC_RULE, ..Compiled::ZERO };
    let base = match protocol {
        Some(protocol) => Compiled { protocol, flags: RULE_PROTOCOL, ..base },
        None => base,
    };
    between(base, None, Some(prefix))
}

fn denied(persona: &Persona) -> u8 {
    match persona.rules.default_action {
        DefaultActionDocument::Deny => ACTION_DENY,
        DefaultActionDocument::Reject => ACTION_REJECT,
    }
}

/// One document rule as compiled rules: protocols × port ranges × prefixes, in that order.
fn expand(persona: &Persona, rule: &Rule) -> Vec<Compiled> {
    let mut rules = bases(persona, rule);
    rules = each(&rules, rule.source_ports(), |base, range: &PortRange| {
        Some(Compiled { source_port: range.bounds(), flags: base.flags | RULE_SOURCE_PORT, ..base })
    });
    rules = each(&rules, rule.ports(), |base, range: &PortRange| {
        Some(Compiled { target_port: range.bounds(), flags: base.flags | RULE_TARGET_PORT, ..base })
    });
    rules = places(&rules, rule.sources(), rule.source_sets(), |base, place| match place {
        Place::Prefix(prefix) => between(base, Some(prefix), None),
        Place::Set(source_set) => {
            Some(Compiled { source_set: *source_set, flags: base.flags | RULE_SOURCE_SET, ..base })
        }
    });
    places(&rules, rule.targets(), rule.target_sets(), |base, place| match place {
        Place::Prefix(prefix) => between(base, None, Some(prefix)),
        Place::Set(target_set) => {
            Some(Compiled { target_set: *target_set, flags: base.flags | RULE_TARGET_SET, ..base })
        }
    })
}

enum Place<'a> {
    Prefix(&'a IpNet),
    Set(u32),
}

fn places(
    rules: &[Compiled],
    prefixes: &[IpNet],
    sets: &[String],
    apply: impl Fn(Compiled, &Place<'_>) -> Option<Compiled>,
) -> Vec<Compiled> {
    let sets = sets.iter().map(|name| Place::Set(set_number(name)));
    each(rules, &prefixes.iter().map(Place::Prefix).chain(sets).collect::<Vec<_>>(), apply)
}

/// Most rules that [`expand`] can make of one.
fn expansions(persona: &Persona, rule: &Rule) -> usize {
    product(bases(persona, rule).len(), rule)
}

fn product(bases: usize, rule: &Rule) -> usize {
    let sources = rule.sources().len() + rule.source_sets().len();
    let targets = rule.targets().len() + rule.target_sets().len();
    let lists = [rule.source_ports().len(), rule.ports().len(), sources, targets, rule.signatures().len()];
    lists.iter().fold(bases, |product, length| product.saturating_mul((*length).max(1)))
}

fn each<T>(
    rules: &[Compiled],
    values: &[T],
    apply: impl Fn(Compiled, &T) -> Option<Compiled>,
) -> Vec<Compiled> {
    if values.is_empty() {
        return rules.to_vec();
    }
    rules.iter().flat_map(|rule| values.iter().filter_map(|value| apply(*rule, value))).collect()
}

/// The rule without ports and prefixes, once for each protocol that it must name.
fn bases(persona: &Persona, rule: &Rule) -> Vec<Compiled> {
    let counts = rule.terms().connections.is_some();
    let (tcp_mask, tcp_value) = rule.tcp_flags().map_or((0, 0), TcpFlags::bits);
    let base = Compiled {
        action: match rule.action() {
            Action::Allow if counts => ACTION_RATE_LIMIT,
            Action::Allow => ACTION_ALLOW,
            Action::Deny => ACTION_DENY,
            Action::Reject => ACTION_REJECT,
            Action::Log | Action::Alert => ACTION_LOG,
            Action::RateLimit => ACTION_RATE_LIMIT,
            Action::Quarantine => ACTION_QUARANTINE,
        },
        identity: rule.identity(),
        tcp_mask,
        tcp_value,
        flags: if rule.logs() { RULE_LOG } else { 0 }
            | if counts && rule.action() == Action::Allow { RULE_CONNECTIONS } else { 0 },
        index: rule.index(),
        dscp: rule.dscp().map_or(0, |dscp| dscp.number() + 1),
        priority: rule.priority().map_or(0, |priority| priority.number() + 1),
        ..Compiled::ZERO
    };
    let named = |number: u8| Compiled { protocol: number, flags: base.flags | RULE_PROTOCOL, ..base };
    match rule.protocol() {
        Protocol::Any if !rule.has_ports() => vec![base],
        Protocol::Any => {
            persona.rules.permitted.iter().filter(|number| has_ports(*number)).map(named).collect()
        }
        Protocol::Number(protocol::ICMP) => icmp(named(protocol::ICMP), rule, |number| number.v4),
        Protocol::Number(protocol::ICMPV6) => icmp(named(protocol::ICMPV6), rule, |number| number.v6),
        Protocol::Number(number) => vec![named(number)],
        Protocol::Icmp => {
            let (v4, v6) = (persona.has_family(true), persona.has_family(false));
            let v4_only = v4 && rule.icmp_type().is_some_and(|number| !number.named);
            let mut rules = Vec::new();
            if v4 {
                let base = Compiled { flags: base.flags | RULE_PROTOCOL | RULE_V4, ..named(protocol::ICMP) };
                rules.extend(icmp(base, rule, |number| number.v4));
            }
            if v6 && !v4_only {
                let base =
                    Compiled { flags: base.flags | RULE_PROTOCOL | RULE_V6, ..named(protocol::ICMPV6) };
                rules.extend(icmp(base, rule, |number| number.v6));
            }
            rules
        }
    }
}

/// Adds ICMP type and code; nothing if the family has no such type or code.
fn icmp(mut base: Compiled, rule: &Rule, family: fn(&IcmpNumber) -> Option<u8>) -> Vec<Compiled> {
    if let Some(number) = rule.icmp_type() {
        let Some(number) = family(&number) else { return Vec::new() };
        base.icmp_type = number;
        base.flags |= RULE_ICMP_TYPE;
    }
    if let Some(number) = rule.icmp_code() {
        let Some(number) = family(&number) else { return Vec::new() };
        base.icmp_code = number;
        base.flags |= RULE_ICMP_CODE;
    }
    vec![base]
}

/// Adds prefixes; nothing if they are of another family than the rule so far.
fn between(mut base: Compiled, source: Option<&IpNet>, target: Option<&IpNet>) -> Option<Compiled> {
    for prefix in source.iter().chain(target.iter()) {
        let family = if prefix.addr().is_ipv4() { RULE_V4 } else { RULE_V6 };
        if base.flags & (RULE_V4 | RULE_V6) & !family != 0 {
            return None;
        }
        base.flags |= family;
    }
    if let Some(prefix) = source {
        (base.source, base.source_bits) = bits(prefix);
    }
    if let Some(prefix) = target {
        (base.target, base.target_bits) = bits(prefix);
    }
    Some(base)
}

/// A prefix in 16 bytes, its length counted from the mapped start.
pub fn bits(prefix: &IpNet) -> (Address, u8) {
    match prefix {
        IpNet::V4(prefix) => {
            (hub_common::address::mapped(prefix.network().octets()), V4_OFFSET_BITS + prefix.prefix_len())
        }
        IpNet::V6(prefix) => (prefix.network().octets(), prefix.prefix_len()),
    }
}
