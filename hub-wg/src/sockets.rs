//! The UDP sockets of the outer packets, one for each address family, on one port.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};

/// Room for what arrives while packets are decrypted.
const BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Both sockets.
pub(crate) struct Sockets {
    v4: UdpSocket,
    /// Missing where the kernel has no IPv6.
    v6: Option<UdpSocket>,
}

impl Sockets {
    /// Opens both on this port; 0 lets the kernel choose.
    pub(crate) fn open(port: u16, mark: u32) -> io::Result<Self> {
        let v4 = open(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into(), mark)?;
        let port = v4.local_addr()?.port();
        let v6 = match open(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0).into(), mark) {
            Err(error) if error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32) => None,
            other => Some(other?),
        };
        Ok(Self { v4, v6 })
    }

    /// Those that there are.
    pub(crate) fn each(&self) -> impl Iterator<Item = &UdpSocket> {
        std::iter::once(&self.v4).chain(&self.v6)
    }

    /// The port of both.
    pub(crate) fn port(&self) -> u16 {
        self.v4.local_addr().map_or(0, |address| address.port())
    }

    /// Puts a firewall mark on packets from here on.
    pub(crate) fn mark(&self, mark: u32) -> io::Result<()> {
        self.each().try_for_each(|socket| Ok(setsockopt(socket, sockopt::Mark, &mark)?))
    }

    /// Sends a packet. One that cannot be sent is lost, as on any wire.
    pub(crate) fn send(&self, packet: &[u8], target: SocketAddr) {
        let socket = if target.is_ipv4() { Some(&self.v4) } else { self.v6.as_ref() };
        if let Some(socket) = socket {
            drop(socket.send_to(packet, target));
        }
    }
}

fn open(address: SocketAddr, mark: u32) -> io::Result<UdpSocket> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Datagram, flags, None)?;
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    if mark != 0 {
        setsockopt(&socket, sockopt::Mark, &mark)?;
    }
    // Beyond the system's limit only with CAP_NET_ADMIN.
    if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &BUFFER_BYTES)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(socket.into())
}
