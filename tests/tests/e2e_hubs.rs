//! Several hubs: real BIRD spreads the routes of personas with the configuration that the hub brings.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::fs;
use std::time::Duration;

use hub_tests::lab::{Background, Config, Hub, Lab, Space, Stopwatch, wait_until};
use hub_tests::root;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

const BIRD: &str = include_str!("../../config/bird/hub.conf");
/// A member of the persona, by family.
const MEMBER: [&str; 2] = ["10.64.1.10", "fd00:64:1::10"];
const RANGES: [&str; 2] = ["10.64.1.0/24", "fd00:64:1::/64"];

/// One hub with its BIRD; ends before its lab.
struct Site {
    hub: Hub,
    _bird: Background,
    router: Space,
    /// The host behind it: a member in the west, a client in the east.
    host: Space,
}

/// Two hubs on one network. The persona lives in the west; in the east is a client, and a default route.
struct Pair {
    west: Site,
    east: Site,
    lan: Space,
    _labs: [Lab; 2],
}

impl Pair {
    fn new() -> Self {
        let mut labs = [Lab::new(), Lab::new()];
        let lan = labs[0].space("lan");
        lan.sh("ip link add lan type bridge && ip link set lan up");
        let spaces = [("member", "seg0"), ("client", "up0")];
        let mut sites = labs.iter_mut().zip(spaces).enumerate().map(|(number, (lab, (host, port)))| {
            let (own, other) = (number + 1, 2 - number);
            let (router, host) = (lab.space("router"), lab.space(host));
            let far = format!("hub{own}");
            let addresses = [format!("192.0.2.{own}/24"), format!("2001:db8::{own}/64")];
            router.wire(("hubs", &addresses.each_ref().map(String::as_str)), (&lan, &far, &[]));
            lan.ip(&format!("link set {far} master lan"));
            if number == 0 {
                router.wire((port, &[]), (&host, "eth0", &["10.64.1.10/24", "fd00:64:1::10/64"]));
                host.sh("ip route add default via 10.64.1.1; ip route add default via fd00:64:1::1");
                router.sh("ip route add 198.51.100.0/24 via 192.0.2.2; ip route add 2001:db8:5::/64 via 2001:db8::2");
            } else {
                let there = ["198.51.100.10/24", "2001:db8:5::10/64"];
                router.wire((port, &["198.51.100.1/24", "2001:db8:5::1/64"]), (&host, "eth0", &there));
                host.sh("ip route add default via 198.51.100.1; ip route add default via 2001:db8:5::1");
                router.sh("ip route add default via 198.51.100.10; ip route add default via 2001:db8:5::10");
            }
            router.sh("echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding");
            let folder = lab.folder().display().to_string();
            fs::write(lab.folder().join("hub.conf"), BIRD).unwrap();
            let conf = format!(
                "log \"{folder}/bird.log\" all;\nrouter id 192.0.2.{own};\ninclude \"{folder}/hub.conf\";
                protocol bgp other4 from hub4 {{ neighbor 192.0.2.{other}; }}
                protocol bgp other6 from hub6 {{ neighbor 2001:db8::{other}; }}
                protocol static hub_aggregates4 from hub_aggregate4 {{ route 10.64.0.0/10 unreachable; }}
                protocol static hub_aggregates6 from hub_aggregate6 {{ route fd00:64::/32 unreachable; }}\n"
            );
            fs::write(lab.folder().join("bird.conf"), conf).unwrap();
            let bird = router.background(&format!("bird -f -c {folder}/bird.conf -s {folder}/bird.ctl"));
            let role = if number == 0 { "segment" } else { "uplink" };
            let config = Config::default().interface("hubs", "uplink").interface(port, role);
            Site { hub: lab.hub(&router, &config), _bird: bird, router, host }
        });
        let (west, east) = (sites.next().unwrap(), sites.next().unwrap());
        drop(sites);
        let pair = Self { west, east, lan, _labs: labs };
        // A first life: from its end on, both neighbours know each other in both families.
        pair.create("first", &json!({}));
        wait_until("the hubs know each other", Duration::from_mins(1), || pair.routed() == [true; 2]);
        pair.west.hub.send("DELETE", "/v1/personas/first", &json!(null));
        wait_until("the first one is gone", Duration::from_secs(20), || pair.routed() == [false; 2]);
        pair
    }

