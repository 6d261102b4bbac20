//! Candidates: a policy that is judged beside the live one on the same packets, and decides nothing.

use crate::address::Address;

/// No rule: a default, the protocols, or a rule that no document has.
pub const NO_RULE: u16 = u16::MAX;
/// The packet passes.
pub const PASSES: u8 = 0;
/// The packet is dropped in silence.
pub const DROPS: u8 = 1;
/// The packet is dropped and its sender told.
pub const REJECTS: u8 = 2;

crate::shared! {
    /// Packets on which the two policies of one persona gave these answers.
    ///
    /// Where the verdicts are equal, both rules are [`NO_RULE`]: agreement is counted as a whole.
    pub struct CandidateKey {
        /// The persona's segment.
        pub segment: u32,
        /// Position of the live policy's rule in its document.
        pub live_rule: u16,
        /// Position of the candidate's rule in its document.
        pub candidate_rule: u16,
        /// The live policy's reason, 0 for a packet that passes.
        pub live_reason: u8,
        /// The candidate's reason, 0 for a packet that would pass.
        pub candidate_reason: u8,
        /// [`PASSES`], [`DROPS`] or [`REJECTS`].
        pub live_verdict: u8,
        /// [`PASSES`], [`DROPS`] or [`REJECTS`].
        pub candidate_verdict: u8,
        /// 0 towards members, 1 from members.
        pub direction: u8,
        /// Zero.
        pub pad: [u8; 3],
    }

    /// How many they were, and the last of them, per CPU.
    pub struct CandidateHits {
        /// Packets that asked rules, and one packet of each flow that did not need to.
        pub packets: u64,
        /// Their bytes from the IP header on.
        pub bytes: u64,
        /// Sender of the flow's first packet.
        pub source: Address,
        /// Receiver of the flow's first packet.
        pub target: Address,
        /// Its source port, or ICMP identifier.
        pub source_port: u16,
        /// Its target port, or ICMP identifier.
        pub target_port: u16,
        /// Its protocol.
        pub protocol: u8,
        /// Zero.
        pub pad: [u8; 3],
    }
}
