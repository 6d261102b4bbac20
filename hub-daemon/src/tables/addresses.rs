//! Addresses that the hub puts on interfaces of its namespace.
//!
//! Ours carry protocol 177 (`IFA_PROTO`, Linux 5.18 and later, which is older than anything else here
//! runs on). A foreign address that is equal to a wanted one is a failure, not ours. An address with an
//! expiry has it in the kernel too, as a lifetime that counts down whether the daemon lives or not. None
//! brings a route for its prefix: the routes table says where packets go. IPv6 duplicate detection is off,
//! since the hub is the only other end.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, AddressScope, CacheInfo,
};
use nix::errno::Errno;

use super::family;
use crate::desired::shared_map::SharedMap;
use crate::desired::{Address, Desired, PROTOCOL};
use crate::kernel::links::LinkNames;
use crate::kernel::netlink::{Netlink, NetlinkError};
use crate::reconcile::Table;

/// A lifetime that never ends.
pub(crate) const FOREVER: u32 = u32::MAX;
/// The kernel removes an address this long after its end. Routes that go with an IPv4 address go without a word
/// to those who listen, such as routing daemons: the daemon, who removes routes first, should come before.
const GRACE_SECONDS: u32 = 1;
/// Lifetimes are whole seconds and count down between writing and reading.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(2 + GRACE_SECONDS as i64);

/// The addresses of a namespace.
pub struct Addresses {
    netlink: Netlink,
    names: LinkNames,
    ours: BTreeSet<(String, IpNet)>,
}

impl Addresses {
    /// The addresses of the namespace that the socket belongs to.
    pub fn new(netlink: Netlink) -> Self {
        Self { netlink, names: LinkNames::default(), ours: BTreeSet::new() }
    }

    fn index(&mut self, intent: &str, interface: &str) -> Result<u32, NetlinkError> {
        match self.names.index(interface) {
            Some(index) => Ok(index),
            None => self.netlink.index(interface, intent),
        }
    }

    fn found(&self, message: &AddressMessage, now: Timestamp) -> Option<((String, IpNet), Address)> {
        let interface = self.names.name(message.header.index)?.to_owned();
        let found = Found::read(message)?;
        let ends = |seconds: u32| now.checked_add(SignedDuration::from_secs(seconds.into())).ok();
        let expires = found.valid_seconds.and_then(ends);
        (found.protocol == PROTOCOL).then_some(((interface, found.net), Address { expires }))
    }
}

/// An address as the kernel tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) net: IpNet,
    /// Who put it; 0 where nobody said.
    pub(crate) protocol: u8,
    pub(crate) flags: AddressFlags,
    /// How far it is known.
    pub(crate) scope: AddressScope,
    /// How long it will be there, unless for good.
    valid_seconds: Option<u32>,
}

impl Found {
    pub(crate) fn read(message: &AddressMessage) -> Option<Self> {
        let (mut address, mut local, mut protocol, mut valid_seconds) = (None, None, 0, None);
        let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
        for attribute in &message.attributes {
            if let AddressAttribute::Address(found) = attribute {
                address = Some(*found);
            } else if let AddressAttribute::Local(found) = attribute {
                local = Some(*found);
            } else if let AddressAttribute::Protocol(found) = attribute {
                protocol = u8::from(*found);
            } else if let AddressAttribute::Flags(found) = attribute {
                flags = *found;
            } else if let AddressAttribute::CacheInfo(lifetime) = attribute {
                valid_seconds = (lifetime.ifa_valid != FOREVER).then_some(lifetime.ifa_valid);
            }
        }
        // On a point-to-point address IFA_ADDRESS is the other end.
        let net = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
        Some(Self { net, protocol, flags, scope: message.header.scope, valid_seconds })
    }
}

impl Table for Addresses {
    type Key = (String, IpNet);
    type Value = Address;
    type Found = Address;
    type Error = NetlinkError;
    const NAME: &'static str = "addresses";

    fn list(&mut self) -> Result<BTreeMap<(String, IpNet), Address>, NetlinkError> {
        self.names = self.netlink.link_names()?;
        let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let messages = self.netlink.dump(&question, "list addresses")?;
        let now = Timestamp::now();
        let found: BTreeMap<_, _> = messages
            .iter()
            .filter_map(|message| {
                if let RouteNetlinkMessage::NewAddress(message) = message {
                    self.found(message, now)
                } else {
                    None
                }
            })
            .collect();
        self.ours = found.keys().cloned().collect();
        Ok(found)
    }

