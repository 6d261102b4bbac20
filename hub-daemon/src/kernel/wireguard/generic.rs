//! WireGuard of the kernel, over generic netlink.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr as NetlinkAddress};
use nix::errno::Errno;
use zeroize::Zeroizing;

use super::{Backend, Changes, Device, Peer, PeerChanges, WireguardError, hint};
use crate::kernel::netlink::packets;

/// `GENL_ID_CTRL`, its command to look a family up, and the attributes of that.
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// `WG_CMD_GET_DEVICE`, `WG_CMD_SET_DEVICE`
const GET_DEVICE: u8 = 0;
const SET_DEVICE: u8 = 1;
/// `WGDEVICE_A_*`
const NAME: u16 = 2;
const PRIVATE_KEY: u16 = 3;
const OWN_PUBLIC_KEY: u16 = 4;
const LISTEN_PORT: u16 = 6;
const MARK: u16 = 7;
const PEERS: u16 = 8;
/// `WGPEER_A_*`
const PUBLIC_KEY: u16 = 1;
const PRESHARED_KEY: u16 = 2;
const FLAGS: u16 = 3;
const ENDPOINT: u16 = 4;
const KEEPALIVE: u16 = 5;
const HANDSHAKE: u16 = 6;
const RECEIVED: u16 = 7;
const SENT: u16 = 8;
const ALLOWED: u16 = 9;
/// `WGPEER_F_REMOVE_ME`, `WGPEER_F_REPLACE_ALLOWEDIPS`
const REMOVE: u32 = 1;
const REPLACE_ALLOWED: u32 = 2;
/// `WGALLOWEDIP_A_*`
const FAMILY: u16 = 1;
const ADDRESS: u16 = 2;
const PREFIX: u16 = 3;
/// `NLA_F_NESTED`
const NESTED: u16 = 1 << 15;
/// Bytes of the netlink header, and of the generic one behind it.
const HEADER_BYTES: usize = 16;
const GENERIC_BYTES: usize = 4;
/// `NLMSG_ERROR`, `NLMSG_DONE`
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Larger than any datagram of a dump.
const BUFFER_BYTES: usize = 64 * 1024;

/// Reads a device of the calling thread's namespace.
pub(super) fn read(link: &str) -> Result<Device, WireguardError> {
    let intent = "read the state";
    let answer = Generic::open().and_then(|mut generic| {
        let family = generic.family()?;
        let mut attributes = Attributes::default();
        attributes.put(NAME, &[link.as_bytes(), &[0]].concat());
        generic.ask(family, NLM_F_DUMP, GET_DEVICE, &attributes.0)
    });
    let now = Timestamp::now().as_duration().try_into().unwrap_or_default();
    answer.map(|messages| device(&messages, now)).map_err(|source| failure(intent, link, source))
}

/// Changes a device of the calling thread's namespace.
pub(super) fn change(link: &str, changes: &Changes) -> Result<(), WireguardError> {
    let intent = "change the configuration";
    let attributes = attributes(link, changes);
    let answer = Generic::open().and_then(|mut generic| {
        let family = generic.family()?;
        generic.ask(family, NLM_F_ACK, SET_DEVICE, &attributes.0)
    });
    answer.map(drop).map_err(|source| failure(intent, link, source))
}

fn failure(intent: &'static str, link: &str, source: io::Error) -> WireguardError {
    let link = link.to_owned();
    match source.raw_os_error().map(Errno::from_raw) {
        Some(errno) => WireguardError::Refused { intent, link, errno, hint: hint(errno) },
        None => WireguardError::Ask { intent, link, source },
    }
}

struct Generic {
    socket: Socket,
    sequence: u32,
}

