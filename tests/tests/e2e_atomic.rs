//! A policy is replaced while a running program judges packets without pause: every verdict is that of
//! the one policy or of the other, never of half of each. Each of the programs has its turn: XDP and TC of what comes
//! in, and TC of what the host itself sends.
//!
//! Policy A permits UDP and denies it by a rule; TCP it does not permit, and a rule of its own would allow
//! it. Policy B is the same with the protocols exchanged. Either drops both packets; the reason says by what.
//! Who saw the protocols of one and the rules of the other would let a packet pass.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aya::TestRunOptions;
use aya::programs::{SchedClassifier, TestRun as _, Xdp, loaded_programs};
use aya_obj::programs::XdpAttachType;
use hub_tests::effort::{Effort, figure};
use hub_tests::lab::world::{FAMILIES, member_at, outside_at};
use hub_tests::lab::{Stopwatch, World};
use hub_tests::packet::{Datagram, flags};
use hub_tests::root;
use serde_json::{Value, json};

/// Replacements of the policy in everyday runs and in long ones.
const FLIPS: [u64; 2] = [200, 20_000];
/// Packets judged in one go.
const REPEAT: u32 = 1_000;
/// Rules before the one that decides, so that the list takes time to write and to read.
const FILLER: u16 = 60;

#[test]
fn no_packet_sees_half_a_policy() {
    if !root() {
        return;
    }
    let world = World::with_uplink(1, "xdp: on");
    world.create(0, &policy("udp", "tcp"));
    for (port, hook) in [("up0", "xdp_in"), ("up0", "tc_in"), ("seg0", "tc_out")] {
        flips_are_whole(&world, port, hook);
    }
}

/// Replaces the policy again and again while the program of a hook judges packets to its members.
fn flips_are_whole(world: &World, interface: &str, hook: &str) {
    let program = Program::running(world, interface, hook);
    let port = world.router.interface(interface);
    let mut frames = Vec::new();
    for v4 in FAMILIES {
        let ends = ((outside_at(v4), 4_000), (member_at(0, v4), 7_001));
        frames.extend([Datagram::udp(ends.0, ends.1), Datagram::tcp(ends.0, ends.1, flags::SYN)]);
    }
    let mut frames: Vec<Vec<u8>> = frames.iter().map(Datagram::frame).collect();
    for frame in &mut frames {
        // A frame to another station is nobody's to judge.
        frame[..6].copy_from_slice(&world.router.mac(interface));
    }
    let (judged, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let before = ["protocol", "rule_deny"].map(|reason| world.dropped("p0", reason));
    let watch = Stopwatch::start();
    let flips = std::thread::scope(|scope| {
        scope.spawn(|| {
            world.router.within(|| {
                while !done.load(Ordering::Relaxed) {
                    for frame in &frames {
                        program.judge(frame, port);
                        judged.fetch_add(u64::from(REPEAT), Ordering::Relaxed);
                    }
                }
            });
        });
        let _stop = Stop(&done);
        let mut flips = 0;
        for flip in Effort::new(FLIPS[0], FLIPS[1]).rounds() {
            let fields = if flip.is_multiple_of(2) { policy("tcp", "udp") } else { policy("udp", "tcp") };
            world.replace(0, &fields);
            flips = flip + 1;
        }
        flips
    });
    let judged = judged.into_inner();
    let [protocol, rule] = [("protocol", before[0]), ("rule_deny", before[1])]
        .map(|(reason, before)| world.dropped("p0", reason) - before);
    let mixed = judged - protocol - rule;
    figure(
        "R2",
        &format!(
            "{hook}: {flips} flips, {judged} packets judged ({protocol} by protocol, {rule} by rule), {mixed} mixed verdicts, {:.0} s",
            watch.elapsed().as_secs_f64()
        ),
    );
    assert_eq!(mixed, 0, "{hook}: {:#}", world.hub.get("/v1/personas/p0/counters").body);
    assert!(protocol > judged / 10 && rule > judged / 10, "{hook}: both policies decide: {protocol} {rule}");
    assert!(judged > flips * 4 * u64::from(REPEAT), "{hook}: each flip met packets: {judged}");
}

/// A policy that permits one protocol and denies it by a rule, and would allow the other.
fn policy(permitted: &str, other: &str) -> Value {
    let filler =
        (0..FILLER).map(|number| json!({"protocol": permitted, "port": 100 + number, "action": "allow"}));
    let mut rules: Vec<Value> = filler.collect();
    rules.push(json!({"protocol": permitted, "port": 7_001, "action": "deny"}));
    rules.push(json!({"protocol": other, "port": 7_001, "action": "allow"}));
    json!({"protocols": [permitted], "security_policies": rules})
}

/// A program that runs on a port.
enum Program {
    Tc(SchedClassifier),
    Xdp(Xdp),
}

impl Program {
    fn running(world: &World, port: &str, hook: &str) -> Self {
        let status = world.hub.get("/v1/status").expect(200);
        let here = |at: &&Value| at["interface"] == port && at["hook"] == hook;
        let id = status["attachments"].as_array().unwrap().iter().find(here).unwrap()["program_id"].as_u64();
        let info = loaded_programs().flatten().find(|info| Some(u64::from(info.id())) == id).unwrap();
        let name = format!("hub_{hook}").into();
        if hook == "xdp_in" {
            Self::Xdp(Xdp::from_program_info(info, name, XdpAttachType::Interface).unwrap())
        } else {
            Self::Tc(SchedClassifier::from_program_info(info, name).unwrap())
        }
    }

    /// Judges a frame again and again that comes in, or goes out, by a port.
    fn judge(&self, frame: &[u8], port: u32) {
        // `struct __sk_buff` up to `ifindex`; `struct xdp_md`, whose second word is where data ends and whose fourth
        // is where it came in.
        let (mut buffer, mut md) = ([0; 44], [0; 24]);
        buffer[40..44].copy_from_slice(&port.to_ne_bytes());
        md[4..8].copy_from_slice(&(frame.len() as u32).to_ne_bytes());
        md[12..16].copy_from_slice(&port.to_ne_bytes());
        let options = |context| TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(context),
            repeat: REPEAT,
            ..TestRunOptions::new()
        };
        match self {
            Self::Tc(program) => program.test_run(options(&buffer)).unwrap(),
            Self::Xdp(program) => program.test_run(options(&md)).unwrap(),
        };
    }
}

/// Tells the judge to end, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
