//! `hubctl support-dump`: what somebody needs to find a fault from afar, in one file, without secrets.
//!
//! Works without a daemon; what cannot be had is named in the archive with the reason. Every part goes through
//! [`redact`] on its way in.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::client::Client;
use super::doctor::{self, DoctorAsked, says};
use super::exit::Failure;
use super::output::{self, Output};
use super::redact;
use crate::kernel::load;
use crate::model::config::Config;
use crate::outputs::switches::FILE as SWITCHES;

/// What the daemon is asked.
const QUESTIONS: [(&str, &str); 9] = [
    ("hub/status.json", "/v1/status"),
    ("hub/personas.json", "/v1/personas?limit=1000"),
    ("hub/personalities.json", "/v1/personalities?limit=1000"),
    ("hub/interfaces.json", "/v1/interfaces?limit=1000"),
    ("hub/operations.json", "/v1/operations"),
    ("hub/counters.json", "/v1/counters"),
    ("hub/top.json", "/v1/top"),
    ("hub/flows.json", "/v1/flows?limit=1000"),
    ("hub/plan.json", "/v1/plan"),
];
/// What programs are asked.
const PROGRAMS: [(&str, &str, &[&str]); 16] = [
    ("kernel/uname.txt", "uname", &["-a"]),
    ("kernel/link.txt", "ip", &["-details", "-statistics", "link"]),
    ("kernel/address.txt", "ip", &["address"]),
    ("kernel/route.txt", "ip", &["route", "show", "table", "all"]),
    ("kernel/route6.txt", "ip", &["-6", "route", "show", "table", "all"]),
    ("kernel/rule.txt", "ip", &["rule"]),
    ("kernel/rule6.txt", "ip", &["-6", "rule"]),
    ("kernel/neighbour.txt", "ip", &["neighbour"]),
    ("kernel/qdisc.txt", "tc", &["-statistics", "qdisc"]),
    ("kernel/class.txt", "tc", &["-statistics", "class"]),
    ("kernel/bpf_net.txt", "bpftool", &["net"]),
    ("kernel/bpf_prog.txt", "bpftool", &["prog"]),
    ("kernel/bpf_map.txt", "bpftool", &["map"]),
    ("kernel/bpf_link.txt", "bpftool", &["link"]),
    ("kernel/nft.txt", "nft", &["list", "ruleset"]),
    ("log/hubd.txt", "journalctl", &["--unit=hubd", "--no-pager", "--lines=5000", "--output=short-iso"]),
];
/// Files of the kernel.
const FILES: [(&str, &str); 3] = [
    ("kernel/interfaces.txt", "/proc/net/dev"),
    ("kernel/sockets.txt", "/proc/net/sockstat"),
    ("kernel/memory.txt", "/proc/meminfo"),
];
/// Longest text of one part, from its end.
const PART_BYTES: usize = 4 * 1_024 * 1_024;

/// What to dump, and where to.
#[derive(Debug, Args)]
pub(super) struct DumpAsked {
    /// File to write: a tar archive, compressed with gzip; must not be there
    #[arg(value_name = "FILE.tar.gz", value_hint = ValueHint::FilePath)]
    file: PathBuf,
    #[command(flatten)]
    doctor: DoctorAsked,
}

/// An archive under way.
struct Archive<W: Write> {
    tar: tar::Builder<GzEncoder<W>>,
    parts: usize,
    missing: Vec<String>,
}

pub(super) async fn run(
    client: Result<Client, Failure>,
    output: Output,
    asked: &DumpAsked,
) -> Result<(), Failure> {
    let failed = |source| Failure::local("write", asked.file.display(), source);
    // For its owner alone: it tells much of the machine even without secrets.
    let file = File::options().create_new(true).write(true).mode(0o600).open(&asked.file).map_err(failed)?;
    let mut archive = Archive {
        tar: tar::Builder::new(GzEncoder::new(file, Compression::default())),
        parts: 0,
        missing: Vec::new(),
    };
    let config = asked.doctor.read();
    let written = archive.fill(client, &config, asked).await;
    let finished = written.and_then(|()| archive.finish());
    let (parts, missing) = match finished {
        Ok(counts) => counts,
        Err(source) => {
            // Half an archive helps nobody.
            drop(fs::remove_file(&asked.file));
            return Err(failed(source));
        }
    };
    let what = format!(
        "{}: {parts} parts, {missing} not to be had; secrets were taken out, look it through before you send it",
        asked.file.display()
    );
    output.done(&what)
}