    fn put(&mut self, key: &(String, IpNet), value: &Address) -> Result<(), NetlinkError> {
        let intent = format!("put {}", Self::describe(key));
        let mut message = message(key.1, self.index(&intent, &key.0)?);
        let flags = AddressFlags::Noprefixroute | AddressFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(flags));
        message.attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(PROTOCOL)));
        message.attributes.push(AddressAttribute::CacheInfo(lifetime(value.expires, Timestamp::now())));
        let flag = if self.ours.contains(key) { NLM_F_REPLACE } else { NLM_F_EXCL };
        self.netlink.change(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | flag, intent)?;
        self.ours.insert(key.clone());
        Ok(())
    }

    fn delete(&mut self, key: &(String, IpNet)) -> Result<(), NetlinkError> {
        // An address goes with its interface.
        let Some(link) = self.netlink.link(&key.0)? else { return Ok(()) };
        let message = RouteNetlinkMessage::DelAddress(message(key.1, link.index));
        match self.netlink.change(message, 0, format_args!("delete {}", Self::describe(key))) {
            Err(error) if !error.is(Errno::EADDRNOTAVAIL) => Err(error),
            Ok(()) | Err(_) => {
                self.ours.remove(key);
                Ok(())
            }
        }
    }

    fn holds(wanted: &Address, found: &Address) -> bool {
        match (wanted.expires, found.expires) {
            (Some(wanted), Some(found)) => wanted.duration_since(found).abs() <= TOLERANCE,
            (wanted, found) => wanted == found,
        }
    }

    fn describe((interface, net): &(String, IpNet)) -> String {
        format!("address {net} on {interface}")
    }
}

/// Addresses wanted in the hub's namespace: those of its tunnels there, too.
pub(super) fn wanted(desired: &Desired) -> Cow<'_, SharedMap<(String, IpNet), Address>> {
    let mut wanted = Cow::Borrowed(&desired.addresses);
    for (name, tunnel) in desired.tunnels.iter().filter(|(_, tunnel)| tunnel.namespace.is_none()) {
        let addresses = tunnel.addresses.iter().map(|net| ((name.clone(), *net), Address { expires: None }));
        wanted.to_mut().extend(addresses);
    }
    wanted
}

/// The parts of an address that identify it.
pub(crate) fn message(net: IpNet, index: u32) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family::of(net.addr());
    message.header.prefix_len = net.prefix_len();
    message.header.index = index;
    message.attributes = vec![AddressAttribute::Local(net.addr()), AddressAttribute::Address(net.addr())];
    message
}

/// Seconds until an address goes, rounded up, and the grace.
fn lifetime(expires: Option<Timestamp>, now: Timestamp) -> CacheInfo {
    let seconds = expires.map_or(FOREVER, |expires| {
        let left = expires.duration_since(now).as_millis().max(1);
        u32::try_from(left.unsigned_abs().div_ceil(1000))
            .map_or(FOREVER, |left| left.saturating_add(GRACE_SECONDS))
    });
    let mut lifetime = CacheInfo::default();
    lifetime.ifa_preferred = seconds;
    lifetime.ifa_valid = seconds;
    lifetime
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetime_rounds_up_and_never_ends_at_once() {
        let now = Timestamp::UNIX_EPOCH;
        let seconds =
            |milliseconds| lifetime(Some(now + SignedDuration::from_millis(milliseconds)), now).ifa_valid;
        assert_eq!([seconds(-5), seconds(0), seconds(1001), seconds(2000)], [2, 2, 3, 3]);
        assert_eq!(lifetime(None, now).ifa_valid, FOREVER);
    }

    #[test]
    fn expiry_within_seconds_is_the_same() {
        let at = |seconds| Address { expires: Timestamp::from_second(seconds).ok() };
        assert!(Addresses::holds(&at(100), &at(102)));
        assert!(!Addresses::holds(&at(100), &at(96)));
        assert!(!Addresses::holds(&at(100), &Address { expires: None }));
    }
}
