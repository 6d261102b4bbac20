//! Drains: what they wait for is listed while they wait, they end by count or by time, and a plan says beforehand
//! which connections a switch ends, and why.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpStream};

use hub_tests::lab::resource::Which::{Open, Shut};
use hub_tests::lab::resource::{BOTH, FREE, OPEN_ONLY, Resource, SHUT_ONLY, SWITCH, resource_at};
use hub_tests::lab::world::FAMILIES;
use hub_tests::lab::{echoes, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

/// Connections of both families to a port of the resource.
fn connections(resource: &Resource, port: u16) -> [TcpStream; 2] {
    FAMILIES.map(|v4| resource.world.outside.connect(resource_at(v4), port))
}

/// The end of a connection that is named as its source.
fn source(stream: &TcpStream) -> SocketAddr {
    stream.local_addr().unwrap()
}

/// Connections of a list, by their sources.
fn by_source(flows: &Value) -> BTreeMap<SocketAddr, Value> {
    let source = |flow: &Value| {
        let address: IpAddr = flow["source"].as_str().unwrap().parse().unwrap();
        SocketAddr::new(address, u16::try_from(flow["source_port"].as_u64().unwrap()).unwrap())
    };
    flows.as_array().unwrap().iter().map(|flow| (source(flow), flow.clone())).collect()
}

/// Orders a switch to the second personality and waits until it waits for so many connections; its id.
#[track_caller]
fn draining(resource: &Resource, drain: &Value, active: u64) -> String {
    let began = resource.order("shut", &json!({"drain": drain})).expect(202);
    wait_until("the switch waits for connections", SWITCH, || {
        resource.view()["operation"]["flows"]["active"] == active
    });
    began["id"].as_str().unwrap().to_owned()
}

#[test]
fn what_a_drain_waits_for_is_listed_while_it_waits() {
    if !root() {
        return;
    }
    let resource = Resource::new();
    let [ends, stays] = connections(&resource, OPEN_ONLY);
    let mut kept = connections(&resource, BOTH);
    let id = draining(&resource, &json!({"timeout": "10m"}), 2);
    let (folder, socket) = (resource.world.lab.folder(), resource.world.hub.socket());
    let events = folder.join("operation");
    let _follower = resource.world.router.background(&format!(
        "curl --silent --no-buffer --unix-socket {} http://hub/v1/operations/{id}/events --output {}",
        socket.display(),
        events.display()
    ));
    // What was counted in the drain, as its events tell it.
    let counted = || {
        let text = std::fs::read_to_string(&events).unwrap_or_default();
        let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
        let views = data.filter_map(|line| serde_json::from_str::<Value>(line.trim()).ok());
        let drained = views.filter(|view| view["phase"] == "drain");
        let mut counts: Vec<u64> = drained.filter_map(|view| view["flows"]["active"].as_u64()).collect();
        counts.dedup();
        counts
    };
    wait_until("the events tell of both", SWITCH, || counted() == [2]);
    let list = || resource.world.hub.get(&format!("/v1/operations/{id}/connections")).expect(200);

    let both = list();
    assert_eq!((&both["phase"], &both["to"]), (&json!("drain"), &json!("shut@1")), "{both:#}");
    assert_eq!((&both["flows"]["active"], &both["flows"]["idle"]), (&json!(2), &json!(0)), "{both:#}");
    assert!(both["flows"]["kept"].as_u64() >= Some(2), "{both:#}");
    let listed = by_source(&both["connections"]);
    assert_eq!(listed.len(), 2, "what goes on is not listed: {both:#}");
    for (stream, v4) in [&ends, &stays].into_iter().zip(FAMILIES) {
        let flow = &listed[&source(stream)];
        assert_eq!((&flow["protocol"], &flow["target"]), (&json!("tcp"), &json!(resource_at(v4))), "{flow}");
        assert_eq!((&flow["target_port"], &flow["state"]), (&json!(OPEN_ONLY), &json!("established")));
        assert_eq!((&flow["active"], &flow["survives"]), (&json!(true), &json!(false)));
        assert_eq!((&flow["by"], flow.get("rule")), (&json!("default"), None), "no rule speaks of its port");
        assert!(flow["idle_seconds"].as_f64() <= flow["age_seconds"].as_f64(), "{flow}");
    }
    let table = resource.world.hub.hubctl(&["personality", "drain", "web"]).expect_success();
    assert!(table.starts_with("web goes to shut@1: drain until ") && table.contains("2 connections active"));
    for stream in [&ends, &stays] {
        let row = table.lines().find(|line| line.contains(&source(stream).to_string())).unwrap();
        assert!(row.starts_with("yes") && row.ends_with("default action"), "{table}");
    }

    let (gone, left) = (source(&ends), source(&stays));
    drop(ends);
    wait_until("the switch waits for one", SWITCH, || resource.view()["operation"]["flows"]["active"] == 1);
    let one = list();
    assert_eq!(one["flows"]["active"], 1, "{one:#}");
    assert_eq!(by_source(&one["connections"]).into_keys().collect::<Vec<_>>(), [left], "and not {gone}");
    let said = resource.world.hub.hubctl(&["personality", "drain", "web", "--json"]).expect_success();
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(by_source(&said["connections"]).into_keys().collect::<Vec<_>>(), [left], "{said:#}");
    wait_until("the events tell of one", SWITCH, || counted() == [2, 1]);

    drop(stays);
    assert_eq!(resource.finish(&id)["outcome"], "committed");
    assert!(kept.iter_mut().all(|stream| echoes(stream, SWITCH)));
    assert_eq!(list()["connections"], json!([]), "nothing is waited for any more");
    let said = resource.world.hub.hubctl(&["personality", "drain", "web"]);
    assert!(!said.success() && said.stderr.contains("no switch of interface `web` is under way"), "{said:?}");
}

#[test]
fn a_drain_ends_when_few_enough_are_left() {
    if !root() {
        return;
    }
    let resource = Resource::new();
    for v4_ends in FAMILIES {
        let [v4, v6] = connections(&resource, OPEN_ONLY);
        let (ends, mut stays) = if v4_ends { (v4, v6) } else { (v6, v4) };
        let id = draining(&resource, &json!({"timeout": "10m", "threshold": 1}), 2);
        assert!(echoes(&mut stays, SWITCH), "two are too many");
        assert_eq!(resource.state(), "draining");
        drop(ends);
        let end = resource.finish(&id);
        assert_eq!((&end["outcome"], &end["flows"]["active"]), (&json!("committed"), &json!(1)), "{end:#}");
        assert!(!echoes(&mut stays, SWITCH), "the one that is left is cut");
        assert_eq!(resource.switch("open", &json!({"urgent": true}))["outcome"], "committed");
    }
    resource.expect_whole(Open, "there and back");
}

#[test]
fn a_drain_that_is_given_up_leaves_the_old_personality_and_its_connections() {
    if !root() {
        return;
    }
    let resource = Resource::new();
    let mut held = connections(&resource, OPEN_ONLY);
    let order = ["personality", "switch", "web", "shut", "--drain", "1s", "--on-timeout", "abort"];
    let said = resource.world.hub.hubctl(&order);
    let why = "2 connections did not end in 1 s";
    assert!(!said.success() && said.stderr.contains(why), "{said:?}");
    assert!(said.stderr.contains("web has open@1 as before"), "{said:?}");
    resource.settle();
    let operations = resource.world.hub.get("/v1/operations?interface=web").expect(200);
    let last = operations["operations"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["outcome"], &last["failure"]), (&json!("aborted"), &json!(why)), "{last:#}");
    assert_eq!(last["phases"].as_array().unwrap().last().unwrap()["phase"], "drain", "nothing was flipped");
    assert!(held.iter_mut().all(|stream| echoes(stream, SWITCH)), "nothing was cut");
    resource.expect_whole(Open, "given up");
    // Nothing new is refused any more, either.
    let mut new = connections(&resource, OPEN_ONLY);
    assert!(new.iter_mut().all(|stream| echoes(stream, SWITCH)));
}

