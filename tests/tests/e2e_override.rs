//! A persona that takes the ranges of another for its life: it is at the native range, the other one by a
//! virtual range, and after its end all is as before.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a helper that cannot go on fails the test that called it; measurements are for whoever runs this"
)]

use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use hub_tests::lab::Outcome::{Answered, Refused, Silent};
use hub_tests::lab::world::{FAMILIES, gateway, member_at, outside_at};
use hub_tests::lab::{Space, Stopwatch, World, echoes, patience, wait_until};
use hub_tests::root;
use jiff::{SignedDuration, Timestamp};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(10);
/// Port of member 0, which has the range, and of member 1, which takes it.
const OLD: u16 = 80;
const NEW: u16 = 81;

/// Members with the very same addresses; the first has its persona, and knows those with more numbers.
fn world(members: usize) -> World {
    // Right after its start a hub adopts connections whose beginning it did not see.
    let world = World::with(members, "loose_tcp: 0s\n");
    world.make_twin(1, 0);
    world.create(0, &json!({"peers": ["p1"], "use": ["p2/web"]}));
    world
}

/// Has member 1's persona take the ranges of member 0's.
fn take(world: &World, fields: &Value) {
    take_as(world, 1, fields);
}

fn take_as(world: &World, number: usize, fields: &Value) {
    let mut definition = World::definition(number, fields);
    definition["ip_range"] = World::definition(0, &json!({}))["ip_range"].clone();
    definition["peers"] = json!(["p0"]);
    definition["overlap"] = json!("override");
    world.hub.send("POST", "/v1/personas", &definition).expect(201);
    world.active(&format!("p{number}"));
}

fn view(world: &World, name: &str) -> Value {
    world.hub.get(&format!("/v1/personas/{name}")).expect(200)
}

/// A member's address in the ranges that stand for its own, by family.
fn known_as(ranges: &Value) -> [IpAddr; 2] {
    FAMILIES.map(|v4| {
        let native = if v4 { "10.100.0.0/24" } else { "fd00:100::/64" };
        let range = ranges[native].as_str().unwrap_or_else(|| panic!("{ranges:#}"));
        match range.split('/').next().unwrap().parse().unwrap() {
            IpAddr::V4(base) => IpAddr::V4((base.to_bits() + 10).into()),
            IpAddr::V6(base) => IpAddr::V6((base.to_bits() + 0x10).into()),
        }
    })
}

/// Who answers at the native addresses, and that the other one does not.
fn expect_at_home(spaces: &[&Space], here: u16, gone: u16) {
    for v4 in FAMILIES {
        for space in spaces {
            space.expect_tcp(member_at(0, v4), here, Answered);
            space.expect_udp(member_at(0, v4), here, Answered);
            space.expect_ping(member_at(0, v4), Answered);
            space.expect_tcp(member_at(0, v4), gone, Refused);
        }
    }
}

/// Attempts that fail from here on until the range is its holder's again, and how long that takes.
fn until_back(world: &World) -> (u32, Duration) {
    let begun = Stopwatch::start();
    let mut lost = 0;
    for v4 in FAMILIES {
        while world.outside.tcp(member_at(0, v4), OLD, Duration::from_secs(1)) != Answered {
            lost += 1;
            assert!(begun.elapsed() < Duration::from_secs(30), "the range did not come back");
        }
    }
    (lost, begun.elapsed())
}

