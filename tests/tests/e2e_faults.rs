//! System calls fail, or the daemon dies at them, in the middle of a change and of a start: the data path
//! goes on, and what comes back is the policy of before or the new one, whole.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::fs;
use std::path::Path;
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

/// Calls by which a change reaches the kernel and the disk.
const CALLS: &str = "bpf,sendto,fsync,rename,linkat,link,unlink,membarrier";
/// What befalls a call.
const FAULTS: [&str; 4] = ["signal=KILL", "error=ENOMEM", "error=EPERM", "error=EIO"];
/// Which of the calls, in everyday runs; long ones take every one up to the last number.
const AT: [u64; 4] = [2, 7, 19, 45];
const LAST: u64 = 120;
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_fault_at_any_call_leaves_old_or_new() {
    if !root() {
        return;
    }
    let mut world = World::new(1);
    let _inside = world.members[0].serve(&[7000]);
    world.create(0, &policy(7_001));
    let attached = attachments(&world);
    let watch = Stopwatch::start();
    let at: Vec<u64> = if is_long() { (1..=LAST).collect() } else { AT.to_vec() };
    let cases: Vec<(u64, &str)> = at.iter().flat_map(|at| FAULTS.map(|fault| (*at, fault))).collect();
    // In everyday runs every fault has its turn, not every one at every call.
    let step = if is_long() { 1 } else { 2 };
    let (mut changes, mut starts, mut old, mut new) = (0, 0, 0, 0);
    for number in Effort::new(cases.len() as u64, cases.len() as u64).rounds() {
        let (at, fault) = cases[number as usize];
        let inject = format!("inject={CALLS}:{fault}:when={at}");
        if (number + at) % step == 0 {
            let (from, to) = ports(number);
            world.replace(0, &policy(from));
            match change(&mut world, &inject, to) {
                port if port == to => new += 1,
                port => {
                    assert_eq!(port, from, "{inject}");
                    old += 1;
                }
            }
            changes += 1;
        } else {
            start(&mut world, &inject);
            starts += 1;
        }
    }
    figure(
        "R4",
        &format!(
            "{changes} changes and {starts} starts with a fault at one of {CALLS}: {old} old, {new} new, 0 mixed, \
             always attached, {:.0} s",
            watch.elapsed().as_secs_f64()
        ),
    );
    assert_eq!(old + new, changes);
    assert!(new > 0, "no change got through");
    assert_eq!(attachments(&world), attached, "programs are where they were");
    let left = world.hub.hubctl(&["--json", "gc", "--dry-run"]).expect_success();
    assert_eq!(serde_json::from_str::<Value>(&left).unwrap(), json!({"found": []}));
}

fn attachments(world: &World) -> Vec<(Value, Value)> {
    let status = world.hub.get("/v1/status").expect(200);
    let found = status["attachments"].as_array().unwrap().iter();
    found.map(|attachment| (attachment["interface"].clone(), attachment["hook"].clone())).collect()
}

fn ports(number: u64) -> (u16, u16) {
    if number.is_multiple_of(2) { (7_001, 7_002) } else { (7_002, 7_001) }
}

/// Allows one port, and forbids the other by many rules; 7000 is always allowed.
fn policy(port: u16) -> Value {
    let mut rules = vec![json!({"protocol": "udp", "port": [7_000, port], "action": "allow"})];
    rules.extend((0..20).map(|number| json!({"protocol": "udp", "port": 8_000 + number, "action": "allow"})));
    rules.push(json!({"protocol": "udp", "action": "deny"}));
    json!({"security_policies": rules})
}

/// Replaces the policy while a fault waits; returns the port that is allowed when the hub is well again.
fn change(world: &mut World, inject: &str, to: u16) -> u16 {
    let mut strace = attach(world.hub.process().id(), inject);
    let definition = World::definition(0, &policy(to));
    let body = definition.to_string();
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--max-time", "10", "--request", "PUT", "--data-binary", &body]);
    curl.args(["--header", "content-type: application/json", "--unix-socket"]);
    curl.arg(world.lab.folder().join("api.sock")).arg("http://hub/v1/personas/p0");
    // Who is killed does not answer, and an answer may be what a fault meets.
    curl.stdout(Stdio::null()).status().unwrap();
    goes_on(world, inject);
    // Asked to end, it lets the daemon go; killed, it may leave a call that never was.
    strace.stop();
    let mut allowed = 0;
    wait_until(&format!("{inject}: the kernel holds what the hub wants"), PATIENCE * 2, || {
        if !world.hub.process().is_running() {
            world.hub.restart();
        }
        let view = world.hub.get("/v1/personas/p0").expect(200);
        let wanted = view["definition"]["security_policies"][0]["port"][1].as_u64().unwrap();
        let [first, second, again] = [7_001, 7_002, 7_001].map(|port| passes(world, port));
        if first != again {
            // The change came in between.
            return false;
        }
        let both = [first, second];
        // At no time are both allowed, or neither.
        assert!(both[0] != both[1], "{inject}: a mix: {both:?}");
        allowed = if both[0] { 7_001 } else { 7_002 };
        view["state"] == "active" && u64::from(allowed) == wanted
    });
    allowed
}

/// Starts the daemon while a fault waits, then once more without.
fn start(world: &mut World, inject: &str) {
    world.hub.process().kill();
    let words = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={CALLS}"), "-e", inject];
    world.hub.launch_under(&words);
    let mut left = 100;
    while world.hub.process().is_running() && left > 0 && !is_ready(world) {
        goes_on(world, inject);
        left -= 1;
    }
    goes_on(world, inject);
    // The daemon is the child of strace, and may outlive it for a moment.
    let group = Pid::from_raw(world.hub.process().id().cast_signed());
    world.hub.process().kill();
    wait_until("the daemon is gone", PATIENCE, || killpg(group, None).is_err());
    world.hub.restart();
    world.active("p0");
    goes_on(world, inject);
}

fn is_ready(world: &World) -> bool {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--fail", "--max-time", "1", "--unix-socket"])
        .arg(world.lab.folder().join("api.sock"));
    curl.arg("http://hub/readyz").stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
}

/// What both policies allow passes.
#[track_caller]
fn goes_on(world: &World, inject: &str) {
    for v4 in FAMILIES {
        let outcome = world.outside.udp(member_at(0, v4), 7_000, PATIENCE);
        assert_eq!(outcome, Answered, "{inject}");
    }
}

/// Whether the loaded program would let a packet to a port pass.
fn passes(world: &World, port: u16) -> bool {
    world.why(&format!("udp 192.0.2.10 10.100.0.10:{port}")).1
}

fn attach(pid: u32, inject: &str) -> Background {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={CALLS}"), "-e", inject, "-p"]);
    let strace = Background::start(strace.arg(pid.to_string()).stderr(Stdio::null()));
    let tasks = Path::new("/proc").join(pid.to_string()).join("task");
    wait_until("strace has every thread", PATIENCE, || {
        fs::read_dir(&tasks).into_iter().flatten().flatten().all(|task| {
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
        })
    });
    strace
}
