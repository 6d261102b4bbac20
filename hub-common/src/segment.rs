//! Segments, policies and ports: what a packet is judged by.
//!
//! A policy is an immutable value. Changing a persona builds a policy beside the old one and stores one
//! word into its segment; the old slot is reused after a grace period.

#![expect(
    clippy::indexing_slicing,
    reason = "bounds are constants; a panic that can be reached does not load"
)]

use crate::address::Address;
use crate::limits::POLICY_SLOT_BITS;

crate::shared! {
    /// One persona in the data path; index 0 is never used. One cache line: of most packets without flows
    /// `open` and `open_until_tick` are all that is read.
    pub struct Segment {
        /// No packet passes at or after this tick; `u64::MAX` is never.
        pub expires_tick: u64,
        /// [`policy_word`] of the live policy, 0 for none. Packets read it once.
        pub policy: u32,
        /// Port sets of that policy, a byte for each `open::OPEN_*` place from the lowest on, where ports are all
        /// that its packets are judged by; see [`Segment::with_open`]. One word, read once.
        pub open: u32,
        /// The tick until which `open` decides; 0 is never.
        pub open_until_tick: u64,
        /// One of `STATE_*`.
        pub state: u32,
        /// `SEGMENT_*` bits: what else to look up for its packets. 0 costs nothing.
        pub flags: u32,
        /// Policy word of a candidate that is judged beside the live policy, or with [`SEGMENT_GATED`] before new
        /// flows begin; 0 for none.
        pub candidate: u32,
        /// Bumped when elements of its sets change: flows are judged again.
        pub set_generation: u32,
        /// When the lease of `policy` ends; 0 is never.
        pub lease_tick: u64,
        /// From this tick on it refuses flows that are not established yet; 0 is never.
        pub drain_tick: u64,
        /// Policy word that holds instead of `policy` from `lease_tick` on.
        pub lease_policy: u32,
        /// 1 where routes of its members' packets depend on their source.
        pub routed: u32,
    }

    /// Compiled rules of one persona, never changed once a segment points at it.
    pub struct Policy {
        /// Port sets that decide without flows, by `open::OPEN_*` place; `OPEN_NONE` asks flows and rules.
        pub open: [u8; 4],
        /// `POLICY_*` bits.
        pub flags: u32,
        /// The policy word that names this value.
        pub word: u32,
        /// Permitted IP protocols, one bit each: a ceiling over the rules.
        pub protocols: [u32; 8],
        /// Protocols towards members that pass when no rule matches.
        pub ingress_default: [u32; 8],
        /// Protocols from members that pass when no rule matches.
        pub egress_default: [u32; 8],
        /// First slot of the ingress rules in the rule table.
        pub ingress_first: u32,
        /// Number of ingress rules.
        pub ingress_count: u32,
        /// First slot of the egress rules.
        pub egress_first: u32,
        /// Number of egress rules.
        pub egress_count: u32,
        /// Zero: two cache lines.
        pub pad: u32,
    }

    /// One interface that the hub's programs are attached to.
    pub struct Port {
        /// Interface index; 0 means the slot is empty.
        pub ifindex: u32,
        /// The one segment behind this port, or 0: an uplink, or a port that several personas share.
        pub segment: u32,
        /// One of `ROLE_*`.
        pub role: u32,
        /// `PORT_*` bits.
        pub flags: u32,
        /// The interface's own MAC; frames to others are left to the kernel.
        pub mac: [u8; 6],
        /// Zero.
        pub pad: [u8; 2],
    }

    /// Two segments that may talk.
    pub struct Peer {
        /// The smaller segment.
        pub low: u32,
        /// The larger segment.
        pub high: u32,
    }

    /// Numbers that apply to every packet; each field is read on its own.
    pub struct Settings {
        /// Bumped when a route, neighbour or link changes: cached next hops are looked up again.
        pub route_generation: u32,
        /// Bumped when prefixes or ports change: flows are classified again.
        pub class_generation: u32,
        /// TCP without SYN may open a flow until this tick, if the rules allow it.
        pub loose_tcp_until_tick: u64,
        /// Idle timeout in ticks, by flow state.
        pub timeout_ticks: [u32; 8],
        /// Ticks after which a cached next hop is confirmed by the kernel again.
        pub hop_ticks: u32,
        /// `SETTINGS_*` bits.
        pub flags: u32,
        /// Slots of the trace table that are in use, one bit each.
        pub traces: u32,
        /// Zero.
        pub pad: u32,
    }

    /// An address by which the hub answers members of a segment, though it is not in their ranges.
    pub struct Gateway {
        /// Whose gateway it is.
        pub segment: u32,
        /// Zero.
        pub pad: u32,
        /// The address.
        pub address: Address,
    }

    /// A port of the host that stays reachable whatever the policies say.
    pub struct Failsafe {
        /// TCP or UDP.
        pub protocol: u32,
        /// Port number.
        pub port: u32,
    }
}

impl Port {
    /// Address space of what crosses the port; 0 is the hub's own.
    #[inline(always)]
    pub const fn zone(&self) -> u16 {
        if self.flags & PORT_TUNNEL == 0 { 0 } else { self.segment as u16 }
    }
}