impl Generic {
    fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The number of the family, which differs from boot to boot.
    fn family(&mut self) -> io::Result<u16> {
        let mut attributes = Attributes::default();
        attributes.put(FAMILY_NAME, b"wireguard\0");
        let answer = self.ask(CONTROLLER, NLM_F_ACK, GET_FAMILY, &attributes.0)?;
        answer
            .iter()
            .flat_map(|message| each(message))
            .find_map(|(kind, value)| (kind == FAMILY_ID).then(|| fixed(value).map(u16::from_ne_bytes))?)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Asks and reads until the acknowledgement or the end of the dump: attributes of each message.
    fn ask(&mut self, kind: u16, flags: u16, command: u8, attributes: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        self.sequence += 1;
        let length = HEADER_BYTES + GENERIC_BYTES + attributes.len();
        let mut request = Zeroizing::new(Vec::with_capacity(length));
        request.extend((length as u32).to_ne_bytes());
        request.extend(kind.to_ne_bytes());
        request.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        request.extend(self.sequence.to_ne_bytes());
        request.extend(0_u32.to_ne_bytes());
        request.extend([command, 1, 0, 0]);
        request.extend(attributes);
        self.socket.send_to(&request, &NetlinkAddress::new(0, 0), 0)?;
        let mut messages = Vec::new();
        loop {
            // It may hold a private key.
            let mut buffer = Zeroizing::new(Vec::with_capacity(BUFFER_BYTES));
            self.socket.recv(&mut *buffer, 0)?;
            for packet in packets(&buffer) {
                let sequence = packet.get(8..).and_then(fixed).map(u32::from_ne_bytes);
                if sequence != Some(self.sequence) {
                    continue;
                }
                let kind = packet.get(4..).and_then(fixed).map(u16::from_ne_bytes);
                let body = packet.get(HEADER_BYTES..).unwrap_or_default();
                if matches!(kind, Some(ERROR | DONE)) {
                    let code = fixed(body).map_or(0, i32::from_ne_bytes);
                    return if code == 0 {
                        Ok(messages)
                    } else {
                        Err(io::Error::from_raw_os_error(code.abs()))
                    };
                }
                messages.push(body.get(GENERIC_BYTES..).unwrap_or_default().to_vec());
            }
        }
    }
}

/// Attributes of a message.
fn each(attributes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut left = attributes;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(fixed(left)?));
        let kind = u16::from_ne_bytes(fixed(left.get(2..)?)?) & !NESTED;
        let value = left.get(4..length)?;
        left = left.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn fixed<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.first_chunk().copied()
}

fn device(messages: &[Vec<u8>], now: Duration) -> Device {
    let mut device = Device {
        backend: Backend::Kernel,
        public_key: None,
        listen_port: 0,
        mark: 0,
        peers: std::collections::BTreeMap::new(),
    };
    for (kind, value) in messages.iter().flat_map(|message| each(message)) {
        match kind {
            OWN_PUBLIC_KEY => device.public_key = fixed(value),
            LISTEN_PORT => device.listen_port = fixed(value).map_or(0, u16::from_ne_bytes),
            MARK => device.mark = fixed(value).map_or(0, u32::from_ne_bytes),
            PEERS => each(value).for_each(|(_, peer)| of_peer(&mut device, peer, now)),
            _ => {}
        }
    }
    device
}

/// A peer with many addresses comes in several parts.
fn of_peer(device: &mut Device, attributes: &[u8], now: Duration) {
    let key = each(attributes).find_map(|(kind, value)| (kind == PUBLIC_KEY).then(|| fixed(value))?);
    let Some(key) = key else { return };
    let peer: &mut Peer = device.peers.entry(key).or_default();
    for (kind, value) in each(attributes) {
        match kind {
            ENDPOINT => peer.endpoint = endpoint(value),
            KEEPALIVE => peer.keepalive_seconds = fixed(value).map_or(0, u16::from_ne_bytes),
            RECEIVED => peer.received_bytes = fixed(value).map_or(0, u64::from_ne_bytes),
            SENT => peer.sent_bytes = fixed(value).map_or(0, u64::from_ne_bytes),
            HANDSHAKE => {
                let number = |bytes: Option<&[u8]>| bytes.and_then(fixed).map_or(0, u64::from_ne_bytes);
                let (seconds, nanos) = (number(Some(value)), number(value.get(8..)));
                let at = Duration::from_secs(seconds) + Duration::from_nanos(nanos);
                peer.handshake_age = (!at.is_zero()).then(|| now.saturating_sub(at));
            }
            ALLOWED => peer.allowed.extend(each(value).filter_map(|(_, net)| allowed(net))),
            _ => {}
        }
    }
}

