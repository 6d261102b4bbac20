//! What a persona contributes to the kernel's tables: ports, endpoints, addresses, routes, rules.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::Record;
use super::claims::Claims;
use super::seats::link_name;
use super::shaping;
use crate::command::Inventory;
use crate::desired::{
    Address, Desired, Endpoint, Port, RULE_PRIORITIES, Role, Route, RouteKey, Rule, TABLE_BASE, Via, Xdp,
};
use crate::model::SegmentId;
use crate::model::bandwidth::Bandwidth;
use crate::model::config::{Config, RoutePriority};
use crate::model::prefix;

/// Kernel number of the main routing table.
pub const MAIN_TABLE: u32 = 254;
/// Metric of a persona's routes; routes to the same target differ by [`METRIC_STEP`].
pub const METRIC_BASE: u32 = 1_000;
/// See [`METRIC_BASE`].
pub const METRIC_STEP: u32 = 10;
/// Metric of the routes that keep packets to a persona from the default route.
pub const METRIC_FALLBACK: u32 = 1_000_000;
/// Largest packet on endpoints in bytes.
const MTU: u32 = 1_500;

/// Where a persona's packets go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Targets with the way there.
    pub routes: Vec<(IpNet, Via)>,
    /// There is no port at all.
    pub no_port: bool,
    /// Interfaces that do not exist.
    pub missing: Vec<String>,
    /// Interfaces that are down.
    pub down: Vec<String>,
    /// What keeps the persona's quality of service from being as asked: reason and message.
    pub qos: Vec<(String, String)>,
    /// Interfaces that exist, with what is on them.
    ports: Vec<Placed>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Placed {
    name: String,
    segment: Option<SegmentId>,
    prefixes: Vec<IpNet>,
}

/// The kernel's links, what is configured for them, and who has them.
pub struct Ground<'a> {
    /// Configuration.
    pub config: &'a Config,
    /// State of the kernel.
    pub inventory: &'a Inventory,
    /// The one interface that personas without ports of their own share.
    pub shared: Option<String>,
}

impl<'a> Ground<'a> {
    /// Finds the shared interface.
    pub fn new(config: &'a Config, inventory: &'a Inventory, claims: &Claims) -> Self {
        let named = config
            .interfaces
            .iter()
            .filter(|interface| !interface.is_glob)
            .map(|interface| &interface.pattern);
        let names: BTreeSet<&String> = inventory.links.keys().chain(named).collect();
        let mut free = names.into_iter().filter(|name| {
            role(config, name).is_some_and(|(role, _)| role == Role::Segment) && !claims.owns_interface(name)
        });
        let shared = free.next().filter(|_| free.next().is_none()).cloned();
        Self { config, inventory, shared }
    }

    /// Whether an interface leads to the rest of the network.
    pub fn is_uplink(&self, name: &str) -> bool {
        role(self.config, name).is_some_and(|(role, _)| role == Role::Uplink)
    }

    /// Bandwidth that the configuration says an interface has, in bits per second.
    pub fn bandwidth(&self, name: &str) -> Option<u64> {
        let interface = self.config.interfaces.iter().find(|interface| interface.fits(name))?;
        interface.bandwidth.map(Bandwidth::bps)
    }

    /// Adds the configured interfaces that exist.
    pub fn contribute(&self, desired: &mut Desired) {
        for name in self.inventory.links.keys() {
            let Some((role, xdp)) = role(self.config, name) else { continue };
            if !desired.ports.contains_key(name) {
                desired.ports.insert(name.clone(), Port { role, segment: None, xdp });
            }
            if role == Role::Segment {
                desired.gates.insert(name.clone());
            }
        }
        let named = self.config.interfaces.iter().filter(|interface| !interface.is_glob);
        let segments = named.filter(|interface| interface.role == Role::Segment);
        desired.gates.extend(segments.map(|interface| interface.pattern.clone()));
    }
}

/// Role of an interface and whether XDP runs there, by the first entry that fits its name.
fn role(config: &Config, name: &str) -> Option<(Role, Xdp)> {
    let interface = config.interfaces.iter().find(|interface| interface.fits(name))?;
    Some((interface.role, interface.xdp))
}

