//! The hub under test: a daemon of its own in the middle of a lab, with documents of its own.

use std::{
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    os::unix::{net::UnixStream, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{
    bound::command_inside,
    lab::{Families, Lab, MEMBER_PORT, Personas, Tracking},
    stop,
};
use crate::command::text;

/// Which programs judge packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    Tc,
    Xdp,
}

impl Hook {
    fn switch(self) -> &'static str {
        match self {
            Self::Tc => "off",
            Self::Xdp => "on",
        }
    }
}

/// A running daemon; it ends with the value and leaves nothing behind.
#[derive(Debug)]
pub(super) struct Hub {
    child: Child,
    folder: PathBuf,
}

impl Hub {
    /// Starts a daemon that knows these personas, and waits until the kernel holds them.
    pub(super) fn start(
        program: &Path,
        folder: PathBuf,
        lab: &Lab,
        hook: Hook,
        personas: Personas,
    ) -> Result<Self> {
        fs::create_dir_all(folder.join("documents"))?;
        if personas.count > 1 {
            fs::write(folder.join("documents/personas.yaml"), documents(personas))?;
        }
        let config = configuration(&folder, hook, personas);
        let hub = Self::launch(program, folder, lab, &config)?;
        if personas.count == 1 {
            // By the API, so that it can be replaced by the API.
            let body = persona_of(personas, 0, "bench").to_string();
            let answer = hub.request("POST", "/personas", &body)?;
            if field(&answer, "/state") != "active" {
                bail!("the persona is not active: {answer}");
            }
        } else {
            hub.wait_until_held(personas.count)?;
        }
        Ok(hub)
    }

    /// Starts a daemon with this configuration and the documents in its folder.
    pub(super) fn launch(program: &Path, folder: PathBuf, lab: &Lab, text: &str) -> Result<Self> {
        fs::create_dir_all(folder.join("documents"))?;
        let (config, log) = (folder.join("hub.yaml"), folder.join("hubd.log"));
        fs::write(&config, text)?;
        let mut command = command_inside(lab.middle()?.path(), &program.display().to_string());
        command.args(["run", "--config"]).arg(&config).stdin(Stdio::null());
        command.stdout(fs::File::create(&log)?).stderr(fs::File::options().append(true).open(&log)?);
        // Ctrl-C is for the bench, which ends the daemon in its own time.
        command.process_group(0);
        let child = command.spawn().with_context(|| format!("start {}", program.display()))?;
        let mut hub = Self { child, folder };
        hub.wait_until_ready()?;
        Ok(hub)
    }

