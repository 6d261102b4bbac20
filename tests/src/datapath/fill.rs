//! A model's hub into the maps, as the daemon would write it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use aya::maps::MapData;
use aya::maps::lpm_trie::{Key, LpmTrie};
use hub_common::address::{self, Address};
use hub_common::flow::{Flow, FlowKey};
use hub_common::limit::{LIMIT_PACKETS, LIMIT_PER_SOURCE, Limit, LimitSource};
use hub_common::nets::NetLine;
use hub_common::open::{OPEN_FIRST, OPEN_NONE, PortSet};
use hub_common::packet::{FragmentKey, FragmentPorts};
use hub_common::rule::Rule;
use hub_common::segment::{
    Failsafe, Gateway, POLICY_AUDIT, POLICY_DEFAULT_REJECT, POLICY_OFF, POLICY_PRESERVE, PORT_FAILSAFE,
    PORT_L3_ONLY, PORT_XDP_TARGET, Peer, Policy, Port, ROLE_SEGMENT, ROLE_UPLINK, SEGMENT_CONNECTIONS,
    SEGMENT_HEARS, SEGMENT_QUARANTINE, SEGMENT_SHAPED, STATE_ACTIVE, STATE_BLOCK, STATE_DRAIN, STATE_EMPTY,
    Segment, Settings, policy_word,
};
use hub_common::set::{QuarantineKey, SET_KEY_BITS, SetKey};
use hub_common::shape::{EGRESS, INGRESS, Policer, Shape, class};
use hub_daemon::model::SegmentId;
use hub_daemon::tables::datapath::nets::Lines;
use ipnet::Ipv6Net;

use super::DataPath;
use super::table::V4Table;
use crate::generate::SEGMENTS;
use crate::model::{Enforcement, Life, Model, Role, contains, open_ports};
use crate::packet::TARGET_MAC;

/// What the maps hold from the last fill and must lose at the next.
#[derive(Debug, Default)]
pub(super) struct Filled {
    root: Vec<u32>,
    prefixes: Vec<(u32, Address)>,
    nets: Lines,
    ports: Vec<u32>,
    class_generation: u32,
}

/// First slot of policies that are no model's.
const BESIDE: u32 = 2 * (SEGMENTS + 1);
/// Rule slots that one direction of one policy may take.
const RULES: u32 = 256;
/// Cost of a packet that a bucket does not fill again during a test: an hour.
const NEVER: u64 = 3_600_000_000_000 * hub_common::limit::TIME_PARTS;
/// Timeouts that nothing in a test outlives by itself.
const FOREVER_TICKS: u32 = 1 << 30;

impl DataPath {
    /// Makes the maps describe a model's hub. Flows stay.
    pub fn fill(&mut self, model: &Model) {
        for number in 1..=SEGMENTS {
            self.fill_segment(model, number);
        }
        self.fill_ports(model);
        self.replace_all::<Address, u32>("LOCALS", model.locals.iter().map(|a| (address::of(*a), 1)));
        let locals = model.locals.iter().map(|local| address::of(*local)).collect();
        let mut bits = self.array::<u64>("LOCAL_BITS");
        for (index, word) in hub_daemon::tables::datapath::local_bits::words(&locals) {
            // Bits of the hub before stay: they say nothing.
            bits.set(index, word | bits.get(&index, 0).unwrap(), 0).unwrap();
        }
        let gateway = |(segment, address): &(u32, IpAddr)| {
            (Gateway { segment: *segment, pad: 0, address: address::of(*address) }, 1)
        };
        self.replace_all::<Gateway, u32>("GATEWAYS", model.gateways.iter().map(gateway));
        self.fill_sets(model);
        self.fill_quarantine(model);
        self.fill_limits(model);
        self.replace_all::<Peer, u32>("PEERS", model.peers.iter().map(|(a, b)| (Peer::between(*a, *b), 1)));
        let failsafe = model
            .failsafe
            .iter()
            .map(|(protocol, port)| (Failsafe { protocol: u32::from(*protocol), port: u32::from(*port) }, 1));
        self.replace_all::<Failsafe, u32>("FAILSAFE", failsafe);
        self.fill_prefixes(model);
    }

    /// Makes the maps describe the ranges of all segments, and lets flows be classified again.
    pub fn fill_prefixes(&mut self, model: &Model) {
        self.fill_v4(model);
        self.fill_v6(model);
        self.filled.class_generation += 1;
        let settings = Settings {
            // Next hops of the hub before are void.
            route_generation: self.filled.class_generation,
            class_generation: self.filled.class_generation,
            loose_tcp_until_tick: model.loose_tcp_until_tick,
            timeout_ticks: [FOREVER_TICKS; 8],
            hop_ticks: FOREVER_TICKS,
            ..Settings::ZERO
        };
        self.array::<Settings>("SETTINGS").set(0, settings, 0).unwrap();
    }

