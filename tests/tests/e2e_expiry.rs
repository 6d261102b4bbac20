//! A persona ends at its deadline, also when nobody is there to end it.

use std::time::Duration;

use hub_tests::effort::{Effort, figure};
use hub_tests::lab::Outcome::{Answered, Silent};
use hub_tests::lab::world::{FAMILIES, member_at, outside_at};
use hub_tests::lab::{Stopwatch, Stream, World, slowness, wait_until};
use hub_tests::root;
use jiff::{SignedDuration, Timestamp};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// The time after a span, a longer one where everything takes longer.
fn after(span: Duration) -> Timestamp {
    let span = span * slowness();
    Timestamp::now() + SignedDuration::try_from(span).expect("a test ends in the lifetime of its author")
}

/// A hub whose member answers pings until the returned deadline.
fn ending(span: Duration) -> (World, Timestamp) {
    let world = World::new(1);
    let deadline = after(span);
    world.create(0, &json!({"expiration": deadline.to_string()}));
    (world, deadline)
}

fn until(deadline: Timestamp) -> Duration {
    let left = deadline.duration_since(after(Duration::ZERO));
    Duration::try_from(left).unwrap_or_default()
}

#[test]
fn the_deadline_holds_while_the_daemon_is_stopped() {
    if !root() {
        return;
    }
    let (mut world, deadline) = ending(Duration::from_secs(4));
    for v4 in FAMILIES {
        world.outside.expect_ping(member_at(0, v4), Answered);
    }
    world.hub.process().signal(Signal::SIGSTOP);
    let pings: Vec<_> = FAMILIES
        .into_iter()
        .map(|v4| {
            let space = world.outside.clone();
            std::thread::spawn(move || {
                let script = format!("ping -D -n -i 0.02 -w {} {}", 6 * slowness(), member_at(0, v4));
                space.try_sh(&script, Duration::from_secs(12)).stdout
            })
        })
        .collect();
    for ping in pings {
        let said = ping.join().unwrap();
        let stamps = said.lines().filter(|line| line.contains("bytes from")).filter_map(|line| {
            let stamp = line.strip_prefix('[')?.split(']').next()?;
            stamp.parse::<f64>().ok()
        });
        let last = stamps.fold(0.0, f64::max);
        let end = deadline.duration_since(Timestamp::UNIX_EPOCH).as_secs_f64();
        assert!(last > end - 1.0, "the persona ended {} s early", end - last);
        assert!(last < end + 1.0, "the persona lived {} s too long", last - end);
    }
    world.members[0].expect_ping(outside_at(true), Silent);
    world.hub.process().signal(Signal::SIGCONT);
    wait_until("the hub has noticed", Duration::from_secs(5), || {
        world.hub.get("/v1/personas/p0").body["state"] == "expired"
    });
    assert!(world.dropped("p0", "expired") > 10);
}

/// Datagrams that were sent this long after the deadline or later must not arrive.
const GRACE: Duration = Duration::from_millis(10);

#[test]
fn no_packet_passes_after_the_deadline() {
    if !root() {
        return;
    }
    let rounds = Effort::new(1, 50);
    let (mut arrived, mut refused, mut latest) = (0, 0, i64::MIN);
    for _ in rounds.rounds() {
        let mut world = World::new(1);
        let deadline = after(Duration::from_secs(4));
        let fields = json!({
            "expiration": deadline.to_string(),
            "security_policies": [{"protocol": "udp", "port": [7001, 7002], "action": "allow"}],
        });
        world.create(0, &fields);
        let pause = Duration::from_micros(300);
        let streams = [(true, 7001), (false, 7002)].map(|(v4, port)| {
            Stream::start(&world.outside, &world.members[0], member_at(0, v4), port, pause)
        });
        world.hub.process().signal(Signal::SIGSTOP);
        wait_until("the deadline has passed", Duration::from_secs(10), || {
            after(Duration::ZERO).duration_since(deadline) > SignedDuration::from_millis(500)
        });
        let deadline_ns = u64::try_from(deadline.as_nanosecond()).expect("after 1970");
        for seen in streams.map(Stream::finish) {
            let last = seen.arrived.iter().max().copied().expect("the stream flowed before");
            let late = last.cast_signed() - deadline_ns.cast_signed();
            latest = latest.max(late);
            assert!(late < GRACE.as_nanos() as i64, "one that was sent {late} ns after the deadline passed");
            // It flowed until then, or its silence says nothing.
            assert!(late > -1_000_000_000, "{late}");
            arrived += seen.arrived.len() as u64;
            refused += seen.sent - seen.arrived.len() as u64;
        }
        world.hub.process().signal(Signal::SIGCONT);
    }
    figure(
        "R11",
        &format!(
            "{arrived} datagrams before, {refused} refused after; the last was sent {latest} ns after the deadline"
        ),
    );
    assert!(refused > 100, "{refused}");
}

