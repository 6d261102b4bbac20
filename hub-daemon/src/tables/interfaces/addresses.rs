//! Addresses of interfaces: probed before they are put, and taken away without those of others.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressProtocol, CacheInfo};
use nix::errno::Errno;

use super::outcome::{InterfaceError, Outcome};
use super::space::Space;
use crate::desired::INTERFACE_PROTOCOL;
use crate::desired::interfaces::mac_text;
use crate::kernel::netlink::{Netlink, NetlinkError};
use crate::kernel::{probe, sysctl};
use crate::tables::addresses::{self, FOREVER};

impl Space {
    /// Puts addresses that are missing, and makes those ordinary that are to be.
    pub(super) fn put_addresses(&mut self, outcome: &mut Outcome) {
        let taken = self.taken(outcome);
        for ((index, net), address) in &self.wanted.addresses {
            let held = self.held.addresses.get(&(*index, *net));
            let is_new = held.is_none();
            // What others put there is there, and stays theirs. An address becomes deprecated after the switch.
            let holds = held.is_some_and(|held| {
                held.protocol != INTERFACE_PROTOCOL || address.deprecated || !is_deprecated(held)
            });
            if holds || taken.contains(&(*index, net.addr())) {
                continue;
            }
            let record = self.wanted.owners.get(index).map_or("", String::as_str);
            let result = put_address(&mut self.netlink, *index, *net, address.deprecated, is_new);
            outcome.count(record, result);
        }
    }

    /// Addresses that are to be put and that somebody else on the link has.
    fn taken(&self, outcome: &mut Outcome) -> BTreeSet<(u32, IpAddr)> {
        let mut taken = BTreeSet::new();
        for link in self.held.links.iter().filter(|link| link.running && !link.l3_only) {
            let of_link = self.wanted.addresses.iter().filter(|((index, _), _)| *index == link.index);
            let nets: Vec<IpNet> = of_link
                .filter(|(key, address)| address.probe && !self.held.addresses.contains_key(*key))
                .map(|((_, net), _)| *net)
                .collect();
            if nets.is_empty() {
                continue;
            }
            let record = self.wanted.owners.get(&link.index).map_or("", String::as_str);
            let addresses: Vec<IpAddr> = nets.iter().map(IpNet::addr).collect();
            let ask = || probe::owners(&link.name, link.mac, &addresses);
            let owners = match self.within(ask) {
                Ok(Ok(owners)) => owners,
                Ok(Err(source)) => {
                    outcome.fail(record, InterfaceError::Probe { interface: link.name.clone(), source });
                    taken.extend(addresses.iter().map(|address| (link.index, *address)));
                    continue;
                }
                Err(error) => {
                    outcome.fail(record, error);
                    continue;
                }
            };
            for net in nets {
                let Some(mac) = owners.get(&net.addr()) else { continue };
                taken.insert((link.index, net.addr()));
                let (interface, mac) = (link.name.clone(), mac_text(*mac));
                outcome.fail(record, InterfaceError::Conflict { address: net, interface, mac });
            }
        }
        taken
    }

    pub(super) fn unwanted_addresses(&self) -> Vec<(u32, IpNet)> {
        let ours = self.held.addresses.iter().filter(|(_, found)| found.protocol == INTERFACE_PROTOCOL);
        ours.map(|(key, _)| *key).filter(|key| !self.wanted.addresses.contains_key(key)).collect()
    }

    /// Makes deprecated what nothing is to choose any more.
    pub(super) fn deprecate_addresses(&mut self, outcome: &mut Outcome) {
        for ((index, net), address) in &self.wanted.addresses {
            let held = self.held.addresses.get(&(*index, *net));
            let is_chosen = |held: &&addresses::Found| {
                held.protocol == INTERFACE_PROTOCOL && address.deprecated && !is_deprecated(held)
            };
            if held.as_ref().is_some_and(is_chosen) {
                let record = self.wanted.owners.get(index).map_or("", String::as_str);
                let result = put_address(&mut self.netlink, *index, *net, true, false);
                outcome.count(record, result);
            }
        }
    }

    pub(super) fn delete_addresses(&mut self, outcome: &mut Outcome) {
        for (index, net) in self.unwanted_addresses() {
            let name = self.placed(self.address(index, net));
            let link = self.held.links.iter().find(|link| link.index == index).map(|link| link.name.clone());
            let key = link.map(|link| format!("net/ipv4/conf/{link}/promote_secondaries"));
            let key = key.filter(|_| net.addr().is_ipv4());
            // An IPv4 address takes all others of its range with it unless the kernel is told otherwise.
            let promote = || {
                let key = key.as_ref()?;
                let before = sysctl::read(key).ok().filter(|before| before != "1")?;
                sysctl::write(key, "1").ok()?;
                Some(before)
            };
            let before = match self.within(promote) {
                Ok(before) => before,
                Err(error) => {
                    outcome.failures.push((None, error.into()));
                    continue;
                }
            };
            let message = RouteNetlinkMessage::DelAddress(addresses::message(net, index));
            let result = match self.netlink.change(message, 0, format_args!("delete {name}")) {
                Err(error) if !error.is(Errno::EADDRNOTAVAIL) && !error.is(Errno::ENODEV) => Err(error),
                Ok(()) | Err(_) => Ok(()),
            };
            if let Some((key, before)) = key.as_ref().zip(before)
                && let Ok(Err(error)) = self.within(|| sysctl::write(key, &before))
            {
                tracing::warn!(%error, "a switch stays as the hub needed it");
            }
            outcome.delete(name, result);
        }
    }
}

fn is_deprecated(found: &addresses::Found) -> bool {
    found.flags.contains(AddressFlags::Deprecated)
}

/// Puts an address. Duplicates were asked for before, so the kernel need not.
fn put_address(
    netlink: &mut Netlink,
    index: u32,
    net: IpNet,
    deprecated: bool,
    is_new: bool,
) -> Result<(), NetlinkError> {
    let mut message = addresses::message(net, index);
    let mut lifetime = CacheInfo::default();
    lifetime.ifa_preferred = if deprecated { 0 } else { FOREVER };
    lifetime.ifa_valid = FOREVER;
    message.attributes.extend([
        AddressAttribute::Flags(AddressFlags::Noprefixroute | AddressFlags::Nodad),
        AddressAttribute::Protocol(AddressProtocol::Other(INTERFACE_PROTOCOL)),
        AddressAttribute::CacheInfo(lifetime),
    ]);
    let flag = if is_new { NLM_F_EXCL } else { NLM_F_REPLACE };
    let intent = format!("put address {net}");
    netlink.change(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | flag, intent)
}
