//! The daemon dies and comes back under traffic: packets and connections do not notice.
#![expect(clippy::unwrap_used, reason = "a helper that cannot go on fails the test that called it")]

use std::time::Duration;

use hub_tests::lab::Outcome::Answered;
use hub_tests::lab::world::{FAMILIES, member_at, outside_at};
use hub_tests::lab::{Space, World, echoes, wait_until};
use hub_tests::root;
use nix::sys::signal::Signal;
use serde_json::json;

const ROUNDS: usize = 5;

/// Pings without pause while the function works; panics if an answer is missing.
fn while_pinging(space: &Space, v4: bool, mut work: impl FnMut()) {
    let output = std::thread::scope(|scope| {
        let target = outside_at(v4);
        let script = format!("exec ping -q -n -i 0.01 -W 2 {target}");
        let mut command = space.program("sh");
        command.args(["-c", &script]).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let reader = scope.spawn({
            let mut stdout = child.stdout.take().unwrap();
            move || {
                let mut said = String::new();
                std::io::Read::read_to_string(&mut stdout, &mut said).unwrap();
                said
            }
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(&mut work));
        let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
        nix::sys::signal::kill(pid, Signal::SIGINT).unwrap();
        child.wait().unwrap();
        let said = reader.join().unwrap();
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        said
    });
    let counts: Vec<u64> = output
        .lines()
        .filter(|line| line.contains("packets transmitted"))
        .flat_map(|line| line.split(' ').filter_map(|word| word.parse().ok()))
        .collect();
    let [sent, received, ..] = counts[..] else { panic!("{output}") };
    assert!(sent > 20, "{output}");
    // The last one may be under way when the ping is told to end.
    assert!(sent - received <= 1, "{} of {sent} lost: {output}", sent - received);
}

#[test]
fn killed_again_and_again_nothing_is_lost() {
    if !root() {
        return;
    }
    let mut world = World::new(1);
    let member = world.members[0].clone();
    let _inside = member.serve(&[80]);
    let view = world.create(
        0,
        &json!({
            "security_policies": [{"protocol": "tcp", "port": 80, "action": "allow"}],
        }),
    );
    let mut streams = FAMILIES.map(|v4| world.outside.connect(member_at(0, v4), 80));
    while_pinging(&member, true, || {
        while_pinging(&member, false, || {
            for round in 0..ROUNDS {
                world.hub.process().kill();
                assert!(streams.iter_mut().all(|stream| echoes(stream, Duration::from_secs(5))));
                world.hub.restart();
                assert!(
                    streams.iter_mut().all(|stream| echoes(stream, Duration::from_secs(5))),
                    "round {round}"
                );
            }
        });
    });
    let after = world.hub.get("/v1/personas/p0").expect(200);
    for field in ["id", "segment", "generation", "created_at", "definition"] {
        assert_eq!(after[field], view[field], "{field}");
    }
    assert_eq!(world.total("dropped"), 0);
}

#[test]
fn told_to_end_the_data_path_goes_on_and_so_does_its_successor() {
    if !root() {
        return;
    }
    let mut world = World::new(1);
    let member = world.members[0].clone();
    let _inside = member.serve(&[80]);
    world.create(0, &json!({}));
    let mut stream = world.outside.connect(member_at(0, true), 80);
    while_pinging(&member, true, || {
        for _ in 0..ROUNDS {
            assert!(world.hub.process().stop().success());
            assert!(echoes(&mut stream, Duration::from_secs(5)));
            world.hub.restart();
            assert!(echoes(&mut stream, Duration::from_secs(5)));
        }
    });
    assert_eq!(world.hub.get("/v1/personas/p0").body["state"], "active");
}

#[test]
fn what_lost_its_persona_while_the_daemon_was_down_is_collected() {
    if !root() {
        return;
    }
    let mut world = World::new(1);
    let guest = world.lab.space("guest");
    let file = world.hub.documents().join("guests.yaml");
    let document = format!(
        "kind: persona\nname: guests\nip_range: [10.77.0.0/24, 'fd00:77::/64']\n\
         endpoints:\n  - name: one\n    namespace: {}\n",
        guest.name()
    );
    std::fs::write(&file, document).unwrap();
    world.hub.process().signal(Signal::SIGHUP);
    world.active("guests");
    let gateway = "10.77.0.1";
    guest.expect_ping(gateway.parse().unwrap(), Answered);
    let links = world.router.ip("-oneline link show").lines().filter(|l| l.contains(": hub")).count();
    assert_eq!(links, 1);

    world.hub.process().kill();
    std::fs::remove_file(&file).unwrap();
    world.hub.restart();
    wait_until("the orphans are gone", Duration::from_secs(5), || {
        let routes =
            world.router.sh("ip route show table all proto 177; ip -6 route show table all proto 177");
        let links = world.router.ip("-oneline link show");
        routes.trim().is_empty() && !links.lines().any(|line| line.contains(": hub"))
    });
    assert_eq!(world.hub.get("/v1/personas/guests").status, 404);
    assert!(!guest.ip("-oneline link show").contains("eth0"));
}

/// How long after a request the daemon is killed, in milliseconds.
const MOMENTS: [u64; 6] = [0, 2, 5, 10, 20, 40];

#[test]
fn a_request_that_is_sent_again_gets_its_persona_from_another_daemon() {
    if !root() {
        return;
    }
    let mut world = World::new(1);
    let body = World::definition(0, &json!({"ttl": "1h"})).to_string();
    let other = World::definition(0, &json!({"ttl": "2h"})).to_string();
    let post = |world: &World, key: &str, body: &str| {
        world.hub.request("POST", "/v1/personas", &[("Idempotency-Key", key)], body)
    };
    let first = post(&world, "k", &body).expect(201);
    for crashes in [false, true] {
        if crashes {
            world.hub.process().kill();
        } else {
            assert!(world.hub.process().stop().success());
        }
        world.hub.restart();
        let again = post(&world, "k", &body);
        let location = again.header("location").unwrap().to_owned();
        let again = again.expect(201);
        for field in ["id", "segment", "generation", "created_at", "expires_at", "definition"] {
            assert_eq!(again[field], first[field], "{field}");
        }
        assert_eq!(world.hub.get(&location).expect(200)["id"], first["id"]);
        post(&world, "k", &other).expect(422);
        post(&world, "l", &body).expect(409);
    }
    world.hub.request("DELETE", "/v1/personas/p0", &[], "");
    world.hub.process().kill();
    world.hub.restart();
    let gone = post(&world, "k", &body).expect(409).to_string();
    assert!(gone.contains("which is gone"), "{gone}");
    // Killed while it does what was asked, it has made the persona with its key, or neither.
    for moment in MOMENTS {
        let key = format!("after {moment}");
        let asking = world.router.background(&format!(
            "exec curl --silent --unix-socket {} --header 'content-type: application/json' \
             --header 'idempotency-key: {key}' --data '{body}' http://hub/v1/personas",
            world.hub.socket().display()
        ));
        std::thread::sleep(Duration::from_millis(moment));
        world.hub.process().kill();
        drop(asking);
        world.hub.restart();
        let made = [0, 1].map(|_| post(&world, &key, &body).expect(201)["id"].clone());
        let listed = world.hub.get("/v1/personas?name=p0").expect(200);
        let ids: Vec<_> =
            listed["personas"].as_array().unwrap().iter().map(|one| one["id"].clone()).collect();
        assert_eq!([&made[0], &made[1]], [&ids[0], &ids[0]], "after {moment} ms");
        assert_eq!(ids.len(), 1);
        world.hub.request("DELETE", "/v1/personas/p0", &[], "");
    }
}