/// Finds out where the packets of a persona go.
pub fn place(record: &Record, ground: &Ground<'_>) -> Placement {
    let persona = &record.persona;
    let mut placement = Placement::default();
    for attachment in persona.attachments() {
        let prefixes: Vec<IpNet> =
            attachment.prefixes.iter().map(|prefix| record.virtuals.main(prefix)).collect();
        placement.attach(&attachment.name, Some(record.segment), &prefixes, ground);
    }
    for endpoint in persona.endpoints() {
        let Some(seat) = record.seats.get(&endpoint.name) else { continue };
        let name = link_name(record.segment, seat.number);
        let main = |address: &IpAddr| IpNet::from(record.virtuals.address(*address));
        let host = |address: &IpAddr| (main(address), Via::Interface(name.clone()));
        placement.routes.extend(seat.addresses.iter().map(host));
    }
    if persona.attachments().is_empty() && persona.endpoints().is_empty() {
        if let Some(name) = &ground.shared {
            placement.attach(name, None, persona.ranges(), ground);
        } else {
            placement.no_port = true;
            placement.routes.extend(persona.ranges().iter().map(|range| (*range, Via::Blackhole)));
        }
    }
    let names: Vec<String> = placement.ports.iter().map(|port| port.name.clone()).collect();
    placement.qos = shaping::conditions(record, ground, &names);
    placement
}

impl Placement {
    fn attach(&mut self, name: &str, segment: Option<SegmentId>, prefixes: &[IpNet], ground: &Ground<'_>) {
        let via = match ground.inventory.links.get(name) {
            Some(link) if link.up => Via::Interface(name.to_owned()),
            Some(_) => {
                self.down.push(name.to_owned());
                Via::Blackhole
            }
            None => {
                self.missing.push(name.to_owned());
                Via::Blackhole
            }
        };
        self.routes.extend(prefixes.iter().map(|prefix| (*prefix, via.clone())));
        if ground.inventory.links.contains_key(name) {
            self.ports.push(Placed { name: name.to_owned(), segment, prefixes: prefixes.to_vec() });
        }
    }
}

/// Adds everything but routes: ports, endpoints, addresses, switches.
pub fn contribute(desired: &mut Desired, record: &Record, placement: &Placement, ground: &Ground<'_>) {
    let expires = record.over_at();
    let v6 = record.persona.has_family(false);
    desired.gates.extend(record.persona.attachments().iter().map(|attachment| attachment.name.clone()));
    for port in &placement.ports {
        let xdp = role(ground.config, &port.name).map(|(_, xdp)| xdp).unwrap_or_default();
        desired.ports.insert(port.name.clone(), Port { role: Role::Segment, segment: port.segment, xdp });
        switches(desired, &port.name, v6);
        let behind = |range: &&IpNet| port.prefixes.iter().any(|prefix| prefix::overlaps(prefix, range));
        let gateways: Vec<IpNet> = if let Some(carried) = record.persona.carried() {
            let beside = carried.gateways.iter().map(|gateway| ((record.segment, *gateway), ()));
            desired.gateways.extend(beside);
            carried.gateways.iter().map(|gateway| IpNet::from(*gateway)).collect()
        } else {
            let ranges = record.main_ranges().into_iter().filter(|range| behind(&range));
            ranges.map(|range| with_length(prefix::gateway(&range), &range)).collect()
        };
        for gateway in gateways {
            desired.addresses.insert((port.name.clone(), gateway), Address { expires });
        }
    }
    for endpoint in record.persona.endpoints() {
        let Some(seat) = record.seats.get(&endpoint.name) else { continue };
        let name = link_name(record.segment, seat.number);
        let ranges = record.persona.ranges();
        let range = |address: &IpAddr| ranges.iter().find(|range| range.contains(address));
        let own: Vec<&IpNet> = seat.addresses.iter().filter_map(range).collect();
        let first = |v4: bool| own.iter().find(|range| range.addr().is_ipv4() == v4);
        let gateways: Vec<IpAddr> =
            [true, false].into_iter().filter_map(first).map(|range| prefix::gateway(range)).collect();
        for gateway in &gateways {
            let main = record.virtuals.address(*gateway);
            desired.addresses.insert((name.clone(), IpNet::from(main)), Address { expires });
        }
        let addresses = seat.addresses.iter().zip(&own).map(|(address, range)| with_length(*address, range));
        let made = Endpoint {
            namespace: endpoint.namespace.clone(),
            interface: endpoint.interface.clone(),
            addresses: addresses.collect(),
            gateways,
            mtu: record.persona.mtu().unwrap_or(MTU),
            expires,
        };
        switches(desired, &name, v6);
        let port = Port { role: Role::Segment, segment: Some(record.segment), xdp: Xdp::Auto };
        desired.ports.insert(name.clone(), port);
        desired.endpoints.insert(name, made);
    }
}

fn with_length(address: IpAddr, range: &IpNet) -> IpNet {
    IpNet::new(address, range.prefix_len()).unwrap_or_else(|_length| IpNet::from(address))
}

