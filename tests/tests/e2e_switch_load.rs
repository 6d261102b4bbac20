//! Switches to and fro while traffic flows: what both personalities allow loses nothing.
#![expect(clippy::unwrap_used, reason = "a helper that cannot go on fails the test that called it")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hub_tests::effort::{Effort, figure};
use hub_tests::lab::resource::Which::{Open, Shut};
use hub_tests::lab::resource::{BOTH, BULK, FREE, FREE_TOO, Resource, SWITCH, resource_at};
use hub_tests::lab::world::FAMILIES;
use hub_tests::lab::{Stopwatch, Stream, echoes};
use hub_tests::root;
use serde_json::json;

/// Switches in everyday runs and in long ones.
const SWITCHES: [u64; 2] = [8, 100];
/// Between two datagrams.
const PAUSE: Duration = Duration::from_millis(1);
/// Between two pieces of each transfer: as much as a busy link carries, and no more than two processors have time for.
const PIECE: Duration = Duration::from_millis(1);

/// Sends until it is told to stop: bytes that arrived, and how the connection broke if it did.
fn transfer((mut near, mut far): (TcpStream, TcpStream), stop: &AtomicBool) -> (u64, Option<ErrorKind>) {
    let reader = std::thread::spawn(move || {
        let (mut bytes, mut arrived) = (vec![0; 1 << 16], 0);
        loop {
            match far.read(&mut bytes) {
                Ok(0) => return (arrived, None),
                Ok(length) => arrived += length as u64,
                Err(error) => return (arrived, Some(error.kind())),
            }
        }
    });
    let piece = vec![0x5a; 1 << 14];
    while !stop.load(Ordering::Relaxed) && near.write_all(&piece).is_ok() {
        std::thread::sleep(PIECE);
    }
    drop(near);
    reader.join().unwrap()
}

#[test]
fn switches_under_load_lose_nothing_that_both_allow() {
    if !root() {
        return;
    }
    let resource = Resource::new();
    // Queues of one that the other does without come and go with nothing in them lost.
    let shaped = Shut.definition(&json!({"qos_settings": {"bandwidth": "10Gbps"}}));
    resource.world.hub.send("POST", "/v1/personalities", &shaped).expect(201);
    let watch = Stopwatch::start();
    let stop = AtomicBool::new(false);
    let mut kept = FAMILIES.map(|v4| resource.world.outside.connect(resource_at(v4), BOTH));
    let (from, to) = (&resource.world.outside, &resource.world.members[0]);
    let paced = FAMILIES.map(|v4| {
        let port = if v4 { FREE } else { FREE_TOO };
        Stream::start(from, to, resource_at(v4), port, PAUSE)
    });
    let bulks = FAMILIES.map(|v4| resource.pair(resource_at(v4), BULK));
    let (rounds, bulks) = std::thread::scope(|scope| {
        let end = Stop(&stop);
        let bulks = bulks.map(|pair| scope.spawn(|| transfer(pair, &stop)));
        let (mut now, mut rounds) = (Open, 0);
        for round in Effort::new(SWITCHES[0], SWITCHES[1]).rounds() {
            now = now.other();
            // Every fifth one goes through all phases; the others flip at once.
            let end = resource.switch(now.name(), &json!({"urgent": !round.is_multiple_of(5)}));
            assert_eq!(end["outcome"], "committed", "switch {round}: {end:#}");
            assert!(kept.iter_mut().all(|stream| echoes(stream, SWITCH)), "switch {round}");
            rounds = round + 1;
        }
        drop(end);
        (rounds, bulks.map(|bulk| bulk.join().unwrap()))
    });
    let elapsed = watch.elapsed().as_secs_f64();
    for ((v4, seen), (bytes, broke)) in FAMILIES.into_iter().zip(paced.map(Stream::finish)).zip(bulks) {
        let arrived = seen.arrived.len() as u64;
        figure(
            "S24",
            &format!(
                "IPv{}: {rounds} switches in {elapsed:.0} s; of {} paced datagrams {} lost on the way there and {} on \
                 the way back; {} MB over TCP; {} of 2 connections broken",
                if v4 { 4 } else { 6 },
                seen.sent,
                seen.sent - arrived,
                arrived - seen.returned,
                bytes >> 20,
                u8::from(broke.is_some()),
            ),
        );
        assert_eq!((arrived, seen.returned, broke), (seen.sent, seen.sent, None), "IPv4 {v4}");
        assert!(
            bytes > 1 << 20 && seen.sent > 100 * rounds,
            "{bytes} bytes, {} datagrams: too few",
            seen.sent
        );
    }
}

/// Tells the transfer to end, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
