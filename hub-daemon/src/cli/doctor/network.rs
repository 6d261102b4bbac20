//! Interfaces, programs and firewalls of others, and what the hub may have left behind.

use std::fs;

use serde_json::Value;

use super::Diagnosis;
use super::machine::runs;
use super::run::{says, tells};
use crate::desired::{Role, Xdp};
use crate::kernel::ethtool;
use crate::kernel::load;
use crate::kernel::netlink::Netlink;
use crate::model::config::Config;

/// Where systemd-networkd keeps its links' state while it runs.
const NETWORKD: &str = "/run/systemd/netif/links";
/// Folders of its configuration.
const NETWORKD_CONFIG: [&str; 4] = [
    "/etc/systemd/networkd.conf.d",
    "/run/systemd/networkd.conf.d",
    "/usr/local/lib/systemd/networkd.conf.d",
    "/usr/lib/systemd/networkd.conf.d",
];

pub(super) fn look(config: &Config, diagnosis: &mut Diagnosis) {
    interfaces(config, diagnosis);
    foreign_programs(config, diagnosis);
    networkd(diagnosis);
    network_manager(config, diagnosis);
    firewalls(diagnosis);
    orphans(config, diagnosis);
}

fn interfaces(config: &Config, diagnosis: &mut Diagnosis) {
    if config.interfaces.is_empty() {
        let advice = "name an uplink in `interfaces` of hub.yaml, or personas reach nothing outside";
        diagnosis.warning("interfaces", "none is configured", advice);
        return;
    }
    let inventory = match Netlink::open().and_then(|mut netlink| netlink.inventory()) {
        Ok(inventory) => inventory,
        Err(error) => {
            diagnosis.note("interfaces", error.to_string(), "");
            return;
        }
    };
    for interface in &config.interfaces {
        let fitting: Vec<_> = inventory.links.iter().filter(|(name, _)| interface.fits(name)).collect();
        if fitting.is_empty() {
            let check = format!("interface {}", interface.pattern);
            let advice = "make it, or mend its name in hub.yaml; hubd takes it when it comes";
            diagnosis.warning(&check, "there is none", advice);
        }
        for (name, link) in fitting {
            let check = format!("interface {name}");
            if !link.up {
                diagnosis.warning(&check, "is down or has no carrier", format!("`ip link set {name} up`"));
            }
            if interface.xdp == Xdp::On && link.kind == "veth" {
                let found = "XDP on a veth takes GSO away from its peer: bulk TCP is 3 times slower";
                diagnosis.warning(&check, found, "set `xdp: auto` or `off`");
            }
            match ethtool::driver(name) {
                Ok((driver, _)) if link.up => diagnosis.ok(&check, format!("up, driver {driver}")),
                Ok(_) => {}
                Err(error) => diagnosis.note(&check, error.to_string(), ""),
            }
            let filter = crate::kernel::sysctl::read(&format!("net.ipv4.conf.{name}.rp_filter"));
            if filter.is_ok_and(|value| value == "1") {
                let found =
                    "rp_filter is 1: replies that come another way are dropped before the hub sees them";
                diagnosis.note(&check, found, format!("`sysctl net.ipv4.conf.{name}.rp_filter=2`"));
            }
        }
    }
}

/// Programs on the same interfaces that are not the hub's.
fn foreign_programs(config: &Config, diagnosis: &mut Diagnosis) {
    let Some(found) = tells("bpftool", &["net", "show", "-j"]) else {
        diagnosis.note("programs of others", "not looked at: bpftool is not there or refuses", "");
        return;
    };
    let mut foreign = Vec::new();
    for hook in ["xdp", "tc"] {
        let entries = found.pointer(&format!("/0/{hook}")).and_then(Value::as_array);
        for entry in entries.into_iter().flatten() {
            let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
            let (interface, program) = (text("devname"), program(entry));
            let ours = program.starts_with("hub_");
            if !ours && config.interfaces.iter().any(|configured| configured.fits(interface)) {
                foreign.push(format!("{hook} {program} on {interface}"));
            }
        }
    }
    if foreign.is_empty() {
        diagnosis.ok("programs of others", "none on the hub's interfaces");
    } else {
        let advice = "they see packets before or after the hub; one at XDP keeps the hub's XDP away";
        diagnosis.note("programs of others", foreign.join(", "), advice);
    }
}

/// Name of a program; XDP lists only its number.
fn program(entry: &Value) -> String {
    if let Some(name) = entry.get("name").and_then(Value::as_str) {
        return name.to_owned();
    }
    let id = entry.get("id").or_else(|| entry.get("prog_id")).and_then(Value::as_u64).unwrap_or_default();
    let shown = tells("bpftool", &["prog", "show", "id", &id.to_string(), "-j"]);
    let name = shown.as_ref().and_then(|shown| shown.get("name")).and_then(Value::as_str);
    name.map_or_else(|| format!("program {id}"), str::to_owned)
}

