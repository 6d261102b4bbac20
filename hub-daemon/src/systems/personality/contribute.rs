//! What an interface with personalities adds to the kernel's tables beside its carrier.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use ring::digest::{SHA256, digest};

use super::Record;
use super::seat::Seat;
use crate::desired::interfaces::{
    AddressScope, Interface, InterfaceAddress, InterfaceRoute, InterfaceRouteKey, InterfaceVia, Resolver,
    RuleScope, Slot, Tunnel, slot_table, through_gateway,
};
use crate::desired::{Desired, LINK_PREFIX, Port, Role, Xdp};
use crate::document::interface::RoutesDocument;
use crate::model::SegmentId;
use crate::model::personality::{Device, Personality, PersonalityTunnel, Way, hexadecimal};

/// A personality of an interface.
#[derive(Clone, Copy)]
pub struct Laid<'a> {
    /// What it says.
    pub personality: &'a Personality,
    /// Where it is.
    pub seat: &'a Seat,
}

/// The personalities of an interface: the one that decides, and the one beside it.
#[derive(Clone, Copy)]
pub struct Pair<'a> {
    /// The one that decides.
    pub live: Laid<'a>,
    /// The one beside it.
    pub other: Option<Laid<'a>>,
    /// Addresses of those that were given up, where connections are told.
    pub departed: &'a BTreeMap<IpNet, AddressScope>,
}

/// Adds addresses, routes, tunnels and the resolver.
pub fn contribute(desired: &mut Desired, record: &Record, segment: SegmentId, pair: Pair<'_>) {
    let live = pair.live.personality;
    let other = pair.other.map(|laid| laid.personality);
    let namespace = record.settings.place.namespace.clone();
    let mut addresses: BTreeMap<_, _> = BTreeMap::new();
    let beside = other.iter().flat_map(|other| other.addresses()).map(|address| (address, false));
    for ((address, scope), leaves) in pair.departed.iter().map(|address| (address, true)).chain(beside) {
        // In one network all have one scope: that of those that decide.
        let beside = live.addresses().iter().find(|(beside, _)| beside.trunc() == address.trunc());
        let scope = beside.map_or(*scope, |(_, scope)| *scope);
        addresses.insert(*address, InterfaceAddress { deprecated: true, leaves, scope });
    }
    for (address, scope) in live.addresses() {
        addresses.insert(*address, InterfaceAddress { deprecated: false, leaves: false, scope: *scope });
    }
    let mut routes = [routes_of(Some(pair.live), segment), routes_of(pair.other, segment)];
    let has_routes = routes.iter().any(|routes| !routes.is_empty());
    if record.layout.slot.index() == 1 {
        routes.reverse();
    }
    let scope = match record.settings.routes {
        _ if !has_routes => RuleScope::Nothing,
        RoutesDocument::Everything => RuleScope::Everything,
        RoutesDocument::Addresses => RuleScope::FromAddresses,
    };
    let interface = Interface {
        place: record.settings.place.clone(),
        made_at: record.created_at,
        persona: record.carrier.clone(),
        addresses,
        mtu: live.mtu(),
        tables: [Slot::A, Slot::B].map(|slot| slot_table(segment, slot)),
        routes,
        live: record.layout.slot,
        scope,
        probed: record.settings.failover.as_ref().is_some_and(|failover| failover.comes_back),
    };
    desired.interfaces.insert(record.settings.name.clone(), interface);
    // A link that both have is as the one that decides has it.
    for personality in other.into_iter().chain([live]) {
        let Some(tunnel) = personality.tunnel() else { continue };
        let made = Tunnel {
            namespace: namespace.clone(),
            persona: record.carrier.clone(),
            segment: namespace.is_some().then_some(segment),
            backend: tunnel.backend,
            private_key_file: tunnel.private_key_file.clone(),
            listen_port: tunnel.listen_port,
            mark: None,
            addresses: tunnel.addresses.clone(),
            mtu: tunnel.mtu,
            peers: tunnel.peers.clone(),
        };
        let link = tunnel_name(tunnel, segment);
        if record.settings.is_own() {
            // Its other end is as far away as whatever uplinks lead to.
            let port = Port { role: Role::Uplink, segment: None, xdp: Xdp::Off };
            desired.ports.insert(link.clone(), port);
        }
        desired.tunnels.insert(link, made);
    }
    if !live.servers().is_empty() {
        let resolver = Resolver {
            place: record.settings.place.clone(),
            persona: record.carrier.clone(),
            servers: live.servers().to_vec(),
            search: live.search().to_vec(),
            manage_resolv_conf: record.settings.manage_resolv_conf,
        };
        desired.resolvers.insert(record.settings.name.clone(), resolver);
    }
}

