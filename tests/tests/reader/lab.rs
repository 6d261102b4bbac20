//! The programs with tables filled by hand, and everything they need in namespaces of the test's thread:
//! nothing to clean up, also after a panic or a kill.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, PerCpuValues};
use aya::programs::{Program, SchedClassifier, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader, Pod};
use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep, TcpHeader};
use hub_common::address::mapped;
use hub_common::flow::TIMEOUT_SECONDS;
use hub_common::packet::protocol;
use hub_common::rule::{
    ACTION_ALLOW, ACTION_DENY, ACTION_REJECT, RULE_ICMP_TYPE, RULE_LOG, RULE_PROTOCOL, RULE_TARGET_PORT, Rule,
};
use hub_common::segment::{
    Policy, Port, ROLE_SEGMENT, ROLE_UPLINK, STATE_ACTIVE, Segment, Settings, V4_BLOCK, policy_word,
};
use hub_daemon::document::persona::PersonaDocument;
use hub_daemon::kernel::clock::Clock;
use hub_daemon::kernel::reader::Reader;
use hub_daemon::model::{PersonaId, SegmentId};
use hub_daemon::view::{Origin, PersonaState, PersonaView, Snapshot};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::Uid;
use tokio::sync::watch;

/// The loopback, which is the uplink here.
pub(crate) const UPLINK: u32 = 1;
/// The persona.
pub(crate) const WEB: u32 = 1;
/// Its only member.
pub(crate) const MEMBER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 80);
/// Somebody outside.
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The member's port, by name.
pub(crate) const MEMBER_PORT: &str = "member0";

/// MAC of the member's port.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Where the BPF file system of a lab is; each lab sees its own there.
const MOUNT: &str = "/sys/fs/bpf";
const MAPS: [&str; 28] = [
    "SETTINGS",
    "PORTS",
    "SEGMENTS",
    "POLICIES",
    "RULES",
    "V4_ROOT",
    "V4_BLOCKS",
    "FLOWS",
    "FLOWS_NEW",
    "COUNTERS",
    "DROPS",
    "FLOWS_BEGUN",
    "DETECTIONS",
    "MASQUERADES",
    "CONNECTIONS",
    "CANDIDATE_HITS",
    "CANDIDATE_LOST",
    "RTTS",
    "SIGNATURE_TABLE",
    "SHAPES",
    "POLICERS",
    "RULE_HITS",
    "SUMS",
    "QUARANTINE",
    "TOTALS",
    "REASONS",
    "EVENTS",
    "ANSWER",
];
const PROGRAMS: [&str; 4] = ["hub_tc_in", "hub_why", "hub_clock", "hub_sum"];

pub(crate) struct Lab {
    ebpf: Ebpf,
    pins: PathBuf,
    member: u32,
    names: watch::Sender<Arc<Snapshot>>,
    pub(crate) clock: Clock,
}

/// Runs a test on loaded programs; without root it says that the test is left out.
pub(crate) fn lab(test: impl FnOnce(&mut Lab) + Send + 'static) {
    let asked = std::env::var("HUB_TEST_ROOT").ok();
    if asked.as_deref() == Some("0") || (asked.is_none() && !Uid::effective().is_root()) {
        let name = std::thread::current().name().unwrap_or("test").to_owned();
        eprintln!("{name}: left out, it needs root (HUB_TEST_ROOT=1 insists)");
        return;
    }
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("namespaces need CAP_SYS_ADMIN");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        mount(Some("bpf"), MOUNT, Some("bpf"), MsFlags::empty(), None::<&str>).unwrap();
        ip("link set lo up");
        ip(&format!("link add {MEMBER_PORT} address 02:00:00:00:00:01 type veth peer name member1"));
        ip("link set member1 up");
        ip(&format!("link set {MEMBER_PORT} up"));
        ip("address add 192.0.2.254/24 dev lo");
        ip(&format!("route add 10.0.0.0/24 dev {MEMBER_PORT}"));
        test(&mut Lab::new());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split_whitespace()).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

fn object() -> PathBuf {
    let chosen = std::env::var_os("HUB_EBPF_OBJECT").map(PathBuf::from);
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/ebpf/hub.bpf.o");
    chosen.unwrap_or(built)
}

