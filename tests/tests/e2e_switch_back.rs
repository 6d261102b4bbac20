//! What has an interface go back: a signal, a time that is over, a hub that died; and what has it change over by
//! itself: a check that fails, and one that succeeds again.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::net::IpAddr;
use std::time::Duration;

use hub_tests::effort::figure;
use hub_tests::lab::Outcome::{Answered, Refused};
use hub_tests::lab::own::{self, Own};
use hub_tests::lab::resource::Which::{Open, Shut};
use hub_tests::lab::resource::{BOTH, OPEN_ONLY, Resource, SWITCH, resource_at};
use hub_tests::lab::world::{FAMILIES, member_at, with_port};
use hub_tests::lab::{Hub, Stopwatch, patience, seconds, wait_until, wall_ns};
use hub_tests::root;
use jiff::Timestamp;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// The data path may end what is for a while so much before its time.
const TICKS: Duration = Duration::from_millis(50);

/// More than twice the hold-down of a failover, and several rounds of checks.
const HOLDS: Duration = Duration::from_secs(16);

/// Port of a server that a failover asks.
const ASKED: u16 = 7_300;

/// Orders a switch to the second personality, and waits until it decides.
fn shut(resource: &Resource, more: &Value, state: &str) -> String {
    let mut order = more.clone();
    order["urgent"] = true.into();
    let began = resource.order("shut", &order).expect(202);
    wait_until("the second personality decides", SWITCH, || resource.state() == state);
    wait_until("it does so for packets", SWITCH, || resource.parts().decides() == Some(Shut));
    began["id"].as_str().unwrap().to_owned()
}

/// Whether new connections meet the first personality.
fn is_open(resource: &Resource) -> bool {
    FAMILIES.iter().all(|v4| resource.tcp(*v4, OPEN_ONLY) == Answered)
}

#[test]
fn a_signal_has_an_interface_go_back_without_the_api() {
    if !root() {
        return;
    }
    let mut resource = Resource::new();
    let id = shut(&resource, &json!({"confirm_within": "10m"}), "awaiting_confirm");
    // Nobody reaches the API any more.
    std::fs::remove_file(resource.world.hub.socket()).unwrap();
    resource.world.hub.process().signal(Signal::SIGUSR1);
    wait_until("the first personality decides", SWITCH, || is_open(&resource));
    let journal = resource.world.hub.folder().join("state/switches.jsonl");
    let mut entry = Value::Null;
    wait_until("the switch is over", SWITCH, || {
        let text = std::fs::read_to_string(&journal).unwrap_or_default();
        let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        entry = lines.find(|entry| entry["id"] == id.as_str()).unwrap_or_default();
        !entry.is_null()
    });
    assert_eq!(entry["outcome"], "rolled_back", "{entry:#}");
    assert!(entry["failure"].as_str().unwrap().contains("SIGUSR1"), "{entry:#}");
    assert!(resource.world.hub.process().stop().success());
    resource.world.hub.restart();
    resource.expect_whole(Open, "after a signal");
    // What is there for a while goes before its time.
    shut(&resource, &json!({"for": "1h"}), "active");
    resource.world.hub.process().signal(Signal::SIGUSR1);
    wait_until("the time is over before it was", SWITCH, || resource.parts().whole() == Some(Open));
    assert!(resource.view()["until"].is_null());
}

#[test]
fn an_unconfirmed_switch_goes_back_when_a_killed_hub_is_back() {
    if !root() {
        return;
    }
    let mut resource = Resource::new();
    let id = shut(&resource, &json!({"confirm_within": "10m"}), "awaiting_confirm");
    resource.world.hub.process().kill();
    assert_eq!(resource.tcp(true, BOTH), Answered, "without the hub");
    resource.world.hub.restart();
    let end = resource.finish(&id);
    assert_eq!(end["outcome"], "rolled_back", "{end:#}");
    resource.settle();
    resource.expect_whole(Open, "after a kill");
    for v4 in FAMILIES {
        // The one that went back had been about to lose it.
        resource.world.outside.expect_tcp(Open.address(v4).parse().unwrap(), BOTH, Answered);
    }
    // Its time runs out, and nothing of it is left for later.
    let id = shut(&resource, &json!({"confirm_within": seconds(1)}), "awaiting_confirm");
    assert_eq!(resource.finish(&id)["outcome"], "rolled_back");
    resource.settle();
    resource.expect_whole(Open, "after its time");
}

