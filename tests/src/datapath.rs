//! The real kernel programs, loaded with maps of their own and run on single frames.
//!
//! Nothing is attached but what a run needs, so that no packet but the test's meets the programs. Programs
//! see interfaces of the calling thread's network namespace: use it inside [`crate::lab::Space::within`].

mod fill;
mod table;

use std::cell::{Ref, RefCell};
use std::path::PathBuf;

use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, PerCpuHashMap, RingBuf};
use aya::programs::xdp::XdpMode;
use aya::programs::{ProgramError, SchedClassifier, TestRun as _, Xdp};
use aya::{Ebpf, EbpfLoader, Pod, TestRunOptions, TestRunResult};
use hub_common::candidate::{CandidateHits, CandidateKey};
use hub_common::event::{Hook, REASON_SLOTS, Reason};
use hub_common::outcome::Outcome;
use hub_common::shape::Histogram;
use hub_common::stats::{DropKey, Hits, HookTotals, RuleHits, SegmentCounters};

/// The programs and their maps. A program is loaded when it is first run: most tests need one or two.
#[derive(Debug)]
pub struct DataPath {
    ebpf: RefCell<Ebpf>,
    /// Interfaces that the XDP program is attached to with its first run.
    xdp_interfaces: RefCell<Vec<String>>,
    filled: fill::Filled,
}

/// What a program did with a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What it returned.
    pub code: u32,
    /// The frame afterwards.
    pub frame: Vec<u8>,
}

/// `TCX_NEXT`: go on.
pub const TC_NEXT: u32 = u32::MAX;
/// `TC_ACT_SHOT`.
pub const TC_SHOT: u32 = 2;
/// `TC_ACT_REDIRECT`.
pub const TC_REDIRECT: u32 = 7;
/// `XDP_DROP`.
pub const XDP_DROP: u32 = 1;
/// `XDP_PASS`.
pub const XDP_PASS: u32 = 2;
/// `XDP_REDIRECT`.
pub const XDP_REDIRECT: u32 = 4;

/// Sizes of maps that are large enough for tests; the kernel makes elements per CPU one by one.
const SIZES: [(&str, u32); 7] = [
    ("FLOWS", 16_384),
    ("FLOWS_NEW", 16_384),
    ("POLICIES", 64),
    ("RULES", 16_384),
    ("RULE_HITS", 16_384),
    ("COUNTERS", 1_024),
    ("FLOWS_BEGUN", 1_024),
];

/// Size of `struct __sk_buff`, and where some of its fields are.
const SKB_BYTES: usize = 192;
const SKB_TSTAMP: usize = 152;
const SKB_GSO_SEGS: usize = 164;
const SKB_GSO_SIZE: usize = 176;
/// Longest frame that a run gives back.
const FRAME_BYTES: usize = 16_384;
/// A frame grows by less than this.
const ROOM_BYTES: usize = 256;

impl DataPath {
    /// Loads the object with maps large enough for tests.
    pub fn load() -> Self {
        Self::load_sized(&[])
    }

    /// Loads the object with these maps of other sizes.
    pub fn load_sized(sizes: &[(&str, u32)]) -> Self {
        let path = object();
        let bytes = std::fs::read(&path).unwrap_or_else(|error| {
            panic!("{}: {error}: build the kernel programs with `cargo xtask build`", path.display())
        });
        let mut loader = EbpfLoader::new();
        for (name, entries) in SIZES.iter().chain(sizes) {
            loader.map_max_entries(name, *entries);
        }
        let ebpf = loader.load(&bytes).unwrap_or_else(|error| panic!("load {}: {error}", path.display()));
        Self { ebpf: RefCell::new(ebpf), xdp_interfaces: RefCell::default(), filled: fill::Filled::default() }
    }

    /// Has the XDP program attached to an interface before it runs, because the kernel runs XDP only where it
    /// has been set up.
    pub fn attach_xdp(&mut self, interface: &str) {
        self.xdp_interfaces.get_mut().push(interface.to_owned());
    }

