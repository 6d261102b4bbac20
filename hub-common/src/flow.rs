//! Flows: one entry per connection, found from either direction by one key.

#![expect(
    clippy::indexing_slicing,
    reason = "bounds are constants; a panic that can be reached does not load"
)]

use crate::address::{Address, fold, halves};
use crate::application::Heard;
use crate::limits::HOPS;
use crate::packet::{Packet, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, protocol};
use crate::segment::Settings;

crate::shared! {
    /// The two ends of a connection in a fixed order, 40 bytes.
    pub struct FlowKey {
        /// The end that sorts first by address, then port.
        pub low: Address,
        /// The other end.
        pub high: Address,
        /// Port of `low`.
        pub low_port: u16,
        /// Port of `high`.
        pub high_port: u16,
        /// IP protocol.
        pub protocol: u8,
        /// ICMP request type; 0 otherwise.
        pub kind: u8,
        /// Address space; 0 is the hub's own.
        pub zone: u16,
    }

    /// Where packets of one direction of a flow leave, as the kernel's FIB said.
    pub struct Hop {
        /// `Settings::route_generation` at look-up; 0 when unset. Written last.
        pub generation: u32,
        /// Port to leave by; 0 leaves the packet to the kernel.
        pub ifindex: u32,
        /// Low bits of the tick of the look-up.
        pub checked_tick: u32,
        /// Largest packet in bytes from the IP header on.
        pub mtu_bytes: u32,
        /// MAC of the next hop.
        pub target_mac: [u8; 6],
        /// MAC of the port.
        pub source_mac: [u8; 6],
        /// Port that this direction's packets come in on.
        pub ingress_ifindex: u32,
    }

    /// The next hop towards one address, shared by all packets that come in by one port from one segment.
    pub struct SharedHop {
        /// Address that it leads to.
        pub target: Address,
        /// Segment of the senders, 0 for none: routes may depend on it.
        pub sender: u32,
        /// 1 while somebody writes the entry; others leave it alone meanwhile.
        pub writer: u32,
        /// Zero: an entry is one cache line long.
        pub pad: [u32; 2],
        /// The hop. Its generation is 0 while the entry changes hands.
        pub hop: Hop,
    }

    /// State of one connection. Index 0 is the direction of the first packet, 1 its replies.
    ///
    /// What every packet touches comes first and lies together.
    pub struct Flow {
        /// Tick of the last packet.
        pub last_tick: u64,
        /// The rules are asked again at this tick: one that admitted the flow ends; `u64::MAX` is never.
        pub deadline_tick: u64,
        /// Limits that each packet of the first sender is held to, per segment; 0 for none.
        pub limit: [u16; 2],
        /// Low bits of `Segment::set_generation` when the flow was admitted, per segment.
        pub set_generation: [u16; 2],
        /// `Settings::class_generation` at classification.
        pub class_generation: u32,
        /// One of `FLOW_*`: the state, an index into the timeouts.
        pub state: u8,
        /// 1 when the first sender is the key's `high` end.
        pub from_high: u8,
        /// TCP flags seen, per direction.
        pub tcp_seen: [u8; 2],
        /// Segments of the first sender and the first receiver; 0 for none.
        pub segment: [u32; 2],
        /// Policy words that admitted the flow, per segment.
        pub policy: [u32; 2],
        /// Packets per direction.
        pub packets: [u64; 2],
        /// Bytes per direction, from the IP header on.
        pub bytes: [u64; 2],
        /// Next hops per direction.
        pub hop: [Hop; 2],
        /// Rule slots that admitted the flow, per segment, or [`crate::rule::RULE_NONE`].
        pub rule: [u32; 2],
        /// Tick of the first packet.
        pub first_tick: u64,
        /// Limits that count the flow among its source's connections, per segment; 0 for none.
        pub counted: [u16; 2],
        /// Low bits of the microsecond of its first SYN while that is timed, 0 for none: see [`Flow::since_syn_us`].
        pub syn_us: u32,
        /// What its first bytes said, as far as rules want to know.
        pub heard: Heard,
    }
}

