//! The real `hubd` in a lab.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use super::http::{self, Answer};
use super::process::{Background, Output, command, patience, wait_until};
use super::space::Space;

/// What `hub.yaml` says beside the paths of the lab.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Interfaces with their roles, `uplink` or `segment`.
    pub interfaces: Vec<(String, String)>,
    /// Further lines, as they are.
    pub more: String,
}

impl Config {
    /// With one more interface.
    #[must_use]
    pub fn interface(mut self, name: &str, role: &str) -> Self {
        self.interfaces.push((name.to_owned(), role.to_owned()));
        self
    }

    /// With further lines of YAML.
    #[must_use]
    pub fn with(mut self, lines: &str) -> Self {
        self.more.push_str(lines);
        self.more.push('\n');
        self
    }

    fn yaml(&self, folder: &Path) -> String {
        let at = |name: &str| folder.join(name).display().to_string();
        let mut yaml = format!(
            "api:\n  socket: {}\nstate_dir: {}\nruntime_dir: {}\nbpffs: {}\ndocuments: {}\n",
            at("api.sock"),
            at("state"),
            at("run"),
            at("bpf"),
            at("documents"),
        );
        if !self.interfaces.is_empty() {
            yaml.push_str("interfaces:\n");
        }
        for (name, role) in &self.interfaces {
            writeln!(yaml, "  - name: {name}\n    role: {role}").unwrap();
        }
        yaml + &self.more
    }
}

/// A running or stopped `hubd`.
#[derive(Debug)]
pub struct Hub {
    space: Space,
    folder: PathBuf,
    process: Option<Background>,
    /// Where its programs are, unless where all tests find them.
    version: Option<PathBuf>,
}

/// Starting takes longer than this only when something is wrong.
const READY: Duration = Duration::from_secs(20);

impl Hub {
    pub(super) fn start(space: Space, folder: &Path, config: &Config) -> Self {
        let mut hub = Self { space, folder: folder.to_owned(), process: None, version: None };
        for name in ["state", "run", "bpf", "documents"] {
            fs::create_dir_all(folder.join(name)).unwrap();
        }
        hub.configure(config);
        hub.restart();
        hub
    }

    /// Writes `hub.yaml`; the next start reads it.
    pub fn configure(&self, config: &Config) {
        fs::write(self.folder.join("hub.yaml"), config.yaml(&self.folder)).unwrap();
    }

    /// Starts the daemon, or another after the last one ended, and waits until it is ready.
    pub fn restart(&mut self) {
        self.restart_under(&[]);
    }

    /// As [`Self::restart`], as the last words of another program's command.
    pub fn restart_under(&mut self, words: &[&str]) {
        self.launch_under(words);
        wait_until("hubd is ready", READY, || {
            let process = self.process.as_mut().unwrap();
            assert!(
                process.is_running(),
                "hubd ended:\n{}",
                fs::read_to_string(self.folder.join("log")).unwrap()
            );
            self.is_ready()
        });
    }

    /// From the next start on, the programs are those of a folder with another version, or again of this one.
    pub fn change_version(&mut self, folder: Option<&Path>) {
        self.version = folder.map(Path::to_owned);
    }

    fn program(&self, name: &str) -> String {
        let of_version = self.version.as_ref().map(|folder| folder.join(name));
        of_version.unwrap_or_else(|| program(name)).display().to_string()
    }

    /// Starts the daemon and waits for nothing.
    pub fn launch(&mut self) {
        self.launch_under(&[]);
    }

    /// Starts the daemon as the last words of another program's command, like that of `strace`. What it is
    /// sent as a process, that program gets; both end with it.
    pub fn launch_under(&mut self, words: &[&str]) {
        self.process = None;
        let log = File::options().create(true).append(true).open(self.folder.join("log")).unwrap();
        let hubd = self.program("hubd");
        let all: Vec<&str> = words.iter().copied().chain([hubd.as_str()]).collect();
        let mut command = self.space.program(all.first().expect("the daemon is one of them"));
        command.args(all.iter().skip(1)).args(["run", "--config"]).arg(self.folder.join("hub.yaml"));
        command.env("RUST_LOG", "info,hub_daemon=debug").env_remove("NOTIFY_SOCKET").stdin(Stdio::null());
        self.process = Some(Background::start(command.stdout(log.try_clone().unwrap()).stderr(log)));
    }