#[test]
fn the_newcomer_is_at_the_range_and_its_holder_behind_another_until_it_ends() {
    if !root() {
        return;
    }
    let world = world(2);
    let [old, new] = [&world.members[0], &world.members[1]];
    let _servers = [old.serve(&[OLD]), new.serve(&[NEW]), world.outside.serve(&[OLD])];
    expect_at_home(&[&world.outside, &world.router], OLD, NEW);
    for round in 0..2 {
        take(&world, &json!({}));
        let said = view(&world, "p0");
        assert_eq!(said["overridden"][0]["by"], "p1");
        assert!(said["conditions"].to_string().contains("Overridden"), "{said:#}");
        assert!(world.hub.hubctl(&["persona", "show", "p0"]).expect_success().contains("Overridden"));
        let reached = known_as(&said["virtual_ranges"]);
        let alias = known_as(&view(&world, "p1")["aliases"]);
        expect_at_home(&[&world.outside, &world.router], NEW, OLD);
        for (v4, (reached, alias)) in FAMILIES.into_iter().zip(reached.into_iter().zip(alias)) {
            for (space, target, port) in [
                (&world.outside, reached, OLD),
                (&world.router, reached, OLD),
                (new, reached, OLD),
                (old, alias, NEW),
                (old, outside_at(v4), OLD),
                (new, outside_at(v4), OLD),
            ] {
                space.expect_tcp(target, port, Answered);
                space.expect_udp(target, port, Answered);
                space.expect_ping(target, Answered);
                let big = format!("ping -n -c 1 -W 4 -s 4000 {target}");
                assert!(space.succeeds(&big, LIMIT), "fragments from {} to {target}", space.name());
            }
            old.expect_ping(gateway(0, v4), Answered);
            new.expect_ping(gateway(0, v4), Answered);
        }
        world.hub.request("DELETE", "/v1/personas/p1", &[], "").expect(204);
        let (lost, time) = until_back(&world);
        eprintln!("round {round}: {lost} attempts lost, back after {time:?}");
        assert!(lost <= 1, "{lost} attempts lost");
        let said = view(&world, "p0");
        assert!(said["overridden"].is_null() && said["virtual_ranges"] == json!({}), "{said:#}");
        expect_at_home(&[&world.outside, &world.router], OLD, NEW);
        for v4 in FAMILIES {
            old.expect_tcp(outside_at(v4), OLD, Answered);
        }
    }
    assert_eq!(world.dropped("p0", "spoof"), 0);
    for said in ["p0: 10.100.0.0/24 is persona `p1`'s", "p0 has all its ranges"] {
        assert!(world.hub.log().contains(said), "{}", world.hub.log());
    }
}

#[test]
fn of_three_the_last_has_the_range_whoever_else_goes() {
    if !root() {
        return;
    }
    let world = world(3);
    world.make_twin(2, 0);
    let last = 82;
    let ports = [OLD, NEW, last];
    let _servers: Vec<_> =
        world.members.iter().zip(ports).map(|(member, port)| member.serve(&[port])).collect();
    let delete =
        |name: &str| world.hub.request("DELETE", &format!("/v1/personas/{name}"), &[], "").expect(204);
    let virtuals = |name: &str| known_as(&view(&world, name)["virtual_ranges"]);
    take_as(&world, 1, &json!({}));
    take_as(&world, 2, &json!({}));
    expect_at_home(&[&world.outside], last, OLD);
    let first = virtuals("p0");
    for (name, port) in [("p0", OLD), ("p1", NEW)] {
        for reached in virtuals(name) {
            world.outside.expect_tcp(reached, port, Answered);
        }
    }
    delete("p2");
    expect_at_home(&[&world.outside], NEW, last);
    take_as(&world, 2, &json!({}));
    delete("p1");
    expect_at_home(&[&world.outside], last, NEW);
    assert_eq!(virtuals("p0"), first, "it stays where it is known");
    world.outside.expect_tcp(first[0], OLD, Answered);
    delete("p2");
    expect_at_home(&[&world.outside], OLD, last);
}

#[test]
fn of_several_the_one_that_ends_first_has_the_range_and_the_next_takes_over() {
    if !root() {
        return;
    }
    let mut world = world(3);
    world.make_twin(2, 0);
    let last = 82;
    let ports = [OLD, NEW, last];
    let _servers: Vec<_> =
        world.members.iter().zip(ports).map(|(member, port)| member.serve(&[port])).collect();
    let deadline = Timestamp::now() + SignedDuration::from_secs(20 * i64::from(patience()));
    take_as(&world, 1, &json!({"expiration": deadline.to_string()}));
    // A newcomer that lives for longer.
    take_as(&world, 2, &json!({"ttl": "1h"}));
    let waits = known_as(&view(&world, "p2")["virtual_ranges"]);
    for dies in [true, false] {
        expect_at_home(&[&world.outside], NEW, last);
        for reached in waits {
            world.outside.expect_tcp(reached, last, Answered);
        }
        if dies {
            world.hub.process().kill();
            world.hub.restart();
        }
    }
    assert!(Timestamp::now() < deadline, "the machine is too busy for this test");
    wait_until("the deadline", Duration::from_mins(1), || Timestamp::now() > deadline);
    let datagram = Duration::from_millis(20);
    let gap = wait_until("the next takes over", Duration::from_secs(30), || {
        world.outside.udp(member_at(0, true), last, datagram) == Answered
    });
    assert!(gap < Duration::from_secs(1) * patience(), "{gap:?}");
    expect_at_home(&[&world.outside], last, NEW);
    world.hub.request("DELETE", "/v1/personas/p2", &[], "").expect(204);
    expect_at_home(&[&world.outside], OLD, last);
}

