//! The only place that prints.

use std::io::Write as _;
use std::process::ExitCode;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::arguments::Format;
use super::exit::Failure;

/// Where answers go, in the form that was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    format: Format,
}

impl Output {
    pub(super) fn new(format: Format) -> Self {
        Self { format }
    }

    /// The form that was asked for.
    pub(super) fn format(self) -> Format {
        self.format
    }

    /// Shows an answer: as it is to programs, as `table` says to people.
    pub(super) fn show<T: DeserializeOwned>(
        self,
        answer: &Value,
        table: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Table => {
                let typed = T::deserialize(answer).map_err(Failure::answer)?;
                self.line(&table(&typed))
            }
            Format::Json => self.line(&pretty(answer)?),
            Format::Yaml => self.line(&yaml(answer)?),
        }
    }

    /// Says what was done, to people only: programs have the exit code.
    pub(super) fn done(self, text: &str) -> Result<(), Failure> {
        match self.format {
            Format::Table => self.line(text),
            Format::Json | Format::Yaml => Ok(()),
        }
    }

    /// Writes a text and the end of its line.
    pub(super) fn line(self, text: &str) -> Result<(), Failure> {
        self.bytes(format!("{}\n", text.trim_end_matches('\n')).as_bytes())
    }

    /// Writes bytes as they are. A reader that has seen enough (`hubctl … | head`) is no failure.
    #[expect(clippy::unused_self, reason = "printing belongs to the output, whatever its form")]
    pub(super) fn bytes(self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = std::io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
            Err(source) => Err(Failure::local("write", "standard output", source)),
            Ok(()) => Ok(()),
        }
    }

    /// Says why it failed; programs get the problem as JSON.
    #[expect(clippy::print_stderr, reason = "hubctl talks to people on standard error")]
    pub(super) fn failed(self, failure: &Failure) -> ExitCode {
        match (self.format, failure) {
            (Format::Json, Failure::Problem(problem)) => {
                eprintln!("{}", pretty(problem).unwrap_or_default());
            }
            (Format::Table | Format::Json | Format::Yaml, failure) => eprintln!("hubctl: {failure}"),
        }
        failure.code()
    }
}

/// JSON over several lines.
pub(super) fn pretty(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map_err(Failure::answer)
}

/// YAML of one document.
pub(super) fn yaml(value: &impl Serialize) -> Result<String, Failure> {
    serde_saphyr::to_string(value).map_err(Failure::answer)
}
