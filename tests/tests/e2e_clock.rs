//! The machine's wall clock is set while personas live: ends by the calendar move with it, nobody lives longer for a
//! clock that goes back, and what ended stays so.
//!
//! Setting the clock is felt by every program of a machine, so this runs in machines that are emulated alone:
//! `HUB_TEST_CLOCK` is set there, by what boots them.
#![expect(clippy::indexing_slicing, reason = "a helper that cannot go on fails the test that called it")]

use std::fs::File;
use std::time::Duration;

use hub_tests::lab::Outcome::{Answered, Silent};
use hub_tests::lab::world::{FAMILIES, member_at};
use hub_tests::lab::{Stopwatch, World, slowness, wait_until};
use hub_tests::root;
use jiff::{SignedDuration, Timestamp};
use nix::sys::signal::Signal;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};
use serde_json::{Value, json};

const HOUR: SignedDuration = SignedDuration::from_hours(1);
const YEAR: SignedDuration = SignedDuration::from_hours(365 * 24);
/// By how much a clock may go back so that lives become longer for it.
const CORRECTION: Duration = Duration::from_mins(1);
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether this machine's clock is the test's to set. Says so when it is not.
#[expect(clippy::print_stderr, reason = "the reader of the test's output is told what was left out")]
fn may_set_the_clock() -> bool {
    let may = std::env::var_os("HUB_TEST_CLOCK").is_some();
    if !may {
        eprintln!("left out: this test sets the machine's clock: `cargo xtask vm e2e_clock` runs it");
    }
    root() && may
}

/// The clock, which is put right when the test ends.
struct WallClock {
    /// By how much it was set.
    by: SignedDuration,
    /// One test at a time has it.
    _turn: File,
}

