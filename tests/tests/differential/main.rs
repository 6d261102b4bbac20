//! The kernel programs against the model, on random hubs and random packets.
//!
//! In every other world the ports have XDP: packets meet `hub_xdp_in` first, and `hub_tc_in` only if that
//! one leaves them. Packets on their way out meet `hub_tc_out`. The verdict must be the model's, and a drop
//! must be counted once, with its reason, by the hook that dropped. `hub_why` is asked now and then, and
//! must give the same answer beforehand.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails its test"
)]

mod comparison;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use comparison::Comparison;
use hub_common::event::{Hook, Reason};
use hub_tests::datapath::DataPath;
use hub_tests::effort::{Effort, figure};
use hub_tests::generate::{Interfaces, Packet, Random, SEGMENTS, Traffic, World};
use hub_tests::lab::{Lab, Space, Stopwatch};
use hub_tests::model::{Flow, Parsed, Tuple, Verdict, parse};
use hub_tests::root;

/// Worlds in everyday runs and in long ones, each with [`PACKETS`].
const WORLDS: [u64; 2] = [2_200, 61_000];
const PACKETS: u64 = 1_000;
/// Replaces the number of worlds, for runs that only look for a mismatch.
const WORLDS_VARIABLE: &str = "HUB_DIFFERENTIAL_WORLDS";
/// Ends at the first mismatch.
const FIRST_VARIABLE: &str = "HUB_DIFFERENTIAL_FIRST";
/// Runs one world alone.
const SEED_VARIABLE: &str = "HUB_DIFFERENTIAL_SEED";
/// When the model's packets arrive: late enough for everything that was aged to be stale.
const NOW: u64 = 1_000_000;

/// Reasons that no random packet can have: headers are never beyond the linear part, no table is full, nothing
/// is translated, and no detector watches (what they count depends on time, which `fixtures/detectors.rs` has in
/// its hands).
const UNREACHED: [Reason; 6] = [
    Reason::Nonlinear,
    Reason::FlowTableFull,
    Reason::Internal,
    Reason::NoTranslation,
    Reason::Detected,
    Reason::FlowRate,
];
/// Every other reason is hit at least this often.
const HITS: u64 = 500;

/// Names of the ports; each has routes and neighbours, so that packets can leave.
const PORTS: [&str; 5] = ["up0", "bound1", "bound2", "shared0", "unknown0"];

#[test]
fn programs_and_model_agree() {
    if !root() {
        return;
    }
    let watch = Stopwatch::start();
    let effort = match std::env::var(WORLDS_VARIABLE) {
        Ok(worlds) => Effort::new(worlds.parse().unwrap(), worlds.parse().unwrap()),
        Err(_unset) => Effort::new(WORLDS[0], WORLDS[1]),
    };
    let first = std::env::var(SEED_VARIABLE).ok().map(|seed| seed.parse().unwrap());
    let effort = first.map_or(effort, |seed: u64| Effort::new(seed + 1, seed + 1));
    let seeds = Seeds { next: AtomicU64::new(first.unwrap_or(0)), effort };
    let threads = std::thread::available_parallelism().unwrap().get();
    let found = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(|| work(&seeds))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Found>| match thread.join() {
            Ok(found) => found,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        running.into_iter().map(join).reduce(Found::with).unwrap()
    });
    let seconds = watch.elapsed().as_secs_f64();
    let cases: u64 = found.worlds * PACKETS;
    figure(
        "R1",
        &format!(
            "{cases} cases in {} worlds, {} kinds of mismatches, {seconds:.0} s, {:.0} cases/s; {:?}",
            found.worlds,
            found.mismatches.len(),
            f64::from(u32::try_from(cases).unwrap()) / seconds,
            found.hits,
        ),
    );
    found.assert_none();
    assert_enough(&found.hits, found.worlds);
}

/// Hands out worlds.
struct Seeds {
    next: AtomicU64,
    effort: Effort,
}

impl Seeds {
    fn next(&self) -> Option<u64> {
        let seed = self.next.fetch_add(1, Ordering::Relaxed);
        self.effort.goes_on(seed).then_some(seed)
    }
}

/// What one thread saw.
struct Found {
    worlds: u64,
    hits: BTreeMap<&'static str, u64>,
    mismatches: BTreeMap<String, (usize, String)>,
}

impl Found {
    fn with(mut self, other: Self) -> Self {
        self.worlds += other.worlds;
        for (name, count) in other.hits {
            *self.hits.entry(name).or_default() += count;
        }
        for (kind, (count, story)) in other.mismatches {
            self.mismatches.entry(kind).or_insert((0, story)).0 += count;
        }
        self
    }

    fn assert_none(&self) {
        let report = self.mismatches.iter().fold(String::new(), |mut report, (kind, (count, first))| {
            writeln!(report, "{count} × {kind}\n{first}\n").unwrap();
            report
        });
        let kinds = self.mismatches.len();
        assert!(kinds == 0, "{kinds} kinds of mismatches, with the first of each:\n{report}");
    }
}

