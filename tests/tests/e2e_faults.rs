//! A system call fails, or the daemon dies at it, in the middle of a life and of a start: the data path goes on,
//! and what comes back is what was before or what was asked for, whole.
//!
//! A life is a persona made, changed and deleted; a start is that of a daemon which takes over the pins, maps and
//! programs of the one before it, as in an upgrade. Each case names one system call, what befalls it, and which
//! of the calls of each thread is meant. Calls on files are those on the state file and what is written beside it.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use hub_tests::effort::{Effort, figure, is_long};
use hub_tests::lab::Outcome::Answered;
use hub_tests::lab::world::{FAMILIES, member_at};
use hub_tests::lab::{Background, Stopwatch, World, wait_until};
use hub_tests::root;
use nix::sys::signal::killpg;
use nix::unistd::Pid;
use serde_json::{Value, json};

/// Calls by which the hub speaks with the kernel.
const KERNEL: [&str; 4] = ["bpf", "sendto", "recvfrom", "membarrier"];
/// Calls by which it keeps its state.
const DISK: [&str; 6] = ["openat", "write", "fsync", "rename", "linkat", "unlink"];
/// What befalls a call.
const FAULTS: [&str; 6] =
    ["signal=KILL", "error=ENOMEM", "error=EPERM", "error=EINTR", "error=ENOSPC", "error=EIO"];
/// Which of the calls to the kernel, in everyday runs; long ones take every one that there is.
const AT: [u64; 3] = [2, 9, 31];
const LAST: u64 = 1_000;
/// No call of this number came so often in a row: there are no more.
const MISSES: u32 = 4;
const PATIENCE: Duration = Duration::from_secs(20);
/// Names that the state file has or had.
const STATE: [&str; 4] = ["state.json", "state.json.new", "state.json.old", "state.json.broken"];

/// What goes on meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Life,
    Start,
}

/// One fault.
#[derive(Clone, Copy, Debug)]
struct Case {
    what: What,
    call: &'static str,
    fault: &'static str,
    at: u64,
}

