//! Every map: what it holds, who writes it, who reads it, and why it is of its kind.
//!
//! "Daemon" is hubd; "programs" are the ones in this crate. Names reach the kernel cut to 15 characters.

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf};
use aya_ebpf::macros::btf_map;
use hub_common::address::Address;
use hub_common::adjacency::{Adjacency, V6Hop};
use hub_common::application::{Hearing, Signature};
use hub_common::candidate::{CandidateHits, CandidateKey};
use hub_common::detect::{Bar, BarKey, DetectionKey, DetectorSet, Watch, WatchKey};
use hub_common::event::{Event, HOOKS, REASON_SLOTS};
use hub_common::flow::{Flow, FlowKey, SharedHop};
use hub_common::limit::{Limit, LimitSource};
use hub_common::limits;
use hub_common::nets::NetLine;
use hub_common::open::PortSet;
use hub_common::outcome::{Outcome, SCRATCH_READ_ONLY, Scratch};
use hub_common::packet::{FragmentKey, FragmentPorts};
use hub_common::rule::Rule;
use hub_common::segment::{Failsafe, Gateway, Peer, Policy, Port, Segment, Settings};
use hub_common::set::{QuarantineKey, SET_KEY_BITS, SetKey};
use hub_common::shape::{Histogram, Policer, Shape};
use hub_common::stats::{DropKey, Hits, HookTotals, RuleHits, SegmentCounters, Sum};
use hub_common::trace::{TRACE_SLOTS, TraceFilter, TraceGate};
use hub_common::translation::{Masquerade, Prefix, TranslationKey, Uplink};

/// Element 0: numbers for every packet. Daemon writes, programs read.
#[btf_map]
pub(crate) static SETTINGS: Array<Settings, 1> = Array::new();

/// Ports by interface index modulo the size; the entry names its index. An array, because every packet
/// asks. Daemon writes, programs read.
#[btf_map]
pub(crate) static PORTS: Array<Port, { limits::PORTS as usize }> = Array::new();

/// Devices of tunnels by interface index, from `TUNNEL_INDEX` on: each index is used once on the whole machine. Daemon
/// writes, programs read.
#[btf_map]
pub(crate) static TUNNELS: HashMap<u32, Port, { limits::TUNNELS as usize }> = HashMap::new();

/// Segments by number. The policy word and its port sets are the one store that changes a persona's rules.
#[btf_map]
pub(crate) static SEGMENTS: Array<Segment, { limits::SEGMENTS as usize }, { BPF_F_MMAPABLE as usize }> =
    Array::new();

/// Immutable policies by slot.
#[btf_map]
pub(crate) static POLICIES: Array<Policy, { limits::POLICIES as usize }, { BPF_F_MMAPABLE as usize }> =
    Array::new();

/// Immutable rules; a policy owns a run of slots.
#[btf_map]
pub(crate) static RULES: Array<Rule, { limits::RULES as usize }, { BPF_F_MMAPABLE as usize }> = Array::new();

/// What applications look like, by slot: a rule names one. A slot that is used again says when that began.
/// Daemon writes, programs read.
#[btf_map]
pub(crate) static SIGNATURE_TABLE: Array<Signature, { limits::SIGNATURES as usize }> = Array::new();

/// Payloads that are read, by hook.
#[btf_map]
pub(crate) static HEARINGS: PerCpuArray<Hearing, { HOOKS as usize }> = PerCpuArray::new();

/// Port sets by slot; immutable while a policy names them.
#[btf_map]
pub(crate) static PORT_SETS: Array<PortSet, { limits::PORT_SETS as usize }> = Array::new();

/// Next hops of connections without flows that `V4_HOPS` and `V6_HOPS` have no word for: one place per address,
/// ingress port and sender's segment; a newcomer takes the place. Programs write and read; generations make old
/// entries void.
#[btf_map]
pub(crate) static HOPS: Array<SharedHop, { limits::HOPS as usize }, { BPF_F_MMAPABLE as usize }> =
    Array::new();

