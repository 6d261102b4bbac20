//! Where the daemon logs, and how much.

use std::io::IsTerminal as _;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::model::config::LogLevel;

/// The log; its level may change while the daemon runs.
#[derive(Clone, Debug)]
pub struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
    is_fixed: bool,
}

impl Log {
    /// Logs to the journal under systemd, else to standard error, from `info` on. Where `RUST_LOG` filters,
    /// that stays.
    pub fn start() -> Self {
        let given = EnvFilter::try_from_default_env().ok();
        let is_fixed = given.is_some();
        let filter = given.unwrap_or_else(|| filter(LogLevel::default()));
        let (filter, handle) = reload::Layer::new(filter);
        let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
        // Colours are for people, not for files.
        let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let layer = || tracing_subscriber::fmt::layer().with_ansi(colours).with_writer(std::io::stderr);
        let console = journal.is_none().then(layer);
        tracing_subscriber::registry().with(filter).with(journal).with(console).init();
        Self { filter: handle, is_fixed }
    }

    /// Logs from this level on.
    pub fn set(&self, level: LogLevel) {
        if self.is_fixed {
            return;
        }
        if let Err(error) = self.filter.reload(filter(level)) {
            tracing::error!(%error, "the log level stays as it was");
        }
    }
}

/// The daemon's own records from this level on; what libraries say, warnings apart, only at `trace`.
fn filter(level: LogLevel) -> EnvFilter {
    let name = level.name();
    let others = match level {
        LogLevel::Error | LogLevel::Trace => name,
        LogLevel::Warn | LogLevel::Info | LogLevel::Debug => "warn",
    };
    EnvFilter::new(format!("{others},hub_daemon={name}"))
}
