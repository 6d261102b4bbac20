//! All or nothing: what cannot be done whole leaves nothing, and the operator reads why.

use std::fs;
use std::time::Duration;

use hub_tests::lab::Outcome::Answered;
use hub_tests::lab::world::{FAMILIES, member_at};
use hub_tests::lab::{World, command, program, wait_until};
use hub_tests::root;
use nix::sys::signal::Signal;
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(10);

/// Links, addresses, routes and rules of the hub's namespace.
const STATE: &str =
    "ip -oneline link show | sed 's/ qlen.*//'; ip -oneline address show | sed 's/valid_lft.*//'
    ip route show table all; ip -6 route show table all; ip rule show; ip -6 rule show";

#[test]
fn an_endpoint_into_a_missing_namespace_fails_whole_and_says_why() {
    if !root() {
        return;
    }
    let mut world = World::new(1);
    let guest = world.lab.space("guest");
    world.create(0, &json!({}));
    let before = world.router.sh(STATE);
    let definition = json!({
        "name": "broken",
        "ip_range": ["10.77.0.0/24", "fd00:77::/64"],
        "endpoints": [
            {"name": "good", "namespace": guest.name()},
            {"name": "bad", "namespace": "nobody-made-this"},
        ],
    });
    let view = world.hub.send("POST", "/v1/personas", &definition).expect(201);
    assert_eq!(view["state"], "failed", "{view:#}");
    let conditions = view["conditions"].to_string();
    assert!(conditions.contains("nobody-made-this"), "{conditions}");
    // It may be tried once more when the network has changed since.
    wait_until("nothing of it is left", Duration::from_secs(5), || {
        world.router.sh(STATE) == before && !guest.ip("-oneline link show").contains("eth0")
    });
    let maps = world.hub.get("/v1/status").expect(200);
    assert!(!maps["attachments"].to_string().contains("\"hub"), "{maps:#}");
    world.outside.expect_ping(member_at(0, true), Answered);

    let shown = world.hub.hubctl(&["persona", "show", "broken"]);
    assert!(shown.stdout.contains("failed") && shown.stdout.contains("nobody-made-this"), "{}", shown.stdout);
    assert_eq!(world.hub.send("DELETE", "/v1/personas/broken", &json!(null)).status, 204);
    assert_eq!(world.router.sh(STATE), before);
}

#[test]
fn a_full_disk_refuses_changes_and_changes_nothing() {
    if !root() {
        return;
    }
    let world = World::new(2);
    let state = world.lab.folder().join("state");
    nix::mount::mount(Some("none"), &state, Some("tmpfs"), nix::mount::MsFlags::empty(), Some("size=64k"))
        .unwrap();
    world.create(0, &json!({}));
    let before = world.router.sh(STATE);
    fs::write(state.join("filler"), vec![0; 1 << 20]).unwrap_err();
    let answer = world.hub.send("POST", "/v1/personas", &World::definition(1, &json!({})));
    assert_eq!(answer.status, 507, "{:#}", answer.body);
    assert!(answer.body.to_string().contains("stored"), "{:#}", answer.body);
    let rules = json!([{"protocol": "any", "action": "deny"}]);
    let deny = World::definition(0, &json!({"security_policies": rules}));
    assert_eq!(world.hub.send("PUT", "/v1/personas/p0", &deny).status, 507);
    assert_eq!(world.hub.get("/v1/personas/p1").status, 404);
    assert_eq!(world.router.sh(STATE), before);
    for v4 in FAMILIES {
        world.outside.expect_ping(member_at(0, v4), Answered);
    }
    fs::remove_file(state.join("filler")).unwrap();
    world.create(1, &json!({}));
}

