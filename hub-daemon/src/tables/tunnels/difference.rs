//! What differs between a tunnel as it is wanted and as it was found.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use crate::desired::interfaces::{Tunnel, TunnelPeer};
use crate::kernel::wireguard::keys::{self, Key, KeyError};
use crate::kernel::wireguard::{Backend, Changes, Device, PeerChanges};
use crate::tables::endpoints::fnv;

/// A tunnel with its keys, for as long as they are needed.
pub(super) struct Wanted<'a> {
    tunnel: &'a Tunnel,
    private_key: Zeroizing<Key>,
    peers: BTreeMap<Key, (&'a TunnelPeer, Zeroizing<Key>)>,
}

/// Reads the keys of a tunnel.
pub(super) fn read(tunnel: &Tunnel) -> Result<Wanted<'_>, KeyError> {
    let private_key = keys::read(&tunnel.private_key_file)?;
    let mut peers = BTreeMap::new();
    for (public, peer) in &tunnel.peers {
        // Zeros are no key.
        let preshared =
            peer.preshared_key_file.as_deref().map_or_else(|| Ok(Zeroizing::default()), keys::read)?;
        peers.insert(keys::parse(public)?, (peer, preshared));
    }
    Ok(Wanted { tunnel, private_key, peers })
}

/// Whether peers and numbers are as wanted. Endpoints are not compared: peers move.
pub(super) fn matches(tunnel: &Tunnel, device: &Device) -> bool {
    let same = |(public, peer): (&String, &TunnelPeer)| {
        let Ok(key) = keys::parse(public) else { return false };
        device.peers.get(&key).is_some_and(|found| {
            found.allowed == peer.allowed && found.keepalive_seconds == peer.keepalive_seconds
        })
    };
    tunnel.peers.len() == device.peers.len()
        && tunnel.peers.iter().all(same)
        && tunnel.listen_port.is_none_or(|port| port == device.listen_port)
        && tunnel.mark.unwrap_or_default() == device.mark
}

/// What has to change. Endpoints and pre-shared keys are told again only where the configuration that was written
/// last is another one (`written` is false), or the peer is unknown.
pub(super) fn changes(wanted: &Wanted<'_>, device: &Device, written: bool) -> Changes {
    let tunnel = wanted.tunnel;
    let rekeyed = device.public_key != Some(keys::public(&wanted.private_key));
    let mark = tunnel.mark.unwrap_or_default();
    let gone = device.peers.keys().filter(|key| !wanted.peers.contains_key(*key));
    // Those that go come first: addresses of theirs may be another's from here on.
    let mut peers: Vec<PeerChanges> =
        gone.map(|&public_key| PeerChanges { public_key, remove: true, ..PeerChanges::default() }).collect();
    for (&public_key, (peer, preshared)) in &wanted.peers {
        let found = device.peers.get(&public_key);
        let tell = found.is_none() || !written;
        let endpoint =
            peer.endpoint.filter(|endpoint| tell && found.and_then(|peer| peer.endpoint) != Some(*endpoint));
        let allowed = found.is_none_or(|found| found.allowed != peer.allowed);
        let keepalive = found.is_none_or(|found| found.keepalive_seconds != peer.keepalive_seconds);
        if tell || allowed || keepalive {
            peers.push(PeerChanges {
                public_key,
                remove: false,
                preshared_key: tell.then(|| preshared.clone()),
                endpoint,
                keepalive_seconds: keepalive.then_some(peer.keepalive_seconds),
                allowed: allowed.then(|| peer.allowed.clone()),
            });
        }
    }
    Changes {
        private_key: rekeyed.then(|| wanted.private_key.clone()),
        listen_port: tunnel.listen_port.filter(|port| *port != device.listen_port),
        mark: (mark != device.mark).then_some(mark),
        peers,
    }
}

/// The alias of a tunnel that is configured: who encrypts, and fingerprints of its configuration and key files.
pub(super) fn alias(tunnel: &Tunnel, backend: Backend) -> String {
    let (configuration, files) = fingerprints(tunnel);
    format!("hub wireguard {} {configuration:016x} {:016x}", backend.name(), files.unwrap_or_default())
}

/// Whether this alias says that the tunnel's configuration was written. Files that are gone have not changed.
pub(super) fn is_written(tunnel: &Tunnel, backend: Backend, found: &str) -> bool {
    let (configuration, files) = fingerprints(tunnel);
    let begin = format!("hub wireguard {} {configuration:016x} ", backend.name());
    found.strip_prefix(&begin).is_some_and(|found| files.is_none_or(|files| found == format!("{files:016x}")))
}