/// Cases of everyday runs: each call and each fault has its turn, in lives and in starts.
fn few() -> Vec<Case> {
    let kernel = AT.iter().flat_map(|at| KERNEL.map(|call| (call, *at)));
    let places = kernel.chain(DISK.map(|call| (call, 1)));
    let case = |(number, (call, at)): (usize, (&'static str, u64))| Case {
        what: if number.is_multiple_of(2) == (number / KERNEL.len()).is_multiple_of(2) {
            What::Life
        } else {
            What::Start
        },
        call,
        fault: FAULTS[number % FAULTS.len()],
        at,
    };
    places.enumerate().map(case).collect()
}

/// All cases, the first calls first.
fn all() -> impl Iterator<Item = Case> {
    (1..=LAST).flat_map(|at| {
        let calls = KERNEL.into_iter().chain(DISK);
        let both = calls.flat_map(|call| [What::Life, What::Start].map(|what| (what, call)));
        both.flat_map(move |(what, call)| FAULTS.map(|fault| Case { what, call, fault, at }))
    })
}

#[test]
fn a_fault_at_any_call_leaves_old_or_new() {
    if !root() {
        return;
    }
    let mut world = World::new(2);
    let _inside = world.members[0].serve(&[7000]);
    world.create(0, &policy(7_001));
    let attached = attachments(&world);
    let watch = Stopwatch::start();
    let cases: Box<dyn Iterator<Item = Case>> =
        if is_long() { Box::new(all()) } else { Box::new(few().into_iter()) };
    let effort = Effort::new(u64::MAX, u64::MAX);
    let mut misses: BTreeMap<(What, &str, &str), u32> = BTreeMap::new();
    let mut counts = Counts::default();
    for case in cases {
        let missed = misses.entry((case.what, case.call, case.fault)).or_default();
        if *missed >= MISSES {
            continue;
        }
        if !effort.goes_on(0) {
            break;
        }
        let struck = match case.what {
            What::Life => {
                let (struck, outcome) = life(&mut world, &case);
                *counts.outcomes.entry(outcome).or_default() += 1;
                struck
            }
            What::Start => start(&mut world, &case),
        };
        *missed = if struck { 0 } else { *missed + 1 };
        if struck {
            *counts.struck.entry(case.what).or_default() += 1;
            *counts.calls.entry(case.call).or_default() += 1;
            counts.last = counts.last.max(case.at);
        }
    }
    figure("R4", &format!("{counts:?}: 0 mixed, always attached, {:.0} s", watch.elapsed().as_secs_f64()));
    assert!([What::Life, What::Start].iter().all(|what| counts.struck.get(what) > Some(&1)), "{counts:?}");
    assert_eq!(attachments(&world), attached, "programs are where they were");
    let left = world.hub.hubctl(&["--json", "gc", "--dry-run"]).expect_success();
    assert_eq!(serde_json::from_str::<Value>(&left).unwrap(), json!({"found": []}));
}

/// What was done.
#[derive(Debug, Default)]
struct Counts {
    /// Faults that met a call.
    struck: BTreeMap<What, u64>,
    calls: BTreeMap<&'static str, u64>,
    /// The highest number of a call that was met.
    last: u64,
    /// Ports that lives ended with; 0 is a persona that is gone.
    outcomes: BTreeMap<u16, u64>,
}

fn attachments(world: &World) -> Vec<(Value, Value)> {
    let status = world.hub.get("/v1/status").expect(200);
    let found = status["attachments"].as_array().unwrap().iter();
    found.map(|attachment| (attachment["interface"].clone(), attachment["hook"].clone())).collect()
}

/// Allows one port, and forbids the other by many rules; 7000 is always allowed.
fn policy(port: u16) -> Value {
    let mut rules = vec![json!({"protocol": "udp", "port": [7_000, port], "action": "allow"})];
    rules.extend((0..20).map(|number| json!({"protocol": "udp", "port": 8_000 + number, "action": "allow"})));
    rules.push(json!({"protocol": "udp", "action": "deny"}));
    json!({"security_policies": rules})
}

/// Makes, changes and deletes a persona while a fault waits; whether it struck, and the port that is allowed when
/// the hub is well again.
fn life(world: &mut World, case: &Case) -> (bool, u16) {
    let trace = world.lab.folder().join("trace");
    let mut strace = Command::new("strace");
    strace.args(words(world, case, &trace)).arg("-p").arg(world.hub.process().id().to_string());
    let mut strace = attach(&mut strace, world.hub.process().id());
    for (method, path, port) in [("POST", "", 7_001), ("PUT", "/p1", 7_002), ("DELETE", "/p1", 0)] {
        let definition = if port == 0 { Value::Null } else { World::definition(1, &policy(port)) };
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--max-time",
            "10",
            "--request",
            method,
            "--data-binary",
            &definition.to_string(),
        ]);
        curl.args(["--header", "content-type: application/json", "--unix-socket"]).arg(world.hub.socket());
        curl.arg(format!("http://hub/v1/personas{path}"));
        // Who is killed does not answer, and an answer may be what a fault meets.
        curl.stdout(Stdio::null()).status().unwrap();
    }
    goes_on(world, case);
    // Asked to end, it lets the daemon go; killed, it may leave a call that never was.
    strace.stop();
    let died = !world.hub.process().is_running();
    let outcome = settle(world, case);
    if outcome != 0 {
        world.hub.request("DELETE", "/v1/personas/p1", &[], "").expect(204);
    }
    is_repaired(world, case);
    (died || has_struck(&trace), outcome)
}

