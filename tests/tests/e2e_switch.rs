//! An interface's personality is switched while traffic flows, or put back.

use std::time::Duration;

use hub_tests::lab::Outcome::{Answered, Refused};
use hub_tests::lab::resource::Which::{self, Open, Shut};
use hub_tests::lab::resource::{BOTH, OPEN_ONLY, Resource, resource_at};
use hub_tests::lab::world::FAMILIES;
use hub_tests::lab::{echoes, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

/// Whose rules new connections meet, with or without a hub.
#[track_caller]
fn expect(resource: &Resource, which: Which) {
    let outside = &resource.world.outside;
    for v4 in FAMILIES {
        outside.expect_tcp(resource_at(v4), BOTH, Answered);
        outside.expect_tcp(resource_at(v4), which.port(), Answered);
        outside.expect_tcp(resource_at(v4), which.other().port(), Refused);
    }
}

fn switch(resource: &Resource, to: Which, words: &[&str]) -> hub_tests::lab::Output {
    let arguments = [&["personality", "switch", "web", to.name()], words].concat();
    resource.world.hub.hubctl(&arguments)
}

#[test]
fn a_switch_changes_all_of_it_and_what_both_allow_goes_on() {
    if !root() {
        return;
    }
    let resource = Resource::new();
    let world = &resource.world;
    let mut kept = FAMILIES.map(|v4| world.outside.connect(resource_at(v4), BOTH));
    let mut cut = FAMILIES.map(|v4| world.outside.connect(resource_at(v4), OPEN_ONLY));
    switch(&resource, Shut, &["--why", "test"]).expect_success();
    assert_eq!(resource.view()["current"], "shut@1");
    expect(&resource, Shut);
    for (kept, cut) in kept.iter_mut().zip(&mut cut) {
        assert!(echoes(kept, Duration::from_secs(2)), "a connection that both allow goes on");
        assert!(!echoes(cut, Duration::from_secs(2)), "one that is forbidden now does not");
    }
    wait_until("the other end is told, too", Duration::from_secs(2), || {
        let left = format!("ss -Htn state established 'sport = :{OPEN_ONLY}'");
        world.members[0].sh(&left).trim().is_empty()
    });
    switch(&resource, Open, &[]).expect_success();
    expect(&resource, Open);
    assert!(kept.iter_mut().all(|stream| echoes(stream, Duration::from_secs(2))));
    let journal = world.hub.hubctl(&["personality", "journal", "web", "--json"]).expect_success();
    let entries: Value = serde_json::from_str(&journal).unwrap();
    let texts = entries.to_string();
    assert!(texts.contains("\"to\":\"shut@1\"") && texts.contains("\"to\":\"open@1\""), "{texts}");
}

#[test]
fn a_check_that_fails_puts_the_old_one_back() {
    if !root() {
        return;
    }
    let resource = Resource::new();
    // Nobody listens there.
    let health = json!({"targets": [{"tcp": "192.0.2.10:9"}]});
    resource.keep(&Shut.definition(&json!({"name": "bad", "health": health})));
    resource.order("bad", &json!({})).expect(202);
    wait_until("it is checked", Duration::from_secs(20), || resource.state() == "verifying");
    expect(&resource, Shut);
    wait_until("it is over", Duration::from_mins(1), || resource.state() == "active");
    let journal = resource.world.hub.hubctl(&["personality", "journal", "web", "--json"]).expect_success();
    assert!(journal.contains("tcp 192.0.2.10:9"), "it says which check failed: {journal}");
    assert_eq!(resource.view()["current"], "open@1");
    expect(&resource, Open);
}

#[test]
fn what_is_not_confirmed_goes_back_also_without_the_daemon() {
    if !root() {
        return;
    }
    let mut resource = Resource::new();
    resource.order("shut", &json!({"confirm_within": "5s", "drain": {"timeout": "0s"}})).expect(202);
    wait_until("it waits", Duration::from_secs(20), || resource.state() == "awaiting_confirm");
    expect(&resource, Shut);
    resource.world.hub.process().kill();
    // The lease outlives the hub's own deadline by its grace.
    wait_until("the data path goes back by itself", Duration::from_secs(30), || {
        resource.world.outside.tcp(resource_at(true), OPEN_ONLY, Duration::from_millis(500)) == Answered
    });
    expect(&resource, Open);
    resource.world.hub.restart();
    wait_until("the hub knows", Duration::from_secs(40), || {
        resource.view()["current"] == "open@1" && resource.state() == "active"
    });
    expect(&resource, Open);
}

#[test]
fn a_killed_hub_finds_the_interface_as_it_was_switched() {
    if !root() {
        return;
    }
    let mut resource = Resource::new();
    switch(&resource, Shut, &[]).expect_success();
    resource.world.hub.process().kill();
    expect(&resource, Shut);
    resource.world.hub.restart();
    expect(&resource, Shut);
    assert_eq!(resource.view()["current"], "shut@1");
    let world = &resource.world;
    let gone = world.hub.send("DELETE", "/v1/interfaces/web", &Value::Null);
    assert!(gone.status < 300, "{gone:?}");
    wait_until("nothing is left in the namespace", Duration::from_secs(10), || {
        let addresses = world.members[0].sh("ip -o addr show dev eth0");
        let rules = world.members[0].sh("ip rule; ip -6 rule");
        !addresses.contains("10.20.0.5") && !rules.contains("proto 177")
    });
    for v4 in FAMILIES {
        let now = world.outside.tcp(resource_at(v4), BOTH, Duration::from_millis(500));
        assert_ne!(now, Answered, "nobody is there any more");
    }
}

#[test]
fn the_session_that_orders_a_switch_goes_on_whatever_it_goes_to() {
    if !root() {
        return;
    }
    let resource = Resource::new();
    let world = &resource.world;
    for v4 in FAMILIES {
        let mut session = world.outside.connect(resource_at(v4), OPEN_ONLY);
        let mut other = world.outside.connect(resource_at(v4), OPEN_ONLY);
        let [client, server] = [session.local_addr(), session.peer_addr()].map(Result::unwrap);
        let ends = format!("{} {} {} {}", client.ip(), client.port(), server.ip(), server.port());
        let arguments = ["personality", "switch", "web", "shut"];
        world.hub.hubctl_in(&[("SSH_CONNECTION", &ends)], &arguments).expect_success();
        expect(&resource, Shut);
        assert!(echoes(&mut session, Duration::from_secs(2)), "{ends}");
        assert!(!echoes(&mut other, Duration::from_secs(2)), "the same port, and another connection");
        switch(&resource, Open, &[]).expect_success();
    }
}
