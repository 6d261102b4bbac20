//! The end of a life: cut or drained, announced, and enforced without the daemon.
#![expect(clippy::unwrap_used, reason = "a helper that cannot go on fails the test that called it")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use hub_tests::lab::Outcome::{Answered, Silent};
use hub_tests::lab::world::{FAMILIES, gateway, member_at};
use hub_tests::lab::{World, echoes, wait_until};
use hub_tests::root;
use jiff::{SignedDuration, Timestamp};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

fn after(seconds: i64) -> Timestamp {
    Timestamp::now() + SignedDuration::from_secs(seconds)
}

fn wait_for(moment: Timestamp) {
    wait_until("the moment", Duration::from_mins(1), || Timestamp::now() > moment);
}

#[test]
fn connections_are_reset_at_the_deadline_without_the_daemon() {
    if !root() {
        return;
    }
    let mut world = World::new(1);
    let _server = world.members[0].serve(&[7000]);
    let deadline = after(6);
    world.create(0, &json!({"expiration": deadline.to_string()}));
    let mut streams = FAMILIES.map(|v4| (v4, world.outside.connect(member_at(0, v4), 7000)));
    for (_, stream) in &mut streams {
        assert!(echoes(stream, Duration::from_secs(5)));
    }
    world.hub.process().signal(Signal::SIGSTOP);
    wait_for(deadline);
    for (v4, stream) in &mut streams {
        stream.write_all(b"late").unwrap();
        let error = stream.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "IPv4 {v4}: {error}");
        world.outside.expect_tcp(member_at(0, *v4), 7000, Silent);
    }
    world.hub.process().signal(Signal::SIGCONT);
    wait_until("the hub has noticed", Duration::from_secs(20), || {
        world.hub.get("/v1/personas/p0").body["state"] == "expired"
    });
    world.create(0, &json!({"expiration": after(60).to_string()}));
    for v4 in FAMILIES {
        world.outside.expect_tcp(member_at(0, v4), 7000, Answered);
    }
}

#[test]
fn a_drain_lets_connections_end_and_nobody_in_without_the_daemon() {
    if !root() {
        return;
    }
    let mut world = World::new(1);
    let _server = world.members[0].serve(&[7000]);
    let deadline = after(6);
    world.create(0, &json!({"expiration": deadline.to_string(), "on_expiry": "drain:8s"}));
    let mut streams = FAMILIES.map(|v4| (v4, world.outside.connect(member_at(0, v4), 7000)));
    for (_, stream) in &mut streams {
        assert!(echoes(stream, Duration::from_secs(5)));
    }
    wait_until("it drains", Duration::from_secs(20), || {
        world.hub.get("/v1/personas/p0").body["state"] == "expiring"
    });
    world.hub.process().signal(Signal::SIGSTOP);
    for (v4, stream) in &mut streams {
        world.outside.expect_tcp(member_at(0, *v4), 7000, Silent);
        assert!(echoes(stream, Duration::from_secs(5)), "a connection of before goes on");
    }
    wait_for(deadline + SignedDuration::from_secs(8));
    for (_, stream) in &mut streams {
        assert!(!echoes(stream, Duration::from_secs(1)));
    }
    world.hub.process().signal(Signal::SIGCONT);
    wait_until("it has ended", Duration::from_secs(20), || {
        world.hub.get("/v1/personas/p0").body["state"] == "expired"
    });
    assert!(world.dropped("p0", "draining") >= 2);
}

#[test]
fn a_deletion_drains_and_leaves_nothing() {
    if !root() {
        return;
    }
    let world = World::new(1);
    let _server = world.members[0].serve(&[7000]);
    world.create(0, &json!({}));
    let mut streams = FAMILIES.map(|v4| (v4, world.outside.connect(member_at(0, v4), 7000)));
    for (_, stream) in &mut streams {
        assert!(echoes(stream, Duration::from_secs(5)));
    }
    let refused = world.hub.send("DELETE", "/v1/personas/p0?drain=9m", &Value::Null);
    assert_eq!(refused.status, 400, "{:#}", refused.body);
    world.hub.hubctl(&["persona", "delete", "--drain", "6s", "p0"]).expect_success();
    let view = world.hub.get("/v1/personas/p0").expect(200);
    assert_eq!(view["state"], "deleting", "{view:#}");
    for (v4, stream) in &mut streams {
        assert!(echoes(stream, Duration::from_secs(5)), "IPv4 {v4}: a connection of before goes on");
        world.outside.expect_tcp(member_at(0, *v4), 7000, Silent);
    }
    wait_until("it is gone", Duration::from_secs(20), || world.hub.get("/v1/personas/p0").status == 404);
    for (v4, stream) in &mut streams {
        assert!(!echoes(stream, Duration::from_secs(1)), "IPv4 {v4}: a connection outlived its persona");
    }

    world.create(0, &json!({}));
    for v4 in FAMILIES {
        world.outside.expect_tcp(member_at(0, v4), 7000, Answered);
    }
    let headers = [("Prefer", "return=representation")];
    let answer = world.hub.request("DELETE", "/v1/personas/p0", &headers, "").expect(200);
    assert_eq!(answer, json!({"persona": "p0", "residue": []}));
}

