//! A persona that is gone leaves nothing: not a link, an address, a rule, a route, a map or a program.
#![expect(clippy::unwrap_used, reason = "a helper that cannot go on fails the test that called it")]

use std::collections::BTreeMap;
use std::time::Duration;

use hub_tests::lab::{World, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

/// Lives, unless `HUB_TEST_CYCLES` says otherwise.
const CYCLES: usize = 200;

/// What the kernel holds in the hub's namespace and in the member's, without counters and life times.
fn network(world: &World) -> String {
    let script = "ip -oneline link show | cut -d' ' -f1-3,9; ip -oneline address show | sed 's/valid_lft.*//'
        ip rule show; ip -6 rule show; ip route show table all; ip -6 route show table all
        tc qdisc show; tc filter show dev seg0; ip neighbour show nud permanent
        find /proc/sys/net/ipv4/conf /proc/sys/net/ipv6/conf -maxdepth 1 | sort";
    world.router.sh(script) + &world.lab.named("guest").sh("ip -oneline link show; ip route show")
}

/// BPF objects of the daemon: kinds of the files it holds, and what is pinned.
fn objects(world: &mut World) -> BTreeMap<String, usize> {
    let folder = format!("/proc/{}/fd", world.hub.process().id());
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let Ok(target) = std::fs::read_link(entry.path()) else { continue };
        let kind = target.display().to_string();
        if kind.contains("bpf") || kind.starts_with("net:") {
            *found.entry(kind).or_default() += 1;
        }
    }
    let pins =
        world.router.sh(&format!("find {}/bpf -type f -o -type d | wc -l", world.lab.folder().display()));
    found.insert("pins".into(), pins.trim().parse().unwrap());
    found
}

#[test]
fn lives_leave_nothing_behind() {
    if !root() {
        return;
    }
    let asked = std::env::var("HUB_TEST_CYCLES").ok();
    let cycles = asked.map_or(CYCLES, |text| text.parse().expect("HUB_TEST_CYCLES is a number"));
    let mut world = World::new(1);
    let guest = world.lab.space("guest");
    let definition = |number: usize| {
        json!({
            "name": format!("cycle{number}"),
            "ip_range": [format!("10.{}.0.0/24", 100 + number % 8), format!("fd00:{}::/64", number % 8)],
            "endpoints": [{"name": "one", "namespace": guest.name()}],
            "egress": {"next_hop": "192.0.2.10"},
            "security_policies": [{"protocol": "tcp", "port": ["80-90", 443], "action": "allow"}],
        })
    };
    let live = |world: &World, number: usize| {
        let view = world.hub.send("POST", "/v1/personas", &definition(number)).expect(201);
        assert_eq!(view["state"], "active", "{view:#}");
        let path = format!("/v1/personas/cycle{number}");
        assert_eq!(world.hub.send("DELETE", &path, &Value::Null).status, 204);
    };
    // The first life turns on the kernel's forwarding, which stays until `hubctl down`.
    live(&world, cycles);
    let (network_before, objects_before) = (network(&world), objects(&mut world));
    let flows = world.hub.get("/v1/status").expect(200)["flow_table"].clone();
    for number in 0..cycles {
        live(&world, number);
    }
    wait_until("the last one is gone", Duration::from_secs(5), || network(&world) == network_before);
    assert_eq!(objects(&mut world), objects_before);
    assert_eq!(world.hub.get("/v1/status").expect(200)["flow_table"], flows);
    assert_eq!(world.hub.get("/v1/status").expect(200)["conditions"], json!([]));
}
