//! `hubctl`: asks the hub over its REST API and shows the answers to people and programs.
//!
//! Everything it knows of personas comes from the API's answers. Only `check` and `down` work without a
//! daemon. Each command is one file; they return a `Failure`, which alone decides the exit code.

mod alerts;
mod apply;
mod arguments;
mod candidate;
mod check;
mod client;
mod clone;
mod counters;
mod definition;
mod doctor;
mod down;
mod drain;
mod dump;
mod edit;
mod events;
mod exit;
mod experiment;
mod flows;
mod follow;
mod gc;
mod generate;
mod interface;
mod lists;
mod node;
mod output;
mod persona;
mod personality;
mod plan;
mod redact;
mod status;
mod switch;
mod table;
mod template;
mod threat;
mod top;
mod trace;
mod watch;
mod why;

use std::process::ExitCode;

use clap::Parser as _;

pub use self::check::check_paths;

use self::arguments::{Arguments, Verb};
use self::client::Client;
use self::exit::Failure;
use self::output::Output;

/// Runs hubctl with the arguments of the process.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let output = Output::new(arguments.connection.format());
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => return output.failed(&Failure::local("start", "hubctl", source)),
    };
    let ended = runtime.block_on(run(arguments, output));
    // A question that nobody answered still waits for a line.
    runtime.shutdown_background();
    match ended {
        Ok(code) => code,
        Err(failure) => output.failed(&failure),
    }
}

async fn run(arguments: Arguments, output: Output) -> Result<ExitCode, Failure> {
    let client = || Client::new(&arguments.connection);
    match arguments.verb {
        Verb::Status => status::run(&client()?, output).await?,
        Verb::Node => node::run(&client()?, output).await?,
        Verb::Persona(verb) => persona::run(&client()?, output, verb).await?,
        Verb::Personality(verb) => return personality::run(&client()?, output, verb).await,
        Verb::Interface(verb) => interface::run(&client()?, output, verb).await?,
        Verb::Experiment(verb) => return experiment::run(&client()?, output, verb).await,
        Verb::ThreatLevel { level, interfaces } => threat::run(&client()?, output, level, interfaces).await?,
        Verb::Flows { persona, limit } => flows::run(&client()?, output, persona.as_deref(), limit).await?,
        Verb::Counters { persona } => counters::run(&client()?, output, persona.as_deref()).await?,
        Verb::Alerts => alerts::run(&client()?, output).await?,
        Verb::Events(asked) => events::run(&client()?, output, &asked).await?,
        Verb::Pools => gc::pools(&client()?, output).await?,
        Verb::Gc { dry_run } => gc::gc(&client()?, output, dry_run).await?,
        Verb::Why(asked) => return why::run(&client()?, output, asked).await,
        Verb::Top(asked) => top::run(&client()?, output, asked).await?,
        Verb::Trace(asked) => trace::run(&client()?, output, asked).await?,
        Verb::Doctor(asked) => return doctor::run(client(), output, &asked).await,
        Verb::SupportDump(asked) => dump::run(client(), output, &asked).await?,
        Verb::Check { paths } => check::run(output, &paths)?,
        Verb::Plan => plan::plan(&client()?, output).await?,
        Verb::Apply { files, .. } if files.is_empty() => plan::apply(&client()?, output).await?,
        Verb::Apply { files, confirm } => apply::apply(&client()?, output, &files, confirm).await?,
        Verb::Confirm => apply::confirm(&client()?, output).await?,
        Verb::Revert => apply::revert(&client()?, output).await?,
        Verb::Down { bpffs, runtime_dir, state_dir } => {
            down::run(output, &bpffs, &runtime_dir, &state_dir)?;
        }
        Verb::Completions { shell } => generate::completions(output, shell)?,
        Verb::Man { directory } => generate::man(&directory)?,
    }
    Ok(ExitCode::SUCCESS)
}
