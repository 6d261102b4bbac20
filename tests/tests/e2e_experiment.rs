//! An experiment with the interfaces of real hosts: its sides, what is counted of their connections, a killed hub,
//! and the end.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::io::Write as _;
use std::net::{IpAddr, Ipv6Addr, TcpStream};
use std::time::Duration;

use hub_tests::lab::Outcome::{Answered, Refused};
use hub_tests::lab::world::{FAMILIES, outside_at};
use hub_tests::lab::{World, echoes, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

const HOSTS: usize = 4;
/// Ports that both personalities let in, and that side A alone does.
const BOTH: u16 = 7_000;
const OPEN_ONLY: u16 = 7_001;
/// A port outside whose answers get lost.
const UNHEARD: u16 = 7_009;
/// Connections to each port, by each family.
const CONNECTIONS: u64 = 10;
/// Counters are read every 10 s.
const READ: Duration = Duration::from_secs(40);

const LINES: &str = "
subnets:
  front: {cidr: [10.20.0.0/24, \"fd00:20::/64\"], gateway: [10.20.0.1, \"fd00:20::1\"]}
";

fn address(host: usize, v4: bool) -> IpAddr {
    if v4 {
        [10, 20, 0, 10 + host as u8].into()
    } else {
        Ipv6Addr::new(0xfd00, 0x20, 0, 0, 0, 0, 0, 0x10 + host as u16).into()
    }
}

fn personality(name: &str, ports: &[u16]) -> Value {
    json!({
        "name": name,
        "ip_addresses": ["10.20.0.{label:host}/24", "fd00:20::{label:host}/64"],
        "subnet_id": "front",
        "firewall_rules": [{"protocol": "tcp", "port": ports, "action": "allow"}],
        "default_action": "reject",
        "drain": {"timeout": "0s"},
    })
}

/// Hosts whose interfaces `web-N` have the personality `open`, one for all of them; `shut` is there, too.
fn world() -> World {
    let world = World::with(HOSTS, LINES);
    let post = |path: &str, body: &Value| world.hub.send("POST", path, body).expect(201);
    post("/v1/personalities", &personality("open", &[BOTH, OPEN_ONLY]));
    post("/v1/personalities", &personality("shut", &[BOTH]));
    for (host, member) in world.members.iter().enumerate() {
        post(
            "/v1/interfaces",
            &json!({
                "name": format!("web-{host}"), "interface": "eth0", "namespace": member.name(),
                "port": format!("seg{host}"), "personality": "open",
                "labels": {"role": "web", "host": (10 + host).to_string()},
            }),
        );
    }
    for host in 0..HOSTS {
        settled(&world, host, "open@1");
    }
    world
}

fn settled(world: &World, host: usize, personality: &str) {
    wait_until(&format!("web-{host} has {personality}"), Duration::from_mins(1), || {
        let view = world.hub.get(&format!("/v1/interfaces/web-{host}")).body;
        view["state"] == "active" && view["operation"].is_null() && view["current"] == personality
    });
}

fn experiment(world: &World) -> Value {
    world.hub.get("/v1/experiments/shorter").expect(200)
}

fn hosts(experiment: &Value, side: &str) -> Vec<usize> {
    let interfaces = experiment[side]["interfaces"].as_array().unwrap();
    let number = |it: &Value| it["interface"].as_str().unwrap().trim_start_matches("web-").parse().unwrap();
    interfaces.iter().map(number).collect()
}

/// A number of a side, as Prometheus gets it.
fn said(world: &World, name: &str, arm: &str, more: &str) -> String {
    let metrics = world.router.sh("curl --silent --fail http://127.0.0.1:9178/metrics");
    let series = format!("hub_experiment_{name}{{experiment=\"shorter\",arm=\"{arm}\"{more}}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&series));
    line.unwrap_or_else(|| panic!("no {series} in {metrics}")).to_owned()
}

fn counted(world: &World, name: &str, arm: &str, more: &str) -> u64 {
    said(world, name, arm, more).parse().unwrap()
}

/// Waits until the counters of both sides have been read once more.
fn read_again(world: &World) {
    let observed =
        || ["a", "b"].map(|arm| said(world, "observed_seconds_total", arm, "").parse::<f64>().unwrap());
    let before = observed();
    wait_until("counters are read", READ, || {
        observed().iter().zip(&before).all(|(now, before)| now > before)
    });
}

/// Has a host send to somebody who listens and whose answers do not come back, by both families.
fn lose_acknowledgements(world: &World, host: usize) -> [TcpStream; 2] {
    FAMILIES.map(|v4| {
        let mut stream = world.members[host].connect(outside_at(v4), UNHEARD);
        assert!(echoes(&mut stream, READ), "it is heard at first");
        let length = if v4 { 32 } else { 128 };
        world.outside.ip(&format!("route add blackhole {}/{length}", address(host, v4)));
        stream.write_all(b"again").unwrap();
        stream
    })
}

#[test]
fn both_sides_are_counted_through_a_kill_and_the_end_gives_all_of_them_one() {
    if !root() {
        return;
    }
    let mut world = world();
    let _unheard = world.outside.serve(&[UNHEARD]);
    let servers: Vec<_> = world.members.iter().map(|member| member.serve(&[BOTH, OPEN_ONLY])).collect();
    let wanted = json!({"name": "shorter", "labels": {"role": "web"}, "percent": 50, "switch": {"personality": "shut"}});
    world.hub.send("POST", "/v1/experiments", &wanted).expect(202);
    wait_until("it is under way", Duration::from_mins(1), || experiment(&world)["stage"] == "running");
    let (a, b) = (hosts(&experiment(&world), "a"), hosts(&experiment(&world), "b"));
    assert!(!a.is_empty() && !b.is_empty() && a.len() + b.len() == HOSTS, "{a:?} {b:?}");
    for (side, personality) in [(&a, "open@1"), (&b, "shut@1")] {
        for host in side {
            settled(&world, *host, personality);
        }
    }

    read_again(&world);
    for (host, v4) in (0..HOSTS).flat_map(|host| FAMILIES.map(|v4| (host, v4))) {
        for _ in 0..CONNECTIONS {
            world.outside.expect_tcp(address(host, v4), BOTH, Answered);
            let other = if a.contains(&host) { Answered } else { Refused };
            world.outside.expect_tcp(address(host, v4), OPEN_ONLY, other);
        }
    }
    read_again(&world);
    let each = |hosts: &[usize]| 2 * CONNECTIONS * hosts.len() as u64;
    assert_eq!(counted(&world, "flows_refused_total", "a", ""), 0);
    // Refusals are answered at a limited rate: some are asked for twice.
    let refused = counted(&world, "flows_refused_total", "b", "");
    assert!((each(&b)..2 * each(&b)).contains(&refused), "{refused} of {}", each(&b));
    // Checks of the hub begin some as well.
    for (arm, least) in [("a", 2 * each(&a)), ("b", each(&b))] {
        let begun = counted(&world, "flows_begun_total", arm, "");
        assert!((least..least + 60 * HOSTS as u64).contains(&begun), "{arm}: {begun}, {least} by the test");
        let passed = counted(&world, "packets_total", arm, ",verdict=\"passed\"");
        assert!(passed > 6 * least, "{arm}: {passed} packets of {least} connections");
    }
    assert!(counted(&world, "packets_total", "b", ",verdict=\"dropped\"") >= each(&b));
    let compared = experiment(&world)["comparison"].as_array().unwrap().clone();
    let row = compared.iter().find(|row| row["metric"] == "refused_flows_ratio");
    assert_eq!(row.unwrap_or_else(|| panic!("{compared:#?}"))["verdict"], "too_few");

    // Where no acknowledgement comes, hosts send again what they sent. Nobody else does on these wires.
    let again = |arm| counted(&world, "segments_total", arm, ",sent=\"again\"");
    let before = again("b");
    let unheard = b.iter().map(|host| lose_acknowledgements(&world, *host)).collect::<Vec<_>>();
    wait_until("what was sent again is counted", READ, || again("b") >= before + 2 * unheard.len() as u64);
    assert!(counted(&world, "segments_total", "a", ",sent=\"first\"") >= each(&a));
    drop(unheard);
    for (host, v4) in b.iter().flat_map(|host| FAMILIES.map(|v4| (host, v4))) {
        world.outside.ip(&format!(
            "route del blackhole {}/{}",
            address(*host, v4),
            if v4 { 32 } else { 128 }
        ));
    }

    world.hub.process().kill();
    world.hub.restart();
    // What was not on the disk yet is in the counters of the data path.
    read_again(&world);
    assert_eq!(counted(&world, "flows_refused_total", "b", ""), refused, "nothing is lost");
    world.hub.send("POST", "/v1/experiments/shorter/end", &json!({"keep": "b"})).expect(202);
    for host in 0..HOSTS {
        settled(&world, host, "shut@1");
        for v4 in FAMILIES {
            world.outside.expect_tcp(address(host, v4), BOTH, Answered);
            world.outside.expect_tcp(address(host, v4), OPEN_ONLY, Refused);
        }
    }
    assert_eq!(experiment(&world)["stage"], "ended");
    drop(servers);
}
