//! Listening on addresses that the machine may not have yet.
//!
//! The service starts before the network is set up, so that nothing is forwarded unjudged, and an address of DHCP or
//! of systemd-networkd comes after that. A socket that waits for it is told of connections once it is there; the
//! other way would be a service that does not start, and a machine that forwards nothing.

use std::io;
use std::net::SocketAddr;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpSocket};

/// Connections that wait to be taken.
const BACKLOG: u32 = 1_024;

/// Listens on an address, now or once it is there. Call within a tokio runtime.
///
/// # Errors
/// When somebody else listens there.
pub(super) fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections of an earlier daemon that are not quite over do not keep this one out.
    socket.set_reuseaddr(true)?;
    setsockopt(&socket, sockopt::IpFreebind, &true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
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
        }
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_refused() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let address: SocketAddr = address.parse().unwrap();
            let listener = tcp(address).unwrap();
            assert_eq!(tcp(listener.local_addr().unwrap()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        }
    }
}