/// Next hops of IPv4 targets, for senders without routes of their own: a word per target and ingress port, see
/// [`hub_common::adjacency`]; a newcomer takes the place. Programs write and read.
#[btf_map]
pub(crate) static V4_HOPS: Array<u64, { limits::V4_HOPS as usize }, { BPF_F_MMAPABLE as usize }> =
    Array::new();

/// As `V4_HOPS` of IPv6 targets.
#[btf_map]
pub(crate) static V6_HOPS: Array<V6Hop, { limits::V6_HOPS as usize }, { BPF_F_MMAPABLE as usize }> =
    Array::new();

/// Neighbours that those words name. Programs write and read; a later generation may take a line.
#[btf_map]
pub(crate) static ADJACENCIES: Array<
    Adjacency,
    { limits::ADJACENCIES as usize },
    { BPF_F_MMAPABLE as usize },
> = Array::new();

/// One bit per place of a hub's own address; a clear bit says that the address is not the hub's. Asked
/// before `LOCALS` where every nanosecond counts.
#[btf_map]
pub(crate) static LOCAL_BITS: Array<u64, { limits::LOCAL_WORDS as usize }> = Array::new();

/// First level of the IPv4 table: an entry per /16; a segment, or a block of `V4_BLOCKS`.
#[btf_map]
pub(crate) static V4_ROOT: Array<u32, 65_536> = Array::new();

/// Second and third level: an entry per /24 or per address. Whole pages, so that sixteen addresses in a row share
/// a cache line.
#[btf_map]
pub(crate) static V4_BLOCKS: Array<[u32; 256], { limits::V4_BLOCKS as usize }, { BPF_F_MMAPABLE as usize }> =
    Array::new();

/// /64 and /48 prefixes to segments, by hash; the last line is the header. Whole pages, so that a line is one
/// cache line. Daemon writes.
#[btf_map]
pub(crate) static NETS: Array<NetLine, { limits::NET_LINES as usize + 1 }, { BPF_F_MMAPABLE as usize }> =
    Array::new();

/// IPv6 prefix to segment. Asked where `NETS` says so.
#[btf_map]
pub(crate) static V6_PREFIXES: LpmTrie<Address, u32, { limits::V6_PREFIXES as usize }> = LpmTrie::new();

/// The hub's own addresses. Asked for first packets and before failsafe drops only.
#[btf_map]
pub(crate) static LOCALS: HashMap<Address, u32, { limits::LOCALS as usize }> = HashMap::new();

/// Addresses of networks that the kernel takes for the hub's own, although they are no host's: broadcast, and all
/// routers of an IPv6 network. Asked for packets of members whose connection is not confirmed.
#[btf_map]
pub(crate) static EVERYONES: HashMap<
    Address,
    u32,
    { limits::LOCALS as usize },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

/// The hub's addresses that lie beside the ranges of the members who may ask for them. Asked for ARP and neighbour
/// solicitations about the hub's addresses only. Daemon writes.
#[btf_map]
pub(crate) static GATEWAYS: HashMap<
    Gateway,
    u32,
    { limits::GATEWAYS as usize },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

/// Host ports that stay reachable. Asked only when a packet is about to be dropped.
#[btf_map]
pub(crate) static FAILSAFE: HashMap<Failsafe, u32, { limits::FAILSAFE as usize }> = HashMap::new();

/// Pairs of segments that may talk.
#[btf_map]
pub(crate) static PEERS: HashMap<Peer, u32, { limits::PEERS as usize }> = HashMap::new();

/// Connections that are confirmed. Not LRU: a flood of new flows must not evict them. Programs insert, the
/// daemon collects.
#[btf_map]
pub(crate) static FLOWS: HashMap<FlowKey, Flow, { limits::FLOWS as usize }> = HashMap::new();

