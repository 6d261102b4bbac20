//! Where a personality is on an interface: its ranges, and the addresses by which the hub answers.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::command::Problem;
use crate::model::config::Config;
use crate::model::interface::InterfaceRecord;
use crate::model::personality::{LEAVING, Personality};
use crate::model::prefix::{self, overlaps};
use crate::model::problems::Problems;

/// Where a personality is on an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seat {
    /// Whose packets the carrier judges.
    pub ranges: Vec<IpNet>,
    /// Addresses that the hub puts on the port.
    pub gateways: Vec<IpAddr>,
    /// Routers that the interface may ask: the hub's addresses in the subnet.
    pub routers: Vec<IpAddr>,
    /// Persona that the interface may talk to.
    pub peer: Option<String>,
}

impl Seat {
    /// Finds out where a personality is on an interface. Problems point into the personality's document.
    pub fn new(
        personality: &Personality,
        settings: &InterfaceRecord,
        config: &Config,
    ) -> Result<Self, Vec<Problem>> {
        known(personality, config)?;
        let subnet = personality.subnet().and_then(|name| config.subnets.get(name));
        let addresses = personality.addresses().keys();
        let gateways = match subnet {
            Some(subnet) => subnet.gateways.clone(),
            None => [true, false].into_iter().filter_map(|v4| first_gateway(personality, v4)).collect(),
        };
        let peer = subnet.and_then(|subnet| subnet.persona.clone());
        if settings.is_own() {
            let ranges = match subnet {
                Some(subnet) => subnet.prefixes.clone(),
                None => distinct(addresses.map(IpNet::trunc)),
            };
            return Ok(Self { ranges, gateways: Vec::new(), routers: Vec::new(), peer });
        }
        let ranges = addresses.map(|address| IpNet::from(address.addr())).collect();
        Ok(Self { ranges, gateways: gateways.clone(), routers: gateways, peer })
    }

    /// What an interface loses that was here and comes to `next`: addresses, those of its tunnel too, and ranges
    /// that `next` knows nothing of.
    pub fn lost(&self, personality: &Personality, next: &Self, to: &Personality) -> Vec<IpNet> {
        let has = |address: &IpAddr| to.all_addresses().any(|other| other == *address);
        let addresses = personality.all_addresses().filter(|address| !has(address));
        let apart = |range: &IpNet| !next.ranges.iter().any(|other| overlaps(range, other));
        let ranges = self.ranges.iter().copied().filter(apart);
        let mut lost = distinct(addresses.map(IpNet::from).chain(ranges));
        lost.truncate(LEAVING);
        lost
    }

    /// What is of either.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        let both = |one: &[IpAddr], two: &[IpAddr]| {
            one.iter().copied().chain(two.iter().copied().filter(|it| !one.contains(it))).collect()
        };
        Self {
            ranges: distinct(self.ranges.iter().chain(&other.ranges).copied()),
            gateways: both(&self.gateways, &other.gateways),
            routers: both(&self.routers, &other.routers),
            peer: self.peer.clone(),
        }
    }
}

/// Refuses a personality that names an application or a subnet which is not there, or whose addresses are not in
/// it or are the hub's.
pub fn known(personality: &Personality, config: &Config) -> Result<(), Vec<Problem>> {
    let mut problems = Problems::default();
    problems.extend(personality.applications().unknown(&config.applications));
    let subnet = match personality.subnet() {
        None => None,
        Some(name) => {
            let found = config.subnets.get(name);
            if found.is_none() {
                problems.add("/subnet_id", format!("there is no subnet `{name}` in hub.yaml"));
            }
            found.map(|subnet| (name, subnet))
        }
    };
    let written = personality.document().ip_addresses.as_deref().unwrap_or_default();
    for (index, written) in written.iter().enumerate() {
        let Ok(address) = prefix::placed(written.text()).map(|address| address.addr()) else { continue };
        let pointer = format!("/ip_addresses/{index}");
        match subnet {
            Some((name, subnet)) if !subnet.contains(address) => {
                problems.add(pointer, format!("address {address} is not in subnet `{name}`"));
            }
            Some((name, subnet)) if subnet.gateways.contains(&address) => {
                problems.add(pointer, format!("address {address} is the gateway of subnet `{name}`"));
            }
            Some(_) | None => {}
        }
    }
    problems.settle(())
}

/// The first address of the first network of a family, unless the interface itself has it.
fn first_gateway(personality: &Personality, v4: bool) -> Option<IpAddr> {
    let mut addresses = personality.addresses().keys().filter(|address| address.addr().is_ipv4() == v4);
    let gateway = addresses
        .find(|address| address.prefix_len() < address.max_prefix_len())
        .map(|address| prefix::gateway(&address.trunc()))?;
    let taken = personality.addresses().keys().any(|address| address.addr() == gateway);
    (!taken).then_some(gateway)
}

fn distinct(all: impl Iterator<Item = IpNet>) -> Vec<IpNet> {
    let mut distinct: Vec<IpNet> = Vec::new();
    for one in all {
        if !distinct.contains(&one) {
            distinct.push(one);
        }
    }
    distinct
}
