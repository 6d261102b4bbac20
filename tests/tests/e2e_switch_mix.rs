//! A switch seen by every packet of a stream at full rate: the address that the interface's routes gave it tells whose
//! routes it took, its code point whose rules it met. Between the two is the store of a word, and then a rule of the
//! interface's namespace: packets that left by the old routes in between meet the new rules, and none the other way.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hub_tests::effort::{Effort, figure};
use hub_tests::lab::resource::Which::{self, Open, Shut};
use hub_tests::lab::resource::{FREE, Resource, SWITCH, marked};
use hub_tests::lab::world::{FAMILIES, outside_at};
use hub_tests::lab::{patience, wait_until, wall_ns};
use hub_tests::root;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::json;

/// Switches in everyday runs and in long ones.
const SWITCHES: [u64; 2] = [10, 1_000];
/// From the store to the rule, as packets see it. One switch must be good: somebody else may have the processors in
/// the others.
const BETWEEN: Duration = Duration::from_millis(5);

/// What packets that leave are marked with.
const fn dscp(which: Which) -> (&'static str, u8) {
    match which {
        Open => ("AF11", 10),
        Shut => ("AF21", 18),
    }
}

/// Whose routes a packet of the stream took, whose rules it met, and when it was sent; none of another packet.
fn stamps(frame: &[u8]) -> Option<(bool, Which, Which, u64)> {
    let (v4, source, code, port) = match frame.get(12..14)? {
        [8, 0] if frame.len() >= 50 && frame[23] == 17 => {
            (true, IpAddr::from(<[u8; 4]>::try_from(&frame[26..30]).unwrap()), frame[15] >> 2, 36)
        }
        [0x86, 0xdd] if frame.len() >= 70 && frame[20] == 17 => {
            let source = <[u8; 16]>::try_from(&frame[22..38]).unwrap();
            (false, IpAddr::from(source), ((frame[14] & 15) << 2) | (frame[15] >> 6), 56)
        }
        _ => return None,
    };
    if frame[port..port + 2] != FREE.to_be_bytes() {
        return None;
    }
    let of = |is: &dyn Fn(Which) -> bool| [Open, Shut].into_iter().find(|which| is(*which));
    let routes = of(&|which| source.to_string() == which.address(v4));
    let rules = of(&|which| code == dscp(which).1);
    let (Some(routes), Some(rules)) = (routes, rules) else {
        panic!("of nobody: from {source}, code point {code}");
    };
    let sent = u64::from_be_bytes(frame[port + 6..port + 14].try_into().unwrap());
    Some((v4, routes, rules, sent))
}

/// What of one family's packets was seen.
#[derive(Debug, Default)]
struct Seen {
    packets: AtomicU64,
    /// Left by the old routes, met the new rules.
    late: AtomicU64,
    /// When the first and the last of those of one switch were sent.
    span: [AtomicU64; 2],
    /// Left by the new routes, met the old rules.
    early: AtomicU64,
}

/// Counts packets until it is told to stop.
fn watch(resource: &Resource, seen: &[Seen; 2], done: &AtomicBool) {
    let wire = resource.world.outside.wiretap("eth0");
    // Whom the last packet was of that was of one.
    let mut last = [Open; 2];
    while !done.load(Ordering::Relaxed) {
        wire.find(Duration::from_millis(50), |frame| {
            if let Some((v4, routes, rules, sent)) = stamps(frame) {
                let family = usize::from(!v4);
                let seen = &seen[family];
                seen.packets.fetch_add(1, Ordering::Relaxed);
                if routes == rules {
                    last[family] = routes;
                } else if routes == last[family] {
                    seen.late.fetch_add(1, Ordering::Relaxed);
                    seen.span[0].fetch_min(sent, Ordering::Relaxed);
                    seen.span[1].fetch_max(sent, Ordering::Relaxed);
                } else {
                    seen.early.fetch_add(1, Ordering::Relaxed);
                }
            }
            done.load(Ordering::Relaxed)
        });
    }
}