/// In the protocol of a [`Failsafe`]: a service of the host that members may use, as their rules say.
pub const FAILSAFE_MEMBERS: u32 = 1 << 8;

/// No segment here.
pub const STATE_EMPTY: u32 = 0;
/// Judged by its policy.
pub const STATE_ACTIVE: u32 = 1;
/// Refuses flows that are not established yet.
pub const STATE_DRAIN: u32 = 2;
/// Refuses everything.
pub const STATE_BLOCK: u32 = 3;

/// Its addresses are rewritten: look up its translation.
pub const SEGMENT_TRANSLATED: u32 = 1;
/// Its packets are marked, shaped or capped: look up its rates.
pub const SEGMENT_SHAPED: u32 = 1 << 1;
/// Detectors watch its packets.
pub const SEGMENT_WATCHED: u32 = 1 << 2;
/// Addresses may be in quarantine: look its packets' ends up.
pub const SEGMENT_QUARANTINE: u32 = 1 << 7;

/// Connections to its members are limited by source: look the number up.
pub const SEGMENT_CONNECTIONS: u32 = 1 << 12;

/// Rules of it ask for signatures: the first bytes of its connections are looked at.
pub const SEGMENT_HEARS: u32 = 1 << 20;
/// Flows that begin must pass its candidate's rules too; the candidate is not judged beside the live policy.
pub const SEGMENT_GATED: u32 = 1 << 13;
/// TCP that it takes no new flows of is told so.
pub const SEGMENT_DRAIN_REJECT: u32 = 1 << 14;

/// Flows admitted by an older policy stay, whatever the current one says.
pub const POLICY_PRESERVE: u32 = 1;
/// The default action tells the sender.
pub const POLICY_DEFAULT_REJECT: u32 = 1 << 1;
/// Packets that the default action drops are reported as events, not only sampled.
pub const POLICY_LOG_DEFAULT: u32 = 1 << 2;
/// Everything is judged, counted and passed.
pub const POLICY_AUDIT: u32 = 1 << 3;
/// Rules and protocols are not asked.
pub const POLICY_OFF: u32 = 1 << 4;

/// Both ends of TCP that its rules cut off are told, and who goes on speaking of what was cut.
pub const POLICY_RESET_CUT: u32 = 1 << 5;

/// A port towards the rest of the network.
pub const ROLE_UPLINK: u32 = 1;
/// A port with members of personas behind it.
pub const ROLE_SEGMENT: u32 = 2;

/// IPv4 packets of its members leave uplinks with the hub's address.
pub const SEGMENT_MASQUERADE_V4: u32 = 1 << 3;
/// IPv6 packets of its members leave uplinks with the hub's address.
pub const SEGMENT_MASQUERADE_V6: u32 = 1 << 4;

/// TCP of its members is told how long a packet may be: look up its MTU.
pub const SEGMENT_CLAMPED: u32 = 1 << 5;

/// Frames have no Ethernet header.
pub const PORT_L3_ONLY: u32 = 1;
/// XDP may redirect to this port.
pub const PORT_XDP_TARGET: u32 = 1 << 1;
/// Failsafe ports answer on this port.
pub const PORT_FAILSAFE: u32 = 1 << 2;

/// Routes depend on more than target, ingress port and persona: next hops are kept per flow only.
pub const SETTINGS_NO_SHARED_HOPS: u32 = 1;
/// The kernel drops frames in several buffers that XDP redirects (before 6.3): TC forwards them.
pub const SETTINGS_ONE_BUFFER: u32 = 1 << 1;
/// Addresses beyond this port may differ from those in the hub.
pub const PORT_TRANSLATED: u32 = 1 << 3;

/// The port is the device of its segment's tunnel, in whatever namespace: what comes in goes to the segment and what
/// leaves is from it, whatever the addresses are, which are those of the namespace and mean nothing in the hub.
pub const PORT_TUNNEL: u32 = 1 << 4;
/// First interface index of tunnels in namespaces of others, whose small indexes mean the hub's own interfaces here.
pub const TUNNEL_INDEX: u32 = 1 << 30;

/// Marks an entry of the IPv4 table as a block index.
pub const V4_BLOCK: u32 = 1 << 31;

/// Packs a policy slot and the version of its content into the word that a segment points with.
#[inline(always)]
pub const fn policy_word(slot: u32, version: u32) -> u32 {
    (slot & POLICY_SLOT_MASK) | (version << POLICY_SLOT_BITS)
}

/// The slot in a policy word.
#[inline(always)]
pub const fn policy_slot(word: u32) -> u32 {
    word & POLICY_SLOT_MASK
}

/// Bits of the slot.
pub const POLICY_SLOT_MASK: u32 = (1 << POLICY_SLOT_BITS) - 1;

/// Whether the protocol's bit is set.
#[inline(always)]
pub fn has_protocol(set: &[u32; 8], protocol: u8) -> bool {
    let word = set[(protocol >> 5) as usize & 7];
    word >> (protocol & 31) & 1 == 1
}

