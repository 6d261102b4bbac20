//! Every capacity, with its reason. The daemon may raise those marked *default* at load time.

/// Most personas at once; default. A segment costs 64 bytes plus 64 bytes of counters per CPU.
pub const SEGMENTS: u32 = 16_384;
/// Most segments that `limits` may ask for: 100,000 personas and some head room.
pub const SEGMENTS_MAX: u32 = 131_072;
/// Compiled policies alive at once; default. Twice the segments, because an update builds beside.
pub const POLICIES: u32 = 2 * SEGMENTS;
/// Bits of a policy word that hold the slot; the others hold the version of that slot's content.
pub const POLICY_SLOT_BITS: u32 = 20;
/// Compiled rules alive at once, over all policies; default. 88 bytes each.
pub const RULES: u32 = 131_072;
/// Different signatures of applications, over all personas; a rule names one by a byte that is not 0.
pub const SIGNATURES: u32 = 255;
/// Rules in one document's `security_policies`. Source: goal "1,024 rules per persona".
pub const RULES_PER_PERSONA: u32 = 1_024;
/// Compiled rules per direction of a policy, after port lists are expanded. Bounds the matcher's loop.
pub const RULES_PER_DIRECTION: u32 = 2_048;
/// Sums over all CPUs that are made at once, 64 bytes each; a power of two.
pub const SUMS: u32 = 16_384;
/// CPUs that the program which makes them sees. With more, the daemon adds up itself.
pub const SUM_CPUS: u32 = 128;
/// Connections that are confirmed: TCP whose opener acknowledged an answer, others that saw one; default.
pub const FLOWS: u32 = 262_144;
/// Half-open connections, evicted least recently used first; default.
pub const FLOWS_NEW: u32 = 131_072;
/// Fragmented packets in flight.
pub const FRAGMENTS: u32 = 16_384;
/// Entries of the port table. A port lives at its interface index modulo this.
pub const PORTS: u32 = 65_536;
/// Tunnels of personalities in namespaces of others.
pub const TUNNELS: u32 = 4_096;
/// Second- and third-level blocks of the IPv4 table, 1 KiB each; default.
pub const V4_BLOCKS: u32 = 8_192;
/// IPv6 prefixes; default.
pub const V6_PREFIXES: u32 = 65_536;
/// Lines of the hash table before them, of five entries and 64 bytes each; a power of two. With 16,384
/// prefixes one line in 3,000 is full, which costs its other addresses a look into the trie.
pub const NET_LINES: u32 = 16_384;
/// Next hops of targets that the tables below have no room for, and of targets of senders with routes of their
/// own, 64 bytes each; a power of two.
pub const HOPS: u32 = 65_536;
/// Next hops of IPv4 targets that lead to a neighbour of [`ADJACENCIES`], 8 bytes each; a power of two. Eight
/// addresses that follow each other share a cache line. The goal's "500k endpoints", eight times its "64k": an address
/// seen from two ports has two places, and ranges are sparse.
pub const V4_HOPS: u32 = 1 << V4_HOP_BITS;
/// Bits of a place among them.
pub const V4_HOP_BITS: u32 = 19;
/// As [`V4_HOPS`] of IPv6 targets, 16 bytes each; a power of two.
pub const V6_HOPS: u32 = 524_288;
/// Neighbours that next hops lead to, by the port that packets come in on, and for IPv6 by the /64 of targets, 64
/// bytes each; a power of two. What has none has a place in [`HOPS`] for each target.
pub const ADJACENCIES: u32 = 32_768;
/// Different port sets of policies that track only what needs it, 8 KiB each. With two names for none and all
/// a byte names them.
pub const PORT_SETS: u32 = 254;
/// Words of 64 bits in the filter before the hub's own addresses: 1 bit in 20 is set when they are at most.
pub const LOCAL_WORDS: u32 = 16_384;
/// The hub's own addresses.
pub const LOCALS: u32 = 4_096;
/// Gateways of personalities, which lie beside their addresses: one of either family for each of [`SEGMENTS`], and
/// twice while an interface changes over.
pub const GATEWAYS: u32 = 65_536;
/// Pairs of personas that may talk; default.
pub const PEERS: u32 = 65_536;
/// Rules with a limit, over all personas.
pub const RATE_LIMITS: u32 = 16_384;
/// Sources that limits `per: source` remember; the least recently seen begins anew.
pub const RATE_SOURCES: u32 = 65_536;
/// Sources whose connections are counted, by persona and rule; the least recently seen is forgotten until
/// connections are counted anew.
pub const CONNECTION_SOURCES: u32 = 65_536;
/// Elements of all sets of all personas.
pub const SET_ELEMENTS: u32 = 262_144;
/// Sets of one persona.
pub const SETS_PER_PERSONA: usize = 32;
/// Elements of one set.
pub const ELEMENTS_PER_SET: usize = 16_384;
/// Addresses in quarantine, over all personas.
pub const QUARANTINED: u32 = 65_536;
/// Rules of the hub that come before every persona's.
pub const BASELINE_RULES: usize = 64;
/// Compiled rules per direction that those become at most.
pub const BASELINE_PER_DIRECTION: u32 = 256;
/// Rules per direction of an interface's policy that refuse what only its other personality has: eight addresses and
/// what they are in, twice.
pub const LEAVING_PER_DIRECTION: u32 = 32;
/// Distinct {segment, reason, direction} drop counters; default.
pub const DROPS: u32 = 65_536;
/// Prefixes that are replaced by others, each direction counted.
pub const TRANSLATIONS: u32 = 65_536;
/// Entries of connections that leave with the hub's address; each connection has two.
pub const MASQUERADES: u32 = 131_072;
/// Uplinks that connections may leave by with the hub's address.
pub const UPLINKS: u32 = 256;
/// Subjects that detectors watch at once; the least recently seen is forgotten.
pub const WATCHES: u32 = 8_192;
/// Sets of detectors that differ.
pub const DETECTOR_SETS: u32 = 4_096;
/// Addresses that detectors bar at once.
pub const BARS: u32 = 8_192;
/// Distinct {segment, detector} counters of detections.
pub const DETECTIONS: u32 = 65_536;
/// Bytes of the event ring; a power of two. About 3,200 events.
pub const EVENT_BYTES: u32 = 512 * 1_024;
/// Failsafe ports of the host.
pub const FAILSAFE: u32 = 64;
/// Distinct answers of candidate policies beside live ones.
pub const CANDIDATE_HITS: u32 = 16_384;
/// Flows that a candidate judged already; the least recently used is judged again.
pub const CANDIDATE_SEEN: u32 = 65_536;
/// IPv6 extension headers walked before the packet is dropped.
pub const EXTENSION_HEADERS: u32 = 6;
/// VLAN tags stripped in the data.
pub const VLAN_TAGS: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{adjacency, detect, flow, limit, nets, open, packet, rule, segment, set, shape, stats};

    #[test]
    fn default_maps_fit_in_192_mebibytes_on_two_cpus() {
        let per_entry = 64; // hash overhead: bucket share, element header
        let bytes = SEGMENTS as usize * size_of::<segment::Segment>()
            + POLICIES as usize * size_of::<segment::Policy>()
            + RULES as usize * (size_of::<rule::Rule>() + 2 * size_of::<stats::RuleHits>())
            + FLOWS as usize * (size_of::<flow::FlowKey>() + size_of::<flow::Flow>() + per_entry)
            + FLOWS_NEW as usize * (size_of::<flow::FlowKey>() + size_of::<flow::Flow>() + per_entry)
            + FRAGMENTS as usize * (size_of::<packet::FragmentKey>() + per_entry)
            + PORTS as usize * size_of::<segment::Port>()
            + V4_BLOCKS as usize * 1_024
            + NET_LINES as usize * size_of::<nets::NetLine>()
            + HOPS as usize * size_of::<flow::SharedHop>()
            + V4_HOPS as usize * size_of::<u64>()
            + V6_HOPS as usize * size_of::<adjacency::V6Hop>()
            + ADJACENCIES as usize * size_of::<adjacency::Adjacency>()
            + PORT_SETS as usize * size_of::<open::PortSet>()
            + WATCHES as usize * (size_of::<detect::WatchKey>() + size_of::<detect::Watch>() + per_entry)
            + DETECTOR_SETS as usize * size_of::<detect::DetectorSet>()
            + POLICIES as usize * size_of::<shape::Shape>()
            + SEGMENTS as usize * size_of::<shape::Policer>()
            + RATE_LIMITS as usize * size_of::<limit::Limit>()
            + RATE_SOURCES as usize * (size_of::<limit::LimitSource>() + 8 + per_entry)
            + CONNECTION_SOURCES as usize * (size_of::<limit::LimitSource>() + 8 + per_entry)
            + QUARANTINED as usize * (size_of::<set::QuarantineKey>() + 8 + per_entry)
            + 2 * SEGMENTS as usize * size_of::<stats::SegmentCounters>();
        assert!(bytes < 192 * 1_024 * 1_024, "{bytes} bytes");
    }

    #[test]
    fn policy_slots_fit_their_bits() {
        const { assert!(2 * SEGMENTS_MAX <= 1 << POLICY_SLOT_BITS) };
        const { assert!(PORTS.is_power_of_two() && EVENT_BYTES.is_power_of_two()) };
        const { assert!(SUMS.is_power_of_two() && ADJACENCIES.is_power_of_two()) };
        const { assert!(V6_HOPS.is_power_of_two()) };
        const { assert!(HOPS.is_power_of_two() && LOCAL_WORDS.is_power_of_two() && NET_LINES.is_power_of_two()) };
    }
}
