//! The configuration protocol's words: lines of `key=value`, an empty line at the end.

use std::net::SocketAddr;

use ipnet::IpNet;
use nix::errno::Errno;
use zeroize::Zeroizing;

/// A key of any kind.
pub(crate) type Key = [u8; 32];

/// What a client asks for.
pub(crate) enum Request {
    /// The configuration and what became of it.
    Get,
    /// Changes.
    Set(Changes),
}

/// Changes of a tunnel; what is `None` stays.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) private_key: Option<Zeroizing<Key>>,
    pub(crate) listen_port: Option<u16>,
    pub(crate) mark: Option<u32>,
    pub(crate) replace_peers: bool,
    pub(crate) peers: Vec<PeerChanges>,
}

/// Changes of one peer.
#[derive(Default)]
pub(crate) struct PeerChanges {
    pub(crate) public_key: Key,
    pub(crate) remove: bool,
    pub(crate) update_only: bool,
    pub(crate) preshared_key: Option<Zeroizing<Key>>,
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) keepalive_seconds: Option<u16>,
    pub(crate) replace_allowed: bool,
    pub(crate) allowed: Vec<IpNet>,
}

/// Reads a whole request.
pub(crate) fn parse(text: &str) -> Result<Request, Errno> {
    let mut lines = text.lines();
    match lines.next() {
        Some("get=1") => return Ok(Request::Get),
        Some("set=1") => {}
        _ => return Err(Errno::EPROTO),
    }
    let mut changes = Changes::default();
    for line in lines.take_while(|line| !line.is_empty()) {
        let (key, value) = line.split_once('=').ok_or(Errno::EPROTO)?;
        if key == "public_key" {
            changes.peers.push(PeerChanges { public_key: *key_from(value)?, ..PeerChanges::default() });
        } else if let Some(peer) = changes.peers.last_mut() {
            of_peer(peer, key, value)?;
        } else {
            of_device(&mut changes, key, value)?;
        }
    }
    Ok(Request::Set(changes))
}

fn of_device(changes: &mut Changes, key: &str, value: &str) -> Result<(), Errno> {
    match key {
        "private_key" => changes.private_key = Some(key_from(value)?),
        "listen_port" => changes.listen_port = Some(number(value)?),
        "fwmark" => changes.mark = Some(number(value)?),
        "replace_peers" => changes.replace_peers = flag(value)?,
        _ => return Err(Errno::EINVAL),
    }
    Ok(())
}

fn of_peer(peer: &mut PeerChanges, key: &str, value: &str) -> Result<(), Errno> {
    match key {
        "remove" => peer.remove = flag(value)?,
        "update_only" => peer.update_only = flag(value)?,
        "preshared_key" => peer.preshared_key = Some(key_from(value)?),
        "endpoint" => peer.endpoint = Some(number(value)?),
        "persistent_keepalive_interval" => peer.keepalive_seconds = Some(number(value)?),
        "replace_allowed_ips" => peer.replace_allowed = flag(value)?,
        "allowed_ip" => {
            let net: IpNet = number(value)?;
            peer.allowed.push(net.trunc());
        }
        "protocol_version" if value == "1" => {}
        _ => return Err(Errno::EINVAL),
    }
    Ok(())
}

fn flag(value: &str) -> Result<bool, Errno> {
    if value == "true" { Ok(true) } else { Err(Errno::EINVAL) }
}

fn number<T: std::str::FromStr>(value: &str) -> Result<T, Errno> {
    value.parse().map_err(|_unreadable| Errno::EINVAL)
}

/// A key as 64 hexadecimal digits.
fn key_from(text: &str) -> Result<Zeroizing<Key>, Errno> {
    let mut key = Zeroizing::new([0; 32]);
    if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(Errno::EINVAL);
    }
    for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = str::from_utf8(digits).map_err(|_no_text| Errno::EINVAL)?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_no_number| Errno::EINVAL)?;
    }
    Ok(key)
}

/// A key in hexadecimal digits.
pub(crate) fn hex(key: &Key) -> String {
    use std::fmt::Write as _;
    key.iter().fold(String::with_capacity(64), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes any text");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_collect_their_lines() {
        let (one, two) = ("11".repeat(32), "22".repeat(32));
        let text = format!(
            "set=1\nprivate_key={one}\nlisten_port=7\nreplace_peers=true\npublic_key={two}\n\
             endpoint=[2001:db8::1]:9\nallowed_ip=10.0.0.5/8\nallowed_ip=::/0\npublic_key={one}\nremove=true\n\n"
        );
        let Ok(Request::Set(changes)) = parse(&text) else { panic!("{text}") };
        assert_eq!((changes.listen_port, changes.replace_peers, changes.mark), (Some(7), true, None));
        assert_eq!(changes.private_key.as_deref(), Some(&[0x11; 32]));
        let [first, second] = changes.peers.as_slice() else { panic!("two peers") };
        assert_eq!(first.endpoint, Some("[2001:db8::1]:9".parse().unwrap()));
        assert_eq!(first.allowed, ["10.0.0.0/8".parse().unwrap(), "::/0".parse::<IpNet>().unwrap()]);
        assert!(second.remove && !first.remove);
        assert_eq!(hex(&first.public_key), two);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in
            ["", "get=2\n\n", "set=1\nlisten_port=x\n\n", "set=1\npublic_key=12\n\n", "set=1\nwords\n\n"]
        {
            assert!(parse(text).is_err(), "{text:?}");
        }
        let not_ascii = format!("set=1\nprivate_key={}\n\n", "é".repeat(32));
        assert!(parse(&not_ascii).is_err());
    }
}
