//! What the hub's programs cost by themselves: run over and over on packets in memory, nothing forwarded.
//!
//! A mutator writes a packet and hands it to the program by a tail call; the same with an empty program is
//! subtracted. Dropped packets are not written to, so they need no mutator.

use anyhow::{Context as _, Result, bail};
use aya::programs::{ProgramError, ProgramFd, TestRun as _, TestRunOptions, TestRunResult, loaded_programs};
use hub_common::bench::{FRAME_BYTES, PLAN_V6};

use super::{
    bound::{Meter, apart, bind, enter},
    frames,
    hub::{Hook, Hub},
    kit::{Context, Kit, index_of},
    lab::{Families, Lab, Personas, Tracking},
    place::{Files, Way, plan},
    sample::{lower_quartile, number},
    stop,
};
use crate::say::say;

/// Packets of a measured run.
const PACKETS: u32 = 50_000;
const XDP_DROP: u32 = 1;
const XDP_REDIRECT: u32 = 4;
const TC_REDIRECT: u32 = 7;

/// What the bare redirects are called, behind their hook.
pub(super) const REDIRECT: &str = "bare redirect";

/// Nanoseconds of a program by itself.
#[derive(Debug)]
pub(super) struct Cost {
    pub(super) name: String,
    pub(super) ns: f64,
}

/// What came out.
#[derive(Debug)]
pub(super) struct Alone {
    /// Established flows, without the mutator and an empty program.
    pub(super) passes: Vec<Cost>,
    /// Drops of `hub_xdp_in`, more than a bare `XDP_DROP`.
    pub(super) drops: Vec<Cost>,
}

impl Alone {
    /// What the program costs more than a bare redirect of its hook.
    pub(super) fn above_redirect(&self, hook: Hook, case: &str) -> f64 {
        let named = |name: String| self.passes.iter().find(|cost| cost.name == name);
        let both = named(format!("{hook:?} pass, {case}")).zip(named(format!("{hook:?} {REDIRECT}")));
        both.map_or(f64::NAN, |(pass, redirect)| pass.ns - redirect.ns)
    }
}

/// A program under test.
struct Program {
    hook: Hook,
    fd: ProgramFd,
}

impl Program {
    fn of_kernel(hook: Hook, id: u32) -> Result<Self> {
        let found = loaded_programs().find(|program| program.as_ref().is_ok_and(|info| info.id() == id));
        let info = found.with_context(|| format!("no program has the number {id}"))??;
        Ok(Self { hook, fd: info.fd()? })
    }
}

/// Measures in labs of their own.
pub(super) fn measure(files: &Files, rounds: u32) -> Result<Alone> {
    let tracked = with(files, Tracking::All, rounds)?;
    let open = with(files, Tracking::Needed, rounds)?;
    let mut drops = tracked.drops;
    drops.extend(of_many_rules(files, rounds)?);
    Ok(Alone { passes: tracked.passes.into_iter().chain(open.passes).collect(), drops })
}

fn personas(tracking: Tracking, rules: u32) -> Personas {
    Personas { count: 1, rules, families: Families::Both, tracking }
}

/// What the first packet costs that none of very many rules allows.
fn of_many_rules(files: &Files, rounds: u32) -> Result<Vec<Cost>> {
    say("bench", "setting up a program with very many rules");
    let lab = Lab::new("rules", Families::Both)?;
    let personas = personas(Tracking::All, 1_024);
    let hub = Hub::start(&files.hubd, files.folder.join("rules"), &lab, Hook::Xdp, personas)?;
    lab.route(personas)?;
    let xdp = Program::of_kernel(Hook::Xdp, hub.program_id("wan0", "xdp_in")?)?;
    apart(|| {
        enter(lab.middle()?.path())?;
        bind()?;
        let denied = vec![("drop: no rule of 1,024 allows it", frames::denied())];
        drops(&mut Kit::load(&files.object)?, &xdp, &Meter::new()?, rounds, &denied)
    })
}

