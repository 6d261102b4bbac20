//! Who is at the other end of a connection.

use std::fmt;
use std::net::SocketAddr;

use tokio::net::UnixStream;

/// The other end of a connection; an extension of every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A process on this machine, as the kernel vouches.
    Unix {
        /// Its user.
        uid: u32,
        /// Its group.
        gid: u32,
        /// Its number, when the kernel gives it.
        pid: Option<i32>,
    },
    /// An address that has shown a token or a certificate.
    Tcp {
        /// Where it is.
        address: SocketAddr,
        /// The end of the connection on this machine, where it is known.
        local: Option<SocketAddr>,
    },
}

impl Peer {
    pub(super) fn of_unix(stream: &UnixStream) -> std::io::Result<Self> {
        let credentials = stream.peer_cred()?;
        Ok(Self::Unix { uid: credentials.uid(), gid: credentials.gid(), pid: credentials.pid() })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { uid, pid: Some(pid), .. } => write!(f, "uid {uid} pid {pid}"),
            Self::Unix { uid, pid: None, .. } => write!(f, "uid {uid}"),
            Self::Tcp { address, .. } => address.fmt(f),
        }
    }
}
