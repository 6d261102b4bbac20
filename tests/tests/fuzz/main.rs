//! Bytes of others, bent at random: documents, configurations, bodies of requests, state files and their journals, frames,
//! and what the kernel says of its tables.
//!
//! Each target takes any bytes and panics when something is wrong, as libFuzzer wants it. Seeds are the
//! repository's examples, packets that the tests build, and records of a kernel; every case repeats from its number. Everyday runs
//! last a moment, `cargo xtask fuzz [TARGET] [--seconds N]` as long as it says.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

mod bend;
mod journal;
mod netlink;
mod record;
mod requests;
mod seeds;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use hub_tests::effort::figure;
use hub_tests::generate::Random;
use hub_tests::lab::Stopwatch;

/// How long a target is run in everyday runs.
const SHORT: Duration = Duration::from_secs(2);
/// Seconds for each target in long ones.
const SECONDS: &str = "HUB_FUZZ_SECONDS";
/// Number of the first case: a failure says which one to give.
const FIRST: &str = "HUB_FUZZ_FIRST";

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("it is a number"))
}

/// Runs a target; it must take most seeds as good ones, or nothing behind its first check is ever reached.
fn fuzz(name: &str, seeds: &[Vec<u8>], target: fn(&[u8]) -> bool) {
    let taken = seeds.iter().filter(|seed| target(seed)).count();
    assert!(taken * 2 > seeds.len(), "{name}: only {taken} of {} seeds are good", seeds.len());
    let time = number(SECONDS).map_or(SHORT, Duration::from_secs);
    let watch = Stopwatch::start();
    let first = number(FIRST).unwrap_or(0);
    let (mut case, mut good) = (first, 0_u64);
    while watch.elapsed() < time {
        let bytes = bend::bend(&mut Random::new(case), seeds);
        let Ok(taken) = catch_unwind(AssertUnwindSafe(|| target(&bytes))) else {
            panic!("{name}: {FIRST}={case}: {:?}\n{bytes:02x?}", String::from_utf8_lossy(&bytes));
        };
        good += u64::from(taken);
        case += 1;
    }
    let cases = case - first;
    let rate = f64::from(u32::try_from(cases).unwrap()) / watch.elapsed().as_secs_f64();
    figure("fuzz", &format!("{name}: {cases} cases, {good} of them good, {rate:.0}/s, 0 panics"));
    assert!(cases > 20, "{cases} cases say nothing");
}

#[test]
fn documents() {
    fuzz("documents", &seeds::documents(), targets::document);
}

#[test]
fn configurations() {
    fuzz("configurations", &seeds::configurations(), targets::configuration);
}

#[test]
fn bodies() {
    fuzz("bodies", &seeds::bodies(), targets::body);
}

#[test]
fn requests_with_bodies() {
    requests::check();
    fuzz("requests", &requests::seeds(), requests::body);
}

#[test]
fn states() {
    fuzz("states", &seeds::states(), targets::state);
}

#[test]
fn journals() {
    fuzz("journals", &journal::seeds(), journal::replay);
    journal::forget();
}

#[test]
fn frames() {
    fuzz("frames", &seeds::frames(), targets::frame);
}

#[test]
fn netlink_answers() {
    fuzz("netlink", &seeds::netlink(), netlink::read);
}
