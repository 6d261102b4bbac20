//! The tunnel of a personality. Keys stay in their files.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use crate::desired::interfaces::{TunnelBackend, TunnelPeer};
use crate::document::personality::{TunnelDocument, TunnelPeerDocument};
use crate::model::problems::Problems;
use crate::model::{names, prefix};

/// Largest packet of a tunnel whose outer packets have 1500 bytes and either family (WireGuard's default).
const MTU: u32 = 1_420;
const MTUS: std::ops::RangeInclusive<u32> = 1_280..=9_216;
const PEERS: usize = 64;
/// Messages that say so are shown without the line that they are about.
pub const SECRET: &str = "secrets are never written into documents";

/// A checked tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersonalityTunnel {
    /// Name of its link, if the document names one.
    pub interface: Option<String>,
    /// Who encrypts.
    pub backend: TunnelBackend,
    /// File with the private key.
    pub private_key_file: PathBuf,
    /// UDP port that it listens on.
    pub listen_port: Option<u16>,
    /// Addresses of the link.
    pub addresses: BTreeSet<IpNet>,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// The other ends, by public key.
    pub peers: BTreeMap<String, TunnelPeer>,
}

impl PersonalityTunnel {
    /// Checks `vpn_tunnel_config`; problems point below it.
    pub(super) fn new(problems: &mut Problems, document: &TunnelDocument) -> Self {
        let base = "/vpn_tunnel_config";
        if let Some(name) = &document.interface {
            problems.take(&format!("{base}/interface"), names::interface(name));
        }
        if document.private_key.is_some() {
            let detail = format!("{SECRET}: put the key into a file, and name it by `private_key_file`");
            problems.add(format!("{base}/private_key"), detail);
        }
        file(problems, &format!("{base}/private_key_file"), &document.private_key_file);
        if document.listen_port == Some(0) {
            problems.add(format!("{base}/listen_port"), "port 0: use 1 to 65535, or leave it out");
        }
        let mtu = document.mtu.unwrap_or(MTU);
        if !MTUS.contains(&mtu) {
            let detail = format!("mtu {mtu}: use {} to {} bytes", MTUS.start(), MTUS.end());
            problems.add(format!("{base}/mtu"), detail);
        }
        let written = document.addresses.as_deref().unwrap_or_default();
        let addresses = written.iter().enumerate().filter_map(|(index, text)| {
            problems.take(&format!("{base}/addresses/{index}"), prefix::placed(text))
        });
        Self {
            interface: document.interface.clone(),
            backend: document.backend.unwrap_or_default(),
            private_key_file: document.private_key_file.clone(),
            listen_port: document.listen_port,
            addresses: addresses.collect(),
            mtu,
            peers: peers(problems, &document.peers),
        }
    }
}

fn peers(problems: &mut Problems, written: &[TunnelPeerDocument]) -> BTreeMap<String, TunnelPeer> {
    let list = "/vpn_tunnel_config/peers";
    if written.is_empty() {
        problems.add(list, "a peer is missing: a tunnel has another end");
    }
    if written.len() > PEERS {
        problems.add(list, format!("{} peers: use at most {PEERS}", written.len()));
    }
    let mut peers = BTreeMap::new();
    for (index, document) in written.iter().enumerate() {
        let base = format!("{list}/{index}");
        let peer = peer(problems, &base, document);
        if !is_key(&document.public_key) {
            let detail = "no public key: use what `wg pubkey` prints, 44 letters of base64";
            problems.add(format!("{base}/public_key"), detail);
        } else if peers.insert(document.public_key.clone(), peer).is_some() {
            problems.add(format!("{base}/public_key"), "another peer has this key");
        }
    }
    peers
}

fn peer(problems: &mut Problems, base: &str, document: &TunnelPeerDocument) -> TunnelPeer {
    if document.preshared_key.is_some() {
        let detail = format!("{SECRET}: put the key into a file, and name it by `preshared_key_file`");
        problems.add(format!("{base}/preshared_key"), detail);
    }
    if let Some(path) = &document.preshared_key_file {
        file(problems, &format!("{base}/preshared_key_file"), path);
    }
    let endpoint = document.endpoint.as_ref().and_then(|text| {
        let parsed = text.parse::<SocketAddr>().map_err(|_format| {
            format!(
                "endpoint `{text}`: use an address and a port, like 192.0.2.1:51820 or [2001:db8::1]:51820"
            )
        });
        problems.take(&format!("{base}/endpoint"), parsed)
    });
    if document.allowed_ips.is_empty() {
        let detail = "the list is empty: name what the peer may send, for example 0.0.0.0/0";
        problems.add(format!("{base}/allowed_ips"), detail);
    }
    let allowed = document.allowed_ips.iter().enumerate().filter_map(|(index, text)| {
        problems.take(&format!("{base}/allowed_ips/{index}"), prefix::matched(text))
    });
    TunnelPeer {
        endpoint,
        allowed: allowed.collect(),
        keepalive_seconds: document.keepalive.unwrap_or_default(),
        preshared_key_file: document.preshared_key_file.clone(),
    }
}

fn file(problems: &mut Problems, pointer: &str, path: &Path) {
    if path.as_os_str().is_empty() {
        problems.add(pointer, "a file is missing: name the one that has the key");
    } else if !path.is_absolute() {
        problems.add(pointer, format!("file `{}`: use an absolute path", path.display()));
    }
}

/// Whether a text is 32 bytes in base64: of the last letter but the `=` only four bits count.
fn is_key(text: &str) -> bool {
    let letter = |letter: u8| letter.is_ascii_alphanumeric() || matches!(letter, b'+' | b'/');
    let Some(letters) = text.strip_suffix('=') else { return false };
    letters.len() == 43
        && letters.bytes().all(letter)
        && letters.ends_with(|last| "AEIMQUYcgkosw048".contains(last))
}