impl Lab {
    fn new() -> Self {
        let pins = Path::new(MOUNT).join("hub/v1");
        std::fs::create_dir_all(pins.join("prog")).unwrap();
        let mut loader = EbpfLoader::new();
        for name in MAPS.into_iter().chain(["CLOCK"]) {
            loader.map_pin_path(name, pins.join(name));
        }
        let mut ebpf = loader.load(&std::fs::read(object()).expect("cargo xtask build makes it")).unwrap();
        for name in PROGRAMS {
            let Program::SchedClassifier(program) = ebpf.program_mut(name).unwrap() else { panic!("{name}") };
            program.load().unwrap();
            program.pin(pins.join("prog").join(name)).unwrap();
        }
        let clock = Clock::calibrate(&pins).unwrap();
        let member = nix::net::if_::if_nametoindex(MEMBER_PORT).unwrap();
        let (names, _) = watch::channel(Arc::new(snapshot()));
        let mut lab = Self { ebpf, pins, member, names, clock };
        lab.fill();
        lab
    }

    /// One persona, `10.0.0.0/24`, behind its port.
    fn fill(&mut self) {
        let timeout_ticks = TIMEOUT_SECONDS
            .map(|seconds| self.clock.ticks(std::time::Duration::from_secs(seconds.into())) as u32);
        let settings = Settings {
            route_generation: 1,
            class_generation: 1,
            timeout_ticks,
            hop_ticks: 250,
            ..Settings::ZERO
        };
        self.put("SETTINGS", 0, settings);
        self.put("PORTS", UPLINK, Port { ifindex: UPLINK, role: ROLE_UPLINK, ..Port::ZERO });
        let port = Port { ifindex: self.member, role: ROLE_SEGMENT, segment: WEB, ..Port::ZERO };
        self.put("PORTS", self.member, port);
        self.put("V4_ROOT", 10 << 8, V4_BLOCK);
        let mut block = [0u32; 256];
        block[0] = WEB;
        self.put("V4_BLOCKS", 0, block);
        let base = Rule { flags: RULE_PROTOCOL | RULE_TARGET_PORT, protocol: protocol::TCP, ..Rule::ZERO };
        let rules = [
            Rule { target_port: [80, 80], action: ACTION_ALLOW, index: 0, ..base },
            Rule { target_port: [443, 443], action: ACTION_ALLOW, index: 0, ..base },
            Rule {
                target_port: [22, 22],
                action: ACTION_DENY,
                index: 1,
                flags: base.flags | RULE_LOG,
                ..base
            },
            Rule { target_port: [53, 53], protocol: protocol::UDP, action: ACTION_REJECT, index: 2, ..base },
            Rule {
                protocol: protocol::ICMP,
                icmp_type: 8,
                flags: RULE_PROTOCOL | RULE_ICMP_TYPE,
                index: 0xffff,
                ..Rule::ZERO
            },
        ];
        for (slot, rule) in (10..).zip(rules) {
            // Compiled rules of one origin share a counter.
            let counter = if rule.index == 0 { 10 } else { slot };
            self.put("RULES", slot, Rule { counter, ..rule });
        }
        let policy = Policy {
            protocols: [u32::MAX; 8],
            egress_default: [u32::MAX; 8],
            ingress_first: 10,
            ingress_count: 5,
            word: policy_word(1, 1),
            ..Policy::ZERO
        };
        self.put("POLICIES", 1, policy);
        self.segment(|_| {});
    }

    /// Changes the persona's segment from what it is at first.
    pub(crate) fn segment(&mut self, change: impl FnOnce(&mut Segment)) {
        let mut segment = Segment {
            expires_tick: u64::MAX,
            policy: policy_word(1, 1),
            state: STATE_ACTIVE,
            ..Segment::ZERO
        };
        change(&mut segment);
        self.put("SEGMENTS", WEB, segment);
    }

    pub(crate) fn put<V: Pod>(&mut self, map: &str, index: u32, value: V) {
        let mut array: Array<_, V> = self.ebpf.map_mut(map).unwrap().try_into().unwrap();
        array.set(index, value, 0).unwrap();
    }

    /// Sets the value of each CPU.
    pub(crate) fn put_each<V: Pod>(&mut self, map: &str, index: u32, of_cpu: impl Fn(u64) -> V) {
        let mut array: PerCpuArray<_, V> = self.ebpf.map_mut(map).unwrap().try_into().unwrap();
        let values = (0..aya::util::nr_cpus().unwrap() as u64).map(of_cpu).collect::<Vec<V>>();
        array.set(index, PerCpuValues::try_from(values).unwrap(), 0).unwrap();
    }

