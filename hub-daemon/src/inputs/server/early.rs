//! Sockets on addresses that the machine may not have yet.
//!
//! The service starts before the network is set up, so that nothing is forwarded unjudged, and an address of DHCP or
//! of systemd-networkd comes after that. A socket that waits for it is told of connections once it is there; the
//! other way would be a service that does not start, and a machine that forwards nothing.

use std::io;
use std::net::SocketAddr;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};
use tokio::net::{TcpListener, UdpSocket};

/// Connections that wait to be taken.
const BACKLOG: i32 = 1_024;

/// Listens on an address, now or once it is there. Call within a tokio runtime.
///
/// # Errors
/// When somebody else listens there.
pub(super) fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bound(address, SockType::Stream)?;
    let backlog = nix::sys::socket::Backlog::new(BACKLOG)?;
    nix::sys::socket::listen(&socket, backlog)?;
    TcpListener::from_std(socket.into())
}

/// Takes datagrams for an address, now or once it is there. Call within a tokio runtime.
///
/// # Errors
/// When somebody else does.
pub fn udp(address: SocketAddr) -> io::Result<UdpSocket> {
    UdpSocket::from_std(bound(address, SockType::Datagram)?.into())
}

fn bound(address: SocketAddr, kind: SockType) -> io::Result<std::os::fd::OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    if kind == SockType::Stream {
        // Connections of an earlier daemon that are not quite over do not keep this one out.
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    setsockopt(&socket, sockopt::IpFreebind, &true)?;
    bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &SockaddrStorage::from(address))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_may_come_later() {
        // Documentation prefixes (RFC 5737, RFC 3849): no machine has them.
        for address in ["203.0.113.7:8443", "[2001:db8:ffff::7]:8443"] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(tcp(address).unwrap().local_addr().unwrap(), address);
            assert_eq!(udp(address).unwrap().local_addr().unwrap(), address);
        }
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_refused() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let address: SocketAddr = address.parse().unwrap();
            let (listener, taker) = (tcp(address).unwrap(), udp(address).unwrap());
            assert_eq!(tcp(listener.local_addr().unwrap()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
            assert_eq!(udp(taker.local_addr().unwrap()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        }
    }
}