    /// Runs a TC program on a frame that comes in by `port`, or for `hub_tc_out` leaves by it.
    pub fn run_tc(&self, name: &str, port: u32, came_by: u32, frame: &[u8]) -> Run {
        self.run_tc_marked(name, port, (came_by, 0), frame)
    }

    /// As [`DataPath::run_tc`] on a frame with a mark.
    pub fn run_tc_marked(&self, name: &str, port: u32, (came_by, mark): (u32, u32), frame: &[u8]) -> Run {
        let program = self.classifier(name);
        // `struct __sk_buff` up to `ifindex`; the kernel takes what is missing as zero.
        let mut context = [0; 44];
        context[8..12].copy_from_slice(&mark.to_ne_bytes());
        context[36..40].copy_from_slice(&came_by.to_ne_bytes());
        context[40..44].copy_from_slice(&port.to_ne_bytes());
        run(frame, &context, |options| program.test_run(options))
    }

    /// As [`DataPath::run_tc`] on a frame that comes in; also when it may leave, 0 for at once.
    pub fn run_tc_timed(&self, name: &str, port: u32, frame: &[u8]) -> (Run, u64) {
        let program = self.classifier(name);
        let mut context = [0; 44];
        context[40..44].copy_from_slice(&port.to_ne_bytes());
        let mut after = [0; SKB_BYTES];
        let ran = run(frame, &context, |options| {
            program.test_run(TestRunOptions { ctx_out: Some(&mut after), ..options })
        });
        (ran, u64::from_ne_bytes(after[SKB_TSTAMP..SKB_TSTAMP + 8].try_into().unwrap()))
    }

    /// As [`DataPath::run_tc`] on a super-packet that comes in: so many segments with so many bytes of payload each.
    pub fn run_tc_super(&self, port: u32, frame: &[u8], (segments, size_bytes): (u32, u32)) -> Run {
        let program = self.classifier("hub_tc_in");
        let mut context = [0; SKB_BYTES];
        let fields = [(40, port), (SKB_GSO_SEGS, segments), (SKB_GSO_SIZE, size_bytes)];
        for (at, value) in fields {
            context[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        run(frame, &context, |options| program.test_run(options))
    }

    /// Whether the kernel builds an skb of this frame for a test: not without the whole fixed IP header, and
    /// not if it is longer than a page holds.
    pub fn takes_tc(frame: &[u8]) -> bool {
        if frame.len() > 3_500 {
            return false;
        }
        match frame.get(12..14) {
            Some([0x08, 0x00]) => frame.len() >= 34,
            Some([0x86, 0xdd]) => frame.len() >= 54,
            Some(_) => frame.len() > 14,
            None => false,
        }
    }

    /// Runs the XDP program on a frame that comes in by `port`.
    pub fn run_xdp(&self, port: u32, frame: &[u8]) -> Run {
        let program = self.xdp();
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let mut context = [0; 24];
        context[4..8].copy_from_slice(&(frame.len() as u32).to_ne_bytes());
        context[12..16].copy_from_slice(&port.to_ne_bytes());
        run(frame, &context, |options| program.test_run(options))
    }

    /// A TC program, loaded.
    fn classifier(&self, name: &str) -> Ref<'_, SchedClassifier> {
        {
            let mut ebpf = self.ebpf.borrow_mut();
            let program: &mut SchedClassifier = ebpf
                .program_mut(name)
                .unwrap_or_else(|| panic!("the object has no program {name}"))
                .try_into()
                .unwrap();
            if program.fd().is_err() {
                program.load().unwrap_or_else(|error| panic!("load {name}: {error}"));
            }
        }
        Ref::map(self.ebpf.borrow(), |ebpf| ebpf.program(name).unwrap().try_into().unwrap())
    }

    /// The XDP program, loaded and attached.
    fn xdp(&self) -> Ref<'_, Xdp> {
        {
            let mut ebpf = self.ebpf.borrow_mut();
            let program: &mut Xdp =
                ebpf.program_mut("hub_xdp_in").expect("the object has its XDP program").try_into().unwrap();
            if program.fd().is_err() {
                program.load().unwrap_or_else(|error| panic!("load hub_xdp_in: {error}"));
            }
            for interface in self.xdp_interfaces.take() {
                program.attach(&interface, XdpMode::Driver).unwrap();
            }
        }
        Ref::map(self.ebpf.borrow(), |ebpf| ebpf.program("hub_xdp_in").unwrap().try_into().unwrap())
    }

