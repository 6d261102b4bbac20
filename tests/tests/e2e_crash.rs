//! The daemon is killed and replaced again and again: no datagram of a paced stream is lost, no connection
//! ends. Every start puts its own programs in the place of those that run.

use std::time::Duration;

use hub_tests::effort::{Effort, figure};
use hub_tests::lab::world::{FAMILIES, member_at};
use hub_tests::lab::{Stopwatch, Stream, World, echoes};
use hub_tests::root;
use serde_json::json;

/// Rounds in everyday runs and in long ones; each is a kill and a start, an end and a start.
const ROUNDS: [u64; 2] = [10, 1_000];
const PAUSE: Duration = Duration::from_micros(500);
const PATIENCE: Duration = Duration::from_secs(5);

#[test]
fn kills_and_swaps_lose_no_packet() {
    if !root() {
        return;
    }
    let mut world = World::new(1);
    let member = world.members[0].clone();
    let _inside = member.serve(&[80]);
    let rules = json!([
        {"protocol": "udp", "port": [7001, 7002], "action": "allow"},
        {"protocol": "tcp", "port": 80, "action": "allow"},
        {"protocol": "any", "action": "deny"},
    ]);
    world.create(0, &json!({"security_policies": rules}));
    let watch = Stopwatch::start();
    let streams = [(true, 7001), (false, 7002)]
        .map(|(v4, port)| Stream::start(&world.outside, &member, member_at(0, v4), port, PAUSE));
    let mut connections = FAMILIES.map(|v4| world.outside.connect(member_at(0, v4), 80));
    let mut programs = std::collections::BTreeSet::new();
    let mut rounds = 0;
    for round in Effort::new(ROUNDS[0], ROUNDS[1]).rounds() {
        world.hub.process().kill();
        assert!(connections.iter_mut().all(|tcp| echoes(tcp, PATIENCE)), "round {round}: dead");
        world.hub.restart();
        assert!(connections.iter_mut().all(|tcp| echoes(tcp, PATIENCE)), "round {round}: started");
        assert!(world.hub.process().stop().success());
        world.hub.restart();
        assert!(connections.iter_mut().all(|tcp| echoes(tcp, PATIENCE)), "round {round}: replaced");
        let status = world.hub.get("/v1/status").expect(200);
        programs.extend(status["attachments"].as_array().into_iter().flatten().filter_map(program));
        rounds = round + 1;
    }
    let seen = streams.map(Stream::finish);
    let sent: u64 = seen.iter().map(|seen| seen.sent).sum();
    let arrived: u64 = seen.iter().map(|seen| seen.arrived.len() as u64).sum();
    let returned: u64 = seen.iter().map(|seen| seen.returned).sum();
    figure(
        "R3",
        &format!(
            "{rounds} kills, {} swaps, {sent} datagrams, {} lost on the way, {} lost on the way back, 0 resets, {:.0} s",
            2 * rounds,
            sent - arrived,
            arrived - returned,
            watch.elapsed().as_secs_f64(),
        ),
    );
    assert!(sent > rounds * 100, "{sent} datagrams are too few to say anything");
    assert_eq!((arrived, returned), (sent, sent));
    assert_eq!(world.total("dropped"), 0);
    // The programs were others each time: a restart is a swap.
    assert!(programs.len() as u64 >= 2 * rounds, "{programs:?}");
}

fn program(attachment: &serde_json::Value) -> Option<u64> {
    attachment["program_id"].as_u64()
}
