//! How long what a switch does takes, measured from outside and compared with what the hub says of it.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aya::maps::{HashMap, Map, MapData};
use hub_common::address::mapped;
use hub_common::flow::{FLOW_TCP_OPEN, Flow, FlowKey};
use hub_tests::effort::figure;
use hub_tests::lab::Outcome::{Answered, Refused};
use hub_tests::lab::resource::Which::{Open, Shut};
use hub_tests::lab::resource::{BOTH, OPEN_ONLY, Resource, SWITCH, resource_at};
use hub_tests::lab::{patience, wait_until, wall_ns};
use hub_tests::root;
use jiff::Timestamp;
use serde_json::{Value, json};

/// A drain goes on so soon after its last connection, and an urgent switch is made so soon after its order.
const SOON: Duration = Duration::from_millis(100);
/// New connections are refused no longer where nothing drains.
const BLOCK: Duration = Duration::from_millis(50);
/// From the store that has the other personality decide to the rule that has packets use its routes.
const FLIP: Duration = Duration::from_millis(5);
/// Connections of the resource that go on.
const MANY: u32 = 100_000;
/// A drain goes on so soon where there are so many.
const CROWDED: Duration = Duration::from_millis(500);
/// One of so many must be good: somebody else may have the processors meanwhile.
const TIMES: usize = 8;
/// How far off times seen from outside may be: a round of the observer, and what processors are busy with.
const BLUR: Duration = Duration::from_millis(60);

/// When a phase of a switch began and how long it took, in nanoseconds since 1970.
fn phase(end: &Value, name: &str) -> (u64, u64) {
    let phases = end["phases"].as_array().unwrap();
    let found = phases.iter().find(|done| done["phase"] == name).unwrap_or_else(|| panic!("{name}: {end:#}"));
    let began: Timestamp = found["began_at"].as_str().unwrap().parse().unwrap();
    (u64::try_from(began.as_nanosecond()).unwrap(), found["took_us"].as_u64().unwrap() * 1_000)
}

/// How long flips took so far, as the hub logs it.
fn flips(resource: &Resource) -> Vec<Duration> {
    let log = resource.world.hub.log();
    let flips = log.lines().filter(|line| line.contains("changed over to the policy that waited"));
    let took = flips.map(|line| line.split("took_us=").nth(1).unwrap().trim().parse().unwrap());
    took.map(Duration::from_micros).collect()
}

/// The value of a metric without labels.
fn metric(resource: &Resource, name: &str) -> f64 {
    let metrics = resource.world.router.sh("curl --silent --fail http://127.0.0.1:9178/metrics");
    let line = metrics.lines().find(|line| line.split(' ').next() == Some(name)).unwrap();
    line.split(' ').next_back().unwrap().parse().unwrap()
}

fn milliseconds(times: &[Duration]) -> String {
    times.iter().map(|time| format!("{:.1}", time.as_secs_f64() * 1e3)).collect::<Vec<_>>().join(", ")
}

#[track_caller]
fn assert_best(what: &str, times: &[Duration], limit: Duration) {
    let best = times.iter().min().unwrap();
    assert!(*best < limit * patience(), "{what}: {} ms, wanted {limit:?}", milliseconds(times));
}

/// Switches from the first personality to the second while there is a connection that only the first one allows, and
/// ends that: from then to the end of the flip, and what became of the switch.
#[track_caller]
fn drained(resource: &Resource, v4: bool) -> (Duration, Value) {
    let last = resource.world.outside.connect(resource_at(v4), OPEN_ONLY);
    let order = json!({"drain": {"timeout": "60s"}});
    let began = resource.order("shut", &order).expect(202);
    wait_until("the switch waits for the connection", SWITCH, || {
        resource.view()["operation"]["flows"]["active"] == 1
    });
    let closed = wall_ns();
    drop(last);
    let end = resource.finish(began["id"].as_str().unwrap());
    assert_eq!((&end["outcome"], &end["flows"]["active"]), (&json!("committed"), &json!(0)), "{end:#}");
    let (flip, took) = phase(&end, "flip");
    assert!(flip > closed, "it waited for the connection");
    (Duration::from_nanos(flip + took - closed), end)
}

