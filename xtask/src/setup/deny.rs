//! `cargo-deny`, which checks the licences of everything that is linked in.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    clock::timed,
    command::{find, install, run, text},
    places::Places,
    say::say,
};

const VERSION: &str = "0.20.2";

/// Finds `cargo-deny`, or builds it.
pub(super) fn ready(places: &Places) -> Result<PathBuf> {
    let own = places.tool("cargo-deny");
    let present = [Some(own.clone()), find("cargo-deny")];
    let works = |program: &PathBuf| text(Command::new(program).arg("--version")).is_ok();
    if let Some(program) = present.into_iter().flatten().find(works) {
        return Ok(program);
    }
    say("setup", &format!("building cargo-deny {VERSION} (1 to 3 minutes)"));
    let mut install = install(places, "cargo-deny", VERSION);
    let (outcome, duration) = timed(|| run(&mut install));
    outcome.context("build cargo-deny")?;
    say("setup", &format!("cargo-deny is built ({:.0} s)", duration.as_secs_f64()));
    Ok(own)
}