/// TCP: the first sender spoke, and has not acknowledged an answer yet.
pub const FLOW_TCP_OPENING: u8 = 0;
/// TCP: both ends spoke and were heard.
pub const FLOW_TCP_OPEN: u8 = 1;
/// TCP: both ends said FIN, or one said RST.
pub const FLOW_TCP_CLOSED: u8 = 2;
/// UDP and others: one direction seen.
pub const FLOW_ONE_WAY: u8 = 3;
/// UDP and others: both directions seen.
pub const FLOW_TWO_WAY: u8 = 4;
/// ICMP queries.
pub const FLOW_ICMP: u8 = 5;
/// TCP: one end said FIN.
pub const FLOW_TCP_CLOSING: u8 = 6;

/// Names of the states, by number.
pub const FLOW_STATES: [&str; 7] =
    ["opening", "established", "closed", "one_way", "two_way", "icmp", "closing"];

/// Default idle timeouts in seconds, by state.
///
/// RFC 5382 REQ-5 (TCP ≥ 2 h 4 min), RFC 4787 REQ-5 (UDP ≥ 2 min), RFC 5508 REQ-2 (ICMP ≥ 60 s).
pub const TIMEOUT_SECONDS: [u32; 8] = [30, 7_440, 10, 30, 180, 60, 120, 0];

impl SharedHop {
    /// Place of a next hop.
    #[inline(always)]
    pub fn place(target: &Address, ingress_ifindex: u32, sender: u32) -> u32 {
        const BITS: u32 = HOPS.trailing_zeros();
        let others = ingress_ifindex.wrapping_mul(0x9e37_79b1) ^ sender.wrapping_mul(0x85eb_ca6b);
        fold(target, BITS).wrapping_add(others >> (32 - BITS)) & (HOPS - 1)
    }
}

impl FlowKey {
    /// The key of the connection between two ends, and whether the first end is the `high` one.
    #[inline(always)]
    pub fn between(
        source: &Address,
        source_port: u16,
        target: &Address,
        target_port: u16,
        protocol: u8,
        kind: u8,
    ) -> (Self, bool) {
        let (source_high, source_low) = halves(source);
        let (target_high, target_low) = halves(target);
        let from_high = if source_high != target_high {
            source_high > target_high
        } else if source_low != target_low {
            source_low > target_low
        } else {
            source_port > target_port
        };
        let key = if from_high {
            Self {
                low: *target,
                high: *source,
                low_port: target_port,
                high_port: source_port,
                protocol,
                kind,
                zone: 0,
            }
        } else {
            Self {
                low: *source,
                high: *target,
                low_port: source_port,
                high_port: target_port,
                protocol,
                kind,
                zone: 0,
            }
        };
        (key, from_high)
    }

    /// The key of the packet's connection, and whether its sender is the `high` end.
    #[inline(always)]
    pub fn of(packet: &Packet) -> (Self, bool) {
        let (mut key, from_high) = Self::between(
            &packet.source,
            packet.source_port,
            &packet.target,
            packet.target_port,
            packet.protocol,
            packet.kind,
        );
        key.zone = packet.zone;
        (key, from_high)
    }

    /// The key of the connection that an ICMP error speaks of, and whether its inner sender is `high`.
    #[inline(always)]
    pub fn of_inner(packet: &Packet) -> (Self, bool) {
        let inner = &packet.inner;
        let (mut key, from_high) = Self::between(
            &inner.source,
            inner.source_port,
            &inner.target,
            inner.target_port,
            inner.protocol,
            inner.kind,
        );
        key.zone = packet.zone;
        (key, from_high)
    }
}

impl Hop {
    /// Whether the kernel should confirm it again.
    #[inline(always)]
    pub const fn is_old(&self, tick: u64, settings: &Settings) -> bool {
        (tick as u32).wrapping_sub(self.checked_tick) > settings.hop_ticks
    }
}

