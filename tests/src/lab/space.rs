//! One network namespace: its interfaces, and commands inside it.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::process::{Background, Output, command};

/// A network namespace by name; clones are the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    name: String,
}

/// Commands that take longer than this hang.
const LIMIT: Duration = Duration::from_secs(20);

impl Space {
    pub(super) fn create(name: String) -> Self {
        let space = Self::named(name);
        ip_command(&["netns", "add", &space.name], "").expect_success();
        space.within(|| {
            // Duplicate address detection would keep IPv6 silent for a second after every link.
            for which in ["all", "default"] {
                std::fs::write(format!("/proc/sys/net/ipv6/conf/{which}/accept_dad"), "0").unwrap();
            }
        });
        space.ip("link set lo up");
        space
    }

    pub(super) const fn named(name: String) -> Self {
        Self { name }
    }

    pub(super) fn remove(&self) {
        // A namespace that is gone is as good as removed.
        drop(ip_command(&["netns", "delete", &self.name], ""));
    }

    /// Removes the files that it shows as those of the host.
    pub(super) fn forget(&self) {
        std::fs::remove_dir_all(PathBuf::from("/etc/netns").join(&self.name)).ok();
    }

    /// Its name below `/run/netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its file.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// A program that will run in this namespace.
    pub fn program(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).args(["--", program]);
        command
    }

    /// Runs a shell command and says how it ended, for at most `limit`.
    pub fn try_sh(&self, script: &str, limit: Duration) -> Output {
        command(self.program("sh").args(["-c", script]), "", limit)
    }

    /// Runs a shell command that must succeed; returns what it said.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        self.try_sh(script, LIMIT).expect_success()
    }

    /// Whether a shell command succeeds within the limit.
    pub fn succeeds(&self, script: &str, limit: Duration) -> bool {
        self.try_sh(script, limit).success()
    }

    /// Starts a shell command that runs until the result is dropped.
    pub fn background(&self, script: &str) -> Background {
        let mut command = self.program("sh");
        command.args(["-c", &format!("exec {script}")]);
        Background::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))
    }

    /// Runs `ip` with these words.
    #[track_caller]
    pub fn ip(&self, words: &str) -> String {
        let mut arguments = vec!["-n", &self.name];
        arguments.extend(words.split_whitespace());
        ip_command(&arguments, "").expect_success()
    }

    /// Runs `ip` once with these lines, one after another.
    #[track_caller]
    pub fn ip_lines(&self, lines: &[String]) {
        ip_command(&["-n", &self.name, "-batch", "-"], &lines.join("\n")).expect_success();
    }

    /// Lays a cable between an interface here and one there, and puts addresses on both ends.
    #[track_caller]
    pub fn wire(&self, here: (&str, &[&str]), there: (&Self, &str, &[&str])) {
        let (far, far_name, far_addresses) = there;
        let (near_name, near_addresses) = here;
        let cable = format!("link add {near_name} type veth peer name {far_name} netns {}", far.name);
        let set_up = |name: &str, addresses: &[&str]| -> Vec<String> {
            let addresses = addresses.iter().map(|address| format!("address add {address} dev {name}"));
            addresses.chain([format!("link set {name} up")]).collect()
        };
        self.ip_lines(&[vec![cable], set_up(near_name, near_addresses)].concat());
        far.ip_lines(&set_up(far_name, far_addresses));
    }

    /// Whether the hub's programs hang on this port of its as filters, as before Linux 6.6, and not by TCX.
    pub fn hangs_on_filters(&self, port: &str) -> bool {
        self.sh(&format!("tc qdisc show dev {port}")).contains("clsact")
    }

    /// Gates of a port that are closed, of both families.
    pub fn gates(&self, port: &str) -> usize {
        let shown = self.sh("ip rule show; ip -6 rule show");
        let name = format!("iif {port}");
        shown.lines().filter(|line| line.starts_with("17699:") && line.contains(&name)).count()
    }

    /// Index of an interface.
    pub fn interface(&self, name: &str) -> u32 {
        let shown = self.ip(&format!("-oneline link show dev {name}"));
        shown.split(':').next().unwrap().trim().parse().unwrap()
    }

    /// MAC address of an interface.
    pub fn mac(&self, name: &str) -> [u8; 6] {
        let shown = self.ip(&format!("-oneline link show dev {name}"));
        let mut words = shown.split_whitespace().skip_while(|word| *word != "link/ether");
        let text = words.nth(1).unwrap_or_else(|| panic!("{name} has no MAC address: {shown}"));
        let bytes: Vec<u8> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        bytes.try_into().unwrap()
    }

    /// Whether a ping is answered; IPv4 or IPv6 by the address.
    pub fn pings(&self, target: &str) -> bool {
        self.succeeds(&format!("ping -n -c 1 -W 1 {target}"), Duration::from_secs(3))
    }

    /// Whether something accepts TCP there.
    pub fn connects(&self, target: &str, port: u16) -> bool {
        self.succeeds(&format!("nc -z -w 1 {target} {port}"), Duration::from_secs(3))
    }

    /// A server that answers every TCP connection on a port, one at a time.
    pub fn listen(&self, port: u16) -> Background {
        let server = self.background(&format!("nc -6 -l -k -p {port}"));
        let listening = format!("ss -Hltn 'sport = :{port}' | grep -q LISTEN");
        super::wait_until("the server listens", Duration::from_secs(5), || self.succeeds(&listening, LIMIT));
        server
    }

    /// Runs a function on a thread inside this namespace.
    pub fn within<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        let file = std::fs::File::open(self.path()).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                nix::sched::setns(&file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                run()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

fn ip_command(arguments: &[&str], input: &str) -> Output {
    command(Command::new("ip").args(arguments), input, LIMIT)
}