    /// Makes the maps describe one segment, as an edit of its persona would.
    pub fn fill_segment(&mut self, model: &Model, number: u32) {
        let mut entry = Segment::ZERO;
        if let Some(segment) = model.segments.get(&number) {
            // A shape makes connections be tracked: the others stay as they are.
            let untracked = segment.policy.as_ref().is_some_and(|policy| policy.untracked);
            let classed = number.is_multiple_of(2) && !untracked;
            let slot = policy_slot(number, segment);
            entry.flags = self.fill_shape(number, slot, segment.capped, classed);
            if let Some(most) = segment.connections {
                let most = u32::try_from(most).unwrap();
                self.hash::<u32, u32>("CONNECTION_MAX").insert(number, most, 0).unwrap();
                entry.flags |= SEGMENT_CONNECTIONS;
            }
            entry.expires_tick = segment.expires_tick;
            entry.drain_tick = if segment.drains_tick == u64::MAX { 0 } else { segment.drains_tick.max(1) };
            entry.set_generation = segment.set_generation;
            // What looks for addresses in quarantine is tracked; the others have none.
            entry.flags |= if untracked { 0 } else { SEGMENT_QUARANTINE };
            entry.state = match segment.life {
                Life::Active => STATE_ACTIVE,
                Life::Drain => STATE_DRAIN,
                Life::Block => STATE_BLOCK,
            };
            if let Some(policy) = &segment.policy {
                entry.policy = policy_word(slot, segment.version);
                let mut rules = policy.ingress.iter().chain(&policy.egress);
                entry.flags |= if rules.any(|rule| rule.signature != 0) { SEGMENT_HEARS } else { 0 };
                let open = self.fill_policy(slot, entry.policy, policy);
                entry = entry.with_open(open);
            }
        } else {
            entry.state = STATE_EMPTY;
        }
        self.array::<Segment>("SEGMENTS").set(number, entry, 0).unwrap();
    }

    /// Gives a segment a shape: a cap that is used up, or a class and nothing else.
    fn fill_shape(&mut self, number: u32, slot: u32, capped: bool, classed: bool) -> u32 {
        let shape = Shape {
            cost: [u64::from(capped) << 24; 2],
            class: [class(number, INGRESS), class(number, EGRESS)],
            ..Shape::ZERO
        };
        self.array::<Shape>("SHAPES").set(slot, shape, 0).unwrap();
        let policer = Policer { next_ns: [u64::MAX / 2; 2] };
        self.array::<Policer>("POLICERS").set(number, policer, 0).unwrap();
        if capped || classed { SEGMENT_SHAPED } else { 0 }
    }

    /// Slot of an ingress rule of a segment, by its position.
    pub fn ingress_rule(&self, model: &Model, segment: u32, position: u32) -> u32 {
        policy_slot(segment, &model.segments[&segment]) * 2 * RULES + position
    }

    /// Makes a port one whose frames have no Ethernet header.
    pub fn bare_port(&mut self, ifindex: u32, role: u32) {
        let port = Port { ifindex, role, flags: PORT_L3_ONLY, ..Port::ZERO };
        self.array::<Port>("PORTS").set(ifindex, port, 0).unwrap();
    }

    /// Puts a policy beside those of the model, in one of the slots from `BESIDE` on, and names it.
    pub fn put_beside(&mut self, slot: u32, policy: &crate::model::Policy) -> u32 {
        let word = policy_word(BESIDE + slot, 1);
        self.fill_policy(BESIDE + slot, word, policy);
        word
    }

    /// Returns the names of the policy's port sets.
    fn fill_policy(&mut self, slot: u32, word: u32, policy: &crate::model::Policy) -> [u8; 4] {
        let (ingress_first, egress_first) = (slot * 2 * RULES, (slot * 2 + 1) * RULES);
        let mut rules = self.array::<Rule>("RULES");
        for (first, list) in [(ingress_first, &policy.ingress), (egress_first, &policy.egress)] {
            assert!(list.len() < RULES as usize);
            for (at, rule) in (first..).zip(list) {
                rules.set(at, Rule { counter: at, ..*rule }, 0).unwrap();
            }
        }
        let preserve = if policy.preserve { POLICY_PRESERVE } else { 0 };
        let reject = if policy.default_reject { POLICY_DEFAULT_REJECT } else { 0 };
        let mode = match policy.enforcement {
            Enforcement::Enforce => 0,
            Enforcement::Audit => POLICY_AUDIT,
            Enforcement::Off => POLICY_OFF,
        };
        let compiled = Policy {
            open: self.fill_open(slot, policy),
            protocols: bits(&policy.protocols),
            ingress_default: bits(&policy.ingress_default),
            egress_default: bits(&policy.egress_default),
            ingress_first,
            ingress_count: policy.ingress.len() as u32,
            egress_first,
            egress_count: policy.egress.len() as u32,
            flags: preserve | reject | mode,
            word,
            pad: 0,
        };
        self.array::<Policy>("POLICIES").set(slot, compiled, 0).unwrap();
        compiled.open
    }

