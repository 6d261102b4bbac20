//! A personality with a tunnel: it is up before the flip, its rules judge what goes through it, and it goes with it.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]
#![expect(clippy::print_stderr, reason = "what is left out is said")]

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use hub_daemon::kernel::wireguard::keys;
use hub_tests::lab::Outcome::{Answered, Refused, Silent, Unreachable};
use hub_tests::lab::resource::Which::Open;
use hub_tests::lab::resource::{BOTH, FREE, OPEN_ONLY, Resource, resource_at};
use hub_tests::lab::tunnel::{
    AWAY, AWAY_REJECTED, AWAY_SHUT, End, FAR, INSIDE, INSIDE_REJECTED, INSIDE_SHUT, Peer, near_at, peer_at,
    write_key,
};
use hub_tests::lab::world::{FAMILIES, with_port};
use hub_tests::lab::{Server, Space, Stream, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

/// The hub looks at everything twice in this time.
const FULL_PASS: Duration = Duration::from_mins(1);
/// Silence is believed after this long.
const SHORT: Duration = Duration::from_secs(1);

/// A personality is kept for a minute after it was left.
const RETIRED: Duration = Duration::from_mins(2);

/// A resource that knows a personality with a tunnel, the tunnel's key, and servers at both ends.
struct Scene {
    resource: Resource,
    key: PathBuf,
    _servers: [Server; 2],
}

fn scene() -> Scene {
    let resource = Resource::new();
    let servers = [
        resource.world.members[0].serve(&[INSIDE, INSIDE_SHUT, INSIDE_REJECTED]),
        resource.world.outside.serve(&[AWAY, AWAY_SHUT, AWAY_REJECTED]),
    ];
    let key = resource.world.hub.folder().join("tunnel.key");
    write_key(&key, 7);
    Scene { resource, key, _servers: servers }
}

/// The far end, which knows the key that the tunnel has at first.
fn peer<'a>(scene: &Scene, outside: &'a Space) -> Peer<'a> {
    Peer::new(&scene.resource.world.lab.folder().join("peer"), End::far(outside), keys::public(&[7; 32]))
}