#[test]
fn the_end_is_announced_and_life_is_extended_up_to_its_limit() {
    if !root() {
        return;
    }
    let world = World::new(1);
    let followed = world.lab.folder().join("followed");
    let _follower = world.router.background(&format!(
        "curl --silent --no-buffer --unix-socket {} 'http://hub/v1/events?type=change&persona=p0' --output {}",
        world.hub.socket().display(),
        followed.display()
    ));
    wait_until("the stream is open", Duration::from_secs(20), || world.hub.log().contains("/v1/events"));
    world.create(0, &json!({"ttl": "62s", "max_ttl": "90s"}));
    let warnings = || {
        let text = std::fs::read_to_string(&followed).unwrap_or_default();
        let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
        let events = data.filter_map(|line| serde_json::from_str::<Value>(line.trim()).ok());
        let warnings = events.filter(|event| event["what"] == "ending" && event["persona"] == "p0");
        warnings.map(|event| event["message"].to_string()).collect::<Vec<_>>()
    };
    wait_until("the warning", Duration::from_secs(20), || !warnings().is_empty());
    assert!(warnings().iter().all(|message| message.contains("p0: its end is near")), "{:?}", warnings());
    let reasons = world.hub.get("/v1/personas/p0").body["conditions"].to_string();
    assert!(reasons.contains("EndsInAMinute"), "{reasons}");
    let extend = |seconds: i64| {
        let patch = json!({"ttl": null, "expiration": after(seconds).to_string()});
        world.hub.send("PATCH", "/v1/personas/p0", &patch).status
    };
    assert_eq!((extend(300), extend(75)), (422, 200));
}

