//! Connections and fragments that are remembered, in lists that are searched from the front.

use std::net::IpAddr;

use super::{Headers, icmp};
use crate::packet::flags::{ACK, FIN, RST, SYN};

/// A connection as the sender of one of its packets sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// Sender.
    pub source: IpAddr,
    /// Receiver.
    pub target: IpAddr,
    /// IP protocol.
    pub protocol: u8,
    /// Port, or ICMP identifier, or 0.
    pub source_port: u16,
    /// Port, or ICMP identifier, or 0.
    pub target_port: u16,
    /// Type of the ICMP request, or 0.
    pub kind: u8,
}

impl Tuple {
    /// The connection that a packet belongs to.
    pub fn of(packet: &Headers) -> Self {
        let kind =
            if packet.is_icmp() { icmp::conversation(packet.source.is_ipv4(), packet.icmp_type) } else { 0 };
        Self {
            source: packet.source,
            target: packet.target,
            protocol: packet.protocol,
            source_port: packet.source_port,
            target_port: packet.target_port,
            kind,
        }
    }

    /// The same connection as the other end sees it.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self {
            source: self.target,
            target: self.source,
            source_port: self.target_port,
            target_port: self.source_port,
            ..self
        }
    }
}

/// What a connection has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// TCP: the opener has not acknowledged an answer yet.
    Opening,
    /// TCP: both ends acknowledged.
    Open,
    /// TCP: one end said FIN.
    Closing,
    /// TCP: both ends said FIN, or one said RST.
    Closed,
    /// Other protocols: one direction seen.
    OneWay,
    /// Other protocols: both directions seen.
    TwoWay,
    /// ICMP.
    Icmp,
}

/// Ticks without a packet after which things are forgotten.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// TCP whose opener has not acknowledged an answer.
    pub opening: u64,
    /// TCP.
    pub open: u64,
    /// TCP after one FIN.
    pub closing: u64,
    /// TCP after both FINs or a RST.
    pub closed: u64,
    /// Others in one direction.
    pub one_way: u64,
    /// Others in both directions.
    pub two_way: u64,
    /// ICMP.
    pub icmp: u64,
    /// First fragments, from their arrival.
    pub fragment: u64,
}

impl Default for Timeouts {
    /// One tick is a second.
    fn default() -> Self {
        Self {
            opening: 30,
            open: 7_440,
            closing: 120,
            closed: 10,
            one_way: 30,
            two_way: 180,
            icmp: 60,
            fragment: 30,
        }
    }
}

/// What admitted a flow, per end.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// Segments.
    pub segments: [Option<u32>; 2],
    /// Versions of their policies.
    pub versions: [u32; 2],
    /// Generations of their sets.
    pub generations: [u32; 2],
    /// Limits that later packets are held to.
    pub limits: [Option<u16>; 2],
    /// Limits that count it among its source's connections.
    pub counted: [Option<u16>; 2],
}

/// One connection.
#[derive(Clone, Debug)]
pub struct Flow {
    /// The packet that opened it: what the rules are asked about.
    pub opener: Headers,
    /// Segments of the two ends, the opener's first.
    pub segments: [Option<u32>; 2],
    /// Versions of their policies that admitted the flow.
    pub versions: [u32; 2],
    /// Generations of their sets then.
    pub generations: [u32; 2],
    /// Limits that each packet of the opener is held to.
    pub limits: [Option<u16>; 2],
    /// Limits that count it among its source's connections.
    pub counted: [Option<u16>; 2],
    /// A rule that admitted it ended.
    pub is_due: bool,
    /// What it has come to.
    pub state: State,
    /// TCP flags seen, per direction.
    pub seen: [u8; 2],
    /// When the last packet passed.
    pub last_tick: u64,
}

impl Flow {
    /// A flow after its first packet.
    pub(super) fn opened(opener: Headers, stamp: Stamp, now: u64) -> Self {
        let Stamp { segments, versions, generations, limits, counted } = stamp;
        let state = match opener.protocol {
            6 => State::Opening,
            1 | 58 => State::Icmp,
            _ => State::OneWay,
        };
        let tcp_flags = opener.tcp_flags;
        let (seen, is_due) = ([0; 2], false);
        let last_tick = now;
        let mut flow =
            Self { opener, segments, versions, generations, limits, counted, is_due, state, seen, last_tick };
        flow.take(0, tcp_flags, now);
        flow
    }

    /// The connection as its opener sees it.
    pub fn tuple(&self) -> Tuple {
        Tuple::of(&self.opener)
    }

    /// Whether it was idle for longer than its state allows.
    pub(super) const fn is_stale(&self, timeouts: &Timeouts, now: u64) -> bool {
        let limit = match self.state {
            State::Opening => timeouts.opening,
            State::Open => timeouts.open,
            State::Closing => timeouts.closing,
            State::Closed => timeouts.closed,
            State::OneWay => timeouts.one_way,
            State::TwoWay => timeouts.two_way,
            State::Icmp => timeouts.icmp,
        };
        now > self.last_tick + limit
    }

    /// The packet that would open this flow today: what the rules are asked when a policy changed.
    ///
    /// TCP begins with a SYN and ICMP with its request; the ICMP code is taken from the packet at hand.
    pub(super) fn first_packet(&self, at_hand: &Headers) -> Headers {
        let mut first = self.opener.clone();
        if first.protocol == 6 {
            first.tcp_flags = SYN;
        }
        first.icmp_type = self.tuple().kind;
        first.icmp_code = at_hand.icmp_code;
        first
    }

    /// Takes note of a further packet; direction 0 is the opener's.
    pub(super) fn take(&mut self, direction: usize, tcp_flags: u8, now: u64) {
        self.last_tick = now;
        self.seen[direction] |= tcp_flags;
        let [opener, other] = self.seen;
        self.state = match self.state {
            State::OneWay if direction == 1 => State::TwoWay,
            State::Opening | State::Open | State::Closing | State::Closed => {
                if (opener | other) & RST != 0 || opener & other & FIN != 0 {
                    State::Closed
                } else if (opener | other) & FIN != 0 {
                    State::Closing
                } else if opener & other & ACK != 0 {
                    State::Open
                } else {
                    State::Opening
                }
            }
            State::OneWay | State::TwoWay | State::Icmp => self.state,
        };
    }

    /// Whether the packet begins a connection anew between the ends of a closed one.
    pub(super) const fn is_reopened_by(&self, packet: &Headers) -> bool {
        matches!(self.state, State::Closed) && is_pure_syn(packet.tcp_flags)
    }
}

/// SYN and none of ACK, RST, FIN.
pub(super) const fn is_pure_syn(tcp_flags: u8) -> bool {
    tcp_flags & (SYN | ACK | RST | FIN) == SYN
}

/// A first fragment that passed.
#[derive(Clone, Debug)]
pub(super) struct FirstFragment {
    /// Its headers.
    pub(super) headers: Headers,
    /// Identification.
    pub(super) id: u32,
    /// Protocol of IPv4 fragments; IPv6 fragments are known without it (RFC 8200 section 4.5).
    pub(super) protocol: Option<u8>,
    /// Last tick at which later fragments may follow.
    pub(super) until_tick: u64,
}
