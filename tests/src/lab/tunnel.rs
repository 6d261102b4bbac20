//! A WireGuard tunnel between two namespaces, with `hub-wg` at both ends and no hub; and the far end of one that a hub
//! makes, by `hub-wg` or by the kernel.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use hub_daemon::kernel::wireguard::{Changes, PeerChanges, Place, keys, process};
use zeroize::Zeroizing;

use super::space::Space;

/// One end of a tunnel.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Where it is.
    pub space: &'a Space,
    /// Name of its device.
    pub link: &'a str,
    /// Where the other end reaches it.
    pub at: &'a str,
    /// Addresses of the device.
    pub addresses: &'a [&'a str],
}

impl<'a> End<'a> {
    /// The far end of a hub's tunnel, on the host outside.
    pub const fn far(outside: &'a Space) -> Self {
        Self { space: outside, link: "wg0", at: FAR, addresses: &["10.9.0.1/24", "fd09::1/64"] }
    }
}

/// Where the far end of a hub's tunnel is reached.
pub const FAR: &str = "192.0.2.10:51820";

/// Address of the far end in the tunnel.
pub fn peer_at(v4: bool) -> IpAddr {
    if v4 { [10, 9, 0, 1].into() } else { "fd09::1".parse().unwrap() }
}

/// Address of the near end in the tunnel.
pub fn near_at(v4: bool) -> IpAddr {
    if v4 { [10, 9, 0, 2].into() } else { "fd09::2".parse().unwrap() }
}

/// Writes a private key of equal bytes.
pub fn write_key(path: &Path, byte: u8) {
    fs::write(path, keys::base64(&[byte; 32]) + "\n").unwrap();
}

/// Ports of the near end: one that its rules let peers in at, and two that they do not, of which one says so.
pub const INSIDE: u16 = 7_100;
/// Denied.
pub const INSIDE_SHUT: u16 = 7_101;
/// Rejected.
pub const INSIDE_REJECTED: u16 = 7_102;
/// Ports of the far end, alike.
pub const AWAY: u16 = 7_200;
/// Denied.
pub const AWAY_SHUT: u16 = 7_201;
/// Rejected.
pub const AWAY_REJECTED: u16 = 7_202;

/// Processes at both ends; they end with the value.
#[derive(Debug)]
pub struct Tunnel(Vec<Child>);

impl Tunnel {
    /// Makes a tunnel that everything may go through. Files go below `folder`.
    pub fn between(folder: &Path, ends: [End<'_>; 2]) -> Self {
        fs::create_dir_all(folder.join(process::TUNNELS)).unwrap();
        let [one, other] = ends;
        // Any 32 bytes make a private key.
        let key = |link: &str| {
            let mut key = Zeroizing::new([0x5a; 32]);
            key.iter_mut().zip(link.bytes()).for_each(|(slot, byte)| *slot = byte);
            key
        };
        let children = [(one, other), (other, one)].map(|(here, there)| {
            let place = Place::new(folder, here.link, None);
            let child = here.space.within(|| process::start(&place, None)).unwrap();
            let peer = PeerChanges {
                public_key: keys::public(&key(there.link)),
                endpoint: Some(there.at.parse().unwrap()),
                allowed: Some(["0.0.0.0/0", "::/0"].map(|net| net.parse().unwrap()).into()),
                ..PeerChanges::default()
            };
            let port = here.at.parse::<SocketAddr>().unwrap().port();
            let changes = Changes {
                private_key: Some(key(here.link)),
                listen_port: Some(port),
                mark: None,
                peers: vec![peer],
            };
            place.change(&changes).unwrap();
            for address in here.addresses {
                here.space.ip(&format!("address add {address} dev {}", here.link));
            }
            here.space.ip(&format!("link set {} mtu 1420 up", here.link));
            child
        });
        Self(children.into())
    }
}

/// The far end of a tunnel whose near end a hub makes: it waits to be called.
#[derive(Debug)]
pub struct Peer<'a> {
    place: Place,
    space: &'a Space,
    _process: Tunnel,
}

impl<'a> Peer<'a> {
    /// Waits for whoever has this public key.
    pub fn new(folder: &Path, end: End<'a>, near: keys::Key) -> Self {
        fs::create_dir_all(folder.join(process::TUNNELS)).unwrap();
        let place = Place::new(folder, end.link, None);
        let child = end.space.within(|| process::start(&place, None)).unwrap();
        Self::made(place, Tunnel(vec![child]), end, near)
    }

    /// The same by the kernel, if it has WireGuard.
    pub fn by_kernel(folder: &Path, end: End<'a>, near: keys::Key) -> Option<Self> {
        let add = format!("ip link add {} type wireguard", end.link);
        let is_there = end.space.succeeds(&add, Duration::from_secs(10));
        is_there.then(|| Self::made(Place::new(folder, end.link, None), Tunnel(Vec::new()), end, near))
    }

    fn made(place: Place, process: Tunnel, end: End<'a>, near: keys::Key) -> Self {
        let port = end.at.parse::<SocketAddr>().unwrap().port();
        let private_key = Some(Zeroizing::new([0x33; 32]));
        let changes = Changes { private_key, listen_port: Some(port), mark: None, peers: Vec::new() };
        end.space.within(|| place.change(&changes)).unwrap();
        let peer = Self { place, space: end.space, _process: process };
        peer.expect(&[], near);
        for address in end.addresses {
            end.space.ip(&format!("address add {address} dev {}", end.link));
        }
        end.space.ip(&format!("link set {} mtu 1420 up", end.link));
        peer
    }

    /// Its public key, as documents have it.
    pub fn public(&self) -> String {
        keys::base64(&keys::public(&[0x33; 32]))
    }

    /// Talks to whoever has this public key, and no longer to those who have these.
    pub fn expect(&self, gone: &[keys::Key], near: keys::Key) {
        let gone =
            gone.iter().map(|&public_key| PeerChanges { public_key, remove: true, ..Default::default() });
        let allowed = Some(["0.0.0.0/0", "::/0"].map(|net| net.parse().unwrap()).into());
        let near = PeerChanges { public_key: near, allowed, ..PeerChanges::default() };
        let peers = gone.chain([near]).collect();
        let changes = Changes { private_key: None, listen_port: None, mark: None, peers };
        self.space.within(|| self.place.change(&changes)).unwrap();
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // One that has ended is as good as stopped.
            child.kill().ok();
            child.wait().ok();
        }
    }
}
