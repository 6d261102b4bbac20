//! What the hub made in its namespace, and how long some of it is missing while a manager of networks runs beside it.

use std::time::Duration;

use serde_json::Value;

use super::{Stopwatch, World, patience};

/// Routes, rules and the segment's addresses of the first persona.
#[track_caller]
pub fn ours(world: &World) -> String {
    world.router.sh("ip route show table all proto 177
        ip rule show priority 17700; ip -6 rule show priority 17700
        ip -oneline address show dev seg0 to 10.100.0.1; ip -oneline -6 address show dev seg0 to fd00:100::1")
}

/// Entries that were put right so far.
#[track_caller]
pub fn drift(world: &World) -> u64 {
    let tables = world.hub.get("/v1/status").expect(200);
    let all = tables.get("tables").and_then(Value::as_array).unwrap_or_else(|| panic!("{tables:#}"));
    all.iter().filter_map(|table| table.get("drift").and_then(Value::as_u64)).sum()
}

/// Looks on until this holds and for two seconds more; returns the longest time without something of ours.
#[track_caller]
pub fn longest_gap(
    world: &World,
    whole: &str,
    limit: Duration,
    mut is_settled: impl FnMut() -> bool,
) -> Duration {
    let (begun, mut longest, mut missing) = (Stopwatch::start(), Duration::ZERO, None);
    let mut settled = None;
    loop {
        if ours(world) == whole {
            missing = None;
        } else {
            let since = *missing.get_or_insert_with(Stopwatch::start);
            longest = longest.max(since.elapsed());
        }
        if settled.is_none() && is_settled() {
            settled = Some(Stopwatch::start());
        }
        let is_over = settled.is_some_and(|since| since.elapsed() > Duration::from_secs(2));
        if is_over && missing.is_none() {
            return longest;
        }
        assert!(begun.elapsed() < limit * patience(), "{whole}\nis by now\n{}", ours(world));
    }
}
