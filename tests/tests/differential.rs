//! The kernel programs against the model, on random hubs and random packets.
//!
//! Every packet goes the way it would go on a port with XDP: first `hub_xdp_in`, and `hub_tc_in` with what
//! that one leaves. The verdict must be the model's, and a drop must be counted once, with its reason, by
//! the hook that dropped. `hub_why` is asked now and then, and must give the same answer beforehand.

use std::collections::BTreeMap;

use hub_common::event::{Hook, Reason};
use hub_common::outcome::{VERDICT_DROP, VERDICT_ROUTE, VERDICT_SKIP};
use hub_common::stats::HookTotals;
use hub_tests::datapath::{DataPath, TC_NEXT, TC_REDIRECT, TC_SHOT, XDP_DROP, XDP_PASS, XDP_REDIRECT};
use hub_tests::generate::{Interfaces, Packet, Random, Traffic, World};
use hub_tests::lab::{Lab, Space};
use hub_tests::model::{Entry, Verdict, parse};
use hub_tests::root;

const WORLDS: usize = 1_000;
const PACKETS: usize = 1_000;
/// When the model's packets arrive: late enough for everything that was aged to be stale.
const NOW: u64 = 1_000_000;

/// Names of the ports; each has routes and neighbours, so that packets can leave.
const PORTS: [&str; 5] = ["up0", "bound1", "bound2", "shared0", "unknown0"];

fn build(lab: &mut Lab) -> Space {
    let (hub, outside) = (lab.space("hub"), lab.space("outside"));
    // Nothing but the test's frames may meet the programs.
    outside.sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1");
    hub.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    for (number, name) in (1..).zip(PORTS) {
        hub.wire((name, &[]), (&outside, name, &[]));
        hub.ip(&format!("link set {name} address 02:00:00:00:00:02"));
        hub.ip(&format!("address add 198.18.{number}.1/24 dev {name}"));
        hub.ip(&format!("address add fd00:{number}::1/64 dev {name}"));
        for neighbour in [format!("198.18.{number}.2"), format!("fd00:{number}::2")] {
            hub.ip(&format!(
                "neigh add {neighbour} lladdr 02:00:00:00:00:0{number} dev {name} nud permanent"
            ));
        }
    }
    for (target, number) in [("0.0.0.0/0", 1), ("10.1.0.0/16", 2), ("10.2.0.0/16", 3), ("10.0.0.0/8", 4)] {
        hub.ip(&format!("route add {target} via 198.18.{number}.2"));
    }
    for (target, number) in [("::/0", 1), ("2001:db8:1::/48", 2), ("2001:db8::/32", 4)] {
        hub.ip(&format!("-6 route add {target} via fd00:{number}::2"));
    }
    hub
}

/// One comparison in progress.
struct Comparison {
    datapath: DataPath,
    totals: [HookTotals; 2],
    drops: BTreeMap<(u32, Reason), u64>,
    /// What the model said, by name, and how it was carried out.
    hits: BTreeMap<&'static str, u64>,
}

impl Comparison {
    fn new(datapath: DataPath) -> Self {
        let totals = [datapath.totals(Hook::XdpIn), datapath.totals(Hook::TcIn)];
        Self { datapath, totals, drops: BTreeMap::new(), hits: BTreeMap::new() }
    }

    /// Starts over with another hub.
    fn begin(&mut self, world: &World) {
        self.datapath.forget();
        self.datapath.fill(&world.model);
        self.totals[1] = self.datapath.totals(Hook::TcIn);
        for hook in [Hook::XdpIn, Hook::TcIn] {
            for reason in Reason::ALL {
                self.drops.insert((hook as u32, *reason), self.datapath.drops(hook, *reason));
            }
        }
    }

    fn hit(&mut self, name: &'static str) {
        *self.hits.entry(name).or_default() += 1;
    }

    /// Runs the programs on a packet and compares what they do with the model's verdict.
    fn check(&mut self, packet: &Packet, expected: Verdict, asks_why: bool) -> Result<(), String> {
        let runnable = DataPath::takes_tc(&packet.frame);
        // Where no port is, `hub_why` answers for packets of the host.
        if asks_why && runnable && expected != Verdict::Drop(Reason::NoPort) {
            self.check_why(packet, expected)?;
        }
        let xdp = self.datapath.run_xdp(packet.interface, &packet.frame).code;
        match (xdp, expected.reason()) {
            (XDP_PASS, _) => {}
            (XDP_REDIRECT, None) if expected == Verdict::Pass => {
                self.hit("xdp redirect");
                return Ok(());
            }
            (XDP_DROP, Some(reason)) => {
                self.hit("xdp drop");
                return self.counted(Hook::XdpIn, reason);
            }
            _ => return Err(format!("XDP returned {xdp}: {}", self.counters(Hook::XdpIn))),
        }
        if !runnable {
            // XDP leaves packets to TC only if they pass, are answered, or came in by no port.
            let left = !matches!(expected, Verdict::Drop(reason) if reason != Reason::NoPort);
            return if left { Ok(()) } else { Err("XDP did not drop it".to_owned()) };
        }
        let tc = self.datapath.run_tc("hub_tc_in", packet.interface, 0, &packet.frame).code;
        let before = std::mem::replace(&mut self.totals[1], self.datapath.totals(Hook::TcIn));
        let after = self.totals[1];
        let (redirected, passed) = (after.redirected - before.redirected, after.passed - before.passed);
        let (skipped, replied) = (after.skipped - before.skipped, after.replied - before.replied);
        match (tc, expected) {
            (TC_NEXT, Verdict::Pass) if passed == 1 => self.hit("tc pass"),
            (TC_REDIRECT, Verdict::Pass) if redirected == 1 => self.hit("tc redirect"),
            (TC_NEXT, Verdict::Skip) if skipped == 1 => self.hit("skip"),
            (TC_SHOT, Verdict::Drop(reason) | Verdict::Reject(reason)) => {
                self.hit("tc drop");
                return self.counted(Hook::TcIn, reason);
            }
            (TC_REDIRECT, Verdict::Reject(reason)) if replied == 1 => {
                self.hit("tc reply");
                return self.counted(Hook::TcIn, reason);
            }
            _ => {
                let counters = self.counters(Hook::TcIn);
                return Err(format!(
                    "TC returned {tc}, passed {passed}, redirected {redirected}, skipped {skipped}, \
                     replied {replied}: {counters}"
                ));
            }
        }
        Ok(())
    }

