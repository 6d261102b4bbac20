//! What `ip -batch` takes for the addresses and routes that the daemon made.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result};

use super::{
    super::{
        bound::inside,
        lab::{Families, Lab},
    },
    meter::Taken,
};
use crate::{
    clock::timed,
    command::{run, text},
};

/// Reads the addresses and routes of a hub, and has `ip` put the same where there are none.
pub(super) fn measure(hub: &Lab, folder: &Path) -> Result<Taken> {
    let lines = inside(hub.middle()?.path(), lines)?;
    let file = folder.join("by-hand.batch");
    std::fs::write(&file, lines.join("\n")).with_context(|| format!("write {}", file.display()))?;
    let lab = Lab::new("by-hand", Families::V4)?;
    let fed = || run(Command::new("ip").arg("-batch").arg(&file));
    let (done, time) = timed(|| inside(lab.middle()?.path(), fed));
    done?;
    let title = format!("ip -batch, the same {} addresses and routes", lines.len());
    Ok(Taken { title, wall: vec![time.as_secs_f64() * 1e3], cpu: None })
}

/// Lines for `ip -batch` that make the addresses and routes of the calling thread's namespace.
fn lines() -> Result<Vec<String>> {
    let list = |arguments: &str| text(Command::new("ip").args(arguments.split(' ')));
    let addresses = list("-o -4 addr show dev lan0")?;
    let addresses = addresses.lines().filter_map(|line| line.split_whitespace().nth(3));
    // The lab has one address of its own.
    let addresses = addresses.filter(|address| !address.starts_with("10.255."));
    let addresses = addresses.map(|address| format!("addr add {address} dev lan0"));
    let routes = list("-4 route show table main proto 177")?;
    let routes = routes.lines().map(|line| format!("route add {} proto 177", line.trim()));
    Ok(addresses.chain(routes).collect())
}
