//! Where questions come from: from addresses of the interface, where its routes are for these alone, or with a mark
//! that has routes of its own. Else the kernel chooses the source by the routes that lead to who is asked.
//!
//! On the hub itself what a document has asked leaves by the interface or by devices of its personality: an answer that
//! came another way would say nothing of them.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd as _};

use nix::sys::socket::{SockaddrStorage, bind, setsockopt, sockopt};
use tokio::net::{TcpSocket, TcpStream};

use super::link;
use crate::desired::interfaces::Selector;

/// Where questions come from.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// Addresses, the first of each family; without any the kernel chooses.
    pub addresses: Vec<IpAddr>,
    /// Mark of the packets.
    pub mark: Option<u32>,
    /// The interface itself, on whose link addresses of that link are.
    pub link: Option<Selector>,
    /// The interface, and further devices, that packets leave by alone; without it by any.
    pub devices: Option<(Selector, Vec<String>)>,
}

impl Origin {
    /// The address that questions to this one come from.
    pub(super) fn towards(&self, to: IpAddr) -> Option<IpAddr> {
        self.addresses.iter().find(|own| own.is_ipv4() == to.is_ipv4()).copied()
    }

    /// Where somebody is reached: an IPv6 address of a link says nothing of which one.
    ///
    /// # Errors
    ///
    /// There is no such interface.
    pub(super) fn reached(&self, to: SocketAddr) -> io::Result<SocketAddr> {
        match (to, &self.link) {
            (SocketAddr::V6(six), Some(link)) if is_of_link(to.ip()) && six.scope_id() == 0 => {
                let index = link::index(link).map_err(io::Error::other)?;
                Ok(SocketAddrV6::new(*six.ip(), six.port(), six.flowinfo(), index).into())
            }
            (SocketAddr::V4(_) | SocketAddr::V6(_), _) => Ok(to),
        }
    }

    /// The same for questions with a mark, whose routes say what they come from.
    pub(super) fn marked(&self, mark: Option<u32>) -> Self {
        if mark.is_none() { self.clone() } else { Self { addresses: Vec::new(), mark, ..self.clone() } }
    }

    /// Gives a socket the address, the mark and the device of questions.
    ///
    /// # Errors
    ///
    /// The kernel refused, or packets would leave by a device that is not one of those.
    pub(super) fn place(&self, socket: &impl AsFd, to: IpAddr) -> io::Result<()> {
        if let Some(mark) = self.mark {
            setsockopt(socket, sockopt::Mark, &mark)?;
        }
        if let Some((selector, devices)) = &self.devices {
            let device = link::device(selector, devices, to, self).map_err(io::Error::other)?;
            setsockopt(socket, sockopt::BindToDevice, &OsString::from(device))?;
        }
        let Some(own) = self.towards(to) else { return Ok(()) };
        let own = SockaddrStorage::from(SocketAddr::new(own, 0));
        Ok(bind(socket.as_fd().as_raw_fd(), &own)?)
    }

    /// Opens a connection.
    pub(super) async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        self.place(&socket, to.ip())?;
        socket.connect(self.reached(to)?).await
    }
}

/// Whether an address is known on its link alone, as every IPv6 host has one on each.
pub(super) fn is_of_link(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}
