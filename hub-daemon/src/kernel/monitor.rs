//! Tells when others, or the hub itself, change the network.
//!
//! A change says only which table to look at again, so nothing is lost by merging: what arrives together is
//! reported once. When the kernel has more to say than the socket holds, what was lost is unknown, and
//! [`Change::Resync`] says to look at everything.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd as _;

use netlink_packet_core::{NetlinkBuffer, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket as _, AsyncSocketExt as _, TokioSocket};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::sync::mpsc::Sender;

use super::neighbours::Neighbours;
use super::netlink::{Netlink, NetlinkError, packets};

/// Room for about 20,000 route messages that nobody has read yet.
pub const BUFFER_BYTES: usize = 32 * 1024 * 1024;
/// Messages read before those that arrived are reported.
const BATCH: usize = 4096;
/// Larger than any notification.
const MESSAGE_BYTES: usize = 64 * 1024;
/// What to listen to.
const GROUPS: [u32; 9] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_NEIGH,
    libc::RTNLGRP_TC,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV4_RULE,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV6_ROUTE,
    libc::RTNLGRP_IPV6_RULE,
];
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
    /// A neighbour answers at another MAC, began to answer, or ceased to.
    Neighbours,
}

/// A socket that the kernel tells changes to.
pub struct Monitor {
    socket: TokioSocket,
    neighbours: Neighbours,
    netlink: Netlink,
    buffer: Vec<u8>,
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
        Ok(Self { socket, neighbours, netlink, buffer: Vec::with_capacity(MESSAGE_BYTES) })
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
                    changes.extend(changes_in(&self.buffer, &mut self.neighbours));
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

/// The tables that the notifications in a datagram are about.
pub fn changes_in(datagram: &[u8], neighbours: &mut Neighbours) -> BTreeSet<Change> {
    packets(datagram).filter_map(|packet| change(packet, neighbours)).collect()
}

/// The table that a notification is about.
fn change(packet: &[u8], neighbours: &mut Neighbours) -> Option<Change> {
    match NetlinkBuffer::new_checked(packet).ok()?.message_type() {
        libc::RTM_NEWLINK | libc::RTM_DELLINK | libc::RTM_DELTFILTER => Some(Change::Links),
        libc::RTM_NEWQDISC | libc::RTM_DELQDISC | libc::RTM_NEWTCLASS | libc::RTM_DELTCLASS => {
            Some(Change::Queues)
        }
        libc::RTM_NEWADDR | libc::RTM_DELADDR => Some(Change::Addresses),
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => Some(Change::Routes),
        libc::RTM_NEWRULE | libc::RTM_DELRULE => Some(Change::Rules),
        libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(packet).ok()?;
            let NetlinkPayload::InnerMessage(message) = message.payload else { return None };
            neighbours.learn(&message).then_some(Change::Neighbours)
        }
        _ => None,
    }
}