    /// A hash map, opened by its pin.
    pub(crate) fn hash<K: Pod, V: Pod>(&self, map: &str) -> HashMap<MapData, K, V> {
        let map = Map::from_map_data(MapData::from_pin(self.pins.join(map)).unwrap()).unwrap();
        map.try_into().unwrap()
    }

    pub(crate) fn pins(&self) -> &Path {
        &self.pins
    }

    pub(crate) fn names(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.names.subscribe()
    }

    pub(crate) fn reader(&self) -> Reader {
        Reader::open(&self.pins, self.names()).unwrap()
    }

    /// A packet from outside to the member.
    pub(crate) fn inbound(&self, build: impl FnOnce(PacketStep) -> Vec<u8>) -> u32 {
        self.run(UPLINK, &build(step([0; 6], OUTSIDE, MEMBER)))
    }

    /// A packet from the member to outside.
    pub(crate) fn outbound(&self, build: impl FnOnce(PacketStep) -> Vec<u8>) -> u32 {
        self.run(self.member, &build(step(MAC, MEMBER, OUTSIDE)))
    }

    /// Runs `hub_tc_in`; its verdict.
    fn run(&self, ifindex: u32, frame: &[u8]) -> u32 {
        let program: &SchedClassifier = self.ebpf.program("hub_tc_in").unwrap().try_into().unwrap();
        let mut context = [0; 44];
        context[40..].copy_from_slice(&ifindex.to_ne_bytes());
        let options =
            TestRunOptions { data_in: Some(frame), ctx_in: Some(&context), ..TestRunOptions::default() };
        program.test_run(options).unwrap().return_value
    }
}

pub(crate) type PacketStep = PacketBuilderStep<IpHeaders>;

fn step(mac: [u8; 6], source: Ipv4Addr, target: Ipv4Addr) -> PacketStep {
    PacketBuilder::ethernet2([2; 6], mac).ipv4(source.octets(), target.octets(), 64)
}

/// TCP without data.
fn bare(packet: PacketBuilderStep<TcpHeader>) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.write(&mut bytes, &[]).unwrap();
    bytes
}

/// TCP with the first flags of a connection.
pub(crate) fn syn(source: u16, target: u16) -> impl FnOnce(PacketStep) -> Vec<u8> {
    move |step| bare(step.tcp(source, target, 1, 1_000).syn())
}

/// TCP, the answer to [`syn`].
pub(crate) fn syn_ack(source: u16, target: u16) -> impl FnOnce(PacketStep) -> Vec<u8> {
    move |step| bare(step.tcp(source, target, 1, 1_000).syn().ack(2))
}

/// A TCP packet that acknowledges the answer.
pub(crate) fn ack(source: u16, target: u16) -> impl FnOnce(PacketStep) -> Vec<u8> {
    move |step| bare(step.tcp(source, target, 2, 1_000).ack(2))
}

/// UDP with some payload.
pub(crate) fn udp(source: u16, target: u16) -> impl FnOnce(PacketStep) -> Vec<u8> {
    move |step| {
        let mut bytes = Vec::new();
        step.udp(source, target).write(&mut bytes, b"hello").unwrap();
        bytes
    }
}

/// An address as the data path has it.
pub(crate) fn address(ip: Ipv4Addr) -> [u8; 16] {
    mapped(ip.octets())
}

fn snapshot() -> Snapshot {
    let persona = PersonaView {
        candidate: None,
        id: PersonaId("01".into()),
        state: PersonaState::Active,
        generation: 1,
        ranges: Vec::new(),
        segment: SegmentId(WEB),
        created_at: jiff::Timestamp::UNIX_EPOCH,
        expires_at: None,
        origin: Origin::Api,
        virtual_ranges: BTreeMap::new(),
        overridden: Vec::new(),
        aliases: BTreeMap::new(),
        members: BTreeMap::new(),
        definition: PersonaDocument { name: "web".into(), ..PersonaDocument::default() },
        conditions: Vec::new(),
        warnings: Vec::new(),
        rule_sources: ["web.yaml:7", "web.yaml:9", "web.yaml:12"].map(String::from).to_vec(),
        lists: hub_daemon::systems::persona::lists::Lists::default(),
    };
    Snapshot { personas: [(persona.id.clone(), Arc::new(persona))].into(), ..Snapshot::default() }
}