    /// Port sets of a policy, four slots to each.
    fn fill_open(&mut self, slot: u32, policy: &crate::model::Policy) -> [u8; 4] {
        let mut open = [OPEN_NONE; 4];
        let sets = [(0, true, 6), (1, true, 17), (2, false, 6), (3, false, 17)];
        for (place, ingress, protocol) in sets {
            let ranges = open_ports(policy, ingress, protocol);
            let at = slot * 4 + place;
            if !ranges.is_empty() {
                self.array::<PortSet>("PORT_SETS").set(at, PortSet::of(&ranges), 0).unwrap();
                open[place as usize] = OPEN_FIRST + u8::try_from(at).unwrap();
            }
        }
        open
    }

    fn fill_v4(&mut self, model: &Model) {
        let table = V4Table::new(&model.prefixes);
        let old = std::mem::take(&mut self.filled.root);
        let mut root = self.array::<u32>("V4_ROOT");
        for index in old {
            root.set(index, 0, 0).unwrap();
        }
        for (index, entry) in &table.root {
            root.set(*index, entry, 0).unwrap();
        }
        self.filled.root = table.root.keys().copied().collect();
        let mut blocks = self.array::<[u32; 256]>("V4_BLOCKS");
        for (index, block) in (0..).zip(&table.blocks) {
            blocks.set(index, block, 0).unwrap();
        }
    }

