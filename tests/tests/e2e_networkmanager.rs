//! A real `NetworkManager` beside the hub: what it removes is back within two seconds, and what it makes itself is
//! left alone.
//!
//! It runs in the hub's network namespace, with a system bus, a `/sys` and folders of its own, and with records that
//! a udev would make. An interface without addresses that nobody keeps it from is its own: it asks for DHCP there,
//! and removes everything when nobody answers. What it does with names and the host's name is switched off.

#![expect(
    clippy::print_stderr,
    reason = "measurements, and why nothing was measured, are for whoever runs this"
)]
#![expect(clippy::indexing_slicing, reason = "a helper that cannot go on fails the test that called it")]

use std::path::Path;
use std::time::Duration;

use hub_tests::lab::Outcome::Answered;
use hub_tests::lab::beside::{drift, longest_gap, ours};
use hub_tests::lab::world::{FAMILIES, member_at, outside_at};
use hub_tests::lab::{Background, Stopwatch, Stream, World, patience, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

const NETWORK_MANAGER: &str = "/usr/sbin/NetworkManager";
const REPAIR: Duration = Duration::from_secs(2);
const SETTLES: Duration = Duration::from_secs(20);
/// What it does to links is over by then.
const ENDS: Duration = Duration::from_secs(40);
/// What keeps it off the hub's links and its segments.
const KEPT_OFF: &str = "[keyfile]\nunmanaged-devices=interface-name:hub*;interface-name:seg*\n";
/// What Debian's rules of udev say of a veth pair, and of a link that they do not know.
const OF_VETHS: &str = "I:1\\nE:NM_UNMANAGED=1\\n";
const OF_CARDS: &str = "I:1\\n";

/// `NetworkManager`, and what it has of the machine while it does not run.
struct Manager {
    running: Option<Background>,
    /// The system bus; its mount namespace has the folders.
    bus: Background,
}

impl Manager {
    /// Makes everything that it needs. Uplinks and segments pass for real cards; of other links udev says this.
    fn new(world: &World, config: &str, virtual_links: &str) -> Self {
        let policy = "<policy context=\"default\"><allow send_destination=\"*\" eavesdrop=\"true\"/>\
            <allow eavesdrop=\"true\"/><allow own=\"*\"/></policy>";
        let script = format!(
            "set -e
            mount --make-rprivate / && mount -t sysfs sysfs /sys
            for folder in /run /etc/NetworkManager /var/lib/NetworkManager; do mount -t tmpfs tmpfs $folder; done
            mkdir -p /run/dbus /run/udev/data /etc/NetworkManager/system-connections
            for number in $(seq 32); do printf '{virtual_links}' >/run/udev/data/n$number; done
            for name in up0 seg0; do echo I:1 >/run/udev/data/n$(cat /sys/class/net/$name/ifindex); done
            cat >/run/bus.conf <<-end
                <busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen>{policy}</busconfig>
            end
            cat >/etc/NetworkManager/NetworkManager.conf <<-end
                [main]
                plugins=keyfile
                auth-polkit=false
                dns=none
                rc-manager=unmanaged
                hostname-mode=none
                [connection]
                ipv4.dhcp-timeout=4
                ipv6.ra-timeout=4
                {config}
            end
            cat >/etc/NetworkManager/system-connections/uplink.nmconnection <<-end
                [connection]
                id=uplink
                type=ethernet
                interface-name=up0
                [ipv4]
                method=manual
                address1=192.0.2.1/24
                route1=203.0.113.0/24,192.0.2.10
                [ipv6]
                method=manual
                address1=2001:db8:2::1/64
                route1=2001:db8:3::/48,2001:db8:2::10
            end
            chmod 600 /etc/NetworkManager/system-connections/uplink.nmconnection
            exec dbus-daemon --nofork --nopidfile --config-file /run/bus.conf"
        );
        let script = script.lines().map(str::trim_start).collect::<Vec<_>>().join("\n");
        let mut command = world.router.program("unshare");
        let bus = Background::start(command.args(["--mount", "sh", "-c", &script]));
        let manager = Self { running: None, bus };
        let socket = manager.inside("test -S /run/dbus/system_bus_socket");
        wait_until("the bus", SETTLES, || world.router.succeeds(&socket, Duration::from_secs(5)));
        manager
    }

    /// A command as it runs where the folders are.
    fn inside(&self, command: &str) -> String {
        format!("nsenter --target {} --mount {command}", self.bus.id())
    }

    fn start(&mut self, world: &World) {
        let log = world.lab.folder().join("networkmanager.log").display().to_string();
        std::fs::remove_file(&log).ok();
        let command = self.inside(&format!("{NETWORK_MANAGER} --no-daemon --debug >{log} 2>&1"));
        let mut shell = world.router.program("sh");
        self.running = Some(Background::start(shell.args(["-c", &format!("exec {command}")])));
    }

    fn nmcli(&self, world: &World, words: &str) -> String {
        world.router.sh(&self.inside(&format!("nmcli {words}")))
    }

    /// What `hubctl doctor` finds about it.
    fn diagnosis(&self, world: &World) -> Value {
        let bus = format!("unix:path=/proc/{}/root/run/dbus/system_bus_socket", self.bus.id());
        let config = world.lab.folder().join("hub.yaml").display().to_string();
        let words = ["doctor", "--json", "--config", &config];
        let said = world.hub.hubctl_in(&[("DBUS_SYSTEM_BUS_ADDRESS", &bus)], &words).stdout;
        let said: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
        let found = said["findings"].as_array().into_iter().flatten();
        found.clone().find(|found| found["check"] == "NetworkManager").unwrap_or(&said).clone()
    }

    /// Ends it, with time to put things in order or without.
    fn end(&mut self, is_killed: bool) {
        let Some(mut running) = self.running.take() else { return };
        if is_killed {
            running.kill();
        } else {
            running.stop();
        }
    }

    /// What it says of an interface, such as `connected (externally)`.
    fn says(&self, world: &World, interface: &str) -> String {
        let words = self.inside("nmcli --terse --fields DEVICE,STATE,CONNECTION device");
        let said = world.router.try_sh(&words, SETTLES).stdout;
        let line = said.lines().find_map(|line| line.strip_prefix(&format!("{interface}:")));
        line.unwrap_or_default().to_owned()
    }

    fn has_profile(&self, world: &World) -> bool {
        self.says(world, "up0") == "connected:uplink"
    }
}

fn world() -> Option<World> {
    if !root() {
        return None;
    }
    if !Path::new(NETWORK_MANAGER).exists() {
        eprintln!("not run: there is no {NETWORK_MANAGER}");
        return None;
    }
    Some(World::new(1))
}

/// The persona of these tests has addresses, routes, rules and a routing table of its own.
fn routed() -> Value {
    json!({"egress": {"next_hop": ["192.0.2.10", "2001:db8:2::10"]}})
}

/// What `NetworkManager` made of its profile.
fn theirs(world: &World) -> String {
    world.router.sh("ip -oneline address show dev up0 scope global | sed 's/valid_lft.*//'
        ip route show proto static; ip -6 route show proto static")
}

/// How often an event told so far that entries were put right; all events are logged.
fn told(world: &World) -> usize {
    world.hub.log().lines().filter(|line| line.contains("what=\"drift\"")).count()
}

fn expect_traffic(world: &World) {
    for v4 in FAMILIES {
        world.outside.expect_ping(member_at(0, v4), Answered);
        world.members[0].expect_ping(outside_at(v4), Answered);
    }
}

/// Datagrams to the member and back in both families.
fn streams(world: &World) -> [Stream; 2] {
    let pause = Duration::from_millis(10);
    FAMILIES.map(|v4| {
        let port = if v4 { 7004 } else { 7006 };
        Stream::start(&world.outside, &world.members[0], member_at(0, v4), port, pause)
    })
}

fn log(world: &World) -> String {
    std::fs::read_to_string(world.lab.folder().join("networkmanager.log")).unwrap_or_default()
}

#[test]
fn its_profile_comes_and_comes_again_and_the_hub_has_everything_within_two_seconds() {
    let Some(mut world) = world() else { return };
    world.create(0, &routed());
    let whole = ours(&world);
    let mut manager = Manager::new(&world, KEPT_OFF, OF_VETHS);
    let mut profile = None;
    for round in ["the first start", "the profile anew", "a restart", "a start after a kill"] {
        let (before, events) = (drift(&world), told(&world));
        let flows = streams(&world);
        let is_asked_for = profile.is_none() || round == "the profile anew";
        if round != "the profile anew" {
            manager.end(round.ends_with("kill"));
            manager.start(&world);
        }
        if is_asked_for {
            // With addresses of somebody else on it, the uplink is left as it is until somebody asks for the profile.
            wait_until("NetworkManager knows the uplink", SETTLES, || {
                manager.says(&world, "up0").starts_with("connected")
            });
            eprintln!("{round}: up0 is {}", manager.says(&world, "up0"));
            manager.nmcli(&world, "--wait 0 connection up uplink");
        }
        let gap = longest_gap(&world, &whole, ENDS, || manager.has_profile(&world));
        let drift = drift(&world) - before;
        for flow in flows {
            let seen = flow.finish();
            eprintln!("{round}: {} of {} datagrams came back", seen.returned, seen.sent);
            assert!(seen.returned * 2 > seen.sent, "{round}: {} of {}", seen.returned, seen.sent);
        }
        eprintln!("{round}: {drift} entries put right, the longest gap {gap:?}");
        assert!(gap < REPAIR * patience(), "{gap:?}");
        assert!(drift > 0 || !is_asked_for, "it removed nothing:\n{}", log(&world));
        assert_eq!(drift > 0, told(&world) > events, "{}", world.hub.log());
        expect_traffic(&world);
        let theirs = theirs(&world);
        assert_eq!(*profile.get_or_insert_with(|| theirs.clone()), theirs, "what NetworkManager made stays");
    }

    // Its next hops are out of reach for a while.
    manager.nmcli(&world, "connection down uplink");
    wait_until("the uplink has no address", SETTLES, || !theirs(&world).contains("192.0.2.1"));
    manager.nmcli(&world, "--wait 0 connection up uplink");
    let back = || manager.has_profile(&world) && profile.as_ref() == Some(&theirs(&world));
    wait_until("the profile is back", SETTLES, back);
    let gap = wait_until("everything of ours is back", REPAIR, || ours(&world) == whole);
    eprintln!("the profile is back: {gap:?} until everything is there");
    expect_traffic(&world);

    world.hub.process().stop();
    let folder = world.lab.folder().display().to_string();
    let down = ["down", "--bpffs", &format!("{folder}/bpf"), "--runtime-dir", &format!("{folder}/run")];
    world.hub.hubctl(&down).expect_success();
    assert_eq!(ours(&world).trim(), "");
    assert_eq!(profile, Some(theirs(&world)), "what NetworkManager made stays");
    assert!(manager.has_profile(&world), "{}", log(&world));
}

/// Creates a persona with an endpoint besides; returns the name of the hub's end of it.
fn create_with_endpoint(world: &mut World) -> String {
    let guest = world.lab.space("guest");
    let mut fields = routed();
    fields["endpoints"] = json!([{"name": "ann", "namespace": guest.name()}]);
    world.create(0, &fields);
    let links = world.router.ip("-oneline link show");
    let mut names =
        links.lines().filter_map(|line| line.split([' ', '@', ':']).find(|word| word.starts_with("hub")));
    names.next_back().unwrap_or_else(|| panic!("{links}")).to_owned()
}

#[test]
fn segments_that_it_takes_for_its_own_keep_what_the_hub_made() {
    let Some(mut world) = world() else { return };
    let mut manager = Manager::new(&world, "", OF_VETHS);
    manager.start(&world);
    wait_until("it asks for DHCP on the segment", SETTLES, || {
        manager.says(&world, "seg0") == "connecting (getting IP configuration):Wired connection 1"
    });
    let advice = manager.diagnosis(&world).to_string();
    assert!(advice.contains("interface-name:hub*;interface-name:seg0"), "{advice}");
    let before = drift(&world);
    let link = create_with_endpoint(&mut world);
    let whole = ours(&world);
    let gave_up = || log(&world).matches("device (seg0): state change: ip-config -> failed").count();
    let gap = longest_gap(&world, &whole, ENDS, || gave_up() >= 2);
    let put_right = drift(&world) - before;
    eprintln!("{put_right} entries put right, the longest gap {gap:?}");
    assert!(put_right > 0, "it removed nothing:\n{}", log(&world));
    assert!(told(&world) > 0, "{}", world.hub.log());
    assert!(gap < REPAIR * patience(), "{gap:?}");
    expect_traffic(&world);

    // What it knows of the segment from before it takes over as it is, whether somebody answers or not.
    manager.end(false);
    let before = drift(&world);
    manager.start(&world);
    let is_up = || log(&world).contains("device (seg0): Activation: successful");
    let gap = longest_gap(&world, &whole, ENDS, || is_up() || gave_up() > 0);
    eprintln!("started anew: {} entries put right, the longest gap {gap:?}", drift(&world) - before);
    assert!(gap < REPAIR * patience(), "{gap:?}");
    expect_traffic(&world);
    assert_eq!(manager.says(&world, &link), "unmanaged:", "udev says that veth pairs are not its own");
}

#[test]
fn kept_off_it_leaves_everything_as_it_is() {
    let Some(mut world) = world() else { return };
    let mut manager = Manager::new(&world, KEPT_OFF, OF_CARDS);
    manager.start(&world);
    wait_until("it knows the segment", SETTLES, || manager.says(&world, "seg0") == "unmanaged:");
    let advice = manager.diagnosis(&world).to_string();
    assert!(advice.contains("keeps off the segments"), "{advice}");
    let link = create_with_endpoint(&mut world);
    let whole = ours(&world);
    for _ in 0..2 {
        let before = drift(&world);
        let begun = Stopwatch::start();
        // Longer than it would wait for DHCP.
        let gap = longest_gap(&world, &whole, ENDS, || begun.elapsed() > Duration::from_secs(6));
        assert_eq!((drift(&world) - before, gap), (0, Duration::ZERO), "{}", log(&world));
        for name in ["seg0", &link] {
            assert_eq!(manager.says(&world, name), "unmanaged:", "{name}");
        }
        expect_traffic(&world);
        manager.end(false);
        manager.start(&world);
    }
}
