//! Network namespaces that live as long as a thread: nothing to clean up, also after a panic or a kill.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hub_daemon::desired::{Desired, Namespace, Port, Role, Segment, SegmentState, Xdp};
use hub_daemon::kernel::wireguard::process;
use hub_daemon::model::policy::Policy;
use hub_daemon::model::{PersonaId, SegmentId};
use hub_daemon::tables::network::Network;
use hub_daemon::tables::resolvers::Roots;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Uid, getpid, gettid};

/// How long anything that the kernel does by itself may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a test in a fresh namespace; without root it says that the test is left out.
pub(crate) fn lab(test: impl FnOnce() + Send + 'static) {
    let asked = std::env::var("HUB_TEST_ROOT").is_ok_and(|value| value == "1");
    if !asked && !Uid::effective().is_root() {
        let name = std::thread::current().name().unwrap_or("test").to_owned();
        eprintln!("{name}: left out, it needs root (HUB_TEST_ROOT=1 insists)");
        return;
    }
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace needs CAP_SYS_ADMIN");
        ip("link set lo up");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

type Work = Box<dyn FnOnce() + Send>;

/// A member: a namespace held by a thread that waits for work.
pub(crate) struct Member {
    path: PathBuf,
    work: Option<Sender<Work>>,
    thread: Option<JoinHandle<()>>,
}

impl Member {
    pub(crate) fn new() -> Self {
        let (work, inbox) = channel::<Work>();
        let (ready, started) = channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ready.send(gettid()).unwrap();
            for work in inbox {
                work();
            }
        });
        let path = format!("/proc/{}/task/{}/ns/net", getpid(), started.recv().unwrap());
        Self { path: path.into(), work: Some(work), thread: Some(thread) }
    }

    pub(crate) fn namespace(&self) -> Namespace {
        Namespace::Name(self.path.display().to_string())
    }

    /// Runs a command inside; whether it succeeded, and what it said.
    pub(crate) fn run(&self, command: &str) -> (bool, String) {
        let (answer, answered) = channel();
        let command = command.to_owned();
        let work = Box::new(move || answer.send(run(&command)).unwrap());
        self.work.as_ref().unwrap().send(work).unwrap();
        let output = answered.recv().unwrap();
        (output.status.success(), text(&output))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// A folder that goes with the value.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("hub-netlink-{}-{}", getpid(), gettid()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Processes of tunnels outlive whoever started them, a test that failed too.
        for file in std::fs::read_dir(self.0.join(process::TUNNELS)).into_iter().flatten().flatten() {
            process::find(&file.path()).map(process::Found::end);
        }
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn run(command: &str) -> Output {
    let mut words = command.split_whitespace();
    let program = words.next().unwrap();
    Command::new(program).args(words).output().unwrap_or_else(|error| panic!("{command}: {error}"))
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs `ip` in the namespace of the calling thread; panics when it fails.
pub(crate) fn ip(arguments: &str) -> String {
    let output = run(&format!("ip {arguments}"));
    assert!(output.status.success(), "ip {arguments}: {}", text(&output));
    text(&output)
}

/// The tables of the calling thread's namespace, with everything that is kept in a folder.
pub(crate) fn open(folder: &Folder) -> Network {
    open_in(folder.path())
}

/// As [`open`], with a folder that somebody else has.
pub(crate) fn open_in(folder: &Path) -> Network {
    let below = |name: &str| folder.join(name);
    let roots = Roots {
        kept: below("state/resolvers.json"),
        netns: below("netns"),
        resolv_conf: below("resolv.conf"),
        bus: Some(format!("unix:path={}", below("bus").display())),
    };
    Network::open(folder, roots).unwrap()
}

/// Waits until something is so.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Adds a persona with a port of its own; what hangs on that port is its.
pub(crate) fn add_persona(desired: &mut Desired, id: &str, segment: u32, port: &str) {
    let policy = Policy {
        protocols: [0; 8],
        ingress_default: [0; 8],
        egress_default: [0; 8],
        ingress: Vec::new(),
        egress: Vec::new(),
        flags: 0,
        open: Default::default(),
        signatures: Vec::new(),
        terms: BTreeMap::new(),
    };
    let value = Segment {
        persona: PersonaId(id.into()),
        policy: Arc::new(policy),
        expires: None,
        drains: None,
        state: SegmentState::Active,
        flags: 0,
        candidate: None,
        set_generation: 0,
        transition: None,
        lease: None,
        routed: false,
    };
    desired.segments.insert(SegmentId(segment), value);
    let port_value = Port { role: Role::Segment, segment: Some(SegmentId(segment)), xdp: Xdp::Off };
    desired.ports.insert(port.into(), port_value);
}
