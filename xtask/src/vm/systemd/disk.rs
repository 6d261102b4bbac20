//! The disk that the machine boots from: a minimal Debian, a kernel's modules, the package and what tries it.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::{FILES, UNITS};
use crate::{
    command::{find, run},
    places::Places,
    say::say,
    vm::{
        image,
        kernel::{self, Kernel},
    },
};

/// Packages of the machine beside Debian's base.
const PACKAGES: &str = "systemd,systemd-sysv,libpam-systemd,udev,dbus,polkitd,systemd-resolved,iproute2,\
                        iputils-ping,netcat-openbsd,kmod,procps,curl,jq,dnsmasq-base,openssl,wireguard-tools,man-db";
/// Room on the disk, in MiB. It takes only what is written.
const SIZE: &str = "2048M";

/// Makes the disk anew: what the last run left there is gone.
pub(super) fn make(places: &Places, kernel: &Kernel, package: &Path) -> Result<PathBuf> {
    let system = debian(places)?;
    let root = places.vm().join("systemd");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    run(Command::new("cp").arg("-a").arg(&system).arg(&root))?;
    image::modules_into(kernel, &root)?;
    run(Command::new("chroot").arg(&root).args(["depmod", kernel.release()]))?;
    let units = root.join("etc/systemd/system");
    fs::create_dir_all(units.join("multi-user.target.wants"))?;
    for (name, text) in UNITS {
        fs::write(units.join(name), text)?;
        symlink(Path::new("..").join(name), units.join("multi-user.target.wants").join(name))?;
    }
    fs::create_dir_all(root.join("hub"))?;
    for (name, text) in FILES {
        fs::write(root.join("hub").join(name), text)?;
    }
    fs::copy(package, root.join("hub/hub.deb"))?;
    let disk = places.vm().join("systemd.ext4");
    if disk.exists() {
        fs::remove_file(&disk)?;
    }
    let mke2fs = find("mke2fs").context("mke2fs was installed before")?;
    run(Command::new(mke2fs).args(["-q", "-t", "ext4", "-d"]).arg(&root).arg(&disk).arg(SIZE))?;
    fs::remove_dir_all(&root)?;
    Ok(disk)
}

/// The folder of a minimal Debian of this machine's release; made again when other packages are wanted.
fn debian(places: &Places) -> Result<PathBuf> {
    let Some((codename, uri)) = kernel::release()? else {
        bail!("the machine is made of Debian's packages, and this is not Debian");
    };
    let folder = places.vm().join(format!("debian-{codename}"));
    let list = folder.with_extension("packages");
    if folder.exists() && fs::read_to_string(&list).is_ok_and(|made| made == PACKAGES) {
        return Ok(folder);
    }
    let debootstrap = find("debootstrap").context("debootstrap was installed before")?;
    say("vm", "making a minimal Debian (about 500 MB)");
    let partial = folder.with_extension("partial");
    for old in [&partial, &folder].into_iter().filter(|old| old.exists()) {
        fs::remove_dir_all(old)?;
    }
    let mut make = Command::new(debootstrap);
    make.args(["--variant=minbase", &format!("--include={PACKAGES}"), &codename]);
    run(make.arg(&partial).arg(&uri).stdout(Stdio::null()))?;
    let slim = "cd \"$1\" && rm -rf var/cache/apt/archives/*.deb var/lib/apt/lists/* usr/share/doc/* \
                usr/share/locale/* usr/share/man/*";
    run(Command::new("sh").args(["-c", slim, "sh"]).arg(&partial))?;
    fs::rename(&partial, &folder)?;
    fs::write(&list, PACKAGES)?;
    Ok(folder)
}