#[test]
fn a_bad_document_changes_nothing_and_is_shown_with_a_caret() {
    if !root() {
        return;
    }
    let world = World::new(1);
    let file = world.hub.documents().join("team.yaml");
    let good = "kind: persona\nname: team\nip_range: [10.100.0.0/24, 'fd00:100::/64']\ninterfaces: [seg0]\n";
    fs::write(&file, good).unwrap();
    world.hub.hubctl(&["apply"]).expect_success();
    world.active("team");
    let view = world.hub.get("/v1/personas/team").expect(200);
    assert_eq!(view["origin"]["by"], "file");
    assert_eq!(world.hub.send("PUT", "/v1/personas/team", &view["definition"]).status, 409);

    let bad = good.replace("10.100.0.0/24", "10.100.0.7/24") + "protcols: [tcp]\n";
    fs::write(&file, bad).unwrap();
    let said = world.hub.hubctl(&["apply"]);
    let text = said.stdout + &said.stderr;
    assert_eq!(said.status.and_then(|status| status.code()), Some(5), "{text}");
    for part in ["team.yaml:3:", "10.100.0.0/24", "protcols", "^"] {
        assert!(text.contains(part), "`{part}` is missing: {text}");
    }
    let mut world = world;
    world.hub.process().signal(Signal::SIGHUP);
    wait_until("the status tells", LIMIT, || !world.hub.get("/v1/status").body["documents_error"].is_null());
    for v4 in FAMILIES {
        world.outside.expect_ping(member_at(0, v4), Answered);
    }
    assert_eq!(world.hub.get("/v1/personas/team").expect(200)["generation"], view["generation"]);

    let check = |path: &std::path::Path| {
        let mut hubctl = std::process::Command::new(program("hubctl"));
        command(hubctl.arg("check").arg(path), "", LIMIT)
    };
    assert_eq!(check(&file).status.and_then(|status| status.code()), Some(5));
    fs::write(&file, good).unwrap();
    assert!(check(&file).success());
    world.hub.hubctl(&["apply"]).expect_success();
    assert!(world.hub.get("/v1/status").body["documents_error"].is_null());
}

#[test]
fn a_second_hub_is_kept_away() {
    if !root() {
        return;
    }
    let world = World::new(1);
    world.create(0, &json!({}));
    let mut second = world.router.program(&program("hubd").display().to_string());
    second.args(["run", "--config"]).arg(world.lab.folder().join("hub.yaml"));
    let said = command(&mut second, "", LIMIT);
    assert!(said.status.is_some_and(|status| !status.success()), "{said:?}");
    assert!((said.stdout + &said.stderr).contains("another hubd holds"), "it does not say why");
    world.outside.expect_ping(member_at(0, true), Answered);
}

#[test]
fn hub_yaml_is_read_again_as_far_as_a_running_hub_can_change() {
    if !root() {
        return;
    }
    let world = World::with(1, "failsafe: {ports: [tcp/22]}");
    let file = world.lab.folder().join("hub.yaml");
    let before = fs::read_to_string(&file).expect("it is there");
    let asked = json!({"name": "a", "ip_range": "auto/26"});
    world.hub.send("POST", "/v1/personas", &asked).expect(422);
    let more = "pools: {lab: 10.200.0.0/16}\nlife: {max_ttl: 1h, default_ttl: 5m}\nlimits: {flows: 4096}\n";
    fs::write(&file, before.clone() + more).expect("it is written");
    let plan = world.hub.hubctl(&["plan"]).expect_success();
    assert!(plan.contains("hub.yaml would change: pools, life"), "{plan}");
    world.hub.send("POST", "/v1/personas", &asked).expect(422);
    let apply = world.hub.hubctl(&["apply"]).expect_success();
    assert!(apply.contains("restart hubd for: limits"), "{apply}");
    let view = world.hub.send("POST", "/v1/personas", &asked).expect(201);
    assert_eq!(view["ranges"], json!(["10.200.0.0/26"]));
    assert!(view["expires_at"].is_string(), "{view:#}");
    assert!(world.hub.log().contains("hub.yaml differs in what needs a restart"));
    // A mistake changes nothing and is shown where it is.
    fs::write(&file, before + "pools: {lab: 10.200.0.1/16}\n").expect("it is written");
    let refused = world.hub.hubctl(&["apply"]);
    assert!(!refused.success() && refused.stderr.contains("10.200.0.0/16"), "{}", refused.stderr);
    assert_eq!(world.hub.get("/v1/pools").body["pools"][0]["prefixes"], json!(["10.200.0.0/16"]));
}