#[test]
fn at_its_deadline_the_range_goes_back_and_without_the_daemon_it_is_nobodys() {
    if !root() {
        return;
    }
    let mut world = world(2);
    let _servers = [world.members[0].serve(&[OLD]), world.members[1].serve(&[NEW])];
    let _far = world.outside.serve(&[OLD]);
    let after = |seconds| Timestamp::now() + SignedDuration::from_secs(seconds);
    for daemon in [true, false] {
        let deadline = after(8);
        take(&world, &json!({"expiration": deadline.to_string()}));
        let reached = known_as(&view(&world, "p0")["virtual_ranges"]);
        expect_at_home(&[&world.outside], NEW, OLD);
        if !daemon {
            world.hub.process().signal(Signal::SIGSTOP);
        }
        wait_until("the deadline", Duration::from_mins(1), || Timestamp::now() > deadline);
        if !daemon {
            for (v4, reached) in FAMILIES.into_iter().zip(reached) {
                world.outside.expect_tcp(member_at(0, v4), NEW, Silent);
                world.outside.expect_tcp(member_at(0, v4), OLD, Silent);
                world.outside.expect_tcp(reached, OLD, Answered);
                world.members[0].expect_tcp(outside_at(v4), OLD, Answered);
            }
            world.hub.process().signal(Signal::SIGCONT);
        }
        let datagram = Duration::from_millis(20);
        let gap = wait_until("the range is back", Duration::from_secs(30), || {
            world.outside.udp(member_at(0, true), OLD, datagram) == Answered
        });
        let (lost, _) = until_back(&world);
        eprintln!("daemon {daemon}: {lost} attempts lost, the first datagram came after {gap:?}");
        assert!(!daemon || gap < Duration::from_secs(1) * patience(), "{gap:?}");
        assert!(!daemon || lost <= 1, "{lost} attempts lost");
        wait_until("it has ended", Duration::from_secs(20), || view(&world, "p1")["state"] == "expired");
        expect_at_home(&[&world.outside], OLD, NEW);
    }
}

#[test]
fn connections_of_the_holder_are_cut_both_when_the_range_goes_and_when_it_comes_back() {
    if !root() {
        return;
    }
    let world = world(2);
    let [old, new] = [&world.members[0], &world.members[1]];
    let _servers = [old.serve(&[OLD]), new.serve(&[NEW]), world.outside.serve(&[OLD])];
    let open = |at: [IpAddr; 2]| -> Vec<TcpStream> {
        let of =
            |(v4, at): (bool, IpAddr)| [world.outside.connect(at, OLD), old.connect(outside_at(v4), OLD)];
        FAMILIES.into_iter().zip(at).flat_map(of).collect()
    };
    let quick = Duration::from_millis(500);
    let mut before = open(FAMILIES.map(|v4| member_at(0, v4)));
    assert!(before.iter_mut().all(|stream| echoes(stream, LIMIT)));
    take(&world, &json!({}));
    let cut = before.iter_mut().filter_map(|stream| (!echoes(stream, quick)).then_some(())).count();
    assert_eq!(cut, 4, "no connection goes on with somebody else");
    assert!(world.dropped("p0", "no_flow") >= 2, "what the holder's members send");
    let reached = known_as(&view(&world, "p0")["virtual_ranges"]);
    let mut meanwhile = open(reached);
    let mut newcomers: Vec<TcpStream> =
        FAMILIES.map(|v4| world.outside.connect(member_at(0, v4), NEW)).into();
    assert!(meanwhile.iter_mut().chain(&mut newcomers).all(|stream| echoes(stream, LIMIT)));
    world.hub.request("DELETE", "/v1/personas/p1", &[], "").expect(204);
    let cut = meanwhile.iter_mut().chain(&mut newcomers).map(|stream| u32::from(!echoes(stream, quick)));
    assert_eq!(cut.sum::<u32>(), 6);
    assert!(open(FAMILIES.map(|v4| member_at(0, v4))).iter_mut().all(|stream| echoes(stream, LIMIT)));
}

