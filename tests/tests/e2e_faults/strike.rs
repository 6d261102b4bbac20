//! How `strace` lets a call fail, or only writes down what is called.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use hub_tests::lab::{Background, World, wait_until};

use crate::calls::{KINDS, OF_STATE, ON_FILES};
use crate::phases::PATIENCE;

/// Names that the state file and its journal have or had.
const STATE: [&str; 7] = [
    "state.json",
    "state.json.new",
    "state.json.old",
    "state.json.broken",
    "state.journal",
    "state.journal.old",
    "state.journal.broken",
];

/// A call of each thread, and what befalls it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) call: &'static str,
    pub(crate) befalls: &'static str,
    pub(crate) at: u64,
    /// Only calls on the state file and what is written beside it are meant.
    pub(crate) of_state: bool,
}

/// What `strace` is told to let a fault happen.
pub(crate) fn words(world: &World, fault: &Fault, trace: &Path) -> Vec<String> {
    let mut words = begin(trace);
    let inject = format!("inject={}:{}:when={}", fault.call, fault.befalls, fault.at);
    words.extend(["-e".to_owned(), format!("trace={}", fault.call), "-e".to_owned(), inject]);
    if fault.of_state {
        words.extend(of_state(world));
    }
    words
}

/// What `strace` is told to write down every call that a fault may befall, all of them or those on the state.
pub(crate) fn listing(world: &World, trace: &Path, state: bool) -> Vec<String> {
    let mut words = begin(trace);
    let wanted = KINDS.iter().map(|(call, _)| *call).filter(|call| OF_STATE.contains(call) == state);
    words.extend(["-e".to_owned(), format!("trace={}", wanted.collect::<Vec<_>>().join(","))]);
    if state {
        words.extend(of_state(world));
    }
    words
}

/// What `strace` is told to write down every call by which the state is kept, on its files alone.
pub(crate) fn listing_of_files(world: &World, trace: &Path) -> Vec<String> {
    let mut words = begin(trace);
    words.extend(["-e".to_owned(), format!("trace={}", ON_FILES.join(","))]);
    words.extend(of_state(world));
    words
}

fn begin(trace: &Path) -> Vec<String> {
    let mut words: Vec<String> = ["-f", "-qq", "-o"].map(str::to_owned).to_vec();
    words.push(trace.display().to_string());
    words
}

/// Only calls on these files.
fn of_state(world: &World) -> impl Iterator<Item = String> {
    let folder = world.hub.folder().join("state");
    let files = STATE.map(|name| folder.join(name)).into_iter().chain([folder]);
    files.flat_map(|file| ["-P".to_owned(), file.display().to_string()])
}

/// Whether a call was made to fail.
pub(crate) fn has_struck(trace: &Path) -> bool {
    fs::read_to_string(trace).unwrap_or_default().contains("(INJECTED)")
}

/// Lets `strace` follow every thread of the daemon.
pub(crate) fn attach(words: &[String], pid: u32) -> Background {
    let mut strace = Command::new("strace");
    strace.args(words).arg("-p").arg(pid.to_string());
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
