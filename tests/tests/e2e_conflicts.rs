//! Interfaces that cannot have what their records say, because somebody else has it: an address, or the interface.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::time::Duration;

use hub_tests::lab::World;
use hub_tests::lab::own::{OPEN_ONLY, Own, definition};
use hub_tests::lab::wait_until;
use hub_tests::lab::world::{FAMILIES, gateway};
use hub_tests::root;
use serde_json::{Value, json};

/// What fails is tried again by itself, at most so long after.
const AGAIN: Duration = Duration::from_secs(90);
const SOON: Duration = Duration::from_secs(20);

/// What conditions of an interface say of what the kernel refused.
fn said(world: &World, interface: &str) -> String {
    let view = world.hub.get(&format!("/v1/interfaces/{interface}")).body;
    let conditions = view["conditions"].as_array().unwrap();
    let mut refused = conditions.iter().filter(|condition| condition["reason"] == "KernelRefused");
    let said = refused.next().map(|condition| condition["message"].as_str().unwrap().to_owned());
    said.unwrap_or_default()
}

/// Waits until an interface says this, and `hubctl` too.
#[track_caller]
fn expect_said(world: &World, interface: &str, expected: &str) {
    wait_until(&format!("{interface} says: {expected}"), SOON, || said(world, interface) == expected);
    wait_until("hubctl says so", SOON, || {
        let shown = world.hub.hubctl(&["interface", "show", interface]).expect_success();
        shown.contains("KernelRefused") && shown.contains(expected)
    });
}

#[test]
fn a_first_personality_is_not_put_where_a_foreign_host_has_its_address() {
    if !root() {
        return;
    }
    for v4 in FAMILIES {
        let mut own = Own::bare();
        let address = format!("{}/{}", gateway(1, v4), if v4 { 24 } else { 64 });
        let foreign = &own.world.members[1];
        foreign.ip(&format!("address add {address} dev eth0"));
        let mac = foreign.mac("eth0").map(|byte| format!("{byte:02x}")).join(":");
        own.keep(&definition("open", OPEN_ONLY, 20, &json!({})));
        let other = json!({"name": "other", "ip_addresses": ["10.100.0.1/24", "fd00:100::1/64"]});
        own.keep(&other);
        for record in [
            json!({"name": "own", "interface": "seg1", "personality": "open"}),
            json!({"name": "other", "interface": "seg0", "personality": "other"}),
        ] {
            own.world.hub.send("POST", "/v1/interfaces", &record).expect(201);
        }
        let expected = format!("put address {address} on `seg1`: {mac} on the same link has it");
        expect_said(&own.world, "own", &expected);
        let there = |port: &str| own.world.router.ip(&format!("-oneline address show dev {port}"));
        assert!(!there("seg1").contains(&address), "{}", there("seg1"));
        let of_other = gateway(1, !v4).to_string();
        assert!(there("seg1").contains(&of_other), "what nobody has is put: {}", there("seg1"));
        wait_until("the other interface goes on", SOON, || {
            said(&own.world, "other").is_empty() && there("seg0").contains("10.100.0.1/24")
        });
        own.world.members[1].ip(&format!("address del {address} dev eth0"));
        wait_until("it is tried again", AGAIN, || said(&own.world, "own").is_empty());
        wait_until("it is put", AGAIN, || {
            own.world.router.ip("-oneline address show dev seg1").contains(&address)
        });
        own.settles();
        // A foreign host that comes later does not take it away, with a restart neither.
        own.world.members[1].ip(&format!("address add {address} dev eth0"));
        own.world.hub.process().kill();
        own.world.hub.restart();
        wait_until("the hub is back", SOON, || said(&own.world, "own").is_empty());
        assert!(own.world.router.ip("-oneline address show dev seg1").contains(&address));
    }
}

#[test]
fn of_two_records_for_one_interface_one_has_it() {
    if !root() {
        return;
    }
    let world = World::new(2);
    let member = &world.members[0];
    member.ip("link property add dev eth0 altname second");
    for (name, host) in [("a", 5), ("b", 6)] {
        let addresses = [format!("10.20.{host}.5/24"), format!("fd00:20:{host}::5/64")];
        let personality = json!({"name": name, "ip_addresses": addresses});
        world.hub.send("POST", "/v1/personalities", &personality).expect(201);
    }
    let enlist = |name: &str, interface: Value, port: &str| {
        let record = json!({"name": name, "interface": interface, "namespace": member.name(), "port": port,
            "routes": "addresses", "personality": name});
        world.hub.send("POST", "/v1/interfaces", &record).expect(201);
    };
    let shown = || member.ip("-oneline address show");
    // By its name the second would come first.
    enlist("b", json!("eth0"), "seg0");
    wait_until("the first has it", SOON, || shown().contains("10.20.6.5/24"));
    enlist("a", json!({"altname": "second"}), "seg1");
    let expected = "`eth0` is the interface of record `b` already: have one of the two records mean another one, or \
                    delete it";
    expect_said(&world, "a", expected);
    assert!(!shown().contains("20.5.5") && !shown().contains("fd00:20:5::"), "{}", shown());
    assert!(!member.sh("ip rule; ip -6 rule").contains("20.5.5"));
    assert_eq!(said(&world, "b"), "");
    member.ip("link property del dev eth0 altname second");
    member.sh("ip link add eth1 type veth peer name far1 && ip link set eth1 up && ip link set far1 up");
    member.ip("link property add dev eth1 altname second");
    wait_until("the second has another one", AGAIN, || {
        let shown = member.ip("-oneline address show dev eth1");
        said(&world, "a").is_empty() && shown.contains("10.20.5.5/24") && shown.contains("fd00:20:5::5/64")
    });
    assert!(shown().contains("10.20.6.5/24") && said(&world, "b").is_empty());
}
