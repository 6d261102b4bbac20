//! Which addresses the kernel is asked for to see where the packets of each route go: in each destination one that
//! neither a more specific route is for nor the machine itself has.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::seat::Seat;
use crate::model::personality::{Personality, Route, RouteKey};
use crate::model::prefix;

/// Metric that the kernel gives an IPv6 route without any (`IP6_RT_PRIO_USER`).
const IPV6_DEFAULT_METRIC: u32 = 1_024;

/// Routes that decide for their destinations, each with an address there; without those that no address can be asked
/// for. `beside` is what the interface has beside the personality's own addresses.
pub(super) fn lookups<'a>(
    personality: &'a Personality,
    seat: &Seat,
    beside: &[IpNet],
) -> Vec<(IpAddr, &'a Route)> {
    let own = placed(personality).chain(beside.iter().copied());
    let taken: Vec<IpNet> = own.flat_map(|own| kept(&own)).chain(NEVER).collect();
    let best = decide(personality.routes());
    // The hub's addresses in the subnet have routes of their own.
    let routed: Vec<IpNet> =
        best.keys().copied().chain(seat.gateways.iter().copied().map(IpNet::from)).collect();
    let each = best.iter().filter_map(|(target, route)| Some((inside(target, &routed, &taken)?, *route)));
    each.collect()
}

/// Addresses that a machine has by a personality, with their networks: those of the interface and of its tunnel.
pub fn placed(personality: &Personality) -> impl Iterator<Item = IpNet> {
    let tunnel = personality.tunnel().into_iter().flat_map(|tunnel| &tunnel.addresses);
    personality.addresses().keys().chain(tunnel).copied()
}

/// Of each destination the route that packets use: that with the best metric.
fn decide(routes: &BTreeMap<RouteKey, Route>) -> BTreeMap<IpNet, &Route> {
    let mut best: BTreeMap<IpNet, (u32, &Route)> = BTreeMap::new();
    for (key, route) in routes {
        let is_default = key.metric == 0 && key.target.addr().is_ipv6();
        let metric = if is_default { IPV6_DEFAULT_METRIC } else { key.metric };
        let target = key.target.trunc();
        if best.get(&target).is_none_or(|(other, _)| metric < *other) {
            best.insert(target, (metric, route));
        }
    }
    best.into_iter().map(|(target, (_, route))| (target, route)).collect()
}

/// Ranges in which the kernel has an answer of its own, or none, whatever routes a table has.
const NEVER: [IpNet; 4] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 8)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 127)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8)),
];

/// What the kernel keeps for itself where it has an address: that, and what means the whole network.
fn kept(address: &IpNet) -> Vec<IpNet> {
    let mut kept = vec![address.addr()];
    // Networks of one or two hosts have no such (RFC 3021, RFC 6164).
    if address.prefix_len() + 1 < address.max_prefix_len() {
        kept.push(address.network());
        kept.extend(Some(address.broadcast()).filter(IpAddr::is_ipv4));
    }
    kept.into_iter().map(IpNet::from).collect()
}

/// An address of a destination that no more specific route is for and that is not taken. Beyond a default route rather
/// one that nobody has (RFC 5737, RFC 3849), and of wide ranges none that is not for hosts.
fn inside(target: &IpNet, routed: &[IpNet], taken: &[IpNet]) -> Option<IpAddr> {
    let narrower = |other: &&IpNet| other.prefix_len() > target.prefix_len() && target.contains(*other);
    let special: Vec<IpNet> = prefix::special_ranges().collect();
    let holes: Vec<IpNet> = routed.iter().chain(&special).filter(narrower).chain(taken).copied().collect();
    let nobody = match target {
        IpNet::V4(_) => IpAddr::from([192, 0, 2, 1]),
        IpNet::V6(_) => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]),
    };
    let first = if target.prefix_len() == 0 {
        nobody
    } else if target.prefix_len() < target.max_prefix_len() {
        prefix::nth(target, 1)
    } else {
        target.addr()
    };
    free(first, target, &holes).or_else(|| free(target.network(), target, &holes))
}

/// The first address from this one on that is in no hole.
fn free(first: IpAddr, target: &IpNet, holes: &[IpNet]) -> Option<IpAddr> {
    let mut at = first;
    while let Some(hole) = holes.iter().find(|hole| hole.contains(&at)) {
        at = next(hole.broadcast()).filter(|next| target.contains(next))?;
    }
    Some(at)
}

fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => Some(Ipv4Addr::from(u32::from(address).checked_add(1)?).into()),
        IpAddr::V6(address) => Some(Ipv6Addr::from(u128::from(address).checked_add(1)?).into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::document::read::personality_from_value;
    use crate::model::personality::{Device, Way};

    /// The lookups of a routing table, by device.
    #[expect(clippy::needless_pass_by_value, reason = "tests read better with `json!` as it stands")]
    fn of(routes: Value, beside: &[&str]) -> Vec<(String, String)> {
        let document = json!({"name": "p", "ip_addresses": ["10.0.0.5/24", "fd00::5/64"], "routing_table": routes,
            "vpn_tunnel_config": {"interface": "wg0", "private_key_file": "/key",
                "addresses": ["10.9.0.1/24", "fd09::1/64"],
                "peers": [{"public_key": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
                    "allowed_ips": ["0.0.0.0/0", "::/0"]}]}});
        let document = personality_from_value(document).expect("the test's document can be read");
        let personality = Personality::new(&document).expect("the test's document is valid");
        let seat = Seat { gateways: vec!["10.0.0.1".parse().unwrap()], ..Seat::default() };
        let beside: Vec<IpNet> = beside.iter().map(|text| text.parse().unwrap()).collect();
        let named = |(target, route): (IpAddr, &Route)| {
            let device = match &route.way {
                Way::Device { device: Device::Interface, .. } => "interface",
                Way::Device { device: Device::Tunnel, .. } => "tunnel",
                Way::Device { device: Device::Name(name), .. } => name,
                Way::Blackhole | Way::Unreachable | Way::Prohibit => "none",
            };
            (target.to_string(), device.to_owned())
        };
        lookups(&personality, &seat, &beside).into_iter().map(named).collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(target, device)| ((*target).to_owned(), (*device).to_owned())).collect()
    }

    #[test]
    fn no_address_is_asked_for_that_a_more_specific_route_is_for() {
        let table = json!([{"destination": "10.0.0.0/8", "via": "10.0.0.2"},
            {"destination": "10.0.0.0/16", "device": "tunnel"}, {"destination": "10.1.0.0/16", "type": "blackhole"}]);
        assert_eq!(
            of(table, &[]),
            pairs(&[("10.2.0.0", "interface"), ("10.0.0.2", "tunnel"), ("10.1.0.1", "none")])
        );
        let halves = json!([{"destination": "10.64.0.0/16", "via": "10.0.0.2"},
            {"destination": "10.64.0.0/17", "device": "tunnel"}, {"destination": "10.64.128.0/17", "device": "tunnel"}]);
        assert_eq!(of(halves, &[]), pairs(&[("10.64.0.1", "tunnel"), ("10.64.128.1", "tunnel")]));
        let six = json!([{"destination": "fd00:1::/32", "via": "fd00::2"},
            {"destination": "fd00:1::/48", "device": "tunnel"}]);
        assert_eq!(of(six, &[]), pairs(&[("fd00:1:1::", "interface"), ("fd00:1::1", "tunnel")]));
    }

    #[test]
    fn of_several_metrics_the_best_is_asked_for() {
        let table = json!([{"destination": "10.5.0.0/16", "via": "10.0.0.2", "metric": 200},
            {"destination": "10.5.0.0/16", "device": "tunnel", "metric": 100}]);
        assert_eq!(of(table, &[]), pairs(&[("10.5.0.1", "tunnel")]));
        // The kernel makes 1024 of none.
        let six = json!([{"destination": "fd05::/16", "via": "fd00::2"},
            {"destination": "fd05::/16", "device": "tunnel", "metric": 100}]);
        assert_eq!(of(six, &[]), pairs(&[("fd05::1", "tunnel")]));
    }

    #[test]
    fn what_the_machine_has_itself_is_not_asked_for() {
        let tunnel = json!([{"destination": "10.9.0.0/24", "device": "tunnel"},
            {"destination": "fd09::/64", "device": "tunnel"}]);
        assert_eq!(of(tunnel, &[]), pairs(&[("10.9.0.2", "tunnel"), ("fd09::2", "tunnel")]));
        let tunnel = json!([{"destination": "10.9.0.0/24", "device": "tunnel"}]);
        assert_eq!(of(tunnel, &["10.9.0.2/24", "10.9.0.3/32"]), pairs(&[("10.9.0.4", "tunnel")]));
        let two = json!([{"destination": "10.0.0.4/31", "device": "tunnel"},
            {"destination": "10.0.0.5/32", "device": "tunnel"}, {"destination": "10.0.0.255/32", "device": "tunnel"}]);
        assert_eq!(of(two, &[]), pairs(&[("10.0.0.4", "tunnel")]));
        let link = json!([{"destination": "10.0.0.0/24"}]);
        assert_eq!(of(link, &[]), pairs(&[("10.0.0.2", "interface")]), "the hub has a route of its own");
    }

    #[test]
    fn wide_ranges_are_asked_for_by_addresses_that_hosts_have() {
        let table = json!([{"destination": "0.0.0.0/1", "device": "tunnel"},
            {"destination": "128.0.0.0/1", "device": "tunnel"}, {"destination": "default", "via": "10.0.0.2"}]);
        assert_eq!(of(table, &[]), pairs(&[("1.0.0.0", "tunnel"), ("128.0.0.1", "tunnel")]));
        let default = json!([{"destination": "default", "via": "10.0.0.2"},
            {"destination": "::/0", "via": "fd00::2"}]);
        assert_eq!(of(default, &[]), pairs(&[("192.0.2.1", "interface"), ("2001:db8::1", "interface")]));
        let covered = json!([{"destination": "default", "via": "10.0.0.2"},
            {"destination": "192.0.2.0/24", "device": "tunnel"}, {"destination": "::/1", "device": "tunnel"}]);
        let expected = [("192.0.3.0", "interface"), ("192.0.2.1", "tunnel"), ("0:1::", "tunnel")];
        assert_eq!(of(covered, &[]), pairs(&expected));
    }
}
