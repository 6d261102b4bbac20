//! `hubctl doctor`: looks at the machine as the hub needs it, and says what to do about what it finds.
//!
//! Works without a daemon, and changes nothing. Every check reports, also when all is well, so that a reader
//! knows what was looked at; what cannot be looked at is a note.

mod daemon;
mod files;
mod machine;
mod network;
mod run;

pub(super) use self::run::says;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueHint};
use serde::{Deserialize, Serialize};

use super::client::Client;
use super::exit::{Failure, count};
use super::output::Output;
use crate::daemon::start;
use crate::model::config::Config;

/// Where the configuration is unless said otherwise.
const CONFIG: &str = "/etc/hub/hub.yaml";
const WARNINGS: u8 = 1;
const ERRORS: u8 = 7;

/// What to look at.
#[derive(Debug, Args)]
pub(super) struct DoctorAsked {
    /// The daemon's configuration; default /etc/hub/hub.yaml if it is there
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// Show what is well, too
    #[arg(short, long)]
    all: bool,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// Works, and may not go on to.
    Warning,
    /// The hub does not work like this.
    Error,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Finding {
    severity: Severity,
    /// What was looked at.
    check: String,
    /// What is there.
    found: String,
    /// What to do; empty when there is nothing to do.
    advice: String,
}

/// Everything found.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Diagnosis {
    findings: Vec<Finding>,
}

impl Diagnosis {
    fn add(&mut self, severity: Severity, check: &str, found: impl Into<String>, advice: impl Into<String>) {
        self.findings.push(Finding {
            severity,
            check: check.to_owned(),
            found: found.into(),
            advice: advice.into(),
        });
    }

    fn ok(&mut self, check: &str, found: impl Into<String>) {
        self.add(Severity::Ok, check, found, "");
    }

    fn note(&mut self, check: &str, found: impl Into<String>, advice: impl Into<String>) {
        self.add(Severity::Note, check, found, advice);
    }

    fn warning(&mut self, check: &str, found: impl Into<String>, advice: impl Into<String>) {
        self.add(Severity::Warning, check, found, advice);
    }

    fn error(&mut self, check: &str, found: impl Into<String>, advice: impl Into<String>) {
        self.add(Severity::Error, check, found, advice);
    }

    fn worst(&self) -> Severity {
        self.findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok)
    }
}

pub(super) async fn run(
    client: Result<Client, Failure>,
    output: Output,
    asked: &DoctorAsked,
) -> Result<ExitCode, Failure> {
    let diagnosis = diagnose(client, asked).await;
    let answer = serde_json::to_value(&diagnosis).map_err(Failure::answer)?;
    output.show(&answer, |diagnosis: &Diagnosis| describe(diagnosis, asked.all))?;
    Ok(match diagnosis.worst() {
        Severity::Ok | Severity::Note => ExitCode::SUCCESS,
        Severity::Warning => ExitCode::from(WARNINGS),
        Severity::Error => ExitCode::from(ERRORS),
    })
}

/// Everything found, as JSON.
pub(super) async fn diagnosis(client: Result<Client, Failure>, asked: &DoctorAsked) -> serde_json::Value {
    serde_json::to_value(diagnose(client, asked).await).unwrap_or_default()
}

impl DoctorAsked {
    /// Where the configuration is, if there is one.
    pub(super) fn path(&self) -> Option<PathBuf> {
        let usual = PathBuf::from(CONFIG);
        self.config.clone().or_else(|| usual.exists().then_some(usual))
    }

    /// The configuration; every default where there is none that can be read.
    pub(super) fn read(&self) -> Config {
        start::config(self.path().as_deref()).unwrap_or_default()
    }
}

async fn diagnose(client: Result<Client, Failure>, asked: &DoctorAsked) -> Diagnosis {
    let mut diagnosis = Diagnosis::default();
    let config = config(asked, &mut diagnosis);
    machine::look(&config, &mut diagnosis);
    network::look(&config, &mut diagnosis);
    files::look(&config, &mut diagnosis);
    daemon::look(client, &config, &mut diagnosis).await;
    diagnosis
}

fn config(asked: &DoctorAsked, diagnosis: &mut Diagnosis) -> Config {
    let path = asked.path();
    match start::config(path.as_deref()) {
        Ok(config) => {
            let found = path.map_or("none: every default".to_owned(), |path| path.display().to_string());
            diagnosis.ok("configuration", found);
            config
        }
        Err(error) => {
            diagnosis.error(
                "configuration",
                error.to_string(),
                "mend it; what follows is about the defaults",
            );
            Config::default()
        }
    }
}

fn describe(diagnosis: &Diagnosis, all: bool) -> String {
    let mut lines = Vec::new();
    for finding in &diagnosis.findings {
        let word = match finding.severity {
            Severity::Ok if !all => continue,
            Severity::Ok => "ok",
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        lines.push(format!("{word:<8} {}: {}", finding.check, finding.found));
        if !finding.advice.is_empty() {
            lines.push(format!("         -> {}", finding.advice));
        }
    }
    let of = |severity| diagnosis.findings.iter().filter(|finding| finding.severity == severity).count();
    lines.push(format!(
        "{}: {}, {}, {}",
        count(diagnosis.findings.len(), "check"),
        count(of(Severity::Error), "error"),
        count(of(Severity::Warning), "warning"),
        count(of(Severity::Note), "note"),
    ));
    lines.join("\n")
}
