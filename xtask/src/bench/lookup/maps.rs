//! The maps of a loaded object as a daemon would have filled them, as far as packets of the plan read them.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Array, HashMap, MapData},
    programs::{ProgramFd, SchedClassifier, TestRun as _, TestRunOptions, Xdp},
};
use hub_common::{
    address::mapped,
    adjacency::{Adjacency, V6Hop, place, v6_place, v6_word, word},
    bench::{FRAME_BYTES, MEMBERS_V6, PLAN_V6, Plan},
    flow::{FLOW_TWO_WAY, Flow, FlowKey, Hop, SharedHop},
    nets::{self, NetLine},
    open::{OPEN_ALL, OPEN_FIRST, PortSet},
    packet::protocol,
    rule::RULE_NONE,
    segment::{
        PORT_XDP_TARGET, Port, ROLE_SEGMENT, ROLE_UPLINK, STATE_ACTIVE, Segment, Settings, V4_BLOCK,
        policy_word,
    },
};

use super::Case;
use crate::bench::lab::{LAN_MAC, MEMBERS, MEMBERS_MAC, WAN_MAC};

/// The port that packets come in by: the loopback interface, in whose name programs are run.
const WAN: u32 = 1;
/// The port that they leave by.
const LAN: u32 = 2;
/// Number of the members' line.
const LINE: u32 = 7;
/// The one generation of everything.
const GENERATION: u32 = 1;
/// Longer than any run, in ticks.
const LONG: u32 = 1 << 30;
/// Entries of large maps that packets of the plan do not read.
const FEW: u32 = 1_024;

/// A loaded object.
pub(super) struct Loaded {
    ebpf: Ebpf,
    pub(super) program: ProgramFd,
}

impl Loaded {
    /// Loads an object with maps of its own.
    pub(super) fn new(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let mut loader = EbpfLoader::new();
        for map in ["FLOWS_NEW", "RULES", "RULE_HITS", "SET_HOSTS", "MASQUERADES", "LIMIT_SOURCES"] {
            loader.map_max_entries(map, FEW);
        }
        let mut ebpf = loader.load(&bytes).with_context(|| format!("load {}", path.display()))?;
        let program: &mut Xdp = ebpf.program_mut("hub_xdp_in").context("no hub_xdp_in")?.try_into()?;
        program.load()?;
        let program = program.fd()?.try_clone()?;
        Ok(Self { ebpf, program })
    }

    fn array<T: Pod>(&mut self, name: &str) -> Result<Array<&mut MapData, T>> {
        let map = self.ebpf.map_mut(name).with_context(|| format!("the object has no {name}"))?;
        Ok(Array::try_from(map)?)
    }

    fn set<T: Pod>(&mut self, name: &str, index: u32, value: T) -> Result<()> {
        Ok(self.array(name)?.set(index, value, 0)?)
    }

    /// Makes the maps those of a hub that forwards the packets of a case.
    pub(super) fn fill(&mut self, case: &Case) -> Result<()> {
        let settings = Settings {
            route_generation: GENERATION,
            class_generation: GENERATION,
            hop_ticks: u32::MAX,
            timeout_ticks: [LONG; 8],
            ..Settings::ZERO
        };
        self.set("SETTINGS", 0, settings)?;
        for (ifindex, role, mac) in [(WAN, ROLE_UPLINK, WAN_MAC), (LAN, ROLE_SEGMENT, LAN_MAC)] {
            let port = Port { ifindex, role, flags: PORT_XDP_TARGET, mac, ..Port::ZERO };
            self.set("PORTS", ifindex, port)?;
        }
        let plan = case.plan();
        let ports = PortSet::of(&[[plan.member_port, plan.member_port]]);
        self.set("PORT_SETS", 0, ports)?;
        for id in 1..=case.personas {
            self.set("SEGMENTS", id, segment(case, id))?;
        }
        self.fill_prefixes(case)?;
        if case.tracked {
            return self.fill_flows(case, &plan);
        }
        let v6 = plan.flags & PLAN_V6 != 0;
        let owner = if v6 { nets::network(&member_v6(0)) } else { 1 };
        self.set("ADJACENCIES", LINE, Adjacency { hop: hop(), owner, ..Adjacency::ZERO })?;
        if v6 { self.fill_v6(&plan) } else { self.fill_v4(&plan) }
    }

    fn fill_v4(&mut self, plan: &Plan) -> Result<()> {
        let mut hops = self.array("V4_HOPS")?;
        for target in (0..plan.flows).map(|index| plan.member(index)) {
            hops.set(place(target, WAN), word(target, GENERATION, LINE), 0)?;
        }
        Ok(())
    }