#[test]
fn a_plan_says_which_connections_end_and_why_and_so_it_is() {
    if !root() {
        return;
    }
    let resource = Resource::new();
    let _server = resource.world.members[0].serve(&[FREE]);
    let picky = Shut.definition(&json!({"name": "picky", "firewall_rules": [
        {"protocol": "udp", "action": "allow"},
        {"protocol": "tcp", "port": FREE, "action": "deny"},
        {"protocol": "tcp", "port": [BOTH, SHUT_ONLY], "action": "allow"},
    ]}));
    resource.keep(&picky);
    let outside = &resource.world.outside;
    let going = FAMILIES.map(|v4| outside.connect(Open.address(v4).parse().unwrap(), BOTH));
    let mut expected = BTreeMap::new();
    let mut of = |streams: &[TcpStream; 2], fate: Value| {
        expected.extend(streams.iter().map(|stream| (source(stream), fate.clone())));
    };
    let (kept, unnamed, denied) =
        (connections(&resource, BOTH), connections(&resource, OPEN_ONLY), connections(&resource, FREE));
    of(&kept, json!({"survives": true, "by": "rule", "rule": 2}));
    of(&unnamed, json!({"survives": false, "by": "default", "rule": null}));
    of(&denied, json!({"survives": false, "by": "rule", "rule": 1}));
    of(&going, json!({"survives": false, "by": "address", "rule": null}));
    let planned = || {
        let plan = resource.order("picky", &json!({"dry_run": true})).expect(200)["connections"].clone();
        // Checks of the hub ask by other protocols.
        let flows = by_source(&plan["flows"]).into_iter().filter(|(_, flow)| flow["protocol"] == "tcp");
        let told = flows.map(|(source, flow)| {
            (source, json!({"survives": flow["survives"], "by": flow["by"], "rule": flow["rule"]}))
        });
        (told.collect::<BTreeMap<_, _>>(), plan)
    };
    wait_until("attempts of the set-up are over", SWITCH, || planned().0.len() == expected.len());
    let (told, plan) = planned();
    assert_eq!(told, expected, "{plan:#}");
    assert_eq!((&plan["breaks_active"], &plan["breaks_idle"]), (&json!(6), &json!(0)), "{plan:#}");
    assert!(plan["survives_active"].as_u64() >= Some(2), "{plan:#}");
    let said = resource.world.hub.hubctl(&["personality", "switch", "web", "picky", "--dry-run"]);
    let said = said.expect_success();
    for (stream, words) in [
        (&kept[0], ["goes on", "rule 2"]),
        (&unnamed[1], ["ends", "default action"]),
        (&denied[0], ["ends", "rule 1"]),
        (&going[1], ["ends", "address goes away"]),
    ] {
        let row = said.lines().find(|line| line.contains(&source(stream).to_string())).unwrap();
        assert!(row.trim_start().starts_with(words[0]) && row.ends_with(words[1]), "{said}");
    }
    assert_eq!((resource.state(), &resource.view()["operation"]), ("active".to_owned(), &Value::Null));

    let end = resource.switch("picky", &json!({"drain": {"timeout": "1s"}}));
    assert_eq!(end["outcome"], "committed", "{end:#}");
    assert_eq!(end["flows"]["active"], 6, "{end:#}");
    for mut stream in kept.into_iter().chain(unnamed).chain(denied).chain(going) {
        let survives = expected[&source(&stream)]["survives"] == true;
        assert_eq!(echoes(&mut stream, SWITCH), survives, "{stream:?}");
    }
}
