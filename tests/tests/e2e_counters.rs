//! Counters tell what happened, to the packet: clients, the members' own counts, REST and Prometheus agree.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use hub_tests::lab::world::{FAMILIES, member_at};
use hub_tests::lab::{Background, World, command, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

const PINGS: u64 = 40;
const DENIED: u64 = 30;
/// Echo requests with 56 bytes of data, from the IP header on.
const PING_BYTES: u64 = 84 + 104;

/// A hub over which both families sent pings that pass and datagrams that do not.
fn busy() -> World {
    let world = World::new(2);
    world.create(0, &json!({"security_policies": [{"protocol": "udp", "port": 53, "action": "allow"}]}));
    world.members[0].sh(
        "nft 'add table inet count; add chain inet count in { type filter hook input priority 0; }
              add rule inet count in icmp type echo-request counter
              add rule inet count in icmpv6 type echo-request counter
              add rule inet count in udp dport 9999 counter'",
    );
    for v4 in FAMILIES {
        let there = member_at(0, v4);
        let said = world.outside.sh(&format!("ping -q -n -c {PINGS} -i 0.01 -W 5 {there}"));
        assert!(said.contains(" 0% packet loss"), "{said}");
        let socket = world.outside.within(|| UdpSocket::bind("[::]:0").unwrap());
        let there = match there {
            std::net::IpAddr::V4(v4) => v4.to_ipv6_mapped().into(),
            v6 @ std::net::IpAddr::V6(_) => v6,
        };
        for _ in 0..DENIED {
            socket.send_to(b"hub", SocketAddr::new(there, 9_999)).unwrap();
        }
    }
    world
}

fn packets(count: &Value) -> u64 {
    count["packets"].as_u64().unwrap()
}

#[test]
fn packets_in_are_packets_out_and_drops() {
    if !root() {
        return;
    }
    let world = busy();
    let counters = world.hub.get("/v1/personas/p0/counters").expect(200);
    assert_eq!(packets(&counters["ingress"]), 2 * PINGS, "{counters:#}");
    assert_eq!(packets(&counters["egress"]), 2 * PINGS, "{counters:#}");
    assert_eq!(counters["ingress"]["bytes"], PINGS * PING_BYTES, "{counters:#}");
    assert_eq!(packets(&counters["ingress_dropped"]), 2 * DENIED, "{counters:#}");
    assert_eq!(packets(&counters["egress_dropped"]), 0, "{counters:#}");
    assert_eq!(world.dropped("p0", "default_deny"), 2 * DENIED, "{counters:#}");
    let drops = counters["drops"].as_array().unwrap().iter().map(packets).sum::<u64>();
    assert_eq!(drops, 2 * DENIED, "{counters:#}");

    let arrived = world.members[0].sh("nft list chain inet count in");
    let of = |what: &str| -> u64 {
        let line = arrived.lines().find(|line| line.contains(what)).unwrap();
        line.split_whitespace().skip_while(|word| *word != "packets").nth(1).unwrap().parse().unwrap()
    };
    assert_eq!((of("icmp type"), of("icmpv6 type"), of("dport")), (PINGS, PINGS, 0), "{arrived}");

    let hooks = world.hub.get("/v1/counters").expect(200);
    let hooks = hooks["hooks"].as_array().unwrap();
    let mut refused = 0;
    for hook in hooks {
        let of = |field: &str| hook[field].as_u64().unwrap();
        let out: u64 = ["redirected", "passed", "skipped", "replied", "dropped"].map(of).iter().sum();
        assert_eq!(of("received"), out, "{hook:#}");
        let reasons = hook["reasons"].as_array().unwrap();
        let reasons: u64 = reasons.iter().map(|pair| pair[1].as_u64().unwrap()).sum();
        assert_eq!(reasons, of("dropped") + of("replied"), "{hook:#}");
        refused += reasons;
    }
    assert_eq!(refused, 2 * DENIED, "{hooks:#?}");
    let listed = world.hub.hubctl(&["counters", "p0", "--json"]).expect_success();
    assert_eq!(serde_json::from_str::<Value>(&listed).unwrap(), counters);
}

/// The value of a series in the text format, by words that its line contains.
fn series(text: &str, name: &str, labels: &[&str]) -> Option<u64> {
    let fits =
        |line: &&str| line.split('{').next() == Some(name) && labels.iter().all(|label| line.contains(label));
    text.lines().find(fits)?.split_whitespace().last()?.parse().ok()
}

#[test]
fn metrics_carry_the_same_numbers() {
    if !root() {
        return;
    }
    let world = busy();
    let text = world.router.sh("curl --silent --fail http://127.0.0.1:9178/metrics");
    let persona = r#"persona="p0""#;
    let passed = |direction: &str| series(&text, "hub_persona_packets_total", &[persona, direction]);
    assert_eq!(passed(r#"direction="ingress""#), Some(2 * PINGS), "{text}");
    assert_eq!(passed(r#"direction="egress""#), Some(2 * PINGS), "{text}");
    let drops = series(&text, "hub_persona_drops_total", &[persona, r#"reason="default_deny""#]);
    assert_eq!(drops, Some(2 * DENIED), "{text}");
}

#[test]
fn prometheus_scrapes_the_hub() {
    if !root() || !has("prometheus") {
        return;
    }
    let world = busy();
    let folder = world.lab.folder().display().to_string();
    let config = "global: {scrape_interval: 1s}\nscrape_configs:\n  - job_name: hub\n    static_configs: [{targets: ['127.0.0.1:9178']}]\n";
    std::fs::write(world.lab.folder().join("prometheus.yml"), config).unwrap();
    let _prometheus: Background = world.router.background(&format!(
        "prometheus --config.file={folder}/prometheus.yml --storage.tsdb.path={folder}/tsdb \
         --web.listen-address=127.0.0.1:9090 --log.level=error"
    ));
    let query = r"hub_persona_packets_total{persona='p0',direction='ingress',verdict='passed'}";
    let ask =
        format!("curl --silent --get --data-urlencode \"query={query}\" http://127.0.0.1:9090/api/v1/query");
    wait_until("Prometheus has the numbers", Duration::from_secs(20), || {
        let said = world.router.try_sh(&ask, Duration::from_secs(3)).stdout;
        let said: Value = serde_json::from_str(&said).unwrap_or_default();
        said["data"]["result"][0]["value"][1].as_str() == Some(&(2 * PINGS).to_string())
    });
}

/// Whether a program is installed. Says so when it is not.
#[expect(clippy::print_stderr, reason = "the reader of the test's output is told what was left out")]
fn has(program: &str) -> bool {
    let mut which = std::process::Command::new("sh");
    let found = command(which.args(["-c", &format!("command -v {program}")]), "", Duration::from_secs(5));
    if !found.success() {
        eprintln!("left out: `{program}` is not installed");
    }
    found.success()
}