/// Name of the link of a tunnel: as the document says, or made of what makes it another one, at most 15 letters.
///
/// Another key or other peers make another device, which can have its handshakes beside the one that is there. Two of
/// one UDP port cannot be there at once; neither do two with one key and the same peer work, who answers the last.
pub fn tunnel_name(tunnel: &PersonalityTunnel, segment: SegmentId) -> String {
    if let Some(name) = &tunnel.interface {
        return name.clone();
    }
    let peers = tunnel.peers.keys().filter(|_| tunnel.listen_port.is_none());
    let peers = peers.fold(String::new(), |peers, key| format!("{peers} {key}"));
    let what = format!("{} {:?}{peers}", tunnel.private_key_file.display(), tunnel.listen_port);
    let hash = digest(&SHA256, what.as_bytes());
    let digits = hexadecimal(hash.as_ref().get(..2).unwrap_or_default());
    format!("{LINK_PREFIX}{segment}t{digits}")
}

/// The routes of a personality. All that it says nothing of goes to the hub's addresses in its subnet: members of
/// the subnet are behind the hub, too.
fn routes_of(laid: Option<Laid<'_>>, segment: SegmentId) -> BTreeMap<InterfaceRouteKey, InterfaceRoute> {
    let Some(Laid { personality, seat }) = laid else { return BTreeMap::new() };
    let own = |of: IpAddr| {
        let mut addresses = personality.addresses().keys().map(IpNet::addr);
        addresses.find(|address| address.is_ipv4() == of.is_ipv4())
    };
    let device = |device: &Device| match device {
        Device::Interface => None,
        Device::Tunnel => personality.tunnel().map(|tunnel| tunnel_name(tunnel, segment)),
        Device::Name(name) => Some(name.clone()),
    };
    let routes = personality.routes().iter().map(|(key, route)| {
        let via = match &route.way {
            Way::Device { via: None, device: named } => InterfaceVia::Link(device(named)),
            Way::Device { via: Some(gateway), device: named } => {
                InterfaceVia::Gateway { gateway: *gateway, device: device(named) }
            }
            Way::Blackhole => InterfaceVia::Blackhole,
            Way::Unreachable => InterfaceVia::Unreachable,
            Way::Prohibit => InterfaceVia::Prohibit,
        };
        let key = InterfaceRouteKey { target: key.target, metric: key.metric };
        let leads = matches!(via, InterfaceVia::Link(None) | InterfaceVia::Gateway { device: None, .. });
        let source = route.source.or_else(|| own(key.target.addr()).filter(|_| leads));
        (key, InterfaceRoute { via, source })
    });
    let mut all: BTreeMap<_, _> = routes.collect();
    let through =
        seat.gateways.iter().filter_map(|gateway| Some(through_gateway(*gateway, Some(own(*gateway)?))));
    for (key, route) in through.flatten() {
        if !all.keys().any(|said| said.target == key.target) {
            all.insert(key, route);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::document::read::personality_from_value;

    fn name(peer: char, more: &Value) -> String {
        let mut tunnel = json!({"private_key_file": "/key", "peers": [{
            "public_key": format!("{}=", peer.to_string().repeat(43)), "allowed_ips": ["10.9.0.0/16"]}]});
        let more = more.as_object().expect("an object").clone();
        tunnel.as_object_mut().expect("an object").extend(more);
        let document = json!({"name": "p", "ip_addresses": ["10.0.0.5/24"], "vpn_tunnel_config": tunnel});
        let document = personality_from_value(document).expect("the test's document can be read");
        let personality = Personality::new(&document).expect("the test's document is valid");
        tunnel_name(personality.tunnel().expect("it has one"), SegmentId(7))
    }

    #[test]
    fn a_tunnel_to_others_is_another_device_where_both_can_be() {
        let plain = name('A', &json!({}));
        assert!(plain.starts_with(LINK_PREFIX) && plain.len() <= 15, "{plain}");
        assert_eq!(name('A', &json!({"mtu": 1_300})), plain, "its settings change where it is");
        assert_ne!(name('E', &json!({})), plain);
        assert_ne!(name('A', &json!({"private_key_file": "/other"})), plain);
        let port = json!({"listen_port": 51_820});
        assert_eq!(name('A', &port), name('E', &port), "two of one port cannot be there at once");
        assert_eq!(name('A', &json!({"interface": "wg0"})), "wg0");
    }
}
