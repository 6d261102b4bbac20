//! WireGuard devices, whoever encrypts: the kernel (generic netlink) or a process of its own (`hub-wg`).
//!
//! Both are asked and told the same here: [`Device`] is what is, [`Changes`] is what is to be. A process is known
//! by its socket, `RUNTIME_DIR/tunnels/NAME.sock`; a tunnel without one is the kernel's.

mod generic;
pub mod keys;
pub mod process;
mod uapi;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use nix::errno::Errno;
use tokio::time::Instant;
use zeroize::Zeroizing;

use self::keys::{Key, KeyError};
use super::namespace::{NamespaceError, OpenNamespace};
use super::netlink::NetlinkError;
use crate::desired::Namespace;

/// Time between looks for a handshake.
const LOOK: Duration = Duration::from_millis(20);
/// A session lives this long: a handshake that is younger counts (WireGuard's `Reject-After-Time`).
pub const SESSION: Duration = Duration::from_mins(3);
/// Time between packets that ask for one.
const NUDGE: Duration = Duration::from_secs(1);
/// Keepalive that is set for a moment to make a peer speak.
const NUDGE_SECONDS: u16 = 25;

/// What may go wrong with a tunnel.
#[derive(Debug, thiserror::Error)]
pub enum WireguardError {
    /// Links and addresses.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The namespace of the tunnel.
    #[error("tunnel {link}: {source}")]
    Namespace {
        /// Name of the link.
        link: String,
        /// What is wrong with it.
        source: NamespaceError,
    },
    /// A key, or the file that should hold it.
    #[error("tunnel {link}: {source}")]
    Key {
        /// Name of the link.
        link: String,
        /// What is wrong with it.
        source: KeyError,
    },
    /// The name, or the group, belongs to somebody else.
    #[error("tunnel {0}: there is an interface of this name that the hub did not make")]
    Foreign(String),
    /// The kernel cannot, and nobody else may.
    #[error(
        "tunnel {0}: this kernel has no WireGuard: load its module, or let a process encrypt \
         (`backend: auto` or `userspace`)"
    )]
    NoKernel(String),
    /// There is no program.
    #[error("tunnel {0}: the program `hub-wg` is neither beside hubd nor in {folder}", folder = process::FOLDER)]
    NoProgram(String),
    /// The process does not start, or does not answer.
    #[error("tunnel {link}: start hub-wg: {source}{said}")]
    Start {
        /// Name of the link.
        link: String,
        /// Why not.
        source: io::Error,
        /// What the process said, with a colon before it, or nothing.
        said: String,
    },
    /// The process, or the kernel, was not asked or did not answer.
    #[error("{intent} of tunnel {link}: {source}")]
    Ask {
        /// What was tried.
        intent: &'static str,
        /// Name of the link.
        link: String,
        /// Why not.
        source: io::Error,
    },
    /// The process, or the kernel, refused.
    #[error("{intent} of tunnel {link}: {}{hint}", errno.desc())]
    Refused {
        /// What was tried.
        intent: &'static str,
        /// Name of the link.
        link: String,
        /// Why not.
        errno: Errno,
        /// What that usually means here, in parentheses, or nothing.
        hint: &'static str,
    },
    /// What is remembered of the tunnel cannot be kept.
    #[error("{path}: {source}", path = path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A peer did not answer in time.
    #[error(
        "tunnel {link}: no handshake within {within:?} with {}: compare the keys of both ends, and whether UDP gets there",
        peers.join(", ")
    )]
    NoHandshake {
        /// Name of the link.
        link: String,
        /// How long was waited.
        within: Duration,
        /// Public keys with endpoints.
        peers: Vec<String>,
    },
}

/// Who encrypts the packets of a tunnel that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The kernel.
    Kernel,
    /// A process.
    Userspace,
}

impl Backend {
    /// Its name in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Userspace => "userspace",
        }
    }
}

/// A tunnel as found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Who encrypts.
    pub backend: Backend,
    /// Public key of its private key; `None` before it has one.
    pub public_key: Option<Key>,
    /// UDP port.
    pub listen_port: u16,
    /// Firewall mark of outer packets; 0 is none.
    pub mark: u32,
    /// Peers by public key.
    pub peers: BTreeMap<Key, Peer>,
}

/// A peer as found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Where it was heard last, or is said to be.
    pub endpoint: Option<SocketAddr>,
    /// Addresses that are its.
    pub allowed: BTreeSet<IpNet>,
    /// Seconds between packets that keep the way open.
    pub keepalive_seconds: u16,
    /// Time since the last handshake.
    pub handshake_age: Option<Duration>,
    /// Bytes from it, outer headers not counted.
    pub received_bytes: u64,
    /// Bytes to it, outer headers not counted.
    pub sent_bytes: u64,
}

/// What is to change; `None` stays.
#[derive(Default)]
pub struct Changes {
    /// Private key.
    pub private_key: Option<Zeroizing<Key>>,
    /// UDP port.
    pub listen_port: Option<u16>,
    /// Firewall mark; 0 takes it away.
    pub mark: Option<u32>,
    /// Peers that change.
    pub peers: Vec<PeerChanges>,
}