fn fingerprints(tunnel: &Tunnel) -> (u64, Option<u64>) {
    let files = tunnel.peers.values().filter_map(|peer| peer.preshared_key_file.as_ref());
    let stamps: Option<Vec<_>> =
        files.chain([&tunnel.private_key_file]).map(|path| keys::stamp(path)).collect();
    let peers = &tunnel.peers;
    let configuration = (&tunnel.private_key_file, tunnel.listen_port, tunnel.mark, tunnel.mtu, peers);
    let text = format!("{configuration:?}");
    (fnv(text.as_bytes()), stamps.map(|stamps| fnv(format!("{stamps:?}").as_bytes())))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::desired::interfaces::TunnelBackend;
    use crate::kernel::wireguard::Peer;
    use crate::model::PersonaId;

    const ONE: Key = [1; 32];
    const TWO: Key = [2; 32];

    fn tunnel(endpoint: &str) -> Tunnel {
        let peer = TunnelPeer {
            endpoint: Some(endpoint.parse().unwrap()),
            allowed: BTreeSet::from(["10.0.0.0/8".parse().unwrap()]),
            keepalive_seconds: 25,
            preshared_key_file: None,
        };
        Tunnel {
            namespace: None,
            persona: PersonaId("red".into()),
            segment: None,
            backend: TunnelBackend::Auto,
            private_key_file: "/nonexistent".into(),
            listen_port: Some(51_820),
            mark: None,
            addresses: BTreeSet::new(),
            mtu: 1420,
            peers: BTreeMap::from([(keys::base64(&ONE), peer)]),
        }
    }

    fn wanted(tunnel: &Tunnel) -> Wanted<'_> {
        let peers = tunnel.peers.values().map(|peer| (ONE, (peer, Zeroizing::default()))).collect();
        Wanted { tunnel, private_key: Zeroizing::new([7; 32]), peers }
    }

    fn found(tunnel: &Tunnel) -> Device {
        let peer = tunnel.peers.values().next().unwrap();
        let peer = Peer {
            endpoint: peer.endpoint,
            allowed: peer.allowed.clone(),
            keepalive_seconds: 25,
            ..Peer::default()
        };
        Device {
            backend: Backend::Kernel,
            public_key: Some(keys::public(&[7; 32])),
            listen_port: 51_820,
            mark: 0,
            peers: BTreeMap::from([(ONE, peer)]),
        }
    }

    #[test]
    fn what_is_right_is_left_alone() {
        let tunnel = tunnel("192.0.2.1:7");
        let device = found(&tunnel);
        assert!(matches(&tunnel, &device));
        assert!(changes(&wanted(&tunnel), &device, true).is_empty());
    }

    #[test]
    fn a_peer_that_moved_is_not_called_back_until_its_endpoint_is_written_anew() {
        let (here, there) = (tunnel("192.0.2.1:7"), tunnel("192.0.2.2:7"));
        let device = found(&there);
        assert!(changes(&wanted(&here), &device, true).is_empty());
        let anew = changes(&wanted(&here), &device, false);
        assert!(anew.private_key.is_none());
        let [peer] = anew.peers.as_slice() else { panic!("one peer changes") };
        assert_eq!(peer.endpoint, "192.0.2.1:7".parse().ok());
        assert!(peer.allowed.is_none() && peer.keepalive_seconds.is_none() && !peer.remove);
    }

    #[test]
    fn a_peer_of_another_key_goes_before_its_successor_comes() {
        let tunnel = tunnel("192.0.2.1:7");
        let mut device = found(&tunnel);
        let peer = device.peers.remove(&ONE).unwrap();
        device.peers.insert(TWO, peer);
        assert!(!matches(&tunnel, &device));
        let changes = changes(&wanted(&tunnel), &device, true);
        let what: Vec<_> = changes.peers.iter().map(|peer| (peer.public_key, peer.remove)).collect();
        assert_eq!(what, [(TWO, true), (ONE, false)]);
        assert!(changes.peers[1].allowed.is_some() && changes.peers[1].endpoint.is_some());
    }

    #[test]
    fn the_alias_tells_configurations_apart() {
        let (one, other) = (tunnel("192.0.2.1:7"), tunnel("192.0.2.2:7"));
        let text = alias(&one, Backend::Kernel);
        assert!(is_written(&one, Backend::Kernel, &text), "{text}");
        assert!(!is_written(&other, Backend::Kernel, &text));
        assert!(!is_written(&one, Backend::Userspace, &text));
    }
}