#[test]
fn a_drain_goes_on_at_once_when_its_last_connection_ends() {
    if !root() {
        return;
    }
    let resource = Resource::new();
    let mut times = Vec::new();
    let mut blocks = Vec::new();
    let is_good = |times: &[Duration], limit: Duration| times.iter().any(|time| *time < limit * patience());
    while times.len() < TIMES
        && !(is_good(&times, SOON) && is_good(&blocks, BLOCK) && is_good(&flips(&resource), FLIP))
    {
        times.push(drained(&resource, times.len().is_multiple_of(2)).0);
        // Back, where nothing is to be drained.
        let back = resource.switch("open", &json!({}));
        assert_eq!(back["outcome"], "committed", "{back:#}");
        blocks.push(Duration::from_micros(resource.journal()[0]["blocked_us"].as_u64().unwrap()));
    }
    let flips = flips(&resource);
    let [count, sum] =
        ["count", "sum"].map(|name| metric(&resource, &format!("hub_switch_flip_seconds_{name}")));
    assert_eq!((count.to_string(), times.len() * 2), (flips.len().to_string(), flips.len()), "two of each");
    let all: Duration = flips.iter().sum();
    assert!(Duration::from_secs_f64(sum).abs_diff(all) < Duration::from_millis(1), "{flips:?} {sum}");
    figure("S20", &format!("from the last close to the end of the flip: {} ms", milliseconds(&times)));
    figure("S23", &format!("new connections refused where nothing drains: {} ms", milliseconds(&blocks)));
    figure("S21", &format!("from the store to the rule: {} ms", milliseconds(&flips)));
    assert_best("flip", &flips, FLIP);
    assert_best("reaction", &times, SOON);
    assert_best("block with nothing to drain", &blocks, BLOCK);
}

/// Puts many connections beside one of the resource's, like that one: both personalities allow them.
fn crowd(resource: &Resource) {
    let pin = resource.world.hub.folder().join("bpf/hub/v1/FLOWS");
    let map = Map::from_map_data(MapData::from_pin(pin).unwrap()).unwrap();
    let mut flows: HashMap<MapData, FlowKey, Flow> = map.try_into().unwrap();
    let IpAddr::V4(member) = resource_at(true) else { panic!("an IPv4 address") };
    let member = mapped(member.octets());
    let of_both = |key: &FlowKey| key.protocol == 6 && [key.low_port, key.high_port].contains(&BOTH);
    let found =
        flows.iter().map(Result::unwrap).find(|(key, flow)| of_both(key) && flow.state == FLOW_TCP_OPEN);
    let (_, like) = found.expect("a connection to the resource");
    for number in 0..MANY {
        let [_, b, c, d] = number.to_be_bytes();
        let (key, from_high) = FlowKey::between(&mapped([198, 18 + b, c, d]), 4_000, &member, BOTH, 6, 0);
        flows.insert(key, Flow { from_high: u8::from(from_high), ..like }, 0).unwrap();
    }
}

#[test]
fn a_drain_finds_its_last_connection_among_a_hundred_thousand() {
    if !root() {
        return;
    }
    let resource = Resource::new();
    let _kept = resource.world.outside.connect(resource_at(true), BOTH);
    crowd(&resource);
    let mut times = Vec::new();
    while times.len() < TIMES && !times.iter().any(|time| *time < CROWDED * patience()) {
        let (time, end) = drained(&resource, times.len().is_multiple_of(2));
        assert!(end["flows"]["kept"].as_u64() > Some(MANY.into()), "all of them were looked at: {end:#}");
        times.push(time);
        assert_eq!(resource.switch("open", &json!({"urgent": true}))["outcome"], "committed");
    }
    figure("S20", &format!("the same among {MANY} connections: {} ms", milliseconds(&times)));
    assert_best("reaction among many", &times, CROWDED);
}

