//! The tunnel: peers, the loop that moves packets, and changes between two packets.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use ipnet::IpNet;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::api::{Asked, Requests, errno_line};
use crate::clock;
use crate::peer::Peer;
use crate::request::{Changes, Key, PeerChanges, Request, hex};
use crate::sockets::Sockets;
use crate::tun::Tun;

/// Time between looks at what is due.
const TICK: Duration = Duration::from_millis(250);
/// The count of handshakes begins anew this often.
const LIMIT_PERIOD: Duration = Duration::from_secs(1);
/// Handshakes in that time before cookies are asked for: 100, each of which is looked at twice.
const HANDSHAKES: u64 = 200;
/// Packets taken from one side before the other has its turn.
const BATCH: usize = 64;
/// Longest packet, and what encryption adds.
const BUFFER_BYTES: usize = 65_536 + 64;

/// A tunnel.
pub(crate) struct Device {
    tun: Tun,
    requests: Requests,
    sockets: Sockets,
    mark: u32,
    key: Option<OwnKey>,
    peers: BTreeMap<Key, Peer>,
    by_index: BTreeMap<u32, Key>,
    /// Whose addresses are whose, longest prefix first.
    routes: Vec<(IpNet, Key)>,
    last_index: u32,
}

struct OwnKey {
    private: StaticSecret,
    public: PublicKey,
    limiter: Arc<RateLimiter>,
}

struct Buffers {
    packet: Vec<u8>,
    work: Vec<u8>,
}

impl Device {
    /// A tunnel without a key, which drops everything.
    pub(crate) fn new(tun: Tun, requests: Requests) -> io::Result<Self> {
        Ok(Self {
            tun,
            requests,
            sockets: Sockets::open(0, 0)?,
            mark: 0,
            key: None,
            peers: BTreeMap::new(),
            by_index: BTreeMap::new(),
            routes: Vec::new(),
            last_index: 0,
        })
    }

    /// Moves packets until the device is deleted.
    pub(crate) fn run(mut self) -> anyhow::Result<()> {
        let mut buffers = Buffers { packet: vec![0; BUFFER_BYTES], work: vec![0; BUFFER_BYTES] };
        let (mut ticked, mut counted) = (clock::now(), clock::now());
        loop {
            self.wait(ticked).context("wait for packets")?;
            if !self.take_from_host(&mut buffers).context("read the TUN device")? {
                return Ok(());
            }
            self.take_from_network(&mut buffers);
            self.answer(&mut buffers);
            if ticked.elapsed() >= TICK {
                ticked = clock::now();
                for peer in self.peers.values_mut() {
                    peer.tick(&self.sockets, &mut buffers.work);
                }
            }
            if counted.elapsed() >= LIMIT_PERIOD {
                counted = clock::now();
                if let Some(key) = &self.key {
                    key.limiter.reset_count();
                }
            }
        }
    }

