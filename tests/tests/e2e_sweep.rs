//! Many personas: all end in one second, and one comes while others work.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::fmt::Write as _;
use std::net::UdpSocket;
use std::time::Duration;

use hub_tests::effort::figure;
use hub_tests::lab::Outcome::Answered;
use hub_tests::lab::world::{FAMILIES, member_at};
use hub_tests::lab::{Sender, Space, Stopwatch, Stream, World, wait_until};
use hub_tests::root;
use jiff::{SignedDuration, Timestamp};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// Personas that end in the same second.
const PERSONAS: usize = 10_000;
/// Those of them that have members and traffic.
const SAMPLE: usize = 3;
/// One in so many of the others has IPv6 too. All of the others are sent a packet of each family that they have after
/// their end.
const EVERY: usize = 20;
/// Personas that come one after the other while others work.
const NEWCOMERS: usize = 100;
/// Within this long they are there.
const SOON: Duration = Duration::from_secs(1);
/// Between two packets of a stream.
const PAUSE: Duration = Duration::from_millis(1);
/// A machine that builds beside the test has time to load so many.
const LONG: Duration = Duration::from_mins(5);

/// From here on after the end nothing passes.
const GRACE: SignedDuration = SignedDuration::from_millis(10);

/// Whether a persona without members has IPv6 beside IPv4, by its number.
const fn has_both(number: usize) -> bool {
    number >= SAMPLE && (number - SAMPLE).is_multiple_of(EVERY)
}

/// Documents of personas; the first `members` have a port each, and IPv6 beside IPv4, as some of the others.
fn documents(count: usize, members: usize, end: Option<Timestamp>) -> String {
    (0..count).fold(String::new(), |mut text, number| {
        write!(text, "---\nkind: persona\n").unwrap();
        if number < members {
            write!(text, "name: p{number}\ninterfaces: [seg{number}]\n").unwrap();
            writeln!(text, "ip_range: [10.100.{number}.0/24, 'fd00:100:{number}::/64']").unwrap();
        } else {
            let v6 = if has_both(number) { format!(", 'fd00:300:{number}::/64'") } else { String::new() };
            let v4 = format!("10.{}.{}.0/24", number / 250, number % 250);
            write!(text, "name: f{number}\nip_range: [{v4}{v6}]\n").unwrap();
        }
        if let Some(end) = end {
            writeln!(text, "expiration: {end}").unwrap();
        }
        text
    })
}

fn count(world: &World, state: &str) -> u64 {
    world.hub.get("/v1/status").body["personas"][state].as_u64().unwrap_or(0)
}

/// Gives the hub these documents and waits until it has them. Returns the time that took.
fn load(world: &mut World, documents: &str, personas: usize) -> Duration {
    let watch = Stopwatch::start();
    let taken = |world: &World| world.hub.log().matches("documents taken").count();
    let before = taken(world);
    std::fs::write(world.hub.documents().join("many.yaml"), documents).unwrap();
    world.hub.process().signal(Signal::SIGHUP);
    wait_until("the documents are taken", LONG, || taken(world) > before);
    wait_until("all are active", LONG, || count(world, "active") == personas as u64);
    watch.elapsed()
}

/// A hub with ten thousand personas that end together, some of them with members; returns the end.
fn crowd() -> (World, Timestamp) {
    let mut world = World::new(SAMPLE);
    let far = Timestamp::now() + SignedDuration::from_hours(9);
    let took = load(&mut world, &documents(PERSONAS, SAMPLE, Some(far)), PERSONAS);
    // Whatever that took: changing them takes no longer than thrice as long.
    let lead = SignedDuration::try_from(took * 3).unwrap() + SignedDuration::from_secs(10);
    let end = Timestamp::from_second((Timestamp::now() + lead).as_second()).unwrap();
    load(&mut world, &documents(PERSONAS, SAMPLE, Some(end)), PERSONAS);
    assert!(Timestamp::now() + SignedDuration::from_secs(5) < end, "the machine is too busy for this test");
    (world, end)
}

