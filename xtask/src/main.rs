//! Builds, runs, tests and measures the hub: `cargo xtask --help`.
//!
//! One module per verb. A verb is a module with an `Options` struct and a
//! `run` function; it is added to `Verb` and to its `match` below.

mod bench;
mod budget;
mod build;
mod check;
mod clock;
mod command;
mod copy;
mod demo;
mod fuzz;
mod object;
mod package;
mod part;
mod places;
mod say;
mod setup;
mod soak;
mod strip;
mod test;
mod upgrade;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{places::Places, say::complain};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds, runs, tests and measures the hub")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Installs what the other verbs need; ends at once when nothing is missing
    Setup(setup::Options),
    /// Builds the kernel programs, then hubd and hubctl with the programs inside
    Build(build::Options),
    /// Runs the hub on real packets and shows what an operator sees
    Demo(demo::Options),
    /// Builds everything and runs all tests
    Test(test::Options),
    /// Runs the long forms of the tests of reliability: much more of the same, with figures
    Soak(soak::Options),
    /// Upgrades from another version to this one and back, under real connections
    Upgrade(upgrade::Options),
    /// Gives random bytes to everything that reads bytes of others
    Fuzz(fuzz::Options),
    /// Runs the tests that need root on Debian's kernels in QEMU
    Vm(vm::Options),
    /// Makes a Debian package
    Package(package::Options),
    /// Checks format, lints, documentation, licences and file lengths
    Check(check::Options),
    /// Loads every kernel program and compares its cost with its limit
    Budget(budget::Options),
    /// Measures the hub beside kernel forwarding, nftables and bare redirects
    Bench(bench::Options),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let places = Places::of_this_workspace();
    let outcome = match arguments.verb {
        Verb::Setup(options) => setup::run(&places, &options),
        Verb::Build(options) => build::run(&places, &options),
        Verb::Demo(options) => demo::run(&places, &options),
        Verb::Test(options) => test::run(&places, &options),
        Verb::Soak(options) => soak::run(&places, &options),
        Verb::Upgrade(options) => upgrade::run(&places, &options),
        Verb::Fuzz(options) => fuzz::run(&places, &options),
        Verb::Vm(options) => vm::run(&places, &options),
        Verb::Package(options) => package::run(&places, &options),
        Verb::Check(options) => Ok(check::run(&places, &options)),
        Verb::Budget(options) => budget::run(&places, &options),
        Verb::Bench(options) => bench::run(&places, &options),
    };
    outcome.unwrap_or_else(|error| {
        complain(&format!("{error:#}"));
        ExitCode::FAILURE
    })
}
