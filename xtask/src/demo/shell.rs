//! Commands in the lab's namespaces, and what they answered.

use std::{
    fs::File,
    process::{Child, Output},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::lab::Lab;
use crate::clock::wait_until;

/// How long a started command may take to say something.
const PATIENCE: Duration = Duration::from_secs(3);
/// The longest that a started command runs.
const LONGEST: Duration = Duration::from_mins(1);

/// A network namespace of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The hub's own.
    Hub,
    /// Outside, behind the uplink.
    Client,
    /// A member behind the shared interface.
    Dev,
    /// A member whose interface the hub makes.
    Web,
}

impl Place {
    /// All of them.
    pub(super) const ALL: [Self; 4] = [Self::Hub, Self::Client, Self::Dev, Self::Web];

    /// Name of the place, and the end of its namespace's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Hub => "hub",
            Self::Client => "client",
            Self::Dev => "dev",
            Self::Web => "web",
        }
    }
}

/// What a command answered.
pub(super) struct Seen {
    /// Both its outputs.
    pub(super) text: String,
    /// Its exit code; `None` when a signal ended it.
    pub(super) code: Option<i32>,
}

impl Seen {
    fn of(output: &Output) -> Self {
        let both = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        Self { text: both.concat(), code: output.status.code() }
    }

    /// Whether the command succeeded.
    pub(super) fn succeeded(&self) -> bool {
        self.code == Some(0)
    }

    /// Whether it answered with these words.
    pub(super) fn has(&self, words: &str) -> bool {
        self.text.contains(words)
    }

    /// The first number that follows these words.
    pub(super) fn number_after(&self, words: &str) -> Option<f64> {
        let (_, rest) = self.text.split_once(words)?;
        let rest = rest.trim_start();
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(rest.len());
        rest.get(..end)?.parse().ok()
    }
}

/// A command that goes on while others run.
pub(super) struct Running {
    child: Child,
    log: std::path::PathBuf,
    interrupted: Arc<AtomicBool>,
}

impl Running {
    /// Ends it once it has said these words, or patience ends.
    pub(super) fn end_after(mut self, words: &str) -> Result<Seen> {
        let said = || std::fs::read_to_string(&self.log).is_ok_and(|text| text.contains(words));
        // What it said is judged by the caller.
        wait_until(PATIENCE, said);
        self.child.kill().context("end a command")?;
        self.end()
    }

    /// Ends it.
    pub(super) fn end_now(mut self) -> Result<Seen> {
        self.child.kill().context("end a command")?;
        self.end()
    }

    /// Waits for its end; one that does not end by itself, or that the user does not wait for, is ended.
    pub(super) fn end(mut self) -> Result<Seen> {
        let ended = || {
            self.interrupted.load(Ordering::Relaxed)
                || self.child.try_wait().is_ok_and(|status| status.is_some())
        };
        wait_until(LONGEST, ended);
        // It may have ended meanwhile.
        drop(self.child.kill());
        let status = self.child.wait().context("wait for a command")?;
        let text = std::fs::read_to_string(&self.log).context("read what a command said")?;
        Ok(Seen { text, code: status.code() })
    }
}

impl Lab {
    /// Runs a shell command to its end.
    pub(super) fn run(&self, place: Place, script: &str) -> Result<Seen> {
        self.go_on()?;
        let output = self.command(place, script)?.output().with_context(|| format!("run `{script}`"))?;
        self.go_on()?;
        Ok(Seen::of(&output))
    }

    /// Starts one program; `name` is the file with what it says.
    pub(super) fn start(&self, place: Place, name: &str, script: &str) -> Result<Running> {
        let log = self.folder().join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let mut command = self.command(place, &format!("exec {script}"))?;
        command.stdout(file.try_clone().context("share a log")?).stderr(file);
        let child = command.spawn().with_context(|| format!("start `{script}`"))?;
        Ok(Running { child, log, interrupted: self.interrupted() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_behind_words() {
        let seen = Seen { text: "3 packets transmitted, 2 received, 33.3% loss".to_owned(), code: Some(0) };
        assert_eq!(seen.number_after("transmitted,"), Some(2.0));
        assert_eq!(seen.number_after("received,"), Some(33.3));
        assert_eq!(seen.number_after("absent"), None);
    }
}
