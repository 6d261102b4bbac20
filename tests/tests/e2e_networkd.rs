//! systemd-networkd, which takes away from interfaces it manages what it does not know, started and started again.

use std::fs;
use std::path::Path;
use std::time::Duration;

use hub_tests::lab::world::{FAMILIES, member_at};
use hub_tests::lab::{World, wait_until};
use hub_tests::root;
use serde_json::json;

const NETWORKD: &str = "/lib/systemd/systemd-networkd";

/// Runs networkd in a mount namespace of its own, so that nothing of the machine's is read or written.
const RUN: &str = "mount -t tmpfs tmpfs /run/systemd
mkdir -p /run/systemd/network /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp
mount -t sysfs -o ro sysfs /sys
cp *.network /run/systemd/network/
chown -R systemd-network: /run/systemd/netif
SYSTEMD_LOG_LEVEL=debug SYSTEMD_LOG_TARGET=console exec /lib/systemd/systemd-networkd
";

/// What is the hub's: addresses of the port, routes, rules.
fn ours(world: &World) -> String {
    world.router.sh("ip -oneline address show dev seg0 | grep -v fe80 | sed 's/valid_lft.*//' | sort
        ip route show table all proto 177; ip -6 route show table all proto 177
        ip rule show | grep 'proto 177'; ip -6 rule show | grep 'proto 177'")
}

#[test]
#[expect(clippy::print_stderr, reason = "the reader of the test's output is told what was left out")]
fn a_restart_of_networkd_costs_the_persona_nothing_for_long() {
    if !root() {
        return;
    }
    if !Path::new(NETWORKD).exists() {
        eprintln!("left out: there is no {NETWORKD}");
        return;
    }
    let world = World::new(1);
    world.create(0, &json!({"egress": {"next_hop": ["192.0.2.10", "2001:db8:2::10"]}, "ttl": "1h"}));
    world
        .router
        .sh("ip route add 203.0.113.0/24 dev lo proto 99; ip rule add from 203.0.113.7 table 99 priority 99");
    let before = ours(&world);
    assert!(before.contains("17700") && before.contains("fd00:100::/64"), "{before}");
    let folder = world.lab.folder();
    fs::write(folder.join("networkd.sh"), RUN).unwrap();
    for name in ["up0", "seg0"] {
        let settings = "LinkLocalAddressing=no\nIPv6AcceptRA=no\nConfigureWithoutCarrier=yes\n";
        fs::write(
            folder.join(format!("{name}.network")),
            format!("[Match]\nName={name}\n[Network]\n{settings}"),
        )
        .unwrap();
    }
    for round in 0..2 {
        let log = folder.join(format!("networkd{round}"));
        let words = format!(
            "unshare --mount sh -c 'cd {} && sh networkd.sh >networkd{round} 2>&1'",
            folder.display()
        );
        let _networkd = world.router.background(&words);
        let said = |text: &str| fs::read_to_string(&log).unwrap_or_default().contains(text);
        for port in ["up0", "seg0"] {
            wait_until(&format!("{port} is configured"), Duration::from_mins(1), || {
                said(&format!("{port}: State changed: configuring -> configured"))
            });
        }
        assert!(said("Removing foreign address"), "it takes away what it does not know");
        wait_until("everything of the hub's is back", Duration::from_secs(2), || ours(&world) == before);
        for v4 in FAMILIES {
            let member = member_at(0, v4).to_string();
            wait_until("the member answers", Duration::from_secs(2), || world.outside.pings(&member));
        }
        let foreign = world.router.sh("ip route show proto 99; ip rule show priority 99");
        assert!(foreign.contains("203.0.113.0/24") && foreign.contains("203.0.113.7"), "{foreign}");
    }
}
