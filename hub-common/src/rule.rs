//! Rules: the first that matches decides.
//!
//! The matcher below runs in the kernel on the first packet of a flow, in `hubctl why` and in tests.

use crate::address::{Address, in_prefix};
use crate::packet::{PACKET_V4, Packet, protocol};

crate::shared! {
    /// One compiled rule, 96 bytes. A field is compared only if its flag is set.
    pub struct Rule {
        /// Source prefix; host bits are zero.
        pub source: Address,
        /// Target prefix; host bits are zero.
        pub target: Address,
        /// Bits of `source` compared, from the mapped start.
        pub source_bits: u8,
        /// Bits of `target` compared, from the mapped start.
        pub target_bits: u8,
        /// IP protocol, with `RULE_PROTOCOL`.
        pub protocol: u8,
        /// One of `ACTION_*`.
        pub action: u8,
        /// First and last source port, with `RULE_SOURCE_PORT`.
        pub source_port: [u16; 2],
        /// First and last target port, with `RULE_TARGET_PORT`.
        pub target_port: [u16; 2],
        /// ICMP type, with `RULE_ICMP_TYPE`.
        pub icmp_type: u8,
        /// ICMP code, with `RULE_ICMP_CODE`.
        pub icmp_code: u8,
        /// TCP flags looked at; 0 looks at none.
        pub tcp_mask: u8,
        /// Value that they must have.
        pub tcp_value: u8,
        /// `RULE_*` bits.
        pub flags: u16,
        /// Position in the document's list, from 0.
        pub index: u16,
        /// Code point of packets of flows that it admits plus 1, 0 to leave it.
        pub dscp: u8,
        /// Class of traffic of those packets plus 1, 0 for the persona's.
        pub priority: u8,
        /// Slot of the signature that the connection must bear plus 1, 0 for any connection.
        pub signature: u8,
        /// Zero.
        pub pad: [u8; 5],
        /// Slot of its hit counter; rules of one origin share it.
        pub counter: u32,
        /// Nothing matches at or after this tick; 0 is never.
        pub expires_tick: u64,
        /// Names the document's rule, whatever its position: counters and limits follow it.
        pub identity: u64,
        /// Set that the source must be in, with `RULE_SOURCE_SET`.
        pub source_set: u32,
        /// Set that the target must be in, with `RULE_TARGET_SET`.
        pub target_set: u32,
        /// Slot of its limit, with `ACTION_RATE_LIMIT`.
        pub limit: u32,
        /// Ticks that a source stays out, with `ACTION_QUARANTINE`.
        pub quarantine_ticks: u32,
    }
}

/// Compare the protocol.
pub const RULE_PROTOCOL: u16 = 1;
/// Compare the source port.
pub const RULE_SOURCE_PORT: u16 = 1 << 1;
/// Compare the target port.
pub const RULE_TARGET_PORT: u16 = 1 << 2;
/// Compare the ICMP type.
pub const RULE_ICMP_TYPE: u16 = 1 << 3;
/// Compare the ICMP code.
pub const RULE_ICMP_CODE: u16 = 1 << 4;
/// Report matches as events.
pub const RULE_LOG: u16 = 1 << 5;
/// IPv4 only.
pub const RULE_V4: u16 = 1 << 6;
/// IPv6 only.
pub const RULE_V6: u16 = 1 << 7;
/// Compare the source with a set.
pub const RULE_SOURCE_SET: u16 = 1 << 8;
/// Compare the target with a set.
pub const RULE_TARGET_SET: u16 = 1 << 9;
/// One of the hub's rules, which come before the persona's.
pub const RULE_BASELINE: u16 = 1 << 10;

/// An allow that is asked as a limit, because it counts connections.
pub const RULE_CONNECTIONS: u16 = 1 << 12;

/// Pass.
pub const ACTION_ALLOW: u8 = 0;
/// Drop in silence.
pub const ACTION_DENY: u8 = 1;
/// Drop and tell the sender.
pub const ACTION_REJECT: u8 = 2;
/// Report and go on with the next rule.
pub const ACTION_LOG: u8 = 3;
/// Pass as long as its limit is not reached, else drop: a rate, or a number of connections.
pub const ACTION_RATE_LIMIT: u8 = 4;
/// Drop, and keep the source out for a while.
pub const ACTION_QUARANTINE: u8 = 5;
/// Leave the hub's rules and go on with the persona's.
pub const ACTION_PASS_ON: u8 = 6;

/// Instead of a rule slot: the default decided.
pub const RULE_NONE: u32 = u32::MAX;

