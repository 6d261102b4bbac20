//! What a switch forbids is told so at both ends: connections that one personality alone allows, and those of
//! addresses that go away.
#![expect(clippy::unwrap_used, reason = "a helper that cannot go on fails the test that called it")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, TcpStream};

use hub_tests::lab::Outcome::{Answered, Refused, Silent};
use hub_tests::lab::resource::Which::{self, Open, Shut};
use hub_tests::lab::resource::{BOTH, BULK, Resource, SWITCH, resource_at};
use hub_tests::lab::world::{FAMILIES, outside_at, with_port};
use hub_tests::lab::{echoes, wait_until};
use hub_tests::root;
use serde_json::json;

/// Port of a server that checks ask for.
const ASKED: u16 = 7_300;

/// Whoever speaks next is told that the connection is over, and so is the other one.
#[track_caller]
fn expect_reset((near, far): (TcpStream, TcpStream), client_speaks: bool, what: &str) {
    let (speaker, listener) = if client_speaks { (near, far) } else { (far, near) };
    (&speaker).write_all(b"after").ok();
    for (who, mut end) in [("who spoke", speaker), ("who listened", listener)] {
        let error = end.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{who}, {what}, client {client_speaks}");
    }
}

#[test]
fn both_ends_of_what_a_switch_forbids_get_a_reset() {
    if !root() {
        return;
    }
    let resource = Resource::new();
    let mut now = Open;
    for v4 in FAMILIES {
        for client_speaks in [true, false] {
            let (mut near, mut far) = resource.pair(resource_at(v4), now.free());
            near.write_all(b"before").unwrap();
            assert_eq!(far.read(&mut [0; 8]).unwrap(), 6);
            now = now.other();
            let end = resource.switch(now.name(), &json!({"urgent": true}));
            assert_eq!(end["outcome"], "committed", "{end:#}");
            assert_eq!(end["flows"]["active"], 1, "it was counted, though nobody waited: {end:#}");
            expect_reset((near, far), client_speaks, &format!("IPv4 {v4}"));
        }
    }
    assert_eq!(now, Open, "as many there as back");
    resource.expect_whole(Shut.other(), "after all of them");
}

#[test]
fn an_address_that_goes_away_is_closed_by_the_drain_and_reset_by_the_flip() {
    if !root() {
        return;
    }
    let resource = Resource::new();
    let outside = &resource.world.outside;
    for (now, client_speaks) in [(Open, true), (Shut, false)] {
        let going = FAMILIES.map(|v4| now.address(v4).parse::<IpAddr>().unwrap());
        // Of ports that both let in: the address alone is why these end.
        let held = going.map(|address| resource.pair(address, BULK));
        let mut kept = FAMILIES.map(|v4| outside.connect(resource_at(v4), BOTH));
        let order = json!({"drain": {"timeout": "8s", "block": "reject"}});
        let began = resource.order(now.other().name(), &order).expect(202);
        wait_until("the switch waits for both connections", SWITCH, || {
            resource.view()["operation"]["flows"]["active"] == 2
        });
        for address in going {
            outside.expect_tcp(address, BOTH, Refused);
            outside.expect_udp(address, BOTH, Silent);
        }
        for v4 in FAMILIES {
            outside.expect_tcp(resource_at(v4), BOTH, Answered);
        }
        assert_eq!(resource.state(), "draining");
        let end = resource.finish(began["id"].as_str().unwrap());
        assert_eq!(end["outcome"], "committed", "{end:#}");
        assert_eq!(end["flows"]["active"], 2, "nobody else came there meanwhile: {end:#}");
        for (held, address) in held.into_iter().zip(going) {
            expect_reset(held, client_speaks, &format!("{address}"));
            outside.expect_tcp(address, BOTH, Refused);
        }
        assert!(kept.iter_mut().all(|stream| echoes(stream, SWITCH)));
    }
    resource.expect_whole(Open, "there and back");
}

#[test]
fn an_address_that_came_with_a_switch_is_reset_when_that_goes_back() {
    if !root() {
        return;
    }
    let resource = Resource::new();
    let outside = &resource.world.outside;
    for client_speaks in [true, false] {
        let order = json!({"confirm_within": "10m", "drain": {"timeout": "0s"}});
        let began = resource.order("shut", &order).expect(202);
        wait_until("it waits", SWITCH * 2, || resource.state() == "awaiting_confirm");
        let came = FAMILIES.map(|v4| Shut.address(v4).parse::<IpAddr>().unwrap());
        // Of a port that both let in: the address alone is why these end.
        let held = came.map(|address| resource.pair(address, BULK));
        let mut kept = FAMILIES.map(|v4| outside.connect(resource_at(v4), BOTH));
        resource.world.hub.hubctl(&["personality", "revert", "web"]).expect_success();
        let end = resource.finish(began["id"].as_str().unwrap());
        assert_eq!(end["outcome"], "rolled_back", "{end:#}");
        for (held, address) in held.into_iter().zip(came) {
            expect_reset(held, client_speaks, &format!("{address}"));
            outside.expect_tcp(address, BOTH, Refused);
        }
        assert!(kept.iter_mut().all(|stream| echoes(stream, SWITCH)), "what both have goes on");
        resource.expect_whole(Open, "back");
    }
}

#[test]
fn the_way_to_the_default_resets_what_was_given_up() {
    if !root() {
        return;
    }
    let needed = json!({"health": {"targets": [{"tcp": with_port(outside_at(true), ASKED)}]}});
    let mut safe = Shut.definition(&json!({"ip_addresses": ["10.20.0.5/24", "fd00:20::5/64"]}));
    safe["name"] = "safe".into();
    safe.as_object_mut().unwrap().remove("routing_table");
    for client_speaks in [true, false] {
        let resource = Resource::bare("");
        let outside = &resource.world.outside;
        let asked = outside.listen(ASKED);
        for definition in [Open.definition(&needed), Shut.definition(&needed), safe.clone()] {
            resource.keep(&definition);
        }
        resource.enlist(&json!({"default": "safe"}));
        let addresses = |which: Which| FAMILIES.map(|v4| which.address(v4).parse::<IpAddr>().unwrap());
        // Of a port that all let in: the address alone is why these end. They hear nothing while they say nothing.
        let went = addresses(Open).map(|address| (address, resource.pair(address, BULK)));
        let began = resource.order("shut", &json!({"drain": {"timeout": "0s"}})).expect(202);
        wait_until("it is verified", SWITCH, || resource.state() == "verifying");
        let came = addresses(Shut).map(|address| (address, resource.pair(address, BULK)));
        let mut kept = FAMILIES.map(|v4| outside.connect(resource_at(v4), BOTH));
        drop(asked);
        let end = resource.finish(began["id"].as_str().unwrap());
        assert_eq!(end["outcome"], "fell_back", "{end:#}");
        for (address, held) in went.into_iter().chain(came) {
            expect_reset(held, client_speaks, &format!("{address}"));
            outside.expect_tcp(address, BOTH, Refused);
        }
        assert!(kept.iter_mut().all(|stream| echoes(stream, SWITCH)), "what the default has goes on");
    }
}