fn networkd(diagnosis: &mut Diagnosis) {
    if !fs::exists(NETWORKD).unwrap_or(false) {
        diagnosis.ok("systemd-networkd", "does not run");
        return;
    }
    let mut texts = vec![fs::read_to_string("/etc/systemd/networkd.conf").unwrap_or_default()];
    for folder in NETWORKD_CONFIG {
        let files = fs::read_dir(folder).into_iter().flatten().flatten();
        texts.extend(files.filter_map(|file| fs::read_to_string(file.path()).ok()));
    }
    for key in ["ManageForeignRoutes", "ManageForeignRoutingPolicyRules"] {
        let check = format!("systemd-networkd {key}");
        if texts.iter().any(|text| says_no(text, key)) {
            diagnosis.ok(&check, "no");
        } else {
            let advice = format!(
                "write `[Network]` and `{key}=no` to /etc/systemd/networkd.conf.d/hub.conf and restart it"
            );
            diagnosis.warning(&check, "yes: a restart of it removes what the hub made, for a moment", advice);
        }
    }
}

fn says_no(text: &str, key: &str) -> bool {
    let value =
        |line: &str| Some(line.trim().strip_prefix(key)?.trim().strip_prefix('=')?.trim().to_lowercase());
    text.lines()
        .filter_map(value)
        .next_back()
        .is_some_and(|value| ["no", "false", "off", "0"].contains(&&*value))
}

/// `NetworkManager` asks for DHCP on what it manages, and removes everything there when nobody answers.
fn network_manager(config: &Config, diagnosis: &mut Diagnosis) {
    let Some(said) = says("nmcli", &["--terse", "--fields", "DEVICE,STATE", "device"]) else {
        diagnosis.ok("NetworkManager", "does not run");
        return;
    };
    let segments = |name: &&str| {
        config.interfaces.iter().any(|interface| interface.role == Role::Segment && interface.fits(name))
    };
    let managed: Vec<&str> = said.lines().filter_map(managed).filter(segments).collect();
    if managed.is_empty() {
        diagnosis.ok("NetworkManager", "keeps off the segments");
        return;
    }
    let names = managed.join(";interface-name:");
    let found = format!("manages {}: without an answer to DHCP it removes what is there", managed.join(", "));
    let advice = format!(
        "write `[keyfile]` and `unmanaged-devices=interface-name:hub*;interface-name:{names}` to \
         /etc/NetworkManager/conf.d/hub.conf and restart it"
    );
    diagnosis.warning("NetworkManager", found, advice);
}

/// The device of a line of `nmcli --terse`, unless nobody manages it.
fn managed(line: &str) -> Option<&str> {
    line.split_once(':').filter(|(_, state)| *state != "unmanaged").map(|(name, _)| name)
}

/// Filters of the kernel see what the hub leaves to it, and nothing of what it redirects.
fn firewalls(diagnosis: &mut Diagnosis) {
    let Some(found) = tells("nft", &["-j", "list", "chains"]) else {
        diagnosis.note("nftables", "not looked at: nft is not there or refuses", "");
        return;
    };
    let chains = found.get("nftables").and_then(Value::as_array);
    let of_forward = chains
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.get("chain"))
        .filter(|chain| chain.get("hook").and_then(Value::as_str) == Some("forward"));
    let mut dropping = Vec::new();
    let mut others = 0;
    for chain in of_forward {
        let text = |key: &str| chain.get(key).and_then(Value::as_str).unwrap_or_default();
        if text("policy") == "drop" {
            dropping.push(format!("{} {} {}", text("family"), text("table"), text("name")));
        } else {
            others += 1;
        }
    }
    if !dropping.is_empty() {
        let found = format!("forward chains that drop by default: {}", dropping.join(", "));
        let advice = "allow the ranges of personas there: first packets go through the kernel's forwarding";
        diagnosis.warning("nftables", found, advice);
    } else if others > 0 {
        let found =
            format!("{others} forward chains: they see first packets only, the hub redirects the rest");
        diagnosis.note("nftables", found, "let the rules of personas decide, not these chains");
    } else {
        diagnosis.ok("nftables", "no forward chain");
    }
}

/// Objects with the hub's marks while nothing keeps them.
fn orphans(config: &Config, diagnosis: &mut Diagnosis) {
    if runs(config) || fs::exists(load::pins(&config.bpffs).join("SEGMENTS")).unwrap_or(false) {
        diagnosis.ok("left over", "not looked for: the hub is here");
        return;
    }
    let mut left = Vec::new();
    for arguments in [
        ["route", "show", "table", "all", "proto", "177"].as_slice(),
        &["-6", "route", "show", "table", "all", "proto", "177"],
        &["rule", "show", "priority", "17700"],
        &["-6", "rule", "show", "priority", "17700"],
    ] {
        let said = says("ip", arguments).unwrap_or_default();
        left.extend(said.lines().map(|line| format!("`{}`", line.trim())));
    }
    if left.is_empty() {
        diagnosis.ok("left over", "nothing");
    } else {
        let found = format!("{} routes and rules of a hub that is gone: {}", left.len(), left.join(", "));
        diagnosis.warning("left over", found, "`hubctl down` removes them");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_managed_is_read() {
        assert_eq!(managed("seg0:connecting (getting IP configuration)"), Some("seg0"));
        assert_eq!(managed("seg0:connected (externally)"), Some("seg0"));
        assert_eq!((managed("hub1e0:unmanaged"), managed("")), (None, None));
    }

    #[test]
    fn the_last_setting_counts() {
        assert!(says_no("[Network]\nManageForeignRoutes = no\n", "ManageForeignRoutes"));
        assert!(!says_no("ManageForeignRoutes=no\nManageForeignRoutes=yes\n", "ManageForeignRoutes"));
        assert!(!says_no("#ManageForeignRoutes=no\n", "ManageForeignRoutes"));
    }
}
