//! Four network namespaces with real stacks, and the hub between them.
//!
//! ```text
//! client ── wan0 ┌─────┐ lan0 ── dev      a member behind a shared interface
//!                │ hub │
//!                └─────┘ hub… ── web      a member whose interface the hub makes
//! ```
//! What belongs to a lab is known by its name alone, so that a lab whose program was killed is cleared away
//! by the next one.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::shell::Place;
use crate::{clock::wait_until, command::text};

/// Names of namespaces and folders begin so; a number follows.
const PREFIX: &str = "hubdemo-";
/// Where `ip netns` keeps namespaces.
const NAMESPACES: &str = "/run/netns";
/// The longest start of the daemon.
const START: Duration = Duration::from_secs(15);

/// Makes the links; `$1` is the prefix of the namespaces.
const LINKS: &str = "
set -e
for place in hub client dev web; do
    ip netns add $1$place
    ip -n $1$place link set lo up
done
hub=$1hub client=$1client dev=$1dev
ip -n $hub link add wan0 type veth peer name eth0 netns $client
ip -n $hub link add lan0 type veth peer name eth0 netns $dev
ip -n $hub link set wan0 up
ip -n $hub link set lan0 up
ip -n $hub address add 192.0.2.1/24 dev wan0
ip -n $hub address add 2001:db8:2::1/64 dev wan0 nodad
ip -n $client link set eth0 up
ip -n $client address add 192.0.2.10/24 dev eth0
ip -n $client address add 2001:db8:2::10/64 dev eth0 nodad
ip -n $client route add default via 192.0.2.1
ip -n $client route add default via 2001:db8:2::1
ip -n $dev link set eth0 up
ip -n $dev address add 10.100.0.10/24 dev eth0
ip -n $dev address add 10.102.0.10/24 dev eth0
ip -n $dev route add default via 10.100.0.1
";

/// Answers HTTP without looking at the question.
const HTTP: &str = "#!/bin/sh
while read -r line && [ \"${#line}\" -gt 1 ]; do :; done
printf 'HTTP/1.0 200 OK\\r\\n\\r\\nhello from %s\\n' \"$1\"
";

/// Namespaces, a folder with configuration and state, and the daemon.
pub(super) struct Lab {
    prefix: String,
    folder: PathBuf,
    binaries: PathBuf,
    hubd: Option<Child>,
    interrupted: Arc<AtomicBool>,
}

impl Lab {
    /// Makes the namespaces, and a copy of the configuration that names them.
    pub(super) fn new(config: &Path, binaries: &Path, interrupted: Arc<AtomicBool>) -> Result<Self> {
        clear_dead_labs();
        let prefix = format!("{PREFIX}{}-", process::id());
        let folder = folder_of(&prefix);
        // From here on, `Drop` clears away what there is.
        let lab = Self { prefix, folder, binaries: binaries.to_path_buf(), hubd: None, interrupted };
        copy(config, &lab.folder, &lab.prefix)?;
        fs::write(lab.folder.join("http.sh"), HTTP).context("write http.sh")?;
        fs::write(lab.folder.join("persona.json"), include_str!("persona.json"))
            .context("write persona.json")?;
        let mut links = Command::new("sh");
        text(links.args(["-c", LINKS, "sh", &lab.prefix])).context("make network namespaces")?;
        Ok(lab)
    }

    /// The folder that commands run in.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file that names a place's namespace.
    pub(super) fn namespace(&self, place: Place) -> PathBuf {
        Path::new(NAMESPACES).join(format!("{}{}", self.prefix, place.name()))
    }

    /// Programs are searched for here first.
    pub(super) fn path(&self) -> Result<std::ffi::OsString> {
        let own = env::var_os("PATH").unwrap_or_default();
        let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
        env::join_paths([self.binaries.clone()].into_iter().chain(env::split_paths(&own)).chain(system))
            .context("put PATH together")
    }

    /// Set once the user wants to end.
    pub(super) fn interrupted(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.interrupted)
    }

    /// Fails once the user wants to end.
    pub(super) fn go_on(&self) -> Result<()> {
        if self.interrupted.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Starts the daemon and waits until it is ready; how long that took.
    pub(super) fn start_hubd(&mut self) -> Result<Duration> {
        let log = self.folder.join("hubd.log");
        let log = fs::File::options().create(true).append(true).open(&log).context("open hubd.log")?;
        let mut command = self.command(Place::Hub, "exec hubd run --config hub.yaml")?;
        command.stdout(log.try_clone().context("share hubd.log")?).stderr(log);
        let mut hubd = command.spawn().context("start hubd")?;
        let took = wait_until(START, || {
            let ended = hubd.try_wait().is_ok_and(|status| status.is_some());
            ended || self.interrupted.load(Ordering::Relaxed) || self.is_ready()
        });
        self.hubd = Some(hubd);
        self.go_on()?;
        took.filter(|_| self.is_ready()).context("hubd does not become ready")
    }

    fn is_ready(&self) -> bool {
        let question = self.command(Place::Hub, "test \"$(hubctl status --json | jq .ready)\" = true");
        question.and_then(|mut command| text(&mut command)).is_ok()
    }

    /// Process id of the daemon.
    pub(super) fn hubd_pid(&self) -> Result<u32> {
        self.hubd.as_ref().map(Child::id).context("hubd was started")
    }

    /// Waits for the daemon, which a signal ends.
    pub(super) fn reap_hubd(&mut self) -> Result<()> {
        let Some(mut hubd) = self.hubd.take() else { return Ok(()) };
        hubd.wait().context("wait for hubd")?;
        Ok(())
    }

    /// The end of the daemon's log.
    pub(super) fn log(&self) -> String {
        let log = fs::read_to_string(self.folder.join("hubd.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
    }

    /// A shell in a namespace. It leaves Ctrl-C to the demo, which then clears away everything.
    ///
    /// `nsenter` and not `ip netns exec`: that one hides the BPF file system.
    pub(super) fn command(&self, place: Place, script: &str) -> Result<Command> {
        use std::os::unix::process::CommandExt as _;
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.namespace(place).display()))
            .args(["sh", "-c", script])
            .current_dir(&self.folder)
            .env("PATH", self.path()?)
            .env("HUB_SOCKET", "run/hubd.sock")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .process_group(0);
        Ok(command)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        clear(&self.prefix);
        if let Some(mut hubd) = self.hubd.take() {
            // It was killed with all processes of its namespace.
            drop(hubd.wait());
        }
    }
}

fn folder_of(prefix: &str) -> PathBuf {
    env::temp_dir().join(prefix.trim_end_matches('-'))
}

/// Copies the configuration; the namespaces that it names get the lab's prefix.
fn copy(from: &Path, to: &Path, prefix: &str) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("create {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
        let source = entry.with_context(|| format!("read {}", from.display()))?.path();
        let target = to.join(source.file_name().context("an entry has a name")?);
        if source.is_dir() {
            copy(&source, &target, prefix)?;
        } else {
            let text = fs::read_to_string(&source).with_context(|| format!("read {}", source.display()))?;
            fs::write(&target, text.replace(PREFIX, prefix))
                .with_context(|| format!("write {}", target.display()))?;
        }
    }
    Ok(())
}