/// A hub of one thread's own, and worlds until there are no more.
fn work(seeds: &Seeds) -> Found {
    let mut lab = Lab::new();
    let hub = build(&mut lab);
    let interface = |name| hub.interface(name);
    let interfaces = Interfaces {
        uplink: interface("up0"),
        bound: vec![interface("bound1"), interface("bound2")],
        shared: interface("shared0"),
        unknown: interface("unknown0"),
    };
    hub.within(|| compare(&interfaces, seeds))
}

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

fn compare(interfaces: &Interfaces, seeds: &Seeds) -> Found {
    let mut datapath = DataPath::load();
    for name in PORTS {
        datapath.attach_xdp(name);
    }
    let mut comparison = Comparison::new(datapath);
    let mut found = Found { worlds: 0, hits: BTreeMap::new(), mismatches: BTreeMap::new() };
    while let Some(seed) = seeds.next() {
        found.worlds += 1;
        // After a mismatch the two remember different things: the rest of that world says nothing.
        if let Err(mismatch) = compare_world(&mut comparison, interfaces, seed) {
            found.mismatches.entry(mismatch.kind).or_insert((0, mismatch.story)).0 += 1;
            if std::env::var_os(FIRST_VARIABLE).is_some() {
                seeds.next.store(u64::MAX / 2, Ordering::Relaxed);
            }
        }
    }
    assert_sums(&comparison.datapath);
    found.hits = comparison.hits;
    found
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
    comparison.begin(&world, seed.is_multiple_of(2));
    for number in 0..PACKETS {
        if random.chance(1) {
            change(&mut random, &mut comparison.datapath, &mut world);
        }
        let packet = traffic.packet(&mut random, &world);
        let expected = world.model.judge(packet.entry, &packet.frame, NOW);
        comparison.check(&packet, expected, number % 16 == 0).map_err(|found| Mismatch {
            kind: format!("the model says {expected:?}, but {found}"),
            story: format!(
                "seed {seed}, packet {number}, {:?} of {interfaces:?}\n{}\n{:?}\n{:?}\n{:?}",
                packet.entry,
                hex(&packet.frame),
                parse(&packet.frame),
                flow(&world, &packet),
                world.model.segments,
            ),
        })?;
        if expected != Verdict::Pass {
            traffic.refused(&mut random);
        }
    }
    Ok(())
}

/// Something happens to the hub between two packets.
fn change(random: &mut Random, datapath: &mut DataPath, world: &mut World) {
    match random.below(10) {
        0 => {
            world.model.age();
            datapath.age();
        }
        1 => {
            world.move_prefix(random);
            datapath.fill_prefixes(&world.model);
        }
        2 => {
            world.model.fall_due();
            datapath.fall_due();
        }
        3 => {
            let number = world.change_set(random);
            datapath.fill_sets(&world.model);
            datapath.fill_segment(&world.model, number);
        }
        _ => {
            let number = 1 + random.below(SEGMENTS as usize) as u32;
            world.edit(random, number);
            datapath.fill_segment(&world.model, number);
        }
    }
}

fn assert_enough(hits: &BTreeMap<&str, u64>, worlds: u64) {
    // Few worlds differ more from each other than many.
    let share = |least: u64| if worlds < 1_000 { least * worlds / 4_000 } else { least };
    let reached = Reason::ALL.iter().filter(|reason| !UNREACHED.contains(reason)).map(|reason| reason.name());
    let rare: Vec<_> =
        reached.filter(|name| hits.get(name).is_none_or(|count| *count < share(HITS))).collect();
    assert!(rare.is_empty(), "hit too rarely: {rare:?} of {hits:?}");
    for (name, least) in [
        ("IPv4 pass", 100_000),
        ("IPv4 drop", 100_000),
        ("IPv6 pass", 100_000),
        ("IPv6 drop", 100_000),
        ("skip", 50_000),
        ("tc pass", 50_000),
        ("tc redirect", 50_000),
        ("tc drop", 100_000),
        ("tc reply", 5_000),
        ("why", 40_000),
        ("xdp drop", 100_000),
        ("xdp redirect", 50_000),
    ] {
        assert!(hits.get(name).copied().unwrap_or(0) >= share(least), "{name} hit too rarely: {hits:?}");
    }
}

/// Packets in are packets out and drops.
fn assert_sums(datapath: &DataPath) {
    for hook in Hook::ALL {
        let totals = datapath.totals(hook);
        let out = totals.redirected + totals.passed + totals.skipped + totals.replied + totals.dropped;
        assert_eq!(totals.received, out, "{}", hook.name());
        let reasons: u64 = Reason::ALL.iter().map(|reason| datapath.drops(hook, *reason)).sum();
        assert_eq!(totals.dropped + totals.replied, reasons, "{}", hook.name());
        assert_eq!(totals.drops_unattributed, 0, "{}", hook.name());
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// The flow that a packet belongs to, or speaks of.
fn flow<'a>(world: &'a World, packet: &Packet) -> Option<&'a Flow> {
    let Ok(Parsed::Ip(headers)) = parse(&packet.frame) else { return None };
    let tuple = headers.quoted.unwrap_or_else(|| Tuple::of(&headers));
    world.model.flows().iter().find(|flow| flow.tuple() == tuple || flow.tuple() == tuple.reversed())
}