/// Half-open connections, least recently used first out.
#[btf_map]
pub(crate) static FLOWS_NEW: LruHashMap<FlowKey, Flow, { limits::FLOWS_NEW as usize }> = LruHashMap::new();

/// Transport ports of fragmented packets, from their first fragment.
#[btf_map]
pub(crate) static FRAGMENTS: LruHashMap<FragmentKey, FragmentPorts, { limits::FRAGMENTS as usize }> =
    LruHashMap::new();

/// Prefixes that are replaced by others at ports. The daemon writes; the kernel replaces nodes whole.
#[btf_map]
pub(crate) static TRANSLATIONS: LpmTrie<TranslationKey, Prefix, { limits::TRANSLATIONS as usize }> =
    LpmTrie::new();

/// The hub's addresses on uplinks by interface index. Daemon writes.
#[btf_map]
pub(crate) static UPLINKS: HashMap<u32, Uplink, { limits::UPLINKS as usize }> = HashMap::new();

/// Connections that leave with the hub's address, both ways. Not LRU: nothing could make a lost entry again.
/// Programs insert, the daemon removes entries with their flows.
#[btf_map]
pub(crate) static MASQUERADES: HashMap<
    FlowKey,
    Masquerade,
    { limits::MASQUERADES as usize },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

/// Largest packet of segments with `SEGMENT_CLAMPED`, in bytes. Daemon writes.
#[btf_map]
pub(crate) static MTUS: HashMap<u32, u32, { limits::SEGMENTS as usize }, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();
/// Slot in `DETECTOR_SETS` of each segment with `SEGMENT_WATCHED`. Daemon writes, programs read.
#[btf_map]
pub(crate) static WATCHED: Array<u32, { limits::SEGMENTS as usize }> = Array::new();

/// Immutable sets of detectors; segments with equal ones share a slot.
#[btf_map]
pub(crate) static DETECTOR_SETS: Array<DetectorSet, { limits::DETECTOR_SETS as usize }> = Array::new();

/// Signs of attacks per segment, detector and subject, least recently used first out. Asked for first
/// packets of flows, pings and drops of watched segments only.
#[btf_map]
pub(crate) static WATCHES: LruHashMap<WatchKey, Watch, { limits::WATCHES as usize }> = LruHashMap::new();

/// Addresses whose flows detectors refuse for the rest of a window.
#[btf_map]
pub(crate) static BARS: LruHashMap<BarKey, Bar, { limits::BARS as usize }> = LruHashMap::new();

/// How often detectors fired.
#[btf_map]
pub(crate) static DETECTIONS: HashMap<
    DetectionKey,
    u64,
    { limits::DETECTIONS as usize },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

/// Flows begun per segment, towards members and from members, and connections of TCP of either that ended.
/// Programs add.
#[btf_map]
pub(crate) static FLOWS_BEGUN: PerCpuArray<[u64; 3], { limits::SEGMENTS as usize }> = PerCpuArray::new();

/// Passed and dropped per segment. Programs add, the daemon sums over CPUs.
#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<SegmentCounters, { limits::SEGMENTS as usize }> = PerCpuArray::new();

/// Drops per segment, reason and direction; made on the first such drop.
#[btf_map]
pub(crate) static DROPS: PerCpuHashMap<
    DropKey,
    Hits,
    { limits::DROPS as usize },
    { BPF_F_NO_PREALLOC as usize },
> = PerCpuHashMap::new();

/// Packets that the matcher judged by each rule, at the slot that the rule names.
#[btf_map]
pub(crate) static RULE_HITS: PerCpuArray<RuleHits, { limits::RULES as usize }> = PerCpuArray::new();

/// Sums over all CPUs of elements of the three maps before, by index modulo the size. `hub_sum` writes, the daemon
/// reads after it ran.
#[btf_map]
pub(crate) static SUMS: Array<Sum, { limits::SUMS as usize }, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Elements of sets that are one address, with the tick at which each ends. Daemon writes; the matcher asks.
#[btf_map]
pub(crate) static SET_HOSTS: HashMap<
    SetKey,
    u64,
    { limits::SET_ELEMENTS as usize },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