/// What `/v1/gc` says of orphans that are made while the daemon stands still, so that it is asked before it looks by
/// itself. On a busy machine it may have looked first: then they are made again.
fn collected(world: &mut World, method: &str) -> Value {
    const EACH: [&str; 4] = [
        "route 10.250.0.0/24 metric 1000 table 254",
        "route fd00:250::/64 metric 1000 table 254",
        "rule 17700: from 10.250.0.0/24 lookup 17700099",
        "endpoint hub99e0",
    ];
    let mut answer = Value::Null;
    wait_until("every orphan is named", Duration::from_secs(20), || {
        world.hub.process().signal(Signal::SIGSTOP);
        world.router.sh("ip route add 10.250.0.0/24 dev seg0 proto 177 metric 1000
            ip -6 route add fd00:250::/64 dev seg0 proto 177 metric 1000
            ip rule add from 10.250.0.0/24 table 17700099 priority 17700 protocol 177
            ip link add hub99e0 group 177 type veth peer name x99");
        let mut socket = UnixStream::connect(world.hub.socket()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(socket, "{method} /v1/gc HTTP/1.1\r\nhost: hub\r\nconnection: close\r\n\r\n").unwrap();
        world.hub.process().signal(Signal::SIGCONT);
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{text}");
        answer = serde_json::from_str(body).unwrap();
        wait_until("they are gone, whoever looked first", Duration::from_secs(20), || {
            let left = world.router.sh("ip route; ip -6 route; ip rule; ip link");
            !["10.250.0.0", "fd00:250", "hub99e0"].iter().any(|orphan| left.contains(orphan))
        });
        let found = answer.get("found").and_then(Value::as_array).unwrap();
        EACH.iter().all(|orphan| found.contains(&json!(orphan)))
    });
    answer
}

#[test]
fn orphans_are_listed_and_removed() {
    if !root() {
        return;
    }
    let mut world = World::new(1);
    world.create(0, &json!({}));
    let listed = world.hub.hubctl(&["--json", "gc", "--dry-run"]).expect_success();
    assert_eq!(serde_json::from_str::<Value>(&listed).unwrap(), json!({"found": []}));
    world.router.sh("ip route add 10.251.0.0/24 dev seg0");
    let looked = collected(&mut world, "GET");
    assert_eq!(looked["left"], Value::Null, "who only looks removes nothing: {looked:#}");
    let answer = collected(&mut world, "POST");
    assert_eq!(answer["left"], json!([]), "{answer:#}");
    for answer in [looked, answer] {
        assert!(!answer.to_string().contains("10.251"), "what is not ours is not named: {answer:#}");
    }
    let left = world.router.sh("ip route");
    assert!(left.contains("10.251.0.0/24"), "what is not ours stays: {left}");
}

#[test]
fn what_the_kernel_does_not_let_go_is_named_as_residue() {
    if !root() {
        return;
    }
    let world = World::new(1);
    world.create(0, &json!({}));
    // A mount keeps a folder of pins that no version uses from going.
    let older = world.lab.folder().join("bpf/hub/v0");
    let busy = older.join("busy");
    world.router.sh(&format!("mkdir -p {0} && mount -t tmpfs residue {0}", busy.display()));
    let pin = format!("pin {}", older.display());
    let [removal, collected] = [("DELETE", "/v1/personas/p0"), ("POST", "/v1/gc")].map(|(method, path)| {
        world.hub.request(method, path, &[("Prefer", "return=representation")], "").expect(200)
    });
    assert_eq!(removal, json!({"persona": "p0", "residue": [pin]}));
    assert_eq!(collected, json!({"found": [pin], "left": [pin]}));
    let said = world.hub.hubctl(&["gc"]).expect_success();
    assert!(said.contains("0 orphans removed") && said.contains("still there"), "{said}");
    world.router.sh(&format!("umount {}", busy.display()));
    // What failed is tried again, so the hub may be first.
    let collected = world.hub.request("POST", "/v1/gc", &[], "").expect(200);
    assert_eq!(collected["left"], json!([]), "{collected:#}");
    assert!(!older.exists());
    world.create(0, &json!({}));
    let said = world.hub.hubctl(&["--json", "persona", "delete", "p0"]).expect_success();
    assert!(!said.contains("pin"), "{said}");
}

#[test]
fn pins_that_no_version_uses_are_listed_and_removed() {
    if !root() {
        return;
    }
    let world = World::new(1);
    world.create(0, &json!({}));
    let hub = world.lab.folder().join("bpf/hub");
    let create = |path: &str| {
        let path = hub.join(path).display().to_string();
        world.router.sh(&format!(
            "mkdir -p $(dirname {path}) && bpftool map create {path} type array key 4 value 4 entries 1 name left"
        ));
    };
    let kept = world.router.sh(&format!("find {} | sort", hub.display()));
    let gone = ["v1/LEFT", "v1/link/99999-hub_tc_in", "v0"].map(|path| hub.join(path));
    // A pass of the hub's own that comes in between removes them as well: then they are made again.
    wait_until("they are there when they were listed", Duration::from_secs(20), || {
        for path in ["v1/LEFT", "v1/link/99999-hub_tc_in", "v0/SEGMENTS", "mine/map"] {
            if !hub.join(path).exists() {
                create(path);
            }
        }
        let listed = world.hub.hubctl(&["gc", "--dry-run"]).expect_success();
        for path in &gone {
            assert!(listed.contains(&format!("pin {}", path.display())), "{listed}");
        }
        assert!(!listed.contains("mine"), "{listed}");
        gone.iter().all(|path| path.exists())
    });
    let said = world.hub.hubctl(&["gc"]).expect_success();
    assert!(said.contains(" removed") && !said.contains("still there"), "{said}");
    assert!(!gone.iter().any(|path| path.exists()));
    world.router.sh(&format!("rm {0}/mine/map && rmdir {0}/mine", hub.display()));
    assert_eq!(world.router.sh(&format!("find {} | sort", hub.display())), kept);
    let maps = world.router.sh("bpftool map show name left 2>/dev/null || true");
    assert_eq!(maps, "", "the maps went with their pins");
    world.members[0].expect_ping(gateway(0, true), Answered);
}

#[test]
fn services_open_nothing_else_between_two_personas() {
    if !root() {
        return;
    }
    let world = World::new(2);
    let (_shop, _user) = (world.members[0].serve(&[443, 80]), world.members[1].serve(&[443]));
    world.create(0, &json!({"expose": [{"name": "web", "port": 443}]}));
    world.create(1, &json!({}));
    for v4 in FAMILIES {
        world.members[1].expect_tcp(member_at(0, v4), 443, Silent);
    }
    world.replace(1, &json!({"use": ["p0/web"]}));
    for v4 in FAMILIES {
        world.members[1].expect_tcp(member_at(0, v4), 443, Answered);
        world.members[1].expect_tcp(member_at(0, v4), 80, Silent);
        world.members[1].expect_udp(member_at(0, v4), 443, Silent);
        world.members[1].expect_ping(member_at(0, v4), Silent);
        world.members[0].expect_tcp(member_at(1, v4), 443, Silent);
    }
    // The policy of either side still holds.
    let deny = json!([{"protocol": "tcp", "port": 443, "action": "deny"}]);
    world.replace(0, &json!({"expose": [{"name": "web", "port": 443}], "security_policies": deny}));
    world.members[1].expect_tcp(member_at(0, true), 443, Silent);
    world.replace(0, &json!({"expose": [{"name": "web", "port": 443}]}));
    world.members[1].expect_tcp(member_at(0, true), 443, Answered);
    let deny = json!([{"direction": "egress", "protocol": "tcp", "port": 443, "action": "deny"}]);
    world.replace(1, &json!({"use": ["p0/web"], "security_policies": deny}));
    world.members[1].expect_tcp(member_at(0, true), 443, Silent);
}

#[test]
fn a_clone_is_a_persona_like_another() {
    if !root() {
        return;
    }
    let world = World::with(1, "pools: {lab: 10.200.0.0/16}");
    let rules = json!([{"protocol": "tcp", "port": 80, "action": "allow"}]);
    let template = json!({"name": "base", "ip_range": "auto/26", "ttl": "2h", "security_policies": rules});
    world.hub.send("POST", "/v1/personas", &template).expect(201);
    world.hub.hubctl(&["persona", "clone", "base", "dev", "--set", "ttl=4h"]).expect_success();
    let dev = world.hub.get("/v1/personas/dev").expect(200);
    assert_eq!((&dev["definition"]["security_policies"], &dev["definition"]["ttl"]), (&rules, &json!("4h")));
    assert_eq!(dev["ranges"], json!(["10.200.0.64/26"]));
}

#[test]
fn templates_make_personas_of_files_and_by_hand() {
    if !root() {
        return;
    }
    let world = World::with(1, "pools: {lab: 10.200.0.0/16}");
    let file = world.hub.documents().join("dev.yaml");
    let text =
        "kind: template\nname: dev\nttl: 2h\nprotocols: [udp]\n---\nkind: persona\nname: a\ntemplate: dev\n";
    std::fs::write(&file, text).unwrap();
    world.hub.hubctl(&["apply"]).expect_success();
    let plan = world.hub.hubctl(&["plan"]).expect_success();
    assert!(!plan.contains("update"), "a whole persona is what its file says: {plan}");
    world.hub.hubctl(&["persona", "from-template", "dev", "b", "--set", "ttl=8h"]).expect_success();
    world.hub.hubctl(&["persona", "create", "c", "--template", "dev", "--ttl", "4h"]).expect_success();
    for (name, ttl) in [("a", "2h"), ("b", "8h"), ("c", "4h")] {
        let definition = world.hub.get(&format!("/v1/personas/{name}")).expect(200)["definition"].clone();
        assert_eq!((&definition["ttl"], &definition["protocols"]), (&json!(ttl), &json!(["udp"])), "{name}");
        assert_eq!((&definition["ip_range"], &definition["template"]), (&json!("auto"), &Value::Null));
    }
    assert!(world.hub.hubctl(&["persona", "template"]).expect_success().contains("dev"));
    assert!(world.hub.hubctl(&["persona", "template", "dev"]).expect_success().contains("kind: template"));
    let unknown =
        world.hub.send("POST", "/v1/personas", &json!({"name": "d", "template": "prod"})).expect(422);
    assert_eq!(unknown["errors"][0]["pointer"], "/template", "{unknown:#}");
    std::fs::write(&file, text.replace("template: dev", "template: prod")).unwrap();
    let refused = world.hub.hubctl(&["apply"]);
    assert!(!refused.success() && refused.stderr.contains("dev.yaml:8:11"), "{}", refused.stderr);
    assert_eq!(world.hub.get("/v1/personas/a").expect(200)["state"], "active");
}

#[test]
fn the_log_level_is_read_again() {
    if !root() {
        return;
    }
    let mut world = World::new(1);
    let file = world.lab.folder().join("hub.yaml");
    let before = std::fs::read_to_string(&file).unwrap();
    world.hub.launch_under(&["env", "-u", "RUST_LOG"]);
    let from = world.hub.log().len();
    let log = |world: &World| world.hub.log().get(from..).unwrap_or_default().to_owned();
    wait_until("it is ready", Duration::from_secs(20), || log(&world).contains("ready"));
    world.hub.get("/v1/personas");
    assert!(!log(&world).contains("DEBUG"), "{}", log(&world));
    std::fs::write(&file, before + "log: debug\n").unwrap();
    world.hub.process().signal(Signal::SIGHUP);
    wait_until("it logs more", Duration::from_secs(20), || {
        world.hub.get("/v1/personas");
        log(&world).contains("DEBUG")
    });
}