fn streams(world: &World) -> Vec<Sender> {
    let start = |number: usize, v4: bool| {
        let port = if v4 { 7_004 } else { 7_006 };
        Sender::start(&world.outside, &world.members[number], member_at(number, v4), port, PAUSE)
    };
    (0..SAMPLE).flat_map(|number| FAMILIES.map(|v4| start(number, v4))).collect()
}

/// Every stream flowed until the end and brought nothing after it.
fn check(streams: Vec<Sender>, end: Timestamp) {
    let end = end.duration_since(Timestamp::UNIX_EPOCH).as_secs_f64();
    for stream in streams {
        let arrivals = stream.stop();
        let last = arrivals.times.iter().copied().fold(0.0, f64::max);
        let after = arrivals.times.iter().filter(|time| **time > end + 0.01).count();
        assert!(arrivals.times.len() > 100, "{} arrived", arrivals.times.len());
        assert!(last > end - 1.0, "ended {} s early", end - last);
        assert_eq!(after, 0, "the last one came {} s after the end", last - end);
    }
}

/// Sends one packet of each family that it has to each of the personas without members. Returns how many.
fn knock(world: &World) -> u64 {
    world.outside.within(|| {
        let [v4, v6] = ["0.0.0.0:0", "[::]:0"].map(|any| UdpSocket::bind(any).unwrap());
        let mut sent = 0;
        for number in SAMPLE..PERSONAS {
            v4.send_to(b"knock", format!("10.{}.{}.5:53", number / 250, number % 250)).unwrap();
            sent += 1;
            if has_both(number) {
                v6.send_to(b"knock", format!("[fd00:300:{number}::5]:53")).unwrap();
                sent += 1;
            }
        }
        sent
    })
}

/// Every one of these packets was refused because of its persona's end, and for nothing else.
fn refused(world: &World, sent: u64) {
    let hooks = world.hub.get("/v1/counters").expect(200)["hooks"].clone();
    let pairs = hooks.as_array().unwrap().iter().flat_map(|hook| hook["reasons"].as_array().unwrap());
    let expired: u64 = pairs.filter(|pair| pair[0] == "expired").map(|pair| pair[1].as_u64().unwrap()).sum();
    let streams: u64 = (0..SAMPLE).map(|number| world.dropped(&format!("p{number}"), "expired")).sum();
    assert_eq!(expired - streams, sent, "{hooks:#}");
    for number in (SAMPLE..PERSONAS).filter(|number| has_both(*number)) {
        let counts = world.hub.get(&format!("/v1/personas/f{number}/counters")).expect(200);
        let drops = counts["drops"].as_array().unwrap();
        let told: Vec<_> = drops.iter().map(|drop| (&drop["reason"], &drop["packets"])).collect();
        assert_eq!(told, [(&json!("expired"), &json!(2))], "f{number}: {counts:#}");
    }
}

fn until(moment: Timestamp, after: SignedDuration) {
    let moment = moment + after;
    wait_until("the moment", LONG, || Timestamp::now() > moment);
}

#[test]
fn ten_thousand_end_in_one_second_without_the_daemon_and_with_it() {
    if !root() {
        return;
    }
    let (mut world, end) = crowd();
    until(end, SignedDuration::from_secs(-3));
    let sent = streams(&world);
    until(end, SignedDuration::from_secs(-1));
    world.hub.process().signal(Signal::SIGSTOP);
    until(end, GRACE);
    let knocked = knock(&world);
    until(end, SignedDuration::from_secs(1));
    check(sent, end);
    let watch = Stopwatch::start();
    world.hub.process().signal(Signal::SIGCONT);
    refused(&world, knocked);
    wait_until("all have ended", LONG, || count(&world, "expired") == PERSONAS as u64);
    wait_until("routes are gone", LONG, || {
        FAMILIES.iter().all(|v4| {
            let family = if *v4 { "-4" } else { "-6" };
            world.router.sh(&format!("ip {family} route show proto 177 | wc -l")).trim() == "0"
        })
    });
    let gone = watch.elapsed();
    figure(
        "P28",
        &format!(
            "routes of {PERSONAS} personas that ended without the daemon are gone {gone:.1?} after it went on"
        ),
    );
}