/// Elements of sets that are wider, with the tick at which each ends. Daemon writes; the matcher asks for
/// addresses that are not in [`SET_HOSTS`].
#[btf_map]
pub(crate) static SETS: LpmTrie<SetKey, u64, { limits::SET_ELEMENTS as usize }> = LpmTrie::new();

/// Addresses in quarantine, with the tick at which each comes free. The daemon and rules put them in, the
/// daemon takes them out. Asked only for segments with `SEGMENT_QUARANTINE`.
#[btf_map]
pub(crate) static QUARANTINE: HashMap<QuarantineKey, u64, { limits::QUARANTINED as usize }> = HashMap::new();

/// Limits of rules; element 0 is never used. Daemon writes, programs move `full_at`.
#[btf_map]
pub(crate) static LIMITS: Array<Limit, { limits::RATE_LIMITS as usize }> = Array::new();

/// Buckets of limits that hold each source apart. Programs write, the least recently seen goes first.
#[btf_map]
pub(crate) static LIMIT_SOURCES: LruHashMap<LimitSource, u64, { limits::RATE_SOURCES as usize }> =
    LruHashMap::new();

/// Connections that sources have, by segment and limit. Programs add and take, the daemon counts the flows and
/// corrects; a full table forgets the least recently seen until then.
#[btf_map]
pub(crate) static CONNECTIONS: LruHashMap<LimitSource, u64, { limits::CONNECTION_SOURCES as usize }> =
    LruHashMap::new();

/// Connections that a source may have with members of segments with `SEGMENT_CONNECTIONS`. Daemon writes.
#[btf_map]
pub(crate) static CONNECTION_MAX: HashMap<
    u32,
    u32,
    { limits::SEGMENTS as usize },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

/// Totals per hook.
#[btf_map]
pub(crate) static TOTALS: PerCpuArray<HookTotals, { HOOKS as usize }> = PerCpuArray::new();

/// Drops per hook and reason: index is hook × `REASON_SLOTS` + reason.
#[btf_map]
pub(crate) static REASONS: PerCpuArray<u64, { (HOOKS * REASON_SLOTS) as usize }> = PerCpuArray::new();

/// Tick of the last sampled event per reason: one a tick and CPU at most.
#[btf_map]
pub(crate) static EVENT_GATE: PerCpuArray<u64, { REASON_SLOTS as usize }> = PerCpuArray::new();

/// Rejects answered in the current tick, per CPU: {tick, count}.
#[btf_map]
pub(crate) static REPLY_GATE: PerCpuArray<[u64; 2], 1> = PerCpuArray::new();

/// Shapes by slot of their policies: the store that changes a segment's policy changes its quality of service.
/// Daemon writes, programs read, for segments with `SEGMENT_SHAPED` only.
#[btf_map]
pub(crate) static SHAPES: Array<Shape, { limits::POLICIES as usize }> = Array::new();

/// Hard caps by segment: shared by all CPUs, since a cap is one.
#[btf_map]
pub(crate) static POLICERS: Array<Policer, { limits::SEGMENTS as usize }> = Array::new();

/// Times of handshakes per segment; made with the first one.
#[btf_map]
pub(crate) static RTTS: PerCpuHashMap<
    u32,
    Histogram,
    { limits::SEGMENTS as usize },
    { BPF_F_NO_PREALLOC as usize },
> = PerCpuHashMap::new();

/// Drops and logged packets, for the daemon.
#[btf_map]
pub(crate) static EVENTS: RingBuf<Event, { limits::EVENT_BYTES as usize }> = RingBuf::new();

/// What operators trace. Looked at only where `Settings::traces` has a bit. Daemon writes, programs read.
#[btf_map]
pub(crate) static TRACES: Array<TraceFilter, { TRACE_SLOTS as usize }> = Array::new();