    /// Waits until there is something to do.
    fn wait(&self, ticked: Instant) -> nix::Result<()> {
        let mut waited: Vec<PollFd<'_>> = [self.tun.as_fd(), self.requests.bell.as_fd()]
            .into_iter()
            .chain(self.sockets.each().map(|socket| socket.as_fd()))
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        let left = TICK.saturating_sub(ticked.elapsed());
        let left = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::ZERO);
        match poll(&mut waited, left) {
            Err(Errno::EINTR) | Ok(_) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Sends packets of the host; whether the device is still there.
    fn take_from_host(&mut self, buffers: &mut Buffers) -> io::Result<bool> {
        for _ in 0..BATCH {
            let packet = match self.tun.read(&mut buffers.packet) {
                Ok(Some(packet)) => packet,
                Ok(None) => return Ok(true),
                Err(error) if error.raw_os_error() == Some(libc::EBADFD) => return Ok(false),
                // The device is down.
                Err(error) if error.raw_os_error() == Some(libc::EIO) => return Ok(true),
                Err(error) => return Err(error),
            };
            let Some(target) = Tunn::dst_address(packet) else { continue };
            let Some(peer) = whose(&self.routes, target).and_then(|key| self.peers.get_mut(&key)) else {
                continue;
            };
            peer.send(packet, &self.sockets, &mut buffers.work);
        }
        Ok(true)
    }

    /// Takes packets of peers.
    fn take_from_network(&mut self, buffers: &mut Buffers) {
        let Some(key) = &self.key else { return };
        for socket in self.sockets.each() {
            for _ in 0..BATCH {
                let Ok((length, from)) = socket.recv_from(&mut buffers.packet) else { break };
                let datagram = buffers.packet.get(..length).unwrap_or_default();
                let Some(peer) =
                    sender(key, &self.by_index, &self.sockets, datagram, from, &mut buffers.work)
                        .and_then(|public| self.peers.get_mut(&public))
                else {
                    continue;
                };
                peer.receive(datagram, from, &self.sockets, &mut buffers.work, |packet| {
                    self.tun.write(packet);
                });
            }
        }
    }

    fn answer(&mut self, buffers: &mut Buffers) {
        let mut rings = [0; 64];
        while matches!((&self.requests.bell).read(&mut rings), Ok(1..)) {}
        while let Ok(Asked { request, answer }) = self.requests.asked.try_recv() {
            let said = match request {
                Request::Get => self.describe(),
                Request::Set(changes) => errno_line(self.change(changes, buffers).err()),
            };
            // Who asked may have gone.
            drop(answer.send(said));
        }
    }

    /// The configuration, without the private key: it never leaves the process.
    fn describe(&self) -> String {
        let mut text = String::new();
        if let Some(key) = &self.key {
            line(&mut text, "own_public_key", hex(key.public.as_bytes()));
        }
        line(&mut text, "listen_port", self.sockets.port());
        line(&mut text, "fwmark", self.mark);
        for (public, peer) in &self.peers {
            line(&mut text, "public_key", hex(public));
            line(&mut text, "protocol_version", 1);
            if let Some(endpoint) = peer.endpoint {
                line(&mut text, "endpoint", endpoint);
            }
            let handshake = peer.handshake_age().map_or(Duration::ZERO, clock::wall);
            line(&mut text, "last_handshake_time_sec", handshake.as_secs());
            line(&mut text, "last_handshake_time_nsec", handshake.subsec_nanos());
            line(&mut text, "tx_bytes", peer.sent_bytes);
            line(&mut text, "rx_bytes", peer.received_bytes);
            line(&mut text, "persistent_keepalive_interval", peer.keepalive.as_secs());
            for net in &peer.allowed {
                line(&mut text, "allowed_ip", net);
            }
        }
        text + &errno_line(None)
    }

    fn change(&mut self, changes: Changes, buffers: &mut Buffers) -> Result<(), Errno> {
        if changes.listen_port.is_some_and(|port| port == 0 || port != self.sockets.port()) {
            let port = changes.listen_port.unwrap_or_default();
            self.sockets = Sockets::open(port, changes.mark.unwrap_or(self.mark)).map_err(|e| errno(&e))?;
        }
        if let Some(mark) = changes.mark.filter(|mark| *mark != self.mark) {
            self.sockets.mark(mark).map_err(|error| errno(&error))?;
            self.mark = mark;
        }
        if let Some(private) = changes.private_key {
            self.rekey(StaticSecret::from(*private));
        }
        if changes.replace_peers {
            self.peers.clear();
            self.by_index.clear();
        }
        for peer in changes.peers {
            self.change_peer(peer, buffers)?;
        }
        self.routes =
            self.peers.iter().flat_map(|(key, peer)| peer.allowed.iter().map(|net| (*net, *key))).collect();
        self.routes.sort_by_key(|(net, _)| std::cmp::Reverse(net.prefix_len()));
        Ok(())
    }

    fn rekey(&mut self, private: StaticSecret) {
        let public = PublicKey::from(&private);
        if self.key.as_ref().is_some_and(|key| key.public == public) {
            return;
        }
        let limiter = Arc::new(RateLimiter::new(&public, HANDSHAKES));
        for peer in self.peers.values_mut() {
            peer.rekey(&private, public, &limiter);
        }
        self.key = Some(OwnKey { private, public, limiter });
    }

    fn change_peer(&mut self, changes: PeerChanges, buffers: &mut Buffers) -> Result<(), Errno> {
        let public = changes.public_key;
        let key = self.key.as_ref().ok_or(Errno::ENOKEY)?;
        // Itself is no peer, as the kernel says too.
        if changes.remove || *key.public.as_bytes() == public {
            if let Some(gone) = self.peers.remove(&public) {
                self.by_index.remove(&gone.index);
            }
            return Ok(());
        }
        let known = self.peers.get(&public);
        if known.is_none() && changes.update_only {
            return Ok(());
        }
        // Zeros take a key away.
        let preshared = changes.preshared_key.map(|key| Some(key).filter(|key| **key != [0; 32]));
        let same = known.is_some_and(|peer| preshared.as_ref().is_none_or(|key| *key == peer.preshared_key));
        if !same {
            let preshared = preshared.flatten();
            self.last_index = (self.last_index + 1) & 0x00ff_ffff;
            let mut peer = Peer::new(&key.private, public, preshared, self.last_index, &key.limiter);
            if let Some(old) = self.peers.remove(&public) {
                self.by_index.remove(&old.index);
                (peer.endpoint, peer.allowed, peer.keepalive) = (old.endpoint, old.allowed, old.keepalive);
            }
            self.by_index.insert(peer.index, public);
            self.peers.insert(public, peer);
        }
        if changes.replace_allowed
            && let Some(peer) = self.peers.get_mut(&public)
        {
            peer.allowed.clear();
        }
        for net in changes.allowed {
            // An address belongs to one peer: to the one that was given it last.
            for (other, peer) in &mut self.peers {
                if *other == public {
                    peer.allowed.insert(net)
                } else {
                    peer.allowed.remove(&net)
                };
            }
        }
        let Some(peer) = self.peers.get_mut(&public) else { return Ok(()) };
        peer.endpoint = changes.endpoint.or(peer.endpoint);
        if let Some(seconds) = changes.keepalive_seconds {
            let was = std::mem::replace(&mut peer.keepalive, Duration::from_secs(seconds.into()));
            if was.is_zero() && seconds != 0 {
                peer.greet(&self.sockets, &mut buffers.work);
            }
        }
        Ok(())
    }
}

/// The peer with the longest prefix that holds an address.
fn whose(routes: &[(IpNet, Key)], address: IpAddr) -> Option<Key> {
    routes.iter().find(|(net, _)| net.contains(&address)).map(|(_, key)| *key)
}

/// Who sent a datagram, as far as it says so; asks for a cookie when there are too many handshakes.
fn sender(
    key: &OwnKey,
    by_index: &BTreeMap<u32, Key>,
    sockets: &Sockets,
    datagram: &[u8],
    from: SocketAddr,
    work: &mut [u8],
) -> Option<Key> {
    let of = |index: u32| by_index.get(&(index >> 8)).copied();
    match key.limiter.verify_packet(Some(from.ip()), datagram, work) {
        Ok(Packet::HandshakeInit(init)) => {
            Some(parse_handshake_anon(&key.private, &key.public, &init).ok()?.peer_static_public)
        }
        Ok(Packet::HandshakeResponse(packet)) => of(packet.receiver_idx),
        Ok(Packet::PacketCookieReply(packet)) => of(packet.receiver_idx),
        Ok(Packet::PacketData(packet)) => of(packet.receiver_idx),
        Err(TunnResult::WriteToNetwork(cookie)) => {
            sockets.send(cookie, from);
            None
        }
        Err(_) => None,
    }
}

fn line(text: &mut String, key: &str, value: impl std::fmt::Display) {
    writeln!(text, "{key}={value}").expect("a string takes any text");
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}
