//! Changes that go back by themselves: in time, after a crash, after a reboot; and stay when confirmed.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::path::PathBuf;
use std::time::Duration;

use hub_tests::lab::Outcome::{Answered, Silent};
use hub_tests::lab::world::{FAMILIES, member_at};
use hub_tests::lab::{Stopwatch, World, seconds, slowness, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

/// A world whose member serves port 80, which the persona allows.
fn world() -> (World, hub_tests::lab::Server) {
    let world = World::new(1);
    let server = world.members[0].serve(&[80]);
    world.create(0, &rules("allow"));
    for v4 in FAMILIES {
        world.outside.expect_tcp(member_at(0, v4), 80, Answered);
    }
    (world, server)
}

fn rules(action: &str) -> Value {
    json!({"security_policies": [{"protocol": "tcp", "port": 80, "action": action}]})
}

/// A file that shuts the member off, and has another persona.
fn change(world: &World) -> PathBuf {
    let file = world.lab.folder().join("change.yaml");
    let mut shut = World::definition(0, &rules("deny"));
    shut["kind"] = json!("persona");
    let other = json!({"kind": "persona", "name": "other", "ip_range": "10.200.0.0/24"});
    std::fs::write(&file, format!("{shut}\n---\n{other}\n")).unwrap();
    file
}

fn apply(world: &World, confirm: &str) {
    let file = change(world).display().to_string();
    let said = world.hub.hubctl(&["apply", &file, "--confirm", confirm]).expect_success();
    assert!(said.contains("+ other") && said.contains("~ p0") && said.contains("goes back at"), "{said}");
}

/// Whether that time was over, and a second of it more was not.
fn is_after(amount: u32, elapsed: Duration) -> bool {
    let unit = Duration::from_secs(1) * slowness();
    (unit * amount..unit * (amount + 1)).contains(&elapsed)
}

fn is_tried(world: &World) -> bool {
    let rules = &world.hub.get("/v1/personas/p0").body["definition"]["security_policies"];
    rules[0]["action"] == "deny" && world.hub.get("/v1/personas/other").status == 200
}

fn is_back(world: &World) -> bool {
    let rules = &world.hub.get("/v1/personas/p0").body["definition"]["security_policies"];
    rules[0]["action"] == "allow" && world.hub.get("/v1/personas/other").status == 404
}

fn conditions(world: &World) -> String {
    world.hub.get("/v1/status").body["conditions"].to_string()
}

#[test]
fn an_unconfirmed_change_goes_back_in_time() {
    if !root() {
        return;
    }
    let (world, _server) = world();
    let watch = Stopwatch::start();
    apply(&world, &seconds(4));
    assert!(is_tried(&world));
    for v4 in FAMILIES {
        world.outside.expect_tcp(member_at(0, v4), 80, Silent);
    }
    assert!(conditions(&world).contains("ConfirmationPending"));
    world.hub.send("DELETE", "/v1/personas/p0", &Value::Null).expect(409);
    world.hub.send("POST", "/v1/personas", &World::definition(1, &json!({}))).expect(409);
    assert!(world.hub.hubctl(&["apply"]).stderr.contains("waits for confirmation"));
    wait_until("the change is back", Duration::from_secs(15), || is_back(&world));
    let elapsed = watch.elapsed();
    assert!(is_after(4, elapsed), "{elapsed:?}");
    for v4 in FAMILIES {
        world.outside.expect_tcp(member_at(0, v4), 80, Answered);
    }
    assert!(conditions(&world).contains("Reverted"), "{}", conditions(&world));
    world.hub.send("POST", "/v1/confirm", &Value::Null).expect(404);
}

#[test]
fn a_confirmed_change_stays_and_a_reverted_one_goes_at_once() {
    if !root() {
        return;
    }
    let (mut world, _server) = world();
    apply(&world, "60s");
    world.hub.hubctl(&["revert"]).expect_success();
    assert!(is_back(&world));
    world.outside.expect_tcp(member_at(0, true), 80, Answered);
    apply(&world, &seconds(2));
    world.hub.hubctl(&["confirm"]).expect_success();
    std::thread::sleep(Duration::from_secs(3) * slowness());
    assert!(is_tried(&world) && !conditions(&world).contains("ConfirmationPending"));
    world.hub.process().kill();
    world.hub.restart();
    assert!(is_tried(&world));
    world.outside.expect_tcp(member_at(0, true), 80, Silent);
}

#[test]
fn a_killed_daemon_that_comes_back_in_time_keeps_the_deadline() {
    if !root() {
        return;
    }
    let (mut world, _server) = world();
    let watch = Stopwatch::start();
    apply(&world, &seconds(12));
    world.hub.process().kill();
    world.outside.expect_tcp(member_at(0, true), 80, Silent);
    world.hub.restart();
    assert!(is_tried(&world));
    assert!(conditions(&world).contains("ConfirmationPending"), "{}", conditions(&world));
    wait_until("the change is back", Duration::from_secs(30), || is_back(&world));
    let elapsed = watch.elapsed();
    assert!(is_after(12, elapsed), "{elapsed:?}");
    world.outside.expect_tcp(member_at(0, true), 80, Answered);
}

#[test]
fn a_daemon_that_comes_back_too_late_goes_back_first() {
    if !root() {
        return;
    }
    let (mut world, _server) = world();
    apply(&world, "1s");
    world.hub.process().kill();
    std::thread::sleep(Duration::from_millis(1_200));
    world.hub.restart();
    assert!(is_back(&world), "ready means: back");
    for v4 in FAMILIES {
        world.outside.expect_tcp(member_at(0, v4), 80, Answered);
    }
}

#[test]
fn after_a_reboot_a_pending_change_goes_back_first() {
    if !root() {
        return;
    }
    let (mut world, _server) = world();
    apply(&world, "10m");
    world.hub.process().kill();
    // Another run of the kernel has another number.
    let file = world.lab.folder().join("state/state.json");
    let mut state: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let boot_id = state["pending"]["deadline"]["boot_id"].as_str().unwrap();
    assert_eq!(boot_id, std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim());
    state["pending"]["deadline"]["boot_id"] = json!("00000000-0000-0000-0000-000000000000");
    std::fs::write(&file, state.to_string()).unwrap();
    world.hub.restart();
    assert!(is_back(&world));
    world.outside.expect_tcp(member_at(0, true), 80, Answered);
}

#[test]
fn a_wrong_file_changes_nothing_and_is_shown_in_place() {
    if !root() {
        return;
    }
    let (world, _server) = world();
    let file = world.lab.folder().join("wrong.yaml");
    let apply = |text: &str| {
        std::fs::write(&file, text).unwrap();
        world.hub.hubctl(&["apply", &file.display().to_string(), "--confirm", "60s"])
    };
    let refused = apply("kind: persona\nname: a\nip_range: 10.1.2.0/24\nprotocolls: [tcp]\n");
    assert_eq!(refused.status.unwrap().code(), Some(5));
    assert!(refused.stderr.contains("wrong.yaml:4:1"), "{}", refused.stderr);
    // What only the hub knows is shown in place, too.
    let good = "kind: persona\nname: a\nip_range: 10.1.2.0/24\n";
    let taken = "kind: persona\nname: b\nip_range: 10.100.0.0/25\n";
    let refused = apply(&format!("{good}---\n{taken}"));
    assert!(!refused.success());
    assert!(
        refused.stderr.contains("wrong.yaml:7") && refused.stderr.contains("overlaps"),
        "{}",
        refused.stderr
    );
    world.hub.get("/v1/personas/a").expect(404);
    assert!(!conditions(&world).contains("ConfirmationPending"));
}
