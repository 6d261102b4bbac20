//! The kernel, the rights of this process, the clock, and what the hub left in the kernel.

use std::fs;

use jiff::Timestamp;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use tokio::sync::watch;

use super::Diagnosis;
use crate::desired::TcHook;
use crate::kernel::reader::Reader;
use crate::kernel::{clsact, load, sysctl};
use crate::model::config::Config;

/// First kernel that the hub is tested on.
const OLDEST: (u32, u32) = (6, 1);
/// First kernel with TCX links.
const TCX: (u32, u32) = (6, 6);
/// `CAP_NET_ADMIN`, `CAP_SYS_ADMIN`, `CAP_BPF`.
const CAPABILITIES: [(&str, u32); 3] = [("CAP_NET_ADMIN", 12), ("CAP_SYS_ADMIN", 21), ("CAP_BPF", 39)];
/// Part of a table in use that is worth a warning.
const CROWDED_PERCENT: u64 = 80;
/// No clock is right before this program was written.
const WRITTEN: i64 = 1_735_689_600;

pub(super) fn look(config: &Config, diagnosis: &mut Diagnosis) {
    kernel(config.tc_hook, diagnosis);
    capabilities(diagnosis);
    switches(diagnosis);
    clock(diagnosis);
    if bpffs(config, diagnosis) {
        pins(config, diagnosis);
    }
}

fn kernel(hook: TcHook, diagnosis: &mut Diagnosis) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    hooks(release.trim(), hook, diagnosis);
    if fs::exists("/sys/kernel/btf/vmlinux").unwrap_or(false) {
        diagnosis.ok("BTF", "/sys/kernel/btf/vmlinux");
    } else {
        let advice = "start a kernel built with CONFIG_DEBUG_INFO_BTF";
        diagnosis.error("BTF", "/sys/kernel/btf/vmlinux is missing: maps have types", advice);
    }
}

/// What the release says of the hooks that programs need.
fn hooks(release: &str, hook: TcHook, diagnosis: &mut Diagnosis) {
    let Some(version) = version(release) else {
        diagnosis.note("kernel", format!("release `{release}` is not to be understood"), "");
        return;
    };
    if version < OLDEST {
        let found = format!("{release}: the hub needs Linux {}.{}", OLDEST.0, OLDEST.1);
        diagnosis.error("kernel", found, "start a newer kernel");
    } else if version >= TCX || hook == TcHook::Clsact {
        diagnosis.ok("kernel", release);
    } else if hook == TcHook::Tcx {
        let found =
            format!("{release}: TCX links, which `attach.tc` asks for, begin with {}.{}", TCX.0, TCX.1);
        diagnosis.error("kernel", found, "set `attach: {tc: auto}` in hub.yaml, or start a newer kernel");
    } else {
        let found =
            format!("{release}: without TCX links ({}.{}), programs are filters of `clsact`", TCX.0, TCX.1);
        diagnosis.note("kernel", found, "others can remove filters: hubd puts them back within 5 s");
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn capabilities(diagnosis: &mut Diagnosis) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(effective) = line.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()) else {
        diagnosis.note("capabilities", "/proc/self/status does not say", "");
        return;
    };
    let missing: Vec<&str> =
        CAPABILITIES.iter().filter(|(_, bit)| effective >> bit & 1 == 0).map(|(name, _)| *name).collect();
    if missing.is_empty() {
        diagnosis.ok("capabilities", "CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_BPF");
    } else {
        let found = format!("this process lacks {}", missing.join(", "));
        diagnosis.note("capabilities", found, "run `hubctl doctor` as root to see everything");
    }
}

fn switches(diagnosis: &mut Diagnosis) {
    for (key, wanted, advice) in [
        ("net.core.bpf_jit_enable", ["1", "2"], "set it to 1: interpreted programs are several times slower"),
        (
            "net.ipv4.ip_forward",
            ["1", "1"],
            "hubd sets it while it runs; something set it back, or it never ran",
        ),
    ] {
        match sysctl::read(key) {
            Ok(value) if wanted.contains(&value.as_str()) => diagnosis.ok(key, value),
            Ok(value) => diagnosis.warning(key, format!("is {value}"), advice),
            Err(_) => diagnosis.note(key, "is not there", ""),
        }
    }
}

fn clock(diagnosis: &mut Diagnosis) {
    let now = Timestamp::now();
    if now.as_second() < WRITTEN {
        let advice = "set the clock: personas end by it";
        diagnosis.error("clock", format!("it says {now}"), advice);
        return;
    }
    let synchronized = fs::exists("/run/systemd/timesync/synchronized").unwrap_or(false)
        || super::run::says("timedatectl", &["show", "--property=NTPSynchronized", "--value"])
            .is_some_and(|said| said.trim() == "yes");
    if synchronized {
        diagnosis.ok("clock", format!("{now}, synchronized"));
    } else {
        let advice = "run a time service: deadlines of personas are moments of the wall clock";
        diagnosis.note("clock", format!("{now}; nobody says that it is synchronized"), advice);
    }
}

