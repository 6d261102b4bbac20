//! Peers, the hub's own addresses, gateways beside ranges, failsafe ports: sets in hash maps.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use aya::maps::{HashMap, MapData, MapError};
use aya::{Ebpf, Pod};
use hub_common::address::{self, Address as Bytes};
use hub_common::segment::{FAILSAFE_MEMBERS, Failsafe, Gateway, Peer};
use ipnet::IpNet;

use super::local_bits::LocalBits;
use super::{MapFault, failure, take};
use crate::command::Inventory;
use crate::desired::shared_map::SharedMap;
use crate::desired::{Address, Desired, Settings};
use crate::model::SegmentId;
use crate::reconcile::Report;

/// The set maps.
pub struct Small {
    peers: Set<Peer>,
    locals: Set<Bytes>,
    local_bits: LocalBits,
    everyones: Set<Bytes>,
    /// What the hub's own addresses were made of, if they are whole.
    known: Option<Known>,
    gateways: Set<Gateway>,
    failsafe: Set<Failsafe>,
}

/// Addresses that the hub puts, and those that others put.
type Known = (SharedMap<(String, IpNet), Address>, Vec<IpNet>);

/// A hash map used as a set.
struct Set<K: Pod> {
    name: &'static str,
    map: HashMap<MapData, K, u32>,
    /// What the map holds; `None` when that is not certain.
    live: Option<BTreeMap<Vec<u8>, K>>,
    bytes: fn(&K) -> Vec<u8>,
}

impl<K: Pod> Set<K> {
    fn new(ebpf: &mut Ebpf, name: &'static str, bytes: fn(&K) -> Vec<u8>) -> Result<Self, MapFault> {
        let map: HashMap<_, K, u32> = take(ebpf, name)?;
        let mut set = Self { name, map, live: None, bytes };
        set.live = Some(set.read().map_err(|source| MapFault::Kernel { map: name, source })?);
        Ok(set)
    }

    fn read(&self) -> Result<BTreeMap<Vec<u8>, K>, MapError> {
        self.map.keys().map(|key| key.map(|key| ((self.bytes)(&key), key))).collect()
    }

    fn put(&mut self, wanted: &[K]) -> Report {
        let mut report = Report { table: self.name, ..Report::default() };
        let keys: BTreeMap<Vec<u8>, K> = wanted.iter().map(|key| ((self.bytes)(key), *key)).collect();
        let there = match self.live.take().map_or_else(|| self.read(), Ok) {
            Ok(there) => there,
            Err(source) => return failure(self.name, &MapFault::Kernel { map: self.name, source }),
        };
        let mut note = |done: Result<(), MapError>| match done {
            Ok(()) => 1,
            Err(source) => {
                let error = MapFault::Kernel { map: self.name, source };
                report.failures.extend(failure(self.name, &error).failures);
                0
            }
        };
        let (mut put, mut deleted) = (0, 0);
        for (_, key) in there.iter().filter(|(bytes, _)| !keys.contains_key(*bytes)) {
            deleted += note(self.map.remove(key));
        }
        for (_, key) in keys.iter().filter(|(bytes, _)| !there.contains_key(*bytes)) {
            put += note(self.map.insert(key, 1, 0));
        }
        (report.put, report.deleted) = (put, deleted);
        // After a failure the map is read and compared again by the next pass.
        self.live = report.failures.is_empty().then_some(keys);
        report
    }
}

/// The address of a network that every router of it has (RFC 4291 section 2.6.1), or that means all hosts: the
/// kernel answers to it where it has an address of the network. One that an operator chose as `broadcast` beside that,
/// and that of the network of a `peer`, are not known.
fn everyones(net: &IpNet) -> Option<IpAddr> {
    match net {
        IpNet::V4(net) => (net.prefix_len() < 31).then(|| net.broadcast().into()),
        IpNet::V6(net) => (net.prefix_len() < 127).then(|| net.network().into()),
    }
}

impl Small {
    /// Takes the maps of an object.
    pub fn new(ebpf: &mut Ebpf) -> Result<Self, MapFault> {
        Ok(Self {
            peers: Set::new(ebpf, "PEERS", |peer: &Peer| {
                [peer.low.to_be_bytes(), peer.high.to_be_bytes()].concat()
            })?,
            locals: Set::new(ebpf, "LOCALS", |address: &Bytes| address.to_vec())?,
            local_bits: LocalBits::new(ebpf)?,
            everyones: Set::new(ebpf, "EVERYONES", |address: &Bytes| address.to_vec())?,
            known: None,
            gateways: Set::new(ebpf, "GATEWAYS", |gateway: &Gateway| {
                [&gateway.segment.to_be_bytes()[..], &gateway.address].concat()
            })?,
            failsafe: Set::new(ebpf, "FAILSAFE", |port: &Failsafe| {
                [port.protocol.to_be_bytes(), port.port.to_be_bytes()].concat()
            })?,
        })
    }

    /// Makes the pairs that may talk be these.
    pub fn put_peers(&mut self, peers: &[Peer]) -> Report {
        self.peers.put(peers)
    }

    /// Makes the hub's own addresses be those of the inventory, and those that the hub is about to add: a
    /// gateway's services must not be open until the kernel's message about its address has come back. With them go
    /// the addresses of their networks that reach the same services.
    pub fn put_locals(&mut self, desired: &Desired, inventory: &Inventory) -> Report {
        let present = inventory.links.values().flat_map(|link| link.addresses.iter().copied());
        let sources = (desired.addresses.clone(), present.collect::<Vec<IpNet>>());
        if self.known.as_ref() == Some(&sources) {
            return Report { table: self.locals.name, ..Report::default() };
        }
        let all = || sources.0.keys().map(|(_, net)| net).chain(&sources.1);
        let addresses: BTreeSet<Bytes> = all().map(|net| address::of(net.addr())).collect();
        let everyones: BTreeSet<Bytes> = all().filter_map(everyones).map(address::of).collect();
        let set = self.local_bits.set(&addresses);
        let mut report = self.locals.put(&addresses.iter().copied().collect::<Vec<_>>());
        let others = self.everyones.put(&everyones.into_iter().collect::<Vec<_>>());
        (report.put, report.deleted) = (report.put + others.put, report.deleted + others.deleted);
        report.failures.extend(others.failures);
        let kept = set.and_then(|()| self.local_bits.keep(&addresses));
        report.failures.extend(kept.err().into_iter().flat_map(|error| failure("LOCALS", &error).failures));
        self.known = report.failures.is_empty().then_some(sources);
        report
    }

    /// Makes the gateways that lie beside the ranges of their segments be these.
    pub fn put_gateways(&mut self, desired: &Desired) -> Report {
        let entry = |(segment, address): &(SegmentId, IpAddr)| Gateway {
            segment: segment.0,
            pad: 0,
            address: address::of(*address),
        };
        self.gateways.put(&desired.gateways.keys().map(entry).collect::<Vec<_>>())
    }

    /// Makes the ports that stay reachable, and those that members may reach, be these.
    pub fn put_failsafe(&mut self, settings: &Settings) -> Report {
        let entry = |mark: u32| {
            move |(protocol, port): &(u8, u16)| Failsafe {
                protocol: u32::from(*protocol) | mark,
                port: u32::from(*port),
            }
        };
        let services = settings.services.iter().map(entry(FAILSAFE_MEMBERS));
        let ports: Vec<Failsafe> = settings.failsafe.iter().map(entry(0)).chain(services).collect();
        self.failsafe.put(&ports)
    }
}