impl Rule {
    /// The tick until which the rule matches the packet, not included; 0 if it does not at `tick`.
    ///
    /// `until` says for a set and an address the tick at which the address leaves the set, 0 if it is not in.
    #[inline(always)]
    pub fn matches(&self, packet: &Packet, tick: u64, until: impl Fn(u32, &Address) -> u64) -> u64 {
        let mut end = if self.expires_tick == 0 { u64::MAX } else { self.expires_tick };
        if tick >= end || !self.agrees(packet) {
            return 0;
        }
        if self.flags & RULE_SOURCE_SET != 0 {
            end = end.min(until(self.source_set, &packet.source));
        }
        if self.flags & RULE_TARGET_SET != 0 {
            end = end.min(until(self.target_set, &packet.target));
        }
        if tick < end { end } else { 0 }
    }

    /// Whether every compared field of the packet agrees.
    #[inline(always)]
    fn agrees(&self, packet: &Packet) -> bool {
        let flags = self.flags;
        if flags & RULE_PROTOCOL != 0 && self.protocol != packet.protocol {
            return false;
        }
        if flags & (RULE_V4 | RULE_V6) != 0 && (flags & RULE_V4 != 0) != packet.has(PACKET_V4) {
            return false;
        }
        let port = packet.target_port;
        if flags & RULE_TARGET_PORT != 0 && (port < self.target_port[0] || port > self.target_port[1]) {
            return false;
        }
        let port = packet.source_port;
        if flags & RULE_SOURCE_PORT != 0 && (port < self.source_port[0] || port > self.source_port[1]) {
            return false;
        }
        if flags & RULE_ICMP_TYPE != 0 && self.icmp_type != packet.icmp_type {
            return false;
        }
        if flags & RULE_ICMP_CODE != 0 && self.icmp_code != packet.icmp_code {
            return false;
        }
        if packet.tcp_flags & self.tcp_mask != self.tcp_value {
            return false;
        }
        in_prefix(&packet.source, &self.source, self.source_bits)
            && in_prefix(&packet.target, &self.target, self.target_bits)
    }
}

/// Whether the protocol carries ports, at the place where TCP has them.
#[inline(always)]
pub const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, protocol::TCP | protocol::UDP | protocol::SCTP | 136)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::mapped;
    use crate::packet::PACKET_V6;

    fn packet() -> Packet {
        Packet {
            source: mapped([192, 0, 2, 1]),
            target: mapped([10, 0, 0, 80]),
            source_port: 40_000,
            target_port: 80,
            protocol: protocol::TCP,
            tcp_flags: 2,
            flags: PACKET_V4,
            ..Packet::ZERO
        }
    }

    #[test]
    fn an_empty_rule_matches_everything() {
        assert_eq!(Rule::ZERO.matches(&packet(), 7, |_, _| 0), u64::MAX);
        assert_eq!(Rule::ZERO.matches(&Packet::ZERO, 7, |_, _| 0), u64::MAX);
    }

    #[test]
    fn a_rule_matches_until_its_end_and_while_its_sets_hold_the_packet() {
        let rule = Rule { expires_tick: 10, ..Rule::ZERO };
        assert_eq!([9, 10].map(|tick| rule.matches(&packet(), tick, |_, _| 0)), [10, 0]);
        let rule = Rule { source_set: 7, target_set: 8, flags: RULE_SOURCE_SET | RULE_TARGET_SET, ..rule };
        let until = |source: u64, target: u64| {
            move |set: u32, address: &Address| match set {
                7 => {
                    if *address == packet().source {
                        source
                    } else {
                        0
                    }
                }
                _ => {
                    if *address == packet().target {
                        target
                    } else {
                        0
                    }
                }
            }
        };
        assert_eq!(rule.matches(&packet(), 5, until(u64::MAX, 8)), 8);
        assert_eq!(rule.matches(&packet(), 5, until(6, u64::MAX)), 6);
        assert_eq!(rule.matches(&packet(), 5, until(u64::MAX, u64::MAX)), 10);
        assert_eq!(rule.matches(&packet(), 5, until(5, u64::MAX)), 0);
        assert_eq!(rule.matches(&packet(), 5, until(u64::MAX, 0)), 0);
    }

    #[test]
    fn each_field_alone_can_refuse() {
        let base = Rule {
            protocol: 6,
            target_port: [80, 90],
            source_port: [1024, 65_535],
            source: mapped([192, 0, 2, 0]),
            source_bits: 120,
            tcp_mask: 0x12,
            tcp_value: 2,
            flags: RULE_PROTOCOL | RULE_TARGET_PORT | RULE_SOURCE_PORT | RULE_V4,
            ..Rule::ZERO
        };
        assert_ne!(base.matches(&packet(), 0, |_, _| 0), 0);
        let refused = [
            Packet { protocol: 17, ..packet() },
            Packet { target_port: 79, ..packet() },
            Packet { target_port: 91, ..packet() },
            Packet { source_port: 1023, ..packet() },
            Packet { source: mapped([192, 0, 3, 1]), ..packet() },
            Packet { tcp_flags: 0x12, ..packet() },
            Packet { flags: PACKET_V6, ..packet() },
        ];
        for other in refused {
            assert_eq!(base.matches(&other, 0, |_, _| 0), 0, "{other:?}");
        }
    }
}