impl Flow {
    /// Direction of a packet: 0 as the first one, 1 a reply.
    #[inline(always)]
    pub const fn direction(&self, from_high: bool) -> usize {
        (self.from_high != from_high as u8) as usize
    }

    /// What [`Flow::syn_us`] is for a SYN of this time.
    #[inline(always)]
    pub const fn syn_at(now_ns: u64) -> u32 {
        let low = (now_ns / 1_000) as u32;
        if low == 0 { 1 } else { low }
    }

    /// Microseconds since a SYN; after 71 minutes they begin anew.
    #[inline(always)]
    pub const fn since_syn_us(syn_us: u32, now_ns: u64) -> u64 {
        ((now_ns / 1_000) as u32).wrapping_sub(syn_us) as u64
    }

    /// Whether the flow has been idle for longer than its state allows.
    #[inline(always)]
    pub fn is_stale(&self, now_tick: u64, timeout_ticks: &[u32; 8]) -> bool {
        let limit = timeout_ticks[(self.state & 7) as usize] as u64;
        now_tick.saturating_sub(self.last_tick) > limit
    }
}

/// State of a flow after its first packet.
#[inline(always)]
pub const fn first_state(protocol: u8) -> u8 {
    match protocol {
        protocol::TCP => FLOW_TCP_OPENING,
        protocol::ICMP | protocol::ICMPV6 => FLOW_ICMP,
        _ => FLOW_ONE_WAY,
    }
}

/// State after a further packet in `direction` (0 or 1) whose TCP flags, with those seen before in each
/// direction, are `seen`.
///
/// A follow-up SYN on a closed connection opens it anew: see [`reopens`].
#[inline(always)]
pub const fn next_state(state: u8, protocol: u8, direction: usize, seen: [u8; 2]) -> u8 {
    if protocol != protocol::TCP {
        return if direction == 1 && state == FLOW_ONE_WAY { FLOW_TWO_WAY } else { state };
    }
    if (seen[0] | seen[1]) & TCP_RST != 0 || seen[0] & seen[1] & TCP_FIN != 0 {
        return FLOW_TCP_CLOSED;
    }
    if (seen[0] | seen[1]) & TCP_FIN != 0 {
        return FLOW_TCP_CLOSING;
    }
    if state == FLOW_TCP_OPENING && is_acknowledged(seen) {
        return FLOW_TCP_OPEN;
    }
    state
}

/// Whether both ends of a TCP connection have acknowledged what the other sent: the first one is who it says it is,
/// for an answer reached it (RFC 4987 section 2).
#[inline(always)]
const fn is_acknowledged(seen: [u8; 2]) -> bool {
    seen[0] & seen[1] & TCP_ACK != 0
}

/// Whether a flow that this packet goes with is more than an attempt: whoever makes sources up, or asks where nobody
/// listens, gets none.
#[inline(always)]
pub const fn is_confirmed(flow: &Flow, number: u8, direction: usize) -> bool {
    if number != protocol::TCP {
        return direction == 1;
    }
    is_acknowledged(flow.tcp_seen) && flow.state != FLOW_TCP_CLOSED
}

/// Whether a TCP packet in the first direction begins a connection anew on a closed flow's ports.
#[inline(always)]
pub const fn reopens(state: u8, tcp_flags: u8) -> bool {
    state == FLOW_TCP_CLOSED && is_opening(tcp_flags)
}

/// Whether these flags open a TCP connection: SYN without ACK.
#[inline(always)]
pub const fn is_opening(tcp_flags: u8) -> bool {
    tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN) == TCP_SYN
}

