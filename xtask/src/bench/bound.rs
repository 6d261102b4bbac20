//! The measuring thread: bound to one CPU, before all others if the machine allows it, and its CPU time.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::{
    sched::{CloneFlags, CpuSet, sched_setaffinity, setns},
    time::{ClockId, clock_gettime},
    unistd::{Pid, gettid},
};

use crate::command::{run, text};

/// The CPU that measures. The last one: the first serves most interrupts.
pub(super) fn cpu() -> usize {
    thread::available_parallelism().map_or(0, |count| count.get() - 1)
}

/// Whether a measuring thread goes before all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Priority {
    First,
    Usual,
}

/// Runs work on a thread of its own in a network namespace.
pub(super) fn inside<T: Send>(namespace: &Path, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    apart(|| {
        enter(namespace)?;
        work()
    })
}

/// Runs work on a thread of its own, bound to the measuring CPU. Says which priority it got.
pub(super) fn bound<T: Send>(work: impl FnOnce(Priority) -> Result<T> + Send) -> Result<T> {
    apart(|| work(bind()?))
}

/// Binds the calling thread to the measuring CPU and puts it first, if allowed.
pub(super) fn bind() -> Result<Priority> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu()).context("name the measuring CPU")?;
    sched_setaffinity(Pid::from_raw(0), &cpus).context("bind to the measuring CPU")?;
    let thread = gettid().to_string();
    let first = text(Command::new("chrt").args(["--fifo", "--pid", "40", &thread]));
    Ok(if first.is_ok() { Priority::First } else { Priority::Usual })
}

/// Runs work on a thread of its own.
pub(super) fn apart<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        scope.spawn(work).join().unwrap_or_else(|_panic| Err(anyhow!("the measuring thread panicked")))
    })
}

/// Moves the calling thread into a network namespace.
pub(super) fn enter(namespace: &Path) -> Result<()> {
    let file = fs::File::open(namespace).with_context(|| format!("open {}", namespace.display()))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("enter {}", namespace.display()))
}

/// CPU time of the calling thread, softirqs in it included, and of the measuring CPU's `ksoftirqd`.
#[derive(Debug)]
pub(super) struct Meter {
    schedstat: PathBuf,
}

impl Meter {
    pub(super) fn new() -> Result<Self> {
        let name = format!("ksoftirqd/{}\n", cpu());
        for entry in fs::read_dir("/proc").context("list processes")? {
            let process = entry?.path();
            if fs::read_to_string(process.join("comm")).is_ok_and(|comm| comm == name) {
                return Ok(Self { schedstat: process.join("schedstat") });
            }
        }
        bail!("no process is called {}", name.trim())
    }

    /// Nanoseconds so far.
    pub(super) fn read(&self) -> Result<u64> {
        let own = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("read the thread's CPU time")?;
        let softirq = fs::read_to_string(&self.schedstat)
            .with_context(|| format!("read {}", self.schedstat.display()))?;
        let softirq: u64 =
            softirq.split(' ').next().and_then(|word| word.parse().ok()).context("parse schedstat")?;
        Ok(u64::try_from(Duration::from(own).as_nanos())?.saturating_add(softirq))
    }
}

/// Writes a switch of the namespace that the calling thread is in.
pub(super) fn sysctl(path: &str, value: &str) -> Result<()> {
    let file = Path::new("/proc/sys").join(path);
    fs::write(&file, value).with_context(|| format!("write {value} to {}", file.display()))
}

/// Runs a program in a network namespace; fails when it fails.
pub(super) fn run_inside(namespace: &Path, program: &str, arguments: &[&str]) -> Result<()> {
    run(command_inside(namespace, program).args(arguments))
}

/// A program in a network namespace. Not `ip netns exec`: that hides the BPF file system.
pub(super) fn command_inside(namespace: &Path, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", namespace.display())).arg("--").arg(program);
    command
}
