//! Ports of the hub that are tunnels: packets without an Ethernet header are judged like all others.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]
#![expect(clippy::print_stderr, reason = "measurements are shown")]

use hub_tests::lab::Outcome::{Answered, Refused, Silent};
use hub_tests::lab::speed::goodput;
use hub_tests::lab::tunnel::{End, Tunnel};
use hub_tests::lab::world::{FAMILIES, gateway, member_at, outside_at};
use hub_tests::lab::{Config, Lab, Space, World};
use hub_tests::root;
use serde_json::json;

/// Slower than any tunnel that works, on any machine.
const LEAST_MBPS: f64 = 5.0;

/// Addresses on one side of the hub: of the hub there, and of the host behind it.
type Sides<'a> = [&'a [&'a str]; 2];

const OUTSIDE: Sides<'_> = [&["192.0.2.1/24", "2001:db8:2::1/64"], &["192.0.2.10/24", "2001:db8:2::10/64"]];
/// The hub puts its own address there.
const MEMBER: Sides<'_> = [&[], &["10.100.0.10/24", "fd00:100::10/64"]];

/// Joins a host to the router by a cable, or by a tunnel over one; the hub's port is `port`.
fn join(
    lab: &Lab,
    router: &Space,
    host: &Space,
    port: &str,
    sides: Sides<'_>,
    tunnel: bool,
) -> Option<Tunnel> {
    let [here, there] = sides;
    if !tunnel {
        router.wire((port, here), (host, "eth0", there));
        return None;
    }
    router.wire(("under", &["198.51.100.1/24"]), (host, "eth0", &["198.51.100.10/24"]));
    let ends = [
        End { space: router, link: port, at: "198.51.100.1:51820", addresses: here },
        End { space: host, link: "wg0", at: "198.51.100.10:51820", addresses: there },
    ];
    Some(Tunnel::between(&lab.folder().join("wireguard"), ends))
}

/// A hub with one member; the uplink, or the member's port, is a tunnel.
fn world(uplink: bool) -> (World, Tunnel) {
    let mut lab = Lab::new();
    let (router, outside, member) = (lab.space("router"), lab.space("outside"), lab.space("member0"));
    let out = join(&lab, &router, &outside, "up0", OUTSIDE, uplink);
    let inner = join(&lab, &router, &member, "seg0", MEMBER, !uplink);
    let device = |tunnel: bool| if tunnel { "wg0" } else { "eth0" };
    for v4 in FAMILIES {
        let default = if v4 { "0.0.0.0/0" } else { "::/0" };
        // No host is asked for a MAC through a tunnel.
        let via = |tunnel: bool, gateway: std::net::IpAddr| {
            if tunnel { String::new() } else { format!("via {gateway}") }
        };
        let outward = hub_tests::lab::world::gateway_outside(v4);
        outside.ip(&format!("route add {default} {} dev {}", via(uplink, outward), device(uplink)));
        member.ip(&format!("route add {default} {} dev {}", via(!uplink, gateway(0, v4)), device(!uplink)));
    }
    let config = Config::default().interface("up0", "uplink").interface("seg0", "segment");
    let hub = lab.hub(&router, &config);
    let world = World { hub, router, members: vec![member], outside, lab };
    world.create(
        0,
        &json!({"security_policies": [
            {"protocol": "tcp", "port": [80, "5201-5210"], "action": "allow"},
            {"protocol": "tcp", "port": 82, "action": "reject"},
        ]}),
    );
    (world, out.or(inner).expect("one of them is a tunnel"))
}

/// Policy, both families, both directions; bulk.
fn expect_policy(world: &World, tunnel: &str) {
    let member = &world.members[0];
    let (_inside, _beyond) = (member.serve(&[80, 81, 82]), world.outside.serve(&[80]));
    for v4 in FAMILIES {
        let (there, out) = (member_at(0, v4), outside_at(v4));
        world.outside.expect_tcp(there, 80, Answered);
        let before = world.dropped("p0", "default_deny");
        world.outside.expect_tcp(there, 81, Silent);
        assert!(world.dropped("p0", "default_deny") > before, "what is dropped is counted");
        world.outside.expect_tcp(there, 82, Refused);
        world.outside.expect_ping(there, Answered);
        member.expect_tcp(out, 80, Answered);
        member.expect_ping(out, Answered);
        // The hub itself, through its port.
        member.expect_ping(gateway(0, v4), Answered);
    }
    let status = world.hub.get("/v1/status").expect(200);
    let attachments = status["attachments"].as_array().unwrap();
    let mut hooks: Vec<&str> = attachments
        .iter()
        .filter(|entry| entry["interface"] == tunnel)
        .map(|entry| entry["hook"].as_str().unwrap())
        .collect();
    hooks.sort_unstable();
    assert_eq!(hooks, ["tc_in", "tc_out"], "XDP does not run on a device without an Ethernet header");
    for (number, v4) in FAMILIES.into_iter().enumerate() {
        let port = 5201 + 2 * number as u16;
        let down = goodput(&world.outside, member, member_at(0, v4), port);
        let up = goodput(member, &world.outside, outside_at(v4), port + 1);
        eprintln!("{tunnel}, IPv{}: {down:.0} Mbit/s to the member, {up:.0} from it", if v4 { 4 } else { 6 });
        assert!(down > LEAST_MBPS && up > LEAST_MBPS, "{down} {up}");
    }
    // The device has nowhere to put a header, and gives none.
    assert_eq!(world.total("redirected"), 0);
}

#[test]
fn an_uplink_may_be_a_tunnel() {
    if !root() {
        return;
    }
    let (world, _tunnel) = world(true);
    expect_policy(&world, "up0");
}

#[test]
fn a_member_may_be_behind_a_tunnel() {
    if !root() {
        return;
    }
    let (world, _tunnel) = world(false);
    expect_policy(&world, "seg0");
}