    fn map(&self, name: &str) -> Ref<'_, Map> {
        Ref::map(self.ebpf.borrow(), |ebpf| {
            ebpf.map(name).unwrap_or_else(|| panic!("the object has no map {name}"))
        })
    }

    fn map_mut(&mut self, name: &str) -> &mut Map {
        self.ebpf.get_mut().map_mut(name).unwrap_or_else(|| panic!("the object has no map {name}"))
    }

    /// An array map for reading and writing.
    pub fn array<V: Pod>(&mut self, name: &str) -> Array<&mut MapData, V> {
        Array::try_from(self.map_mut(name)).unwrap()
    }

    /// A hash map for reading and writing.
    pub fn hash<K: Pod, V: Pod>(&mut self, name: &str) -> HashMap<&mut MapData, K, V> {
        HashMap::try_from(self.map_mut(name)).unwrap()
    }

    /// A trie for reading and writing.
    pub fn trie<K: Pod, V: Pod>(&mut self, name: &str) -> LpmTrie<&mut MapData, K, V> {
        LpmTrie::try_from(self.map_mut(name)).unwrap()
    }

    /// The totals of one hook over all CPUs.
    pub fn totals(&self, hook: Hook) -> HookTotals {
        let map = self.map("TOTALS");
        let map: PerCpuArray<_, HookTotals> = PerCpuArray::try_from(&*map).unwrap();
        let mut sum = HookTotals::ZERO;
        for cpu in map.get(&(hook as u32), 0).unwrap().iter() {
            sum.received += cpu.received;
            sum.redirected += cpu.redirected;
            sum.passed += cpu.passed;
            sum.skipped += cpu.skipped;
            sum.replied += cpu.replied;
            sum.dropped += cpu.dropped;
            sum.events_lost += cpu.events_lost;
            sum.drops_unattributed += cpu.drops_unattributed;
        }
        sum
    }

    /// How often a hook dropped for a reason, over all CPUs.
    pub fn drops(&self, hook: Hook, reason: Reason) -> u64 {
        let map = self.map("REASONS");
        let map: PerCpuArray<_, u64> = PerCpuArray::try_from(&*map).unwrap();
        map.get(&(hook as u32 * REASON_SLOTS + reason as u32), 0).unwrap().iter().sum()
    }

    /// Totals of one segment over all CPUs.
    pub fn counters(&self, segment: u32) -> SegmentCounters {
        let map = self.map("COUNTERS");
        let map: PerCpuArray<_, SegmentCounters> = PerCpuArray::try_from(&*map).unwrap();
        let values = map.get(&segment, 0).unwrap();
        SegmentCounters {
            ingress: sum(values.iter().map(|cpu| cpu.ingress)),
            egress: sum(values.iter().map(|cpu| cpu.egress)),
            ingress_dropped: sum(values.iter().map(|cpu| cpu.ingress_dropped)),
            egress_dropped: sum(values.iter().map(|cpu| cpu.egress_dropped)),
        }
    }

    /// Drops of one segment, reason and direction over all CPUs.
    pub fn drop_hits(&self, key: &DropKey) -> Hits {
        let map = self.map("DROPS");
        let map: PerCpuHashMap<_, DropKey, Hits> = PerCpuHashMap::try_from(&*map).unwrap();
        sum(map.get(key, 0).unwrap().iter().copied())
    }

    /// Packets that the matcher judged by a rule, over all CPUs.
    pub fn rule_hits(&self, slot: u32) -> Hits {
        let map = self.map("RULE_HITS");
        let map: PerCpuArray<_, RuleHits> = PerCpuArray::try_from(&*map).unwrap();
        sum(map.get(&slot, 0).unwrap().iter().map(|hits| hits.judged))
    }

    /// Connections of a segment that ended, over all CPUs.
    pub fn flows_ended(&self, segment: u32) -> u64 {
        let map = self.map("FLOWS_BEGUN");
        let map: PerCpuArray<_, [u64; 3]> = PerCpuArray::try_from(&*map).unwrap();
        map.get(&segment, 0).unwrap().iter().map(|cpu| cpu[2]).sum()
    }

    /// Times of the handshakes of a segment, over all CPUs.
    pub fn handshakes(&self, segment: u32) -> Histogram {
        let map = self.map("RTTS");
        let map: PerCpuHashMap<_, u32, Histogram> = PerCpuHashMap::try_from(&*map).unwrap();
        let mut sum = Histogram::ZERO;
        // None before the first one.
        for cpu in map.get(&segment, 0).iter().flat_map(|values| values.iter()) {
            sum.buckets.iter_mut().zip(cpu.buckets).for_each(|(sum, count)| *sum += count);
            sum.sum_us += cpu.sum_us;
        }
        sum
    }

    /// What a candidate answered beside the live policy, and on which packets, over all CPUs.
    pub fn candidate_hits(&self) -> Vec<(CandidateKey, u64)> {
        let map = self.map("CANDIDATE_HITS");
        let map: PerCpuHashMap<_, CandidateKey, CandidateHits> = PerCpuHashMap::try_from(&*map).unwrap();
        let hits = map.iter().map(Result::unwrap);
        hits.map(|(key, values)| (key, values.iter().map(|hits| hits.packets).sum())).collect()
    }

    /// Takes all events out of the ring.
    pub fn events(&mut self) -> Vec<Vec<u8>> {
        let mut ring = RingBuf::try_from(self.map_mut("EVENTS")).unwrap();
        let mut events = Vec::new();
        while let Some(event) = ring.next() {
            events.push(event.to_vec());
        }
        events
    }

    /// Forgets how many refusals were answered in this tick.
    pub fn allow_answers(&mut self) {
        let cpus = aya::util::nr_cpus().unwrap();
        let mut map: PerCpuArray<_, [u64; 2]> = PerCpuArray::try_from(self.map_mut("REPLY_GATE")).unwrap();
        map.set(0, vec![[0, 0]; cpus].try_into().unwrap(), 0).unwrap();
    }

    /// The last answer of `hub_why`.
    pub fn answer(&self) -> Outcome {
        let map = self.map("ANSWER");
        let map: Array<_, Outcome> = Array::try_from(&*map).unwrap();
        map.get(&0, 0).unwrap()
    }
}

fn sum(hits: impl Iterator<Item = Hits>) -> Hits {
    hits.fold(Hits::ZERO, |sum, cpu| Hits {
        packets: sum.packets + cpu.packets,
        bytes: sum.bytes + cpu.bytes,
    })
}

/// Where the build puts the object.
pub fn object() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("target/ebpf/hub.bpf.o")
}

fn run(
    frame: &[u8],
    context: &[u8],
    program: impl FnOnce(TestRunOptions<'_>) -> Result<TestRunResult, ProgramError>,
) -> Run {
    let mut out = vec![0; FRAME_BYTES.min(frame.len() + ROOM_BYTES)];
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        ctx_in: Some(context),
        ..TestRunOptions::new()
    };
    let result = program(options).unwrap_or_else(|error| panic!("run on {frame:02x?}: {error:?}"));
    out.truncate(result.data_size_out as usize);
    Run { code: result.return_value, frame: out }
}
