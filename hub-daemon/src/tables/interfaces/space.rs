//! One network namespace with interfaces that have a personality.
//!
//! Its sockets stay open: they work in the namespace from any thread, so that a switch costs one system call.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::rule::RuleMessage;
use nix::errno::Errno;

use super::memory::Memory;
use super::outcome::{InterfaceError, Outcome};
use super::rules::{self, SlotRule};
use crate::desired::interfaces::{
    INTERFACE_TABLE_BASE, Interface, InterfaceAddress, InterfaceRouteKey, Slot,
};
use crate::desired::{Namespace, RouteKey};
use crate::kernel::links::FoundLink;
use crate::kernel::namespace::{NamespaceError, OpenNamespace};
use crate::kernel::netlink::{Netlink, NetlinkError};
use crate::reconcile::Table as _;
use crate::tables::routes::{Routes, Way, read_back};
use crate::tables::{addresses, family};

/// What a namespace should hold.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) addresses: BTreeMap<(u32, IpNet), InterfaceAddress>,
    /// `None` leaves a route as it is: its interface is not there.
    pub(super) routes: BTreeMap<RouteKey, Option<Way>>,
    pub(super) rules: BTreeSet<SlotRule>,
    pub(super) mtus: BTreeMap<u32, u32>,
    /// Who wants something.
    pub(super) records: Vec<String>,
    /// Those of them whose interface another record has: nothing is put for them.
    pub(super) twins: BTreeSet<String>,
    /// Whose a link, by index, or a routing table is.
    pub(super) owners: BTreeMap<u32, String>,
}

/// What a namespace holds.
#[derive(Default)]
pub(super) struct Held {
    pub(super) links: Vec<FoundLink>,
    /// Those of others too.
    pub(super) addresses: BTreeMap<(u32, IpNet), addresses::Found>,
    pub(super) routes: BTreeMap<RouteKey, Option<Way>>,
    pub(super) rules: BTreeSet<SlotRule>,
}

/// A namespace; `None` is the hub's own.
pub(super) struct Space {
    pub(super) name: Option<Namespace>,
    namespace: Option<OpenNamespace>,
    pub(super) netlink: Netlink,
    routes: Routes,
    pub(super) held: Held,
    pub(super) wanted: Wanted,
    /// Addresses that are not put, by link: somebody else has them, or nobody could be asked.
    pub(super) taken: BTreeSet<(u32, IpAddr)>,
}

impl Space {
    pub(super) fn open(
        name: Option<Namespace>,
        namespace: Option<OpenNamespace>,
    ) -> Result<Self, InterfaceError> {
        let sockets = || Ok::<_, NetlinkError>((Netlink::open()?, Routes::new(Netlink::open()?)));
        let (netlink, routes) = match &namespace {
            None => sockets()?,
            Some(namespace) => namespace.run(sockets)??,
        };
        Ok(Self {
            name,
            namespace,
            netlink,
            routes,
            held: Held::default(),
            wanted: Wanted::default(),
            taken: BTreeSet::new(),
        })
    }

    /// Reads what the namespace holds, and says what these records want of it.
    pub(super) fn read(
        &mut self,
        records: &BTreeMap<&str, &Interface>,
        outcome: &mut Outcome,
    ) -> Result<(), InterfaceError> {
        self.held.links = self.netlink.links()?;
        self.held.addresses.clear();
        let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        for message in self.netlink.dump(&question, "list addresses")? {
            if let RouteNetlinkMessage::NewAddress(message) = message {
                let found = addresses::Found::read(&message);
                self.held.addresses.extend(found.map(|found| ((message.header.index, found.net), found)));
            }
        }
        self.held.routes = self.routes.every()?;
        self.held.routes.retain(|key, _| key.table >= INTERFACE_TABLE_BASE);
        self.held.rules.clear();
        for family in family::FAMILIES {
            let mut question = RuleMessage::default();
            question.header.family = family;
            for message in self.netlink.dump(&RouteNetlinkMessage::GetRule(question), "list rules")? {
                if let RouteNetlinkMessage::NewRule(message) = message {
                    self.held.rules.extend(rules::read(&message));
                }
            }
        }
        self.wanted = Wanted::default();
        let mut links = self.links(records);
        for (record, interface) in records {
            let link = match links.remove(record) {
                Some(Ok(link)) => Some(link),
                Some(Err(error)) => {
                    if matches!(error, InterfaceError::Twin { .. }) {
                        self.wanted.twins.insert((*record).to_owned());
                    }
                    outcome.fail(record, error);
                    None
                }
                None => None,
            };
            self.want(record, interface, link.as_ref());
        }
        Ok(())
    }

