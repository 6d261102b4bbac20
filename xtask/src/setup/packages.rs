//! Programs that tests and demonstrations run, installed with `apt-get` when
//! one is missing. Services that come along are not started.

use std::{
    io::{IsTerminal as _, stdin},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    command::{find, run, text},
    say::say,
};

/// A program, and the package of Debian that brings it.
struct Program {
    name: &'static str,
    package: &'static str,
}

/// Every program that tests and demonstrations may run.
const PROGRAMS: [Program; 24] = [
    Program { name: "NetworkManager", package: "network-manager" },
    Program { name: "bird", package: "bird2" },
    Program { name: "bpftool", package: "bpftool" },
    Program { name: "curl", package: "curl" },
    Program { name: "dbus-daemon", package: "dbus-daemon" },
    Program { name: "dnsmasq", package: "dnsmasq-base" },
    Program { name: "ethtool", package: "ethtool" },
    Program { name: "ip", package: "iproute2" },
    Program { name: "iperf3", package: "iperf3" },
    Program { name: "jq", package: "jq" },
    Program { name: "nc", package: "netcat-openbsd" },
    Program { name: "nft", package: "nftables" },
    Program { name: "nmap", package: "nmap" },
    Program { name: "openssl", package: "openssl" },
    Program { name: "ping", package: "iputils-ping" },
    Program { name: "prometheus", package: "prometheus" },
    Program { name: "promtool", package: "prometheus" },
    Program { name: "python3", package: "python3" },
    Program { name: "socat", package: "socat" },
    Program { name: "strace", package: "strace" },
    Program { name: "tc", package: "iproute2" },
    Program { name: "tcpdump", package: "tcpdump" },
    Program { name: "tshark", package: "tshark" },
    Program { name: "unshare", package: "util-linux" },
];

/// Every program that boots other kernels beside those.
const MACHINES: [Program; 6] = [
    Program { name: "busybox", package: "busybox-static" },
    Program { name: "debootstrap", package: "debootstrap" },
    Program { name: "mke2fs", package: "e2fsprogs" },
    Program { name: "qemu-system-x86_64", package: "qemu-system-x86" },
    Program { name: "strip", package: "binutils" },
    Program { name: "xz", package: "xz-utils" },
];

/// Runs as root; its arguments are packages. Services may neither start now nor at the next boot.
const INSTALL: &str = r#"
set -e
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
install() { apt-get install -qq --yes -o Dpkg::Use-Pty=0 --no-install-recommends -o DPkg::Lock::Timeout=300 "$@" </dev/null; }
install "$@" || { apt-get update --quiet </dev/null; install "$@"; }
for package in "$@"; do
    case $package in
    prometheus) if command -v systemctl >/dev/null; then systemctl disable prometheus.service || true; fi ;;
    bird2) if command -v systemctl >/dev/null; then systemctl disable bird.service || true; fi ;;
    network-manager)
        if command -v systemctl >/dev/null; then
            systemctl disable NetworkManager.service NetworkManager-wait-online.service NetworkManager-dispatcher.service || true
        fi
        ;;
    esac
done
"#;

/// Installs the packages of all programs that are missing.
pub(super) fn ready() -> Result<()> {
    install(PROGRAMS.iter())
}

/// Installs the packages of what emulated machines and their tests need.
pub(super) fn ready_for_machines() -> Result<()> {
    install(PROGRAMS.iter().chain(&MACHINES))
}

fn install(programs: impl Iterator<Item = &'static Program>) -> Result<()> {
    let missing: Vec<&Program> = programs.filter(|program| find(program.name).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|program| program.name).collect();
    let packages = packages_of(&missing);
    if find("apt-get").is_none() {
        bail!(
            "install these programs with your package manager: {}\n{}",
            names.join(" "),
            other_ways(&packages)
        );
    }
    say("setup", &format!("installing {} with apt-get", packages.join(" ")));
    let by_hand = format!("apt-get install --no-install-recommends {}", packages.join(" "));
    let mut install = as_root(INSTALL).with_context(|| format!("run this as root: {by_hand}"))?;
    run(install.arg("sh").args(&packages)).with_context(|| format!("this did not work: {by_hand}"))
}

/// Fetches the lists of packages.
pub(super) fn update() -> Result<()> {
    say("setup", "fetching the lists of packages");
    run(as_root("apt-get update --quiet </dev/null")?.arg("sh"))
}

/// Says whether this process may do everything.
pub(crate) fn is_root() -> bool {
    text(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

/// A shell script as root: directly, or through sudo. Its `$0` is still to be added.
fn as_root(script: &str) -> Result<Command> {
    if is_root() {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]);
        return Ok(shell);
    }
    let sudo = find("sudo").context("neither root nor sudo is available")?;
    let mut shell = Command::new(sudo);
    if !stdin().is_terminal() {
        shell.arg("--non-interactive");
    }
    shell.args(["sh", "-c", script]);
    Ok(shell)
}

fn packages_of(programs: &[&Program]) -> Vec<&'static str> {
    let mut packages: Vec<&str> = programs.iter().map(|program| program.package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// The same in other distributions, where most packages have the same names.
fn other_ways(packages: &[&str]) -> String {
    let renamed = |names: [(&str, &'static str); 7]| {
        let name = |package: &&str| {
            let other = names.iter().find(|(debian, _)| debian == package).map(|(_, other)| *other);
            other.unwrap_or(package).to_owned()
        };
        packages.iter().map(name).collect::<Vec<_>>().join(" ")
    };
    let fedora = renamed([
        ("bird2", "bird"),
        ("iproute2", "iproute iproute-tc"),
        ("iputils-ping", "iputils"),
        ("netcat-openbsd", "netcat"),
        ("network-manager", "NetworkManager"),
        ("prometheus", "golang-github-prometheus"),
        ("tshark", "wireshark-cli"),
    ]);
    let arch = renamed([
        ("bird2", "bird"),
        ("bpftool", "bpf"),
        ("iputils-ping", "iputils"),
        ("netcat-openbsd", "openbsd-netcat"),
        ("network-manager", "networkmanager"),
        ("prometheus", "prometheus"),
        ("tshark", "wireshark-cli"),
    ]);
    format!("  Fedora: dnf install {fedora}\n  Arch:   pacman -S --needed {arch}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_named_once() {
        let both: Vec<&Program> = PROGRAMS
            .iter()
            .filter(|program| ["promtool", "prometheus", "ip"].contains(&program.name))
            .collect();
        assert_eq!(packages_of(&both), ["iproute2", "prometheus"]);
    }

    #[test]
    fn programs_are_listed_once_and_in_order() {
        assert!(PROGRAMS.is_sorted_by(|left, right| left.name < right.name));
    }

    #[test]
    fn other_distributions_get_their_own_names() {
        let ways = other_ways(&["iproute2", "jq"]);
        assert_eq!(
            ways,
            "  Fedora: dnf install iproute iproute-tc jq\n  Arch:   pacman -S --needed iproute2 jq"
        );
    }

    #[test]
    fn install_script_is_valid_shell() {
        run(Command::new("sh").args(["-n", "-c", INSTALL])).unwrap();
    }
}
