//! Programs as filters of `clsact`, which kernels before 6.6 need and others may be told to use.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::time::Duration;

use hub_tests::lab::Outcome::{Answered, Silent};
use hub_tests::lab::world::{FAMILIES, member_at, outside_at};
use hub_tests::lab::{Config, World, echoes, wait_until};
use hub_tests::root;
use nix::sys::signal::Signal;
use serde_json::json;

const CLSACT: &str = "attach: {tc: clsact}";
/// How long programs that others removed may be away.
const REPAIR: Duration = Duration::from_secs(5);

fn world() -> World {
    let world = World::with(1, CLSACT);
    world.create(0, &json!({"security_policies": [{"protocol": "tcp", "port": 80, "action": "allow"}]}));
    world
}

/// How the TC programs of a port are attached, by the hub's status.
fn modes(world: &World, interface: &str) -> Vec<String> {
    let status = world.hub.get("/v1/status").expect(200);
    let all = status["attachments"].as_array().unwrap().clone();
    let fitting = all.iter().filter(|entry| entry["interface"] == interface && entry["hook"] != "xdp_in");
    fitting.map(|entry| entry["mode"].as_str().unwrap().to_owned()).collect()
}

/// Our filters on both sides of a port, as `tc` names them.
fn filters(world: &World, interface: &str) -> Vec<String> {
    let shown = world
        .router
        .sh(&format!("tc filter show dev {interface} ingress; tc filter show dev {interface} egress"));
    let ours = shown.lines().filter(|line| line.contains("hub_tc_"));
    ours.map(|line| line.split_once("handle").unwrap().1.split(" id ").next().unwrap().trim().to_owned())
        .collect()
}

const OURS: [&str; 2] = ["0xb1 hub_tc_in direct-action not_in_hw", "0xb1 hub_tc_out direct-action not_in_hw"];

fn expect_policy(world: &World) {
    for v4 in FAMILIES {
        world.outside.expect_tcp(member_at(0, v4), 80, Answered);
        world.outside.expect_tcp(member_at(0, v4), 81, Silent);
        world.members[0].expect_ping(outside_at(v4), Answered);
    }
}

fn down(world: &mut World) {
    world.hub.process().stop();
    let folder = world.lab.folder().display().to_string();
    let words = ["down", "--bpffs", &format!("{folder}/bpf"), "--runtime-dir", &format!("{folder}/run")];
    world.hub.hubctl(&words).expect_success();
}

#[test]
fn filters_judge_and_the_status_says_so() {
    if !root() {
        return;
    }
    let world = world();
    let _servers = world.members[0].serve(&[80, 81]);
    expect_policy(&world);
    for port in ["up0", "seg0"] {
        assert_eq!(modes(&world, port), ["clsact", "clsact"]);
        assert_eq!(filters(&world, port), OURS);
    }
    let status = world.hub.get("/v1/status").expect(200);
    assert!(status["conditions"].to_string().contains("ClsactFilters"), "{status:#}");
    let shown = world.hub.hubctl(&["status"]).expect_success();
    assert!(shown.contains("ClsactFilters") && shown.contains(" clsact "), "{shown}");
}

#[test]
fn a_restart_replaces_the_filters_and_keeps_connections() {
    if !root() {
        return;
    }
    let mut world = world();
    let _servers = world.members[0].serve(&[80, 81]);
    let before = ["up0", "seg0"].map(|port| filters(&world, port));
    let mut streams = FAMILIES.map(|v4| world.outside.connect(member_at(0, v4), 80));
    for _ in 0..3 {
        world.hub.process().kill();
        assert!(streams.iter_mut().all(|stream| echoes(stream, Duration::from_secs(5))));
        world.hub.restart();
        assert!(streams.iter_mut().all(|stream| echoes(stream, Duration::from_secs(5))));
        assert_eq!(["up0", "seg0"].map(|port| filters(&world, port)), before, "one filter on each side");
    }
    expect_policy(&world);
}

