//! hubd: the daemon.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use hub_daemon::daemon::log::Log;
use hub_daemon::daemon::{self, start};

/// A virtual traffic hub: filters and routes between networks by documents.
#[derive(Parser)]
#[command(name = "hubd", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the hub in the foreground.
    Run {
        /// Configuration file; without one, every default.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Check configuration and documents without running anything. Exits with 5 when something is wrong.
    Check {
        /// Files and folders: `hub.yaml`, persona documents.
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// Write man pages into a folder.
    #[command(hide = true)]
    Man {
        /// The folder.
        directory: PathBuf,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().verb {
        Verb::Run { config } => run(config.as_deref()),
        Verb::Check { paths } => hub_daemon::cli::check_paths(&paths),
        Verb::Man { directory } => man(&directory),
    }
}

fn man(directory: &Path) -> ExitCode {
    Log::start();
    match clap_mangen::generate_to(Arguments::command(), directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, path = %directory.display(), "man pages cannot be written");
            ExitCode::FAILURE
        }
    }
}

fn run(config_file: Option<&Path>) -> ExitCode {
    let log = Log::start();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            return ExitCode::FAILURE;
        }
    };
    let ended = start::config(config_file)
        .and_then(|config| runtime.block_on(daemon::run(config, config_file.map(Path::to_owned), log)));
    // The applier's thread and blocked reads end with the process.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
