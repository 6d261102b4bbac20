//! A start whose tables have other sizes than those of before: connections that need their entries go on, and so do
//! counts and what is kept out. Only what cannot be carried over begins empty, and is named.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

mod site;
mod upgrade;

use std::fs;
use std::net::TcpStream;
use std::time::Duration;

use hub_tests::effort::{Effort, figure};
use hub_tests::lab::Outcome::Silent;
use hub_tests::lab::world::{FAMILIES, member_at};
use hub_tests::lab::{Config, Stopwatch, World, echoes, slowness, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

use site::{Caller, PATIENCE, STRICT, Site, TRAP, configure};

/// Rounds in everyday runs and in long ones.
const ROUNDS: [u64; 2] = [6, 50];
/// Sizes of the tables, by turns: each is changed up and down.
const LIMITS: [&str; 6] = [
    "limits: {flows: 65536}",
    "limits: {flows: 32768}",
    "limits: {flows: 32768, rules: 4096, peers: 2048}",
    "limits: {flows: 131072, opening_flows: 4096, rules: 2048, ipv6_prefixes: 2048}",
    "limits: {personas: 20000, rules: 8192}",
    "limits: {personas: 10000, flows: 65536, rules: 8192, peers: 4096}",
];
/// How members' ports and TC programs are attached.
const HOOKS: [(&str, &str); 3] =
    [("segment", ""), ("segment\n    xdp: on", ""), ("segment", "attach: {tc: clsact}\n")];

/// Less of it where everything is slow, of each kind one at least.
fn few(rounds: u64) -> u64 {
    (rounds / u64::from(slowness())).max(3)
}

#[test]
fn connections_outlive_other_sizes_of_tables() {
    if !root() {
        return;
    }
    let watch = Stopwatch::start();
    for hook in HOOKS {
        let mut site = Site::new(hook);
        let judged = site.judged();
        assert!(judged.values().sum::<u64>() >= 4, "{judged:?}");
        let (mut packets, mut rounds) = (site.packets(), 0);
        let callers = FAMILIES.map(|v4| Caller::start(site.world.members[0].clone(), v4));
        for round in Effort::new(few(ROUNDS[0]), ROUNDS[1]).rounds() {
            let limits = LIMITS[(round as usize + 1) % LIMITS.len()];
            let when = format!("{hook:?}, round {round}, {limits}");
            site.restart(limits, round % 3 == 1, &when);
            assert_eq!(site.lost(), "", "{when}");
            site.keeps_out(&when);
            site.is_whole(&when);
            assert_eq!(site.judged(), judged, "{when}");
            let now = site.packets();
            assert!(now > packets, "{when}: {now} after {packets}");
            packets = now;
            rounds = round + 1;
        }
        for v4 in FAMILIES {
            site.world.outside.expect_tcp(member_at(0, v4), TRAP + 1, Silent);
        }
        let calls: u64 = callers.map(Caller::finish).iter().sum();
        let lines = site.finish();
        figure(
            "R3",
            &format!(
                "{hook:?}: {rounds} starts with other limits, {lines} lines there and back and {calls} calls, \
                 0 resets, {:.0} s",
                watch.elapsed().as_secs_f64()
            ),
        );
    }
}

#[test]
fn a_daemon_that_dies_while_it_carries_leaves_what_the_next_one_goes_on_with() {
    if !root() {
        return;
    }
    let mut site = Site::new(HOOKS[0]);
    let judged = site.judged();
    let mut died = [0; 3];
    for round in Effort::new(few(12), 60).rounds() {
        let limits = LIMITS[(round as usize + 1) % LIMITS.len()];
        let when = format!("death {round}, {limits}");
        site.world.hub.process().kill();
        configure(&site.world, site.hook, limits);
        site.world.hub.launch();
        // While the new maps are filled, while both are there, or at any other moment.
        let pins = site.pins();
        let seen = |folder: &str| fs::read_dir(pins.join(folder)).is_ok_and(|mut all| all.next().is_some());
        let watch = Stopwatch::start();
        match round % 3 {
            0 => while !seen("new") && watch.elapsed() < PATIENCE {},
            1 => while !seen("old") && watch.elapsed() < PATIENCE {},
            _ => std::thread::sleep(Duration::from_millis(25 * (round % 20))),
        }
        died[(round % 3) as usize] += u64::from(watch.elapsed() < PATIENCE);
        site.world.hub.process().kill();
        site.goes_on(&when);
        site.restart(limits, true, &when);
        assert_eq!(site.lost(), "", "{when}");
        site.keeps_out(&when);
        site.is_whole(&when);
        assert_eq!(site.judged(), judged, "{when}");
    }
    assert!(died.iter().all(|count| *count > 0), "{died:?}");
    assert!(site.finish() > 0);
}

/// Puts a map of another layout in the place of one, as another version would have left it.
fn replace(site: &Site, name: &str, value: usize) {
    let pin = site.pins().join(name).display().to_string();
    let shown = site.world.router.sh(&format!("bpftool -j map show pinned {pin}"));
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let (kind, key) = (shown["type"].as_str().unwrap(), &shown["bytes_key"]);
    site.world.router.sh(&format!(
        "rm {pin} && bpftool map create {pin} type {kind} key {key} value {value} entries {} name other",
        shown["max_entries"]
    ));
}

#[test]
fn a_table_of_another_layout_begins_empty_alone() {
    if !root() {
        return;
    }
    let mut site = Site::new(HOOKS[0]);
    let mut judged = site.judged();
    let limits = LIMITS[1];
    // Of `EVENT_GATE` nobody misses anything.
    for (name, value) in [("HOPS", 72), ("WATCHES", 8), ("EVENT_GATE", 16), ("RULE_HITS", 32)] {
        let packets = site.packets();
        assert!(site.world.hub.process().stop().success());
        replace(&site, name, value);
        configure(&site.world, site.hook, limits);
        site.world.hub.restart();
        site.goes_on(name);
        let lost = site.lost();
        let expected = match name {
            "HOPS" => 4,
            "EVENT_GATE" => 0,
            _ => 1,
        };
        assert_eq!(lost.matches("begins empty").count(), expected, "{lost}");
        assert_eq!(lost.contains(&format!("map {name} has")), expected > 0, "{name}: {lost}");
        assert!(site.packets() > packets, "{name}");
        if name == "RULE_HITS" {
            assert!(judged.values().sum::<u64>() >= 4, "{judged:?}");
            for packets in judged.values_mut() {
                *packets = 0;
            }
        }
        let now = site.judged();
        let is_same =
            |(rule, packets): (&String, &u64)| now.get(rule).copied().unwrap_or_default() == *packets;
        assert!(judged.iter().all(is_same), "{name}: {now:?} instead of {judged:?}");
        site.keeps_out(name);
        site.is_whole(name);
        assert_eq!(site.world.hub.log().contains(&format!("map {name} has")), expected > 0, "{name}");
        // The next start has nothing to say.
        site.restart(limits, false, name);
        assert_eq!(site.lost(), "", "{name}");
    }
    assert!(site.finish() > 0);
}

#[test]
fn a_link_that_cannot_be_opened_now_keeps_the_program_of_before() {
    if !root() {
        return;
    }
    // Links of XDP are there on every kernel.
    let mut site = Site::new(HOOKS[1]);
    let links = site.pins().join("link").display().to_string();
    for limits in [LIMITS[0], LIMITS[1]] {
        let attached = site.attached();
        assert!(site.world.hub.process().stop().success());
        configure(&site.world, site.hook, limits);
        let before = site.running();
        site.world.router.sh(&format!("chmod 000 {links}/*"));
        // Who owns a file may open it all the same, but for this.
        site.world.hub.restart_under(&["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]);
        let said = || site.world.hub.log().contains("take over the link of hub_");
        wait_until("links were refused", PATIENCE, said);
        site.goes_on("links that cannot be opened");
        site.keeps_out("links that cannot be opened");
        assert_eq!(site.running(), before, "the programs of before run, and no others");
        site.world.router.sh(&format!("chmod 600 {links}/*"));
        wait_until("the programs of now take their places", PATIENCE, || site.attached() == attached);
        site.is_whole("links can be opened again");
        assert!(site.running().iter().all(|program| !before.contains(program)));
        site.goes_on("links can be opened again");
        assert!(site.world.hub.process().stop().success());
        site.world.hub.restart();
    }
    assert!(site.finish() > 0);
}

#[test]
fn what_cannot_be_carried_over_begins_anew_as_a_whole() {
    if !root() {
        return;
    }
    let mut world = World::with(1, STRICT);
    let _inside = world.members[0].serve(&[80]);
    let rules: Vec<Value> = (0..1_500)
        .map(|number| json!({"protocol": "udp", "port": 2 * number + 3_000, "action": "allow"}))
        .chain([json!({"protocol": "tcp", "port": 80, "action": "allow"})])
        .take(1_000)
        .collect();
    world.create(0, &json!({"security_policies": rules, "default_action": "deny"}));
    let config = Config::default().interface("up0", "uplink").interface("seg0", "segment");
    let status = |world: &World| world.hub.get("/v1/status").expect(200)["conditions"].to_string();
    // Connections of another version.
    world.hub.process().kill();
    lose_flows(&world);
    world.hub.restart();
    let said = status(&world);
    assert!(said.contains("ColdStart") && said.contains("map FLOWS has"), "{said}");
    world.active("p0");
    // More rules than there is room for.
    world.hub.process().kill();
    world.hub.configure(&config.clone().with("limits: {rules: 64}"));
    world.hub.restart();
    let said = status(&world);
    assert!(said.contains("map RULES has") && said.contains("what is in use needs 1"), "{said}");
    // And back: what is there is carried over.
    world.hub.process().kill();
    world.hub.configure(&config.with("limits: {rules: 8192}"));
    world.hub.restart();
    assert!(!status(&world).contains("ColdStart"), "{}", status(&world));
    world.active("p0");
    let left = world.hub.hubctl(&["--json", "gc", "--dry-run"]).expect_success();
    assert_eq!(serde_json::from_str::<Value>(&left).unwrap(), json!({"found": []}));
}

/// Puts the flows of another version in the place of those that are there.
fn lose_flows(world: &World) {
    let pin = world.hub.folder().join("bpf/hub/v1/FLOWS").display().to_string();
    world.router.sh(&format!(
        "rm {pin} && bpftool map create {pin} type hash key 40 value 64 entries 262144 name other"
    ));
}

#[test]
fn a_start_that_began_anew_and_was_broken_off_is_ended_by_the_next_one() {
    if !root() {
        return;
    }
    let mut world = World::new(1);
    let _inside = world.members[0].serve(&[80]);
    world.create(0, &json!({"security_policies": [{"protocol": "tcp", "port": 80, "action": "allow"}]}));
    let mut streams = FAMILIES.map(|v4| world.outside.connect(member_at(0, v4), 80));
    let pins = world.hub.folder().join("bpf/hub/v1");
    let status = |world: &World| world.hub.get("/v1/status").expect(200)["conditions"].to_string();
    world.hub.process().kill();
    lose_flows(&world);
    // The maps have begun anew by when it cannot pin its programs.
    world.router.sh(&format!("chmod 500 {}", pins.join("prog").display()));
    world.hub.launch_under(&["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]);
    wait_until("the start is broken off", PATIENCE, || !world.hub.process().is_running());
    assert!(pins.join("anew/lost").exists(), "{}", world.hub.log());
    world.router.sh(&format!("chmod 700 {}", pins.join("prog").display()));
    world.hub.restart();
    assert!(status(&world).contains("was broken off"), "{}", status(&world));
    let goes_on = |streams: &mut [TcpStream; 2]| streams.iter_mut().all(|stream| echoes(stream, PATIENCE));
    assert!(
        goes_on(&mut streams),
        "connections that no map knows go on, as after any start that begins anew"
    );
    assert!(!pins.join("anew").exists());
    world.hub.process().kill();
    world.hub.restart();
    assert!(!status(&world).contains("ColdStart") && goes_on(&mut streams), "{}", status(&world));
}