#[test]
fn routes_and_addresses_go_within_a_second_of_the_deadline() {
    if !root() {
        return;
    }
    let (world, deadline) = ending(Duration::from_secs(2));
    let has_any = || {
        let shown =
            world.router.sh("ip route show table all proto 177; ip -6 route show table all proto 177");
        let addresses = world.router.ip("-oneline address show dev seg0");
        !shown.trim().is_empty() || addresses.contains("10.100.0.1/") || addresses.contains("fd00:100::1/")
    };
    assert!(has_any());
    wait_until("the deadline", Duration::from_secs(3), || until(deadline).is_zero());
    let late = Stopwatch::start();
    wait_until("routes and addresses are gone", Duration::from_secs(3), || !has_any());
    assert!(late.elapsed() <= Duration::from_secs(1), "{:?}", late.elapsed());
    world.outside.expect_ping(member_at(0, true), Silent);
}

#[test]
fn a_persona_may_be_extended_while_it_lives_and_never_after() {
    if !root() {
        return;
    }
    let (mut world, deadline) = ending(Duration::from_secs(3));
    let patch = |span: Duration| json!({"expiration": after(span).to_string()});
    world.hub.send("PATCH", "/v1/personas/p0", &patch(Duration::from_secs(5))).expect(200);
    wait_until("the first deadline", Duration::from_secs(4), || until(deadline).is_zero());
    world.outside.expect_ping(member_at(0, true), Answered);
    world.outside.expect_ping(member_at(0, false), Answered);
    wait_until("the second deadline", Duration::from_secs(4), || {
        world.hub.get("/v1/personas/p0").body["state"] == "expired"
    });
    let answer = world.hub.send("PATCH", "/v1/personas/p0", &patch(Duration::from_mins(1)));
    assert!((400..500).contains(&answer.status), "{} {:#}", answer.status, answer.body);
    let whole = World::definition(0, &patch(Duration::from_mins(1)));
    let answer = world.hub.send("PUT", "/v1/personas/p0", &whole);
    assert!((400..500).contains(&answer.status), "{} {:#}", answer.status, answer.body);
    world.outside.expect_ping(member_at(0, true), Silent);

    world.hub.process().kill();
    world.hub.restart();
    world.outside.expect_ping(member_at(0, true), Silent);
    let found = world.hub.get("/v1/personas/p0");
    assert!(found.status == 404 || found.body["state"] == "expired", "{:#}", found.body);
}

#[test]
fn a_persona_that_ended_while_the_daemon_was_dead_stays_dead() {
    if !root() {
        return;
    }
    let (mut world, deadline) = ending(Duration::from_secs(2));
    let id = world.hub.get("/v1/personas/p0").body["id"].clone();
    world.hub.process().kill();
    wait_until("the deadline", Duration::from_secs(4), || until(deadline).is_zero());
    world.hub.restart();
    for v4 in FAMILIES {
        world.outside.expect_ping(member_at(0, v4), Silent);
    }
    let routes = world.router.sh("ip route show table all proto 177; ip -6 route show table all proto 177");
    assert_eq!(routes.trim(), "");
    let found = world.hub.get("/v1/personas/p0");
    assert!(found.status == 404 || found.body["state"] == "expired", "{:#}", found.body);
    // The name is free; the persona is another one.
    let again = world.create(0, &json!({"ttl": "1h"}));
    assert_ne!(again["id"], id);
    world.outside.expect_ping(member_at(0, true), Answered);
}

#[test]
fn a_deadline_in_the_past_is_refused() {
    if !root() {
        return;
    }
    let world = World::new(1);
    let past = World::definition(0, &json!({"expiration": "2024-12-31T23:59:59Z"}));
    let problem = world.hub.send("POST", "/v1/personas", &past).expect(422);
    assert!(problem.to_string().contains("/expiration"), "{problem:#}");
    let list = world.hub.get("/v1/personas").expect(200);
    assert!(!list.to_string().contains("p0"), "{list:#}");
    assert_ne!(list, Value::Null);
}
