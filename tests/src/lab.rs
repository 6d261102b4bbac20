//! A lab of network namespaces in which the real `hubd` runs.
//!
//! A [`Lab`] owns everything it makes: namespaces, cables, processes, files, a bpffs. Dropping it removes
//! all of it, also when a test panics; what a killed test left behind is swept by the next lab. Names
//! carry the test's process id, so that tests run beside each other and beside a hub of the machine.
//!
//! Commands enter a namespace with `nsenter --net`, not `ip netns exec`: the latter hides bpffs.

mod arrivals;
pub mod beside;
mod dump;
mod http;
mod hub;
mod names;
pub mod own;
mod process;
pub mod resource;
mod space;
pub mod speed;
mod stream;
mod traffic;
pub mod tunnel;
mod wire;
pub mod world;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hub_daemon::kernel::wireguard::process as wireguard;

pub use arrivals::{Arrivals, Stream as Sender};
pub use dump::Dump;
pub use http::Answer;
pub use hub::{Config, Hub, program};
pub use names::Names;
pub(crate) use process::now;
pub use process::{Background, Output, command, patience, seconds, slowness, wait_until};
pub use space::Space;
pub use stream::{Seen, Stream, wall_ns};
pub use traffic::{Outcome, Server, Stopwatch, echoes};
pub use wire::Wire;
pub use world::World;

/// Prefix of the names of all namespaces.
const PREFIX: &str = "hubtest";

/// Whether tests that need root run. Says so when they do not.
#[expect(clippy::print_stderr, reason = "the reader of the test's output is told what was left out")]
pub fn root() -> bool {
    let allowed = std::env::var_os("HUB_TEST_ROOT").is_none_or(|value| value != "0");
    let is_root = nix::unistd::geteuid().is_root();
    if !(allowed && is_root) {
        eprintln!("left out: this test needs root (HUB_TEST_ROOT=0 leaves it out on purpose)");
    }
    allowed && is_root
}

/// Whether the kernel has VLAN devices. Only they put tags beside frames.
pub fn has_vlans() -> bool {
    let mut lab = Lab::new();
    lab.space("vlan").succeeds(
        "ip link add wire type veth peer name far && ip link add link wire name tag type vlan id 7",
        Duration::from_secs(5),
    )
}

/// Namespaces, cables and files of one test.
#[derive(Debug)]
pub struct Lab {
    name: String,
    folder: PathBuf,
    spaces: Vec<Space>,
}

impl Lab {
    /// An empty lab.
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        sweep();
        let name = format!("{PREFIX}-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(&name);
        fs::create_dir_all(&folder).unwrap();
        Self { name, folder, spaces: Vec::new() }
    }

    /// A folder for the files of this test.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes a namespace with its loopback interface up.
    pub fn space(&mut self, name: &str) -> Space {
        let space = Space::create(format!("{}-{name}", self.name));
        self.spaces.push(space.clone());
        space
    }

    /// A namespace that was made before, by the name it was made with.
    pub fn named(&self, name: &str) -> Space {
        let full = format!("{}-{name}", self.name);
        self.spaces.iter().find(|space| space.name() == full).expect("it was made before").clone()
    }

    /// Starts `hubd` in a namespace.
    pub fn hub(&self, space: &Space, config: &Config) -> Hub {
        Hub::start(space.clone(), &self.folder, config)
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for space in &self.spaces {
            space.remove();
            space.forget();
        }
        remove_folder(&self.folder);
    }
}

/// Removes what labs of dead processes left behind.
fn sweep() {
    let is_left_over = |name: &str| {
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').nth(1));
        pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists())
    };
    for name in names_in(Path::new("/run/netns")).into_iter().filter(|name| is_left_over(name)) {
        let space = Space::named(name);
        space.remove();
        space.forget();
    }
    for name in names_in(&std::env::temp_dir()).into_iter().filter(|name| is_left_over(name)) {
        remove_folder(&std::env::temp_dir().join(name));
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Ends processes of tunnels, which outlive the hub and hold their namespaces, unmounts what is mounted below a folder,
/// then removes it. Best effort: the test has its verdict.
fn remove_folder(folder: &Path) {
    let tunnels = folder.join("run").join(wireguard::TUNNELS);
    for file in names_in(&tunnels) {
        // Of these files only sockets have somebody behind them.
        drop(wireguard::find(&tunnels.join(file)).map(wireguard::Found::end));
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let below = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|at| at.starts_with(&*folder.to_string_lossy()));
    for mount in below.collect::<Vec<_>>().into_iter().rev() {
        nix::mount::umount2(mount, nix::mount::MntFlags::MNT_DETACH).ok();
    }
    fs::remove_dir_all(folder).ok();
}