fn with(files: &Files, tracking: Tracking, rounds: u32) -> Result<Alone> {
    say("bench", "setting up programs by themselves");
    let personas = personas(tracking, 10);
    let kind = match tracking {
        Tracking::All => "established",
        Tracking::Needed => "open",
    };
    let lab = Lab::new(kind, personas.families)?;
    let hub = Hub::start(&files.hubd, files.folder.join(kind), &lab, Hook::Xdp, personas)?;
    lab.route(personas)?;
    let xdp = Program::of_kernel(Hook::Xdp, hub.program_id("wan0", "xdp_in")?)?;
    let tc = Program::of_kernel(Hook::Tc, hub.program_id("wan0", "tc_in")?)?;
    apart(|| {
        enter(lab.middle()?.path())?;
        bind()?;
        let meter = Meter::new()?;
        let mut passes = Vec::new();
        for (hook, program) in [(Hook::Xdp, &xdp), (Hook::Tc, &tc)] {
            // A map of programs takes one type of program only.
            let mut kit = Kit::load(&files.object)?;
            if tracking == Tracking::Needed {
                let ns = redirect(&mut kit, hook, &meter, (personas, 1_000), rounds)?;
                passes.push(Cost { name: format!("{hook:?} {REDIRECT}"), ns });
            }
            for (family, bits) in [("IPv4", 0), ("IPv6", PLAN_V6)] {
                for &flows in flows_of(tracking) {
                    stop::check()?;
                    let name = format!("{hook:?} pass, {kind} {family}, {flows} flows");
                    say("bench", &name);
                    let ns = pass(&mut kit, program, &meter, (personas, bits, flows), rounds)
                        .with_context(|| format!("{name}: {}", hub.get("/counters").unwrap_or_default()))?;
                    passes.push(Cost { name, ns });
                }
            }
        }
        let mut kit = Kit::load(&files.object)?;
        let drops = match tracking {
            Tracking::All => drops(&mut kit, &xdp, &meter, rounds, &frames::dropped())?,
            Tracking::Needed => Vec::new(),
        };
        Ok(Alone { passes, drops })
    })
}

/// Connections to measure. As many as in the last have no entry each, but a next hop.
fn flows_of(tracking: Tracking) -> &'static [u32] {
    match tracking {
        Tracking::All => &[1, 1_000, 65_536],
        Tracking::Needed => &[1, 1_000, 65_536, 500_000],
    }
}

/// Makes flows established through the program itself, then measures it.
fn pass(
    kit: &mut Kit,
    program: &Program,
    meter: &Meter,
    (personas, bits, flows): (Personas, u32, u32),
    rounds: u32,
) -> Result<f64> {
    for way in [Way::ToMembers, Way::FromMembers, Way::ToMembers, Way::ToMembers] {
        let mut made = plan(way, flows, personas);
        made.flags |= bits;
        kit.plan(&made)?;
        kit.test(&program.fd)?;
        let verdict = mutate(kit, program, way, flows)?;
        let wanted = match program.hook {
            Hook::Xdp => XDP_REDIRECT,
            Hook::Tc => TC_REDIRECT,
        };
        if verdict != wanted {
            bail!("{way:?}: verdict {verdict} instead of {wanted}");
        }
    }
    above_empty(kit, program, meter, rounds)
}

/// What the least that forwards costs in the same way.
fn redirect(
    kit: &mut Kit,
    hook: Hook,
    meter: &Meter,
    (personas, flows): (Personas, u32),
    rounds: u32,
) -> Result<f64> {
    kit.plan(&plan(Way::ToMembers, flows, personas))?;
    let fd = match hook {
        Hook::Xdp => kit.xdp("bench_redirect_xdp")?.fd()?.try_clone()?,
        Hook::Tc => kit.tc("bench_redirect_tc")?.fd()?.try_clone()?,
    };
    above_empty(kit, &Program { hook, fd }, meter, rounds)
}

