//! Many personas at once: what ends meanwhile is gone in time.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use hub_tests::lab::{World, patience, wait_until};
use hub_tests::root;
use jiff::{SignedDuration, Timestamp};

/// Personas that come, each with an endpoint in a namespace.
const COMING: usize = 200;
/// Personas that end meanwhile, in both families.
const ENDING: usize = 30;

/// Second bytes of the ranges that are routed with the hub's number, of these that end.
fn routed(world: &World) -> BTreeSet<usize> {
    let routes = world.router.sh("ip route show proto 177; ip -6 route show proto 177");
    let of = |line: &str| {
        let target =
            line.split_whitespace().find(|word| word.starts_with("10.60.") || word.starts_with("fd60:"))?;
        let number = target.strip_prefix("10.60.").or_else(|| target.strip_prefix("fd60:"))?;
        number.split(['.', ':']).next()?.parse().ok()
    };
    routes.lines().filter_map(of).collect()
}

#[test]
fn personas_end_in_time_while_hundreds_are_made() {
    if !root() {
        return;
    }
    let mut world = World::new(1);
    let guests: Vec<String> =
        (0..COMING).map(|number| world.lab.space(&format!("guest{number}")).name().to_owned()).collect();
    let deadline = Timestamp::now() + SignedDuration::from_secs(12);
    let mut yaml = String::new();
    for number in 0..ENDING {
        let ranges = format!("[10.60.{number}.0/24, 'fd60:{number}::/64']");
        writeln!(yaml, "---\nkind: persona\nname: end{number}\nip_range: {ranges}\nexpiration: {deadline}")
            .unwrap();
    }
    std::fs::write(world.hub.documents().join("ends.yaml"), yaml).unwrap();
    world.hub.hubctl(&["apply"]).expect_success();
    assert_eq!(routed(&world).len(), ENDING);
    let mut yaml = String::new();
    for (number, guest) in guests.iter().enumerate() {
        writeln!(
            yaml,
            "---\nkind: persona\nname: come{number}\nip_range: 10.{}.{}.0/24\nttl: {}s\nendpoints: [{{name: \
             one, namespace: {guest}}}]",
            70 + number / 250,
            number % 250,
            600 + number,
        )
        .unwrap();
    }
    std::fs::write(world.hub.documents().join("load.yaml"), yaml).unwrap();
    wait_until("the end is near", Duration::from_mins(1), || {
        Timestamp::now() > deadline - SignedDuration::from_millis(500)
    });
    assert_eq!(routed(&world).len(), ENDING, "they are there until the end");
    world.hub.process().signal(nix::sys::signal::Signal::SIGHUP);
    wait_until("the deadline", Duration::from_mins(1), || Timestamp::now() >= deadline);
    let made = world.router.sh("ip -oneline link show group 177").lines().count();
    wait_until("all of them are gone", Duration::from_mins(1), || routed(&world).is_empty());
    let late = Timestamp::now().duration_since(deadline);
    assert!(made < COMING, "the test proves nothing: all {COMING} were made before the deadline");
    assert!(
        late < SignedDuration::from_secs(patience().into()),
        "gone {late:#} after the deadline, {made} of {COMING} made by then"
    );
    wait_until("all that come are active", Duration::from_mins(2), || {
        let personas = world.hub.get("/v1/personas?limit=1000").body;
        let active = personas["personas"].as_array().unwrap().iter().filter(|view| view["state"] == "active");
        active.count() == COMING
    });
    let routes = world.router.sh("ip route show proto 177");
    assert_eq!(routes.lines().filter(|line| line.contains("dev hub")).count(), COMING);
}