#[test]
fn the_api_answers_while_ten_thousand_end() {
    if !root() {
        return;
    }
    let (world, end) = crowd();
    until(end, SignedDuration::from_secs(-3));
    let sent = streams(&world);
    until(end, SignedDuration::from_secs(-1));
    let mut took = Vec::new();
    while count(&world, "expired") < PERSONAS as u64 || took.len() < 200 {
        let watch = Stopwatch::start();
        world.hub.get("/v1/personas/p0").expect(200);
        took.push(watch.elapsed());
        assert!(took.len() < 100_000, "the sweep ends");
    }
    check(sent, end);
    took.sort_unstable();
    let p99 = took[took.len() * 99 / 100];
    assert!(p99 < Duration::from_millis(200), "p99 {p99:?} of {} answers", took.len());
}

#[test]
fn a_newcomer_among_two_hundred_is_there_within_a_second_and_disturbs_nobody() {
    if !root() {
        return;
    }
    let mut world = World::new(1);
    load(&mut world, &documents(200, 1, None), 200);
    let homes: Vec<_> = (0..NEWCOMERS).map(|number| world.lab.space(&format!("n{number}"))).collect();
    let others = FAMILIES.map(|v4| {
        let port = if v4 { 7_004 } else { 7_006 };
        Stream::start(&world.outside, &world.members[0], member_at(0, v4), port, PAUSE)
    });
    // Others build and test on this machine: a round that they disturb is measured again.
    let mut rounds = Vec::new();
    while rounds.len() < 3 && rounds.iter().all(|took| *took >= SOON) {
        rounds.push(newcomers(&world, &homes));
    }
    for (family, stream) in ["IPv4", "IPv6"].iter().zip(others) {
        let seen = stream.finish();
        assert!(seen.sent > 1_000, "{family}: {} sent", seen.sent);
        assert_eq!(seen.returned, seen.sent, "{family}: a neighbour lost packets");
    }
    assert!(rounds.iter().any(|took| *took < SOON), "p99 of rounds: {rounds:?}");
}

/// Makes personas one after the other, each with an endpoint in a namespace that is there, and removes them. The
/// time until 99 of 100 had answered their first packet in both families.
fn newcomers(world: &World, homes: &[Space]) -> Duration {
    let mut took: Vec<[Duration; 2]> = (0..NEWCOMERS)
        .map(|number| {
            let addresses = [format!("10.200.{number}.10"), format!("fd00:200:{number}::10")];
            let definition = json!({
                "name": format!("n{number}"),
                "ip_range": [format!("10.200.{number}.0/24"), format!("fd00:200:{number}::/64")],
                "endpoints": [{"name": "one", "namespace": homes[number].name(), "address": addresses}],
            });
            let watch = Stopwatch::start();
            let view: Value = world.hub.send("POST", "/v1/personas", &definition).expect(201);
            assert_eq!(view["state"], "active", "{view:#}");
            let active = watch.elapsed();
            // One packet each: the first one passes.
            for address in addresses {
                world.outside.expect_ping(address.parse().unwrap(), Answered);
            }
            [active, watch.elapsed()]
        })
        .collect();
    for number in 0..NEWCOMERS {
        world.hub.request("DELETE", &format!("/v1/personas/n{number}"), &[], "").expect(204);
    }
    let mut of = |which: usize, percent: usize| {
        took.sort_unstable_by_key(|times| times[which]);
        took[took.len() * percent / 100][which]
    };
    for (what, which) in [("active", 0), ("an answer in both families", 1)] {
        let [half, most] = [50, 98].map(|percent| of(which, percent));
        figure("P5", &format!("{NEWCOMERS} newcomers, {what}: p50 {half:?}, p99 {most:?}"));
    }
    of(1, 98)
}
