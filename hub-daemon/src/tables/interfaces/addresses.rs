//! Addresses of interfaces: put where nobody else has them, and taken away without those of others.

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressProtocol, AddressScope as KernelScope, CacheInfo,
};
use nix::errno::Errno;

use super::outcome::{InterfaceError, Outcome};
use super::space::Space;
use crate::desired::INTERFACE_PROTOCOL;
use crate::desired::interfaces::{AddressScope, InterfaceAddress};
use crate::kernel::netlink::{Netlink, NetlinkError};
use crate::kernel::sysctl;
use crate::tables::addresses::{self, FOREVER};

impl Space {
    /// Puts addresses that are missing, and makes those ordinary that are to be.
    pub(super) fn put_addresses(&mut self, outcome: &mut Outcome) {
        self.take_away_misplaced(outcome);
        for ((index, net), address) in &self.wanted.addresses {
            let held = self.held.addresses.get(&(*index, *net));
            let is_new = held.is_none();
            // What others put there is there, and stays theirs. An address becomes deprecated after the switch.
            let holds = held.is_some_and(|held| {
                held.protocol != INTERFACE_PROTOCOL || address.deprecated || !is_deprecated(held)
            });
            if holds || self.taken.contains(&(*index, net.addr())) {
                continue;
            }
            let record = self.wanted.owners.get(index).map_or("", String::as_str);
            let result = put_address(&mut self.netlink, *index, *net, *address, is_new);
            outcome.count(record, result);
        }
    }

    /// Takes away addresses of ours that are known too far, or not far enough, so that they are put anew: the kernel
    /// changes no scope. That of an IPv6 address follows from the address.
    fn take_away_misplaced(&mut self, outcome: &mut Outcome) {
        let wanted = self.wanted.addresses.iter().filter(|(key, address)| {
            let held = self.held.addresses.get(*key).filter(|held| held.protocol == INTERFACE_PROTOCOL);
            key.1.addr().is_ipv4() && held.is_some_and(|held| held.scope != scope(address.scope))
        });
        for key in wanted.map(|(key, _)| *key).collect::<Vec<_>>() {
            if let Err(error) = self.delete_address(key) {
                let record = self.wanted.owners.get(&key.0).map_or("", String::as_str);
                outcome.fail(record, error);
                continue;
            }
            self.held.addresses.remove(&key);
            // Routes that have it as their source go with it.
            for way in self.held.routes.values_mut() {
                *way = way.take().filter(|way| way.source != Some(key.1.addr()));
            }
        }
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
                let result = put_address(&mut self.netlink, *index, *net, *address, false);
                outcome.count(record, result);
            }
        }
    }

    pub(super) fn delete_addresses(&mut self, outcome: &mut Outcome) {
        for (index, net) in self.unwanted_addresses() {
            let name = self.placed(self.address(index, net));
            match self.delete_address((index, net)) {
                Err(InterfaceError::Netlink(error)) => outcome.delete(name, Err(error)),
                Err(error) => outcome.failures.push((None, error)),
                Ok(()) => outcome.delete(name, Ok(())),
            }
        }
    }

    fn delete_address(&mut self, (index, net): (u32, IpNet)) -> Result<(), InterfaceError> {
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
        let before = self.within(promote)?;
        let message = RouteNetlinkMessage::DelAddress(addresses::message(net, index));
        let intent = format!("delete {}", self.placed(self.address(index, net)));
        let result = match self.netlink.change(message, 0, intent) {
            Err(error) if !error.is(Errno::EADDRNOTAVAIL) && !error.is(Errno::ENODEV) => Err(error.into()),
            Ok(()) | Err(_) => Ok(()),
        };
        if let Some((key, before)) = key.as_ref().zip(before)
            && let Ok(Err(error)) = self.within(|| sysctl::write(key, &before))
        {
            tracing::warn!(%error, "a switch stays as the hub needed it");
        }
        result
    }
}

/// A scope as the kernel counts them.
fn scope(scope: AddressScope) -> KernelScope {
    match scope {
        AddressScope::Global => KernelScope::Universe,
        AddressScope::Link => KernelScope::Link,
        AddressScope::Host => KernelScope::Host,
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
    address: InterfaceAddress,
    is_new: bool,
) -> Result<(), NetlinkError> {
    let mut message = addresses::message(net, index);
    message.header.scope = scope(address.scope);
    let mut lifetime = CacheInfo::default();
    lifetime.ifa_preferred = if address.deprecated { 0 } else { FOREVER };
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
