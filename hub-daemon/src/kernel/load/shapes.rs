//! Every map: what it is for, its sizes, and the entries that operators choose.

use aya::maps::MapType::{self, Array, Hash, LpmTrie, LruHash, PerCpuArray, PerCpuHash, RingBuf};
use hub_common::address::Address;
use hub_common::adjacency::{Adjacency, V6Hop};
use hub_common::application::Signature;
use hub_common::candidate::{CandidateHits, CandidateKey};
use hub_common::detect::{Bar, BarKey, DetectionKey, DetectorSet, Watch, WatchKey};
use hub_common::event::{HOOKS, REASON_SLOTS};
use hub_common::flow::{Flow, FlowKey, SharedHop};
use hub_common::limit::{Limit, LimitSource};
use hub_common::limits;
use hub_common::nets::NetLine;
use hub_common::open::PortSet;
use hub_common::outcome::Outcome;
use hub_common::packet::{FragmentKey, FragmentPorts};
use hub_common::rule::Rule;
use hub_common::segment::{Failsafe, Gateway, Peer, Policy, Port, Segment, Settings};
use hub_common::set::{QuarantineKey, SetKey};
use hub_common::shape::{Histogram, Policer};
use hub_common::stats::{DropKey, Hits, HookTotals, RuleHits, SegmentCounters, Sum};
use hub_common::trace::{TRACE_SLOTS, TraceFilter, TraceGate};
use hub_common::translation::{Masquerade, Prefix, TranslationKey, Uplink};

/// Entries of the maps whose size operators choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacities {
    /// Personas, expired ones in quarantine included.
    pub segments: u32,
    /// Compiled rules of all personas.
    pub rules: u32,
    /// Connections that are confirmed.
    pub flows: u32,
    /// Half-open connections.
    pub opening_flows: u32,
    /// IPv4 blocks: one for each /16 and /24 that holds longer prefixes.
    pub v4_blocks: u32,
    /// IPv6 prefixes.
    pub v6_prefixes: u32,
    /// Pairs of personas that may talk.
    pub peers: u32,
}

impl Default for Capacities {
    fn default() -> Self {
        Self {
            segments: limits::SEGMENTS,
            rules: limits::RULES,
            flows: limits::FLOWS,
            opening_flows: limits::FLOWS_NEW,
            v4_blocks: limits::V4_BLOCKS,
            v6_prefixes: limits::V6_PREFIXES,
            peers: limits::PEERS,
        }
    }
}

/// What a map is for, and so what becomes of its entries where a start cannot use it as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What personas may do. Entries lead from map to map, and the daemon alone writes them.
    Policy,
    /// Connections, by the tick of their last packet, with which values begin. Programs write.
    Flows,
    /// What programs noted and nothing makes again.
    State,
    /// What programs noted and note again.
    Memory,
    /// Sums: so many words of each value at most; what is behind them is an example.
    Counts(usize),
    /// Next hops, which name each other.
    Hops,
    /// Of use for a moment.
    Moment,
}

/// Every word of a value is a sum.
const SUMS_ALONE: Kind = Kind::Counts(usize::MAX);

/// How a map is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// The name that it is pinned under.
    pub(crate) name: &'static str,
    /// What it is for.
    pub(crate) kind: Kind,
    /// What the kernel makes of it.
    pub(crate) form: Form,
}

/// What the kernel says of a map.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Form {
    /// Its type.
    pub(crate) map: MapType,
    /// Bytes of a key.
    pub(crate) key: usize,
    /// Bytes of a value.
    pub(crate) value: usize,
    /// Entries.
    pub(crate) entries: u32,
}

impl Eq for Form {}

impl Form {
    /// Whether entries of the one are entries of the other, however many there may be.
    pub(crate) fn has_layout(&self, other: &Self) -> bool {
        (self.map, self.key, self.value) == (other.map, other.key, other.value)
    }
}

