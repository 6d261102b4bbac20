//! The rules that choose which slot's routes packets use.
//!
//! Where the hub asks by the routes of a slot that is not live, a rule at 17709 for each slot leads packets with the
//! number of its table as their mark there.
//!
//! For each source that an interface's routes are for (all, or single addresses) five rules stand in a row:
//!
//! | priority | rule | there |
//! |---|---|---|
//! | 17710 | go to 17713 | only while the second slot is live |
//! | 17711 | look in the first slot's table | always |
//! | 17712 | go to 17714 | always |
//! | 17713 | look in the second slot's table | always |
//! | 17714 | nothing | always |
//!
//! So a switch is one rule that comes or goes, and a packet for which the live slot has no route falls to the
//! namespace's own tables, never to the other slot.

use std::collections::BTreeSet;

use ipnet::IpNet;
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};

use crate::desired::PROTOCOL;
use crate::desired::interfaces::{Interface, RuleScope, SLOT_PRIORITIES, everything};
use crate::tables::family;

const PROBE: u32 = *SLOT_PRIORITIES.start();
const SWITCH: u32 = PROBE + 1;
const FIRST: u32 = SWITCH + 1;
const PAST: u32 = SWITCH + 2;
const SECOND: u32 = SWITCH + 3;
const END: u32 = *SLOT_PRIORITIES.end();

/// One rule of those that choose a slot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SlotRule {
    pub(super) priority: u32,
    pub(super) source: IpNet,
    /// Mark of the packets that it is for; 0 is for all.
    pub(super) mark: u32,
    pub(super) does: Does,
}

/// What a rule does with packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Does {
    /// Goes on with the rules of a priority.
    Goto(u32),
    /// Looks in a table.
    Lookup(u32),
    /// Nothing: somewhere to go to.
    Nothing,
}

/// The rule that is there while the second slot is live.
pub(super) fn switch(source: IpNet) -> SlotRule {
    SlotRule { priority: SWITCH, source, mark: 0, does: Does::Goto(SECOND) }
}

/// The rules by which marked packets find the slots, in the families that the interface has routes of.
pub(super) fn probes(interface: &Interface) -> BTreeSet<SlotRule> {
    let targets = interface.routes.iter().flat_map(|routes| routes.keys()).filter(|_| interface.probed);
    let sources: BTreeSet<IpNet> = targets.map(|key| everything(key.target.addr())).collect();
    let rules = sources.into_iter().flat_map(|source| {
        let rule = |table| SlotRule { priority: PROBE, source, mark: table, does: Does::Lookup(table) };
        interface.tables.map(rule)
    });
    rules.collect()
}

/// The rules that are always there, in the order in which they are put: no packet finds the wrong slot meanwhile
/// where the switch comes before the last.
pub(super) fn standing(source: IpNet, tables: [u32; 2]) -> [SlotRule; 4] {
    let [first, second] = tables;
    [
        (END, Does::Nothing),
        (PAST, Does::Goto(END)),
        (SECOND, Does::Lookup(second)),
        (FIRST, Does::Lookup(first)),
    ]
    .map(|(priority, does)| SlotRule { priority, source, mark: 0, does })
}

/// Whose packets the routes of an interface are for, in the families that it has routes of.
pub(super) fn sources(interface: &Interface) -> BTreeSet<IpNet> {
    let targets = || interface.routes.iter().flat_map(|routes| routes.keys()).map(|key| key.target.addr());
    match interface.scope {
        RuleScope::Nothing => BTreeSet::new(),
        RuleScope::Everything => targets().map(everything).collect(),
        RuleScope::FromAddresses => {
            let hosts = interface.addresses.keys().map(|net| IpNet::from(net.addr()));
            hosts.filter(|host| targets().any(|target| target.is_ipv4() == host.addr().is_ipv4())).collect()
        }
    }
}

/// Sorts rules that go, so that those before never lead packets to the wrong slot: tables first, that of the slot
/// that is not live before the other.
pub(super) fn goes_before(rule: &SlotRule, is_second_live: bool) -> (bool, bool, u32) {
    let is_lookup = matches!(rule.does, Does::Lookup(_));
    let is_live = (rule.priority == SECOND) == is_second_live;
    (!is_lookup, is_lookup && is_live, rule.priority)
}

pub(super) fn describe(rule: &SlotRule) -> String {
    let SlotRule { priority, source, mark, does } = rule;
    match does {
        Does::Goto(target) => format!("rule {priority}: from {source} goto {target}"),
        Does::Lookup(table) if *mark != 0 => {
            format!("rule {priority}: from {source} fwmark {mark} lookup {table}")
        }
        Does::Lookup(table) => format!("rule {priority}: from {source} lookup {table}"),
        Does::Nothing => format!("rule {priority}: from {source} nop"),
    }
}