impl<W: Write> Archive<W> {
    async fn fill(
        &mut self,
        client: Result<Client, Failure>,
        config: &Config,
        asked: &DumpAsked,
    ) -> io::Result<()> {
        self.hub(client.as_ref().map_err(ToString::to_string)).await?;
        let diagnosis = doctor::diagnosis(client, &asked.doctor).await;
        self.add("doctor.json", &output::pretty(&redact::value(&diagnosis)).unwrap_or_default())?;
        let hub_yaml = asked.doctor.path();
        self.file("config/hub.yaml", hub_yaml.as_deref().unwrap_or(Path::new("hub.yaml")))?;
        for entry in fs::read_dir(&config.documents).into_iter().flatten().flatten() {
            let name = format!("config/documents/{}", entry.file_name().to_string_lossy());
            self.file(&name, &entry.path())?;
        }
        self.json_file("state/state.json", &config.state_dir.join("state.json"))?;
        self.json_lines("state/state.journal", &config.state_dir.join("state.journal"))?;
        let switches = format!("state/{SWITCHES}");
        self.json_lines(&switches, &config.state_dir.join(SWITCHES))?;
        for (name, program, arguments) in PROGRAMS {
            match says(program, arguments) {
                Some(said) => self.add(name, &redact::text(&said))?,
                None => self.missing.push(format!("{name}: `{program}` is not there or refuses")),
            }
        }
        for (name, path) in FILES {
            self.file(name, Path::new(path))?;
        }
        let pins = listing(&load::pins(&config.bpffs));
        self.add("kernel/pins.txt", &pins)
    }

    async fn hub(&mut self, client: Result<&Client, String>) -> io::Result<()> {
        for (name, path) in QUESTIONS {
            let answer = match &client {
                Ok(client) => client.get(path).await.map_err(|failure| failure.to_string()),
                Err(why) => Err(why.clone()),
            };
            match answer {
                Ok(answer) => {
                    self.add(name, &output::pretty(&redact::value(&answer.body)).unwrap_or_default())?;
                }
                Err(why) => self.missing.push(format!("{name}: {}", redact::text(&why).trim())),
            }
        }
        Ok(())
    }

    /// Adds a file without its secrets; one that is JSON by its structure.
    fn json_file(&mut self, name: &str, path: &Path) -> io::Result<()> {
        let tree =
            fs::read_to_string(path).and_then(|text| serde_json::from_str(&text).map_err(io::Error::other));
        match tree {
            Ok(tree) => self.add(name, &output::pretty(&redact::value(&tree)).unwrap_or_default()),
            Err(error) => {
                self.missing.push(format!("{name}: {}: {error}", path.display()));
                Ok(())
            }
        }
    }

    /// Adds a file of one JSON value a line, where there is one; a line that is torn is left out.
    fn json_lines(&mut self, name: &str, path: &Path) -> io::Result<()> {
        let Ok(text) = fs::read_to_string(path) else { return Ok(()) };
        let values = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let lines: Vec<String> = values.map(|value| redact::value(&value).to_string()).collect();
        self.add(name, &lines.join("\n"))
    }

    /// Adds a file without its secrets, line by line.
    fn file(&mut self, name: &str, path: &Path) -> io::Result<()> {
        match fs::read_to_string(path) {
            Ok(text) => self.add(name, &redact::text(&text)),
            Err(error) => {
                self.missing.push(format!("{name}: {}: {error}", path.display()));
                Ok(())
            }
        }
    }

    fn add(&mut self, name: &str, text: &str) -> io::Result<()> {
        let bytes = text.as_bytes();
        let tail = bytes.get(bytes.len().saturating_sub(PART_BYTES)..).unwrap_or(bytes);
        let mut header = tar::Header::new_gnu();
        header.set_size(tail.len() as u64);
        header.set_mode(0o600);
        let now = jiff::Timestamp::now().as_second();
        header.set_mtime(u64::try_from(now).unwrap_or_default());
        self.parts += 1;
        self.tar.append_data(&mut header, Path::new("hub-support").join(name), tail)
    }

    /// Ends the archive; says how many parts it has and how many are missing.
    fn finish(mut self) -> io::Result<(usize, usize)> {
        let missing = std::mem::take(&mut self.missing);
        self.add("missing.txt", &(missing.join("\n") + "\n"))?;
        let mut file = self.tar.into_inner()?.finish()?;
        file.flush()?;
        Ok((self.parts, missing.len()))
    }
}

/// Names below a folder.
fn listing(folder: &Path) -> String {
    let mut names = Vec::new();
    for below in ["", "prog", "link"] {
        let entries = fs::read_dir(folder.join(below)).into_iter().flatten().flatten();
        names.extend(entries.map(|entry| entry.path().display().to_string()));
    }
    names.sort();
    names.join("\n") + "\n"
}
