//! Switches to and fro while traffic flows: what both personalities allow loses nothing, and what one of them
//! forbids is told so at both ends.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hub_tests::effort::{Effort, figure};
use hub_tests::lab::Outcome::{Answered, Refused, Silent};
use hub_tests::lab::resource::Which::{self, Open, Shut};
use hub_tests::lab::resource::{BOTH, BULK, FREE, FREE_TOO, Resource, SWITCH, resource_at};
use hub_tests::lab::world::{FAMILIES, outside_at, with_port};
use hub_tests::lab::{Stopwatch, Stream, echoes, wait_until};
use hub_tests::root;
use serde_json::json;

/// Switches in everyday runs and in long ones.
const SWITCHES: [u64; 2] = [8, 100];
/// Port of a server that checks ask for.
const ASKED: u16 = 7_300;
/// Between two datagrams.
const PAUSE: Duration = Duration::from_millis(1);
/// Between two pieces of each transfer: as much as a busy link carries, and no more than two processors have time for.
const PIECE: Duration = Duration::from_millis(1);

/// A connection to the resource, and its other end there.
fn pair(resource: &Resource, there: IpAddr, port: u16) -> (TcpStream, TcpStream) {
    let any = IpAddr::from(Ipv6Addr::UNSPECIFIED);
    let listener = resource.world.members[0].within(|| TcpListener::bind((any, port)).unwrap());
    let near = resource.world.outside.connect(there, port);
    let (far, _) = listener.accept().unwrap();
    near.set_read_timeout(Some(SWITCH)).unwrap();
    far.set_read_timeout(Some(SWITCH)).unwrap();
    (near, far)
}

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
    let bulks = FAMILIES.map(|v4| pair(&resource, resource_at(v4), BULK));
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

/// Whoever speaks next is told that the connection is over, and so is the other one.
#[track_caller]
fn expect_reset((near, far): (TcpStream, TcpStream), client_speaks: bool, what: &str) {
    let (speaker, listener) = if client_speaks { (near, far) } else { (far, near) };
    (&speaker).write_all(b"after").ok();
    for (who, mut end) in [("who spoke", speaker), ("who listened", listener)] {
        let error = end.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{who}, {what}, client {client_speaks}");
    }
}

#[test]
fn both_ends_of_what_a_switch_forbids_get_a_reset() {
    if !root() {
        return;
    }
    let resource = Resource::new();
    let mut now = Open;
    for v4 in FAMILIES {
        for client_speaks in [true, false] {
            let (mut near, mut far) = pair(&resource, resource_at(v4), now.free());
            near.write_all(b"before").unwrap();
            assert_eq!(far.read(&mut [0; 8]).unwrap(), 6);
            now = now.other();
            let end = resource.switch(now.name(), &json!({"urgent": true}));
            assert_eq!(end["outcome"], "committed", "{end:#}");
            assert_eq!(end["flows"]["active"], 1, "it was counted, though nobody waited: {end:#}");
            expect_reset((near, far), client_speaks, &format!("IPv4 {v4}"));
        }
    }
    assert_eq!(now, Open, "as many there as back");
    resource.expect_whole(Shut.other(), "after all of them");
}

#[test]
fn an_address_that_goes_away_is_closed_by_the_drain_and_reset_by_the_flip() {
    if !root() {
        return;
    }
    let resource = Resource::new();
    let outside = &resource.world.outside;
    for (now, client_speaks) in [(Open, true), (Shut, false)] {
        let going = FAMILIES.map(|v4| now.address(v4).parse::<IpAddr>().unwrap());
        // Of ports that both let in: the address alone is why these end.
        let held = going.map(|address| pair(&resource, address, BULK));
        let mut kept = FAMILIES.map(|v4| outside.connect(resource_at(v4), BOTH));
        let order = json!({"drain": {"timeout": "8s", "block": "reject"}});
        let began = resource.order(now.other().name(), &order).expect(202);
        wait_until("the switch waits for both connections", SWITCH, || {
            resource.view()["operation"]["flows"]["active"] == 2
        });
        for address in going {
            outside.expect_tcp(address, BOTH, Refused);
            outside.expect_udp(address, BOTH, Silent);
        }
        for v4 in FAMILIES {
            outside.expect_tcp(resource_at(v4), BOTH, Answered);
        }
        assert_eq!(resource.state(), "draining");
        let end = resource.finish(began["id"].as_str().unwrap());
        assert_eq!(end["outcome"], "committed", "{end:#}");
        assert_eq!(end["flows"]["active"], 2, "nobody else came there meanwhile: {end:#}");
        for (held, address) in held.into_iter().zip(going) {
            expect_reset(held, client_speaks, &format!("{address}"));
            outside.expect_tcp(address, BOTH, Refused);
        }
        assert!(kept.iter_mut().all(|stream| echoes(stream, SWITCH)));
    }
    resource.expect_whole(Open, "there and back");
}