/// Rate and losses of each trace, per CPU. Programs add, the daemon sums over CPUs.
#[btf_map]
pub(crate) static TRACE_GATES: PerCpuArray<TraceGate, { TRACE_SLOTS as usize }> = PerCpuArray::new();

/// Answers of candidate policies beside live ones; made on the first such answer.
#[btf_map]
pub(crate) static CANDIDATE_HITS: PerCpuHashMap<
    CandidateKey,
    CandidateHits,
    { limits::CANDIDATE_HITS as usize },
    { BPF_F_NO_PREALLOC as usize },
> = PerCpuHashMap::new();

/// Flows that candidates judged: the policy words, per side of the flow.
#[btf_map]
pub(crate) static CANDIDATE_SEEN: LruHashMap<FlowKey, [u32; 2], { limits::CANDIDATE_SEEN as usize }> =
    LruHashMap::new();

/// Answers that `CANDIDATE_HITS` had no room for.
#[btf_map]
pub(crate) static CANDIDATE_LOST: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Working space per hook; element 3 is `hub_why`'s. The stack has 512 bytes.
#[btf_map]
pub(crate) static SCRATCH: PerCpuArray<Scratch, 4> = PerCpuArray::new();

/// The last answer of `hub_why`; the daemon asks one question at a time.
#[btf_map]
pub(crate) static ANSWER: Array<Outcome, 1> = Array::new();

/// What `hub_clock` read: {`bpf_jiffies64`, `CLOCK_BOOTTIME` in nanoseconds}. The daemon reads it after a run.
#[btf_map]
pub(crate) static CLOCK: Array<[u64; 2], 1> = Array::new();

/// Element of [`SCRATCH`] that `hub_why` uses.
pub(crate) const SCRATCH_WHY: u32 = 3;

/// The working space that a caller handed to a global function, as the map value that it is.
// VERIFIER(6.1): an argument is `mem`, and map helpers take keys and values from the stack, packets and map
// values only; a function that gives them parts of the working space looks it up anew.
#[inline(always)]
pub(crate) fn own(handed: *mut Scratch) -> Option<&'static mut Scratch> {
    // SAFETY: the verifier holds callers to a valid pointer or null.
    let handed = unsafe { handed.as_ref() }?;
    let element = if handed.flags & SCRATCH_READ_ONLY != 0 { SCRATCH_WHY } else { handed.hook };
    // SAFETY: the caller's own element; it does not use it while the function runs.
    SCRATCH.get_ptr_mut(element).map(|scratch| unsafe { &mut *scratch })
}

/// The tick at which an address leaves a set of the segment that is being asked, 0 if it is not in.
// VERIFIER(6.18): the stacks of all callers count, so that the key is made in the working space; see [`own`].
#[inline(always)]
pub(crate) fn set_until(handed: &Scratch, set: u32, address: &Address) -> u64 {
    let element = if handed.flags & SCRATCH_READ_ONLY != 0 { SCRATCH_WHY } else { handed.hook };
    let Some(scratch) = SCRATCH.get_ptr_mut(element) else { return 0 };
    // SAFETY: the caller's own element; nobody else looks at these two fields.
    let (bits, key) = unsafe { (&raw mut (*scratch).set_bits, &raw mut (*scratch).set_key) };
    // SAFETY: as above.
    unsafe { bits.write(SET_KEY_BITS + 128) };
    // SAFETY: as above.
    unsafe { key.write(SetKey { segment: handed.asked, set, address: *address }) };
    // SAFETY: as above; from here on it is only read.
    let host: &SetKey = unsafe { &*key };
    // SAFETY: values are written whole.
    if let Some(until) = unsafe { SET_HOSTS.get(host) } {
        return *until;
    }
    // SAFETY: the two fields lie one behind the other, as a key has them.
    let key = unsafe { &*bits.cast::<Key<SetKey>>() };
    SETS.get(key).copied().unwrap_or(0)
}