    /// Next hops for the product, and for the variant that has a line for each.
    fn fill_v6(&mut self, plan: &Plan) -> Result<()> {
        for index in 0..plan.flows {
            let target = member_v6(plan.member(index));
            let held = V6Hop { host: plan.member(index).into(), word: v6_word(GENERATION, LINE) };
            self.set("V6_HOPS", v6_place(&target, WAN), held)?;
            let line = SharedHop { target, hop: hop(), ..SharedHop::ZERO };
            self.set("HOPS", SharedHop::place(&target, WAN, 0), line)?;
        }
        Ok(())
    }

    fn fill_flows(&mut self, case: &Case, plan: &Plan) -> Result<()> {
        let now = self.now()?;
        let map = self.ebpf.map_mut("FLOWS").context("the object has no FLOWS")?;
        let mut flows: HashMap<_, FlowKey, Flow> = HashMap::try_from(map)?;
        let peer = mapped(plan.peer.to_be_bytes());
        for member in (0..plan.flows).map(|index| plan.member(index)) {
            let target = mapped(member.to_be_bytes());
            let ports = (plan.peer_port, plan.member_port);
            let (key, from_high) = FlowKey::between(&peer, ports.0, &target, ports.1, protocol::UDP, 0);
            let id = case.persona_of(member);
            let flow = Flow {
                last_tick: now,
                first_tick: now,
                deadline_tick: u64::MAX,
                class_generation: GENERATION,
                state: FLOW_TWO_WAY,
                from_high: u8::from(from_high),
                segment: [0, id],
                policy: [0, policy_word(id, 1)],
                hop: [hop(); 2],
                rule: [RULE_NONE; 2],
                ..Flow::ZERO
            };
            flows.insert(key, flow, 0)?;
        }
        Ok(())
    }

    /// The kernel's tick.
    fn now(&mut self) -> Result<u64> {
        let clock: &mut SchedClassifier =
            self.ebpf.program_mut("hub_clock").context("no hub_clock")?.try_into()?;
        if clock.fd().is_err() {
            clock.load()?;
        }
        let frame = [0; FRAME_BYTES];
        clock.test_run(TestRunOptions { data_in: Some(&frame), ..TestRunOptions::new() })?;
        let [tick, _boot_ns] = self.array::<[u64; 2]>("CLOCK")?.get(&0, 0)?;
        Ok(tick)
    }

    /// The 16-8-8 table, and beside it the DIR-24-8 table of the variant that has one: a leaf is the same in both.
    fn fill_prefixes(&mut self, case: &Case) -> Result<()> {
        let network = nets::network(&member_v6(0));
        let mut line = NetLine::ZERO;
        (line.keys[0], line.segments[0]) = (network, 1);
        self.set("NETS", nets::line(network), line)?;
        let flat = self.ebpf.map("V4_FLAT").is_some();
        let mut blocks = 0..;
        let mut put = |loaded: &mut Self, block: [u32; 256]| -> Result<u32> {
            let slot = blocks.next().context("a slot")?;
            loaded.set("V4_BLOCKS", slot, block)?;
            Ok(V4_BLOCK | slot)
        };
        for root in (MEMBERS.to_bits() >> 16..).take(4) {
            let mut middle = [0; 256];
            for (third, entry) in (0..).zip(&mut middle) {
                let first = root << 16 | third << 8;
                let leaf: [u32; 256] = std::array::from_fn(|low| case.persona_of(first + low as u32));
                *entry = if leaf[0] == leaf[255] { leaf[0] } else { put(self, leaf)? };
                if flat {
                    self.set("V4_FLAT", first >> 8, *entry)?;
                }
            }
            let entry = if case.personas == 1 { 1 } else { put(self, middle)? };
            self.set("V4_ROOT", root, entry)?;
        }
        Ok(())
    }
}

fn segment(case: &Case, id: u32) -> Segment {
    let policy = policy_word(id, 1);
    let segment = Segment { expires_tick: u64::MAX, state: STATE_ACTIVE, policy, ..Segment::ZERO };
    if case.tracked { segment } else { segment.with_open([OPEN_FIRST, OPEN_FIRST, OPEN_ALL, OPEN_ALL]) }
}

fn hop() -> Hop {
    Hop {
        generation: GENERATION,
        ifindex: LAN,
        checked_tick: 0,
        mtu_bytes: 1_500,
        target_mac: MEMBERS_MAC,
        source_mac: LAN_MAC,
        ingress_ifindex: WAN,
    }
}

fn member_v6(member: u32) -> [u8; 16] {
    let mut address = [0; 16];
    address[..12].copy_from_slice(&MEMBERS_V6);
    address[12..].copy_from_slice(&member.to_be_bytes());
    address
}
