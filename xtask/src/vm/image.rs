//! The archive that a machine boots from: tools of this machine, our programs, a kernel's modules.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{kernel::Kernel, suite, suite::Step};
use crate::{
    build,
    command::{find, run, text},
    places::Places,
};

/// The machine's first program.
const INIT: &str = include_str!("init.sh");

/// Tools of this machine that tests run; everything else is busybox.
const TOOLS: [&str; 26] = [
    "bash",
    "bird",
    "bpftool",
    "curl",
    "dash",
    "dbus-daemon",
    "dnsmasq",
    "ethtool",
    "ip",
    "iperf3",
    "jq",
    "nc",
    "nft",
    "nmap",
    "nsenter",
    "nstat",
    "openssl",
    "ping",
    "setpriv",
    "socat",
    "ss",
    "strace",
    "sysctl",
    "tc",
    "tcpdump",
    "unshare",
];

/// Tables that nmap reads before it scans.
const NMAP: [&str; 3] = ["nmap-payloads", "nmap-protocols", "nmap-services"];

/// What openssl reads before it makes a certificate, and whom the machine trusts.
const CERTIFICATES: [&str; 2] = ["/usr/lib/ssl/openssl.cnf", "/etc/ssl/certs/ca-certificates.crt"];

/// Builds the archive with everything but modules, the daemon with optimisations or without.
pub(super) fn base(places: &Places, steps: &[Step], is_fast: bool) -> Result<PathBuf> {
    let root = places.vm().join("root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    for folder in ["bin", "dev", "etc", "hub", "proc", "run", "sys", "tmp", "usr/bin", "var/lib", "var/run"] {
        fs::create_dir_all(root.join(folder))?;
    }
    for (link, target) in [("sbin", "bin"), ("usr/sbin", "bin")] {
        symlink(target, root.join(link))?;
    }
    fs::create_dir_all(root.join("lib"))?;
    symlink("../usr/lib/modules", root.join("lib/modules"))?;
    let mut programs: BTreeSet<PathBuf> = BTreeSet::new();
    for name in TOOLS {
        let tool = find(name).with_context(|| format!("{name}: `cargo xtask setup` installs it"))?;
        fs::copy(&tool, root.join("usr/bin").join(name))?;
        programs.insert(tool);
    }
    symlink("dash", root.join("usr/bin/sh"))?;
    let busybox = find("busybox").context("busybox was installed before")?;
    fs::copy(&busybox, root.join("bin/busybox"))?;
    for step in steps {
        suite::strip(&step.program, &root.join("hub").join(&step.name))?;
        programs.insert(step.program.clone());
    }
    for name in ["hubd", "hubctl", "hub-wg"] {
        let program = build::binaries(places, is_fast).join(name);
        suite::strip(&program, &root.join("hub").join(name))?;
        programs.insert(program);
    }
    copy_libraries(&programs, &root)?;
    // The tests look for it where the build put it.
    copy(&places.object(), &root)?;
    fs::create_dir_all(root.join(places.root().strip_prefix("/")?).join("tests"))?;
    copy_into(Path::new("/etc/iproute2"), &root)?;
    let tables = NMAP.map(|name| Path::new("/usr/share/nmap").join(name));
    for file in tables.iter().map(PathBuf::as_path).chain(CERTIFICATES.map(Path::new)) {
        if file.exists() {
            copy(file, &root)?;
        }
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\n")?;
    fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n")?;
    let (measured, others): (Vec<&Step>, Vec<&Step>) = steps.iter().partition(|step| step.is_measured);
    fs::write(root.join("hub/suite"), suite::list(&others))?;
    fs::write(root.join("hub/measured"), suite::list(&measured))?;
    let init = root.join("init");
    fs::write(&init, INIT)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    let archive = places.vm().join("base.cpio");
    pack(&root, &archive)?;
    Ok(archive)
}

/// The archive with a kernel's modules behind it.
pub(super) fn with_modules(places: &Places, kernel: &Kernel, base: &Path) -> Result<PathBuf> {
    let modules = places.vm().join(format!("modules-{}.cpio", kernel.release()));
    if !modules.exists() {
        let root = places.vm().join("modules");
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        modules_into(kernel, &root)?;
        pack(&root, &modules)?;
        fs::remove_dir_all(&root)?;
    }
    let whole = base.with_extension("initrd.cpio");
    let join = "cat \"$1\" \"$2\" >\"$3\"";
    run(Command::new("sh").args(["-c", join, "sh"]).arg(base).arg(&modules).arg(&whole))?;
    Ok(whole)
}

/// Copies a kernel's modules to where programs look for them.
pub(super) fn modules_into(kernel: &Kernel, root: &Path) -> Result<()> {
    let from = kernel.folder().join("lib/modules").join(kernel.release());
    // Below /usr, because /lib is a link there in a whole Debian.
    let to = root.join("usr/lib/modules").join(kernel.release());
    fs::create_dir_all(to.join("kernel/drivers"))?;
    // Networks are all that is needed.
    let take = "cd \"$1\" && cp -r --parents kernel/net kernel/drivers/net kernel/lib kernel/crypto \
                kernel/arch modules.* \"$2\" 2>/dev/null || true; test -e \"$2/modules.dep\"";
    run(Command::new("sh").args(["-c", take, "sh"]).arg(&from).arg(&to))
}

/// Packs a folder as the kernel unpacks it. Not compressed: unpacking costs an emulated machine more.
pub(super) fn pack(root: &Path, archive: &Path) -> Result<()> {
    let script = "cd \"$1\" && find . -mindepth 1 | busybox cpio -o -H newc >\"$2\" 2>/dev/null";
    run(Command::new("sh").args(["-c", script, "sh"]).arg(root).arg(archive))
}

/// Copies every library that one of the programs needs to where it is here.
fn copy_libraries(programs: &BTreeSet<PathBuf>, root: &Path) -> Result<()> {
    let mut libraries = BTreeSet::new();
    for program in programs {
        let listing = text(Command::new("ldd").arg(program))?;
        libraries.extend(listing.lines().filter_map(library));
        if listing.contains("not found") {
            bail!("{}: a library is missing here", program.display());
        }
    }
    libraries.iter().try_for_each(|library| copy(library, root))
}

/// The file in a line of `ldd`.
fn library(line: &str) -> Option<PathBuf> {
    let path = line.split_whitespace().find(|word| word.starts_with('/'))?;
    Some(path.into())
}

/// Copies a file to the same place below another root.
fn copy(file: &Path, root: &Path) -> Result<()> {
    let target = root.join(file.strip_prefix("/").unwrap_or(file));
    fs::create_dir_all(target.parent().context("a file lies in a folder")?)?;
    fs::copy(file, &target).with_context(|| format!("copy {}", file.display()))?;
    Ok(())
}

fn copy_into(folder: &Path, root: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_file() {
            copy(&entry.path(), root)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_ldd() {
        assert_eq!(library("\tlibc.so.6 => /lib/libc.so.6 (0x1)"), Some("/lib/libc.so.6".into()));
        assert_eq!(
            library("\t/lib64/ld-linux-x86-64.so.2 (0x1)"),
            Some("/lib64/ld-linux-x86-64.so.2".into())
        );
        assert_eq!(library("\tlinux-vdso.so.1 (0x1)"), None);
    }

    #[test]
    fn the_first_program_is_valid_shell() {
        crate::command::feed(Command::new("sh").arg("-n"), INIT).unwrap();
    }
}
