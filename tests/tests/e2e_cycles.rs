//! A persona that is gone leaves nothing: not a link, an address, a rule, a route, a queue, a map, a program or an
//! entry of a table. Lives take turns: routes of their own, translation, a range that somebody has, limits and queues.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use hub_tests::lab::Outcome::Answered;
use hub_tests::lab::world::{FAMILIES, outside_at};
use hub_tests::lab::{Space, World, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

/// Lives, unless `HUB_TEST_CYCLES` says otherwise.
const CYCLES: usize = 200;
/// Kinds of personas that take turns.
const KINDS: usize = 4;
/// Of so many lives one ends by its own time, and what is kept of it for reading is deleted then. The kinds take turns
/// here too.
const ENDS: usize = 13;

/// What the kernel holds in the hub's namespace and in the member's, without counters and life times.
fn network(world: &World) -> String {
    let script = "ip -oneline -details link show | sed 's/ state [A-Z]* / /'; ip -oneline address show | sed 's/valid_lft.*//'
        ip rule show; ip -6 rule show; ip route show table all; ip -6 route show table all
        tc qdisc show | sed 's/direct_packets_stat [0-9]*//'; ip neighbour show nud permanent
        for port in up0 seg0; do
            tc class show dev $port | cut -d' ' -f1-3
            for way in ingress egress; do tc filter show dev $port $way; done
            bpftool -j net show dev $port
        done
        find /proc/sys/net/ipv4/conf /proc/sys/net/ipv6/conf -maxdepth 1 | sort";
    let guest = world.lab.named("guest");
    let own = guest.name().trim_end_matches("guest");
    let spaces = format!("ip netns list | grep -o '^{own}[^ ]*' | sort");
    world.router.sh(&format!("{script}; {spaces}"))
        + &guest.sh("ip -oneline link show; ip route show; ip -6 route show; ip rule show; tc qdisc show")
}

/// How many entries each table has that is no array. Windows of detectors stay until others need their room: they
/// are over in seconds, and numbers of segments rest for longer.
fn entries(world: &World) -> String {
    let folder = world.lab.folder().join("bpf/hub/v1");
    world.router.sh(&format!(
        "cd {} && for map in $(ls | grep '^[A-Z]' | grep -v WATCHES); do case $(bpftool -j map show pinned $map | jq -r .type) in
            *hash*|lpm*) echo $map $(bpftool -j map dump pinned $map | jq length);; esac; done",
        folder.display()
    ))
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

/// What the hub says of itself.
fn conditions(world: &World) -> Value {
    world.hub.get("/v1/status").expect(200)["conditions"].clone()
}

#[test]
fn lives_leave_nothing_behind() {
    if !root() {
        return;
    }
    let asked = std::env::var("HUB_TEST_CYCLES").ok();
    let cycles = asked.map_or(CYCLES, |text| text.parse().expect("HUB_TEST_CYCLES is a number"));
    let mut world = World::with(1, "pools: {lab: [10.210.0.0/16, \"fd00:210::/32\"]}\n");
    let guest = world.lab.space("guest");
    let _server = world.outside.serve(&[7_000]);
    // Somebody has the range that others come with.
    world.create(0, &json!({}));
    let live = |world: &World, number: usize| {
        let ends = number.is_multiple_of(ENDS);
        let mut definition = definition(number, &guest);
        if ends {
            definition["ttl"] = json!("1s");
        }
        let view = world.hub.send("POST", "/v1/personas", &definition).expect(201);
        assert_eq!(view["state"], "active", "{view:#}");
        for v4 in FAMILIES {
            guest.expect_udp(outside_at(v4), 7_000, Answered);
        }
        let path = format!("/v1/personas/{}", view["id"].as_str().unwrap());
        if ends {
            let ended = || world.hub.get(&path).body["state"] == "expired";
            wait_until("the persona ends", Duration::from_secs(10), ended);
        }
        assert_eq!(world.hub.send("DELETE", &path, &Value::Null).status, 204);
    };
    // The first lives turn on what stays until `hubctl down`: forwarding, where virtual ranges come from.
    (cycles..cycles + KINDS).for_each(|number| live(&world, number));
    // Connections of who is gone are removed within ten seconds; until then tables hold them, and no list shows them.
    let mut entries_before = entries(&world);
    wait_until("tables are at rest", Duration::from_mins(1), || {
        entries_before = entries(&world);
        ["CONNECTIONS 0\n", "FLOWS 0\n", "MASQUERADES 0\n", "TRANSLATIONS 0\n"]
            .iter()
            .all(|row| entries_before.contains(row))
    });
    let (network_before, objects_before) = (network(&world), objects(&mut world));
    let conditions_before = conditions(&world);
    for number in 0..cycles {
        live(&world, number);
    }
    wait_until("the last one is gone", Duration::from_secs(5), || network(&world) == network_before);
    assert_eq!(objects(&mut world), objects_before);
    let mut entries_after = String::new();
    wait_until("its entries are gone", Duration::from_mins(1), || {
        entries_after = entries(&world);
        entries_after == entries_before
    });
    assert_eq!(conditions(&world), conditions_before);
}

fn definition(number: usize, guest: &Space) -> Value {
    let mut definition = json!({
        "name": format!("cycle{number}"),
        "ip_range": [format!("10.{}.0.0/24", 101 + number % 8), format!("fd00:{}::/64", number % 8)],
        "endpoints": [{"name": "one", "namespace": guest.name()}],
        "security_policies": [{"protocol": "tcp", "port": ["80-90", 443], "action": "allow"}],
    });
    let fields = match number % KINDS {
        0 => json!({"egress": {"next_hop": ["192.0.2.10", "2001:db8:2::10"]}}),
        1 => json!({
            "ip_range": ["10.100.0.0/24", "fd00:100::/64"],
            "overlap": "nat", "mtu": 1_400, "egress": {"nat": "masquerade_all"},
        }),
        2 => json!({
            "qos": {"bandwidth": "10Mbps", "ceil": "20Mbps", "latency": "20ms"},
            "detectors": "default",
            "max_connections_per_source": 20,
            "sets": {"staff": {"entries": ["192.0.2.0/24", "2001:db8:2::/64"]}},
            "security_policies": [
                {"protocol": "tcp", "port": 22, "source": "@staff", "action": "allow"},
                {"protocol": "udp", "port": 5_060, "action": "rate_limit", "rate": "100/s", "per": "source"},
            ],
        }),
        _ => json!({
            "ip_range": ["auto", "auto6"],
            "egress": {"nat": {"static": "198.51.100.0/24"}},
            "expose": [{"name": "web", "port": 443}],
        }),
    };
    for (key, value) in fields.as_object().unwrap() {
        definition[key] = value.clone();
    }
    definition
}