    /// Number of the daemon's process.
    pub(super) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Where the daemon keeps everything, its log and its documents among it.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        // 4,096 documents take seconds where other work is going on.
        for _ in 0..3_000 {
            stop::check()?;
            if let Some(status) = self.child.try_wait()? {
                bail!("hubd ended with {status}: {}", self.last_words());
            }
            if self.get("/readyz").is_ok() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(100));
        }
        bail!("hubd is not ready after five minutes: {}", self.last_words())
    }

    /// Waits until the kernel tables hold the personas; whether they work, packets will tell.
    fn wait_until_held(&self, personas: u32) -> Result<()> {
        let held = |status: &Value, table: &str| {
            let tables = field(status, "/tables").as_array();
            let puts = |row: &&Value| field(row, "/puts").as_u64() >= Some(personas.into());
            tables.is_some_and(|rows| rows.iter().filter(puts).any(|row| field(row, "/table") == table))
        };
        for _ in 0..3_000 {
            stop::check()?;
            let status = self.get("/status")?;
            if ["segments", "prefixes", "routes"].into_iter().all(|table| held(&status, table)) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(100));
        }
        bail!("after five minutes the kernel does not hold all personas: {}", self.get("/status")?)
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.folder.join("hubd.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(3).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Asks the API.
    pub(super) fn get(&self, path: &str) -> Result<Value> {
        self.request("GET", path, "")
    }

    /// Replaces the first persona by itself with another rule: every flow of it is judged again.
    pub(super) fn churn(&self, personas: Personas, turn: u32) -> Result<()> {
        let persona = persona_of(personas, 0, &format!("churn {turn}"));
        self.request("PUT", "/personas/p0", &persona.to_string()).map(drop)
    }

    /// Kernel number of the program on a hook of an interface.
    pub(super) fn program_id(&self, interface: &str, hook: &str) -> Result<u32> {
        let status = self.get("/status")?;
        let attachments =
            field(&status, "/attachments").as_array().context("the status lists attachments")?;
        let found = attachments
            .iter()
            .find(|one| field(one, "/interface") == interface && field(one, "/hook") == hook);
        let id = found.and_then(|one| field(one, "/program_id").as_u64());
        Ok(u32::try_from(id.with_context(|| format!("no {hook} on {interface}: {status}"))?)?)
    }

    /// Asks the API with a body.
    pub(super) fn request(&self, method: &str, path: &str, body: &str) -> Result<Value> {
        let socket = self.folder.join("hubd.sock");
        let mut stream = UnixStream::connect(&socket).context("connect to hubd")?;
        stream.set_read_timeout(Some(Duration::from_mins(1)))?;
        let length = body.len();
        let kind = if method == "PATCH" { "merge-patch+json" } else { "json" };
        stream.write_all(
            format!(
                "{method} {path} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\
                 Content-Type: application/{kind}\r\nContent-Length: {length}\r\n\r\n{body}"
            )
            .as_bytes(),
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an HTTP answer")?;
        let status = head.split(' ').nth(1).unwrap_or_default();
        if !status.starts_with('2') {
            bail!("{method} {path}: {status}: {body}");
        }
        Ok(serde_json::from_str(body).unwrap_or(Value::Null))
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        // Takes the pinned programs, links and maps along.
        drop(text(Command::new("umount").arg(self.folder.join("bpf"))));
    }
}

/// The value at a JSON pointer, null where there is none.
pub(super) fn field<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or(&Value::Null)
}

fn configuration(folder: &Path, hook: Hook, personas: Personas) -> String {
    let (at, xdp) = (folder.display(), hook.switch());
    let rules = (personas.count * personas.rules * 2).max(131_072);
    format!(
        "api: {{socket: {at}/hubd.sock}}\n\
         metrics: {{listen: \"127.0.0.1:0\"}}\n\
         state_dir: {at}/state\nruntime_dir: {at}/run\nbpffs: {at}/bpf\ndocuments: {at}/documents\n\
         limits: {{rules: {rules}}}\nloose_tcp: \"0\"\n\
         interfaces:\n\
         - {{name: wan0, role: uplink, xdp: {xdp}}}\n\
         - {{name: lan0, role: segment, xdp: {xdp}}}\n"
    )
}

fn documents(personas: Personas) -> String {
    let mut text = String::new();
    for index in 0..personas.count {
        // JSON is YAML.
        _ = writeln!(text, "---\n{}", persona_of(personas, index, "bench"));
    }
    text
}

/// A persona whose last rule lets the measured traffic in; the others do not match it.
fn persona_of(personas: Personas, index: u32, note: &str) -> Value {
    let mut ranges = vec![personas.range(index)];
    if personas.families == Families::Both {
        ranges.push("2001:db8:64::/64".to_owned());
    }
    let mut rules: Vec<Value> = (1..personas.rules)
        .map(|number| serde_json::json!({"protocol": "tcp", "port": 2_000 + number, "action": "allow"}))
        .collect();
    rules.push(serde_json::json!({"protocol": "udp", "port": MEMBER_PORT, "name": note, "action": "allow"}));
    serde_json::json!({
        "kind": "persona",
        "protocols": ["tcp", "udp", "icmp"],
        "name": format!("p{index}"),
        "ip_range": ranges,
        "tracking": match personas.tracking { Tracking::All => "all", Tracking::Needed => "needed" },
        "security_policies": rules,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_hold_as_many_personas_and_rules_as_asked_for() {
        let personas = Personas { count: 3, rules: 10, families: Families::V4, tracking: Tracking::All };
        assert_eq!(documents(personas).matches("---").count(), 3);
        let persona = persona_of(personas, 2, "x");
        assert_eq!(persona["security_policies"].as_array().map(Vec::len), Some(10));
        assert_eq!(persona["ip_range"][0], "10.64.0.128/26");
    }
}
