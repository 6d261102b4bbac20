//! Traces: which packets an operator wants to see, whatever becomes of them.
//!
//! A filter lives in a slot; one word of the settings says which slots are in use, so that packets pay nothing
//! while nobody looks. A filter ends by itself, also when its daemon is dead.

use crate::address::{Address, in_prefix};
use crate::packet::{PACKET_V4, PACKET_V6, Packet};

/// Filters at once.
pub const TRACE_SLOTS: u32 = 8;
/// Events of all traces in one tick of one CPU; what is more is counted as lost.
pub const TRACE_EVENTS_PER_TICK: u64 = 16;

crate::shared! {
    /// What a trace wants to see. Zero is "any" in every field.
    pub struct TraceFilter {
        /// No packet matches at or after this tick.
        pub until_tick: u64,
        /// Prefix of the sender.
        pub source: Address,
        /// Prefix of the receiver.
        pub target: Address,
        /// Segment of either end.
        pub segment: u32,
        /// Transport port of either end, or ICMP identifier; with [`TRACE_PORT`].
        pub port: u16,
        /// `TRACE_*` bits of a filter.
        pub flags: u16,
        /// Bits of `source` compared, from the mapped start.
        pub source_bits: u8,
        /// Bits of `target` compared, from the mapped start.
        pub target_bits: u8,
        /// IP protocols, either of them; with [`TRACE_PROTOCOL`].
        pub protocol: [u8; 2],
        /// Zero.
        pub pad: [u8; 4],
    }

    /// What became of matching packets, per slot and CPU.
    pub struct TraceGate {
        /// Tick of the last event.
        pub tick: u64,
        /// Events in that tick.
        pub events: u64,
        /// Packets that matched.
        pub matched: u64,
        /// Of those, packets without an event: too many at once, or no room in the ring.
        pub lost: u64,
    }
}

/// Compare the port.
pub const TRACE_PORT: u16 = 1;
/// Compare the protocol.
pub const TRACE_PROTOCOL: u16 = 1 << 1;
/// Dropped packets only.
pub const TRACE_DROPS: u16 = 1 << 2;

/// In an event: the verdict's position; the slots that matched are below it.
pub const TRACED_VERDICT_SHIFT: u32 = 8;
/// In an event: an established flow let the packet pass without asking rules.
pub const TRACED_ESTABLISHED: u32 = 1 << 16;
/// In an event: the packet opened a flow.
pub const TRACED_NEW: u32 = 1 << 17;
/// In an event: the drop is answered.
pub const TRACED_REJECT: u32 = 1 << 18;
/// In an event: the rule is one of the flow's first sender, not of its first receiver.
pub const TRACED_SENDER_RULE: u32 = 1 << 19;
/// In an event: the packet is a reply of the flow's first receiver.
pub const TRACED_REPLY: u32 = 1 << 20;

impl TraceFilter {
    /// Whether the packet is to be seen. `segments` are those that it concerns.
    #[inline(always)]
    pub fn matches(&self, packet: &Packet, segments: [u32; 3], dropped: bool, tick: u64) -> bool {
        let any_segment = self.segment == 0
            || segments[0] == self.segment
            || segments[1] == self.segment
            || segments[2] == self.segment;
        let port = self.flags & TRACE_PORT == 0
            || packet.source_port == self.port
            || packet.target_port == self.port;
        tick < self.until_tick
            && packet.has_any(PACKET_V4 | PACKET_V6)
            && any_segment
            && port
            && (self.flags & TRACE_PROTOCOL == 0
                || packet.protocol == self.protocol[0]
                || packet.protocol == self.protocol[1])
            && (self.flags & TRACE_DROPS == 0 || dropped)
            && in_prefix(&packet.source, &self.source, self.source_bits)
            && in_prefix(&packet.target, &self.target, self.target_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::mapped;

    #[test]
    fn every_field_can_leave_a_packet_out() {
        let packet = Packet {
            source: mapped([10, 0, 0, 1]),
            target: mapped([192, 0, 2, 9]),
            source_port: 4_000,
            target_port: 80,
            protocol: 6,
            flags: PACKET_V4,
            ..Packet::ZERO
        };
        let all = TraceFilter { until_tick: 10, ..TraceFilter::ZERO };
        let seen = |filter: TraceFilter| filter.matches(&packet, [3, 0, 0], false, 9);
        assert!(seen(all) && !all.matches(&packet, [3, 0, 0], false, 10));
        assert!(seen(TraceFilter { segment: 3, ..all }) && !seen(TraceFilter { segment: 4, ..all }));
        for port in [80, 4_000] {
            assert!(seen(TraceFilter { port, flags: TRACE_PORT, ..all }));
        }
        assert!(!seen(TraceFilter { port: 0, flags: TRACE_PORT, ..all }));
        assert!(!seen(TraceFilter { protocol: [17, 1], flags: TRACE_PROTOCOL, ..all }));
        assert!(!seen(TraceFilter { flags: TRACE_DROPS, ..all }));
        let near = TraceFilter { source: mapped([10, 0, 0, 0]), source_bits: 120, ..all };
        assert!(seen(near) && !seen(TraceFilter { target: near.source, target_bits: 104, ..all }));
        assert!(!all.matches(&Packet { flags: 0, ..packet }, [3, 0, 0], false, 9));
    }
}