#[test]
fn what_others_remove_is_back_within_five_seconds() {
    if !root() {
        return;
    }
    let world = world();
    let _servers = world.members[0].serve(&[80, 81]);
    for words in [
        "qdisc del dev seg0 clsact",
        "filter del dev seg0 ingress pref 1",
        "filter del dev up0 egress pref 1",
    ] {
        world.router.sh(&format!("tc {words}"));
        wait_until("the filters are back", REPAIR, || {
            filters(&world, "seg0") == OURS && filters(&world, "up0") == OURS
        });
        expect_policy(&world);
    }
    let metrics = world.router.sh("curl --silent http://127.0.0.1:9178/metrics");
    let drift = metrics.lines().find(|line| line.contains("drift") && line.contains("ports"));
    assert!(drift.is_some_and(|line| !line.ends_with(" 0")), "{drift:?}");
}

#[test]
fn a_port_whose_filters_cannot_be_put_back_is_closed_until_they_can() {
    if !root() {
        return;
    }
    let mut world = world();
    let _servers = world.members[0].serve(&[80, 81]);
    expect_policy(&world);
    // While nobody looks: a qdisc of another kind has the place of clsact, and no side for what leaves.
    world.hub.process().signal(Signal::SIGSTOP);
    world.router.sh("tc qdisc del dev seg0 clsact && tc qdisc add dev seg0 ingress");
    world.hub.process().signal(Signal::SIGCONT);
    wait_until("the gate is closed", REPAIR, || world.router.gates("seg0") == 2);
    for v4 in FAMILIES {
        world.members[0].expect_ping(outside_at(v4), Silent);
        world.outside.expect_tcp(member_at(0, v4), 80, Silent);
    }
    let conditions = world.hub.get("/v1/status").expect(200)["conditions"].to_string();
    assert!(conditions.contains("that is in the place of clsact"), "{conditions}");
    world.router.sh("tc qdisc del dev seg0 ingress");
    wait_until("the filters are back", REPAIR, || {
        filters(&world, "seg0") == OURS && world.router.gates("seg0") == 0
    });
    expect_policy(&world);
}

#[test]
fn filters_of_others_stay_and_nothing_of_ours_does() {
    if !root() {
        return;
    }
    let mut world = World::with(0, CLSACT);
    let foreign = "tc qdisc show dev spare0; tc filter show dev spare0 ingress";
    world.router.sh("ip link add spare0 type veth peer name spare1 && ip link set spare0 up
         tc qdisc add dev spare0 clsact
         tc filter add dev spare0 ingress bpf direct-action bytecode '1,6 0 0 4294967295'");
    let before = world.router.sh(foreign);
    assert!(before.contains("clsact") && before.contains("bytecode"), "{before}");
    let config = Config::default().interface("up0", "uplink").interface("spare0", "segment").with(CLSACT);
    world.hub.process().stop();
    world.hub.configure(&config);
    world.hub.restart();
    wait_until("both ports have filters", REPAIR, || {
        filters(&world, "spare0") == OURS && filters(&world, "up0") == OURS
    });
    down(&mut world);
    assert_eq!(world.router.sh(foreign), before);
    let left = world.router.sh("tc qdisc show dev up0");
    assert!(!left.contains("clsact"), "the hub made it and leaves it: {left}");
}

#[test]
fn the_hook_may_change_at_a_restart() {
    if !root() {
        return;
    }
    let mut world = world();
    let _servers = world.members[0].serve(&[80, 81]);
    let config =
        |lines: &str| Config::default().interface("up0", "uplink").interface("seg0", "segment").with(lines);
    world.hub.process().stop();
    world.hub.configure(&config("attach: {tc: auto}"));
    world.hub.restart();
    expect_policy(&world);
    if modes(&world, "seg0") == ["tcx", "tcx"] {
        assert_eq!(filters(&world, "seg0"), Vec::<String>::new());
        let left = world.router.sh("tc qdisc show dev seg0");
        assert!(!left.contains("clsact"), "{left}");
        world.hub.process().stop();
        world.hub.configure(&config(CLSACT));
        world.hub.restart();
        expect_policy(&world);
    }
    assert_eq!(modes(&world, "seg0"), ["clsact", "clsact"]);
    assert_eq!(filters(&world, "seg0"), OURS);
}
