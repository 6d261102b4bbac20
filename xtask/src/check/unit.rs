//! The systemd unit is one that systemd accepts.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{
    command::{find, text},
    places::Places,
    say::say,
};

pub(super) fn check(places: &Places) -> Result<()> {
    let unit = places.root().join("config").join("hubd.service");
    let (true, Some(analyze)) = (unit.exists(), find("systemd-analyze")) else {
        say("check", "systemd unit: nothing to check without config/hubd.service and systemd-analyze");
        return Ok(());
    };
    let content = fs::read_to_string(&unit).with_context(|| format!("read {}", unit.display()))?;
    let folder = places.target().join("unit");
    fs::create_dir_all(&folder)?;
    let copy = folder.join("hubd.service");
    fs::write(&copy, with_present_programs(&content))?;
    let complaints = text(Command::new(analyze).args(["verify", "--man=no"]).arg(&copy).env("LC_ALL", "C"))?;
    if !complaints.trim().is_empty() {
        bail!("{}", complaints.trim());
    }
    Ok(())
}

/// The unit with programs that exist: systemd refuses a unit whose program is not installed.
fn with_present_programs(unit: &str) -> String {
    let line = |line: &str| {
        let Some((key, command)) = line.split_once('=').filter(|(key, _)| key.starts_with("Exec")) else {
            return format!("{line}\n");
        };
        let program = command.trim_start_matches(['-', '@', ':', '+', '!']);
        let prefix = command.strip_suffix(program).unwrap_or_default();
        let arguments = program.split_once(' ').map_or(String::new(), |(_, rest)| format!(" {rest}"));
        format!("{key}={prefix}/bin/true{arguments}\n")
    };
    unit.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_replaced_and_the_rest_stays() {
        let unit =
            "[Service]\nType=notify\nExecStart=/usr/bin/hubd --config /etc/hub\nExecReload=-/bin/kill\n";
        let expected =
            "[Service]\nType=notify\nExecStart=/bin/true --config /etc/hub\nExecReload=-/bin/true\n";
        assert_eq!(with_present_programs(unit), expected);
    }
}
