//! A WireGuard tunnel between two namespaces, with `hub-wg` at both ends and no hub.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Child;

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
            let child = here.space.within(|| process::start(&place)).unwrap();
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

impl Drop for Tunnel {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // One that has ended is as good as stopped.
            child.kill().ok();
            child.wait().ok();
        }
    }
}