#[test]
fn temporary_access_ends_in_time_without_the_hub() {
    if !root() {
        return;
    }
    let mut resource = Resource::new();
    let id = shut(&resource, &json!({"for": seconds(6)}), "active");
    assert_eq!(resource.finish(&id)["outcome"], "committed");
    let until: Timestamp = resource.view()["until"].as_str().unwrap().parse().unwrap();
    let until = u64::try_from(until.as_nanosecond()).unwrap();
    resource.world.hub.process().kill();
    let mut kept = resource.world.outside.connect(resource_at(true), BOTH);
    wait_until("the data path ends it", SWITCH, || resource.tcp(true, OPEN_ONLY) == Answered);
    let now = wall_ns();
    // The data path counts in ticks of the kernel, and gives the last ones away.
    assert!(now + TICKS.as_nanos() as u64 > until, "{} ms early", (until - now) / 1_000_000);
    let late = Duration::from_nanos(now.saturating_sub(until));
    let early = Duration::from_nanos(until.saturating_sub(now));
    figure("S30", &format!("without the hub it was over {early:.0?} before its time, {late:.0?} after it"));
    assert!(late < Duration::from_secs(1) * patience(), "{late:?}");
    assert!(is_open(&resource));
    assert!(hub_tests::lab::echoes(&mut kept, SWITCH), "what both allow goes on");
    resource.world.hub.restart();
    wait_until("the hub follows", SWITCH, || resource.is_settled() && resource.parts().whole() == Some(Open));
}

/// Lets the time pass in which the hub begins no switch by itself.
fn hold_is_over(hub: &mut Hub) {
    hub.process().kill();
    let file = hub.folder().join("state/state.json");
    let mut state: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let settled = find(&mut state, "settled_at").expect("the state says when the last switch was over");
    *settled = "2020-01-01T00:00:00Z".into();
    std::fs::write(&file, state.to_string()).unwrap();
    hub.restart();
}

