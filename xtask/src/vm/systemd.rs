//! A package under a real systemd: a minimal Debian boots from a disk, a unit installs the package, uses it, breaks
//! it, boots anew in the middle of things, and removes it.
//!
//! What the machine does is shell below `systemd/`: the machine runs without anything of ours but the package. Its
//! lines that begin with `@@` are the result.

mod disk;

use std::{path::Path, process::ExitCode, time::Duration};

use anyhow::{Result, bail};

use super::{
    kernel::{self, Kernel},
    machine::{End, Machine, Root, Time},
};
use crate::{
    places::Places,
    say::{complain, say, show},
    setup,
};

/// Files of the folder /hub of the machine.
const FILES: [(&str, &str); 13] = [
    ("check.sh", include_str!("systemd/check.sh")),
    ("common.sh", include_str!("systemd/common.sh")),
    ("cut.sh", include_str!("systemd/cut.sh")),
    ("deaths.sh", include_str!("systemd/deaths.sh")),
    ("install.sh", include_str!("systemd/install.sh")),
    ("lab.sh", include_str!("systemd/lab.sh")),
    ("leave.sh", include_str!("systemd/leave.sh")),
    ("names.sh", include_str!("systemd/names.sh")),
    ("networkd.sh", include_str!("systemd/networkd.sh")),
    ("persona.sh", include_str!("systemd/persona.sh")),
    ("personality.sh", include_str!("systemd/personality.sh")),
    ("purge.sh", include_str!("systemd/purge.sh")),
    ("return.sh", include_str!("systemd/return.sh")),
];

/// Units of the machine: its network before any other, and the checks after all others.
const UNITS: [(&str, &str); 2] = [
    ("check.service", include_str!("systemd/check.service")),
    ("lab.service", include_str!("systemd/lab.service")),
];

/// Longest time from one start of the machine to the next.
const LIMIT: Duration = Duration::from_mins(25);
/// How often the machine starts: whole, after a reboot, after a cut.
const BOOTS: u32 = 3;
const WORDS: &str = "init=/lib/systemd/systemd systemd.show_status=no systemd.getty_auto=no";

/// Boots a Debian with the package on one kernel, and boots it again as it asks for.
pub(crate) fn run(places: &Places, package: &Path, version: &str) -> Result<ExitCode> {
    setup::machines()?;
    let offers = kernel::offers(places)?;
    let kernel = kernel::ready(places, kernel::choose(&offers, version)?)?;
    let disk = disk::make(places, &kernel, package)?;
    let mut failed = Vec::new();
    for number in 1..=BOOTS {
        let boot = boot(places, &kernel, &disk, number)?;
        failed.extend(boot.failed);
        match boot.end {
            // What failed may be seen better by what comes of it.
            Some(Next::Boot) => {}
            Some(Next::Off) if failed.is_empty() => return Ok(ExitCode::SUCCESS),
            Some(Next::Off) | None => {
                complain(&failed.join("\n"));
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    bail!("the machine wanted to start more than {BOOTS} times");
}

/// What a start of the machine came to.
struct Boot {
    failed: Vec<String>,
    /// Nothing where it did not come to its end.
    end: Option<Next>,
}

/// What is to come after a start of the machine.
enum Next {
    /// Another one.
    Boot,
    /// Nothing: all parts are done.
    Off,
}

/// One start of the machine, to its end.
fn boot(places: &Places, kernel: &Kernel, disk: &Path, number: u32) -> Result<Boot> {
    let log = places.vm().join(format!("systemd-{}.{number}.log", kernel.release()));
    say(
        "vm",
        &format!("booting Linux {} with systemd; its output goes to {}", kernel.release(), log.display()),
    );
    let root = Root::Disk(disk);
    let machine = Machine { kernel: kernel.image(), root, memory_mib: 2048, more: WORDS, time: Time::Clock };
    let report = machine.run(&log, LIMIT, |line| {
        if let Some(progress) = line.strip_prefix("@@ ") {
            say(kernel.release(), progress);
        }
    })?;
    let lines: Vec<&str> = report.lines().filter_map(|line| line.strip_prefix("@@ ")).collect();
    let failed =
        lines.iter().filter(|line| line.starts_with("FAILED")).map(|&line| line.to_owned()).collect();
    let ends = |word: &str| report.end != End::TimedOut && lines.contains(&word);
    let end = match (ends("boots again"), ends("done")) {
        (true, _) => Some(Next::Boot),
        (false, true) => Some(Next::Off),
        (false, false) => None,
    };
    if end.is_none() {
        complain("the machine did not come to its end");
        report.lines().rev().take(30).collect::<Vec<_>>().into_iter().rev().for_each(show);
    }
    Ok(Boot { failed, end })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_checks_are_valid_shell() {
        for (name, text) in FILES {
            let checked = crate::command::feed(Command::new("bash").arg("-n"), text);
            assert!(checked.is_ok(), "{name}: {checked:?}");
        }
    }

    #[test]
    fn every_part_that_is_named_is_there() {
        let check = FILES.iter().find(|(name, _)| *name == "check.sh").unwrap().1;
        let lines = check.lines().filter_map(|line| line.trim().split_once("parts=\"")?.1.split('"').next());
        let parts: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
        assert!(parts.len() > 5, "{parts:?}");
        for part in parts {
            assert!(FILES.iter().any(|(name, _)| *name == format!("{part}.sh")), "{part}");
        }
    }
}