pub(super) fn message(rule: &SlotRule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family::of(rule.source.addr());
    message.header.src_len = rule.source.prefix_len();
    message.attributes =
        vec![RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)), RuleAttribute::Priority(rule.priority)];
    if rule.source.prefix_len() > 0 {
        message.attributes.push(RuleAttribute::Source(rule.source.network()));
    }
    if rule.mark != 0 {
        message.attributes.extend([RuleAttribute::FwMark(rule.mark), RuleAttribute::FwMask(u32::MAX)]);
    }
    match rule.does {
        Does::Goto(target) => {
            message.header.action = RuleAction::Goto;
            message.attributes.push(RuleAttribute::Goto(target));
        }
        Does::Lookup(table) => {
            message.header.action = RuleAction::ToTable;
            message.attributes.push(RuleAttribute::Table(table));
        }
        Does::Nothing => message.header.action = RuleAction::Nop,
    }
    message
}

/// A rule of ours that chooses a slot.
pub(super) fn read(message: &RuleMessage) -> Option<SlotRule> {
    let header = &message.header;
    let mut source = family::unspecified(header.family)?;
    let (mut priority, mut table, mut target, mut mark) = (0, u32::from(header.table), 0, 0);
    let mut ours = false;
    for attribute in &message.attributes {
        if let RuleAttribute::Protocol(protocol) = attribute {
            ours = *protocol == RouteProtocol::Other(PROTOCOL);
        } else if let RuleAttribute::Priority(number) = attribute {
            priority = *number;
        } else if let RuleAttribute::Table(number) = attribute {
            table = *number;
        } else if let RuleAttribute::Goto(number) = attribute {
            target = *number;
        } else if let RuleAttribute::FwMark(number) = attribute {
            mark = *number;
        } else if let RuleAttribute::Source(address) = attribute {
            source = *address;
        }
    }
    let does = if header.action == RuleAction::Goto {
        Does::Goto(target)
    } else if header.action == RuleAction::ToTable {
        Does::Lookup(table)
    } else if header.action == RuleAction::Nop {
        Does::Nothing
    } else {
        return None;
    };
    let source = IpNet::new(source, header.src_len).ok()?;
    (ours && SLOT_PRIORITIES.contains(&priority)).then_some(SlotRule { priority, source, mark, does })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where packets look, in order, as the kernel walks the rules.
    fn looked_in(rules: &BTreeSet<SlotRule>) -> Vec<u32> {
        let (mut at, mut tables) = (0, Vec::new());
        while let Some(rule) = rules.iter().find(|rule| rule.priority >= at) {
            at = rule.priority + 1;
            match rule.does {
                // Where there is nothing to go to, the kernel goes on.
                Does::Goto(target) if rules.iter().any(|rule| rule.priority == target) => at = target,
                Does::Lookup(table) => tables.push(table),
                Does::Goto(_) | Does::Nothing => {}
            }
        }
        tables
    }

    #[test]
    fn packets_look_in_one_slot_at_every_step() {
        let source: IpNet = "0.0.0.0/0".parse().unwrap();
        for is_second_live in [false, true] {
            let live = if is_second_live { 2 } else { 1 };
            let mut coming = standing(source, [1, 2]).to_vec();
            if is_second_live {
                coming.insert(3, switch(source));
            }
            let mut rules = BTreeSet::new();
            for rule in coming {
                rules.insert(rule);
                assert!([vec![], vec![live]].contains(&looked_in(&rules)), "{rules:?}");
            }
            assert_eq!(looked_in(&rules), [live]);
            let mut going: Vec<_> = rules.iter().cloned().collect();
            going.sort_by_key(|rule| goes_before(rule, is_second_live));
            for rule in going {
                rules.remove(&rule);
                assert!([vec![], vec![live]].contains(&looked_in(&rules)), "{rules:?}");
            }
        }
    }

    #[test]
    fn rules_read_back_as_they_are_put() {
        for source in ["0.0.0.0/0", "10.0.0.5/32", "::/0", "fd00::5/128"] {
            let source: IpNet = source.parse().unwrap();
            for rule in standing(source, [17_800_002, 17_800_003]).into_iter().chain([switch(source)]) {
                assert_eq!(read(&message(&rule)), Some(rule));
            }
            let (mark, does) = (17_800_003, Does::Lookup(17_800_003));
            let probe = SlotRule { priority: PROBE, source, mark, does };
            assert_eq!(read(&message(&probe)), Some(probe));
        }
    }
}