/// Waits until the kernel holds what the hub says; the port that is allowed, or 0 for no persona.
fn settle(world: &mut World, case: &Case) -> u16 {
    let mut allowed = 0;
    wait_until(&format!("{case:?}: the kernel holds what the hub says"), PATIENCE * 2, || {
        if !world.hub.process().is_running() {
            world.hub.restart();
        }
        let answer = world.hub.get("/v1/personas/p1");
        let wanted = match answer.status {
            404 => 0,
            _ => answer.body["definition"]["security_policies"][0]["port"][1].as_u64().unwrap_or(1),
        };
        let [first, second, again] = [7_001, 7_002, 7_001].map(|port| passes(world, port));
        if first != again {
            // The change came in between.
            return false;
        }
        // Of a persona that is there, one is allowed.
        allowed = match (first, second) {
            (true, false) => 7_001,
            (false, true) => 7_002,
            _ => 0,
        };
        (wanted == 0 || answer.body["state"] == "active") && u64::from(allowed) == wanted
    });
    allowed
}

/// Whoever survived a fault still hears what others do to the network.
fn is_repaired(world: &World, case: &Case) {
    let route = "10.100.0.0/24 dev seg0";
    world.router.ip(&format!("route delete {route}"));
    wait_until(&format!("{case:?}: a route is put back"), PATIENCE, || {
        !world.router.ip(&format!("route show {route}")).trim().is_empty()
    });
}

/// Starts the daemon while a fault waits, then once more without; whether it struck.
fn start(world: &mut World, case: &Case) -> bool {
    let trace = world.lab.folder().join("trace");
    world.hub.process().kill();
    let words = words(world, case, &trace);
    let words: Vec<&str> = ["strace"].into_iter().chain(words.iter().map(String::as_str)).collect();
    world.hub.launch_under(&words);
    let mut left = 100;
    while world.hub.process().is_running() && left > 0 && !is_ready(world) {
        goes_on(world, case);
        left -= 1;
    }
    goes_on(world, case);
    let died = !world.hub.process().is_running();
    // The daemon is the child of strace, and may outlive it for a moment.
    let group = Pid::from_raw(world.hub.process().id().cast_signed());
    // Asked to end and not killed, it writes down what it saw.
    world.hub.process().stop();
    wait_until("the daemon is gone", PATIENCE, || killpg(group, None).is_err());
    world.hub.restart();
    world.active("p0");
    goes_on(world, case);
    died || has_struck(&trace)
}

/// What `strace` is told.
fn words(world: &World, case: &Case, trace: &Path) -> Vec<String> {
    let mut words: Vec<String> = ["-f", "-qq", "-o"].map(str::to_owned).to_vec();
    words.push(trace.display().to_string());
    let inject = format!("inject={}:{}:when={}", case.call, case.fault, case.at);
    words.extend(["-e".to_owned(), format!("trace={}", case.call), "-e".to_owned(), inject]);
    if DISK.contains(&case.call) {
        let folder: PathBuf = world.hub.folder().join("state");
        let files = STATE.map(|name| folder.join(name)).into_iter().chain([folder]);
        words.extend(files.flat_map(|file| ["-P".to_owned(), file.display().to_string()]));
    }
    words
}

/// Whether a call was made to fail.
fn has_struck(trace: &Path) -> bool {
    fs::read_to_string(trace).unwrap_or_default().contains("(INJECTED)")
}

fn is_ready(world: &World) -> bool {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--fail", "--max-time", "1", "--unix-socket"]).arg(world.hub.socket());
    curl.arg("http://hub/readyz").stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
}

/// What the persona that nobody touches allows passes.
#[track_caller]
fn goes_on(world: &World, case: &Case) {
    for v4 in FAMILIES {
        let outcome = world.outside.udp(member_at(0, v4), 7_000, PATIENCE);
        assert_eq!(outcome, Answered, "{case:?}");
    }
}

/// Whether the loaded program would let a packet to a port of the other persona pass.
fn passes(world: &World, port: u16) -> bool {
    world.why(&format!("udp 192.0.2.10 10.100.1.10:{port}")).1
}

fn attach(strace: &mut Command, pid: u32) -> Background {
    let strace = Background::start(strace.stderr(Stdio::null()));
    let tasks = Path::new("/proc").join(pid.to_string()).join("task");
    wait_until("strace has every thread", PATIENCE, || {
        fs::read_dir(&tasks).into_iter().flatten().flatten().all(|task| {
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
        })
    });
    strace
}
