//! A package under a real systemd: a minimal Debian boots from memory, a unit installs the package, uses it,
//! breaks it and removes it.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::{
    image, kernel,
    machine::{End, Machine, Time},
};
use crate::{
    command::{find, run as run_command},
    places::Places,
    say::{complain, say, show},
    setup,
};

/// What the machine does; its lines that begin with @@ are the result.
const CHECKS: &str = include_str!("systemd.sh");

const UNIT: &str = "[Unit]
Description=Checks of the package
After=multi-user.target

[Service]
Type=oneshot
ExecStart=/bin/bash /hub/check
ExecStopPost=/bin/systemctl --no-block poweroff
StandardOutput=file:/dev/ttyS0
StandardError=file:/dev/ttyS0
TimeoutStartSec=1500
";

/// Packages of the machine beside Debian's base.
const PACKAGES: &str = "systemd,systemd-sysv,udev,iproute2,iputils-ping,netcat-openbsd,kmod,procps,curl";
const LIMIT: Duration = Duration::from_mins(25);

/// Boots a Debian with the package on one kernel.
pub(crate) fn run(places: &Places, package: &Path, version: &str) -> Result<ExitCode> {
    setup::machines()?;
    let offers = kernel::offers(places)?;
    let kernel = kernel::ready(places, kernel::choose(&offers, version)?)?;
    let debian = debian(places)?;
    // On top of the cached system: later files of an archive win.
    let root = places.vm().join("systemd");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    let units = root.join("etc/systemd/system");
    fs::create_dir_all(units.join("multi-user.target.wants"))?;
    fs::create_dir_all(root.join("hub"))?;
    fs::write(units.join("hub-check.service"), UNIT)?;
    symlink("../hub-check.service", units.join("multi-user.target.wants/hub-check.service"))?;
    fs::write(root.join("hub/check"), CHECKS)?;
    fs::set_permissions(root.join("hub/check"), fs::Permissions::from_mode(0o755))?;
    fs::copy(package, root.join("hub/hub.deb"))?;
    symlink("/lib/systemd/systemd", root.join("init"))?;
    let top = places.vm().join("systemd.cpio");
    image::pack(&root, &top)?;
    let base = places.vm().join("systemd-base.cpio");
    run_command(
        Command::new("sh").args(["-c", "cat \"$1\" \"$2\" >\"$3\"", "sh"]).arg(&debian).arg(&top).arg(&base),
    )?;
    let initrd = image::with_modules(places, &kernel, &base)?;
    let log = places.vm().join(format!("systemd-{}.log", kernel.release()));
    say(
        "vm",
        &format!("booting Linux {} with systemd; its output goes to {}", kernel.release(), log.display()),
    );
    let more = "systemd.show_status=no systemd.getty_auto=no";
    let machine =
        Machine { kernel: kernel.image(), initrd: &initrd, memory_mib: 3072, more, time: Time::Clock };
    let report = machine.run(&log, LIMIT, |line| {
        if let Some(progress) = line.strip_prefix("@@ ") {
            say(kernel.release(), progress);
        }
    })?;
    let lines: Vec<&str> = report.lines().filter_map(|line| line.strip_prefix("@@ ")).collect();
    let failed: Vec<&str> = lines.iter().copied().filter(|line| line.starts_with("FAILED")).collect();
    let done = lines.contains(&"done");
    if report.end == End::TimedOut || !done {
        complain("the machine did not come to its end");
        report.lines().rev().take(30).collect::<Vec<_>>().into_iter().rev().for_each(show);
    }
    if !failed.is_empty() {
        complain(&failed.join("\n"));
    }
    Ok(if done && failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The archive of a minimal Debian of this machine's release.
fn debian(places: &Places) -> Result<PathBuf> {
    let archive = places.vm().join("debian.cpio");
    if archive.exists() {
        return Ok(archive);
    }
    let Some((codename, uri)) = kernel::release()? else {
        bail!("the machine is made of Debian's packages, and this is not Debian");
    };
    let folder = places.vm().join(format!("debian-{codename}"));
    if !folder.exists() {
        let debootstrap = find("debootstrap").context("install it with `apt-get install debootstrap`")?;
        say("vm", "making a minimal Debian (about 400 MB)");
        let partial = places.vm().join(format!("debian-{codename}.partial"));
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        let mut make = Command::new(debootstrap);
        make.args(["--variant=minbase", &format!("--include={PACKAGES}"), &codename]);
        run_command(make.arg(&partial).arg(&uri).stdout(std::process::Stdio::null()))?;
        let slim = "cd \"$1\" && rm -rf var/cache/apt/archives/*.deb var/lib/apt/lists/* usr/share/doc/* \
                    usr/share/locale/* usr/share/man/* dev/*";
        run_command(Command::new("sh").args(["-c", slim, "sh"]).arg(&partial))?;
        fs::rename(&partial, &folder)?;
    }
    image::pack(&folder, &archive)?;
    Ok(archive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checks_are_valid_shell() {
        crate::command::feed(Command::new("bash").arg("-n"), CHECKS).unwrap();
    }
}