/// Whether no TCP stack sends these flags.
#[inline(always)]
pub const fn is_impossible(tcp_flags: u8) -> bool {
    let flags = tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN);
    flags == 0 || (flags & TCP_SYN != 0 && flags & (TCP_FIN | TCP_RST) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::mapped;

    #[test]
    fn both_directions_share_one_key() {
        let (a, b) = (mapped([10, 0, 0, 1]), mapped([10, 0, 0, 2]));
        let (forward, from_high) = FlowKey::between(&a, 4000, &b, 80, 6, 0);
        let (back, back_from_high) = FlowKey::between(&b, 80, &a, 4000, 6, 0);
        assert_eq!(forward, back);
        assert!(!from_high && back_from_high);
        assert_eq!(size_of::<FlowKey>(), 40);
    }

    #[test]
    fn a_tcp_connection_walks_its_states() {
        let tcp = protocol::TCP;
        let opening = first_state(tcp);
        let answered = next_state(opening, tcp, 1, [TCP_SYN, TCP_SYN | TCP_ACK]);
        assert_eq!(answered, FLOW_TCP_OPENING, "who asked may have made its address up");
        let open = next_state(answered, tcp, 0, [TCP_SYN | TCP_ACK, TCP_SYN | TCP_ACK]);
        assert_eq!(open, FLOW_TCP_OPEN);
        let flow = |state, tcp_seen| Flow { state, tcp_seen, ..Flow::ZERO };
        let refused = [TCP_SYN, TCP_RST | TCP_ACK];
        let last = next_state(opening, tcp, 1, refused);
        assert!(!is_confirmed(&flow(last, refused), tcp, 1));
        assert!(!is_confirmed(&flow(answered, [TCP_SYN, TCP_SYN | TCP_ACK]), tcp, 1));
        assert!(is_confirmed(&flow(open, [TCP_SYN | TCP_ACK; 2]), tcp, 0));
        assert!(is_confirmed(&flow(FLOW_TWO_WAY, [0; 2]), protocol::UDP, 1));
        let both = [TCP_SYN | TCP_ACK, TCP_SYN | TCP_ACK];
        let closing = next_state(open, tcp, 0, [both[0] | TCP_FIN, both[1]]);
        assert_eq!(closing, FLOW_TCP_CLOSING);
        let closed = next_state(closing, tcp, 1, [both[0] | TCP_FIN, both[1] | TCP_FIN]);
        assert_eq!(closed, FLOW_TCP_CLOSED);
        assert!(reopens(closed, TCP_SYN) && !reopens(open, TCP_SYN));
    }

    #[test]
    fn udp_needs_an_answer_to_be_two_way() {
        assert_eq!(next_state(FLOW_ONE_WAY, protocol::UDP, 0, [0; 2]), FLOW_ONE_WAY);
        assert_eq!(next_state(FLOW_ONE_WAY, protocol::UDP, 1, [0; 2]), FLOW_TWO_WAY);
    }

    #[test]
    fn idle_flows_go_stale_by_their_state() {
        let mut flow = Flow { state: FLOW_TWO_WAY, last_tick: 100, ..Flow::ZERO };
        let timeouts = [1, 2, 3, 4, 50, 6, 7, 0];
        assert!(!flow.is_stale(150, &timeouts) && flow.is_stale(151, &timeouts));
        flow.state = FLOW_TCP_OPENING;
        assert!(flow.is_stale(102, &timeouts));
    }

    #[test]
    fn the_time_since_a_syn_outlives_the_end_of_its_word() {
        let wrap_ns = (1_u64 << 32) * 1_000;
        for (began, now, wanted) in [(5_000, 9_999, 4), (wrap_ns - 3_000, wrap_ns + 4_000, 7)] {
            assert_eq!(Flow::since_syn_us(Flow::syn_at(began), now), wanted);
        }
        // None of them says that there is none.
        assert_eq!([0, 999, wrap_ns].map(Flow::syn_at), [1; 3]);
        assert_eq!(Flow::since_syn_us(Flow::syn_at(wrap_ns), wrap_ns + 5_000), 4);
    }

    #[test]
    fn impossible_flags_are_recognised() {
        assert!(is_impossible(0) && is_impossible(TCP_SYN | TCP_FIN) && is_impossible(TCP_SYN | TCP_RST));
        assert!(!is_impossible(TCP_SYN) && !is_impossible(TCP_FIN | TCP_ACK) && !is_impossible(TCP_RST));
    }
}
