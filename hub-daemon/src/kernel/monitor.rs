//! Tells when others, or the hub itself, change the network.
//!
//! A change says only which table to look at again, so nothing is lost by merging: what arrives together is
//! reported once. When the kernel has more to say than the socket holds, what was lost is unknown, and
//! [`Change::Resync`] says to look at everything.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd as _;

use netlink_packet_core::{NetlinkBuffer, NetlinkMessage, NetlinkPayload, NlasIterator};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket as _, AsyncSocketExt as _, TokioSocket};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::sync::mpsc::Sender;

use super::neighbours::Neighbours;
use super::netlink::{Netlink, NetlinkError, packets};
use crate::desired::PROTOCOL;

/// Room for about 20,000 route messages that nobody has read yet.
pub const BUFFER_BYTES: usize = 32 * 1024 * 1024;
/// Messages read before those that arrived are reported.
const BATCH: usize = 4096;
/// Larger than any notification.
const MESSAGE_BYTES: usize = 64 * 1024;
/// What to listen to.
const GROUPS: [u32; 11] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_NEIGH,
    libc::RTNLGRP_TC,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV4_RULE,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV6_ROUTE,
    libc::RTNLGRP_IPV6_RULE,
    libc::RTNLGRP_IPV4_NETCONF,
    libc::RTNLGRP_IPV6_NETCONF,
];
/// Bytes of `struct nlmsghdr` and of `struct ifaddrmsg`. In `struct rtmsg` the protocol is byte 5, the type byte 7.
const HEADER_BYTES: usize = 16;
const ADDRESS_BYTES: usize = 8;
/// Bytes of `struct netconfmsg`, with what follows it up to attributes.
const SWITCHES_BYTES: usize = 4;
/// Attributes of switches: the interface, and those that the hub sets with the value that it gives them.
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_FORWARDING: (u16, i32) = (2, 1);
const NETCONFA_RP_FILTER: (u16, i32) = (3, 2);
const NETCONFA_PROXY_NEIGH: (u16, i32) = (5, 0);
/// Attribute of an address: who put it there.
const IFA_PROTO: u16 = 11;
const INTENT: &str = "watch the network";

/// A table of the kernel that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Messages were lost: anything may have changed.
    Resync,
    /// A link came, went, or changed state, or lost a filter or what filters are put on.
    Links,
    /// A queue came, went, or changed.
    Queues,
    /// An address came or went.
    Addresses,
    /// A route came or went.
    Routes,
    /// A policy rule came or went.
    Rules,
    /// A switch that the hub sets got another value. Of some switches the kernel says nothing.
    Switches,
    /// The hub changed addresses, routes or rules itself, or the kernel followed such a change.
    Own,
    /// A neighbour answers at another MAC, began to answer, or ceased to.
    Neighbours,
}

/// A socket that the kernel tells changes to.
pub struct Monitor {
    socket: TokioSocket,
    neighbours: Neighbours,
    netlink: Netlink,
    buffer: Vec<u8>,
    /// Numbers of the sockets that the hub itself changes the network by.
    own: BTreeSet<u32>,
}

impl Monitor {
    /// Listens in the namespace of the calling thread from this moment on, with room for `buffer_bytes` of
    /// unread messages ([`BUFFER_BYTES`] unless there is a reason). Needs a tokio runtime.
    pub fn open(buffer_bytes: usize) -> Result<Self, NetlinkError> {
        let open = || {
            let mut monitor = TokioSocket::new(NETLINK_ROUTE)?;
            let socket = monitor.socket_mut();
            socket.bind_auto()?;
            // Beyond the system's limit only with CAP_NET_ADMIN.
            if setsockopt(&socket.as_fd(), sockopt::RcvBufForce, &buffer_bytes).is_err() {
                setsockopt(&socket.as_fd(), sockopt::RcvBuf, &buffer_bytes)?;
            }
            for group in GROUPS {
                socket.add_membership(group)?;
            }
            Ok(monitor)
        };
        let socket = open().map_err(NetlinkError::Open)?;
        let mut netlink = Netlink::open()?;
        // After the groups were joined, so that nothing falls between.
        let neighbours = Neighbours::read(&mut netlink)?;
        let (buffer, own) = (Vec::with_capacity(MESSAGE_BYTES), BTreeSet::new());
        Ok(Self { socket, neighbours, netlink, buffer, own })
    }

    /// Tells changes by these sockets from those of others.
    #[must_use]
    pub fn knowing(self, own: BTreeSet<u32>) -> Self {
        Self { own, ..self }
    }

    /// Reports changes until nobody listens or the socket breaks.
    pub async fn run(mut self, changes: Sender<Change>) -> Result<(), NetlinkError> {
        loop {
            self.buffer.clear();
            let first = tokio::select! {
                () = changes.closed() => return Ok(()),
                first = self.socket.recv(&mut self.buffer) => first,
            };
            for change in self.collect(first)? {
                if changes.send(change).await.is_err() {
                    return Ok(());
                }
            }
        }
    }

    /// What the first message and those that arrived behind it, up to a limit, are about.
    fn collect(&mut self, first: io::Result<()>) -> Result<BTreeSet<Change>, NetlinkError> {
        let mut changes = BTreeSet::new();
        let mut read = first;
        for left in (0..BATCH).rev() {
            match read {
                Ok(()) => {
                    changes.extend(changes_in(&self.buffer, &mut self.neighbours, &self.own));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.neighbours = Neighbours::read(&mut self.netlink)?;
                    changes.insert(Change::Resync);
                }
                Err(source) => return Err(NetlinkError::Socket { intent: INTENT.to_owned(), source }),
            }
            if left == 0 {
                break;
            }
            self.buffer.clear();
            read = self.socket.socket_ref().recv(&mut self.buffer, 0).map(drop);
        }
        Ok(changes)
    }
}