impl WallClock {
    fn new() -> Self {
        let path = std::env::temp_dir().join("hub-test-clock");
        let turn = File::create(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        turn.lock().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { by: SignedDuration::ZERO, _turn: turn }
    }

    fn set(&mut self, by: SignedDuration) {
        let now = Timestamp::now() + by;
        let time = TimeSpec::new(now.as_second(), now.subsec_nanosecond().into());
        clock_settime(ClockId::CLOCK_REALTIME, time).unwrap_or_else(|errno| panic!("set the clock: {errno}"));
        self.by += by;
    }
}

impl Drop for WallClock {
    fn drop(&mut self) {
        if !self.by.is_zero() {
            self.set(-self.by);
        }
    }
}

fn after(span: Duration) -> Value {
    let span = SignedDuration::try_from(span).expect("a test ends in the lifetime of its author");
    json!({"expiration": (Timestamp::now() + span).to_string()})
}

fn ttl(span: Duration) -> Value {
    json!({"ttl": format!("{}s", span.as_secs())})
}

/// How long a persona still answers from here on, at most so long.
#[track_caller]
fn lives(world: &World, number: usize, most: Duration) -> Duration {
    let watch = Stopwatch::start();
    loop {
        let pings = FAMILIES.map(|v4| world.outside.ping(member_at(number, v4), Duration::from_millis(500)));
        if pings == [Silent; 2] {
            return watch.elapsed();
        }
        assert!(watch.elapsed() < most, "p{number} lives on after {:?}: {pings:?}", watch.elapsed());
    }
}

fn is_alive(world: &World, number: usize) {
    for v4 in FAMILIES {
        world.outside.expect_ping(member_at(number, v4), Answered);
    }
}

/// One that ended is shown for a day; where the clock went on by more, it is gone.
fn is_over(world: &World, number: usize) {
    wait_until(&format!("p{number} has ended"), PATIENCE, || {
        let answer = world.hub.get(&format!("/v1/personas/p{number}"));
        answer.status == 404 || answer.body["state"] == "expired"
    });
    for v4 in FAMILIES {
        // Of one that is gone the hub says that there is no way to it.
        let answer = world.outside.ping(member_at(number, v4), Duration::from_millis(500));
        assert_ne!(answer, Answered, "p{number}");
    }
}

/// Waits until the daemon has seen that the clock was set, so many times in all.
fn is_seen(world: &World, times: usize) {
    wait_until("the step is seen", PATIENCE, || {
        world.hub.log().matches("the wall clock was set").count() >= times
    });
}

/// Longer than anything here takes where it is slow.
fn span(seconds: u64) -> Duration {
    Duration::from_secs(seconds) * slowness()
}

#[test]
fn a_step_forward_brings_ends_and_moves_deadlines_in_the_data_path() {
    if !may_set_the_clock() {
        return;
    }
    let mut clock = WallClock::new();
    let mut world = World::new(4);
    let hour = Duration::from_hours(1);
    world.create(0, &json!({}));
    world.create(1, &ttl(hour / 2));
    world.create(2, &after(hour / 2));
    let left = span(10);
    world.create(3, &after(hour + left));
    let watch = Stopwatch::start();
    for number in 0..4 {
        is_alive(&world, number);
    }
    clock.set(HOUR);
    is_seen(&world, 1);
    is_over(&world, 1);
    is_over(&world, 2);
    is_alive(&world, 0);
    // The deadline is the programs' own: it holds while the daemon stands still.
    is_alive(&world, 3);
    wait_until("a pass is over", PATIENCE, || world.hub.get("/v1/personas/p1").status == 200);
    world.hub.process().signal(Signal::SIGSTOP);
    let most = left.saturating_sub(watch.elapsed()) + span(1);
    assert!(lives(&world, 3, most) > Duration::ZERO);
    is_alive(&world, 0);
    world.hub.process().signal(Signal::SIGCONT);
    is_over(&world, 3);
    // Those who ended do not come back with the clock.
    clock.set(-HOUR);
    is_seen(&world, 2);
    for number in 1..4 {
        is_over(&world, number);
    }
    is_alive(&world, 0);
}

#[test]
fn a_step_back_makes_no_life_longer_by_more_than_a_correction() {
    if !may_set_the_clock() {
        return;
    }
    for by in [-HOUR, -YEAR] {
        let mut clock = WallClock::new();
        let world = World::new(4);
        let left = span(8);
        world.create(0, &json!({}));
        world.create(3, &ttl(left * 100));
        world.create(1, &ttl(left));
        let watch = Stopwatch::start();
        world.create(2, &after(left));
        is_alive(&world, 1);
        is_alive(&world, 2);
        clock.set(by);
        is_seen(&world, 1);
        let most = left + CORRECTION;
        for number in [1, 2] {
            lives(&world, number, most.saturating_sub(watch.elapsed()));
            is_over(&world, number);
        }
        // As long as it was, not an hour more: what the step took from the calendar is not given to anybody.
        assert!(watch.elapsed() > left.saturating_sub(Duration::from_secs(1)), "{:?}", watch.elapsed());
        is_alive(&world, 0);
        is_alive(&world, 3);
        // Forth again, all is as before.
        clock.set(-by);
        is_seen(&world, 2);
        is_alive(&world, 0);
        is_alive(&world, 3);
        is_over(&world, 1);
        // Who comes now has its whole life.
        let deleted = world.hub.send("DELETE", "/v1/personas/p1", &Value::Null).status;
        assert!([204, 404].contains(&deleted), "{deleted}");
        wait_until("its range is free", PATIENCE, || world.hub.get("/v1/personas/p1").status == 404);
        world.create(1, &ttl(left));
        is_alive(&world, 1);
    }
}

#[test]
fn a_step_while_no_daemon_runs_is_seen_by_the_next() {
    if !may_set_the_clock() {
        return;
    }
    let mut clock = WallClock::new();
    let mut world = World::new(4);
    let left = span(20);
    world.create(0, &json!({}));
    world.create(3, &ttl(Duration::from_hours(400 * 24)));
    world.create(1, &ttl(left));
    let watch = Stopwatch::start();
    world.create(2, &after(left));
    world.hub.process().kill();
    clock.set(-YEAR);
    is_alive(&world, 1);
    world.hub.restart();
    is_seen(&world, 1);
    // Once more, before anything else is stored.
    world.hub.process().kill();
    clock.set(-HOUR);
    world.hub.restart();
    is_seen(&world, 2);
    for number in [1, 2] {
        lives(&world, number, (left + CORRECTION).saturating_sub(watch.elapsed()));
        is_over(&world, number);
    }
    is_alive(&world, 0);
    is_alive(&world, 3);
    world.hub.process().kill();
    clock.set(HOUR + YEAR);
    world.hub.restart();
    is_seen(&world, 3);
    is_alive(&world, 0);
    is_alive(&world, 3);
    is_over(&world, 1);
    is_over(&world, 2);
}

#[test]
fn a_year_forward_ends_all_that_end_and_nobody_else() {
    if !may_set_the_clock() {
        return;
    }
    let mut clock = WallClock::new();
    let world = World::new(4);
    let day = Duration::from_hours(24);
    world.create(0, &json!({}));
    world.create(1, &ttl(200 * day));
    world.create(2, &after(300 * day));
    world.create(3, &after(400 * day));
    clock.set(YEAR);
    is_seen(&world, 1);
    is_over(&world, 1);
    is_over(&world, 2);
    is_alive(&world, 0);
    is_alive(&world, 3);
    clock.set(-YEAR);
    is_seen(&world, 2);
    is_over(&world, 1);
    is_over(&world, 2);
    is_alive(&world, 0);
    is_alive(&world, 3);
}
