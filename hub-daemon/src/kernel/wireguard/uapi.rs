//! The configuration protocol of WireGuard's userspace implementations, over the unix socket of a process.

use std::fmt::{Display, Write as _};
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use nix::errno::Errno;
use zeroize::Zeroizing;

use super::keys::Key;
use super::{Backend, Changes, Device, Peer, WireguardError, hint};

/// How long a process may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks for everything.
pub(super) fn read(socket: &Path, link: &str) -> Result<Device, WireguardError> {
    let text = ask(socket, link, "read the state", "get=1\n\n")?;
    Ok(device(&text, Timestamp::now().as_duration().try_into().unwrap_or_default()))
}

/// Makes changes in one request.
pub(super) fn change(socket: &Path, link: &str, changes: &Changes) -> Result<(), WireguardError> {
    ask(socket, link, "change the configuration", &request(changes)).map(drop)
}

fn ask(socket: &Path, link: &str, intent: &'static str, request: &str) -> Result<String, WireguardError> {
    let exchange = || {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    let link = || link.to_owned();
    let text: String = exchange().map_err(|source| WireguardError::Ask { intent, link: link(), source })?;
    match text.lines().find_map(|line| line.strip_prefix("errno=")).map(str::parse) {
        Some(Ok(0)) => Ok(text),
        Some(Ok(number)) => {
            let errno = Errno::from_raw(number);
            Err(WireguardError::Refused { intent, link: link(), errno, hint: hint(errno) })
        }
        Some(Err(_)) | None => {
            let source = io::ErrorKind::UnexpectedEof.into();
            Err(WireguardError::Ask { intent, link: link(), source })
        }
    }
}

/// Reads an answer; `now` is the time since 1970. Lines that are unknown are of no interest.
fn device(text: &str, now: Duration) -> Device {
    let mut device = Device {
        backend: Backend::Userspace,
        public_key: None,
        listen_port: 0,
        mark: 0,
        peers: std::collections::BTreeMap::new(),
    };
    let mut current: Option<(Key, Peer)> = None;
    for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
        if key == "public_key" {
            device.peers.extend(current.take());
            current = key_from(value).map(|key| (key, Peer::default()));
        } else if let Some((_, peer)) = &mut current {
            of_peer(peer, key, value, now);
        } else {
            match key {
                "own_public_key" => device.public_key = key_from(value),
                "listen_port" => device.listen_port = value.parse().unwrap_or_default(),
                "fwmark" => device.mark = value.parse().unwrap_or_default(),
                _ => {}
            }
        }
    }
    device.peers.extend(current);
    device
}

fn of_peer(peer: &mut Peer, key: &str, value: &str, now: Duration) {
    match key {
        "endpoint" => peer.endpoint = value.parse().ok(),
        "allowed_ip" => peer.allowed.extend(value.parse::<IpNet>()),
        "persistent_keepalive_interval" => peer.keepalive_seconds = value.parse().unwrap_or_default(),
        "rx_bytes" => peer.received_bytes = value.parse().unwrap_or_default(),
        "tx_bytes" => peer.sent_bytes = value.parse().unwrap_or_default(),
        "last_handshake_time_sec" => {
            let at = value.parse().ok().filter(|seconds| *seconds != 0);
            peer.handshake_age = at.map(|seconds| now.saturating_sub(Duration::from_secs(seconds)));
        }
        "last_handshake_time_nsec" => {
            let part = Duration::from_nanos(value.parse().unwrap_or_default());
            peer.handshake_age = peer.handshake_age.map(|age| age.saturating_sub(part));
        }
        _ => {}
    }
}

/// Writes a request. It may hold private keys.
fn request(changes: &Changes) -> Zeroizing<String> {
    // Room for all, so that no copy of a key stays behind where the text grew.
    let room = 512
        + changes.peers.iter().map(|peer| 512 + 64 * peer.allowed.iter().flatten().count()).sum::<usize>();
    let mut text = Zeroizing::new(String::with_capacity(room));
    text.push_str("set=1\n");
    if let Some(key) = &changes.private_key {
        key_line(&mut text, "private_key", key);
    }
    if let Some(port) = changes.listen_port {
        line(&mut text, "listen_port", port);
    }
    if let Some(mark) = changes.mark {
        line(&mut text, "fwmark", mark);
    }
    for peer in &changes.peers {
        key_line(&mut text, "public_key", &peer.public_key);
        if peer.remove {
            line(&mut text, "remove", true);
            continue;
        }
        if let Some(key) = &peer.preshared_key {
            key_line(&mut text, "preshared_key", key);
        }
        if let Some(endpoint) = peer.endpoint {
            line(&mut text, "endpoint", endpoint);
        }
        if let Some(allowed) = &peer.allowed {
            line(&mut text, "replace_allowed_ips", true);
            for net in allowed {
                line(&mut text, "allowed_ip", net);
            }
        }
        // Last: a packet goes out when it is switched on.
        if let Some(seconds) = peer.keepalive_seconds {
            line(&mut text, "persistent_keepalive_interval", seconds);
        }
    }
    text.push('\n');
    text
}

fn line(text: &mut String, key: &str, value: impl Display) {
    writeln!(text, "{key}={value}").expect("a string takes any text");
}

fn key_line(text: &mut String, name: &str, key: &Key) {
    write!(text, "{name}=").expect("a string takes any text");
    for byte in key {
        write!(text, "{byte:02x}").expect("a string takes any text");
    }
    text.push('\n');
}

fn key_from(text: &str) -> Option<Key> {
    let mut key = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_as_it_was_written() {
        let (own, peer) = ("11".repeat(32), "22".repeat(32));
        let text = format!(
            "own_public_key={own}\nlisten_port=51820\nfwmark=7\npublic_key={peer}\nendpoint=[fd00::1]:9\n\
             last_handshake_time_sec=90\nlast_handshake_time_nsec=500000000\ntx_bytes=3\nrx_bytes=4\n\
             persistent_keepalive_interval=25\nallowed_ip=10.0.0.0/8\nallowed_ip=::/0\nerrno=0\n\n"
        );
        let found = device(&text, Duration::from_secs(100));
        assert_eq!((found.public_key, found.listen_port, found.mark), (Some([0x11; 32]), 51820, 7));
        let peer = &found.peers[&[0x22; 32]];
        assert_eq!(peer.endpoint, Some("[fd00::1]:9".parse().unwrap()));
        assert_eq!(peer.handshake_age, Some(Duration::from_millis(9_500)));
        assert_eq!((peer.sent_bytes, peer.received_bytes, peer.keepalive_seconds), (3, 4, 25));
        assert_eq!(peer.allowed.len(), 2);
    }

    #[test]
    fn a_peer_that_goes_has_no_other_lines() {
        let gone = super::super::PeerChanges {
            public_key: [1; 32],
            remove: true,
            endpoint: Some("127.0.0.1:1".parse().unwrap()),
            ..Default::default()
        };
        let changes = Changes { mark: Some(0), peers: vec![gone], ..Changes::default() };
        let key = "01".repeat(32);
        assert_eq!(*request(&changes), format!("set=1\nfwmark=0\npublic_key={key}\nremove=true\n\n"));
    }
}