/// Tries to connect again and again: when it was first refused, and first let in after that.
fn gap(resource: &Resource, stop: &AtomicBool) -> Option<(u64, u64)> {
    let there = SocketAddr::new(resource_at(true), BOTH);
    let mut refused = None;
    resource.world.outside.within(|| {
        while !stop.load(Ordering::Relaxed) {
            let tried = wall_ns();
            match (TcpStream::connect_timeout(&there, Duration::from_secs(1)), refused) {
                (Err(_), None) => refused = Some(tried),
                (Ok(_), Some(from)) => return Some((from, wall_ns())),
                (Err(_), Some(_)) | (Ok(_), None) => {}
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        None
    })
}

#[test]
fn the_time_that_new_connections_are_refused_is_what_the_metric_says() {
    if !root() {
        return;
    }
    let resource = Resource::new();
    let held = resource.world.outside.connect(resource_at(false), BOTH);
    let stop = AtomicBool::new(false);
    let (end, seen) = std::thread::scope(|scope| {
        let prober = scope.spawn(|| gap(&resource, &stop));
        // All new connections are refused, also those that both personalities allow.
        let order = json!({"drain": {"timeout": "60s", "scope": "all", "block": "reject", "udp": false}});
        let began = resource.order("shut", &order).expect(202);
        wait_until("new connections are refused", SWITCH, || resource.tcp(true, BOTH) == Refused);
        std::thread::sleep(Duration::from_millis(700));
        drop(held);
        let end = resource.finish(began["id"].as_str().unwrap());
        stop.store(true, Ordering::Relaxed);
        (end, prober.join().unwrap())
    });
    assert_eq!(end["outcome"], "committed", "{end:#}");
    let (from, until) = seen.expect("connections were refused, and let in again");
    let seen = Duration::from_nanos(until - from);
    let said = Duration::from_micros(resource.journal()[0]["blocked_us"].as_u64().unwrap());
    let metric = Duration::from_secs_f64(metric(&resource, "hub_switch_block_seconds_sum"));
    figure(
        "S23",
        &format!(
            "refused for {seen:.1?} as clients saw it, {said:.1?} in the journal, {metric:.1?} as metric"
        ),
    );
    assert!(seen.abs_diff(said) < BLUR * patience(), "{seen:?} {said:?}");
    assert!(metric.abs_diff(said) < Duration::from_millis(1), "{metric:?} {said:?}");
    assert!(said > Duration::from_millis(700), "{said:?}");
}

/// When new connections meet the second personality first.
fn shut_since(resource: &Resource) -> u64 {
    let there = SocketAddr::new(resource_at(true), OPEN_ONLY);
    resource.world.outside.within(|| {
        wait_until("the switch is made", SWITCH, || {
            TcpStream::connect_timeout(&there, Duration::from_secs(1)).is_err()
        });
        wall_ns()
    })
}

#[test]
fn a_threat_shuts_an_interface_within_a_tenth_of_a_second() {
    if !root() {
        return;
    }
    let zones = json!({"zones": {"levels": [
        {"level": "calm", "personality": "open"}, {"level": "severe", "personality": "lock"},
    ], "hysteresis": "1s"}});
    let resource = Resource::bare("");
    resource.keep(&Open.definition(&json!({})));
    // No new address, which would be asked for on the link first.
    let lock =
        json!({"name": "lock", "ip_addresses": ["10.20.0.5/24", "fd00:20::5/64"], "routing_table": []});
    resource.keep(&Shut.definition(&lock));
    resource.enlist(&zones);
    let say = |level: &str| resource.world.hub.send("PUT", "/v1/threat-level", &json!({"level": level}));
    let mut times = Vec::new();
    while times.len() < TIMES && !times.iter().any(|time| *time < SOON * patience()) {
        assert_eq!(resource.tcp(true, OPEN_ONLY), Answered);
        let (told, shut) = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| shut_since(&resource));
            let told = wall_ns();
            let answer = say("severe");
            assert!(answer.status < 300, "{answer:?}");
            (told, watcher.join().unwrap())
        });
        times.push(Duration::from_nanos(shut - told));
        resource.settle();
        let entry = &resource.journal()[0];
        assert_eq!((&entry["to"], &entry["outcome"]), (&json!("lock@1"), &json!("committed")), "{entry:#}");
        assert!(say("calm").status < 300);
        wait_until("the level fell", SWITCH, || {
            resource.view()["current"] == "open@1" && resource.is_settled()
        });
    }
    figure("S28", &format!("from the word of a threat to the first refusal: {} ms", milliseconds(&times)));
    assert_best("urgent switch", &times, SOON);
}