    fn want(&mut self, record: &str, interface: &Interface, link: Option<&FoundLink>) {
        let wanted = &mut self.wanted;
        wanted.records.push(record.to_owned());
        if wanted.twins.contains(record) {
            return;
        }
        if let Some(link) = link {
            let is_there = |net: &IpNet| self.held.addresses.contains_key(&(link.index, *net));
            let addresses = interface.addresses.iter();
            let addresses = addresses.filter(|(net, address)| !address.leaves || is_there(net));
            wanted.addresses.extend(addresses.map(|(net, address)| ((link.index, *net), *address)));
            wanted.mtus.extend(interface.mtu.map(|mtu| (link.index, mtu)));
            wanted.owners.insert(link.index, record.to_owned());
        }
        for (table, routes) in interface.tables.iter().zip(&interface.routes) {
            wanted.owners.insert(*table, record.to_owned());
            for (InterfaceRouteKey { target, metric }, route) in routes {
                let key = read_back(&RouteKey { table: *table, target: *target, metric: *metric });
                let way = link.map(|link| Way { via: route.via.on(&link.name), source: route.source });
                wanted.routes.insert(key, way);
            }
        }
        for source in rules::sources(interface) {
            wanted.rules.extend(rules::standing(source, interface.tables));
        }
        wanted.rules.extend(rules::probes(interface));
    }

    /// Puts what is missing or different of sizes, addresses, routes and rules; nothing that packets use changes
    /// by it, but for what the live slot's routes are.
    pub(super) fn put(
        &mut self,
        records: &BTreeMap<&str, &Interface>,
        memory: &mut Memory,
        outcome: &mut Outcome,
    ) {
        self.put_mtus(memory, outcome);
        self.put_addresses(outcome);
        for (key, way) in std::mem::take(&mut self.wanted.routes) {
            let held = self.held.routes.get(&key);
            if let Some(way) = &way
                && held.and_then(Option::as_ref) != Some(way)
                && !self.lacks_source(way)
            {
                let record = self.wanted.owners.get(&key.table).cloned().unwrap_or_default();
                let put = self.routes.put_way(&key, way);
                outcome.count(&record, put);
            }
            self.wanted.routes.insert(key, way);
        }
        for (record, interface) in records {
            if self.wanted.twins.contains(*record) {
                continue;
            }
            let live = self.live(interface).unwrap_or(interface.live);
            let changes = rules::sources(interface)
                .into_iter()
                .flat_map(|source| self.missing(source, interface.tables, live))
                .chain(rules::probes(interface).into_iter().filter(|rule| !self.held.rules.contains(rule)))
                .map(|rule| (rule, true));
            for result in self.change_rules(changes.collect()) {
                outcome.count(record, result);
            }
        }
    }

    /// Whether the source of a route is an address that is not put: the kernel would refuse it, and why is told.
    fn lacks_source(&self, way: &Way) -> bool {
        way.source.is_some_and(|source| {
            let is_there = self.held.addresses.keys().any(|(_, net)| net.addr() == source);
            !is_there && self.taken.iter().any(|(_, address)| *address == source)
        })
    }

    /// Rules that stand for a source and are not there; a source without any gets its switch with them.
    fn missing(&self, source: IpNet, tables: [u32; 2], live: Slot) -> Vec<SlotRule> {
        let mut missing = rules::standing(source, tables).to_vec();
        let is_new = missing.iter().all(|rule| !self.held.rules.contains(rule));
        if is_new && live == Slot::B {
            missing.insert(missing.len() - 1, rules::switch(source));
        }
        missing.retain(|rule| !self.held.rules.contains(rule));
        missing
    }

    /// The slot that packets of an interface use, as found; `None` where no rule leads to either.
    pub(super) fn live(&self, interface: &Interface) -> Option<Slot> {
        let sources = rules::sources(interface);
        let stands = |source: &&IpNet| {
            rules::standing(**source, interface.tables).iter().any(|rule| self.held.rules.contains(rule))
        };
        let source = sources.iter().find(stands)?;
        Some(if self.held.rules.contains(&rules::switch(*source)) { Slot::B } else { Slot::A })
    }