/// Clears away labs whose programs are dead.
fn clear_dead_labs() {
    let mut prefixes: Vec<String> = [Path::new(NAMESPACES), &env::temp_dir()]
        .into_iter()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flatten()
        .filter_map(|entry| lab_of(entry.ok()?.file_name().to_str()?))
        .filter(|(pid, _)| !Path::new("/proc").join(pid).exists())
        .map(|(_, prefix)| prefix)
        .collect();
    prefixes.sort();
    prefixes.dedup();
    for prefix in &prefixes {
        clear(prefix);
    }
}

/// The process and the prefix that a name of a namespace or folder speaks of.
fn lab_of(name: &str) -> Option<(String, String)> {
    let pid = name.strip_prefix(PREFIX)?.split('-').next()?;
    pid.parse::<u32>().ok()?;
    Some((pid.to_owned(), format!("{PREFIX}{pid}-")))
}

/// Ends every process in a lab's namespaces, then removes these and the folder. Goes on when something fails:
/// what is not there cannot be removed.
fn clear(prefix: &str) {
    let run = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        let quiet = command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null());
        quiet.output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
    };
    for place in Place::ALL {
        let name = format!("{prefix}{}", place.name());
        let pids = run("ip", &["netns", "pids", &name]);
        let pids: Vec<&str> = pids.split_whitespace().collect();
        if !pids.is_empty() {
            run("kill", &[&["-KILL"], pids.as_slice()].concat());
        }
        run("ip", &["netns", "delete", &name]);
    }
    let folder = folder_of(prefix);
    let bpffs = folder.join("bpf");
    run("umount", &[&bpffs.display().to_string()]);
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            crate::say::complain(&format!("remove {}: {error}", folder.display()));
        }
        Ok(()) | Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labs_are_known_by_name() {
        let lab = Some(("17".to_owned(), "hubdemo-17-".to_owned()));
        assert_eq!(lab_of("hubdemo-17-hub"), lab);
        assert_eq!(lab_of("hubdemo-17"), lab);
        assert_eq!(lab_of("hubdemo-hub"), None);
        assert_eq!(lab_of("other-17-hub"), None);
    }

    #[test]
    fn scripts_are_valid_shell() {
        for script in [LINKS, HTTP] {
            text(Command::new("sh").args(["-n", "-c", script])).unwrap();
        }
    }
}
