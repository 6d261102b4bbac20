//! The tunnel of an interface of the hub itself: an uplink to what is behind the interface, judged on its device.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::net::IpAddr;

use hub_daemon::kernel::wireguard::keys;
use hub_tests::lab::Outcome::{Answered, Refused, Silent, Unreachable};
use hub_tests::lab::own::{self, BOTH, OPEN_ONLY, Own, SOON};
use hub_tests::lab::tunnel::{
    AWAY, AWAY_REJECTED, AWAY_SHUT, End, FAR, INSIDE, INSIDE_REJECTED, INSIDE_SHUT, Peer, near_at, peer_at,
    write_key,
};
use hub_tests::lab::world::{FAMILIES, gateway, member_at, with_port};
use hub_tests::lab::{Server, Space, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

/// The address of the member that the host outside reaches by the tunnel; the others it reaches without.
fn inside_at(v4: bool) -> IpAddr {
    if v4 { [10, 100, 1, 20].into() } else { "fd00:100:1::20".parse().unwrap() }
}

/// An interface of the hub that knows a personality with a tunnel to the host outside.
struct Scene {
    own: Own,
    _servers: [Server; 2],
}

impl Scene {
    fn new() -> Self {
        let own = Own::bare();
        let servers = [
            own.world.members[1].serve(&[INSIDE, INSIDE_SHUT, INSIDE_REJECTED]),
            own.world.outside.serve(&[AWAY, AWAY_SHUT, AWAY_REJECTED]),
        ];
        write_key(&own.world.hub.folder().join("tunnel.key"), 7);
        Self { own, _servers: servers }
    }

    /// The far end of the tunnel. What has its address as the source goes back the same way.
    fn peer<'a>(&self, outside: &'a Space) -> Peer<'a> {
        let folder = self.own.world.lab.folder().join("peer");
        let peer = Peer::new(&folder, End::far(outside), keys::public(&[7; 32]));
        for v4 in FAMILIES {
            let (family, from) = (if v4 { "-4" } else { "-6" }, peer_at(v4));
            outside.ip(&format!("{family} route add {} dev wg0 src {from}", inside_at(v4)));
            outside.ip(&format!("{family} route add default dev wg0 table 100"));
            outside.ip(&format!("{family} rule add from {from} lookup 100"));
        }
        peer
    }

    /// Gives the interface a personality, and has the hub know `vpn`.
    fn begin(&self, peer: &Peer<'_>) {
        let rule = |protocol: &str, port: u16, direction: &str, action: &str| json!({"protocol": protocol, "port": port, "direction": direction, "action": action});
        let from_tunnel = json!({
            "protocol": "tcp", "port": INSIDE, "source_ip": ["10.9.0.0/24", "fd09::/64"], "action": "allow",
        });
        let vpn = json!({
            "firewall_rules": [
                from_tunnel,
                rule("tcp", INSIDE_SHUT, "ingress", "deny"),
                rule("tcp", INSIDE_REJECTED, "ingress", "reject"),
                rule("udp", INSIDE_REJECTED, "ingress", "reject"),
                rule("tcp", AWAY_SHUT, "egress", "deny"),
                rule("tcp", AWAY_REJECTED, "egress", "reject"),
                rule("udp", AWAY_REJECTED, "egress", "reject"),
                rule("tcp", AWAY, "egress", "allow"),
                rule("tcp", BOTH, "ingress", "allow"),
                {"protocol": "icmp", "action": "allow"},
            ],
            "default_action": "deny",
            "vpn_tunnel_config": {
                "private_key_file": self.own.world.hub.folder().join("tunnel.key"),
                "addresses": ["10.9.0.2/32", "fd09::2/128"],
                "peers": [{
                    "public_key": peer.public(), "endpoint": FAR,
                    "allowed_ips": ["10.9.0.0/24", "fd09::/64"],
                }],
            },
            "routing_table": [
                {"destination": "10.9.0.0/24", "device": "tunnel"},
                {"destination": "fd09::/64", "device": "tunnel"},
            ],
        });
        self.own.keep(&own::definition("open", OPEN_ONLY, 20, &json!({})));
        self.own.keep(&own::definition("vpn", OPEN_ONLY, 20, &vpn));
        // What the member sends takes the routes, too.
        self.own.enlist(&json!("seg1"), &json!({"routes": "everything"}));
    }

    /// Name of the tunnel's device, if there is one.
    fn link(&self) -> Option<String> {
        let links = self.own.world.router.sh("ip -o link show");
        let mut names = links.lines().filter_map(|line| line.split(": ").nth(1));
        names.find(|name| name.starts_with("hub")).map(str::to_owned)
    }

    /// The rules of `vpn`, on packets in the tunnel and both ways.
    #[track_caller]
    fn expect_judged(&self) {
        let world = &self.own.world;
        let (outside, member) = (&world.outside, &world.members[1]);
        for v4 in FAMILIES {
            outside.expect_ping(inside_at(v4), Answered);
            member.expect_ping(peer_at(v4), Answered);
            outside.expect_tcp(inside_at(v4), INSIDE, Answered);
            member.expect_tcp(peer_at(v4), AWAY, Answered);
            let ways = [(outside, inside_at(v4)), (member, peer_at(v4))];
            for ((from, to), port) in ways.into_iter().zip([INSIDE_SHUT, AWAY_SHUT]) {
                let before = self.own.dropped("rule_deny");
                from.expect_tcp(to, port, Silent);
                assert!(self.own.dropped("rule_deny") > before, "what is dropped is counted");
            }
            for ((from, to), port) in ways.into_iter().zip([INSIDE_REJECTED, AWAY_REJECTED]) {
                from.expect_tcp(to, port, Refused);
                from.expect_udp(to, port, Unreachable);
            }
            // The hub itself, and who comes by another way than the tunnel.
            world.router.expect_ping(peer_at(v4), Answered);
            outside.expect_ping(near_at(v4), Answered);
            outside.expect_tcp(member_at(1, v4), INSIDE, Silent);
        }
    }

    /// The programs are on the device, and ask the rules of the interface.
    #[track_caller]
    fn expect_programs(&self, link: &str) {
        let world = &self.own.world;
        let status = world.hub.get("/v1/status").expect(200);
        let all = status["attachments"].as_array().unwrap().iter();
        let here = all.filter(|entry| entry["interface"] == link && entry["role"] == "uplink");
        let mut hooks: Vec<&str> = here.map(|entry| entry["hook"].as_str().unwrap()).collect();
        hooks.sort_unstable();
        assert_eq!(hooks, ["tc_in", "tc_out"], "{status:#}");
        for v4 in FAMILIES {
            let (peer, member) = (peer_at(v4), inside_at(v4));
            let ask = |source: IpAddr, target: IpAddr, port, by: &str| {
                world.why(&format!("tcp {source} {} --in {by}", with_port(target, port)))
            };
            assert!(ask(peer, member, INSIDE, link).1 && ask(member, peer, AWAY, "seg1").1);
            // Nobody beyond the tunnel is a member, or the hub.
            for (source, port, reason) in [
                (peer, INSIDE_SHUT, "rule_deny"),
                (member_at(1, v4), INSIDE, "spoof"),
                (gateway(1, v4), INSIDE, "spoof"),
            ] {
                let (said, passes) = ask(source, member, port, link);
                assert!(!passes && said["reason"] == reason, "{said:#}");
            }
        }
    }

    /// No device, process, address, rule or program of the tunnel is left.
    #[track_caller]
    fn expect_nothing_left(&self, index: u32) {
        let hub = self.own.world.hub.folder();
        wait_until("nothing of the tunnel is left", SOON, || {
            let state = self.own.world.router.sh("ip -o link; ip rule; ip -6 rule; ip -o address");
            let pins = format!("find {} -name '{index}-hub_*'", hub.join("bpf").display());
            !["wireguard", "1771", "10.9.0.2", "fd09::2"].iter().any(|word| state.contains(word))
                && self.link().is_none()
                && !hub.join("run/tunnels").exists()
                && self.own.world.router.sh(&pins).is_empty()
        });
    }
}