impl Peer {
    /// The key for two segments, whichever comes first.
    #[inline(always)]
    pub const fn between(a: u32, b: u32) -> Self {
        if a < b { Self { low: a, high: b } } else { Self { low: b, high: a } }
    }
}

impl Segment {
    /// The word of the policy that packets are judged by.
    #[inline(always)]
    pub const fn word(&self, tick: u64) -> u32 {
        if self.lease_tick != 0 && tick >= self.lease_tick && self.lease_policy != 0 {
            self.lease_policy
        } else {
            self.policy
        }
    }

    /// The candidate that is judged beside the live policy, 0 for none.
    #[inline(always)]
    pub const fn judged(&self) -> u32 {
        if self.flags & SEGMENT_GATED != 0 { 0 } else { self.candidate }
    }

    /// Whether it refuses flows that are not established yet.
    #[inline(always)]
    pub const fn drains(&self, tick: u64) -> bool {
        self.state == STATE_DRAIN || (self.drain_tick != 0 && tick >= self.drain_tick)
    }

    /// Whether nothing but a policy must be looked up for its packets, once something began.
    #[inline(always)]
    pub const fn is_plain(&self, tick: u64) -> bool {
        const BEGINNING: u32 = SEGMENT_GATED | SEGMENT_DRAIN_REJECT;
        self.state == STATE_ACTIVE && !self.drains(tick) && self.flags & !BEGINNING == 0 && self.judged() == 0
    }

    /// The same with these port sets of its policy to judge by, if its packets may be judged by ports alone.
    #[must_use]
    pub const fn with_open(mut self, sets: [u8; 4]) -> Self {
        let drains = if self.drain_tick == 0 { u64::MAX } else { self.drain_tick };
        let leased = if self.lease_tick == 0 { u64::MAX } else { self.lease_tick };
        let ends = if drains < leased { drains } else { leased };
        let until = if ends < self.expires_tick { ends } else { self.expires_tick };
        let plain = self.state == STATE_ACTIVE && self.flags == 0 && self.candidate == 0;
        (self.open, self.open_until_tick) = if plain { (u32::from_le_bytes(sets), until) } else { (0, 0) };
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_words_keep_slot_and_version_apart() {
        let word = policy_word(0xf_1234, 7);
        assert_eq!(policy_slot(word), 0xf_1234);
        assert_ne!(word, policy_word(0xf_1234, 8));
    }

    #[test]
    fn a_segment_drains_by_its_state_or_from_a_tick_on() {
        let segment = |state, drain_tick| Segment { state, drain_tick, ..Segment::ZERO };
        assert!(segment(STATE_DRAIN, 0).drains(0));
        assert!(!segment(STATE_ACTIVE, 0).drains(u64::MAX));
        let timed = segment(STATE_ACTIVE, 9);
        assert_eq!([timed.drains(8), timed.drains(9)], [false, true]);
    }

    #[test]
    fn a_lease_ends_with_its_tick() {
        let leased = Segment { policy: 7, lease_policy: 8, lease_tick: 5, ..Segment::ZERO };
        assert_eq!([4, 5, u64::MAX].map(|tick| leased.word(tick)), [7, 8, 8]);
        assert_eq!(Segment { lease_tick: 0, ..leased }.word(u64::MAX), 7);
        // A lease that is being taken away: the tick is still there, the word is not.
        assert_eq!(Segment { lease_policy: 0, ..leased }.word(u64::MAX), 7);
    }

    #[test]
    fn a_gate_is_not_judged_beside() {
        let segment = Segment { candidate: 9, ..Segment::ZERO };
        assert_eq!(segment.judged(), 9);
        assert_eq!(Segment { flags: SEGMENT_GATED, ..segment }.judged(), 0);
    }

    #[test]
    fn what_packets_read_lies_in_whole_cache_lines() {
        assert_eq!((size_of::<Segment>(), size_of::<Policy>()), (64, 128));
    }

    #[test]
    fn ports_decide_as_long_as_nothing_else_must_be_asked() {
        let sets = [1, 2, 3, 4];
        for state in [STATE_EMPTY, STATE_ACTIVE, STATE_DRAIN, STATE_BLOCK] {
            for (flags, candidate) in [(0, 0), (SEGMENT_SHAPED, 0), (0, 7)] {
                for (expires_tick, drain_tick) in [(u64::MAX, 0), (9, 0), (u64::MAX, 5), (9, 5), (5, 9)] {
                    let segment =
                        Segment { expires_tick, state, flags, candidate, drain_tick, ..Segment::ZERO };
                    let open = segment.with_open(sets);
                    for tick in 0..12 {
                        let decides = tick < open.open_until_tick;
                        assert_eq!(decides, segment.is_plain(tick) && tick < expires_tick, "{open:?}");
                        assert!(!decides || open.open.to_le_bytes() == sets);
                    }
                }
            }
        }
    }

    #[test]
    fn protocol_sets_cover_all_256() {
        let mut set = [0; 8];
        set[58 / 32] |= 1 << (58 % 32);
        let found: Vec<u8> = (0..=255).filter(|p| has_protocol(&set, *p)).collect();
        assert_eq!(found, [58]);
    }
}
