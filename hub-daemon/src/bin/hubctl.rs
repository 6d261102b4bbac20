//! hubctl: the operator's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    hub_daemon::cli::main()
}