/// What is to change of one peer; one that is unknown is made.
#[derive(Default)]
pub struct PeerChanges {
    /// Which peer.
    pub public_key: Key,
    /// Whether it goes.
    pub remove: bool,
    /// Pre-shared key; zeros take it away.
    pub preshared_key: Option<Zeroizing<Key>>,
    /// Where it is.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between packets that keep the way open.
    pub keepalive_seconds: Option<u16>,
    /// All its addresses.
    pub allowed: Option<BTreeSet<IpNet>>,
}

impl Changes {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.private_key.is_none()
            && self.listen_port.is_none()
            && self.mark.is_none()
            && self.peers.is_empty()
    }
}

/// Where a tunnel is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Name of its link.
    pub link: String,
    /// Its namespace; `None` is the hub's own.
    pub namespace: Option<Namespace>,
    /// Folder of what is remembered of tunnels.
    folder: PathBuf,
}

impl Place {
    /// A tunnel of the hub with this `runtime_dir`.
    pub fn new(runtime_dir: &Path, link: &str, namespace: Option<&Namespace>) -> Self {
        Self {
            link: link.to_owned(),
            namespace: namespace.cloned(),
            folder: runtime_dir.join(process::TUNNELS),
        }
    }

    /// A file of this tunnel.
    pub fn file(&self, extension: &str) -> PathBuf {
        self.folder.join(format!("{}.{extension}", self.link))
    }

    /// Runs `work` in the namespace of the tunnel.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, WireguardError> {
        let Some(namespace) = &self.namespace else { return Ok(work()) };
        OpenNamespace::open(namespace)
            .and_then(|namespace| namespace.run(work))
            .map_err(|source| WireguardError::Namespace { link: self.link.clone(), source })
    }

    /// Who encrypts, if the tunnel is there.
    pub fn backend(&self) -> Backend {
        if self.file("sock").exists() { Backend::Userspace } else { Backend::Kernel }
    }

    /// Keys, peers, handshakes and bytes.
    pub fn status(&self) -> Result<Device, WireguardError> {
        match self.backend() {
            Backend::Userspace => uapi::read(&self.file("sock"), &self.link),
            Backend::Kernel => self.within(|| generic::read(&self.link))?,
        }
    }

    /// Makes changes, all in one step.
    pub fn change(&self, changes: &Changes) -> Result<(), WireguardError> {
        match self.backend() {
            Backend::Userspace => uapi::change(&self.file("sock"), &self.link, changes),
            Backend::Kernel => self.within(|| generic::change(&self.link, changes))?,
        }
    }

    /// Has every peer whose endpoint is known shake hands and waits for that; where none is known, for all of them
    /// to call. The oldest handshake's age. Blocks for `within` at most.
    pub fn shake_hands(&self, within: Duration) -> Result<Duration, WireguardError> {
        self.shake_hands_with(&[], within)
    }

    /// The same, and of those whose endpoint is known only these are waited for, if any are named.
    pub fn shake_hands_with(&self, wanted: &[Key], within: Duration) -> Result<Duration, WireguardError> {
        let deadline = Instant::now() + within;
        let mut nudge_at = Instant::now();
        loop {
            if nudge_at <= Instant::now() {
                // Again and again: the other end may be made only now.
                self.nudge()?;
                nudge_at = Instant::now() + NUDGE;
            }
            let peers = self.status()?.peers;
            let all_call = peers.values().all(|peer| peer.endpoint.is_none());
            let asked = peers.iter().filter(|(key, peer)| {
                let is_wanted = wanted.is_empty() || wanted.contains(*key);
                is_wanted && (all_call || peer.endpoint.is_some())
            });
            let silent: Vec<_> =
                asked.filter(|(_, peer)| peer.handshake_age.is_none_or(|age| age >= SESSION)).collect();
            if silent.is_empty() {
                return Ok(peers.values().filter_map(|peer| peer.handshake_age).max().unwrap_or_default());
            }
            if Instant::now() >= deadline {
                let peers = silent.into_iter().map(|(key, peer)| named(key, peer)).collect();
                return Err(WireguardError::NoHandshake { link: self.link.clone(), within, peers });
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Sends an empty packet to every peer: whoever switches keepalives on sends one at once.
    fn nudge(&self) -> Result<(), WireguardError> {
        let peers = self.status()?.peers;
        let all = |seconds: fn(u16) -> u16| Changes {
            peers: peers
                .iter()
                .map(|(&public_key, peer)| PeerChanges {
                    public_key,
                    keepalive_seconds: Some(seconds(peer.keepalive_seconds)),
                    ..PeerChanges::default()
                })
                .collect(),
            ..Changes::default()
        };
        self.change(&all(|_| 0))?;
        self.change(&all(|seconds| if seconds == 0 { NUDGE_SECONDS } else { seconds }))?;
        self.change(&all(|seconds| seconds))
    }
}

/// A peer in messages.
pub(crate) fn named(key: &Key, peer: &Peer) -> String {
    match peer.endpoint {
        Some(endpoint) => format!("{} at {endpoint}", keys::base64(key)),
        None => keys::base64(key),
    }
}

/// What a refusal usually means.
fn hint(errno: Errno) -> &'static str {
    if errno == Errno::EADDRINUSE {
        " (another process has the UDP port: choose another `listen_port`)"
    } else {
        ""
    }
}