/// A field of a document, wherever it is.
fn find<'a>(value: &'a mut Value, field: &str) -> Option<&'a mut Value> {
    match value {
        Value::Object(fields) => {
            if fields.contains_key(field) {
                return fields.get_mut(field);
            }
            fields.values_mut().find_map(|value| find(value, field))
        }
        Value::Array(items) => items.iter_mut().find_map(|value| find(value, field)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

#[test]
fn a_disaster_brings_backup_routes_and_servers_and_its_end_takes_them_away() {
    if !root() {
        return;
    }
    let failover = json!({"failover": {
        "check": {"ping": "192.0.2.77"}, "for": "1s", "to": "shut", "fail_back": "auto", "hold_down": "1s",
    }});
    let outside = "address add 192.0.2.77/24 dev eth0";
    let mut resource = Resource::bare("");
    resource.world.outside.ip(outside);
    resource.keep(&Open.definition(&json!({})));
    resource.keep(&Shut.definition(&json!({})));
    resource.enlist(&failover);
    hold_is_over(&mut resource.world.hub);
    resource.expect_whole(Open, "before");
    resource.world.outside.ip("address delete 192.0.2.77/24 dev eth0");
    wait_until("the backup decides", SWITCH * 2, || resource.view()["current"] == "shut@1");
    resource.settle();
    resource.expect_whole(Shut, "in the disaster");
    let entry = &resource.journal()[0];
    assert_eq!((&entry["automatic"], &entry["outcome"]), (&json!(true), &json!("committed")), "{entry:#}");
    hold_is_over(&mut resource.world.hub);
    resource.world.outside.ip(outside);
    wait_until("it comes back", SWITCH * 2, || resource.view()["current"] == "open@1");
    resource.settle();
    resource.expect_whole(Open, "after it");
    let why = resource.journal()[0]["why"].to_string();
    assert!(why.contains("succeeds again"), "{why}");
}

/// Where a disaster is seen: beyond two routers, of which each personality has routes by one.
fn beyond(v4: bool) -> IpAddr {
    if v4 { [198, 51, 100, 77].into() } else { "2001:db8:77::1".parse().unwrap() }
}

/// Routes by a router of the resource, whose network has this number.
fn by_router(number: u8) -> Value {
    json!({"routing_table": [
        {"destination": "198.51.100.77/32", "via": format!("10.6{number}.0.1"), "device": format!("r{number}")},
        {"destination": "2001:db8:77::/64", "via": format!("fd00:6{number}::1"), "device": format!("r{number}")},
    ]})
}

#[test]
fn a_backup_holds_while_the_first_way_is_dead_though_its_own_works() {
    if !root() {
        return;
    }
    for v4 in FAMILIES {
        let mut resource = Resource::bare("");
        let member = resource.world.members[0].clone();
        let routers = [1, 2].map(|number| {
            let router = resource.world.lab.space(&format!("router{number}"));
            let near = [format!("10.6{number}.0.2/24"), format!("fd00:6{number}::2/64")];
            let far = [format!("10.6{number}.0.1/24"), format!("fd00:6{number}::1/64")];
            let device = format!("r{number}");
            member.wire(
                (&device, &near.each_ref().map(String::as_str)),
                (&router, "eth0", &far.each_ref().map(String::as_str)),
            );
            router.ip(&format!("address add {} dev lo", beyond(v4)));
            router
        });
        resource.keep(&Open.definition(&by_router(1)));
        resource.keep(&Shut.definition(&by_router(2)));
        resource.enlist(&json!({"failover": {
            "check": {"ping": beyond(v4).to_string()}, "for": "1s", "to": "shut", "fail_back": "auto",
            "hold_down": "3s",
        }}));
        hold_is_over(&mut resource.world.hub);
        // The router itself goes on: what is behind it does not.
        routers[0].ip(&format!("address delete {} dev lo", beyond(v4)));
        wait_until("the backup decides", SWITCH * 2, || resource.view()["current"] == "shut@1");
        resource.settle();
        member.expect_ping(beyond(v4), Answered);
        hold_is_over(&mut resource.world.hub);
        let watch = Stopwatch::start();
        while watch.elapsed() < HOLDS {
            assert_eq!(resource.view()["current"], "shut@1", "after {:?}", watch.elapsed());
            assert!(resource.view()["operation"].is_null());
            member.expect_ping(beyond(v4), Answered);
        }
        routers[0].ip(&format!("address add {} dev lo", beyond(v4)));
        wait_until("it comes back", SWITCH * 2, || resource.view()["current"] == "open@1");
        resource.settle();
        member.expect_ping(beyond(v4), Answered);
    }
}

#[test]
fn a_disaster_behind_an_interface_of_the_hub_is_seen_by_a_connection_to_a_server_there() {
    if !root() {
        return;
    }
    // Beside the port that both let in, each lets the hub reach what it asks.
    let asked = |own| {
        json!([
            {"protocol": "tcp", "port": [own::BOTH, own, ASKED], "action": "allow"},
            {"protocol": "icmp", "action": "allow"},
        ])
    };
    for v4 in FAMILIES {
        let mut own = Own::bare();
        let member = own.world.members[1].clone();
        let mut server = Some(member.serve(&[ASKED]));
        for (name, port, router) in [("open", own::OPEN_ONLY, 20), ("shut", own::SHUT_ONLY, 21)] {
            own.keep(&own::definition(name, port, router, &json!({"firewall_rules": asked(port)})));
        }
        own.enlist(
            &json!("seg1"),
            &json!({"failover": {
                "check": {"tcp": with_port(member_at(1, v4), ASKED)}, "for": "1s", "to": "shut",
                "fail_back": "auto", "hold_down": "1s",
            }}),
        );
        hold_is_over(&mut own.world.hub);
        own.settles();
        drop(server.take());
        wait_until("the backup decides", SWITCH * 2, || own.view()["current"] == "shut@1");
        own.settles();
        assert_eq!((own.tcp(v4, own::SHUT_ONLY), own.tcp(v4, own::OPEN_ONLY)), (Answered, Refused));
        hold_is_over(&mut own.world.hub);
        server = Some(member.serve(&[ASKED]));
        wait_until("it comes back", SWITCH * 2, || own.view()["current"] == "open@1");
        own.settles();
        assert_eq!((own.tcp(v4, own::OPEN_ONLY), own.tcp(v4, own::SHUT_ONLY)), (Answered, Refused));
        drop(server);
    }
}
