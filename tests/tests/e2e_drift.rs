//! What others break of ours is put right; what is theirs is never touched.

use std::time::Duration;

use hub_tests::lab::Outcome::{Answered, Silent};
use hub_tests::lab::world::{FAMILIES, member_at, outside_at};
use hub_tests::lab::{World, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

const REPAIR: Duration = Duration::from_secs(2);

/// A persona with a router of its own has routes, addresses and rules.
fn with_table() -> World {
    let world = World::new(1);
    world.create(0, &json!({"egress": {"next_hop": ["192.0.2.10", "2001:db8:2::10"]}}));
    world
}

#[test]
fn routes_addresses_and_rules_are_repaired_within_two_seconds() {
    if !root() {
        return;
    }
    let world = with_table();
    for v4 in FAMILIES {
        let (family, range, gateway) = if v4 {
            ("-4", "10.100.0.0/24", "10.100.0.1/24")
        } else {
            ("-6", "fd00:100::/64", "fd00:100::1/64")
        };
        let shows = |words: &str| world.router.sh(&format!("ip {family} {words}"));
        let ours = format!("route show {range} dev seg0 proto 177");
        assert!(!shows(&ours).trim().is_empty(), "{}", shows("route show table all"));
        shows(&format!("route del {range} dev seg0 proto 177"));
        wait_until("the route is back", REPAIR, || !shows(&ours).trim().is_empty());

        shows(&format!("address del {gateway} dev seg0"));
        wait_until("the address is back", REPAIR, || shows("address show dev seg0").contains(gateway));
        wait_until("the route is back", REPAIR, || !shows(&ours).trim().is_empty());

        assert!(shows("rule show").contains("17700:"), "{}", shows("rule show"));
        shows("rule del priority 17700");
        wait_until("the rule is back", REPAIR, || shows("rule show").contains("17700:"));
        world.outside.expect_ping(member_at(0, v4), Answered);
        world.members[0].expect_ping(outside_at(v4), Answered);
    }
    for table in ["routes", "addresses", "rules"] {
        assert!(told(&world, table) >= 2, "{table}: {}", world.hub.log());
    }
    let metrics = world.router.sh("curl --silent http://127.0.0.1:9178/metrics");
    let drift = metrics.lines().find(|line| line.starts_with("hub_") && line.contains("drift"));
    assert!(drift.is_some(), "no metric tells of drift");
}

/// How often an event told so far that entries of a table were put right; all events are logged.
fn told(world: &World, table: &str) -> usize {
    let said = format!("entries of {table} were put right");
    world.hub.log().lines().filter(|line| line.contains("what=\"drift\"") && line.contains(&said)).count()
}

#[test]
fn switches_that_the_kernel_tells_of_are_repaired_within_two_seconds() {
    if !root() {
        return;
    }
    let world = with_table();
    for (switch, wrong, right) in [
        ("net.ipv4.ip_forward", "0", "1"),
        ("net.ipv6.conf.all.forwarding", "0", "1"),
        ("net.ipv4.conf.seg0.rp_filter", "0", "2"),
        ("net.ipv4.conf.seg0.proxy_arp", "1", "0"),
    ] {
        let is = || world.router.sh(&format!("sysctl -n {switch}")).trim().to_owned();
        assert_eq!(is(), right, "{switch}");
        let before = told(&world, "sysctls");
        world.router.sh(&format!("sysctl -qw {switch}={wrong}"));
        wait_until(&format!("{switch} is {right} again"), REPAIR, || is() == right);
        wait_until("that is told", REPAIR, || told(&world, "sysctls") > before);
    }
    for v4 in FAMILIES {
        world.outside.expect_ping(member_at(0, v4), Answered);
        world.members[0].expect_ping(outside_at(v4), Answered);
    }
}

/// Shows what the test puts beside the hub's own.
const SHOW: &str = "ip route show proto 186; ip route show table 300; ip -6 route show 2001:db8:77::/48
    ip -oneline -4 address show dev seg0 to 10.55.0.1; ip rule show | grep -v '^17700:'
    tc qdisc show dev up0 | grep bfifo; ip -oneline link show hubble | cut -d: -f2";

#[test]
fn what_belongs_to_others_is_never_touched() {
    if !root() {
        return;
    }
    let world = World::new(1);
    let router = &world.router;
    router.sh("ip route add 203.0.113.0/24 via 192.0.2.10 proto 186
         ip route add blackhole 203.0.114.0/24 table 300
         ip -6 route add 2001:db8:77::/48 via 2001:db8:2::10 metric 1000
         ip address add 10.55.0.1/24 dev seg0
         ip rule add priority 17650 from 203.0.113.0/24 lookup 300
         ip rule add priority 17750 to 203.0.114.0/24 lookup 300 protocol 3
         tc qdisc add dev up0 root handle 77: bfifo limit 300000
         ip link add hubble type bridge");
    let state = || router.sh(SHOW);
    let before = state();
    assert_eq!(before.lines().count(), 11, "{before}");
    world.create(0, &json!({"egress": {"next_hop": ["192.0.2.10", "2001:db8:2::10"]}}));
    assert_eq!(state(), before);
    world.outside.expect_ping(member_at(0, true), Answered);
    world.hub.send("DELETE", "/v1/personas/p0", &Value::Null);
    assert_eq!(state(), before);
    world.create(0, &json!({}));
    assert_eq!(state(), before);
    let mut world = world;
    world.hub.process().stop();
    let folder = world.lab.folder().display().to_string();
    world
        .hub
        .hubctl(&["down", "--bpffs", &(folder.clone() + "/bpf"), "--runtime-dir", &(folder + "/run")])
        .expect_success();
    assert_eq!(world.router.sh(SHOW), before);
    let left = world.router.sh("ip route show table all proto 177; ip -6 route show table all proto 177");
    assert_eq!(left.trim(), "");
}

#[test]
fn an_interface_that_comes_back_is_judged_from_its_first_packet() {
    if !root() {
        return;
    }
    let world = World::new(2);
    world.create(0, &json!({}));
    let deny = json!([{"protocol": "any", "action": "deny"}, {"protocol": "any", "direction": "egress", "action": "deny"}]);
    world.create(1, &json!({"security_policies": deny, "strict": true}));
    for number in [0, 1] {
        world.router.ip(&format!("link delete seg{number}"));
    }
    wait_until("the persona says so", Duration::from_secs(2), || {
        world.hub.get("/v1/personas/p0").body["conditions"].to_string().contains("InterfaceMissing")
    });
    let far = world.outside.wiretap("eth0");
    for (number, member) in world.members.iter().enumerate() {
        let own = FAMILIES.map(|v4| format!("{}/{}", member_at(number, v4), if v4 { 24 } else { 64 }));
        world
            .router
            .wire((&format!("seg{number}"), &[]), (member, "eth0", &own.each_ref().map(String::as_str)));
        // Who asks for the gateway's MAC too early asks again at once, and not after a second.
        member.sh("sysctl -qw net.ipv4.neigh.eth0.retrans_time_ms=100");
        for v4 in FAMILIES {
            let gateway = hub_tests::lab::world::gateway(number, v4);
            member.ip(&format!("route replace default via {gateway}"));
        }
    }
    // The forbidden member tries without pause while programs are put in place.
    let _pings = FAMILIES
        .map(|v4| world.members[1].background(&format!("ping -q -n -i 0.002 -w 3 {}", outside_at(v4))));
    wait_until("the allowed member is back", Duration::from_secs(1), || {
        world.members[0].ping(outside_at(true), Duration::from_millis(100)) == Answered
    });
    world.members[0].expect_ping(outside_at(false), Answered);
    world.members[1].expect_ping(outside_at(true), Silent);
    let passed = far.find(Duration::from_millis(500), |frame| {
        frame.get(26..30) == Some(&[10, 100, 1, 10]) && frame.get(12..14) == Some(&[8, 0])
    });
    assert!(!passed, "a packet of the forbidden member passed");
    let attached = world.hub.get("/v1/status").expect(200);
    assert!(attached["attachments"].to_string().contains("seg0"), "{attached:#}");
}