#[test]
fn a_restart_keeps_who_has_the_range_and_a_change_that_goes_back_gives_it_back() {
    if !root() {
        return;
    }
    let mut world = world(2);
    let _servers = [world.members[0].serve(&[OLD]), world.members[1].serve(&[NEW])];
    take(&world, &json!({}));
    let before = view(&world, "p0");
    let reached = known_as(&before["virtual_ranges"]);
    let mut streams: Vec<TcpStream> = reached.map(|at| world.outside.connect(at, OLD)).into();
    streams.extend(FAMILIES.map(|v4| world.outside.connect(member_at(0, v4), NEW)));
    world.hub.process().kill();
    assert!(streams.iter_mut().all(|stream| echoes(stream, LIMIT)));
    world.hub.restart();
    assert!(streams.iter_mut().all(|stream| echoes(stream, LIMIT)), "connections go on");
    let after = view(&world, "p0");
    assert_eq!(
        (&after["virtual_ranges"], &after["overridden"]),
        (&before["virtual_ranges"], &before["overridden"])
    );
    // It ends while nobody is there to see it.
    world.hub.request("DELETE", "/v1/personas/p1", &[], "").expect(204);
    let deadline = Timestamp::now() + SignedDuration::from_secs(6);
    take(&world, &json!({"expiration": deadline.to_string()}));
    world.hub.process().kill();
    wait_until("the deadline", Duration::from_mins(1), || Timestamp::now() > deadline);
    world.hub.restart();
    until_back(&world);
    let file = world.hub.folder().join("taker.yaml");
    let mut definition = World::definition(1, &json!({"kind": "persona", "overlap": "override"}));
    definition["ip_range"] = World::definition(0, &json!({}))["ip_range"].clone();
    std::fs::write(&file, definition.to_string()).unwrap();
    world.hub.hubctl(&["apply", file.to_str().unwrap(), "--confirm", "120s"]).expect_success();
    wait_until("it is taken", LIMIT, || world.outside.tcp(member_at(0, true), NEW, LIMIT) == Answered);
    world.hub.hubctl(&["revert"]).expect_success();
    let (lost, _) = until_back(&world);
    assert!(lost <= 1, "{lost} attempts lost");
    expect_at_home(&[&world.outside], OLD, NEW);
}

#[test]
fn rules_about_the_holder_and_its_services_know_it_by_its_other_range() {
    if !root() {
        return;
    }
    let world = world(3);
    let host = &world.members[2];
    let _servers = [host.serve(&[90, 91]), world.members[1].serve(&[NEW])];
    let expose = json!([{"name": "web", "protocol": "tcp", "port": 90}]);
    let policies = json!([{"protocol": "tcp", "action": "allow"}]);
    world.create(2, &json!({"expose": expose, "security_policies": policies}));
    let expect = || {
        for v4 in FAMILIES {
            world.members[0].expect_tcp(member_at(2, v4), 90, Answered);
            world.members[0].expect_tcp(member_at(2, v4), 91, Silent);
        }
    };
    expect();
    take(&world, &json!({}));
    expect();
    for v4 in FAMILIES {
        world.members[1].expect_tcp(member_at(2, v4), 90, Silent);
    }
    world.hub.request("DELETE", "/v1/personas/p1", &[], "").expect(204);
    expect();
}

#[test]
fn members_behind_endpoints_change_their_names_and_nothing_of_their_own() {
    if !root() {
        return;
    }
    let mut world = World::new(0);
    let guests = ["ann", "bob"].map(|name| world.lab.space(name));
    let create = |index: usize, overlap: &str| {
        let definition = json!({
            "name": format!("p{index}"), "ip_range": ["10.77.0.0/24", "fd00:77::/120"], "overlap": overlap,
            "endpoints": [{"name": "one", "namespace": guests[index].name(),
                "address": ["10.77.0.10", "fd00:77::10"]}],
        });
        world.hub.send("POST", "/v1/personas", &definition).expect(201);
        world.active(&format!("p{index}"));
    };
    create(0, "nat");
    let _servers = [guests[0].serve(&[OLD]), guests[1].serve(&[NEW])];
    let native: [IpAddr; 2] = ["10.77.0.10".parse().unwrap(), "fd00:77::10".parse().unwrap()];
    let before = guests[0].ip("addr show dev eth0");
    create(1, "override");
    let names = world.hub.get("/v1/names?name=one.p0.hub").expect(200);
    let known: Vec<IpAddr> = serde_json::from_value(names["names"][0]["addresses"].clone()).unwrap();
    assert!(known.len() == 2 && known.iter().all(|address| !native.contains(address)), "{names:#}");
    for (native, known) in native.iter().zip(&known) {
        world.outside.expect_tcp(*native, NEW, Answered);
        world.outside.expect_tcp(*known, OLD, Answered);
    }
    world.hub.request("DELETE", "/v1/personas/p1", &[], "").expect(204);
    for native in native {
        world.outside.expect_tcp(native, OLD, Answered);
        guests[0].expect_ping(outside_at(native.is_ipv4()), Answered);
    }
    let addresses = |said: &str| -> Vec<String> {
        let lines = said.lines().filter(|line| line.contains("inet"));
        lines.map(|line| line.split_whitespace().nth(1).unwrap().to_owned()).collect()
    };
    assert_eq!(addresses(&guests[0].ip("addr show dev eth0")), addresses(&before));
}