/// Sends as fast as it can; each datagram's route is looked up. Packets of one processor keep their order.
fn send(resource: &Resource, v4: bool, done: &AtomicBool) {
    let any = if v4 { IpAddr::from([0; 4]) } else { Ipv6Addr::UNSPECIFIED.into() };
    let there: IpAddr = marked(v4).parse().unwrap();
    let socket = resource.world.members[0].within(|| UdpSocket::bind((any, 0)).unwrap());
    let mut one = CpuSet::new();
    one.set(0).unwrap();
    sched_setaffinity(Pid::from_raw(0), &one).unwrap();
    while !done.load(Ordering::Relaxed) {
        // A full queue is no matter.
        socket.send_to(&wall_ns().to_be_bytes(), (there, FREE)).ok();
    }
}

#[test]
fn packets_meet_old_rules_by_new_routes_never_and_new_rules_by_old_routes_for_a_moment() {
    if !root() {
        return;
    }
    let resource = Resource::bare("");
    // Both have all addresses, so that none goes away and is refused.
    let addresses: Vec<String> = FAMILIES
        .iter()
        .flat_map(|v4| {
            let length = if *v4 { 24 } else { 64 };
            [Open, Shut].map(|which| format!("{}/{length}", which.address(*v4)))
        })
        .chain(["10.20.0.5/24".to_owned(), "fd00:20::5/64".to_owned()])
        .collect();
    for which in [Open, Shut] {
        let stamp = json!({"ip_addresses": addresses, "qos_settings": {"dscp": dscp(which).0}});
        resource.keep(&which.definition(&stamp));
    }
    resource.enlist(&json!({}));
    for v4 in FAMILIES {
        resource.world.router.ip(&format!("route add {} via {}", marked(v4), outside_at(v4)));
    }
    let (seen, done) = ([Seen::default(), Seen::default()], AtomicBool::new(false));
    let each = std::thread::scope(|scope| {
        let stop = Stop(&done);
        scope.spawn(|| watch(&resource, &seen, &done));
        for v4 in FAMILIES {
            let (resource, done) = (&resource, &done);
            scope.spawn(move || send(resource, v4, done));
        }
        let (mut now, mut each) = (Open, Vec::new());
        for _ in Effort::new(SWITCHES[0], SWITCHES[1]).rounds() {
            let before = seen.each_ref().map(|seen| seen.packets.load(Ordering::Relaxed));
            wait_until("packets of both families pass", SWITCH, || {
                let after = seen.each_ref().map(|seen| seen.packets.load(Ordering::Relaxed));
                before.iter().zip(after).all(|(before, after)| after > before + 100)
            });
            now = now.other();
            for seen in &seen {
                seen.span[0].store(u64::MAX, Ordering::Relaxed);
                seen.span[1].store(0, Ordering::Relaxed);
            }
            let end = resource.switch(now.name(), &json!({"urgent": true}));
            assert_eq!(end["outcome"], "committed", "{end:#}");
            // One packet alone, or none, says that it was shorter than what is between two.
            let span = |seen: &Seen| {
                let [first, last] = seen.span.each_ref().map(|time| time.load(Ordering::Relaxed));
                Duration::from_nanos(last.saturating_sub(first))
            };
            each.push(seen.each_ref().map(span));
        }
        drop(stop);
        each
    });
    for (family, (v4, seen)) in FAMILIES.into_iter().zip(&seen).enumerate() {
        let [packets, late, early] =
            [&seen.packets, &seen.late, &seen.early].map(|count| count.load(Ordering::Relaxed));
        let mut spans: Vec<Duration> = each.iter().map(|spans| spans[family]).collect();
        spans.sort_unstable();
        let [best, usual, worst] = [0, spans.len() / 2, spans.len() - 1].map(|place| spans[place]);
        figure(
            "S21",
            &format!(
                "IPv{}: {} switches over REST, {packets} packets looked at; {late} met new rules by old routes, \
                 in {usual:.1?} of the usual switch ({best:.1?} to {worst:.1?}); {early} met old rules by new routes",
                if v4 { 4 } else { 6 },
                each.len(),
            ),
        );
        assert_eq!(early, 0, "IPv4 {v4}: routes change after the rules");
        assert!(best < BETWEEN * patience(), "IPv4 {v4}: {best:?}");
    }
}

/// Tells the others to end, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
