//! The real daemon between two namespaces: a persona over REST, real clients, a deadline.

use std::time::Duration;

use hub_tests::lab::{Config, Hub, Lab, Space, wait_until};
use hub_tests::root;
use serde_json::json;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(15);

/// A hub with an uplink to a client; the server's namespace waits for its persona.
struct Scene {
    hub: Hub,
    client: Space,
    server: Space,
    // Dropped last: the daemon must be gone first.
    _lab: Lab,
}

fn scene() -> Scene {
    let mut lab = Lab::new();
    let (router, client, server) = (lab.space("hub"), lab.space("client"), lab.space("server"));
    router.wire(
        ("up0", &["198.51.100.1/24", "2001:db8:100::1/64"]),
        (&client, "eth0", &["198.51.100.2/24", "2001:db8:100::2/64"]),
    );
    client.ip("route add default via 198.51.100.1");
    client.ip("-6 route add default via 2001:db8:100::1");
    let hub = lab.hub(&router, &Config::default().interface("up0", "uplink"));
    Scene { hub, client, server, _lab: lab }
}

#[test]
fn a_persona_filters_real_clients_until_its_deadline() {
    if !root() {
        return;
    }
    let scene = scene();
    let persona = json!({
        "name": "web",
        "ip_range": ["10.100.0.0/24", "fd00:100::/64"],
        "protocols": ["tcp", "icmp"],
        "security_policies": [
            {"protocol": "tcp", "port": 80, "action": "allow"},
            {"protocol": "tcp", "port": 81, "action": "reject"},
            {"protocol": "icmp", "action": "allow"},
        ],
        "endpoints": [{
            "name": "server",
            "namespace": scene.server.name(),
            "address": ["10.100.0.10", "fd00:100::10"],
        }],
        "ttl": "1h",
    });
    scene.hub.send("POST", "/v1/personas", &persona).expect(201);
    let _servers = [80, 81, 82].map(|port| scene.server.listen(port));
    for address in ["10.100.0.10", "fd00:100::10"] {
        wait_until("the allowed port answers", PATIENCE, || scene.client.connects(address, 80));
        assert!(scene.client.pings(address));
        assert!(!scene.client.connects(address, 81) && !scene.client.connects(address, 82));
    }
    let refused = scene.client.try_sh("nc -z -w 3 10.100.0.10 81; echo $?", PATIENCE).expect_success();
    assert_eq!(refused.trim(), "1");

    scene.hub.send("PATCH", "/v1/personas/web", &json!({"ttl": "1s"})).expect(200);
    wait_until("the deadline cuts it off", PATIENCE, || !scene.client.connects("10.100.0.10", 80));
}