impl Capacities {
    /// Every map, by the name it is pinned under.
    #[expect(clippy::too_many_lines, reason = "a table with a row for each map")]
    pub(crate) fn maps(&self) -> [Shape; 61] {
        let segments = self.segments.saturating_add(1);
        let drops = limits::DROPS.max(self.segments.saturating_mul(4));
        // Each persona may bring a gateway address of either family.
        let locals = limits::LOCALS.max(self.segments.saturating_mul(2));
        let (index, address) = (size_of::<u32>(), size_of::<Address>());
        [
            ("SETTINGS", Kind::Policy, Array, index, size_of::<Settings>(), 1),
            ("PORTS", Kind::Policy, Array, index, size_of::<Port>(), limits::PORTS),
            ("TUNNELS", Kind::Policy, Hash, index, size_of::<Port>(), limits::TUNNELS),
            ("SEGMENTS", Kind::Policy, Array, index, size_of::<Segment>(), segments),
            ("POLICIES", Kind::Policy, Array, index, size_of::<Policy>(), self.policies()),
            ("RULES", Kind::Policy, Array, index, size_of::<Rule>(), self.rules),
            ("SIGNATURE_TABLE", Kind::Policy, Array, index, size_of::<Signature>(), limits::SIGNATURES),
            ("PORT_SETS", Kind::Policy, Array, index, size_of::<PortSet>(), limits::PORT_SETS),
            ("HOPS", Kind::Hops, Array, index, size_of::<SharedHop>(), limits::HOPS),
            ("V4_HOPS", Kind::Hops, Array, index, size_of::<u64>(), limits::V4_HOPS),
            ("V6_HOPS", Kind::Hops, Array, index, size_of::<V6Hop>(), limits::V6_HOPS),
            ("ADJACENCIES", Kind::Hops, Array, index, size_of::<Adjacency>(), limits::ADJACENCIES),
            ("LOCAL_BITS", Kind::Policy, Array, index, size_of::<u64>(), limits::LOCAL_WORDS),
            ("V4_ROOT", Kind::Policy, Array, index, size_of::<u32>(), 65_536),
            ("V4_BLOCKS", Kind::Policy, Array, index, 256 * size_of::<u32>(), self.v4_blocks),
            ("V6_PREFIXES", Kind::Policy, LpmTrie, address + 4, size_of::<u32>(), self.v6_prefixes),
            ("NETS", Kind::Policy, Array, index, size_of::<NetLine>(), limits::NET_LINES + 1),
            ("LOCALS", Kind::Policy, Hash, address, size_of::<u32>(), locals),
            ("EVERYONES", Kind::Policy, Hash, address, size_of::<u32>(), locals),
            ("GATEWAYS", Kind::Policy, Hash, size_of::<Gateway>(), size_of::<u32>(), limits::GATEWAYS),
            ("FAILSAFE", Kind::Policy, Hash, size_of::<Failsafe>(), size_of::<u32>(), limits::FAILSAFE),
            ("PEERS", Kind::Policy, Hash, size_of::<Peer>(), size_of::<u32>(), self.peers),
            ("FLOWS", Kind::Flows, Hash, size_of::<FlowKey>(), size_of::<Flow>(), self.flows),
            ("FLOWS_NEW", Kind::Flows, LruHash, size_of::<FlowKey>(), size_of::<Flow>(), self.opening_flows),
            (
                "FRAGMENTS",
                Kind::Memory,
                LruHash,
                size_of::<FragmentKey>(),
                size_of::<FragmentPorts>(),
                limits::FRAGMENTS,
            ),
            (
                "TRANSLATIONS",
                Kind::Policy,
                LpmTrie,
                size_of::<TranslationKey>() + 4,
                size_of::<Prefix>(),
                limits::TRANSLATIONS,
            ),
            ("UPLINKS", Kind::Policy, Hash, index, size_of::<Uplink>(), limits::UPLINKS),
            (
                "MASQUERADES",
                Kind::State,
                Hash,
                size_of::<FlowKey>(),
                size_of::<Masquerade>(),
                limits::MASQUERADES,
            ),
            ("MTUS", Kind::Policy, Hash, index, size_of::<u32>(), segments),
            ("COUNTERS", SUMS_ALONE, PerCpuArray, index, size_of::<SegmentCounters>(), segments),
            ("DROPS", SUMS_ALONE, PerCpuHash, size_of::<DropKey>(), size_of::<Hits>(), drops),
            ("RULE_HITS", SUMS_ALONE, PerCpuArray, index, size_of::<RuleHits>(), self.rules),
            ("SUMS", Kind::Moment, Array, index, size_of::<Sum>(), limits::SUMS),
            ("SETS", Kind::Policy, LpmTrie, size_of::<SetKey>() + 4, size_of::<u64>(), limits::SET_ELEMENTS),
            ("SET_HOSTS", Kind::Policy, Hash, size_of::<SetKey>(), size_of::<u64>(), limits::SET_ELEMENTS),
            (
                "QUARANTINE",
                Kind::State,
                Hash,
                size_of::<QuarantineKey>(),
                size_of::<u64>(),
                limits::QUARANTINED,
            ),
            ("LIMITS", Kind::Policy, Array, index, size_of::<Limit>(), limits::RATE_LIMITS),
            (
                "LIMIT_SOURCES",
                Kind::Memory,
                LruHash,
                size_of::<LimitSource>(),
                size_of::<u64>(),
                limits::RATE_SOURCES,
            ),
            (
                "CONNECTIONS",
                Kind::Memory,
                LruHash,
                size_of::<LimitSource>(),
                size_of::<u64>(),
                limits::CONNECTION_SOURCES,
            ),
            ("CONNECTION_MAX", Kind::Policy, Hash, index, size_of::<u32>(), segments),
            ("TOTALS", SUMS_ALONE, PerCpuArray, index, size_of::<HookTotals>(), HOOKS),
            ("REASONS", SUMS_ALONE, PerCpuArray, index, size_of::<u64>(), HOOKS * REASON_SLOTS),
            ("EVENT_GATE", Kind::Moment, PerCpuArray, index, size_of::<u64>(), REASON_SLOTS),
            ("WATCHED", Kind::Policy, Array, index, size_of::<u32>(), segments),
            ("DETECTOR_SETS", Kind::Policy, Array, index, size_of::<DetectorSet>(), limits::DETECTOR_SETS),
            ("WATCHES", Kind::Memory, LruHash, size_of::<WatchKey>(), size_of::<Watch>(), limits::WATCHES),
            ("BARS", Kind::Memory, LruHash, size_of::<BarKey>(), size_of::<Bar>(), limits::BARS),
            ("DETECTIONS", SUMS_ALONE, Hash, size_of::<DetectionKey>(), size_of::<u64>(), limits::DETECTIONS),
            ("FLOWS_BEGUN", SUMS_ALONE, PerCpuArray, index, 3 * size_of::<u64>(), segments),
            ("REPLY_GATE", Kind::Moment, PerCpuArray, index, 2 * size_of::<u64>(), 1),
            ("SHAPES", Kind::Policy, Array, index, size_of::<hub_common::shape::Shape>(), self.policies()),
            ("POLICERS", Kind::Memory, Array, index, size_of::<Policer>(), segments),
            ("RTTS", SUMS_ALONE, PerCpuHash, index, size_of::<Histogram>(), segments),
            ("EVENTS", Kind::Moment, RingBuf, 0, 0, limits::EVENT_BYTES),
            ("ANSWER", Kind::Moment, Array, index, size_of::<Outcome>(), 1),
            ("CLOCK", Kind::Moment, Array, index, 2 * size_of::<u64>(), 1),
            ("TRACES", Kind::Moment, Array, index, size_of::<TraceFilter>(), TRACE_SLOTS),
            ("TRACE_GATES", Kind::Moment, PerCpuArray, index, size_of::<TraceGate>(), TRACE_SLOTS),
            (
                "CANDIDATE_HITS",
                Kind::Counts(2),
                PerCpuHash,
                size_of::<CandidateKey>(),
                size_of::<CandidateHits>(),
                limits::CANDIDATE_HITS,
            ),
            (
                "CANDIDATE_SEEN",
                Kind::Memory,
                LruHash,
                size_of::<FlowKey>(),
                2 * index,
                limits::CANDIDATE_SEEN,
            ),
            ("CANDIDATE_LOST", SUMS_ALONE, PerCpuArray, index, size_of::<u64>(), 1),
        ]
        .map(|(name, kind, map, key, value, entries)| Shape {
            name,
            kind,
            form: Form { map, key, value, entries },
        })
    }

    /// Policies alive at once: an update builds beside.
    pub fn policies(&self) -> u32 {
        self.segments.saturating_mul(2)
    }
}