    fn create(&self, name: &str, fields: &serde_json::Value) {
        let mut definition = json!({"name": name, "ip_range": RANGES, "interfaces": ["seg0"]});
        for (key, value) in fields.as_object().unwrap() {
            definition[key] = value.clone();
        }
        self.west.hub.send("POST", "/v1/personas", &definition).expect(201);
    }

    /// Whether the east's kernel sends packets for the member to the west, by family.
    fn routed(&self) -> [bool; 2] {
        MEMBER.map(|member| self.way(member).contains("dev hubs"))
    }

    /// Whether the east's kernel sends packets for the member nowhere, by family.
    fn refused(&self) -> [bool; 2] {
        MEMBER.map(|member| {
            let way = self.way(member);
            way.contains("unreachable") || way.contains("No route to host")
        })
    }

    fn way(&self, target: &str) -> String {
        let output = self.east.router.try_sh(&format!("ip route get {target} 2>&1"), Duration::from_secs(5));
        output.stdout + &output.stderr
    }

    /// Polls until it is so; returns how long that took.
    fn time(what: &str, mut done: impl FnMut() -> bool) -> Duration {
        let begun = Stopwatch::start();
        wait_until(what, Duration::from_secs(40), &mut done);
        begun.elapsed()
    }
}

#[test]
fn a_persona_is_routed_on_the_other_hub_for_as_long_as_it_lives() {
    if !root() {
        return;
    }
    let pair = Pair::new();
    assert_eq!(pair.refused(), [true; 2], "the aggregate keeps packets off the default route");
    assert!(pair.way("203.0.113.9").contains("dev up0"), "other packets follow it");
    let deadline = Timestamp::now() + SignedDuration::from_secs(10);
    pair.create("web", &json!({"expiration": deadline.to_string()}));
    let came = Pair::time("the other hub routes it", || pair.routed() == [true; 2]);
    assert!(came < Duration::from_secs(1), "routed after {came:?}");
    for member in MEMBER {
        assert!(pair.east.host.pings(member), "{member} answers through both hubs");
    }
    // Routes of others are looked at two seconds after the last look at the latest.
    std::thread::sleep(Duration::from_millis(2_500));
    let same = json!({"name": "again", "ip_range": RANGES[0]});
    let refused = pair.east.hub.send("POST", "/v1/personas", &same);
    assert_eq!(refused.status, 409, "what another hub routes is taken: {:#}", refused.body);
    wait_until("the end", Duration::from_mins(1), || Timestamp::now() >= deadline);
    Pair::time("the other hub does not route it", || pair.refused() == [true; 2]);
    let late = Timestamp::now().duration_since(deadline);
    assert!(late < SignedDuration::from_secs(1), "withdrawn {late:#} after the end");
}

#[test]
fn routes_of_a_hub_that_cannot_be_reached_go_and_come_back() {
    if !root() {
        return;
    }
    let pair = Pair::new();
    pair.create("web", &json!({}));
    Pair::time("the other hub routes it", || pair.routed() == [true; 2]);
    // Both links stay up: only silence tells that the other is away.
    pair.lan.ip("link set hub1 nomaster");
    let gone = Pair::time("the routes are gone", || pair.refused() == [true; 2]);
    assert!(gone < Duration::from_secs(9), "BFD finds the partition before the hold time: {gone:?}");
    pair.lan.ip("link set hub1 master lan");
    Pair::time("the routes are back", || pair.routed() == [true; 2]);
}