#[test]
fn an_address_that_came_with_a_switch_is_reset_when_that_goes_back() {
    if !root() {
        return;
    }
    let resource = Resource::new();
    let outside = &resource.world.outside;
    for client_speaks in [true, false] {
        let order = json!({"confirm_within": "10m", "drain": {"timeout": "0s"}});
        let began = resource.order("shut", &order).expect(202);
        wait_until("it waits", SWITCH * 2, || resource.state() == "awaiting_confirm");
        let came = FAMILIES.map(|v4| Shut.address(v4).parse::<IpAddr>().unwrap());
        // Of a port that both let in: the address alone is why these end.
        let held = came.map(|address| pair(&resource, address, BULK));
        let mut kept = FAMILIES.map(|v4| outside.connect(resource_at(v4), BOTH));
        resource.world.hub.hubctl(&["personality", "revert", "web"]).expect_success();
        let end = resource.finish(began["id"].as_str().unwrap());
        assert_eq!(end["outcome"], "rolled_back", "{end:#}");
        for (held, address) in held.into_iter().zip(came) {
            expect_reset(held, client_speaks, &format!("{address}"));
            outside.expect_tcp(address, BOTH, Refused);
        }
        assert!(kept.iter_mut().all(|stream| echoes(stream, SWITCH)), "what both have goes on");
        resource.expect_whole(Open, "back");
    }
}

#[test]
fn the_way_to_the_default_resets_what_was_given_up() {
    if !root() {
        return;
    }
    let needed = json!({"health": {"targets": [{"tcp": with_port(outside_at(true), ASKED)}]}});
    let mut safe = Shut.definition(&json!({"ip_addresses": ["10.20.0.5/24", "fd00:20::5/64"]}));
    safe["name"] = "safe".into();
    safe.as_object_mut().unwrap().remove("routing_table");
    for client_speaks in [true, false] {
        let resource = Resource::bare("");
        let outside = &resource.world.outside;
        let asked = outside.listen(ASKED);
        for definition in [Open.definition(&needed), Shut.definition(&needed), safe.clone()] {
            resource.keep(&definition);
        }
        resource.enlist(&json!({"default": "safe"}));
        let addresses = |which: Which| FAMILIES.map(|v4| which.address(v4).parse::<IpAddr>().unwrap());
        // Of a port that all let in: the address alone is why these end. They hear nothing while they say nothing.
        let went = addresses(Open).map(|address| (address, pair(&resource, address, BULK)));
        let began = resource.order("shut", &json!({"drain": {"timeout": "0s"}})).expect(202);
        wait_until("it is verified", SWITCH, || resource.state() == "verifying");
        let came = addresses(Shut).map(|address| (address, pair(&resource, address, BULK)));
        let mut kept = FAMILIES.map(|v4| outside.connect(resource_at(v4), BOTH));
        drop(asked);
        let end = resource.finish(began["id"].as_str().unwrap());
        assert_eq!(end["outcome"], "fell_back", "{end:#}");
        for (address, held) in went.into_iter().chain(came) {
            expect_reset(held, client_speaks, &format!("{address}"));
            outside.expect_tcp(address, BOTH, Refused);
        }
        assert!(kept.iter_mut().all(|stream| echoes(stream, SWITCH)), "what the default has goes on");
    }
}

/// Tells the transfer to end, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