/// `struct sockaddr_in` or `struct sockaddr_in6`.
fn endpoint(bytes: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(fixed(bytes.get(2..)?)?);
    let ip = match i32::from(u16::from_ne_bytes(fixed(bytes)?)) {
        libc::AF_INET => IpAddr::V4(Ipv4Addr::from(fixed::<4>(bytes.get(4..)?)?)),
        libc::AF_INET6 => IpAddr::V6(Ipv6Addr::from(fixed::<16>(bytes.get(8..)?)?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

fn allowed(attributes: &[u8]) -> Option<IpNet> {
    let of = |wanted: u16| each(attributes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let address = of(ADDRESS)?;
    let ip = match address.len() {
        4 => IpAddr::V4(Ipv4Addr::from(fixed::<4>(address)?)),
        _ => IpAddr::V6(Ipv6Addr::from(fixed::<16>(address)?)),
    };
    IpNet::new(ip, *of(PREFIX)?.first()?).ok()
}

/// Attributes that are being written. They may hold a private key.
#[derive(Default)]
struct Attributes(Zeroizing<Vec<u8>>);

impl Attributes {
    fn put(&mut self, kind: u16, value: &[u8]) {
        // Lengths of single values; nested ones are measured by `nest`.
        self.0.extend(((4 + value.len()) as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        let padded = self.0.len().next_multiple_of(4);
        self.0.resize(padded, 0);
    }

    fn nest(&mut self, kind: u16, inner: &Self) {
        self.put(kind | NESTED, &inner.0);
    }
}

fn attributes(link: &str, changes: &Changes) -> Attributes {
    let mut whole = Attributes::default();
    whole.put(NAME, &[link.as_bytes(), &[0]].concat());
    if let Some(key) = &changes.private_key {
        whole.put(PRIVATE_KEY, key.as_slice());
    }
    if let Some(port) = changes.listen_port {
        whole.put(LISTEN_PORT, &port.to_ne_bytes());
    }
    if let Some(mark) = changes.mark {
        whole.put(MARK, &mark.to_ne_bytes());
    }
    if !changes.peers.is_empty() {
        let mut peers = Attributes::default();
        for peer in &changes.peers {
            peers.nest(0, &peer_attributes(peer));
        }
        whole.nest(PEERS, &peers);
    }
    whole
}

fn peer_attributes(peer: &PeerChanges) -> Attributes {
    let mut whole = Attributes::default();
    whole.put(PUBLIC_KEY, &peer.public_key);
    let flags =
        if peer.remove { REMOVE } else { 0 } | if peer.allowed.is_some() { REPLACE_ALLOWED } else { 0 };
    whole.put(FLAGS, &flags.to_ne_bytes());
    if peer.remove {
        return whole;
    }
    if let Some(key) = &peer.preshared_key {
        whole.put(PRESHARED_KEY, key.as_slice());
    }
    if let Some(endpoint) = peer.endpoint {
        whole.put(ENDPOINT, &socket_address(endpoint));
    }
    if let Some(seconds) = peer.keepalive_seconds {
        whole.put(KEEPALIVE, &seconds.to_ne_bytes());
    }
    if let Some(nets) = &peer.allowed {
        let mut all = Attributes::default();
        for net in nets {
            let mut one = Attributes::default();
            match net.addr() {
                IpAddr::V4(ip) => {
                    one.put(FAMILY, &(libc::AF_INET as u16).to_ne_bytes());
                    one.put(ADDRESS, &ip.octets());
                }
                IpAddr::V6(ip) => {
                    one.put(FAMILY, &(libc::AF_INET6 as u16).to_ne_bytes());
                    one.put(ADDRESS, &ip.octets());
                }
            }
            one.put(PREFIX, &[net.prefix_len()]);
            all.nest(0, &one);
        }
        whole.nest(ALLOWED, &all);
    }
    whole
}

/// `struct sockaddr_in` or `struct sockaddr_in6`.
fn socket_address(endpoint: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(28);
    match endpoint {
        SocketAddr::V4(endpoint) => {
            bytes.extend((libc::AF_INET as u16).to_ne_bytes());
            bytes.extend(endpoint.port().to_be_bytes());
            bytes.extend(endpoint.ip().octets());
            bytes.extend([0; 8]);
        }
        SocketAddr::V6(endpoint) => {
            bytes.extend((libc::AF_INET6 as u16).to_ne_bytes());
            bytes.extend(endpoint.port().to_be_bytes());
            bytes.extend(endpoint.flowinfo().to_be_bytes());
            bytes.extend(endpoint.ip().octets());
            bytes.extend(endpoint.scope_id().to_ne_bytes());
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written is read back as the kernel would: the same attributes mean the same in both directions.
    #[test]
    fn attributes_are_read_as_they_are_written() {
        for at in ["192.0.2.1:7", "[2001:db8::1]:65535"] {
            let peer = PeerChanges {
                public_key: [9; 32],
                endpoint: Some(at.parse().unwrap()),
                keepalive_seconds: Some(25),
                allowed: Some(["10.0.0.0/8", "::/0"].map(|net| net.parse().unwrap()).into()),
                ..PeerChanges::default()
            };
            let changes =
                Changes { listen_port: Some(51_820), mark: Some(3), peers: vec![peer], ..Changes::default() };
            let bytes = attributes("hubw1a", &changes).0.to_vec();
            let found = device(&[bytes], Duration::ZERO);
            assert_eq!((found.listen_port, found.mark), (51_820, 3));
            let peer = &found.peers[&[9; 32]];
            assert_eq!(peer.endpoint, Some(at.parse().unwrap()));
            assert_eq!((peer.keepalive_seconds, peer.allowed.len()), (25, 2));
        }
    }
}