    fn fill_v6(&mut self, model: &Model) {
        let old = std::mem::take(&mut self.filled.prefixes);
        let mut trie: LpmTrie<&mut MapData, Address, u32> =
            LpmTrie::try_from(self.map_mut("V6_PREFIXES")).unwrap();
        for (bits, address) in old {
            trie.remove(&Key::new(bits, address)).unwrap();
        }
        let mut kept = Vec::new();
        for prefix in model.prefixes.iter().filter(|prefix| prefix.address.is_ipv6()) {
            let (bits, address) = (u32::from(prefix.bits), address::of(prefix.address));
            trie.insert(&Key::new(bits, address), prefix.segment, 0).unwrap();
            kept.push((bits, address));
        }
        self.filled.prefixes = kept;
        let nets = model.prefixes.iter().filter_map(|prefix| match prefix.address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => {
                Some((Ipv6Net::new(address, prefix.bits).unwrap(), SegmentId(prefix.segment)))
            }
        });
        let mut lines = std::mem::take(&mut self.filled.nets);
        let mut map = self.array::<NetLine>("NETS");
        lines.put(nets, |index, line| map.set(index, line, 0)).unwrap();
        self.filled.nets = lines;
    }

    fn fill_ports(&mut self, model: &Model) {
        let old = std::mem::take(&mut self.filled.ports);
        let mut ports = self.array::<Port>("PORTS");
        for index in old {
            ports.set(index, Port::ZERO, 0).unwrap();
        }
        for (ifindex, role) in &model.ports {
            let (role, segment, flags) = match role {
                Role::Uplink => (ROLE_UPLINK, 0, PORT_FAILSAFE),
                Role::Segment(number) => (ROLE_SEGMENT, *number, 0),
                Role::Shared => (ROLE_SEGMENT, 0, 0),
            };
            let flags = flags | PORT_XDP_TARGET;
            let port = Port { ifindex: *ifindex, segment, role, flags, mac: TARGET_MAC, ..Port::ZERO };
            ports.set(*ifindex, port, 0).unwrap();
        }
        self.filled.ports = model.ports.keys().copied().collect();
    }

    fn fill_quarantine(&mut self, model: &Model) {
        let out = model.quarantine.iter().map(|((segment, address), until)| {
            (QuarantineKey { segment: *segment, pad: 0, address: address::of(*address) }, *until)
        });
        self.replace_all::<QuarantineKey, u64>("QUARANTINE", out);
    }

    /// Makes the map hold the sets of a model.
    pub fn fill_sets(&mut self, model: &Model) {
        let mut trie: LpmTrie<&mut MapData, SetKey, u64> = LpmTrie::try_from(self.map_mut("SETS")).unwrap();
        for key in trie.keys().collect::<Result<Vec<_>, _>>().unwrap() {
            trie.remove(&key).unwrap();
        }
        let mut hosts = BTreeMap::new();
        for ((segment, set), elements) in &model.sets {
            for element in elements {
                let key = SetKey { segment: *segment, set: *set, address: address::of(element.address) };
                let bits = u32::from(element.bits) + if element.address.is_ipv4() { 96 } else { 0 };
                // The maps answer with the longest prefix: it must last as long as any that covers it.
                let covering = elements
                    .iter()
                    .filter(|other| other.bits <= element.bits && contains(other, element.address));
                let until = covering.map(|other| other.until_tick).max().unwrap();
                if bits == 128 {
                    hosts.insert((*segment, *set, key.address), until);
                } else {
                    trie.insert(&Key::new(SET_KEY_BITS + bits, key), until, 0).unwrap();
                }
            }
        }
        let hosts = hosts
            .into_iter()
            .map(|((segment, set, address), until)| (SetKey { segment, set, address }, until));
        self.replace_all::<SetKey, u64>("SET_HOSTS", hosts);
    }

    fn fill_limits(&mut self, model: &Model) {
        self.replace_all::<LimitSource, u64>("LIMIT_SOURCES", std::iter::empty());
        let mut limits = self.array::<Limit>("LIMITS");
        for (slot, limit) in &model.limits {
            let packets = if limit.per_packet { LIMIT_PACKETS } else { 0 };
            let source = if limit.per_source { LIMIT_PER_SOURCE } else { 0 };
            let (cost, tolerance) = match limit.burst {
                u64::MAX => (0, 0),
                burst => (NEVER, NEVER * (burst - 1)),
            };
            let connections = limit.connections.map_or(0, |most| most.try_into().unwrap());
            let limit = Limit { cost, tolerance, flags: packets | source, connections, ..Limit::ZERO };
            limits.set(u32::from(*slot), limit, 0).unwrap();
        }
    }

    /// Lets a rule behind every flow end.
    pub fn fall_due(&mut self) {
        for name in ["FLOWS", "FLOWS_NEW"] {
            let mut map = self.hash::<FlowKey, Flow>(name);
            for entry in map.iter().collect::<Result<Vec<_>, _>>().unwrap() {
                let (key, flow) = entry;
                map.insert(key, Flow { deadline_tick: 1, ..flow }, 0).unwrap();
            }
        }
    }

    fn replace_all<K: aya::Pod, V: aya::Pod>(&mut self, name: &str, entries: impl Iterator<Item = (K, V)>) {
        let mut map = self.hash::<K, V>(name);
        for key in map.keys().collect::<Result<Vec<_>, _>>().unwrap() {
            map.remove(&key).unwrap();
        }
        for (key, value) in entries {
            map.insert(key, value, 0).unwrap();
        }
    }

    /// Forgets all flows and fragments.
    pub fn forget(&mut self) {
        self.replace_all::<FlowKey, Flow>("FLOWS", std::iter::empty());
        self.replace_all::<FlowKey, Flow>("FLOWS_NEW", std::iter::empty());
        self.replace_all::<FragmentKey, FragmentPorts>("FRAGMENTS", std::iter::empty());
        self.forget_connections();
    }

    /// Lets everything that is remembered become too old to count.
    pub fn age(&mut self) {
        for name in ["FLOWS", "FLOWS_NEW"] {
            let mut map = self.hash::<FlowKey, Flow>(name);
            for entry in map.iter().collect::<Result<Vec<_>, _>>().unwrap() {
                let (key, flow) = entry;
                map.insert(key, Flow { last_tick: 0, ..flow }, 0).unwrap();
            }
        }
        let mut map = self.hash::<FragmentKey, FragmentPorts>("FRAGMENTS");
        for entry in map.iter().collect::<Result<Vec<_>, _>>().unwrap() {
            let (key, ports) = entry;
            map.insert(key, FragmentPorts { until_tick: 0, ..ports }, 0).unwrap();
        }
        self.forget_connections();
    }

    /// Forgets how many connections sources have, as a count of tables without live ones does.
    fn forget_connections(&mut self) {
        self.replace_all::<LimitSource, u64>("CONNECTIONS", std::iter::empty());
    }
}

/// Where a policy of a segment goes: beside the one that it replaces, which flows were admitted by.
fn policy_slot(number: u32, segment: &crate::model::Segment) -> u32 {
    number + segment.version % 2 * (SEGMENTS + 1)
}

fn bits(protocols: &std::collections::BTreeSet<u8>) -> [u32; 8] {
    let mut words = [0; 8];
    for protocol in protocols {
        words[usize::from(protocol / 32)] |= 1 << (protocol % 32);
    }
    words
}