#[test]
fn a_tunnel_of_an_interface_of_the_hub_is_judged_and_outlives_the_daemon() {
    if !root() {
        return;
    }
    let mut scene = Scene::new();
    let outside = scene.own.world.outside.clone();
    let peer = scene.peer(&outside);
    scene.begin(&peer);
    assert_eq!(scene.link(), None);
    scene.own.switch("vpn");
    let journal = scene.own.world.hub.hubctl(&["personality", "journal", "own", "--json"]).expect_success();
    assert!(journal.contains("handshake of hub"), "it was waited for: {journal}");
    let link = scene.link().expect("the tunnel is there");
    let index = scene.own.world.router.interface(&link);
    scene.expect_judged();
    scene.expect_programs(&link);
    scene.own.world.hub.process().kill();
    for v4 in FAMILIES {
        outside.expect_tcp(inside_at(v4), INSIDE, Answered);
        outside.expect_tcp(inside_at(v4), INSIDE_SHUT, Silent);
    }
    scene.own.world.hub.restart();
    scene.own.settles();
    assert_eq!(scene.own.view()["current"], "vpn@1");
    assert_eq!(scene.own.world.router.interface(&link), index, "the device is the same");
    scene.expect_judged();
    scene.expect_programs(&link);
    // The way back and there again, while the tunnel is kept.
    scene.own.switch("open");
    for v4 in FAMILIES {
        assert_eq!(scene.own.tcp(v4, OPEN_ONLY), Answered);
        let way = scene.own.world.router.try_sh(&format!("ip route get {}", peer_at(v4)), SOON);
        assert!(!way.stdout.contains(&link), "{}", way.stdout);
    }
    scene.own.switch("vpn");
    scene.expect_judged();
    scene.own.world.hub.send("DELETE", "/v1/interfaces/own", &Value::Null).expect(204);
    scene.expect_nothing_left(index);
}