impl Scene {
    /// Keeps the personality `vpn`.
    fn keep(&self, peer: &Peer<'_>) {
        let definition = Open.definition(&json!({
            "name": "vpn",
            "firewall_rules": [
                {"protocol": "tcp", "port": INSIDE, "source_ip": ["10.9.0.0/24", "fd09::/64"], "action": "allow"},
                {"protocol": "tcp", "port": INSIDE_SHUT, "action": "deny"},
                {"protocol": "tcp", "port": INSIDE_REJECTED, "action": "reject"},
                {"protocol": "udp", "port": INSIDE_REJECTED, "action": "reject"},
                {"protocol": "tcp", "port": AWAY_SHUT, "direction": "egress", "action": "deny"},
                {"protocol": "tcp", "port": AWAY_REJECTED, "direction": "egress", "action": "reject"},
                {"protocol": "udp", "port": AWAY_REJECTED, "direction": "egress", "action": "reject"},
                {"protocol": "udp", "direction": "egress", "action": "allow"},
                {"protocol": "tcp", "direction": "egress", "action": "allow"},
                {"protocol": "tcp", "port": [BOTH, FREE], "action": "allow"},
                {"protocol": "udp", "port": [FREE, Open.free()], "action": "allow"},
                {"protocol": "icmp", "action": "allow"},
            ],
            "vpn_tunnel_config": {
                "private_key_file": self.key,
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
        }));
        self.resource.keep(&definition);
    }

    #[track_caller]
    fn switch(&self, to: &str) -> Value {
        let done = self.resource.switch(to, &json!({}));
        assert_eq!(done["outcome"], "committed", "{done:#}");
        done
    }

    /// Name of the tunnel's device.
    fn link(&self) -> String {
        let links = self.resource.world.members[0].sh("ip -o link show");
        let mut names = links.lines().filter_map(|line| line.split(": ").nth(1));
        names.find(|name| name.starts_with("hub")).unwrap_or_else(|| panic!("no tunnel: {links}")).to_owned()
    }

    /// Packets that the tunnel's device took in since it was made.
    fn received(&self) -> u64 {
        let said = self.resource.world.members[0].sh(&format!("ip -j -s link show dev {}", self.link()));
        let links: Value = serde_json::from_str(&said).unwrap();
        links[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
    }

    fn dropped(&self, reason: &str) -> u64 {
        let carrier = self.resource.view()["persona"].as_str().unwrap().to_owned();
        self.resource.world.dropped(&carrier, reason)
    }

    /// The rules of `vpn`, on packets in the tunnel and both ways.
    fn expect_judged(&self) {
        let (outside, member) = (&self.resource.world.outside, &self.resource.world.members[0]);
        for v4 in FAMILIES {
            outside.expect_ping(near_at(v4), Answered);
            member.expect_ping(peer_at(v4), Answered);
            outside.expect_tcp(near_at(v4), INSIDE, Answered);
            member.expect_tcp(peer_at(v4), AWAY, Answered);
            for (space, target, port) in
                [(outside, near_at(v4), INSIDE_SHUT), (member, peer_at(v4), AWAY_SHUT)]
            {
                let before = self.dropped("rule_deny");
                space.expect_tcp(target, port, Silent);
                assert!(self.dropped("rule_deny") > before, "what is dropped in the tunnel is counted");
            }
            for (space, target, port) in
                [(outside, near_at(v4), INSIDE_REJECTED), (member, peer_at(v4), AWAY_REJECTED)]
            {
                space.expect_tcp(target, port, Refused);
                space.expect_udp(target, port, Unreachable);
            }
            // The same rules at the port: who is not of the tunnel is not let in.
            assert_ne!(outside.tcp(resource_at(v4), INSIDE, SHORT), Answered);
        }
    }
}

#[test]
fn rules_judge_what_goes_through_the_tunnel_of_a_personality() {
    if !root() {
        return;
    }
    let scene = scene();
    let outside = scene.resource.world.outside.clone();
    let peer = peer(&scene, &outside);
    scene.keep(&peer);
    let world = &scene.resource.world;
    let (from, to) = (&world.outside, &world.members[0]);
    // A socket for IPv6 takes the port of both families.
    let port = |v4| if v4 { FREE } else { Open.free() };
    let pause = Duration::from_millis(2);
    let streams = FAMILIES.map(|v4| Stream::start(from, to, resource_at(v4), port(v4), pause));
    let done = scene.switch("vpn");
    assert!(done.to_string().contains("handshake"), "it was waited for: {done:#}");
    let rules = done["checks"].as_array().unwrap().iter().find(|check| check["check"] == "rules").unwrap();
    let told = rules["detail"].as_str().unwrap().split(' ').next().unwrap().parse::<u32>().unwrap();
    assert!(told > 8, "packets in the tunnel were asked about as well: {rules:#}");
    scene.expect_judged();
    let link = scene.link();
    for v4 in FAMILIES {
        let (peer, near) = (peer_at(v4), near_at(v4));
        let ask = |source: IpAddr, target: IpAddr, port| {
            world.why(&format!("tcp {source} {} --in {link}", with_port(target, port)))
        };
        assert!(ask(peer, near, INSIDE).1 && ask(near, peer, AWAY).1);
        for (source, target, port) in [(peer, near, INSIDE_SHUT), (near, peer, AWAY_SHUT)] {
            let (said, passes) = ask(source, target, port);
            assert!(!passes && said["reason"] == "rule_deny", "{said:#}");
        }
    }
    scene.switch("open");
    for stream in streams {
        let seen = stream.finish();
        assert_eq!(seen.arrived.len() as u64, seen.sent, "what is outside the tunnel loses nothing");
    }
    for v4 in FAMILIES {
        from.expect_tcp(resource_at(v4), OPEN_ONLY, Answered);
    }
    wait_until("the tunnel is gone", RETIRED, || !to.sh("ip -o link show").contains(&link));
}

#[test]
fn a_tunnel_outlives_the_hub_and_the_change_of_its_key() {
    if !root() {
        return;
    }
    let mut scene = scene();
    let outside = scene.resource.world.outside.clone();
    let peer = peer(&scene, &outside);
    scene.keep(&peer);
    scene.switch("vpn");
    scene.expect_judged();
    scene.resource.world.hub.process().kill();
    for v4 in FAMILIES {
        outside.expect_ping(near_at(v4), Answered);
        outside.expect_tcp(near_at(v4), INSIDE, Answered);
        assert_eq!(outside.tcp(near_at(v4), INSIDE_SHUT, SHORT), Silent, "it is judged without the hub");
    }
    scene.resource.world.hub.restart();
    scene.resource.settle();
    assert_eq!(scene.resource.view()["current"], "vpn@1");
    scene.expect_judged();
    let before = scene.received();
    write_key(&scene.key, 8);
    peer.expect(&[keys::public(&[7; 32])], keys::public(&[8; 32]));
    wait_until("the new key is in use", FULL_PASS, || {
        scene.resource.world.members[0].ping(peer_at(true), SHORT) == Answered
    });
    scene.expect_judged();
    assert!(scene.received() > before, "the device is the same: its counters go on");
}

#[test]
fn the_kernel_encrypts_at_both_ends_where_it_can() {
    if !root() {
        return;
    }
    let mut scene = scene();
    let outside = scene.resource.world.outside.clone();
    let folder = scene.resource.world.lab.folder().join("peer");
    let Some(peer) = Peer::by_kernel(&folder, End::far(&outside), keys::public(&[7; 32])) else {
        return eprintln!(
            "left out: this kernel has no WireGuard (`cargo xtask vm e2e_personality_tunnel` runs it where there is)"
        );
    };
    scene.keep(&peer);
    scene.switch("vpn");
    let shown = scene.resource.world.members[0].sh(&format!("ip -d link show dev {}", scene.link()));
    assert!(shown.contains("alias hub wireguard kernel "), "{shown}");
    scene.expect_judged();
    scene.resource.world.hub.process().kill();
    scene.resource.world.hub.restart();
    scene.resource.settle();
    scene.expect_judged();
}
