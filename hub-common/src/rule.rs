//! Rules: the first that matches decides.
//!
//! The matcher below runs in the kernel on the first packet of a flow, in `hubctl why` and in tests.

use crate::address::{Address, in_prefix};
use crate::packet::{PACKET_V4, Packet, protocol};

crate::shared! {
    /// One compiled rule, 56 bytes. A field is compared only if its flag is set.
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
        /// Zero.
        pub pad: [u8; 2],
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

/// Pass.
pub const ACTION_ALLOW: u8 = 0;
/// Drop in silence.
pub const ACTION_DENY: u8 = 1;
/// Drop and tell the sender.
pub const ACTION_REJECT: u8 = 2;
/// Report and go on with the next rule.
pub const ACTION_LOG: u8 = 3;

/// Instead of a rule slot: the default decided.
pub const RULE_NONE: u32 = u32::MAX;

impl Rule {
    /// Whether every compared field agrees.
    #[inline(always)]
    pub fn matches(&self, packet: &Packet) -> bool {
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
        assert!(Rule::ZERO.matches(&packet()));
        assert!(Rule::ZERO.matches(&Packet::ZERO));
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
        assert!(base.matches(&packet()));
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
            assert!(!base.matches(&other), "{other:?}");
        }
    }
}
