//! Translations: pairs of ranges, the hub's addresses on uplinks, and MTUs.
//!
//! A pair of ranges that a persona has never changes; where one is replaced by another the kernel's trie
//! replaces the node whole. New ones come before the segments and ports that refer to them, old ones go
//! after.

use std::collections::BTreeMap;
use std::net::IpAddr;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, MapData, MapError};
use hub_common::address::{self, V4_OFFSET_BITS};
use hub_common::translation::{
    self, EXTERNAL, INTERNAL, INWARD, KEY_BITS, OUTWARD, Prefix, TranslationKey, Uplink,
};
use ipnet::IpNet;

use super::{MapFault, failure, take};
use crate::command::Inventory;
use crate::desired::{Desired, Role, View};
use crate::reconcile::Report;

const NAME: &str = "translations";

/// Length in bits, and the address in its canonical form.
type Place = (u32, TranslationKey);

/// The maps.
pub struct Translations {
    pairs: LpmTrie<MapData, TranslationKey, Prefix>,
    uplinks: HashMap<MapData, u32, Uplink>,
    mtus: HashMap<MapData, u32, u32>,
    live: BTreeMap<Place, Prefix>,
}

impl Translations {
    /// Takes the maps of an object and reads what an earlier run left.
    pub fn new(ebpf: &mut Ebpf) -> Result<Self, MapFault> {
        let pairs: LpmTrie<_, TranslationKey, Prefix> = take(ebpf, "TRANSLATIONS")?;
        let failed = |source| MapFault::Kernel { map: "TRANSLATIONS", source };
        let mut live = BTreeMap::new();
        for pair in &pairs {
            let (key, prefix) = pair.map_err(failed)?;
            live.insert((key.prefix_len(), key.data()), prefix);
        }
        Ok(Self { pairs, uplinks: take(ebpf, "UPLINKS")?, mtus: take(ebpf, "MTUS")?, live })
    }

    /// Puts what is missing or different.
    pub fn put(&mut self, desired: &Desired, inventory: &Inventory) -> Report {
        let mut report = Report { table: NAME, ..Report::default() };
        for (place, prefix) in wanted(desired) {
            if self.live.get(&place) == Some(&prefix) {
                continue;
            }
            let done = self.pairs.insert(&Key::new(place.0, place.1), prefix, 0);
            if done.is_ok() {
                self.live.insert(place, prefix);
            }
            note(&mut report, "TRANSLATIONS", done);
        }
        for (ifindex, uplink) in uplinks(desired, inventory) {
            if self.uplinks.get(&ifindex, 0).ok() != Some(uplink) {
                note(&mut report, "UPLINKS", self.uplinks.insert(ifindex, uplink, 0));
            }
        }
        for (segment, mtu) in &desired.mtus {
            if self.mtus.get(&segment.0, 0).ok() != Some(*mtu) {
                note(&mut report, "MTUS", self.mtus.insert(segment.0, mtu, 0));
            }
        }
        report
    }

    /// Deletes what is no longer wanted.
    pub fn delete(&mut self, desired: &Desired, inventory: &Inventory) -> Report {
        let mut report = Report { table: NAME, ..Report::default() };
        let wanted = wanted(desired);
        let gone: Vec<Place> =
            self.live.keys().filter(|place| !wanted.contains_key(place)).copied().collect();
        for place in gone {
            match self.pairs.remove(&Key::new(place.0, place.1)) {
                Ok(()) => {
                    report.deleted += 1;
                    self.live.remove(&place);
                }
                Err(source) => note(&mut report, "TRANSLATIONS", Err(source)),
            }
        }
        let wanted = uplinks(desired, inventory);
        let uplinks: Vec<u32> = self.uplinks.keys().filter_map(Result::ok).collect();
        for ifindex in uplinks.into_iter().filter(|ifindex| !wanted.contains_key(ifindex)) {
            report.deleted += usize::from(self.uplinks.remove(&ifindex).is_ok());
        }
        let mtus: Vec<u32> = self.mtus.keys().filter_map(Result::ok).collect();
        for segment in mtus {
            if !desired.mtus.keys().any(|id| id.0 == segment) && self.mtus.remove(&segment).is_ok() {
                report.deleted += 1;
            }
        }
        report
    }
}

fn note(report: &mut Report, map: &'static str, done: Result<(), MapError>) {
    match done {
        Ok(()) => report.put += 1,
        Err(source) => {
            let error = MapFault::Kernel { map, source };
            report.failures.extend(failure(NAME, &error).failures);
        }
    }
}

/// Every pair, each way.
fn wanted(desired: &Desired) -> BTreeMap<Place, Prefix> {
    let mut wanted = BTreeMap::new();
    for (key, main) in &desired.translations {
        let segment = key.segment.0;
        let [(in_segment, inwards), (_, outwards)] = match key.view {
            View::Member => [(segment, INWARD), (segment, OUTWARD)],
            View::Outside => [(0, INTERNAL), (segment, EXTERNAL)],
        };
        wanted.insert(place(in_segment, inwards, &key.other), prefix(main));
        wanted.insert(place(segment, outwards, main), prefix(&key.other));
    }
    wanted
}

fn bits(net: &IpNet) -> u32 {
    u32::from(net.prefix_len()) + if net.addr().is_ipv4() { u32::from(V4_OFFSET_BITS) } else { 0 }
}

fn place(segment: u32, side: u32, net: &IpNet) -> Place {
    (KEY_BITS + bits(net), translation::key(segment, side, &address::of(net.network())))
}

fn prefix(net: &IpNet) -> Prefix {
    Prefix { address: address::of(net.network()), bits: bits(net), pad: 0 }
}

/// The hub's addresses on uplinks; the first of a family that others can answer.
fn uplinks(desired: &Desired, inventory: &Inventory) -> BTreeMap<u32, Uplink> {
    if !desired.masquerade {
        return BTreeMap::new();
    }
    let (first, last) = desired.settings.masquerade_ports;
    let ports = desired.ports.iter().filter(|(_, port)| port.role == Role::Uplink);
    let links = ports.filter_map(|(name, _)| inventory.links.get(name));
    links
        .map(|link| {
            let own = |v4: bool| {
                let fits = |address: &IpAddr| address.is_ipv4() == v4 && !is_link_local(*address);
                link.addresses.iter().map(IpNet::addr).find(fits).map_or([0; 16], address::of)
            };
            let uplink = Uplink {
                v4: own(true),
                v6: own(false),
                first_port: first.into(),
                ports: u32::from(last - first) + 1,
            };
            (link.ifindex, uplink)
        })
        .collect()
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}