    fn check_why(&mut self, packet: &Packet, expected: Verdict) -> Result<(), String> {
        self.datapath.run_tc("hub_why", packet.interface, 0, &packet.frame);
        let answer = self.datapath.answer();
        let (verdict, reason) = match expected {
            Verdict::Pass => (VERDICT_ROUTE, 0),
            Verdict::Skip => (VERDICT_SKIP, 0),
            Verdict::Drop(reason) | Verdict::Reject(reason) => (VERDICT_DROP, reason as u32),
        };
        if answer.verdict == verdict && (verdict != VERDICT_DROP || answer.reason == reason) {
            return Ok(());
        }
        Err(format!("hub_why says {} {:?}", answer.verdict, Reason::from_number(answer.reason)))
    }

    /// Checks that a drop was counted once, under its reason.
    fn counted(&mut self, hook: Hook, reason: Reason) -> Result<(), String> {
        self.hit(reason.name());
        let now = self.datapath.drops(hook, reason);
        let before = self.drops.insert((hook as u32, reason), now).unwrap_or(0);
        if now == before + 1 { Ok(()) } else { Err(self.counters(hook)) }
    }

    /// Which reason counters grew since they were last looked at.
    fn counters(&self, hook: Hook) -> String {
        let grew = |reason: &&Reason| {
            self.datapath.drops(hook, **reason)
                != self.drops.get(&(hook as u32, **reason)).copied().unwrap_or(0)
        };
        let names: Vec<_> = Reason::ALL.iter().filter(grew).map(|reason| reason.name()).collect();
        format!("{} dropped {names:?}", hook.name())
    }
}

#[test]
fn programs_and_model_agree() {
    if !root() {
        return;
    }
    let mut lab = Lab::new();
    let hub = build(&mut lab);
    let interface = |name| hub.interface(name);
    let interfaces = Interfaces {
        uplink: interface("up0"),
        bound: vec![interface("bound1"), interface("bound2")],
        shared: interface("shared0"),
        unknown: interface("unknown0"),
    };
    hub.within(|| compare(&interfaces));
}

fn compare(interfaces: &Interfaces) {
    let mut datapath = DataPath::load();
    for name in PORTS {
        datapath.attach_xdp(name);
    }
    let mut comparison = Comparison::new(datapath);
    let mut mismatches: BTreeMap<String, (usize, Mismatch)> = BTreeMap::new();
    for seed in 0..WORLDS {
        // After a mismatch the two remember different things: the rest of that world says nothing.
        if let Err(mismatch) = compare_world(&mut comparison, interfaces, seed as u64) {
            mismatches.entry(mismatch.kind.clone()).or_insert((0, mismatch)).0 += 1;
        }
    }
    for (kind, (count, first)) in &mismatches {
        println!("{count} × {kind}\n{}", first.story);
    }
    println!("{:?}", comparison.hits);
    assert!(mismatches.is_empty(), "{} kinds of mismatches, the first of each above", mismatches.len());
}

/// A packet that the programs and the model disagree about.
struct Mismatch {
    /// Equal for mismatches that probably have one cause.
    kind: String,
    /// How to see it again.
    story: String,
}

fn compare_world(comparison: &mut Comparison, interfaces: &Interfaces, seed: u64) -> Result<(), Mismatch> {
    let mut random = Random::new(seed);
    let mut world = World::new(&mut random, interfaces.clone());
    let mut traffic = Traffic::default();
    comparison.begin(&world);
    for number in 0..PACKETS {
        if random.chance(1) {
            change(&mut random, comparison, &mut world);
        }
        let packet = traffic.packet(&mut random, &world);
        let expected = world.model.judge(Entry::In(packet.interface), &packet.frame, NOW);
        comparison.check(&packet, expected, number % 16 == 0).map_err(|found| Mismatch {
            kind: format!("the model says {expected:?}, but {found}"),
            story: format!(
                "seed {seed}, packet {number}, port {} of {interfaces:?}\n{}\n{:?}\n{:?}",
                packet.interface,
                hex(&packet.frame),
                parse(&packet.frame),
                world.model,
            ),
        })?;
        if expected.reason().is_some() {
            traffic.refused(&mut random);
        }
    }
    Ok(())
}

/// Something happens to the hub between two packets.
fn change(random: &mut Random, comparison: &mut Comparison, world: &mut World) {
    match random.below(4) {
        0 => {
            world.model.age();
            comparison.datapath.age();
        }
        _ => {
            let number = 1 + random.below(5) as u32;
            world.edit(random, number);
            comparison.datapath.fill_segment(&world.model, number);
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