/// Nanoseconds of a program above one that does nothing, for packets of the plan.
fn above_empty(kit: &mut Kit, program: &Program, meter: &Meter, rounds: u32) -> Result<f64> {
    let mut nets = Vec::new();
    for _ in 0..rounds * 2 {
        kit.test(&program.fd)?;
        let with = per_packet(meter, || mutate(kit, program, Way::ToMembers, PACKETS).map(drop))?;
        let empty = match program.hook {
            Hook::Xdp => kit.xdp("bench_empty_xdp")?.fd()?.try_clone()?,
            Hook::Tc => kit.tc("bench_empty_tc")?.fd()?.try_clone()?,
        };
        kit.test(&empty)?;
        let without = per_packet(meter, || mutate(kit, program, Way::ToMembers, PACKETS).map(drop))?;
        nets.push(with - without);
    }
    Ok(lower_quartile(&nets))
}

/// Runs the mutator of the program's type as if packets came in on the port of their way.
fn mutate(kit: &mut Kit, program: &Program, way: Way, packets: u32) -> Result<u32> {
    let ifindex = index_of(match way {
        Way::ToMembers => "wan0",
        Way::FromMembers => "lan0",
    })?;
    let frame = [0; FRAME_BYTES];
    let answer = match program.hook {
        Hook::Xdp => {
            let context = Context::Xdp(ifindex).bytes();
            kit.xdp("bench_mutate_xdp")?.test_run(options(&frame, &context, packets))?
        }
        Hook::Tc => {
            // The kernel classifies a frame before the mutator writes it: it must be one for the port.
            let frame = frames::addressed(frame, way);
            let context = Context::Tc(ifindex).bytes();
            kit.tc("bench_mutate_tc")?.test_run(options(&frame, &context, packets))?
        }
    };
    Ok(answer.return_value)
}

/// What each drop costs above a program that only drops.
fn drops(
    kit: &mut Kit,
    xdp: &Program,
    meter: &Meter,
    rounds: u32,
    kinds: &[(&str, Vec<u8>)],
) -> Result<Vec<Cost>> {
    let context = Context::Xdp(index_of("wan0")?).bytes();
    let bare = kit.xdp("bench_drop_xdp")?.fd()?.try_clone()?;
    let mut nets: Vec<Vec<f64>> = vec![Vec::new(); kinds.len()];
    for _ in 0..rounds * 2 {
        for ((name, frame), nets) in kinds.iter().zip(&mut nets) {
            stop::check()?;
            let mut cost = |program: &ProgramFd| -> Result<f64> {
                kit.test(program)?;
                let caller = kit.xdp("bench_call_xdp")?;
                per_packet(meter, || dropping(caller.test_run(options(frame, &context, PACKETS))))
            };
            let without = cost(&bare)?;
            nets.push(cost(&xdp.fd).with_context(|| (*name).to_owned())? - without);
        }
    }
    let cost = |((name, _), nets): (&(&str, Vec<u8>), &Vec<f64>)| Cost {
        name: (*name).to_owned(),
        ns: lower_quartile(nets),
    };
    Ok(kinds.iter().zip(&nets).map(cost).collect())
}

fn dropping(answer: Result<TestRunResult, ProgramError>) -> Result<()> {
    let verdict = answer?.return_value;
    if verdict != XDP_DROP {
        bail!("verdict {verdict} instead of XDP_DROP");
    }
    Ok(())
}

fn per_packet(meter: &Meter, work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let before = meter.read()?;
    work()?;
    Ok(number(meter.read()? - before) / f64::from(PACKETS))
}

fn options<'a>(frame: &'a [u8], context: &'a [u8], packets: u32) -> TestRunOptions<'a> {
    TestRunOptions { data_in: Some(frame), ctx_in: Some(context), repeat: packets, ..TestRunOptions::new() }
}