fn bpffs(config: &Config, diagnosis: &mut Diagnosis) -> bool {
    let path = config.bpffs.display();
    match statfs(&config.bpffs) {
        Ok(found) if found.filesystem_type() == BPF_FS_MAGIC => {
            diagnosis.ok("BPF file system", path.to_string());
            true
        }
        Ok(_) => {
            let found = format!("nothing is mounted on {path}");
            diagnosis.note("BPF file system", found, "hubd mounts it when it starts");
            false
        }
        Err(errno) => {
            let advice = "set `bpffs` in hub.yaml to a folder that is there";
            diagnosis.error("BPF file system", format!("{path}: {errno}"), advice);
            false
        }
    }
}

/// Pins, who holds them, and how full the tables are.
fn pins(config: &Config, diagnosis: &mut Diagnosis) {
    let pins = load::pins(&config.bpffs);
    let entries = |folder: &std::path::Path| fs::read_dir(folder).map_or(0, Iterator::count);
    // Filters of clsact are held by their interfaces, not by pins. What cannot be asked for is not there.
    let filters = clsact::count(&pins).unwrap_or_default();
    let (all, attached) = (entries(&pins), entries(&pins.join("link")) + filters);
    let runs = runs(config);
    if all == 0 {
        if runs {
            let advice = "start hubd again: its programs end with the next change of their interfaces";
            diagnosis.error("pins", format!("hubd runs and {} is empty", pins.display()), advice);
        } else {
            diagnosis.ok("pins", "nothing of the hub is in the kernel");
        }
        return;
    }
    match (runs, attached) {
        (true, 0) => diagnosis.warning(
            "programs",
            "none is attached to an interface",
            "name the interfaces in hub.yaml, or give a persona endpoints",
        ),
        (true, attached) => diagnosis.ok("programs", format!("{attached} attached")),
        (false, 0) => diagnosis.warning(
            "pins",
            "tables are there, no program is attached and no hubd runs: they are left over",
            "start hubd, or take them away with `hubctl down`",
        ),
        (false, attached) => diagnosis.warning(
            "pins",
            format!("{attached} programs judge packets and no hubd runs: nothing changes or heals"),
            "start hubd, or take everything away with `hubctl down`",
        ),
    }
    let (_, snapshot) = watch::channel(std::sync::Arc::default());
    match Reader::open(&pins, snapshot).and_then(|reader| reader.flow_counts()) {
        Ok(crate::datapath_view::FlowCounts { table, .. }) => {
            for (name, used, room, key) in [
                ("established connections", table.established, table.established_max, "limits.flows"),
                ("opening connections", table.opening, table.opening_max, "limits.opening_flows"),
            ] {
                let found = format!("{used} of {room}");
                if used * 100 >= room * CROWDED_PERCENT {
                    diagnosis.warning(name, found, format!("raise `{key}` in hub.yaml and start hubd again"));
                } else {
                    diagnosis.ok(name, found);
                }
            }
        }
        Err(error) => {
            let advice = "another version of hubd may have made them, or this process may not read them";
            diagnosis.note("tables", error.to_string(), advice);
        }
    }
}

/// Whether a daemon holds the lock.
pub(super) fn runs(config: &Config) -> bool {
    let Ok(file) = fs::File::open(config.runtime_dir.join("hubd.lock")) else { return false };
    Flock::lock(file, FlockArg::LockSharedNonblock).is_err()
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    #[test]
    fn releases_of_kernels_are_compared_as_numbers() {
        assert_eq!(version("6.18.2-arch1-1"), Some((6, 18)));
        assert!(version("6.18.2").unwrap() >= TCX && version("6.5.0-rc1").unwrap() < TCX);
        assert_eq!(version("linux"), None);
    }

    #[test]
    fn kernels_without_what_is_asked_for_are_told() {
        let severity = |release: &str, hook: TcHook| {
            let mut diagnosis = Diagnosis::default();
            hooks(release, hook, &mut diagnosis);
            diagnosis.findings.first().map(|finding| finding.severity)
        };
        assert_eq!(severity("6.18.2", TcHook::Auto), Some(Severity::Ok));
        assert_eq!(severity("6.1.0-57-cloud-amd64", TcHook::Auto), Some(Severity::Note));
        assert_eq!(severity("6.1.0-57-cloud-amd64", TcHook::Clsact), Some(Severity::Ok));
        assert_eq!(severity("6.1.0-57-cloud-amd64", TcHook::Tcx), Some(Severity::Error));
        assert_eq!(severity("5.15.0", TcHook::Auto), Some(Severity::Error));
    }
}
