//! The device of a tunnel where the kernel encrypts, and addresses of devices in namespaces of others.
//!
//! All of it is about the namespace of the calling thread.

use std::collections::BTreeSet;

use ipnet::IpNet;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};

use crate::desired::Address;
use crate::kernel::netlink::Netlink;
use crate::kernel::wireguard::WireguardError;
use crate::reconcile::Table as _;
use crate::tables::addresses::Addresses;
use crate::tables::endpoints::GROUP;

/// The message that has the kernel make a tunnel; without an index it chooses one.
pub(super) fn kernel_link(name: &str, index: Option<u32>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index.unwrap_or_default();
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Group(GROUP),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Wireguard)]),
    ];
    message
}

/// The hub's addresses on a link of the calling thread's namespace.
pub(super) fn addresses(link: &str) -> Result<BTreeSet<IpNet>, WireguardError> {
    let found = Addresses::new(Netlink::open()?).list()?;
    Ok(found.into_keys().filter(|(interface, _)| interface == link).map(|(_, net)| net).collect())
}

/// Makes a link of the calling thread's namespace have these addresses of the hub, and no others.
pub(super) fn put_addresses(link: &str, wanted: &BTreeSet<IpNet>) -> Result<(), WireguardError> {
    let mut table = Addresses::new(Netlink::open()?);
    let key = |net: &IpNet| (link.to_owned(), *net);
    let found: BTreeSet<IpNet> =
        table.list()?.into_keys().filter(|(interface, _)| interface == link).map(|(_, net)| net).collect();
    for net in wanted.difference(&found) {
        table.put(&key(net), &Address { expires: None })?;
    }
    for net in found.difference(wanted) {
        table.delete(&key(net))?;
    }
    Ok(())
}
