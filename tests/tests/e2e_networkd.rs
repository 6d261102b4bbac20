//! A real systemd-networkd beside the hub: what it removes when it starts is back within two seconds, and what
//! it makes itself is left alone.
//!
//! It runs in the hub's network namespace, with a `/sys` and a `/run/systemd` of its own, and with records that a
//! udev would make: it looks at everything there is before it configures links, as on a machine that runs.

#![expect(
    clippy::print_stderr,
    reason = "measurements, and why nothing was measured, are for whoever runs this"
)]

use std::path::Path;
use std::time::Duration;

use hub_tests::lab::Outcome::Answered;

use hub_tests::lab::beside::{drift, longest_gap, ours};
use hub_tests::lab::world::{FAMILIES, member_at, outside_at};
use hub_tests::lab::{Background, World, patience, wait_until};
use hub_tests::root;
use serde_json::json;

const NETWORKD: &str = "/usr/lib/systemd/systemd-networkd";
const REPAIR: Duration = Duration::from_secs(2);

/// How networkd is told to be, and which interfaces are its own.
struct Networkd {
    names: &'static str,
    config: &'static str,
}

impl Networkd {
    /// Starts it. With a broadcast address it would not know its own
    /// address again (252).
    fn start(&self, world: &World) -> Background {
        let Self { names, config } = self;
        let log = world.lab.folder().join("networkd.log").display().to_string();
        std::fs::remove_file(&log).ok();
        let script = format!(
            "mkdir -p /run/systemd /run/udev && mount --make-rprivate / && mount -t sysfs sysfs /sys \
                && mount -t tmpfs tmpfs /run/systemd && mount -t tmpfs tmpfs /run/udev || exit
            mkdir -p /run/udev/data /run/systemd/netif/links /run/systemd/netif/leases \
                /run/systemd/network /run/systemd/networkd.conf.d
            for number in $(seq 16); do echo I:1 >/run/udev/data/n$number; done
            chown -R systemd-network:systemd-network /run/systemd/netif
            printf '[Network]\n{config}\n' >/run/systemd/networkd.conf.d/hub.conf
            printf '[Match]\nName=up0\n[Network]\nAddress=2001:db8:2::1/64\nIPv6AcceptRA=no
                [Address]\nAddress=192.0.2.1/24\nBroadcast=no\n[Route]\nDestination=203.0.113.0/24\nGateway=192.0.2.10\n' \
                | sed 's/^ *//' \
                >/run/systemd/network/10-up.network
            printf '[Match]\nName={names}\n[Network]\nIPv6AcceptRA=no\n' >/run/systemd/network/20-rest.network
            export SYSTEMD_LOG_LEVEL=debug SYSTEMD_LOG_TARGET=console
            exec {NETWORKD} >{log} 2>&1"
        );
        let mut command = world.router.program("unshare");
        Background::start(command.args(["--mount", "sh", "-c", &script]))
    }
}

/// Whether networkd has configured the uplink.
fn is_configured(world: &World) -> bool {
    log(world).contains("up0: State changed: configuring -> configured")
}

/// A networkd that has configured the uplink, and a persona with addresses, routes, rules and a routing table
/// of its own.
fn world(networkd: &Networkd) -> Option<(World, Background)> {
    if !root() {
        return None;
    }
    if !Path::new(NETWORKD).exists() {
        eprintln!("not run: there is no {NETWORKD}");
        return None;
    }
    let world = World::new(1);
    let running = networkd.start(&world);
    wait_until("networkd has configured the uplink", Duration::from_secs(20), || is_configured(&world));
    world.create(0, &json!({"egress": {"next_hop": ["192.0.2.10", "2001:db8:2::10"]}}));
    Some((world, running))
}

/// How long networkd may take to configure links.
const CONFIGURES: Duration = Duration::from_secs(30);

#[test]
fn what_networkd_removes_is_back_within_two_seconds() {
    let networkd = Networkd { names: "seg*", config: "ManageForeignRoutes=yes" };
    let Some((world, mut running)) = world(&networkd) else { return };
    let whole = ours(&world);
    assert_eq!(whole.lines().count(), 16, "{whole}");
    for round in 0..2 {
        running.stop();
        let before = drift(&world);
        running = networkd.start(&world);
        let gap = longest_gap(&world, &whole, CONFIGURES, || is_configured(&world));
        let drift = drift(&world) - before;
        eprintln!("restart {round}: {drift} entries put right, the longest gap {gap:?}");
        assert!(drift > 0, "networkd removed nothing:\n{}", log(&world));
        assert!(gap < REPAIR * patience(), "{gap:?}");
        for v4 in FAMILIES {
            world.outside.expect_ping(member_at(0, v4), Answered);
            world.members[0].expect_ping(outside_at(v4), Answered);
        }
        let theirs = world.router.ip("route show 203.0.113.0/24");
        assert!(theirs.contains("proto static"), "what networkd made stays: {theirs}");
    }
    assert!(world.hub.log().contains("drift repaired"), "{}", world.hub.log());
}

#[test]
fn with_its_switches_off_networkd_leaves_everything_as_it_is() {
    let config = "ManageForeignRoutes=no\\nManageForeignRoutingPolicyRules=no";
    let networkd = Networkd { names: "none", config };
    let Some((world, mut running)) = world(&networkd) else { return };
    let whole = ours(&world);
    for _ in 0..2 {
        running.stop();
        let before = drift(&world);
        running = networkd.start(&world);
        let gap = longest_gap(&world, &whole, CONFIGURES, || is_configured(&world));
        assert_eq!((drift(&world) - before, gap), (0, Duration::ZERO), "{}", log(&world));
    }
}

fn log(world: &World) -> String {
    std::fs::read_to_string(world.lab.folder().join("networkd.log")).unwrap_or_default()
}
