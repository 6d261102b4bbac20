//! One peer: its session, where it is, and what it may send.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use ipnet::IpNet;
use zeroize::Zeroizing;

use crate::clock;
use crate::request::Key;
use crate::sockets::Sockets;

/// First word of a cookie, the one message that is answered before it is known who sent what it answers.
const COOKIE: u8 = 3;

/// One peer.
pub(crate) struct Peer {
    tunn: Tunn,
    /// Where it was heard last, or is said to be.
    pub(crate) endpoint: Option<SocketAddr>,
    /// Addresses that are its.
    pub(crate) allowed: BTreeSet<IpNet>,
    /// Time between packets that keep the way open; zero sends none.
    pub(crate) keepalive: Duration,
    pub(crate) preshared_key: Option<Zeroizing<Key>>,
    /// The session's number; the last byte of what is on the wire counts handshakes.
    pub(crate) index: u32,
    /// When something was sent last.
    sent: Instant,
    shook_hands: Option<Instant>,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
}

impl Peer {
    /// A peer that nothing is known of.
    pub(crate) fn new(
        private: &StaticSecret,
        public: Key,
        preshared_key: Option<Zeroizing<Key>>,
        index: u32,
        limiter: &Arc<RateLimiter>,
    ) -> Self {
        let preshared = preshared_key.as_deref().copied();
        let limiter = Some(Arc::clone(limiter));
        // The keepalive of the library cannot be changed later: it is kept here.
        let tunn = Tunn::new(private.clone(), PublicKey::from(public), preshared, None, index, limiter);
        Self {
            tunn,
            endpoint: None,
            allowed: BTreeSet::new(),
            keepalive: Duration::ZERO,
            preshared_key,
            index,
            sent: clock::now(),
            shook_hands: None,
            received_bytes: 0,
            sent_bytes: 0,
        }
    }

    /// Ends all sessions: the next begin with this key.
    pub(crate) fn rekey(&mut self, private: &StaticSecret, public: PublicKey, limiter: &Arc<RateLimiter>) {
        self.tunn.set_static_private(private.clone(), public, Some(Arc::clone(limiter)));
        self.shook_hands = None;
    }

    /// Time since the last handshake.
    pub(crate) fn handshake_age(&self) -> Option<Duration> {
        self.tunn.time_since_last_handshake().or(self.shook_hands.map(|at| at.elapsed()))
    }

    /// Encrypts a packet of the host, or an empty one, and sends it. Without a session it waits for one.
    pub(crate) fn send(&mut self, packet: &[u8], sockets: &Sockets, buffer: &mut [u8]) {
        if let TunnResult::WriteToNetwork(bytes) = self.tunn.encapsulate(packet, buffer)
            && let Some(endpoint) = self.endpoint
        {
            sockets.send(bytes, endpoint);
            self.sent = clock::now();
            self.sent_bytes += bytes.len() as u64;
        }
    }

    /// Sends an empty packet, or begins a handshake, also where one waits for its next try.
    pub(crate) fn greet(&mut self, sockets: &Sockets, buffer: &mut [u8]) {
        if self.tunn.time_since_last_handshake().is_some() {
            return self.send(&[], sockets, buffer);
        }
        if let TunnResult::WriteToNetwork(bytes) = self.tunn.format_handshake_initiation(buffer, true)
            && let Some(endpoint) = self.endpoint
        {
            sockets.send(bytes, endpoint);
            self.sent = clock::now();
            self.sent_bytes += bytes.len() as u64;
        }
    }

    /// Decrypts a datagram. The packet in it goes to `deliver` if its sender's address is the peer's.
    pub(crate) fn receive(
        &mut self,
        datagram: &[u8],
        from: SocketAddr,
        sockets: &Sockets,
        buffer: &mut [u8],
        deliver: impl FnOnce(&[u8]),
    ) {
        let known = match self.tunn.decapsulate(Some(from.ip()), datagram, buffer) {
            TunnResult::Err(_) => return,
            TunnResult::WriteToNetwork(reply) => {
                let known = reply.first() != Some(&COOKIE);
                sockets.send(reply, from);
                self.sent = clock::now();
                self.sent_bytes += reply.len() as u64;
                known
            }
            TunnResult::WriteToTunnelV4(packet, source) => {
                self.hand_over(packet, source.into(), deliver);
                true
            }
            TunnResult::WriteToTunnelV6(packet, source) => {
                self.hand_over(packet, source.into(), deliver);
                true
            }
            TunnResult::Done => true,
        };
        if !known {
            return;
        }
        self.received_bytes += datagram.len() as u64;
        // Whoever holds the key may move.
        self.endpoint = Some(from);
        // What waited for the session.
        while let TunnResult::WriteToNetwork(bytes) = self.tunn.decapsulate(None, &[], buffer) {
            sockets.send(bytes, from);
            self.sent = clock::now();
            self.sent_bytes += bytes.len() as u64;
        }
    }

    fn hand_over(&self, packet: &[u8], source: IpAddr, deliver: impl FnOnce(&[u8])) {
        if self.allowed.iter().any(|net| net.contains(&source)) {
            deliver(packet);
        }
    }

    /// Sends what is due: handshakes again, new keys in time, packets that keep the way open.
    pub(crate) fn tick(&mut self, sockets: &Sockets, buffer: &mut [u8]) {
        if let Some(age) = self.tunn.time_since_last_handshake() {
            self.shook_hands = clock::now().checked_sub(age);
        }
        if let TunnResult::WriteToNetwork(bytes) = self.tunn.update_timers(buffer)
            && let Some(endpoint) = self.endpoint
        {
            sockets.send(bytes, endpoint);
            self.sent = clock::now();
            self.sent_bytes += bytes.len() as u64;
        }
        if !self.keepalive.is_zero() && self.sent.elapsed() >= self.keepalive {
            self.sent = clock::now();
            self.send(&[], sockets, buffer);
        }
    }
}
