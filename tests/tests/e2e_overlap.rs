//! Two personas with the very same ranges: both work at once, reach each other and are reached from outside,
//! each by the range that others know it by.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::net::IpAddr;
use std::time::Duration;

use hub_tests::lab::Outcome::{Answered, Refused, Silent};
use hub_tests::lab::world::{FAMILIES, gateway, gateway_outside, member_at, outside_at};
use hub_tests::lab::{Space, World, echoes, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(10);

/// Twins: member 1 has the addresses of member 0.
fn twins(fields: &Value) -> (World, [[IpAddr; 2]; 2]) {
    let world = World::new(2);
    world.make_twin(1, 0);
    let definition = |number: usize| {
        let mut definition = World::definition(number, fields);
        definition["ip_range"] = World::definition(0, &json!({}))["ip_range"].clone();
        definition["peers"] = json!([format!("p{}", 1 - number)]);
        definition
    };
    world.hub.send("POST", "/v1/personas", &definition(0)).expect(201);
    let view = world.hub.send("POST", "/v1/personas", &definition(1)).expect(201);
    world.active("p0");
    world.active("p1");
    let aliases = &world.hub.get("/v1/personas/p0").expect(200)["aliases"];
    let known = FAMILIES.map(|v4| [known_as(aliases, v4), known_as(&view["virtual_ranges"], v4)]);
    (world, known)
}

/// The address of the member in the range that stands for its own.
fn known_as(ranges: &Value, v4: bool) -> IpAddr {
    let native = if v4 { "10.100.0.0/24" } else { "fd00:100::/64" };
    let range = ranges[native].as_str().unwrap_or_else(|| panic!("{ranges:#}"));
    nth(range, if v4 { 10 } else { 0x10 })
}

#[test]
fn twins_reach_each_other_and_the_outside_reaches_both() {
    if !root() {
        return;
    }
    let (world, known) = twins(&json!({}));
    assert_eq!(known[0].map(|address| address.to_string()), ["100.64.1.10", "100.64.0.10"]);
    assert!(known[1].iter().all(|address| address.to_string().starts_with("fd")), "{known:?}");
    let [first, second] = [&world.members[0], &world.members[1]];
    let _servers = [first.serve(&[80]), second.serve(&[80]), world.outside.serve(&[80])];
    for (v4, [alias, other]) in FAMILIES.into_iter().zip(known) {
        let native = member_at(0, v4);
        for (space, target) in [
            (first, other),
            (second, alias),
            (&world.outside, native),
            (&world.outside, other),
            (first, outside_at(v4)),
            (second, outside_at(v4)),
        ] {
            space.expect_ping(target, Answered);
            space.expect_tcp(target, 80, Answered);
            space.expect_udp(target, 80, Answered);
            let big = format!("ping -n -c 2 -i 0.2 -W 2 -s 4000 {target}");
            assert!(space.succeeds(&big, LIMIT), "fragments from {} to {target}", space.name());
        }
        // The hub itself.
        world.router.expect_ping(native, Answered);
        world.router.expect_ping(other, Answered);
        second.expect_ping(gateway(0, v4), Answered);
        // Its own virtual range is for others.
        second.expect_ping(other, Silent);
    }
    assert!(world.dropped("p1", "no_translation") >= 2);
    assert_eq!(world.dropped("p0", "spoof") + world.dropped("p1", "spoof"), 0);
}

/// Packets that a host found to have a wrong checksum, so far.
fn broken(space: &Space) -> String {
    let said = space.sh("nstat -asz | grep -i csum; nstat -asz IpInHdrErrors | tail -n 1");
    let wrong = said.lines().filter(|line| line.split_whitespace().nth(1) != Some("0"));
    wrong.collect::<Vec<_>>().join("\n")
}

#[test]
fn whole_checksums_stay_right_and_nobody_finds_a_broken_one() {
    if !root() {
        return;
    }
    let (world, known) = twins(&json!({}));
    let spaces = [&world.members[0], &world.members[1], &world.outside];
    for space in spaces {
        // As from a wire: receivers check what senders summed up themselves.
        space.sh("ethtool --offload eth0 tx off gro off");
    }
    let _servers = spaces.map(|space| space.serve(&[80]));
    for (v4, [alias, other]) in FAMILIES.into_iter().zip(known) {
        for (space, target) in
            [(spaces[0], other), (spaces[1], alias), (spaces[2], other), (spaces[1], outside_at(v4))]
        {
            space.expect_ping(target, Answered);
            space.expect_tcp(target, 80, Answered);
            space.expect_udp(target, 80, Answered);
            space.expect_udp(target, 9, Refused);
            let big = format!("ping -n -c 1 -W 2 -s 4001 {target}");
            assert!(space.succeeds(&big, LIMIT), "fragments from {} to {target}", space.name());
        }
    }
    for space in spaces {
        assert_eq!(broken(space), "", "{}", space.name());
    }
}

#[test]
fn errors_speak_of_addresses_that_their_reader_knows() {
    if !root() {
        return;
    }
    let (world, known) = twins(&json!({}));
    let [first, second] = [&world.members[0], &world.members[1]];
    for (v4, [alias, other]) in FAMILIES.into_iter().zip(known) {
        // Port unreachable comes back to the socket only if what it quotes is what the socket sent.
        first.expect_udp(other, 9, Refused);
        second.expect_udp(alias, 9, Refused);
        world.outside.expect_udp(other, 9, Refused);
        second.expect_udp(outside_at(v4), 9, Refused);
        // Hops are counted down by the hub, which the twin knows by its native gateway.
        for (space, target, hub) in
            [(second, alias, gateway(0, v4)), (&world.outside, other, gateway_outside(v4))]
        {
            let said = space.try_sh(&format!("ping -n -c 1 -W 1 -t 1 {target}"), LIMIT).stdout;
            assert!(said.contains(&format!("From {hub}")) && said.contains("xceeded"), "{said}");
        }
        // A smaller link behind the twin.
        world.router.ip("link set seg1 mtu 1400");
        let said = first.try_sh(&format!("ping -n -c 2 -i 0.2 -W 1 -M do -s 1420 {other}"), LIMIT);
        let said = said.stdout + &said.stderr;
        assert!(said.contains("1400"), "no word of the smaller link: {said}");
        world.router.ip("link set seg1 mtu 1500");
    }
}

#[test]
fn rules_are_written_with_the_addresses_that_members_know() {
    if !root() {
        return;
    }
    let (world, known) = twins(&json!({}));
    let second = &world.members[1];
    let _server = second.serve(&[80, 81, 82]);
    let _first = world.members[0].serve(&[90, 91]);
    for (v4, [alias, other]) in FAMILIES.into_iter().zip(known) {
        let native = member_at(0, v4);
        let definition = json!({
            "name": "p1", "ip_range": ["10.100.0.0/24", "fd00:100::/64"], "interfaces": ["seg1"], "peers": ["p0"],
            "security_policies": [
                {"protocol": "tcp", "port": 80, "source": alias, "action": "allow"},
                {"protocol": "tcp", "port": 81, "source": native, "action": "allow"},
                {"protocol": "tcp", "port": 82, "destination": native, "action": "allow"},
                {"direction": "egress", "protocol": "tcp", "port": 90, "destination": alias, "action": "allow"},
                {"direction": "egress", "protocol": "tcp", "source": native, "port": 91, "action": "deny"},
            ],
        });
        world.hub.send("PUT", "/v1/personas/p1", &definition).expect(200);
        world.members[0].expect_tcp(other, 80, Answered);
        world.members[0].expect_tcp(other, 81, Silent);
        world.members[0].expect_tcp(other, 82, Answered);
        second.expect_tcp(alias, 90, Answered);
        second.expect_tcp(alias, 91, Silent);
    }
}

#[test]
fn virtual_ranges_outlive_the_daemon_and_whoever_came_first() {
    if !root() {
        return;
    }
    let (mut world, known) = twins(&json!({}));
    let _server = world.members[1].serve(&[80]);
    let before = world.hub.get("/v1/personas/p1").expect(200);
    let mut streams: Vec<_> = known
        .iter()
        .flat_map(|[_, other]| [&world.outside, &world.members[0]].map(|space| space.connect(*other, 80)))
        .collect();
    let mut all_echo = || streams.iter_mut().all(|stream| echoes(stream, LIMIT));
    assert!(all_echo());
    for _ in 0..2 {
        world.hub.process().kill();
        assert!(all_echo(), "the programs go on alone");
        world.hub.restart();
        assert!(all_echo(), "and under the next daemon");
    }
    let after = world.hub.get("/v1/personas/p1").expect(200);
    assert_eq!(after["virtual_ranges"], before["virtual_ranges"]);
    assert_eq!(world.total("dropped"), 0);
    world.hub.request("DELETE", "/v1/personas/p0", &[], "").expect(204);
    let after = world.hub.get("/v1/personas/p1").expect(200);
    assert_eq!(after["virtual_ranges"], before["virtual_ranges"], "stability over beauty");
    for [_, other] in known {
        world.outside.expect_tcp(other, 80, Answered);
    }
}

#[test]
fn endpoints_of_twins_are_made_with_native_addresses() {
    if !root() {
        return;
    }
    let mut world = World::with(0, "dns: {listen: '[::]:53'}\n");
    let guests = ["ann", "bob"].map(|name| world.lab.space(name));
    for (index, guest) in guests.iter().enumerate() {
        let definition = json!({
            "name": format!("p{index}"), "ip_range": ["10.77.0.0/24", "fd00:77::/120"],
            "peers": [format!("p{}", 1 - index)],
            "endpoints": [{"name": "one", "namespace": guest.name(),
                "address": ["10.77.0.10", "fd00:77::10"]}],
        });
        world.hub.send("POST", "/v1/personas", &definition).expect(201);
    }
    let [ann, bob] = &guests;
    assert!(bob.ip("addr show dev eth0").contains("10.77.0.10"));
    let view = |name: &str| world.hub.get(&format!("/v1/personas/{name}")).expect(200);
    let _far = world.outside.serve(&[80]);
    for v4 in FAMILIES {
        let (range, host) = if v4 { ("10.77.0.0/24", 10) } else { ("fd00:77::/120", 0x10) };
        let [alias, other] = [&view("p0")["aliases"][range], &view("p1")["virtual_ranges"][range]]
            .map(|range| nth(range.as_str().unwrap(), host));
        ann.expect_ping(other, Answered);
        bob.expect_ping(alias, Answered);
        world.outside.expect_ping(other, Answered);
        world.router.expect_ping(other, Answered);
        for guest in &guests {
            guest.expect_tcp(outside_at(v4), 80, Answered);
        }
        // Names mean whatever whoever asks has to dial.
        let (native, inside, uplink) = (nth(range, host), nth(range, 1), gateway_outside(v4));
        let dashed = if v4 { "10-77-0-10.p1.hub" } else { "fd00-77--10.p1.hub" };
        for (space, server, name, expected) in [
            (ann, inside, "one.p0.hub", native),
            (ann, inside, "one.p1.hub", other),
            (bob, inside, "one.p1.hub", native),
            (bob, inside, "one.P0.hub", alias),
            (&world.outside, uplink, "one.p0.hub", native),
            (&world.outside, uplink, "one.p1.hub", other),
            (&world.outside, uplink, dashed, other),
        ] {
            assert_eq!(look_up(space, server, name), Some(expected), "{name} in {}", space.name());
        }
        assert_eq!(look_up(ann, inside, "two.p1.hub"), None);
    }
    let names = world.hub.get("/v1/names").expect(200);
    assert_eq!(names["names"][1]["name"], "one.p1.hub");
    assert_eq!(names["names"][1]["addresses"][0], "100.64.0.10");
    let resolved = world.hub.get("/v1/names?name=10-77-0-99.p1.hub").expect(200);
    assert_eq!(resolved["names"][0]["addresses"][0], "100.64.0.99");
    let hosts = world.hub.documents().parent().unwrap().join("run/hosts");
    let hosts = std::fs::read_to_string(&hosts).unwrap_or_else(|e| panic!("{}: {e}", hosts.display()));
    assert!(
        hosts.contains("100.64.0.10 one.p1.hub\n") && hosts.contains("10.77.0.10 one.p0.hub\n"),
        "{hosts}"
    );
    let said = world.hub.hubctl(&["persona", "show", "p1"]).expect_success();
    assert!(said.contains("100.64.0.0/24"), "{said}");
    // Without a port of its own nobody could tell whose packets they are; asked to refuse, it is refused.
    for fields in [json!({}), json!({"interfaces": ["up9"], "overlap": "reject"})] {
        let mut third = json!({"name": "third", "ip_range": "10.77.0.128/25"});
        for (key, value) in fields.as_object().unwrap() {
            third[key] = value.clone();
        }
        let refusal = world.hub.send("POST", "/v1/personas", &third).expect(409);
        assert!(refusal.to_string().contains("overlaps 10.77.0.0/24"), "{refusal:#}");
    }
}

/// What the status says of DNS that nobody answers.
fn unanswered(world: &World) -> Option<String> {
    let status = world.hub.get("/v1/status").body;
    let conditions = status["conditions"].as_array()?;
    let found = conditions.iter().find(|condition| condition["reason"] == "DnsUnanswered")?;
    Some(found["message"].to_string())
}

#[test]
fn dns_has_its_port_with_the_drop_in_and_the_service_runs_without() {
    if !root() {
        return;
    }
    let rights = |files: &[&str]| {
        let lines = files.iter().flat_map(|file| file.lines());
        let named = lines.filter_map(|line| line.strip_prefix("CapabilityBoundingSet="));
        let each = named.flat_map(|names| names.split_whitespace());
        let each: String = each.map(|name| name.replace("CAP_", ",+").to_lowercase()).collect();
        format!("--bounding-set=-all{each}")
    };
    let service = include_str!("../../config/hubd.service");
    let drop_in = include_str!("../../config/debian/dns.conf");
    let mut world = World::with(1, "dns: {listen: '[::]:53'}\n");
    world.create(0, &json!({}));
    world.hub.restart_under(&["setpriv", &rights(&[service])]);
    wait_until("it says what is missing", LIMIT, || {
        unanswered(&world).is_some_and(|said| said.contains("dns.conf"))
    });
    world.hub.restart_under(&["setpriv", &rights(&[service, drop_in])]);
    for v4 in FAMILIES {
        world.outside.expect_ping(member_at(0, v4), Answered);
        let name = if v4 { "10-100-0-10.p0.hub" } else { "fd00-100--10.p0.hub" };
        assert_eq!(look_up(&world.outside, gateway_outside(v4), name), Some(member_at(0, v4)));
    }
    assert_eq!(unanswered(&world), None);
}

#[test]
fn dns_is_answered_as_soon_as_nobody_else_has_the_port() {
    if !root() {
        return;
    }
    let mut world = World::with(1, "dns: {listen: '[::]:53'}\n");
    world.create(0, &json!({}));
    world.hub.process().stop();
    let other = world.router.within(|| std::net::UdpSocket::bind("127.0.0.53:53").unwrap());
    world.hub.restart();
    wait_until("who listens is told", LIMIT, || {
        unanswered(&world).is_some_and(|said| said.contains("another name server"))
    });
    world.outside.expect_ping(member_at(0, true), Answered);
    drop(other);
    wait_until("the condition goes", LIMIT, || unanswered(&world).is_none());
    for v4 in FAMILIES {
        let name = if v4 { "10-100-0-10.p0.hub" } else { "fd00-100--10.p0.hub" };
        assert_eq!(look_up(&world.outside, gateway_outside(v4), name), Some(member_at(0, v4)));
    }
}

/// An address of a range.
fn nth(range: &str, host: u32) -> IpAddr {
    match range.split('/').next().unwrap().parse().unwrap() {
        IpAddr::V4(base) => IpAddr::V4((base.to_bits() + host).into()),
        IpAddr::V6(base) => IpAddr::V6((base.to_bits() + u128::from(host)).into()),
    }
}

/// The address that a DNS server gives for a name.
fn look_up(space: &Space, server: IpAddr, name: &str) -> Option<IpAddr> {
    let v4 = server.is_ipv4();
    let mut question = vec![0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(label.len() as u8);
        question.extend(label.bytes());
    }
    question.extend([0, 0, if v4 { 1 } else { 28 }, 0, 1]);
    let any = if v4 { "0.0.0.0:0" } else { "[::]:0" };
    let socket = space.within(|| std::net::UdpSocket::bind(any).unwrap());
    socket.connect((server, 53)).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket.send(&question).unwrap();
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).unwrap_or_else(|error| panic!("{name} at {server}: {error}"));
    if answer[7] == 0 {
        assert_eq!(answer[3] & 0xf, 3, "no such name");
        return None;
    }
    let data = &answer[length - if v4 { 4 } else { 16 }..length];
    Some(match <[u8; 4]>::try_from(data) {
        Ok(bytes) => bytes.into(),
        Err(_) => <[u8; 16]>::try_from(data).unwrap().into(),
    })
}