    /// Makes packets use a slot: one rule for each source comes, or goes, all in one system call.
    pub(super) fn flip(&mut self, interface: &Interface, slot: Slot) -> Result<usize, NetlinkError> {
        let is_wanted = slot == Slot::B;
        let switches = rules::sources(interface).into_iter().map(rules::switch);
        let changes: Vec<_> = switches
            .filter(|rule| self.held.rules.contains(rule) != is_wanted)
            .map(|rule| (rule, is_wanted))
            .collect();
        let count = changes.len();
        self.change_rules(changes).into_iter().collect::<Result<Vec<()>, _>>()?;
        Ok(count)
    }

    /// Puts rules, or deletes them where `false` is with them, in one system call.
    fn change_rules(&mut self, changes: Vec<(SlotRule, bool)>) -> Vec<Result<(), NetlinkError>> {
        let messages = changes.iter().map(|(rule, put)| {
            let message = rules::message(rule);
            if *put {
                let intent = format!("put {}", rules::describe(rule));
                (RouteNetlinkMessage::NewRule(message), NLM_F_CREATE | NLM_F_EXCL, intent)
            } else {
                (RouteNetlinkMessage::DelRule(message), 0, format!("delete {}", rules::describe(rule)))
            }
        });
        let results = self.netlink.change_all(messages.collect());
        let results = results.into_iter().zip(changes).map(|(result, (rule, put))| {
            let is_so = |error: &NetlinkError| error.is(if put { Errno::EEXIST } else { Errno::ENOENT });
            if result.as_ref().is_err_and(|error| !is_so(error)) {
                return result;
            }
            if put {
                self.held.rules.insert(rule);
            } else {
                self.held.rules.remove(&rule);
            }
            Ok(())
        });
        results.collect()
    }

    pub(super) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NamespaceError> {
        match &self.namespace {
            None => Ok(work()),
            Some(namespace) => namespace.run(work),
        }
    }

    /// What is ours here and nobody wants, in words.
    pub(super) fn unwanted(&self) -> Vec<String> {
        let rules = self.unwanted_rules().into_iter().map(|rule| rules::describe(&rule));
        let routes = self.unwanted_routes().into_iter().map(|key| Routes::describe(&key));
        let addresses = self.unwanted_addresses().into_iter().map(|(index, net)| self.address(index, net));
        rules.chain(routes).chain(addresses).map(|object| self.placed(object)).collect()
    }

    fn unwanted_rules(&self) -> Vec<SlotRule> {
        let is_wanted = |rule: &SlotRule| {
            let source = rule.source;
            let stands =
                || self.wanted.rules.iter().any(|standing| standing.mark == 0 && standing.source == source);
            self.wanted.rules.contains(rule) || *rule == rules::switch(source) && stands()
        };
        self.held.rules.iter().filter(|rule| !is_wanted(rule)).cloned().collect()
    }

    fn unwanted_routes(&self) -> Vec<RouteKey> {
        self.held.routes.keys().filter(|key| !self.wanted.routes.contains_key(*key)).cloned().collect()
    }

    /// Deletes what nobody wants, and makes deprecated what nothing is to choose any more.
    pub(super) fn retire(&mut self, memory: &mut Memory, outcome: &mut Outcome) {
        let mut going = self.unwanted_rules();
        going.sort_by_key(|rule| {
            let is_second_live = self.held.rules.contains(&rules::switch(rule.source));
            (rule.source, rules::goes_before(rule, is_second_live))
        });
        let names: Vec<_> = going.iter().map(|rule| self.placed(rules::describe(rule))).collect();
        let results = self.change_rules(going.into_iter().map(|rule| (rule, false)).collect());
        for (name, result) in names.into_iter().zip(results) {
            outcome.delete(name, result);
        }
        for key in self.unwanted_routes() {
            let result = self.routes.delete(&key);
            outcome.delete(self.placed(Routes::describe(&key)), result);
        }
        self.deprecate_addresses(outcome);
        self.delete_addresses(outcome);
        self.restore_mtus(memory, outcome);
    }

    pub(super) fn address(&self, index: u32, net: IpNet) -> String {
        let link = self.held.links.iter().find(|link| link.index == index);
        let link = link.map_or_else(|| format!("#{index}"), |link| link.name.clone());
        format!("address {net} on {link}")
    }

    /// An object with the namespace that it is in.
    pub(super) fn placed(&self, object: String) -> String {
        match &self.name {
            None => object,
            Some(Namespace::Name(name)) => format!("{object} in {name}"),
            Some(Namespace::Pid(pid)) => format!("{object} in the namespace of process {pid}"),
        }
    }

    /// The records that want something here.
    pub(super) fn is_empty(&self) -> bool {
        self.wanted.records.is_empty()
    }
}
