//! Processes with a time-out, and waiting with a deadline.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// How a command ended.
#[derive(Debug)]
pub struct Output {
    /// What was run.
    pub command: String,
    /// Its exit status; `None` when it was stopped after its time was up.
    pub status: Option<ExitStatus>,
    /// What it said.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Output {
    /// Whether it ended in time and with success.
    pub fn success(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// What it said; fails the test unless it succeeded.
    pub fn expect_success(self) -> String {
        assert!(self.success(), "{}: {:?}\n{}{}", self.command, self.status, self.stdout, self.stderr);
        self.stdout
    }
}

/// What deadlines are multiplied by: 1, or `HUB_TEST_PATIENCE` on machines that are emulated.
pub fn patience() -> u32 {
    std::env::var("HUB_TEST_PATIENCE").ok().and_then(|factor| factor.parse().ok()).unwrap_or(1)
}

/// How many times as long what a test asks for lasts there: deadlines leave it room.
pub fn slowness() -> u32 {
    patience().min(4)
}

/// So many seconds as a document writes them: over soon, and not before a slow machine has seen what happens until then.
pub fn seconds(amount: u32) -> String {
    format!("{}s", amount * slowness())
}

/// Runs a command to its end, or for at most `limit` (times [`patience`]).
pub fn command(command: &mut Command, input: &str, limit: Duration) -> Output {
    let name = format!("{command:?}");
    let mut child = start(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let mut stdin = child.stdin.take().unwrap();
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let input = input.to_owned();
    // A program may end before it has read everything.
    let writer = thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let out = thread::spawn(move || read_all(&mut stdout));
    let err = thread::spawn(move || read_all(&mut stderr));
    let status = wait_child(&mut child, limit * patience());
    if status.is_none() {
        stop(&mut child, Signal::SIGKILL);
    }
    writer.join().unwrap();
    Output { command: name, status, stdout: out.join().unwrap(), stderr: err.join().unwrap() }
}

fn read_all(source: &mut impl std::io::Read) -> String {
    let mut bytes = Vec::new();
    source.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Starts a command in a process group of its own, so that its children end with it.
fn start(command: &mut Command) -> Child {
    command.process_group(0).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn wait_child(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = now() + limit;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if now() >= deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Signals the process and its group, then collects it. One that was collected has no number any more.
fn stop(child: &mut Child, signal: Signal) {
    if child.try_wait().unwrap().is_some() {
        return;
    }
    let pid = Pid::from_raw(child.id().cast_signed());
    // Already gone is as good as stopped.
    killpg(pid, signal).ok();
    if wait_child(child, Duration::from_secs(10)).is_none() {
        killpg(pid, Signal::SIGKILL).ok();
        child.wait().unwrap();
    }
}

/// A process that runs until it is dropped.
#[derive(Debug)]
pub struct Background {
    child: Child,
}

impl Background {
    /// Starts a command; its output goes nowhere unless the command says otherwise.
    pub fn start(command: &mut Command) -> Self {
        Self { child: start(command) }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Asks it to end and waits for that.
    pub fn stop(&mut self) -> ExitStatus {
        stop(&mut self.child, Signal::SIGTERM);
        self.child.wait().unwrap()
    }

    /// Ends it without asking.
    pub fn kill(&mut self) {
        stop(&mut self.child, Signal::SIGKILL);
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        stop(&mut self.child, Signal::SIGKILL);
    }
}

/// Waits until the condition holds; fails the test when it does not within the limit (times [`patience`]).
#[track_caller]
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Duration {
    let limit = limit * patience();
    let start = now();
    while !condition() {
        assert!(start.elapsed() < limit, "waited {limit:?} in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
    start.elapsed()
}

#[expect(clippy::disallowed_methods, reason = "the lab runs in real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
