//! Every map: what it holds, who writes it, who reads it, and why it is of its kind.
//!
//! "Daemon" is hubd; "programs" are the ones in this crate. Names reach the kernel cut to 15 characters.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf};
use aya_ebpf::macros::btf_map;
use hub_common::address::Address;
use hub_common::event::{Event, HOOKS, REASON_SLOTS};
use hub_common::flow::{Flow, FlowKey};
use hub_common::limit::{Limit, LimitSource};
use hub_common::limits;
use hub_common::outcome::{Outcome, Scratch};
use hub_common::packet::{FragmentKey, FragmentPorts};
use hub_common::rule::Rule;
use hub_common::segment::{Failsafe, Peer, Policy, Port, Segment, Settings};
use hub_common::set::{QuarantineKey, SET_KEY_BITS, SetKey};
use hub_common::stats::{DropKey, Hits, HookTotals, RuleHits, SegmentCounters};

/// Element 0: numbers for every packet. Daemon writes, programs read.
#[btf_map]
pub(crate) static SETTINGS: Array<Settings, 1> = Array::new();

/// Ports by interface index modulo the size; the entry names its index. An array, because every packet
/// asks. Daemon writes, programs read.
#[btf_map]
pub(crate) static PORTS: Array<Port, { limits::PORTS as usize }> = Array::new();

/// Segments by number. The policy word in it is the one store that changes a persona's rules.
#[btf_map]
pub(crate) static SEGMENTS: Array<Segment, { limits::SEGMENTS as usize }> = Array::new();

/// Immutable policies by slot.
#[btf_map]
pub(crate) static POLICIES: Array<Policy, { limits::POLICIES as usize }> = Array::new();

/// Immutable rules; a policy owns a run of slots.
#[btf_map]
pub(crate) static RULES: Array<Rule, { limits::RULES as usize }> = Array::new();

/// First level of the IPv4 table: an entry per /16; a segment, or a block of `V4_BLOCKS`.
#[btf_map]
pub(crate) static V4_ROOT: Array<u32, 65_536> = Array::new();

/// Second and third level: an entry per /24 or per address.
#[btf_map]
pub(crate) static V4_BLOCKS: Array<[u32; 256], { limits::V4_BLOCKS as usize }> = Array::new();

/// IPv6 prefix to segment.
#[btf_map]
pub(crate) static V6_PREFIXES: LpmTrie<Address, u32, { limits::V6_PREFIXES as usize }> = LpmTrie::new();

/// The hub's own addresses. Asked for first packets and before failsafe drops only.
#[btf_map]
pub(crate) static LOCALS: HashMap<Address, u32, { limits::LOCALS as usize }> = HashMap::new();

/// Host ports that stay reachable. Asked only when a packet is about to be dropped.
#[btf_map]
pub(crate) static FAILSAFE: HashMap<Failsafe, u32, { limits::FAILSAFE as usize }> = HashMap::new();

/// Pairs of segments that may talk.
#[btf_map]
pub(crate) static PEERS: HashMap<Peer, u32, { limits::PEERS as usize }> = HashMap::new();

/// Connections that saw a reply. Not LRU: a flood of new flows must not evict them. Programs insert, the
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

/// Elements of sets, with the tick at which each ends. Daemon writes; the matcher asks.
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

/// Drops and logged packets, for the daemon.
#[btf_map]
pub(crate) static EVENTS: RingBuf<Event, { limits::EVENT_BYTES as usize }> = RingBuf::new();

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

/// The tick at which an address leaves a set of a segment, 0 if it is not in.
#[inline(always)]
pub(crate) fn set_until(segment: u32, set: u32, address: &Address) -> u64 {
    let key = SetKey { segment, set, address: *address };
    SETS.get(&Key::new(SET_KEY_BITS + 128, key)).copied().unwrap_or(0)
}

/// The segment of an address, 0 for none.
#[inline(always)]
pub(crate) fn segment_of(address: &Address) -> u32 {
    if !hub_common::address::is_v4(address) {
        return V6_PREFIXES.get(&Key::new(128, *address)).copied().unwrap_or(0);
    }
    let root = u32::from(address[12]) << 8 | u32::from(address[13]);
    let Some(entry) = V4_ROOT.get(root) else { return 0 };
    let entry = block_entry(*entry, address[14]);
    block_entry(entry, address[15])
}

/// Follows an entry that names a block; any other entry is its own answer.
#[inline(always)]
fn block_entry(entry: u32, index: u8) -> u32 {
    use hub_common::segment::V4_BLOCK;
    if entry & V4_BLOCK == 0 {
        return entry;
    }
    V4_BLOCKS.get(entry & !V4_BLOCK).map_or(0, |block| block[usize::from(index)])
}