/// Switches of a port towards members (`Documentation/networking/ip-sysctl.rst`).
fn switches(desired: &mut Desired, name: &str, v6: bool) {
    let v4 = [
        // Members ask for the gateway only; the hub answers for nobody else.
        ("proxy_arp", "0"),
        // Not by default: the kernel answers on each link for the addresses of all.
        ("arp_ignore", "1"),
        // The data path refuses forged sources; the kernel's own check knows no persona tables.
        ("rp_filter", "2"),
        ("send_redirects", "0"),
        ("accept_redirects", "0"),
    ];
    for (switch, value) in v4 {
        desired.sysctls.insert(format!("net/ipv4/conf/{name}/{switch}"), value.to_owned());
    }
    // Where IPv6 is off these do not exist.
    for switch in ["accept_ra", "accept_redirects"].into_iter().filter(|_| v6) {
        desired.sysctls.insert(format!("net/ipv6/conf/{name}/{switch}"), "0".to_owned());
    }
}

/// Switches of the host: it routes.
pub fn host_switches(desired: &mut Desired, v6: bool) {
    desired.sysctls.insert("net/ipv4/ip_forward".to_owned(), "1".to_owned());
    // A port sends redirects if this or its own switch is on.
    desired.sysctls.insert("net/ipv4/conf/all/send_redirects".to_owned(), "0".to_owned());
    if v6 {
        desired.sysctls.insert("net/ipv6/conf/all/forwarding".to_owned(), "1".to_owned());
    }
}

/// Which of two personas that want the same is first: that of the lesser value. The one that ends soonest, and one that
/// never ends comes last, or the other way round; among those that end together the one of higher priority.
pub fn precedence(record: &Record, priority: RoutePriority) -> (i128, Reverse<i32>) {
    let end = record.deadline().map_or(i128::MAX, jiff::Timestamp::as_nanosecond);
    let end = match priority {
        RoutePriority::EarliestExpiry => end,
        RoutePriority::LatestExpiry => -end,
    };
    (end, Reverse(record.document.priority.unwrap_or_default()))
}

/// Adds the routes of all personas. Among routes to the same target that of the first by [`precedence`] wins: when it
/// goes, the next takes over.
pub fn routes(desired: &mut Desired, placed: &[(&Record, Placement)], priority: RoutePriority) {
    let mut wanted: Vec<_> = placed
        .iter()
        .flat_map(|(record, placement)| {
            placement.routes.iter().map(move |(target, via)| (target, *record, via))
        })
        .collect();
    wanted.sort_by_key(|(target, record, _)| {
        (**target, precedence(record, priority), record.created_at, record.id.clone())
    });
    let (mut before, mut metric) = (None, METRIC_BASE);
    for (target, record, via) in wanted {
        metric = if before == Some(target) { metric + METRIC_STEP } else { METRIC_BASE };
        before = Some(target);
        let key = RouteKey { table: MAIN_TABLE, target: *target, metric };
        desired.routes.insert(key, Route { via: via.clone(), persona: record.id.clone() });
    }
    for (record, _) in placed {
        for range in record.main_ranges() {
            let key = RouteKey { table: MAIN_TABLE, target: range, metric: METRIC_FALLBACK };
            desired.routes.insert(key, Route { via: Via::Unreachable, persona: record.id.clone() });
        }
    }
}

/// Adds the table of a persona with next hops of its own: its ranges, those of its peers, and a default
/// route and one that refuses behind it, for each family that has a next hop. A persona without uses the host's routes, so that packets of
/// others are not compared with its rule.
pub fn table(desired: &mut Desired, record: &Record, own: &Placement, peers: &[&Placement]) {
    let table = TABLE_BASE + record.segment.0;
    let route = |via: &Via| Route { via: via.clone(), persona: record.id.clone() };
    for hop in record.persona.next_hops() {
        let family = |target: &IpNet| target.addr().is_ipv4() == hop.is_ipv4();
        for placement in [own].iter().chain(peers) {
            for (target, via) in placement.routes.iter().filter(|(target, _)| family(target)) {
                desired.routes.insert(RouteKey { table, target: *target, metric: METRIC_BASE }, route(via));
            }
        }
        for range in record.main_ranges().iter().filter(|range| family(range)) {
            let key = RouteKey { table, target: *range, metric: METRIC_FALLBACK };
            desired.routes.insert(key, route(&Via::Unreachable));
            let priority = RULE_PRIORITIES.start;
            desired.rules.insert(Rule { priority, source: *range, table });
        }
        let everything = if hop.is_ipv4() {
            IpNet::V4(ipnet::Ipv4Net::default())
        } else {
            IpNet::V6(ipnet::Ipv6Net::default())
        };
        let via = Via::Gateway { gateway: *hop, interface: None };
        desired.routes.insert(RouteKey { table, target: everything, metric: METRIC_BASE }, route(&via));
        // While the kernel has no way to the next hop, nothing leaves by the routes of others.
        let key = RouteKey { table, target: everything, metric: METRIC_FALLBACK };
        desired.routes.insert(key, route(&Via::Unreachable));
    }
}