    /// Whether it says that it is ready.
    pub fn is_ready(&self) -> bool {
        let answer = self.try_send("GET", "/readyz", &serde_json::Value::Null, Duration::from_secs(10));
        answer.is_some_and(|answer| answer.status == 200)
    }

    /// The daemon's process.
    pub fn process(&mut self) -> &mut Background {
        self.process.as_mut().expect("hubd was started")
    }

    /// Folder of its files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Folder of the documents.
    pub fn documents(&self) -> PathBuf {
        self.folder.join("documents")
    }

    /// What the daemon logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Asks the API.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], "")
    }

    /// Sends a JSON body to the API.
    #[track_caller]
    pub fn send(&self, method: &str, path: &str, body: &serde_json::Value) -> Answer {
        self.request(method, path, &[], &body.to_string())
    }

    /// Asks the API with these headers and this body.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let limit = Duration::from_secs(20);
        self.ask((method, path), headers, body, limit)
            .unwrap_or_else(|error| panic!("{method} {path}: {error:#}"))
    }

    /// The answer of a hub that may be none, or die of the question.
    pub fn try_send(
        &self,
        method: &str,
        path: &str,
        body: &serde_json::Value,
        limit: Duration,
    ) -> Option<Answer> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.ask((method, path), &[], &body, limit).ok()
    }

    fn ask(
        &self,
        what: (&str, &str),
        headers: &[(&str, &str)],
        body: &str,
        limit: Duration,
    ) -> anyhow::Result<Answer> {
        http::ask(&self.socket(), what, headers, body, limit * patience())
    }

    /// The socket of the API.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("api.sock")
    }

    /// Runs `hubctl` against this daemon.
    pub fn hubctl(&self, arguments: &[&str]) -> Output {
        self.hubctl_in(&[], arguments)
    }

    /// The same, with these variables in its environment.
    pub fn hubctl_in(&self, environment: &[(&str, &str)], arguments: &[&str]) -> Output {
        let mut hubctl = self.space.program(&self.program("hubctl"));
        hubctl.envs(environment.iter().copied());
        hubctl.arg("--socket").arg(self.folder.join("api.sock")).args(arguments);
        command(&mut hubctl, "", Duration::from_secs(15))
    }
}

impl Drop for Hub {
    #[expect(clippy::print_stderr, reason = "a failed test shows what the daemon did")]
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            process.stop();
        }
        if std::thread::panicking() {
            let state = self.space.try_sh("ip -brief address; ip route; ip -6 route; ip rule", READY).stdout;
            let log = self.log();
            let from = log.len().saturating_sub(20_000);
            eprintln!(
                "--- {}\n{state}--- log of hubd\n{}",
                self.space.name(),
                log.get(from..).unwrap_or(&log)
            );
        }
    }
}

/// A binary of the hub: below `HUB_BIN_DIR`, else where cargo put it.
pub fn program(name: &str) -> PathBuf {
    let folder = std::env::var_os("HUB_BIN_DIR").map_or_else(
        || std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned(),
        PathBuf::from,
    );
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --bins`, or set HUB_BIN_DIR", path.display());
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_the_labs_own_paths() {
        let yaml =
            Config::default().interface("up0", "uplink").with("failsafe: []").yaml(Path::new("/tmp/x"));
        assert!(yaml.contains("socket: /tmp/x/api.sock\n") && yaml.contains("bpffs: /tmp/x/bpf\n"));
        assert!(yaml.ends_with("interfaces:\n  - name: up0\n    role: uplink\nfailsafe: []\n"));
    }
}
