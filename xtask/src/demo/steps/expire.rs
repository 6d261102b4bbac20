//! The data path keeps deadlines by itself: the daemon may be dead.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::{
    clock::wait_until,
    demo::{
        shell::{
            Place::{Client, Hub},
            Seen,
        },
        tour::Tour,
    },
    say::show,
};

/// What a tick of the data path and `ping`'s own clock may add, in seconds.
const TOLERANCE: f64 = 0.02;
/// The longest that routes may stay once the daemon runs again.
const TIDY: Duration = Duration::from_secs(1);

pub(super) fn run(tour: &mut Tour) -> Result<()> {
    tour.run_lines(Hub, "hubctl persona create sprint --ip-range 10.102.0.0/24 --ttl 3s", 6)?;
    let end = tour.run(Hub, "date +%s.%N -d \"$(hubctl persona show sprint --json | jq -r .expires_at)\"")?;
    let end: f64 = end.text.trim().parse().context("read the end of the persona")?;
    let pid = tour.lab.hubd_pid()?;
    let ping = tour.start(Client, "expire-ping", "ping -D -i 0.05 -c 80 -W 0.2 10.102.0.10")?;
    let stopped = tour.run(Hub, &format!("kill -STOP {pid}; sleep 0.1; ps -o pid=,stat=,comm= -p {pid}"))?;
    tour.check("hubd stands still (T)", stopped.has(" T"));

    let ping = tour.end_of(ping, 4)?;
    let replies = replies(&ping);
    let (before, after): (Vec<f64>, Vec<f64>) = replies.iter().partition(|time| **time < end + TOLERANCE);
    let last = replies.last().map_or(0.0, |last| (end - last) * 1_000.0);
    show(&format!("    … {} replies, the last one {last:.0} ms before the end", replies.len()));
    tour.check("packets pass before the end", before.len() >= 20 && last < 200.0);
    tour.check("none passes after it, although hubd stands still", after.is_empty());
    let routes = "ip route show proto 177";
    let there = tour.run_lines(Hub, &format!("{routes} | grep 10.102"), 2)?;
    tour.check("its routes are still there: it was the data path that refused", there.succeeded());

    tour.run(Hub, &format!("kill -CONT {pid}"))?;
    let gone = wait_until(TIDY, || tour.lab.run(Hub, routes).is_ok_and(|seen| !seen.has("10.102.0.0/24")));
    let promise = gone.map_or_else(
        || "hubd goes on and removes them within 1 s".to_owned(),
        |took| format!("hubd goes on and removes them, within {} ms", took.as_millis()),
    );
    tour.check(&promise, gone.is_some());
    let reasons = tour.run(Hub, "hubctl counters | grep expired")?;
    tour.check("the drops have their reason", reasons.has("expired"));
    let listed = tour.run_lines(Hub, "hubctl persona list", 6)?;
    tour.check("the persona is kept for reading, as expired", listed.has("expired"));
    Ok(())
}

/// When replies came, in seconds since 1970.
fn replies(ping: &Seen) -> Vec<f64> {
    let reply =
        |line: &str| line.split_once("] 64 bytes").map(|(time, _)| time.trim_start_matches('[').parse());
    ping.text.lines().filter_map(reply).flatten().collect()
}