/// The tables that the notifications in a datagram are about; `own` sockets are the hub's.
pub fn changes_in(datagram: &[u8], neighbours: &mut Neighbours, own: &BTreeSet<u32>) -> BTreeSet<Change> {
    packets(datagram).filter_map(|packet| change(packet, neighbours, own)).collect()
}

/// The table that a notification is about.
fn change(packet: &[u8], neighbours: &mut Neighbours, own: &BTreeSet<u32>) -> Option<Change> {
    let header = NetlinkBuffer::new_checked(packet).ok()?;
    let (kind, port) = (header.message_type(), header.port_number());
    match kind {
        libc::RTM_NEWLINK | libc::RTM_DELLINK | libc::RTM_DELTFILTER => Some(Change::Links),
        libc::RTM_NEWQDISC | libc::RTM_DELQDISC | libc::RTM_NEWTCLASS | libc::RTM_DELTCLASS => {
            Some(Change::Queues)
        }
        libc::RTM_NEWADDR | libc::RTM_DELADDR | libc::RTM_NEWROUTE | libc::RTM_DELROUTE
            if own.contains(&port) =>
        {
            Some(Change::Own)
        }
        libc::RTM_NEWRULE | libc::RTM_DELRULE if own.contains(&port) => Some(Change::Own),
        // IPv6 does not say who did it.
        libc::RTM_NEWADDR if port == 0 && !own.is_empty() && is_of_hub(packet) => Some(Change::Own),
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE if is_of_address(packet) => Some(Change::Own),
        libc::RTM_NEWADDR | libc::RTM_DELADDR => Some(Change::Addresses),
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => Some(Change::Routes),
        libc::RTM_NEWRULE | libc::RTM_DELRULE => Some(Change::Rules),
        libc::RTM_NEWNETCONF if is_of_others(packet) => Some(Change::Switches),
        libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(packet).ok()?;
            let NetlinkPayload::InnerMessage(message) = message.payload else { return None };
            neighbours.learn(&message).then_some(Change::Neighbours)
        }
        _ => None,
    }
}

/// Whether a switch that the hub may have set got a value that it does not give. Messages about all switches are of an
/// interface that is new, which is told as well.
fn is_of_others(packet: &[u8]) -> bool {
    let attributes = packet.get(HEADER_BYTES + SWITCHES_BYTES..).unwrap_or_default();
    let attributes = NlasIterator::new(attributes).map_while(Result::ok);
    let mut switches = attributes.filter(|attribute| attribute.kind() != NETCONFA_IFINDEX);
    let (Some(switch), None) = (switches.next(), switches.next()) else { return false };
    let value = switch.value().try_into().map(i32::from_ne_bytes).ok();
    let ours = [NETCONFA_FORWARDING, NETCONFA_RP_FILTER, NETCONFA_PROXY_NEIGH];
    ours.iter().any(|(kind, ours)| *kind == switch.kind() && value != Some(*ours))
}

/// Whether an address carries the hub's number.
fn is_of_hub(packet: &[u8]) -> bool {
    let attributes = packet.get(HEADER_BYTES + ADDRESS_BYTES..).unwrap_or_default();
    let mut attributes = NlasIterator::new(attributes).map_while(Result::ok);
    attributes.any(|attribute| attribute.kind() == IFA_PROTO && attribute.value() == [PROTOCOL])
}

/// Whether a route is one that the kernel makes of an address: the message about that says enough.
fn is_of_address(packet: &[u8]) -> bool {
    let byte = |place: usize| packet.get(HEADER_BYTES + place).copied();
    let of_address = [libc::RTN_LOCAL, libc::RTN_BROADCAST, libc::RTN_ANYCAST, libc::RTN_MULTICAST];
    byte(5) == Some(libc::RTPROT_KERNEL) && byte(7).is_some_and(|kind| of_address.contains(&kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message about switches of interface 7, as the kernel writes it.
    fn told(switches: &[(u16, i32)]) -> bool {
        let mut packet = vec![0; HEADER_BYTES];
        packet.extend([2, 0, 0, 0]);
        for (kind, value) in [(NETCONFA_IFINDEX, 7)].iter().chain(switches) {
            packet.extend([8_u16.to_ne_bytes(), kind.to_ne_bytes()].concat());
            packet.extend(value.to_ne_bytes());
        }
        is_of_others(&packet)
    }

    #[test]
    fn switches_are_told_when_they_are_not_as_the_hub_sets_them() {
        for switch in [(2, 0), (3, 0), (3, 1), (5, 1)] {
            assert!(told(&[switch]), "{switch:?}");
        }
        for switch in [NETCONFA_FORWARDING, NETCONFA_RP_FILTER, NETCONFA_PROXY_NEIGH, (4, 1), (6, 1), (7, 1)]
        {
            assert!(!told(&[switch]), "{switch:?}");
        }
        assert!(!told(&[(2, 0), (3, 0), (5, 0)]), "an interface that is new");
        assert!(!told(&[]) && !is_of_others(&[]) && !is_of_others(&[0; 21]));
    }
}
