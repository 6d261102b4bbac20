//! What `cargo xtask bench` tells its own kernel programs; the product does not use it.

crate::shared! {
    /// The packets to make, to count, or to pass on.
    ///
    /// Flow `i` runs between one peer and member `first_member + i % personas * stride + i / personas`.
    pub struct Plan {
        /// Interface that packets leave by.
        pub ifindex: u32,
        /// Flows to spread packets over, at least 1.
        pub flows: u32,
        /// Distance from one packet's flow to the next one's; no common divisor with `flows`.
        pub step: u32,
        /// Personas that the members belong to, at least 1.
        pub personas: u32,
        /// Distance between members that are next to each other in different personas.
        pub stride: u32,
        /// IPv4 address of the first member in host order; low bits of the address for IPv6.
        pub first_member: u32,
        /// IPv4 address of the peer, as `first_member`.
        pub peer: u32,
        /// `PLAN_*` bits.
        pub flags: u32,
        /// UDP port of the members.
        pub member_port: u16,
        /// UDP port of the peer.
        pub peer_port: u16,
        /// MAC that packets are sent to.
        pub target_mac: [u8; 6],
        /// MAC that packets are sent from.
        pub source_mac: [u8; 6],
        /// TTL to send, or to expect.
        pub ttl: u8,
        /// Zero.
        pub pad: [u8; 7],
    }

    /// What the counting program saw, per CPU.
    pub struct Seen {
        /// Packets of the plan's flows.
        pub packets: u64,
        /// Of those, packets with a wrong checksum, TTL or address; counted under [`PLAN_CHECK`] only.
        pub wrong: u64,
    }
}

/// Packets go from members to the peer.
pub const PLAN_FROM_MEMBERS: u32 = 1;
/// IPv6 instead of IPv4.
pub const PLAN_V6: u32 = 1 << 1;
/// Look at every packet's header, not only at its ports.
pub const PLAN_CHECK: u32 = 1 << 2;
/// Bytes of a frame.
pub const FRAME_BYTES: usize = 64;
/// High 96 bits of the members' IPv6 addresses.
pub const MEMBERS_V6: [u8; 12] = [0x20, 0x01, 0x0d, 0xb8, 0, 0x64, 0, 0, 0, 0, 0, 0];
/// High 96 bits of the peer's IPv6 address.
pub const PEER_V6: [u8; 12] = [0x20, 0x01, 0x0d, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0];

impl Plan {
    /// Address bits of the member of flow `index`.
    #[inline(always)]
    pub fn member(&self, index: u32) -> u32 {
        let (row, column) =
            (index.checked_div(self.personas).unwrap_or(0), index.checked_rem(self.personas).unwrap_or(0));
        self.first_member.wrapping_add(column.wrapping_mul(self.stride)).wrapping_add(row)
    }

    /// The flow after `index`.
    #[inline(always)]
    pub fn after(&self, index: u32) -> u32 {
        index.wrapping_add(self.step).checked_rem(self.flows).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flow_has_its_turn_and_its_own_member() {
        for (flows, personas, stride) in [(1, 1, 0), (1_000, 1, 0), (65_536, 4_096, 64)] {
            let plan = Plan { flows, step: 40_503, personas, stride, ..Plan::ZERO };
            let mut members = Vec::new();
            let mut index = 0;
            for _ in 0..flows {
                members.push(plan.member(index));
                index = plan.after(index);
            }
            members.sort_unstable();
            members.dedup();
            assert_eq!(members.len(), flows as usize);
        }
    }
}
